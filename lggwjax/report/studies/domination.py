"""The page on gradient domination: does a small population gradient go with a small loss, along training?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lggwjax.report.document import Document, Finding, Outcome, SavedFigure, Table, Tone, save_figure
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval
from lggwjax.report.studies import domination_labels as labels
from lggwjax.report.studies import domination_words as words
from lggwjax.report.studies.cases import Case, cases_of, decided, missing_table, with_seeds
from lggwjax.report.studies.common import STUDY, asked_for, environment, kept, missing_points, range_text, write_table
from lggwjax.report.studies.domination_runs import (
    ALPHAS,
    Run,
    constant,
    draw_gaps,
    draw_training,
    exponent,
    numbers_of,
    runs_of,
)
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import NONE, number_text

Runs = list[tuple[Case, list[Run]]]


def document(study: StudyRecords) -> Document:
    """Write the study's figures and tables, and say what they show.

    Args:
        study: Records of the study ``domination``.

    Returns:
        The page.
    """
    found: Runs = [(case, runs_of(case)) for case in cases_of(study)]
    plausible = [_plausible(case, runs) for case, runs in found]
    fits = [_pl_fits(case, runs) for case, runs in found]
    missing = missing_points(study)
    return Document(
        kind=STUDY,
        title=Text("Gradient domination along training", "学習経路に沿った勾配支配"),
        done=words.done(found) + missing,
        question=Text(
            "Is a small population gradient a sign of a small loss?", "母集団勾配が小さければ損失も小さいと言えるか"
        ),
        answer=(words.compared(found) + missing, words.came_out(found), words.next_step(found, plausible)),
        tone=_tone(plausible),
        figures=_figures(study, found),
        findings=[*plausible, *fits],
        tables=[*missing_table(study), _gate_table(study, found), _exponent_table(study, found)],
        meaning=labels.MEANING,
        may=kept(words.may(found)),
        may_not=kept([missing, *labels.MAY_NOT]),
        method=words.method(found),
        say=words.say(found),
        do_not_say=words.do_not_say(found),
        config=asked_for(study),
        environment=environment(study),
    )


def _tone(plausible: Sequence[Finding]) -> Tone:
    if decided(plausible, "not confirmed"):
        return "hurts"
    whole = bool(plausible) and len(decided(plausible, "confirmed")) == len(plausible)
    return "helps" if whole else "undecided"


def _plausible(case: Case, runs: Sequence[Run]) -> Finding:
    """Confirmed if the gate says yes for every seed, not confirmed if it says no for one."""
    verdicts = words.verdicts(runs)
    outcome: Outcome = "not decided"
    if verdicts.count("no"):
        outcome = "not confirmed"
    elif verdicts.count("yes") == case.num_asked:
        outcome = "confirmed"
    finding = Finding(
        Text(
            "{case}: gradient domination is plausible along the path.",
            "{case}：学習経路に沿って勾配支配はもっともらしい。",
        ).format(case=case.title),
        outcome,
        Text(
            "{seeds}: the gate says yes for {yes}, no for {no} and undecided for {open}; largest ratio at a deciding "
            "checkpoint {worst} (limit {limit}).",
            "{seeds}：ゲートの判定は「はい」{yes}、「いいえ」{no}、「判定不能」{open}です。判定を決めたチェックポイントでの比は"
            "最大で{worst}でした（上限 {limit}）。",
        ).format(
            yes=verdicts.count("yes"),
            no=verdicts.count("no"),
            open=len(verdicts) - verdicts.count("yes") - verdicts.count("no"),
            seeds=case.counted,
            worst=_worst_text(max((run.worst() for run in runs), key=_size)),
            limit=number_text(words.limit(runs)),
        ),
    )
    # One clear no is enough: the gate's interval holds within its run.
    return finding if outcome == "not confirmed" else with_seeds(finding, len(runs))


def _pl_fits(case: Case, runs: Sequence[Run]) -> Finding:
    """Decided only where the answer is the same for every least loss between 0 and the least one seen."""
    ends = [exponent(runs), exponent(runs, from_zero=True)]
    outcome: Outcome = "not decided"
    if all(end.high < 2 for end in ends) or all(end.low > 2 for end in ends):
        outcome = "not confirmed"
    elif all(1 < end.low <= 2 <= end.high for end in ends):
        outcome = "confirmed"
    finding = Finding(
        Text("{case}: PL (α = 2) fits the path.", "{case}：PL条件（α = 2）が学習経路に適合する。").format(
            case=case.title
        ),
        outcome,
        Text(
            "{seeds}: fitted exponent {a} with the least loss seen as the least possible one, {b} with 0 as that; "
            "confirmed where both intervals contain 2 and lie above 1.",
            "{seeds}：推定した指数は、観測した最小損失を下限とみなすと{a}、0を下限とみなすと{b}でした。"
            "両方の信頼区間が2を含み、かつ1より上にある場合に「確認された」とします。",
        ).format(a=range_text(ends[0]), b=range_text(ends[1]), seeds=case.counted),
    )
    return with_seeds(finding, ends[0].num)


def _size(found: Interval) -> tuple[float, float]:
    return tuple(-math.inf if math.isnan(x) else x for x in (found.low, found.value))  # pyright: ignore[reportReturnType]


def _worst_text(found: Interval) -> str:
    if math.isnan(found.value):
        return NONE
    high = "∞" if math.isinf(found.high) else number_text(found.high)
    return f"{number_text(found.value)} [{number_text(found.low)}, {high}]"


def _figures(study: StudyRecords, found: Runs) -> list[SavedFigure]:
    panels = [(case.name, runs) for case, runs in found if any(len(run.steps) for run in runs)]
    if not panels:
        return []
    data, folder = numbers_of(panels), study.folder / "figures"
    saved = []
    for name, from_zero in (("gap_against_norm", False), ("loss_against_norm", True)):
        title, caption = labels.FIGURES[name]
        fig = draw_gaps(panels, from_zero=from_zero)
        alt = words.alt(found, title, from_zero)
        caption = caption.format(lost=words.lost(found))
        saved.append(save_figure(folder, name, fig, data, title=title, caption=caption, alt=alt))
    title, caption = labels.FIGURES["along_training"]
    fig = draw_training(panels)
    saved.append(
        save_figure(
            folder, "along_training", fig, data, title=title, caption=caption, alt=words.alt_training(found, title)
        )
    )
    return saved


def _gate_table(study: StudyRecords, found: Runs) -> Table:
    rows, numbers = [], []
    for case, runs in found:
        for run in runs:
            worst, gate = run.worst(), run.gate
            verdict = str(gate.get("verdict", NONE))
            rows.append(
                (
                    case.title + Text(f", seed {run.seed}", f"、シード{run.seed}"),
                    labels.VERDICTS.get(verdict, Text.same(verdict)),
                    _worst_text(worst),
                    number_text(gate.get("limit")),
                    number_text(gate.get("worst_step")),
                    number_text(gate.get("best_step")),
                    f"{run.num_heldout:,}",
                )
            )
            numbers.append(
                {"case": case.name, "seed": run.seed, "verdict": verdict, "ratio": worst.value, "low": worst.low}
                | {"high": worst.high, "limit": gate.get("limit"), "worst_step": gate.get("worst_step")}
                | {"best_step": gate.get("best_step"), "num_heldout": run.num_heldout}
            )
    write_table(study, "gate", pd.DataFrame(numbers))
    return Table(labels.GATE_TITLE, labels.GATE_HEADINGS, rows, labels.GATE_NOTE)


def _exponent_table(study: StudyRecords, found: Runs) -> Table:
    rows, numbers = [], []
    for case, runs in found:
        for from_zero, least in ((False, labels.LEAST_SEEN), (True, labels.LEAST_ZERO)):
            fitted = exponent(runs, from_zero)
            constants = [constant(runs, alpha, from_zero) for alpha in ALPHAS]
            name = case.title + Text(", ", "、") + least
            rows.append((name, range_text(fitted), *map(number_text, constants), str(fitted.num)))
            record: dict[str, Any] = {"case": case.name, "least_loss": "0" if from_zero else "least seen"}
            record |= {"exponent": fitted.value, "low": fitted.low, "high": fitted.high, "runs": fitted.num}
            numbers.append(record | {f"c_{alpha:g}": c for alpha, c in zip(ALPHAS, constants, strict=True)})
    write_table(study, "exponents", pd.DataFrame(numbers))
    return Table(
        labels.EXPONENT_TITLE, labels.EXPONENT_HEADINGS, rows, labels.EXPONENT_NOTE.format(lost=words.lost(found))
    )
