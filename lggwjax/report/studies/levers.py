"""The page of the levers: what lowers LGGW / rms, and what that buys."""

from __future__ import annotations

import pandas as pd

from lggwjax.report.document import Document, Finding, Outcome, Table
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.statistics import Interval
from lggwjax.report.studies.common import (
    STUDY,
    asked_for,
    environment,
    interval_text,
    kept,
    missing_points,
    outcome_of,
    slug,
    tau_text,
    write_table,
)
from lggwjax.report.studies.effects import Effect, diverged, summary
from lggwjax.report.studies.lever_families import (
    BASE,
    MIN_LEVERS,
    WIDTH,
    Family,
    families,
    forest_figure,
    gap_figure,
    lever_name,
    lever_table,
)
from lggwjax.report.studies.lever_words import (
    answer_of,
    may_not,
    meaning,
    method,
    sentence_to_say,
    sentences_not_to_say,
    tone_of,
)
from lggwjax.report.study import StudyRecords

_RAW = {
    WIDTH: Text.same("LGGW/rms"),
    "train_loss": Text("train loss", "訓練損失"),
    "heldout_loss": Text("held-out loss", "ホールドアウト損失"),
    "gap": Text("gap", "汎化ギャップ"),
    "heldout_accuracy": Text("accuracy", "正解率"),
    "steps_to_target": Text("steps to target", "到達ステップ"),
}
_HALVES = (
    ((WIDTH, "lggw", "deviation_over_rms", "gap"), Text("widths, deviation and gap", "幅・乖離・汎化ギャップ")),
    (
        ("steps_to_target", "loss_spikes", "prediction_spread", "heldout_accuracy"),
        Text("speed, spikes, spread and accuracy", "速さ・スパイク・ばらつき・正解率"),
    ),
)


def document(study: StudyRecords) -> Document:
    """Write what the levers did, family by family.

    Args:
        study: The records of a study named ``levers``; points may be missing.

    Returns:
        The page; its figures and tables lie in the study's folder.
    """
    found = families(study)
    taus = {family.name: family.rank_together() for family in found}
    for family in found:
        write_table(study, f"levers-{slug(family.name)}", lever_table(family))
    figures = [
        figure
        for family in found
        if family.effects
        for figure in (forest_figure(study, family), gap_figure(study, family, taus[family.name]))
    ]
    missing = missing_points(study)
    gap_claims = [_gap_claim(family, taus[family.name]) for family in found]
    return Document(
        kind=STUDY,
        title=Text(
            "Design levers: what lowers LGGW/rms, and what that buys", "設計変更：何がLGGW/rmsを下げ、何が得られるか"
        ),
        done=Text(
            "One thing was changed at a time in a base design, and each change was measured on the same seeds as the "
            "base.",
            "基準設計を一か所ずつ変更し、それぞれを基準設計と同じシードで測定しました。",
        )
        + missing,
        question=Text("What lowers LGGW/rms, and what does it buy?", "何がLGGW/rmsを下げ、それで何が得られますか。"),
        answer=answer_of(found, taus, missing),
        tone=tone_of(found),
        figures=figures,
        findings=[claim for i, family in enumerate(found) for claim in [*_lever_claims(family), gap_claims[i]]],
        tables=[table for family in found for table in _tables(study, family)],
        meaning=meaning(),
        may=[
            Text(
                "Of the base design, data and schedule measured here: a marked change is one that the seeds cannot "
                "explain, all comparisons of its family counted.",
                "ここで測定した基準設計・データ・学習スケジュールに限り、矢印の付いた変化は、同じ系列の比較をすべて数えた"
                "うえでも、シードの違いだけでは説明できないものです。",
            )
        ],
        may_not=kept([missing, *may_not()]),
        method=method(study, found),
        say=sentence_to_say(found, taus),
        do_not_say=sentences_not_to_say(found, taus),
        config=asked_for(study),
        environment=environment(study),
    )


def _lever_claims(family: Family) -> list[Finding]:
    named = [lever_name(lever) + f" {family.effects[lever][WIDTH].long()}" for lever in family.lowering]
    claims = [
        Finding(
            Text("On {f}: some lever lowers LGGW/rms.", "{f}：LGGW/rmsを下げる設計変更がある。").format(f=family.name),
            "confirmed" if family.lowering else "not decided",
            joined(named) + Text(".", "。")
            if named
            else Text("None is decided among {n} tests.", "{n}個の検定で有意なものはありません。").format(
                n=family.num_tests
            ),
        )
    ]
    pair = family.scale_pair()
    return [*claims, _scale_claim(family, *pair)] if pair else claims


