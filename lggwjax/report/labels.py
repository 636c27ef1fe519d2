"""Names beside what they name: at the ends of lines, moved apart where they would overlap."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lggwjax.report.lines import Line

_GAP = 4.0  # points between two names


class End(NamedTuple):
    """Where a line ends, in data coordinates, and what is written there."""

    x: float
    y: float
    label: str
    colour: str
    dashes: str = "-"


def wrapped(text: str, most: int) -> str:
    r"""Break a text into lines of about so many characters, unless it has lines already.

    Example:
        >>> wrapped("LGGW over rms of the gradients", 16)
        'LGGW over rms of\nthe gradients'
    """
    return text if "\n" in text else textwrap.fill(text, most, break_long_words=False, break_on_hyphens=False)


def ends_of(lines: Sequence[Line]) -> list[End]:
    """Find the last point of each line that has a name."""
    found = []
    for line in lines:
        x, y = (np.asarray(column, dtype=float).reshape(-1)[line.known] for column in (line.x, line.y))
        if len(x) and str(line.label):
            last = int(np.argmax(x))
            name = wrapped(str(line.label), 17)
            found.append(End(float(x[last]), float(y[last]), name, line.colour or "black", line.dashes))
    return found


def label_ends(fig: Figure, ax: Axes, ends: Sequence[End]) -> None:
    """Write each name beside its line's last point, moved apart where they would overlap, joined by a leader.

    A figure that is not high enough for all names grows. Call it last, inside `style`.

    Args:
        fig: The figure.
        ax: Its axes, with their scales settled.
        ends: Where the lines end.
    """
    if not ends:
        return
    inside = ax.transAxes.inverted()
    points = [inside.transform(ax.transData.transform((end.x, end.y))) for end in ends]
    heights = [float(np.clip(y, 0, 1)) for _, y in points]
    texts = [ax.text(1.10, 0.5, end.label, transform=ax.transAxes, va="center", fontsize=9.5) for end in ends]
    sizes = _sizes(fig, ax, texts)
    if sum(sizes) > 1:
        fig.set_figheight(
            float(fig.get_figheight()) + 1.02 * (sum(sizes) - 1) * ax.get_window_extent().height / fig.dpi
        )
        sizes = _sizes(fig, ax, texts)
    for end, text, (x, _), height, place in zip(ends, texts, points, heights, _spread(heights, sizes), strict=True):
        text.set_y(place)
        look = {"transform": ax.transAxes, "color": end.colour, "clip_on": False, "scalex": False, "scaley": False}
        ax.plot([1.01, 1.05, 1.085], [height, place, place], linestyle=end.dashes, linewidth=1.4, **look)
        if x < 0.9:  # a line that ends early is led to the edge
            ax.plot([x + 0.01, 1.01], [height, height], linestyle=(0, (1, 3)), linewidth=0.9, **look)


def legend_above(fig: Figure, lines: Sequence[Line], width: float, *, scattered: bool = False) -> None:
    """Name several lines above the figure, in as many columns as fit."""
    lines = [line for line in lines if str(line.label)]
    names = [str(line.label).replace("\n", " ") for line in lines]
    if len(names) < 2:
        return
    handles = [
        Line2D(
            *([], []),
            color=line.colour,
            linestyle="None" if scattered else cast(Any, line.dashes),
            marker=line.marker or "",
            markersize=5.5,
        )
        for line in lines
    ]
    most = int((72 * width - 20) // (5.6 * max(map(len, names)) + (22 if scattered else 38)))
    columns = max(1, min(most, len(names)))
    # A third line of names and more must not come out of the height of the axes.
    fig.set_figheight(fig.get_figheight() + 0.2 * max(0, math.ceil(len(names) / columns) - 2))
    fig.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handletextpad=0.3 if scattered else 0.6,
        columnspacing=1.2,
        fontsize=9.5,
    )


def _sizes(fig: Figure, ax: Axes, texts: Sequence) -> list[float]:
    """Heights of the texts, with their gaps, as shares of the axes."""
    fig.draw_without_rendering()
    height = ax.get_window_extent().height
    return [(text.get_window_extent().height + _GAP * fig.dpi / 72) / height for text in texts]


def _spread(ends: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move labels of the given heights apart, in order, each as near to its end as the others allow."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    places = list(ends)
    for before, i in zip([None, *order], order, strict=False):
        floor = heights[i] / 2 if before is None else places[before] + (heights[before] + heights[i]) / 2
        places[i] = max(ends[i], floor)
    for after, i in zip([None, *order[::-1]], order[::-1], strict=False):
        ceiling = 1.0 - heights[i] / 2 if after is None else places[after] - (heights[after] + heights[i]) / 2
        places[i] = min(places[i], ceiling)
    return places
