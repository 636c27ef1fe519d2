"""Rows of intervals in several panels side by side, with the wider intervals of many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lggwjax.report.drawing import BLUE, GREY, INK, style
from lggwjax.report.labels import wrapped
from lggwjax.report.scales import fix_ticks, scale_axis
from lggwjax.report.statistics import Interval


class Row(NamedTuple):
    """An estimate as it is drawn.

    Attributes:
        found: With its 95% interval, drawn thick.
        decided: Whether the point is filled and coloured.
        wide: The interval at the level of many comparisons, drawn thin; None for none.
    """

    found: Interval
    decided: bool
    wide: Interval | None = None


def draw_forest(
    labels: Sequence[str],
    panels: Sequence[tuple[str, Sequence[Row]]],
    xlabel: str,
    *,
    line: float | None = 0.0,
    log: bool = False,
    share: bool = True,
) -> tuple[Figure, np.ndarray]:
    """Draw named rows of intervals, one panel beside the other.

    Args:
        labels: A name a row, from the top.
        panels: Titles (empty for none) and a row a label.
        xlabel: What all horizontal axes show, with the unit; lines of one a panel where ``share`` is false.
        line: Where no difference stands; None for no line.
        log: Logarithmic, for ratios.
        share: Whether all panels have one scale and the label is written once.

    Returns:
        The figure and its axes, one a panel.

    Example:
        >>> row = Row(Interval(0.5, 0.3, 0.7, 0.1, 20), True)
        >>> fig, axes = draw_forest(["LGGW", "margin"], [("digits", [row, row]), ("mnist", [row, row])], "tau")
        >>> [ax.get_title(loc="left") for ax in axes]
        ['digits', 'mnist']
    """
    names = [wrapped(label, 32).replace("\u00a0", " ") for label in map(_together, labels)]
    taken = [1 + 0.55 * name.count("\n") for name in names]
    places = [-(sum(taken[:i]) + taken[i] / 2) for i in range(len(names))]
    width = 5.0 if len(panels) == 1 else 6.6
    with style():
        fig = Figure(figsize=(width, 1.0 + 0.3 * sum(taken) + 0.25 * bool(panels[0][0])), layout="constrained")
        axes = fig.subplots(1, len(panels), squeeze=False)[0]
        ends = [_ends(rows, line, log) for _, rows in panels]
        for index, (ax, (title, rows)) in enumerate(zip(axes, panels, strict=True)):
            for place, row in zip(places, rows, strict=True):
                _draw_row(ax, place, row)
            known = np.concatenate(ends) if share else ends[index]
            if known.size:
                # Two numbers, so that ticks are round ones and not the estimates.
                scale_axis(
                    ax, "x", np.array([known.min(), known.max()]), log=log, room=2.6 if len(panels) == 1 else 1.7
                )
                ticks = _ratio_ticks(float(known.min()), float(known.max())) if log else []
                if len(ticks) > 1:
                    fix_ticks(ax, "x", ticks)
            if line is not None:
                ax.axvline(line, color=INK, linewidth=1, zorder=1)
            ax.set_ylim(-sum(taken) - 0.2, 0.2)
            ax.set_yticks(places, names if index == 0 else [""] * len(names))
            ax.tick_params(axis="y", length=0)
            ax.grid(visible=False, axis="y")
            ax.grid(visible=True, axis="x")
            ax.spines["left"].set_visible(False)
            ax.set_title(title)
        if share:
            fig.supxlabel(wrapped(xlabel, 46 if len(panels) == 1 else 70), fontsize=10)
        else:
            for ax, label in zip(axes, xlabel.split("\n"), strict=True):
                ax.set_xlabel(wrapped(label, 26))
    return fig, axes


def _together(label: str) -> str:
    """Keep a rank and its name, a factor and its sign, a setting and its value on one line."""
    label = label.replace("  ", "\u00a0\u00a0").replace(" x ", "\u00a0x\u00a0").replace(" / ", "\u00a0/\u00a0")
    parts = label.split(", ")
    return ", ".join("\u00a0".join(part.rsplit(" ", 1)) for part in parts) if len(parts) > 1 else label


def _ratio_ticks(low: float, high: float) -> list[float]:
    """Choose round ratios, at most five; fewer than two where the range is too short or too long for them."""
    for digits in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = sorted(d * 10.0**p for d in digits for p in range(-6, 7) if low <= d * 10.0**p <= high)
        if len(found) <= 5:
            return found
    return []


def _ends(rows: Sequence[Row], line: float | None, log: bool) -> np.ndarray:
    """What the axis shows: the thick intervals, and thin ones as far again on each side, beyond which they are cut."""
    scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    thick, thin = (
        np.array([x for interval in given for x in interval[:3]], dtype=float)
        for given in ([row.found for row in rows], [row.wide for row in rows if row.wide is not None])
    )
    thick = scale(np.append(thick[np.isfinite(thick)], [] if line is None else [line]))
    if not thick.size:
        return thick
    room = np.ptp(thick)
    return back(np.append(thick, np.clip(scale(thin[np.isfinite(thin)]), thick.min() - room, thick.max() + room)))


def _draw_row(ax: Axes, place: float, row: Row) -> None:
    colour = BLUE if row.decided else GREY
    for interval, width in ((row.wide, 0.9), (row.found, 2.6)):
        if interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high):
            ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=width, solid_capstyle="butt")
    face = colour if row.decided else "white"
    ax.plot(row.found.value, place, "o", color=colour, markersize=6, markerfacecolor=face)
