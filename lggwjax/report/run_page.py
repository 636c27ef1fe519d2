"""From a run folder to what its page says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lggwjax.report.answer import unfinished
from lggwjax.report.conclusions import conclusions, meaning, meeting, method
from lggwjax.report.document import Document, Table
from lggwjax.report.gallery import save_all
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.phrases import MOVES, UNSEEN, WORDS
from lggwjax.report.quantities import NAMES, PLAIN, STATUS, name_of
from lggwjax.report.records import (
    ESTIMATES,
    NERCS,
    WIDTHS,
    is_fresh,
    load_config,
    load_run,
    move_word,
    num_skipped,
    unseen_word,
)
from lggwjax.report.table import NONE, estimate_text, measured, number_text
from lggwjax.report.verdict import Verdict, verdict, words
from lggwjax.strict import usual_form

_TABLE_ORDER = (
    *("passes", "train_loss", "heldout_loss", "train_accuracy", "heldout_accuracy", "population_descent", "lggw"),
    *("heldout_lggw", "single_width", "union_width", "cloud_width", "heldout_cloud_width", "nerc", "heldout_nerc"),
    *("deviation", "grad_norm", "heldout_grad_norm", "gradient_rms", "feature_width", "features.active_share"),
    *("features.l1", "features.l2"),
)
_STEP = Text("step", "ステップ")


def run_document(folder: str | Path) -> Document:
    r"""Read a run, draw its figures into the folder, and say what they show.

    Args:
        folder: A run folder with ``config.json`` and at least one measurement.

    Returns:
        What its page says.

    Raises:
        ValueError: If the folder is no run folder or has no measurement yet.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> _ = (folder / "metrics.jsonl").write_text('{"step": 0, "train_loss": 2.5}\n')
        >>> run_document(folder).tone
        'undecided'
    """
    with usual_form(folder):
        return _document(Path(folder))


def _document(folder: Path) -> Document:
    records, config = load_run(folder), load_config(folder)
    found, fresh = verdict(records, config), is_fresh(config)
    trained = move_word(config) == "step"
    say, do_not_say = meeting(records, config, found)
    may, may_not = conclusions(records, config, found)
    last = Text("Did the last {move} help?", "最後の{move}は役に立ったか").format(move=MOVES[move_word(config)])
    again = Text("Did using the same samples again still help?", "同じサンプルの再利用はまだ役に立っていたか")
    return Document(
        kind=Text("Training run", "学習の実行") if trained else Text("Checkpoints measured", "チェックポイントの測定"),
        title=_title(folder, config),
        done=_done(records, config),
        question=last if fresh else again,
        answer=found.sentences,
        tone="undecided" if found.word == "unknown" else found.word,
        figures=save_all(folder),
        tables=[_measurements(records, config, found), _counts(records, config), *_quantities(records, config)],
        meaning=meaning(found),
        may=may,
        may_not=may_not,
        method=method(config, found),
        say=say,
        do_not_say=do_not_say,
        config=config,
        environment=part_of(config, "environment"),
    )


def part_of(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of the configuration, empty where it is missing or of another form."""
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _title(folder: Path, config: Mapping[str, Any]) -> Text:
    model, data = (part_of(config, part).get("name") for part in ("model", "data"))
    if model and data:
        return Text("{model} on {data}", "{model}（データ：{data}）").format(model=model, data=data)
    return Text.same(config.get("name") or folder.resolve().name)


