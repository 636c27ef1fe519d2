"""Lines with bands, small multiples, points and rows of intervals, each labelled where it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lggwjax.report.labels import ends_of, label_ends, legend_above, wrapped
from lggwjax.report.lines import Line, heights, places, plot_line, with_looks
from lggwjax.report.scales import scale_axis
from lggwjax.report.statistics import Interval
from lggwjax.report.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, style

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "Line",
    "draw_intervals",
    "draw_lines",
    "draw_panels",
    "draw_points",
    "new_figure",
    "style",
]


def new_figure(height: float = 3.5, width: float = 5.0) -> tuple[Figure, Axes]:
    """Make a figure of one column's width that belongs to no window; call it inside `style`.

    Example:
        >>> fig, ax = new_figure(2.0)
        >>> [float(inches) for inches in fig.get_size_inches()]
        [5.0, 2.0]
    """
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots()


def draw_lines(
    lines: Sequence[Line],
    xlabel: str,
    ylabel: str,
    *,
    xlog: bool = False,
    ylog: bool = False,
    ylim: tuple[float, float] | None = None,
    height: float = 3.5,
    zero_line: bool = False,
) -> tuple[Figure, Axes]:
    """Draw lines with bands, each with its name at its end.

    Args:
        lines: The lines; one without a finite number is left out.
        xlabel: What the horizontal axis shows, with its unit.
        ylabel: The same of the vertical one.
        xlog: Logarithmic; where numbers are zero or below, linear near zero and logarithmic beyond.
        ylog: The same of the vertical axis.
        ylim: Ends of the vertical axis; by default those of the numbers.
        height: Inches; the figure grows where the names need more.
        zero_line: Whether zero is on the vertical axis and marked.

    Returns:
        The figure and its axes.

    Example:
        >>> sizes = np.array([16, 64, 256])
        >>> seen = Line("measured", sizes, 2 * sizes**0.5, low=1.8 * sizes**0.5, high=2.2 * sizes**0.5)
        >>> bound = Line("bound (certified)", sizes, 9 * sizes**0.5, theory=True)
        >>> fig, ax = draw_lines([seen, bound], "samples n", "width (nats per unit of parameter)", xlog=True, ylog=True)
        >>> ax.get_xscale(), [line.get_color() for line in ax.lines[:2]] == [BLUE, GREY]
        ('log', True)
    """
    drawn = with_looks([line for line in lines if line.known.any()])
    with style():
        fig, ax = new_figure(height)
        for line in drawn:
            plot_line(ax, line)
        if zero_line:
            ax.axhline(0, color=INK, linewidth=1, zorder=1.5)
        scale_axis(ax, "x", places(drawn), log=xlog)
        scale_axis(ax, "y", heights(drawn, log=ylog, zero=zero_line), log=ylog, limits=ylim)
        ax.set_xlabel(wrapped(xlabel, 44))
        ax.set_ylabel(wrapped(ylabel, int(10 * height)))
        label_ends(fig, ax, ends_of(drawn))
    return fig, ax


def draw_panels(
    panels: Sequence[tuple[str, Sequence[Line]]],
    xlabel: str,
    ylabel: str,
    *,
    columns: int = 2,
    sharey: bool = True,
    xlog: bool = False,
    ylog: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Draw small multiples: panels with a title each, in which lines of one name look alike.

    Args:
        panels: Titles and lines.
        xlabel: What all horizontal axes show, with its unit.
        ylabel: The same of the vertical ones.
        columns: Panels side by side.
        sharey: Whether all have one vertical scale, so that heights can be compared.
        xlog: As in `draw_lines`.
        ylog: The same.

    Returns:
        The figure and its axes, an array of rows and columns; places without a panel are hidden.

    Example:
        >>> panels = [(f"seed {seed}", [Line("loss", [1, 2, 3], [3, 2, 1 + seed])]) for seed in range(3)]
        >>> fig, axes = draw_panels(panels, "step", "loss (nats)")
        >>> axes.shape, axes[1, 0].get_title(loc="left")
        ((2, 2), 'seed 2')
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 5.0 if columns < 3 else 2.3 * columns
    shown = [[line for line in lines if line.known.any()] for _, lines in panels]
    first: dict[str, Line] = {}
    for line in (line for lines in shown for line in lines):
        first.setdefault(str(line.label), line)
    looks = dict(zip(first, with_looks(list(first.values())), strict=True))
    alike = [[_like(line, looks[str(line.label)]) for line in lines] for lines in shown]
    every = [line for lines in alike for line in lines]
    with style():
        fig = Figure(figsize=(width, 1.9 * rows + 0.8), layout="constrained")
        axes = fig.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
        for index, ax in enumerate(axes.flat):
            if index >= len(panels):
                ax.set_visible(False)
                continue
            for line in alike[index]:
                plot_line(ax, line)
            ax.set_title(wrapped(panels[index][0], int(15 * width / columns)))
            scale_axis(ax, "x", places(every), log=xlog, room=width / columns - 0.7)
            scale_axis(ax, "y", heights(every if sharey else alike[index], log=ylog), log=ylog, room=1.4)
            ax.tick_params(labelbottom=index + columns >= len(panels))
        fig.supxlabel(wrapped(xlabel, int(13 * width)), fontsize=10)
        fig.supylabel(wrapped(ylabel, int(17 * rows)), fontsize=10)
        legend_above(fig, list(looks.values()), width)
    return fig, axes


def draw_points(
    groups: Sequence[Line],
    xlabel: str,
    ylabel: str,
    *,
    xlog: bool = False,
    ylog: bool = False,
    lines: Sequence[Line] = (),
) -> tuple[Figure, Axes]:
    """Draw points, group by group, and lines through or beside them.

    Args:
        groups: The points; each group has a colour and a shape, named above the figure if there are several.
        xlabel: As in `draw_lines`.
        ylabel: The same.
        xlog: The same.
        ylog: The same.
        lines: Fits and bounds, named at their ends.

    Returns:
        The figure and its axes.

    Example:
        >>> groups = [Line("digits", [1, 2, 3], [1.1, 1.9, 3.2]), Line("linear", [1, 2], [0.5, 1.0])]
        >>> equal = Line("equal", [1, 3], [1, 3], theory=True)
        >>> fig, ax = draw_points(groups, "width (nats)", "gap (nats)", lines=[equal])
        >>> [text.get_text() for text in fig.legends[0].get_texts()]
        ['digits', 'linear']
    """
    points = with_looks([group for group in groups if group.known.any()])
    drawn = with_looks([replace(line, marker=None) for line in lines if line.known.any()], skip=len(points))
    with style():
        fig, ax = new_figure(3.8)
        for group in points:
            plot_line(ax, group, scattered=True)
        for line in drawn:
            plot_line(ax, line)
        scale_axis(ax, "x", places([*points, *drawn]), log=xlog)
        scale_axis(ax, "y", heights([*points, *drawn], log=ylog), log=ylog)
        ax.set_xlabel(wrapped(xlabel, 44))
        ax.set_ylabel(wrapped(ylabel, 36))
        legend_above(fig, points, 5.0, scattered=True)
        label_ends(fig, ax, ends_of(drawn))
    return fig, ax


def draw_intervals(
    labels: Sequence[str],
    intervals: Sequence[Interval],
    xlabel: str,
    *,
    zero: float | None = 0.0,
    marks: Sequence[str] | None = None,
    xlog: bool = False,
) -> tuple[Figure, Axes]:
    """Draw estimates as rows, a point and its interval each: filled where the interval lies on one side of a line.

    Args:
        labels: A name a row, from the top.
        intervals: The estimates; one without ends is an open point, one without a value is left empty.
        xlabel: What the axis shows, with its unit.
        zero: Where the line stands: no difference; None for no line.
        marks: A short text a row, to the right, such as a p-value.
        xlog: As in `draw_lines`.

    Returns:
        The figure and its axes.

    Example:
        >>> rows = [Interval(0.3, 0.1, 0.5, 0.1, 8), Interval(-0.1, -0.4, 0.2, 0.15, 8)]
        >>> fig, ax = draw_intervals(["L1 on features", "dropout"], rows, "difference in loss (nats)")
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['L1 on features', 'dropout']
    """
    names = [wrapped(str(label), 30) for label in labels]
    taken = [1 + 0.55 * name.count("\n") for name in names]
    rows = [-(sum(taken[:i]) + taken[i] / 2) for i in range(len(names))]
    with style():
        fig, ax = new_figure(0.9 + 0.3 * sum(taken))
        for place, found in zip(rows, intervals, strict=True):
            decided = zero is not None and (found.low > zero or found.high < zero)
            colour = BLUE if decided else GREY
            if math.isfinite(found.low) and math.isfinite(found.high):
                ax.plot([found.low, found.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            ax.plot(found.value, place, "o", color=colour, markersize=6, markerfacecolor=colour if decided else "white")
        ends = np.array([(i.value, i.low, i.high) for i in intervals], dtype=float).reshape(-1)
        scale_axis(ax, "x", ends if zero is None else np.append(ends, zero), log=xlog, room=2.6)
        if zero is not None:
            ax.axvline(zero, color=INK, linewidth=1, zorder=1)
        ax.set_ylim(-sum(taken) - 0.2, 0.2)
        ax.set_yticks(rows, names)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.grid(visible=True, axis="x")
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(wrapped(xlabel, 44))
        for place, mark in zip(rows, marks or [], strict=False):
            ax.annotate(mark, (1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    return fig, ax


def _like(line: Line, other: Line) -> Line:
    """Give a line the looks of another one."""
    return replace(line, colour=other.colour, dashes=other.dashes, marker=other.marker)
