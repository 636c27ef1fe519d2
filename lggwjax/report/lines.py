"""Lines of a figure: their numbers, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from lggwjax.report.language import Text
from lggwjax.report.style import CYCLE, GREY, MARKERS

_THEORY_DASHES = ("--", ":", "-.")


@dataclass(frozen=True, eq=False)
class Line:
    """Points that belong together: a line of a figure, or a group of a scatter plot.

    Attributes:
        label: Its name, written beside it, in English; that of a theory line ends with its status, as in
            ``bound (certified)``. Empty for none.
        x: Where along the horizontal axis.
        y: How high; what is not finite is left out.
        low: Lower ends of the intervals, if there are any.
        high: Upper ends.
        colour: By default the next one that people with any common colour blindness tell apart from the others.
        dashes: Of the line.
        marker: Of the points, None for none. ``o`` is the next shape in turn where the colour is the next one too.
        theory: Grey, thin, dashed and without markers.
    """

    label: Text | str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    colour: str | None = None
    dashes: str = "-"
    marker: str | None = "o"
    theory: bool = False

    @property
    def known(self) -> np.ndarray:
        """Which points have finite coordinates."""
        return np.isfinite(_floats(self.x)) & np.isfinite(_floats(self.y))


def with_looks(lines: Sequence[Line], skip: int = 0) -> list[Line]:
    """Give lines without a colour the next one, and the shape that goes with it; theory is grey.

    Args:
        lines: The lines.
        skip: So many colours are taken already.

    Returns:
        The lines, with their looks.

    Example:
        >>> found = with_looks([Line("a", [1], [1]), Line("b", [1], [1]), Line("bound", [1], [1], theory=True)])
        >>> [(line.colour, line.marker) for line in found]
        [('#0072B2', 'o'), ('#D55E00', 's'), ('#707070', None)]
    """
    drawn, bounds = [], 0
    for line in lines:
        if line.theory:
            dashes = _THEORY_DASHES[bounds % len(_THEORY_DASHES)] if line.dashes == "-" else line.dashes
            drawn.append(replace(line, colour=line.colour or GREY, dashes=dashes, marker=None))
            bounds += 1
        elif line.colour is None:
            marker = MARKERS[skip % len(MARKERS)] if line.marker == "o" else line.marker
            dashes = "--" if skip >= len(CYCLE) and line.dashes == "-" else line.dashes
            drawn.append(replace(line, colour=CYCLE[skip % len(CYCLE)], marker=marker, dashes=dashes))
            skip += 1
        else:
            drawn.append(line)
    return drawn


def plot_line(ax: Axes, line: Line, *, scattered: bool = False) -> None:
    """Draw one line with its band, or its points with their bars; a single point has a bar in any case."""
    known, look = line.known, {"color": line.colour, "label": str(line.label).replace("\n", " ")}
    x, y = _floats(line.x)[known], _floats(line.y)[known]
    if scattered:
        ax.plot(x, y, linestyle="", marker=line.marker, markersize=5.5, alpha=0.85, **look)
    else:
        width = 1.3 if line.theory else 1.8
        marker = line.marker if line.marker is not None or len(x) > 1 else "_"
        ax.plot(x, y, linestyle=line.dashes, marker=marker, linewidth=width, zorder=1.8 if line.theory else 2, **look)
    if line.low is None or line.high is None:
        return
    low, high = _floats(line.low)[known], _floats(line.high)[known]
    if len(x) > 1 and not scattered:
        ax.fill_between(x, low, high, color=line.colour, alpha=0.2, linewidth=0)
    else:
        ax.vlines(x, low, high, color=line.colour, alpha=0.5, linewidth=1.4 if scattered else 4)


def places(lines: Sequence[Line]) -> np.ndarray:
    """Gather where along the horizontal axis the lines have points."""
    return np.concatenate([_floats(line.x)[line.known] for line in lines] or [np.empty(0)])


def heights(lines: Sequence[Line], *, log: bool = False, zero: bool = False) -> np.ndarray:
    """Gather how high lines and bands reach, for laying out the axis.

    Args:
        lines: The lines.
        log: Whether the axis is logarithmic: then an end that comes near zero beside positive values does not stretch
            it over decades that say nothing.
        zero: Whether zero is on the axis.

    Returns:
        Finite numbers.

    Example:
        >>> line = Line("", [1, 2], [2.0, 3.0], low=[-1.0, 2.5], high=[5.0, 3.5])
        >>> heights([line], log=True).tolist()
        [2.0, 3.0, 5.0, 3.5, 2.5]
    """
    values = np.concatenate([_floats(line.y)[line.known] for line in lines] or [np.empty(0)])
    ends: Any = [_floats(end)[line.known] for line in lines for end in (line.high, line.low) if end is not None]
    found = np.concatenate([*ends, np.empty(0)])
    found = found[np.isfinite(found)]
    if log and values.size and values.min() > 0:
        found = found[found >= values.min() / 10]
    return np.concatenate([values, found, [0.0] if zero else []])


def _floats(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1)
