"""Growth on log-log axes: fitted slopes with intervals, a figure, and the numbers behind it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lggwjax.report.drawing import BLUE, GREEN, GREY, INK, PURPLE, VERMILLION, style

# Colour, dashes and marker, so that lines are told apart in grey and by the colour-blind too.
LOOKS = ((BLUE, "-", "o"), (VERMILLION, "-", "s"), (GREY, "--", "D"), (GREEN, ":", "^"), (PURPLE, "-.", "v"))
_LABEL_HEIGHT = 0.15  # of the axes' height, two lines of text


@dataclass(frozen=True)
class Slope:
    """Exponent of a power law, least squares on logarithms, with Student's 95% interval; NaN below three points."""

    value: float
    low: float
    high: float
    num_points: int

    def __str__(self) -> str:
        if self.value != self.value:
            return "slope not fitted"
        return f"slope {self.value:.2f} [{self.low:.2f}, {self.high:.2f}]".replace("-", "−")


@dataclass(frozen=True)
class Line:
    """One curve; ``dashes`` and colour come with ``look``, an index into the looks."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    look: int


def fit(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Fit a power law to what is positive and known."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if a > 0 and b is not None and b > 0]
    if len(known) < 3 or len({a for a, _ in known}) < 3:
        return Slope(math.nan, math.nan, math.nan, len(known))
    found = scipy.stats.linregress(*np.log(np.array(known)).T)
    half = float(scipy.stats.t.ppf(0.975, len(known) - 2) * found.stderr)
    return Slope(float(found.slope), float(found.slope) - half, float(found.slope) + half, len(known))


def slope_record(slope: Slope) -> dict[str, float | int | None]:
    """A slope in strict JSON types."""
    return {name: None if value != value else value for name, value in asdict(slope).items()}


def draw(title: str, xlabel: str, panels: dict[str, list[Line]]) -> Figure:
    """Draw panels side by side, each line labelled at its end with its slope.

    Args:
        title: What is measured.
        xlabel: What grows, for all panels.
        panels: Lines by the vertical axis's name and unit.

    Returns:
        The figure; it belongs to no window.
    """
    with style():
        fig = Figure(figsize=(5.2 * len(panels), 3.6), layout="constrained")
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        for ax, (ylabel, lines) in zip(np.atleast_1d(fig.subplots(1, len(panels))), panels.items(), strict=True):
            _draw_panel(ax, lines)
            ax.set_xlabel(xlabel)
            ax.set_ylabel(ylabel)
    return fig


def _draw_panel(ax: Axes, lines: list[Line]) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    shown = [(line, _known(line)) for line in lines]
    shown = [(line, points) for line, points in shown if len(points)]
    if not shown:
        ax.text(0.5, 0.5, "nothing above the floor", transform=ax.transAxes, ha="center", color=INK)
        return
    for line, points in shown:
        colour, dashes, marker = LOOKS[line.look]
        ax.plot(*points.T, color=colour, linestyle=dashes, marker=marker)
    everything = np.concatenate([points for _, points in shown])
    _scale(ax, everything)
    _label_ends(ax, shown)


def _known(line: Line) -> np.ndarray:
    known = [(a, b) for a, b in zip(line.x, line.y, strict=True) if b is not None and b > 0]
    return np.array(known).reshape(-1, 2)


def _scale(ax: Axes, points: np.ndarray) -> None:
    (left, low), (right, high) = points.min(0), points.max(0)
    ax.set_xlim(left / 1.15, right * 1.15)
    # At least a decade and a half, so that noise on a flat line looks like what it is.
    room = max(1.6, (30 * low / high) ** 0.5)
    low, high = low / room, high * room
    ax.set_ylim(low, high)
    ticks = sorted(set(points[:, 0]))
    ax.xaxis.set_major_locator(
        FixedLocator(_apart(ticks) if len(ticks) <= 8 and right < 1e5 else _decades(left, right))
    )
    ax.yaxis.set_major_locator(FixedLocator(_decades(low, high)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def _apart(ticks: list[float]) -> list[float]:
    """The ticks whose labels have room: from the largest down, those a sixth of the axis away from the last."""
    room = math.log(ticks[-1] / ticks[0]) * 0.18
    kept = [ticks[-1]]
    for tick in reversed(ticks[:-1]):
        if math.log(kept[-1] / tick) >= room:
            kept.append(tick)
    return kept[::-1]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten; with 2 and 5, or 3, between them where these alone would be few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _tick_text(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}".replace("-", "−")


def _label_ends(ax: Axes, shown: list[tuple[Line, np.ndarray]]) -> None:
    """Write each line's name and slope beside its last point, moved apart where they would overlap."""
    ends = [float(ax.transAxes.inverted().transform(ax.transData.transform(points[-1]))[1]) for _, points in shown]
    places = _spread(ends)
    for (line, points), end, place in zip(shown, ends, places, strict=True):
        colour, dashes, _ = LOOKS[line.look]
        text = f"{line.label}\n{fit(*points.T)}"
        ax.text(1.10, place, text, transform=ax.transAxes, va="center", fontsize=8.5, linespacing=1.15)
        edge = ax.get_xlim()[1]
        ax.plot([points[-1][0], edge], [points[-1][1]] * 2, color=colour, linewidth=0.8, alpha=0.45, scalex=False)
        leader = {"transform": ax.transAxes, "clip_on": False, "scalex": False, "scaley": False}
        ax.plot([1.01, 1.05, 1.085], [end, place, place], color=colour, linestyle=dashes, linewidth=1.2, **leader)


def _spread(ends: list[float]) -> list[float]:
    """Places at least a label's height apart, in the order of the ends, as near to them as that allows."""
    order = np.argsort(ends)
    places = np.array(ends)[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _LABEL_HEIGHT)
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - _LABEL_HEIGHT
    found = [0.0] * len(ends)
    for i, place in zip(order, places, strict=True):
        found[int(i)] = float(place)
    return found


def save(folder: Path, name: str, fig: Figure, table: list[dict[str, Any]]) -> None:
    """Write a figure as PNG and SVG, and the numbers behind it as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        fig.savefig(folder / f"{name}.{kind}", metadata={"Date": None} if kind == "svg" else None, dpi=200)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
