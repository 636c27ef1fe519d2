"""Figures of the reuse study."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_panels
from lggwjax.report.language import Text, joined
from lggwjax.report.statistics import Interval
from lggwjax.report.studies import reuse_words as words
from lggwjax.report.studies.common import interval_text
from lggwjax.report.studies.reuse_runs import Column, Run, by_size
from lggwjax.report.studies.seeds import seed_line
from lggwjax.report.study import StudyRecords


def save_figures(
    study: StudyRecords,
    reused: list[Run],
    sets: list[str],
    worth: dict[tuple[str, int | None, int], Column],
    lead: dict[str, Interval],
) -> list[SavedFigure]:
    """Draw the study and write its figures.

    Args:
        study: Where to.
        reused: Runs over samples used again and again.
        sets: Names of the data, in the order of the page.
        worth: For each data set, size and seed what passes are worth at each look.
        lead: For each data set the monitor's lead.

    Returns:
        The figures.
    """
    folder = study.folder / "figures"
    values: dict[str, Callable[[Run], Column]] = {
        "deviation": lambda run: run.columns["deviation"],
        "descent": lambda run: run.columns["descent"],
        "worth": lambda run: worth[run.data, run.num, run.seed],
    }
    shown = {
        name: [(data, _size_lines(by_size(reused, data), value)) for data in sets] for name, value in values.items()
    }
    shown["bounds"] = [
        (f"{data}, n = {num:,}", _bound_lines(runs)) for data in sets for num, runs in [_middle(by_size(reused, data))]
    ]
    saved = []
    for name, ylabel in words.AXES.items():
        title, caption = words.FIGURES[name]
        fig, _ = draw_panels(shown[name], "passes over the same samples", ylabel, sharey=False, xlog=True, ylog=True)
        alt = words.PANELS_ALT.format(title=title, names=joined([Text.same(data) for data in sets]))
        saved.append(save_figure(folder, name, fig, _frame(shown[name]), title=title, caption=caption, alt=alt))
    return [*saved, _save_lead(folder, lead)]


def _size_lines(groups: dict[int, list[Run]], value: Callable[[Run], Column]) -> list[Line]:
    """A line a sample size, from the first pass on."""
    return [
        seed_line(f"n = {num:,}", runs[0].passes[1:], [value(run)[1:] for run in runs]) for num, runs in groups.items()
    ]


def _save_lead(folder: Path, lead: dict[str, Interval]) -> SavedFigure:
    fig, _ = draw_intervals(list(lead), list(lead.values()), "looks by which the monitor is earlier")
    data = pd.DataFrame([{"data": name} | found._asdict() for name, found in lead.items()])
    title, caption = words.FIGURES["lead"]
    parts = [Text.same(f"{name} {interval_text(found)}") for name, found in lead.items()]
    alt = words.LEAD_ALT.format(parts=joined(parts))
    return save_figure(folder, "lead", fig, data, title=title, caption=caption, alt=alt)


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
