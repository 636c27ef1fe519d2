"""Points with intervals in both directions, numbered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lggwjax.report.drawing import BLUE, INK, Line, draw_points, style
from lggwjax.report.scales import scale_axis
from lggwjax.report.statistics import Interval


def draw_crosses(
    x: Sequence[Interval],
    y: Sequence[Interval],
    xlabel: str,
    ylabel: str,
    *,
    lines: tuple[float | None, float | None] = (None, None),
    log: tuple[bool, bool] = (False, False),
) -> tuple[Figure, Axes]:
    """Draw numbered points with their intervals.

    Args:
        x: Where along the horizontal axis, one a point.
        y: How high.
        xlabel: What the horizontal axis shows, with its unit.
        ylabel: The same of the vertical one.
        lines: Where no difference stands on either axis, to be marked.
        log: Which axes are logarithmic.

    Returns:
        The figure and its axes; all points are shown, intervals that reach much further are cut.

    Example:
        >>> fig, ax = draw_crosses([Interval(1.0, 0.9, 1.1, 0.05, 5)], [Interval(2.0, 1.9, 2.1, 0.05, 5)], "rms", "gap")
        >>> [text.get_text() for text in ax.texts]
        ['1']
    """
    across, values, low, high = ([one[i] for one in given] for given, i in ((x, 0), (y, 0), (y, 1), (y, 2)))
    points = Line("", across, values, low, high)
    fig, ax = draw_points([points], xlabel, ylabel, xlog=log[0], ylog=log[1])
    with style():
        for draw, line in zip((ax.axvline, ax.axhline), lines, strict=True):
            if line is not None:
                draw(line, color=INK, linewidth=0.8, zorder=1)
        scale_axis(ax, "x", _room(x, lines[0], log[0]), log=log[0])
        scale_axis(ax, "y", _room(y, lines[1], log[1]), log=log[1])
        for across, up in zip(x, y, strict=True):
            if math.isfinite(up.value) and math.isfinite(across.low):
                ax.plot([across.low, across.high], [up.value] * 2, color=BLUE, alpha=0.5, linewidth=1.4)
        _number(ax, np.array([[one.value, other.value] for one, other in zip(x, y, strict=True)]))
    return fig, ax


def _number(ax: Axes, points: np.ndarray) -> None:
    """Write each point's number beside it: to the left where another point is close on the right."""
    places = ax.transAxes.inverted().transform(ax.transData.transform(points.reshape(-1, 2)))
    for rank, (point, place) in enumerate(zip(points, places, strict=True), 1):
        if not np.isfinite(point).all():
            continue
        ahead = (places - place)[np.arange(len(places)) != rank - 1]
        crowded = ((ahead[:, 0] >= 0) & (ahead[:, 0] < 0.06) & (np.abs(ahead[:, 1]) < 0.05)).any()
        shift, side = ((-4, 3), "right") if crowded else ((4, 3), "left")
        ax.annotate(str(rank), point, xytext=shift, textcoords="offset points", fontsize=8, ha=side)


def _room(intervals: Sequence[Interval], line: float | None, log: bool) -> np.ndarray:
    """The two ends of an axis that shows all estimates, and of intervals half as far again as these reach."""
    scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = scale(np.array([one[:3] for one in intervals], dtype=float).reshape(-1, 3))
    points = found[:, 0][np.isfinite(found[:, 0])]
    if line is not None:
        points = np.append(points, scale(np.array(line)))
    if not points.size:
        return points
    ends = found[:, 1:][np.isfinite(found[:, 1:])]
    spread = max(float(np.ptp(points)), 1e-3) / 2 if np.ptp(points) > 0 else math.inf
    ends = np.append(np.clip(ends, points.min() - spread, points.max() + spread), points)
    return back(np.array([ends.min(), ends.max()]))