def _scale_claim(family: Family, other: str, effects: list[Effect]) -> Finding:
    by_name = {one.quantity.name: one for one in effects}
    raw, ratio = by_name["lggw"], by_name[WIDTH]
    # The claim is that most of what the scale does to LGGW is gone from the ratio: both ends within half of it.
    half = abs(raw.change.value) / 2
    within = -half < ratio.change.low and ratio.change.high < half
    beyond = ratio.change.low > half or ratio.change.high < -half
    seen = raw.change.low > 0 or raw.change.high < 0
    outcome: Outcome = "not decided"
    if seen and within:
        outcome = "confirmed"
    elif seen and beyond:
        outcome = "not confirmed"
    return Finding(
        Text(
            "On {f}: a larger initialisation of scale-invariant weights moves LGGW, and LGGW/rms less than half as much.",
            "{f}：スケール不変な重みの初期値を大きくするとLGGWは動くが、LGGW/rmsの動きはその半分に満たない。",
        ).format(f=family.name),
        outcome,
        Text(
            "Against {other}: LGGW {raw}, LGGW/rms {ratio}, accuracy {accuracy} (95% intervals, single comparison).",
            "{other}との比較：LGGW {raw}、LGGW/rms {ratio}、正解率 {accuracy}（95%信頼区間、単独の比較）。",
        ).format(
            other=lever_name(other), raw=raw.long(), ratio=ratio.long(), accuracy=by_name["heldout_accuracy"].long()
        ),
    )


def _gap_claim(family: Family, tau: Interval) -> Finding:
    return Finding(
        Text(
            "On {f}: levers that lower LGGW/rms more have smaller held-out gaps.",
            "{f}：LGGW/rmsをより下げる設計変更ほど、汎化ギャップが小さい。",
        ).format(f=family.name),
        outcome_of(tau),
        Text(
            "Kendall's tau {tau} over {n} levers (95% bootstrap over levers){few}.",
            "{n}個の設計変更についてのケンドールのτは{tau}（設計変更に関する95%ブートストラップ区間）{few}。",
        ).format(
            tau=tau_text(tau),
            n=tau.num,
            few=EMPTY
            if tau.num >= MIN_LEVERS
            else Text("; fewer than {n} levers give no interval", "。{n}個未満では区間を示しません").format(
                n=MIN_LEVERS
            ),
        ),
    )


def _tables(study: StudyRecords, family: Family) -> list[Table]:
    first = [Text("lever", "設計変更")]
    names = {lever: Text.same(f"{i} ") + lever_name(lever) for i, lever in enumerate(family.effects, 1)}
    titles = {one.name: one.title for one in family.quantities}
    ranked = Table(
        Text("Ranked by the change of LGGW/rms: {f}", "LGGW/rmsの変化による順位：{f}").format(f=family.name),
        [*first, *titles.values(), Text("remark", "備考")],
        [[names[k], *(one.short() for one in row.values()), family.flag(k)] for k, row in family.effects.items()],
        Text(
            "Change from the base design: × is a ratio, + and − a difference. ↓ lowers, ↑ raises, · not decided (Holm over "
            "all {n} tests of the family, 5%). “scale only”: a norm makes the weights scale-invariant. “scale?”: LGGW "
            "changes decidedly and LGGW/rms does not. “a of b” steps: the target loss was reached in a of b runs, and "
            "steps are then not tested.",
            "基準設計からの変化。×は比、＋と−は差。↓は低下、↑は上昇、·は判定不能（系列内の全{n}検定に対するHolm補正、5%）。"
            "「スケールのみ」は正規化により重みがスケール不変になる場合、「スケール？」はLGGWは有意に変化したがLGGW/rmsは"
            "そうでない場合。ステップの「a/b」は、b回中a回の実行が目標損失に達したことを示し、この場合ステップ数は検定しません。",
        ).format(n=family.num_tests),
    )
    halves = [
        Table(
            Text("95% intervals: {what} ({f})", "95%信頼区間：{what}（{f}）").format(what=what, f=family.name),
            [*first, *(titles[name] for name in columns)],
            [[names[k], *(row[name].long() for name in columns)] for k, row in family.effects.items()],
            Text(
                "Student's t over pairs of seeds, each interval by itself, not widened for being one of many.",
                "シードの対に関するスチューデントのt区間。個々の区間であり、多重比較のために広げてはいません。",
            ),
        )
        for columns, what in _HALVES
    ]
    return [ranked, *halves, _designs(study, family, names)]


def _designs(study: StudyRecords, family: Family, names: dict[str, Text]) -> Table:
    rows, plain = [], []
    for design in [*([BASE] if BASE in family.designs else []), *family.effects]:
        runs = family.designs[design]
        found = {name: summary(runs, name) for name in _RAW}
        done = len(runs) - diverged(runs)
        rows.append(
            [names.get(design, lever_name(design)), *map(interval_text, found.values()), f"{done} / {len(runs)}"]
        )
        plain.append({"design": design, "runs": len(runs), "diverged": diverged(runs)})
        for name, one in found.items():
            plain[-1] |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    write_table(study, f"designs-{slug(family.name)}", pd.DataFrame(plain))
    return Table(
        Text("The designs themselves: {f}", "各設計の測定値：{f}").format(f=family.name),
        [Text("design", "設計"), *_RAW.values(), Text("runs that ended", "完走した実行")],
        rows,
        Text(
            "Means over seeds ± half of the 95% interval, at the last step. Steps to target: of the runs that reached it.",
            "最終ステップにおけるシード平均 ± 95%信頼区間の半幅。到達ステップは目標損失に達するまでのステップ数で、到達した実行のみの平均です。",
        ),
    )
