"""What the study of sample reuse shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lggwjax.report.document import Document, Finding, SavedFigure, Table, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_panels
from lggwjax.report.language import Text, joined
from lggwjax.report.statistics import Interval, log_slope, mean_interval
from lggwjax.report.studies import reuse_words as words
from lggwjax.report.studies.alarms import Alarm, descent_alarm, excess, is_false, loss_alarm, truth
from lggwjax.report.studies.cases import missing_table
from lggwjax.report.studies.common import (
    asked_for,
    environment,
    interval_text,
    missing_points,
    outcome_of,
    ratio_of,
    write_table,
)
from lggwjax.report.studies.seeds import seed_line
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import number_text

Column = np.ndarray


@dataclass(frozen=True)
class Run:
    """One reused sample, or one stream of fresh ones.

    Attributes:
        data: Name of the data.
        num: n, samples reused; None for a fresh stream.
        seed: Of samples, start and batches.
        samples: Samples taken up to each look, repetitions counted.
        passes: Passes over the sample.
        columns: Numbers of each look by name.
        rules: When each rule says stop: the monitor's, the same without its correction for looking often, and early
            stopping.
        bound: Certified bound on the deviation, and whether it is the sample's own; None without one.
    """

    data: str
    num: int | None
    seed: int
    samples: Column
    passes: Column
    columns: dict[str, Column]
    rules: dict[str, Alarm]
    bound: tuple[float, bool] | None

    @property
    def true_loss(self) -> Column:
        """Loss on samples that no rule saw, or of the population."""
        return self.columns["true_loss"]


def document(study: StudyRecords) -> Document:
    """Say what reuse did, against fresh samples and against early stopping.

    Args:
        study: The records.

    Returns:
        The page; figures and tables are written to the study's folder.
    """
    runs = [_run(point) for point in study.points]
    reused = [run for run in runs if run.num is not None]
    sets = list(dict.fromkeys(run.data for run in reused))
    fresh = {(run.data, run.seed): run for run in runs if run.num is None}
    lead = {data: _lead([run for run in reused if run.data == data]) for data in sets}
    worth = {(run.data, run.num, run.seed): _worth(run, fresh.get((run.data, run.seed))) for run in reused}
    rises = [run for run in reused if truth(run.true_loss).rises]
    return Document(
        kind=Text("Study", "実験研究"),
        title=Text("Sample reuse", "サンプル再利用"),
        done=_done(study, reused, sets) + missing_points(study),
        question=Text("How long may the same samples be used?", "同じサンプルはいつまで使えるのでしょうか。"),
        answer=_answer(reused, rises, sets),
        tone="undecided" if not reused else "helps",
        figures=_figures(study, reused, sets, worth, lead) if reused else (),
        findings=_findings(reused, rises, sets),
        tables=[*missing_table(study), _alarm_table(study, reused, sets), _size_table(study, reused, worth)],
        meaning=words.MEANING,
        may=words.MAY,
        may_not=words.MAY_NOT,
        method=words.METHOD,
        say=_say(rises, worth),
        do_not_say=words.DO_NOT_SAY,
        config=asked_for(study),
        environment=environment(study),
    )


def _run(point: dict[str, Any]) -> Run:
    settings, result = point["settings"], point["result"]
    records, looks = result["records"], result["looks"]
    num, size = settings["n"], settings["config"]["training"]["batch_size"] or settings["config"]["data"]["num_samples"]
    steps = np.array([look["step"] for look in looks], float)
    columns = {name: _column(looks, name) for name in ("watched_loss", "true_loss", "descent", "stderr")}
    for name in ("deviation", "lggw", "nerc"):
        columns[name] = np.array([r[name]["value"] if r.get(name) else np.nan for r in records], float)
    columns["gradient_rms"] = _column(records, "gradient_rms")
    return Run(
        data=settings["data"],
        num=num,
        seed=settings["seed"],
        samples=steps * size,
        passes=steps * size / (num or settings["config"]["data"]["num_samples"]),
        columns=columns,
        rules={
            "monitor": descent_alarm(looks),
            "uncorrected": descent_alarm(looks, result["num_watched"]),
            "stopping": loss_alarm(columns["watched_loss"].tolist()),
        },
        bound=_bound(result.get("claims") or [], num),
    )


def _column(rows: list[dict[str, Any]], name: str) -> Column:
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)


def _bound(claims: list[dict[str, Any]], num: int | None) -> tuple[float, bool] | None:
    """The smallest certified bound on a deviation: the sample's own, where the design allows one, else the split's."""
    found = [
        c for c in claims if c["status"] == "certified" and "deviation" in c["quantity"] and "population" in c["about"]
    ]
    own = [c["value"] for c in found if c["n"] == num]
    other = [c["value"] for c in found if c["n"] != num]
    return (min(own), True) if own else (min(other), False) if other else None


def _of(runs: list[Run], data: str) -> dict[int, list[Run]]:
    """Runs of one data set by sample size."""
    sizes = sorted({run.num for run in runs if run.data == data and run.num is not None})
    return {num: [run for run in runs if run.data == data and run.num == num] for num in sizes}


def _lead(runs: list[Run]) -> Interval:
    """Looks by which the monitor is earlier, over runs whose loss really rises; who never says stop does so at the end."""
    leads = []
    for run in runs:
        if truth(run.true_loss).rises:
            end = len(run.true_loss)
            first, second = (
                end if alarm.look is None else alarm.look for alarm in (run.rules["monitor"], run.rules["stopping"])
            )
            leads.append(second - first)
    return mean_interval(leads)


def _worth(run: Run, fresh: Run | None) -> Column:
    """Fresh samples that bring the loss as low as each look's passes did, over n; NaN beyond what was streamed."""
    if fresh is None or run.num is None:
        return np.full(len(run.samples), np.nan)
    lowest = np.minimum.accumulate(fresh.true_loss)
    found = []
    for loss in np.minimum.accumulate(run.true_loss):
        reached = np.flatnonzero(lowest <= loss)
        index = int(reached[0]) if reached.size else -1
        if index <= 0:
            found.append(0.0 if index == 0 else np.nan)
            continue
        # Linear between the two looks of the stream around that loss.
        before, after = lowest[index - 1], lowest[index]
        share = (before - loss) / (before - after) if before > after else 1.0
        samples = fresh.samples[index - 1] + share * (fresh.samples[index] - fresh.samples[index - 1])
        found.append(samples / run.num)
    return np.array(found)