def _done(records: pd.DataFrame, config: Mapping[str, Any]) -> Text:
    model, data, training = (part_of(config, name) for name in ("model", "data", "training"))
    last, times = records.iloc[-1].to_dict(), len(records)
    named = (
        Text("A model ({name})", "モデル（{name}）").format(name=model["name"])
        if model.get("name")
        else Text("A model", "モデル")
    )
    about = Text("{english}{text}", "{japanese}").format(
        english=" " if data.get("description") else "", text=data.get("description") or "", japanese=_held_apart(data)
    )
    left = num_skipped(records)
    skipped = EMPTY
    if any(left):
        skipped = Text(
            " Left out on the way, because their loss or gradient was NaN or infinite: {a} samples trained on and {b} "
            "held out.",
            "損失か勾配が NaN または無限大になったため、訓練サンプル{a}個とホールドアウト{b}個を途中で除外しました。",
        ).format(a=left[0], b=left[1])
    values: dict[str, Any] = {"named": named, "num": times, "s": "s" * (times != 1), "about": about, "skipped": skipped}
    if move_word(config) == "move":
        return Text(
            "{named} was measured at {num} checkpoint{s} made elsewhere.{skipped}{about}",
            "{named}を、別のところで作られた{num}個のチェックポイントで測定しました。{skipped}{about}",
        ).format(**values)
    where = Text(" on {name}", "{name} で").format(name=data["name"]) if data.get("name") else EMPTY
    passes = EMPTY
    if not pd.isna(last["passes"]) and not is_fresh(config):
        passes = Text(" ({p} passes)", "（{p}エポック）").format(p=number_text(last["passes"]))
    samples = data.get("num_samples")
    if is_fresh(config):
        reuse = Text("with new samples at every step", "毎ステップ新しいサンプルを使って")
    elif isinstance(samples, int):
        reuse = Text(f"over the same {samples:,} samples", f"同じ{samples:,}個のサンプルを使って")
    else:
        reuse = Text("over the same samples", "同じサンプルを使って")
    early = unfinished(records, config)
    early = early if early is EMPTY else Text(f" {early.en}", early.ja)
    values |= {"where": where, "steps": f"{last['step']:,.0f}", "passes": passes, "reuse": reuse}
    return Text(
        "{named} was trained{where} for {steps} step{more}{passes} {reuse} ({how}), and measured {num} time{s} on the "
        "way.{early}{skipped}{about}",
        "{named}を{where}{reuse}{steps}ステップ{passes}学習させ（{how}）、途中で{num}回測定しました。{early}{skipped}{about}",
    ).format(how=_optimiser(training), early=early, more="s" * (int(last["step"]) != 1), **values)


def _held_apart(data: Mapping[str, Any]) -> str:
    samples, heldout = data.get("num_samples"), data.get("num_heldout", data.get("heldout_samples"))
    told = [f"訓練サンプルは{samples:,}個"] if isinstance(samples, int) else []
    told += [f"ホールドアウトは{heldout:,}個"] if isinstance(heldout, int) else []
    return f"{'、'.join(told)}です。" if told else ""


def _optimiser(training: Mapping[str, Any]) -> Text:
    name = training.get("optimizer")
    parts = [Text.same(name) if name else Text("optimiser not recorded", "最適化手法は記録なし")]
    if training.get("learning_rate") is not None:
        rate = f"{training['learning_rate']:g}"
        parts.append(Text(f"learning rate {rate}", f"学習率{rate}"))
    if "batch_size" in training:
        size = training["batch_size"]
        whole = Text("all samples at each step", "毎ステップ全サンプル")
        parts.append(Text(f"batches of {size:,}", f"バッチサイズ{size:,}") if size else whole)
    return Text(", ".join(part.en for part in parts), "、".join(part.ja for part in parts))


def _measurements(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict) -> Table:
    names = [name for name in _TABLE_ORDER if measured(records, name)]
    unseen, move = UNSEEN[unseen_word(config)], MOVES[move_word(config)]
    rows = []
    for row, word in zip(records.to_dict("records"), words(records), strict=True):
        cells = [_plain_text(n, row[n]) if n in PLAIN else estimate_text(row, n) for n in names]
        rows.append([f"{row['step']:,.0f}", *([WORDS[word]] if found.num_looks else []), *cells])
    judged = [Text("the {move}", "直前の{move}").format(move=move)] if found.num_looks else []
    return Table(
        title=Text("Measurements", "測定結果"),
        headings=[_STEP, *judged, *(name_of(name).format(unseen=unseen) for name in names)],
        rows=rows,
        note=Text(
            "± is half of the 95% interval, and brackets hold it where it is lopsided. For widths and NERC it speaks "
            "of the random draws only, for the others of the held-out samples. The exact numbers are in "
            "metrics.jsonl.",
            "± は95%信頼区間の半分で、左右非対称の場合は [ ] で示します。幅と NERC の区間はランダムな方向だけに、"
            "ほかの量の区間はホールドアウトに関するものです。正確な数値は metrics.jsonl にあります。",
        ),
    )


