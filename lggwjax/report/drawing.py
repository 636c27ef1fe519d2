"""How a curve, a scale and a label are drawn: one style for every figure, without touching the user's settings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lggwjax.report.table import number_text

# Okabe and Ito (2008): told apart with every common colour blindness; the shapes and dashes say the same in grey.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#707070"
INK = "#222222"
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "lggwjax",
}
_LABEL_GAP = 4.0  # points between two direct labels


@dataclass(frozen=True)
class Setting:
    """What a figure says beside its numbers.

    Attributes:
        unseen: ``held-out``, or ``population`` where the population is exact.
        move: ``step``, or ``move`` where the checkpoints were made elsewhere.
        turn: The measured steps between which reuse stopped helping: they are shaded. None shades nothing.
    """

    unseen: str = "held-out"
    move: str = "step"
    turn: tuple[int | None, int] | None = None


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a quantity of the records, its direct label and its look."""

    name: str
    label: str
    colour: str
    dashes: str = "-"
    marker: str = "o"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the library's style inside the block, whatever the user's settings are, and leave them as they were.

    Example:
        >>> before = matplotlib.rcParams["font.size"]
        >>> with style():
        ...     inside = matplotlib.rcParams["svg.fonttype"]
        >>> inside, matplotlib.rcParams["font.size"] == before
        ('path', True)
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def draw_curves(
    records: pd.DataFrame, curves: list[Curve], ylabel: str, setting: Setting, height: float = 3.5
) -> tuple[Figure, Axes]:
    """Draw quantities against the step, with bands where the records have intervals and a label at each line's end.

    Args:
        records: The table from `load_run`; a quantity without a number is left out.
        curves: The lines.
        ylabel: What the vertical axis shows, with its unit.
        setting: What is shaded.
        height: Height of the figure in inches.

    Returns:
        The figure and its axes; the figure belongs to no window and needs no closing.

    Example:
        >>> table = pd.DataFrame({"step": [0, 1, 10], "train_loss": [2.0, 1.0, 0.5]})
        >>> fig, ax = draw_curves(table, [Curve("train_loss", "train", BLUE)], "loss (nats)", Setting())
        >>> ax.get_ylabel()
        'loss (nats)'
    """
    with style():
        fig, ax = new_axes(records, setting, height)
        shown = [plot_curve(ax, records, curve) for curve in curves]
        scale_values(ax, np.concatenate(shown))
        ax.set_ylabel(ylabel)
        label_ends(fig, ax, records, [c for c, values in zip(curves, shown, strict=True) if np.isfinite(values).any()])
    return fig, ax


def new_axes(records: pd.DataFrame, setting: Setting, height: float = 3.5) -> tuple[Figure, Axes]:
    """Make a figure of one column's width with the steps along its horizontal axis; call it inside `style`."""
    fig = Figure(figsize=(5.0, height), layout="constrained")
    ax = fig.subplots()
    shade_turn(ax, setting)
    scale_steps(ax, records["step"].to_numpy(float))
    ax.set_xlabel("training step")
    return fig, ax


def shade_turn(ax: Axes, setting: Setting) -> None:
    """Shade the measured steps between which reuse stopped helping, if it did."""
    if setting.turn is not None:
        ax.axvspan(setting.turn[0] or 0, setting.turn[1], color="#f1e6c8", linewidth=0, zorder=0)


def plot_curve(ax: Axes, records: pd.DataFrame, curve: Curve) -> np.ndarray:
    """Draw one quantity with its 95% band and return every number drawn, NaN where none was measured."""
    banded = f"{curve.name}.value" in records
    values = records[f"{curve.name}.value" if banded else curve.name].to_numpy(float)
    known = np.isfinite(values)
    steps = records["step"].to_numpy(float)
    ax.plot(
        steps[known],
        values[known],
        color=curve.colour,
        linestyle=curve.dashes,
        marker=curve.marker,
        label=curve.label.replace("\n", " "),
    )
    if not banded:
        return values
    low, high = (records[f"{curve.name}.ci95_{end}"].to_numpy(float) for end in ("low", "high"))
    if known.sum() > 1:
        ax.fill_between(steps[known], low[known], high[known], color=curve.colour, alpha=0.22, linewidth=0)
    else:
        ax.vlines(steps[known], low[known], high[known], color=curve.colour, alpha=0.5, linewidth=4)
    return np.concatenate([values, low, high])


def scale_steps(ax: Axes, steps: np.ndarray, num_ticks: int = 6) -> None:
    """Lay out the steps: evenly where they were measured evenly, else logarithmically with room for step 0."""
    last = float(steps.max())
    gaps = np.diff(steps)
    if last <= 0 or len(steps) < 4 or gaps.max() <= 2 * gaps.min():
        ax.xaxis.set_major_locator(MaxNLocator(num_ticks - 1, integer=True, steps=[1, 2, 5, 10]))
        ax.set_xlim(*((-0.5, 0.5) if last <= 0 else (-0.03 * last, 1.03 * last)))
    else:
        first = float(steps[steps > 0].min())
        ax.set_xscale("symlog", linthresh=first, linscale=0.5)
        ticks = [0.0, *_log_ticks(first, last, num_ticks - 1)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.2 * first, last * 1.15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _step_text(step)))