def _figures(study: StudyRecords, reused, sets, worth, lead) -> list[SavedFigure]:
    folder = study.folder / "figures"
    saved = []

    def panels(value: Callable[[Run], Column]) -> list[tuple[str, list[Line]]]:
        found = []
        for data in sets:
            lines = [
                seed_line(f"n = {num:,}", runs[0].passes[1:], [value(run)[1:] for run in runs])
                for num, runs in _of(reused, data).items()
            ]
            found.append((data, lines))
        return found

    def save(
        name: str, shown: list[tuple[str, list[Line]]], ylabel: str, *, title: Text, caption: Text, **axes
    ) -> None:
        fig, _ = draw_panels(shown, "passes over the same samples", ylabel, **axes)
        alt = Text(
            f"{title.en} Line charts against the passes, one panel for each of: {', '.join(sets)}.",
            f"{title.ja} 横軸はパス数、パネルは {'、'.join(sets)} です。",
        )
        save_figure_of = save_figure(folder, name, fig, _frame(shown), title=title, caption=caption, alt=alt)
        saved.append(save_figure_of)

    save(
        "deviation",
        panels(lambda run: run.columns["deviation"]),
        "deviation (loss per unit of parameter)",
        title=Text(
            "How far is the empirical gradient from the population's?", "経験勾配は母集団勾配からどれだけ離れるか"
        ),
        caption=words.DEVIATION_CAPTION,
        xlog=True,
        ylog=True,
        sharey=False,
    )
    shown = [
        (f"{data}, n = {num:,}", _bound_lines(runs)) for data in sets for num, runs in [_middle(_of(reused, data))]
    ]
    save(
        "bounds",
        shown,
        "loss per unit of parameter",
        title=Text("What bounds the deviation, and what goes along with it", "乖離を抑える上界と、乖離に連れて動く量"),
        caption=words.BOUNDS_CAPTION,
        xlog=True,
        ylog=True,
        sharey=False,
    )
    save(
        "descent",
        panels(lambda run: run.columns["descent"]),
        "population descent of a step (loss)",
        title=Text("Does the next pass still help?", "次のパスはまだ役に立つか"),
        caption=words.DESCENT_CAPTION,
        xlog=True,
        ylog=True,
        sharey=False,
    )
    save(
        "worth",
        [
            (
                data,
                [
                    seed_line(f"n = {num:,}", runs[0].passes[1:], [worth[data, num, run.seed][1:] for run in runs])
                    for num, runs in _of(reused, data).items()
                ],
            )
            for data in sets
        ],
        "fresh samples of the same worth / n",
        title=Text("What are k passes worth in fresh samples?", "k 回のパスは新しいサンプル何個分に当たるか"),
        caption=words.WORTH_CAPTION,
        xlog=True,
        ylog=True,
        sharey=False,
    )
    fig, _ = draw_intervals(sets, [lead[data] for data in sets], "looks by which the monitor is earlier")
    rows = [{"data": data} | lead[data]._asdict() for data in sets]
    saved.append(
        save_figure(
            folder,
            "lead",
            fig,
            pd.DataFrame(rows),
            title=Text("Who says stop first?", "先に止めるのはどちらか"),
            caption=words.LEAD_CAPTION,
            alt=Text(
                "Lead by data set: " + "; ".join(f"{data} {interval_text(lead[data])}" for data in sets) + " looks.",
                "データごとの先行: "
                + "、".join(f"{data} {interval_text(lead[data])}" for data in sets)
                + "(測定回数)。",
            ),
        )
    )
    return saved