def _plain_text(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith("accuracy") and not pd.isna(value) else number_text(value)


def _counts(records: pd.DataFrame, config: Mapping[str, Any]) -> Table:
    """Tell apart the numbers that are easily mixed up: trained on, measured, checkpoints, directions."""
    last, fresh = records.iloc[-1], is_fresh(config)
    samples = part_of(config, "data").get("num_samples")
    trained = Text.same(f"{samples:,}") if isinstance(samples, int) else Text("not recorded", "記録なし")
    unmeasured = Text("not measured", "未測定")
    fields = ("lggw.num_samples", "heldout_lggw.num_samples", "lggw.num_checkpoints", "lggw.num_draws")
    probe, heldout, checkpoints, draws = (unmeasured if (n := whole(last[f])) == NONE else n for f in fields)
    drawn = Text("drawn from those trained on", "訓練サンプルから抽出")
    chosen = Text("independent of the path", "経路とは独立") if fresh else drawn
    rows = [
        (
            Text("samples trained on", "訓練サンプル"),
            Text("new ones at every step", "毎ステップ新規") if fresh else trained,
            Text("the sample S that the optimiser sees", "最適化手法が見る標本 S"),
        ),
        (
            Text("samples measured (train probe)", "測定サンプル（訓練プローブ）"),
            probe,
            chosen + Text("; the gradients of these enter the widths", "。この勾配が幅に入る"),
        ),
        (
            Text("samples measured (held-out probe)", "測定サンプル（ホールドアウトプローブ）"),
            heldout,
            Text("never trained on; they speak for unseen data", "訓練には使わず、未見データの代わりとなる"),
        ),
        (
            Text("checkpoints", "チェックポイント"),
            checkpoints,
            Text(
                "points of the path at which gradients were taken, up to the last measurement",
                "最後の測定までに勾配を取った、経路上の点",
            ),
        ),
        (
            Text("random directions", "ランダムな方向"),
            draws,
            Text(
                "Gaussian draws per width; more of them narrow the error bars only",
                "幅1つあたりのガウス乱数の数。増やすと誤差の幅だけが狭まる",
            ),
        ),
    ]
    left = num_skipped(records)
    if any(left):
        rows.insert(
            1,
            (
                Text("samples left out", "除外したサンプル"),
                Text("{a} trained on, {b} held out", "訓練{a}個、ホールドアウト{b}個").format(a=left[0], b=left[1]),
                Text(
                    "their loss or gradient was NaN or infinite; from then on they are not measured",
                    "損失か勾配が NaN または無限大になったもの。以後は測定に使わない",
                )
                if move_word(config) == "move"
                else Text(
                    "their loss or gradient was NaN or infinite; from then on they are neither trained on nor measured",
                    "損失か勾配が NaN または無限大になったもの。以後は学習にも測定にも使わない",
                ),
            ),
        )
    return Table(
        title=Text("Numbers that are easily mixed up", "混同しやすい数"),
        headings=[Text("what", "対象"), Text("how many", "個数"), Text("meaning", "意味")],
        rows=rows,
        numbers=False,
    )


def _quantities(records: pd.DataFrame, config: Mapping[str, Any]) -> list[Table]:
    last, rows = records.iloc[-1], []
    filled = {"unseen": UNSEEN[unseen_word(config)], "move": MOVES[move_word(config)]}
    for name in (*WIDTHS, *NERCS, *(n for n in ESTIMATES if n not in (*WIDTHS, *NERCS))):
        if not measured(records, name):
            continue
        label, what = (text.format(**filled) for text in NAMES[name])
        status = last.get(f"status.{name}")
        known = STATUS.get(str(status), status if isinstance(status, str) else NONE)
        counts = [whole(last.get(f"{name}.{field}")) for field in ("num_samples", "num_checkpoints", "num_draws")]
        rows.append([label, what, known, *counts, name])
    headings = [
        *(Text("quantity", "量"), Text("meaning", "意味"), Text("status", "位置づけ"), Text("samples", "サンプル")),
        *(Text("checkpoints", "チェックポイント"), Text("directions", "方向"), Text("in the records", "記録での名前")),
    ]
    table = Table(
        title=Text("What each quantity is, and what it can claim", "各量の意味と、主張できること"),
        headings=headings,
        rows=rows,
        note=Text("Counts are those of the last measurement.", "個数は最後の測定のものです。"),
        numbers=False,
    )
    return [table] if rows else []


def whole(value: Any) -> str:
    """Write a count, or a dash for none."""
    return NONE if value is None or pd.isna(value) else f"{value:,.0f}"
