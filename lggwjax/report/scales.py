"""How numbers are laid out along an axis: linear, logarithmic, or both around zero, with ticks that are round."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lggwjax.report.table import number_text

_ROUND = [1, 2, 5, 10]
_CHARACTER = 6.3  # points, of a digit at the style's font size


def scale_axis(
    ax: Axes,
    name: Literal["x", "y"],
    values: np.ndarray,
    *,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    room: float = 3.2,
) -> None:
    """Lay out one axis for the numbers drawn along it; call it inside `style`.

    Args:
        ax: The axes.
        name: Which axis.
        values: The numbers; what is not finite does not count.
        log: Logarithmic; where numbers are zero or below, linear near zero and logarithmic beyond.
        limits: Ends of the axis; by default those of the numbers, with room.
        room: Length of the axis in inches, for as many ticks as fit.

    Example:
        >>> from lggwjax.report.drawing import new_figure
        >>> fig, ax = new_figure()
        >>> scale_axis(ax, "x", np.array([16.0, 64.0, 256.0]), log=True)
        >>> ax.get_xscale(), [float(tick) for tick in ax.get_xticks()]
        ('log', [16.0, 64.0, 256.0])
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if limits is not None:
        known = np.concatenate([known[(known >= limits[0]) & (known <= limits[1])], limits])
    if not known.size:
        return
    if log and known.min() > 0:
        ticks, ends = _log_layout(ax, name, known, room)
    elif log and np.any(known != 0):
        ticks, ends = _signed_layout(ax, name, known)
    else:
        ticks, ends = None, _linear_ends(name, known)
    getattr(ax, f"set_{name}lim")(*(limits or ends))
    axis = getattr(ax, f"{name}axis")
    if ticks is None:
        axis.set_major_locator(MaxNLocator(5 if room > 2 else 4, steps=_ROUND))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    else:
        fix_ticks(ax, name, [tick for tick in ticks if limits is None or limits[0] <= tick <= limits[1]])


