"""Figures of the reuse study."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_panels
from lggwjax.report.language import Text
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
    saved = []

    def panels(value: Callable[[Run], Column]) -> list[tuple[str, list[Line]]]:
        found = []
        for data in sets:
            lines = [
                seed_line(f"n = {num:,}", runs[0].passes[1:], [value(run)[1:] for run in runs])
                for num, runs in by_size(reused, data).items()
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
        (f"{data}, n = {num:,}", _bound_lines(runs)) for data in sets for num, runs in [_middle(by_size(reused, data))]
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
                    for num, runs in by_size(reused, data).items()
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