def _middle(groups: dict[int, list[Run]]) -> tuple[int, list[Run]]:
    sizes = list(groups)
    num = sizes[(len(sizes) - 1) // 2]
    return num, groups[num]


def _bound_lines(runs: list[Run]) -> list[Line]:
    num, passes = runs[0].num or 1, runs[0].passes[1:]
    lines = [
        seed_line("deviation", passes, [run.columns["deviation"][1:] for run in runs]),
        seed_line("LGGW / √n (descriptive)", passes, [run.columns["lggw"][1:] / math.sqrt(num) for run in runs]),
        seed_line("NERC (descriptive)", passes, [run.columns["nerc"][1:] for run in runs]),
    ]
    bounds = [run.bound for run in runs if run.bound is not None]
    if bounds:
        value, own = bounds[0]
        name = "bound (certified)" if own else "bound of the held-out part (certified)"
        lines.append(Line(name, passes, np.full(len(passes), value), theory=True))
    return lines


def _frame(panels: list[tuple[str, list[Line]]]) -> pd.DataFrame:
    parts = []
    for title, lines in panels:
        for line in lines:
            part = pd.DataFrame({"panel": title, "line": str(line.label), "x": line.x, "value": line.y})
            parts.append(part.assign(low=line.low, high=line.high))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _alarm_table(study: StudyRecords, reused: list[Run], sets: list[str]) -> Table:
    headings = [Text("data", "データ"), Text("rule", "規則"), Text("runs", "実行数")]
    headings += [
        Text("said stop where the loss really rose", "損失が実際に上昇した実行での停止"),
        Text("false alarms", "誤警報"),
        Text("passes until stop, median", "停止までのパス数（中央値）"),
        Text("excess loss kept", "保持した損失の超過"),
    ]
    rows = []
    for data, name in itertools.product(sets, words.RULES):
        runs = [run for run in reused if run.data == data]
        rises = [run for run in runs if truth(run.true_loss).rises]
        caught = sum(run.rules[name].look is not None for run in rises)
        wrong = sum(is_false(run.rules[name], run.true_loss) for run in runs)
        stops = [run.passes[look] for run in runs if (look := run.rules[name].look) is not None]
        kept = mean_interval([100 * excess(run.rules[name], run.true_loss) for run in runs])
        median = number_text(float(np.median(stops)) if stops else None)
        cells = [f"{caught} / {len(rises)}", f"{wrong} / {len(runs)}", median, f"{interval_text(kept)} %"]
        rows.append([data, words.RULES[name], str(len(runs)), *cells])
    note = words.ALARM_NOTE
    table = Table(Text("Monitor against early stopping", "モニターと早期終了の比較"), headings, rows, note)
    _write(study, "alarms", table)
    return table


def _size_table(study: StudyRecords, reused: list[Run], worth: dict) -> Table:
    headings = [
        Text("data", "データ"),
        Text("n", "n"),
        Text("deviation after one pass", "1パス後の乖離"),
        Text("deviation at the end", "終了時の乖離"),
        Text("lowest loss after (passes)", "損失最小のパス数"),
        Text("10 passes are worth", "10パスの価値"),
        Text("end is worth", "終了時の価値"),
        Text("certified bound / largest deviation", "保証付き上界 / 最大の乖離"),
    ]
    rows = []
    for data in dict.fromkeys(run.data for run in reused):
        for num, runs in _of(reused, data).items():
            ten = [int(np.abs(run.passes - 10).argmin()) for run in runs]
            at_ten = mean_interval([worth[data, num, run.seed][i] for run, i in zip(runs, ten, strict=True)])
            at_end = mean_interval([worth[data, num, run.seed][-1] for run in runs])
            ratios = [r.bound[0] / np.nanmax(r.columns["deviation"]) for r in runs if r.bound is not None]
            rows.append(
                [
                    data,
                    f"{num:,}",
                    interval_text(mean_interval([run.columns["deviation"][1] for run in runs])),
                    interval_text(mean_interval([run.columns["deviation"][-1] for run in runs])),
                    interval_text(mean_interval([run.passes[truth(run.true_loss).best] for run in runs])),
                    f"{interval_text(at_ten)} n",
                    f"{interval_text(at_end)} n",
                    number_text(ratios[0]) if ratios else number_text(None),
                ]
            )
    note = words.SIZE_NOTE
    table = Table(Text("By sample size", "サンプル数ごとの結果"), headings, rows, note)
    _write(study, "sizes", table)
    return table


def _write(study: StudyRecords, name: str, table: Table) -> None:
    headings = [heading.en for heading in table.headings]
    write_table(study, name, pd.DataFrame([[str(cell) for cell in row] for row in table.rows], columns=headings))


def _findings(reused: list[Run], rises: list[Run], sets: list[str]) -> list[Finding]:
    found = []
    for data in sets:
        groups = _of(reused, data)
        largest = [(num, np.nanmax(run.columns["deviation"])) for num, runs in groups.items() for run in runs]
        slope = (
            log_slope([n for n, _ in largest], [size for _, size in largest])
            if len(groups) > 2
            else Interval(*[math.nan] * 4, num=0)
        )
        decided = math.isfinite(slope.low) and slope.high < 0
        outcome = "confirmed" if decided and slope.low <= -0.5 <= slope.high else "not decided"
        if math.isfinite(slope.low) and not slope.low <= -0.5 <= slope.high:
            outcome = "not confirmed"
        found.append(
            Finding(
                Text(
                    f"{data}: the largest deviation along the path falls like 1/√n.",
                    f"{data}: 経路上の最大の乖離は 1/√n に比例して小さくなる。",
                ),
                outcome,
                Text(
                    f"exponent {interval_text(slope)} over n = {', '.join(f'{num:,}' for num in groups)}",
                    f"指数 {interval_text(slope)}(n = {'、'.join(f'{num:,}' for num in groups)})",
                ),
            )
        )
        growth = mean_interval(
            [
                math.log(run.columns["deviation"][-1] / run.columns["deviation"][1])
                for run in reused
                if run.data == data and run.columns["deviation"][[1, -1]].min() > 0
            ]
        )
        factor = ratio_of(growth)
        found.append(
            Finding(
                Text(
                    f"{data}: hundreds of passes do not pull the empirical gradient away from the population's.",
                    f"{data}: 何百回のパスを重ねても、経験勾配は母集団勾配から離れていかない。",
                ),
                outcome_of(Interval(-growth.value, -growth.high, -growth.low, growth.stderr, growth.num)),
                Text(
                    f"deviation at the end over that after one pass: {interval_text(factor)} (mean over sizes and seeds)",
                    f"1パス後に対する終了時の乖離の比: {interval_text(factor)}(サンプル数とシードに関する平均)",
                ),
            )
        )
    lead = _lead(reused)
    found.append(
        Finding(
            Text(
                "The population descent says stop before early stopping on the held-out loss does.",
                "母集団降下量は、ホールドアウト損失による早期終了よりも先に停止を指示する。",
            ),
            outcome_of(lead),
            Text(
                f"lead {interval_text(lead)} looks over the {lead.num} runs in which the loss really rises",
                f"損失が実際に上昇した {lead.num} 回の実行で、先行は測定 {interval_text(lead)} 回分",
            ),
        )
    )
    held = [run for run in reused if run.bound is not None]
    if held:
        broken = [
            run for run in held if run.bound and run.bound[1] and run.bound[0] < np.nanmax(run.columns["deviation"])
        ]
        own = [run for run in held if run.bound and run.bound[1]]
        ratio = min(run.bound[0] / np.nanmax(run.columns["deviation"]) for run in held if run.bound)
        found.append(
            Finding(
                Text("The certified bounds on the deviation hold.", "乖離の保証付き上界は成り立つ。"),
                "not confirmed" if broken else "confirmed" if own else "not decided",
                Text(
                    f"held in {len(own) - len(broken)} of {len(own)} runs where it speaks of the sample itself; the "
                    f"tightest bound is {number_text(ratio)} times the largest deviation",
                    f"サンプル自身に関する上界は {len(own)} 回中 {len(own) - len(broken)} 回成立。最も厳しい上界でも最大の乖離の "
                    f"{number_text(ratio)} 倍",
                ),
            )
        )
    del rises
    return found


def _done(study: StudyRecords, reused: list[Run], sets: list[str]) -> Text:
    sizes = sorted({run.num for run in reused if run.num is not None})
    seeds = len({run.seed for run in reused})
    passes = max((run.passes[-1] for run in reused), default=0)
    names = joined([Text.same(data) for data in sets]) if sets else Text.same("–")
    return Text(
        "Networks were trained on {names} with the same n samples for up to {passes:,.0f} passes (n = {sizes}), and on "
        "fresh samples used once; {seeds} seeds, {num} runs.",
        "{names} で、同じ n 個のサンプルを最大 {passes:,.0f} パス使った学習（n = {sizes}）と、新しいサンプルを1回ずつ使う学習を行い"
        "ました。シード数 {seeds}、実行数 {num} です。",
    ).format(names=names, passes=passes, sizes=", ".join(f"{s:,}" for s in sizes), seeds=seeds, num=len(study.points))


def _answer(reused: list[Run], rises: list[Run], sets: list[str]) -> tuple[Text, Text, Text]:
    if not reused:
        none = Text("No point was measured, so there is no answer.", "測定できた点がないため、答えはありません。")
        return none, none, Text("Run the study again with --resume.", "--resume を付けて再実行してください。")
    lead = _lead(reused)
    wrong = [sum(is_false(run.rules[name], run.true_loss) for run in reused) for name in ("monitor", "stopping")]
    first = Text(
        "Compared were {num} trainings that use the same samples again and again; in {rises} of them the loss on unseen "
        "data really rose in the end.",
        "同じサンプルを繰り返し使う学習 {num} 回を比較しました。そのうち {rises} 回では、未見データの損失が最後には実際に上昇しました。",
    ).format(num=len(reused), rises=len(rises))
    word = outcome_of(lead)
    said = {
        "confirmed": Text("said stop earlier than", "より早く停止を指示しました"),
        "not confirmed": Text("said stop later than", "より遅く停止を指示しました"),
        "not decided": Text(
            "said stop neither clearly earlier nor later than", "と比べて早いとも遅いとも言えませんでした"
        ),
    }[word]
    second = Text(
        "The population descent {said} early stopping on the held-out loss (lead {lead} of the looks, 95% interval; false "
        "alarms {a} against {b} of {num}).",
        "母集団降下量は、ホールドアウト損失による早期終了{said}（先行は測定 {lead} 回分、95% 信頼区間。誤警報は {num} 回中 {a} 回、"
        "早期終了は {b} 回）。",
    ).format(said=said, lead=interval_text(lead), a=wrong[0], b=wrong[1], num=len(reused))
    turns = [run.passes[truth(run.true_loss).best] for run in rises]
    third = (
        Text(
            "What to do: reuse samples while the held-out descent clearly helps, and stop at two looks in a row that clearly "
            "hurt; here the lowest loss came after {low} to {high} passes where there was a turn, so no fixed number of passes "
            "is safe.",
            "次の一手: ホールドアウトでの降下量が明らかに正である間はサンプルを再利用し、明らかに負の測定が2回続いたら止めてください。"
            "損失が反転した実行では最小となるパス数が {low}〜{high} とばらついており、決まったパス数なら安全とは言えません。",
        ).format(low=number_text(min(turns)), high=number_text(max(turns)))
        if turns
        else Text(
            "What to do: go on reusing and keep looking; no turn was seen in these runs.",
            "次の一手: 再利用を続け、観測も続けてください。これらの実行では反転は見られませんでした。",
        )
    )
    del sets
    return first, second, third


def _say(rises: list[Run], worth: dict) -> Text:
    tens = [values[-1] for values in worth.values() if np.isfinite(values[-1])]
    del rises
    if not tens:
        return Text(
            "Reusing samples was measured against fresh ones; the fresh stream was too short to say what it is worth.",
            "再利用を新しいサンプルと比べましたが、新しいサンプルの列が短く、価値を数で示すには至りませんでした。",
        )
    return Text(
        "Using the same samples again was worth {low} to {high} times as many fresh ones (median {mid}), and each run turned "
        "at its own time: we look at held-out descent, not at a fixed number of passes.",
        "同じサンプルの再利用は、新しいサンプル {low}〜{high} 倍分（中央値 {mid} 倍）の価値がありました。反転の時期は実行ごとに異なる"
        "ため、決まったパス数ではなくホールドアウトでの降下量を見て判断します。",
    ).format(low=number_text(min(tens)), high=number_text(max(tens)), mid=number_text(float(np.median(tens))))
