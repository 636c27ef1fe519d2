"""The page on width scaling: how widths, bounds and the usual measures grow with the model's width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lggwjax.report.document import Document, Finding, Outcome, SavedFigure, Table, Tone, save_figure
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval
from lggwjax.report.studies import width_scaling_labels as labels
from lggwjax.report.studies import width_scaling_words as words
from lggwjax.report.studies.cases import decided, missing_table, with_seeds
from lggwjax.report.studies.common import STUDY, asked_for, environment, kept, missing_points, range_text, write_table
from lggwjax.report.studies.width_scaling_runs import (
    Growth,
    bounds_of,
    by_init,
    draw_growth,
    feature_bounds_of,
    growths_of,
)
from lggwjax.report.study import StudyRecords

MARGIN = 0.1
"""A slope that is surely below it counts as no growth: ten times the width then adds a quarter at most."""
MOST_SLOPE = 0.5
"""Slope of the width of the l2 ball in m dimensions, about the root of m."""


def document(study: StudyRecords) -> Document:
    """Write the study's figures and tables, and say what they show.

    Args:
        study: Records of the study ``width-scaling``.

    Returns:
        The page.
    """
    growths = growths_of(study)
    flat = [_does_not_grow(growth) for growth in growths]
    slower = [_slower_than_usual(growth) for growth in growths]
    narrow = [_slower_than_root(growth) for growth in growths]
    missing = missing_points(study)
    return Document(
        kind=STUDY,
        title=Text("How LGGW grows with the model's width", "モデルの幅とLGGWの増え方"),
        done=words.done(growths) + missing,
        question=Text("Does LGGW grow with the model's width?", "モデルを広くするとLGGWは増えるか"),
        answer=(words.compared(growths) + missing, words.came_out(growths, flat), words.next_step(growths, flat)),
        tone=_tone(flat),
        figures=_figures(study, growths),
        findings=[*flat, *slower, *narrow],
        tables=[*missing_table(study), *_slope_tables(study, growths)],
        meaning=words.meaning(growths),
        may=words.may([*flat, *slower, *narrow]),
        may_not=kept([missing, *words.may_not(growths)]),
        method=words.method(growths, study),
        say=words.say(growths),
        do_not_say=labels.DO_NOT_SAY,
        config=asked_for(study),
        environment=environment(study),
    )


def _tone(flat: Sequence[Finding]) -> Tone:
    if decided(flat, "not confirmed"):
        return "hurts"
    return "helps" if flat and len(decided(flat, "confirmed")) == len(flat) else "undecided"


def _below(found: Interval, limit: float, grows_from: float) -> Outcome:
    """Confirmed where the interval ends below a limit and does not lie above where growth begins."""
    if found.low > grows_from:
        return "not confirmed"
    return "confirmed" if found.high < limit else "not decided"


def _does_not_grow(growth: Growth) -> Finding:
    slope = growth.slope("lggw_over_rms")
    numbers = labels.FLAT_NUMBERS.format(slope=range_text(slope), margin=MARGIN, runs=slope.num)
    claim = labels.FLAT.format(init=words.init_text(growth))
    return with_seeds(Finding(claim, _below(slope, MARGIN, 0.0), numbers), growth.num_seeds)


def _slower_than_usual(growth: Growth) -> Finding:
    """Confirmed if slower than every measure that is known, not confirmed if faster than one."""
    found = {name: growth.slope("lggw_over_rms", over=name) for name in labels.USUAL}
    known = {name: slope for name, slope in found.items() if math.isfinite(slope.low)}
    outcome: Outcome = "not decided"
    if any(slope.low > 0 for slope in known.values()):
        outcome = "not confirmed"
    elif known and all(slope.high < 0 for slope in known.values()):
        outcome = "confirmed"
    claim = labels.SLOWER.format(init=words.init_text(growth))
    return with_seeds(Finding(claim, outcome, words.slower_numbers(found)), growth.num_seeds)


def _slower_than_root(growth: Growth) -> Finding:
    slope = growth.slope("feature_width_over_norm")
    numbers = labels.ROOT_NUMBERS.format(slope=range_text(slope), runs=slope.num, points=words.num_points(growth))
    claim = labels.ROOT.format(init=words.init_text(growth))
    return with_seeds(Finding(claim, _below(slope, MOST_SLOPE, MOST_SLOPE), numbers), growth.num_seeds)


def _figures(study: StudyRecords, growths: Sequence[Growth]) -> list[SavedFigure]:
    growths = [growth for growth in growths if len(growth.widths) > 1]
    if not growths:
        return []
    saved = []
    data = pd.concat([growth.table.assign(init=growth.init) for growth in growths], ignore_index=True)
    for name, title, caption, fig, shown in _drawn(growths):
        columns = ["init", "width", "seed", *(column for column in shown if column in data)]
        alt = words.alt(growths, title, shown)
        numbers = data.filter(columns)
        saved.append(save_figure(study.folder / "figures", name, fig, numbers, title=title, caption=caption, alt=alt))
    return saved


def _drawn(growths: Sequence[Growth]) -> list[tuple[str, Text, Text, Figure, list[str]]]:
    found = []
    for name, (title, caption, ylabel) in labels.FIGURES.items():
        if name in labels.PANELS:
            shown = list(labels.PANELS[name])
            panels = [(labels.PANELS[name][its], by_init(growths, its)) for its in shown]
        else:
            of = bounds_of if name == "bounds" else feature_bounds_of
            panels = [(growth.init, of(growth)) for growth in growths]
            shown = [series.name for series in panels[0][1]]
        fig = draw_growth(panels, ylabel, sharey=name not in labels.PANELS)
        found.append((name, title, caption + labels.SLOPES_NOTE, fig, shown))
    return found


def _slope_tables(study: StudyRecords, growths: Sequence[Growth]) -> list[Table]:
    tables, numbers = [], []
    for growth in growths:
        rows = []
        for name, title in labels.QUANTITIES.items():
            slope, last, seeds = growth.slope(name), growth.last_slope(name), growth.seed_slopes(name)
            uneven = growth.uneven(name)
            rows.append(
                (
                    title,
                    range_text(slope) + ("*" if uneven else ""),
                    words.spread(seeds),
                    range_text(last),
                    f"{slope.num}",
                )
            )
            numbers.append(
                {"init": growth.init, "quantity": name, "slope": slope.value, "low": slope.low, "high": slope.high}
                | {"stderr": slope.stderr, "runs": slope.num, "uneven_spread": uneven}
                | {"lowest_seed": min(seeds, default=math.nan), "highest_seed": max(seeds, default=math.nan)}
                | {"last_slope": last.value, "last_low": last.low, "last_high": last.high}
            )
        title = labels.TABLE_TITLE.format(init=words.init_text(growth))
        tables.append(Table(title, labels.TABLE_HEADINGS, rows, labels.TABLE_NOTE))
    write_table(study, "slopes", pd.DataFrame(numbers))
    return tables
