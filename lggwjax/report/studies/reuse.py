"""What the study of sample reuse shows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

from lggwjax.report.document import Document, Finding, Table
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.statistics import Interval, log_slope, mean_interval
from lggwjax.report.studies import reuse_words as words
from lggwjax.report.studies.alarms import excess, is_false, truth
from lggwjax.report.studies.cases import missing_table
from lggwjax.report.studies.common import (
    STUDY,
    asked_for,
    environment,
    interval_text,
    missing_points,
    outcome_of,
    ratio_of,
    write_table,
)
from lggwjax.report.studies.reuse_figures import save_figures
from lggwjax.report.studies.reuse_runs import Run, by_size, lead_of, run_of, worth_of
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import number_text

SLOWEST = -0.4
"""Largest exponent of n that counts as a fall like 1/√n: no interval can confirm an exponent of exactly −0.5."""


def document(study: StudyRecords) -> Document:
    """Say what reuse did, against fresh samples and against early stopping.

    Args:
        study: The records.

    Returns:
        The page; figures and tables are written to the study's folder.
    """
    runs = [run_of(point) for point in study.points]
    reused = [run for run in runs if run.num is not None]
    sets = list(dict.fromkeys(run.data for run in reused))
    fresh = {(run.data, run.seed): run for run in runs if run.num is None}
    lead = {data: lead_of([run for run in reused if run.data == data]) for data in sets}
    worth = {(run.data, run.num, run.seed): worth_of(run, fresh.get((run.data, run.seed))) for run in reused}
    rises = [run for run in reused if truth(run.true_loss).rises]
    return Document(
        kind=STUDY,
        title=Text("Sample reuse", "サンプル再利用"),
        done=_done(study, reused, sets) + missing_points(study),
        question=Text("How long may the same samples be used?", "同じサンプルはいつまで使えるのでしょうか。"),
        answer=_answer(reused, rises, sets),
        tone="undecided" if not reused else "helps",
        figures=save_figures(study, reused, sets, worth, lead) if reused else (),
        findings=_findings(reused, sets),
        tables=[*missing_table(study), _alarm_table(study, reused, sets), _size_table(study, reused, worth)],
        meaning=words.MEANING,
        may=words.MAY,
        may_not=words.MAY_NOT,
        method=words.METHOD,
        say=_say(worth),
        do_not_say=words.DO_NOT_SAY,
        config=asked_for(study),
        environment=environment(study),
    )


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
        for num, runs in by_size(reused, data).items():
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


def _growth(runs: list[Run]) -> Interval:
    """Logarithm of the deviation at the end over that after one pass, mean over sizes and seeds."""
    ends = [run.columns["deviation"][[1, -1]] for run in runs]
    return mean_interval([math.log(last / first) for first, last in ends if min(first, last) > 0])


def _findings(reused: list[Run], sets: list[str]) -> list[Finding]:
    found = []
    for data in sets:
        found += [_fall(data, by_size(reused, data)), _stays(data, [run for run in reused if run.data == data])]
    lead = lead_of(reused)
    found.append(
        Finding(words.LEADS, outcome_of(lead), words.LEADS_NUMBERS.format(lead=interval_text(lead), n=lead.num))
    )
    return found + _bounds_hold(reused)


def _fall(data: str, groups: dict[int, list[Run]]) -> Finding:
    """Whether the largest deviation falls with the sample size as theory's rate says."""
    largest = [(num, np.nanmax(run.columns["deviation"])) for num, runs in groups.items() for run in runs]
    slope = Interval(*[math.nan] * 4, num=0)
    if len(groups) > 2:
        slope = log_slope([num for num, _ in largest], [size for _, size in largest])
    outcome = "confirmed" if slope.high <= SLOWEST else "not confirmed" if slope.low > SLOWEST else "not decided"
    sizes = ", ".join(f"{num:,}" for num in groups)
    numbers = words.FALL_NUMBERS.format(slope=interval_text(slope), slowest=number_text(SLOWEST), sizes=sizes)
    return Finding(words.FALL.format(data=data), outcome, numbers)


def _stays(data: str, runs: list[Run]) -> Finding:
    """Whether the deviation stays what it was after one pass."""
    growth = _growth(runs)
    less = Interval(-growth.value, -growth.high, -growth.low, growth.stderr, growth.num)
    numbers = words.STAYS_NUMBERS.format(factor=interval_text(ratio_of(growth)))
    return Finding(words.STAYS.format(data=data), outcome_of(less), numbers)


def _bounds_hold(reused: list[Run]) -> list[Finding]:
    """Whether bounds were kept; only those on the sample's own deviation can be put to the test."""
    held = [(run.bound, np.nanmax(run.columns["deviation"])) for run in reused if run.bound is not None]
    if not held:
        return []
    own = [bound >= largest for (bound, is_own), largest in held if is_own]
    tightest = min(bound / largest for (bound, _), largest in held)
    outcome = "not decided" if not own else "confirmed" if all(own) else "not confirmed"
    numbers = words.HOLD_NUMBERS.format(kept=sum(own), own=len(own), ratio=number_text(tightest))
    return [Finding(words.HOLD, outcome, numbers)]


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
    lead = lead_of(reused)
    wrong = [sum(is_false(run.rules[name], run.true_loss) for run in reused) for name in ("monitor", "stopping")]
    first = Text(
        "Compared were {num} trainings that use the same samples again and again; in {rises} of them the loss on unseen "
        "data really rose in the end.",
        "同じサンプルを繰り返し使う学習 {num} 回を比較しました。そのうち {rises} 回では、未見データの損失が最後には実際に上昇しました。",
    ).format(num=len(reused), rises=len(rises))
    word = outcome_of(lead)
    factors = [ratio_of(_growth([run for run in reused if run.data == data])).value for data in sets]
    second = words.SECOND.format(
        said=words.SAID[word],
        lead=interval_text(lead),
        a=wrong[0],
        b=wrong[1],
        num=len(reused),
        low=number_text(min(factors)),
        high=number_text(max(factors)),
    )
    turns = [run.passes[truth(run.true_loss).best] for run in rises]
    third = words.GO_ON
    if turns:
        low, high = number_text(min(turns)), number_text(max(turns))
        third = words.NEXT[word].format(passes=words.PASSES.format(low=low, high=high) if low != high else EMPTY)
    return first, second, third


def _say(worth: dict) -> Text:
    tens = [values[-1] for values in worth.values() if np.isfinite(values[-1])]
    if not tens:
        return Text(
            "Reusing samples was measured against fresh ones; the fresh stream was too short to say what it is worth.",
            "再利用を新しいサンプルと比べましたが、新しいサンプルの列が短く、価値を数で示すには至りませんでした。",
        )
    return Text(
        "Using the same samples again was worth {low} to {high} times as many fresh ones (median {mid}; {k} of {n} settings "
        "could be told): we watch held-out samples, not a fixed number of passes.",
        "同じサンプルの再利用は、新しいサンプル {low}〜{high} 倍分の価値がありました（中央値 {mid} 倍、{n} 条件中 {k} 条件で判定可能）。"
        "決まったパス数ではなくホールドアウトサンプルを見て判断します。",
    ).format(
        k=len(tens),
        n=len(worth),
        low=number_text(min(tens)),
        high=number_text(max(tens)),
        mid=number_text(float(np.median(tens))),
    )