def scale_values(ax: Axes, values: np.ndarray) -> None:
    """Lay out values >= 0: from zero where they are of one size, else logarithmically, with zero if it occurs."""
    known = values[np.isfinite(values)]
    positive = known[known > 0]
    if not positive.size or positive.max() < 30 * positive.min():
        top = float(known.max(initial=0.0)) or 1.0
        ax.set_ylim(min(0.0, 1.08 * float(known.min(initial=0.0))), 1.08 * top)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))
        return
    if positive.size == known.size:
        ax.set_yscale("log")
        ax.set_ylim(positive.min() / 1.5, positive.max() * 1.5)
        ticks = _log_ticks(float(positive.min()) / 1.5, float(positive.max()) * 1.5, 6)
    else:
        # Interval ends near zero would stretch the axis over decades that say nothing.
        least = max(float(positive.min()), float(positive.max()) * 1e-6)
        ax.set_yscale("symlog", linthresh=least, linscale=0.6)
        ax.set_ylim(min(-0.1 * least, 1.2 * float(known.min())), positive.max() * 1.5)
        ticks = [0.0, *_log_ticks(least, float(positive.max()), 6)]
    _fix_value_ticks(ax, ticks)


def scale_descent(ax: Axes, values: np.ndarray) -> None:
    """Lay out signed values over decades: linear around zero, logarithmic beyond, with room on both sides."""
    known = values[np.isfinite(values)]
    sizes = np.abs(known[known != 0])
    if not sizes.size:
        ax.set_ylim(-1, 1)
        return
    top = float(sizes.max())
    if top < 30 * np.quantile(sizes, 0.1):
        room = 0.12 * (float(known.max(initial=0.0)) - float(known.min(initial=0.0)))
        ax.set_ylim(float(known.min(initial=0.0)) - room, float(known.max(initial=0.0)) + room)
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return
    linear = max(10 ** math.floor(math.log10(np.quantile(sizes, 0.1))), top * 1e-6)
    ax.set_yscale("symlog", linthresh=linear, linscale=0.5)
    ticks = _log_ticks(linear, top, 4)
    lowest = float(known.min())
    _fix_value_ticks(ax, [*[-t for t in ticks if t <= -2 * lowest][::-1], 0.0, *ticks])
    ax.set_ylim(min(2 * lowest, -2 * linear), 2 * float(known.max(initial=linear)))


def label_ends(fig: Figure, ax: Axes, records: pd.DataFrame, curves: list[Curve]) -> None:
    """Write each curve's name beside its last point, moved apart where they would overlap, joined by a leader."""
    if not curves:
        return
    ends: list[float] = []
    texts = []
    for curve in curves:
        column = records[f"{curve.name}.value" if f"{curve.name}.value" in records else curve.name]
        known = column.to_numpy(float)
        x, y = records["step"].to_numpy(float)[np.isfinite(known)][-1], known[np.isfinite(known)][-1]
        ends.append(float(ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[1]))
        texts.append(ax.text(1.10, 0.5, curve.label, transform=ax.transAxes, va="center", fontsize=9.5))
    fig.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    axes_height = ax.get_window_extent().height
    heights = [(box.height + _LABEL_GAP * fig.dpi / 72) / axes_height for box in boxes]
    for curve, text, end, place in zip(curves, texts, ends, _spread(ends, heights), strict=True):
        text.set_y(place)
        ax.plot(
            [1.01, 1.05, 1.085],
            [end, place, place],
            transform=ax.transAxes,
            color=curve.colour,
            linestyle=curve.dashes,
            linewidth=1.4,
            clip_on=False,
            scalex=False,
            scaley=False,
        )


def _spread(ends: list[float], heights: list[float]) -> list[float]:
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


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Choose at most ``most`` round numbers in [low, high]: 1, 2, 5 in a short range, powers of ten in a long one."""
    slack = 1 + 1e-9
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3)):
        ticks = [d * 10.0**p for p in powers for d in digits if low / slack <= d * 10.0**p <= high * slack]
        if 2 <= len(ticks) <= most:
            return ticks
    decades = [10.0**p for p in powers if low / slack <= 10.0**p <= high * slack]
    stride = max(1, math.ceil(len(decades) / most))
    return decades[::-stride][::-1] or [low, high]


def _fix_value_ticks(ax: Axes, ticks: list[float]) -> None:
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def _tick_text(value: float) -> str:
    if abs(value) < 1e-15 or 1e-3 <= abs(value) < 1e5:
        return f"{0.0 if abs(value) < 1e-15 else value:,.9g}".replace("-", "−")
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}".replace("-", "−")


def _step_text(step: float) -> str:
    return f"{step:,.0f}" if step < 1e6 else number_text(step)