def scale_steps(ax: Axes, steps: np.ndarray, num_ticks: int = 6) -> None:
    """Lay out the steps: evenly where they were measured evenly, else logarithmically with room for step 0."""
    last = float(steps.max())
    gaps = np.diff(steps)
    if last <= 0 or len(steps) < 4 or gaps.max() <= 2 * gaps.min():
        ax.xaxis.set_major_locator(MaxNLocator(num_ticks - 1, integer=True, steps=_ROUND))
        ax.set_xlim(*((-0.5, 0.5) if last <= 0 else (-0.03 * last, 1.03 * last)))
    else:
        first = float(steps[steps > 0].min())
        ax.set_xscale("symlog", linthresh=first, linscale=0.5)
        ticks = [0.0, *log_ticks(first, last, num_ticks - 1)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(-0.2 * first, last * 1.15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}" if step < 1e6 else number_text(step)))


def scale_values(ax: Axes, values: np.ndarray) -> None:
    """Lay out values >= 0: from zero where they are of one size, else logarithmically, with zero if it occurs."""
    known = values[np.isfinite(values)]
    positive = known[known > 0]
    if not positive.size or positive.max() < 30 * positive.min():
        top = float(known.max(initial=0.0)) or 1.0
        ax.set_ylim(min(0.0, 1.08 * float(known.min(initial=0.0))), 1.08 * top)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        return
    if positive.size == known.size:
        ax.set_yscale("log")
        ax.set_ylim(positive.min() / 1.5, positive.max() * 1.5)
        ticks = log_ticks(float(positive.min()) / 1.5, float(positive.max()) * 1.5, 6)
    else:
        # Interval ends near zero would stretch the axis over decades that say nothing.
        least = max(float(positive.min()), float(positive.max()) * 1e-6)
        ax.set_yscale("symlog", linthresh=least, linscale=0.6)
        ax.set_ylim(min(-0.1 * least, 1.2 * float(known.min())), positive.max() * 1.5)
        ticks = [0.0, *log_ticks(least, float(positive.max()), 6)]
    fix_ticks(ax, "y", ticks)


def scale_descent(ax: Axes, values: np.ndarray) -> None:
    """Lay out signed values over decades: linear around zero, logarithmic beyond, with room on both sides."""
    known = values[np.isfinite(values)]
    sizes = np.abs(known[known != 0])
    if not sizes.size:
        ax.set_ylim(-1, 1)
        return
    if float(sizes.max()) < 30 * np.quantile(sizes, 0.1):
        room = 0.12 * (float(known.max(initial=0.0)) - float(known.min(initial=0.0)))
        ax.set_ylim(float(known.min(initial=0.0)) - room, float(known.max(initial=0.0)) + room)
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
        return
    ticks, ends = _signed_layout(ax, "y", known)
    fix_ticks(ax, "y", ticks)
    ax.set_ylim(*ends)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Choose at most ``most`` round numbers in [low, high]: 1, 2, 5 in a short range, powers of ten in a long one.

    Example:
        >>> log_ticks(0.9, 12.0, 6), log_ticks(1.0, 1e4, 3), log_ticks(1.1, 1.9, 4)
        ([1.0, 2.0, 5.0, 10.0], [1.0, 100.0, 10000.0], [1.2, 1.4, 1.6, 1.8])
    """
    slack = 1 + 1e-9
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3)):
        ticks = [d * 10.0**p for p in powers for d in digits if low / slack <= d * 10.0**p <= high * slack]
        if 2 <= len(ticks) <= most:
            return ticks
    decades = [10.0**p for p in powers if low / slack <= 10.0**p <= high * slack]
    if len(decades) > 1:
        return decades[:: -max(1, math.ceil(len(decades) / most))][::-1]
    even = [round(float(tick), 12) for tick in MaxNLocator(most, steps=_ROUND).tick_values(low, high)]
    return [tick for tick in even if low <= tick <= high] or [low]


def fix_ticks(ax: Axes, name: Literal["x", "y"], ticks: list[float]) -> None:
    """Put ticks at these numbers and at no others."""
    axis = getattr(ax, f"{name}axis")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def tick_text(value: float) -> str:
    """Write a tick's number with a true minus sign, short.

    Example:
        >>> tick_text(-0.5), tick_text(1000.0), tick_text(2e6)
        ('−0.5', '1,000', '2e6')
    """
    if abs(value) < 1e-15 or 1e-3 <= abs(value) < 1e5:
        return f"{0.0 if abs(value) < 1e-15 else value:,.9g}".replace("-", "−")
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}".replace("-", "−")


def _log_layout(
    ax: Axes, name: Literal["x", "y"], known: np.ndarray, room: float
) -> tuple[list[float], tuple[float, float]]:
    getattr(ax, f"set_{name}scale")("log")
    low, high = float(known.min()), float(known.max())
    margin = max((high / low) ** 0.05, 1.05)
    ends = low / margin, high * margin
    if name == "x":
        own = [float(x) for x in np.unique(known)]
        for stride in (1, 2, 3):
            if len(own[::stride]) > 2 and _fit(own[::stride], ends, room):
                return own[::stride], ends
    for most in range(6, 2, -1):
        ticks = log_ticks(*ends, most)
        if name == "y" or _fit(ticks, ends, room):
            return ticks, ends
    return log_ticks(*ends, 2), ends


def _fit(ticks: list[float], ends: tuple[float, float], room: float) -> bool:
    """Whether the ticks' numbers fit side by side along a logarithmic axis."""
    if len(ticks) > 12:
        return False
    widths = [_CHARACTER * len(tick_text(tick)) for tick in ticks]
    places = [72 * room * math.log(tick / ends[0]) / math.log(ends[1] / ends[0]) for tick in ticks]
    return all(places[i + 1] - places[i] > (widths[i] + widths[i + 1]) / 2 + _CHARACTER for i in range(len(ticks) - 1))


def _signed_layout(ax: Axes, name: Literal["x", "y"], known: np.ndarray) -> tuple[list[float], tuple[float, float]]:
    sizes = np.abs(known[known != 0])
    top = float(sizes.max())
    linear = max(10 ** math.floor(math.log10(np.quantile(sizes, 0.1))), top * 1e-6)
    decades = math.log10(top / linear) * (2 if known.min() < 0 else 1)
    # As high as a line of text, or the ticks around zero meet.
    getattr(ax, f"set_{name}scale")("symlog", linthresh=linear, linscale=max(0.5, decades / 9))
    ticks = log_ticks(linear, max(top, 10 * linear), 4)
    least, most = float(known.min()), float(known.max())
    below = [-tick for tick in ticks if tick <= -2 * least][::-1]
    lowest = min(2 * least, -2 * linear) if least < 0 or name == "y" else -0.2 * linear
    return [*below, 0.0, *ticks], (lowest, max(2 * most, 2 * linear))


def _linear_ends(name: Literal["x", "y"], known: np.ndarray) -> tuple[float, float]:
    low, high = float(known.min()), float(known.max())
    if low == high:
        return (low - 0.5, high + 0.5) if low == 0 else (low - 0.2 * abs(low), high + 0.2 * abs(high))
    pad = 0.04 if name == "x" else 0.07
    # An axis that starts at zero lets sizes be compared; it is worth up to a third of the height.
    from_zero = name == "y" and 0 <= low < 0.35 * high
    ends = (0.0 if from_zero else low - pad * (high - low)), high + pad * (high - low)
    return ends
