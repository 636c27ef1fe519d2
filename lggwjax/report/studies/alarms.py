"""When a rule says stop: the monitor's, early stopping's, and what was true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

PATIENCE = 3
"""Looks without a new lowest loss after which early stopping stops."""

CLEAR = 0.02
"""Share of the loss's range below which a rise or fall counts as none."""


DEVIATIONS = 4.0
"""Standard deviations by which a signal has to exceed what was expected of it."""

WINDOW = 12
"""Looks that say what is expected of the next ones."""


class Alarm(NamedTuple):
    """A rule's decision in one run.

    Attributes:
        look: Index of the look at which it says stop; None if it never does.
        kept: Index of the look whose parameters it would keep: the lowest held-out loss so far.
    """

    look: int | None
    kept: int


class Truth(NamedTuple):
    """What the samples say that no rule saw.

    Attributes:
        best: Index of the look with the lowest loss.
        rises: Whether the loss at the end is clearly above it.
        span: What the loss moved.
    """

    best: int
    rises: bool
    span: float


def descent_alarm(looks: Sequence[dict[str, Any]], num_watched: int | None = None) -> Alarm:
    """Say when the monitor's rule stops: at the second look in a row, undecided ones passed over, that clearly hurts.

    Args:
        looks: With ``watched_loss`` and, where there was a step, the monitor's interval for the population descent,
            ``low`` and ``high``, which holds together with those of all other looks; or ``descent`` and ``stderr``.
        num_watched: Held-out samples behind them, for the same rule without the monitor's care: each look by its own
            95% t interval. None for the monitor's.

    Returns:
        The alarm; kept is the look with the lowest watched loss so far.
    """
    hurts, best = 0, 0
    for index, look in enumerate(looks):
        if look["watched_loss"] < looks[best]["watched_loss"]:
            best = index
        if look.get("descent") is None or look.get("stderr") is None:
            continue
        low, high = look.get("low"), look.get("high")
        if num_watched is not None:
            half = float(special.stdtrit(num_watched - 1, 0.975)) * look["stderr"]
            low, high = look["descent"] - half, look["descent"] + half
        if low is not None and low > 0:
            hurts = 0
        elif high is not None and high < 0:
            hurts += 1
            if hurts == 2:
                return Alarm(index, best)
    return Alarm(None, best)


def loss_alarm(losses: ArrayLike, patience: int = PATIENCE) -> Alarm:
    """Say when early stopping stops: after ``patience`` looks without a new lowest held-out loss.

    Args:
        losses: Held-out loss at each look.
        patience: Looks.

    Returns:
        The alarm; kept is the look with the lowest loss so far.

    Example:
        >>> loss_alarm([3.0, 2.0, 2.1, 2.2, 2.3, 1.0])
        Alarm(look=4, kept=1)
    """
    best, values = 0, np.asarray(losses, dtype=float)
    for index, loss in enumerate(values):
        if loss < values[best]:
            best = index
        elif index - best >= patience:
            return Alarm(index, best)
    return Alarm(None, best)


def rise_alarm(values: ArrayLike) -> int | None:
    """Say when a signal rises: two looks in a row above what the looks before them were and where they were heading.

    That is the mean of the ``WINDOW`` looks before the two, or the line through these looks drawn on where it is
    higher; above means by ``DEVIATIONS`` standard deviations of what the line leaves over.

    Args:
        values: The signal at each look.

    Returns:
        Index of the second such look; None if there is none.

    Example:
        >>> rise_alarm([0.0, 0.1] * 10 + [9.0, 9.0])
        21
    """
    numbers, places = np.asarray(values, dtype=float), np.arange(WINDOW)
    for first in range(WINDOW, len(numbers) - 1):
        window = numbers[first - WINDOW : first]
        slope, start = np.polyfit(places, window, 1)
        left_over = np.sqrt(np.sum((window - start - slope * places) ** 2) / (WINDOW - 2))
        expected = np.maximum(start + slope * np.array([WINDOW, WINDOW + 1]), window.mean())
        # The line itself is known the less, the further it is drawn.
        spread = left_over * np.sqrt(1 + 1 / WINDOW + _reach() ** 2)
        if np.all(numbers[first : first + 2] > expected + DEVIATIONS * spread):
            return first + 1
    return None


def _reach() -> np.ndarray:
    """How far the two looks lie from the middle of the window, in its own standard deviations times root n."""
    places = np.arange(WINDOW)
    return (np.array([WINDOW, WINDOW + 1]) - places.mean()) / np.sqrt(np.sum((places - places.mean()) ** 2))


def truth(losses: ArrayLike) -> Truth:
    """Find what really happened to the loss.

    Args:
        losses: On samples that no rule saw, or of the population.

    Returns:
        The truth.

    Example:
        >>> truth([1.0, 0.2, 0.4])
        Truth(best=1, rises=True, span=0.8)
    """
    values = np.asarray(losses, dtype=float)
    best, span = int(values.argmin()), float(np.ptp(values))
    return Truth(best, bool(values[-1] - values[best] > CLEAR * span), span)


def is_false(alarm: Alarm, losses: ArrayLike) -> bool:
    """Say whether an alarm came although the loss went on to fall clearly."""
    if alarm.look is None:
        return False
    values = np.asarray(losses, dtype=float)
    return bool(values[alarm.look] - values[alarm.look :].min() > CLEAR * np.ptp(values))


def excess(alarm: Alarm, losses: ArrayLike) -> float:
    """Loss of what a rule keeps above the lowest one, as a share of what the loss moved."""
    values = np.asarray(losses, dtype=float)
    span = float(np.ptp(values))
    return float(values[alarm.kept] - values.min()) / span if span > 0 else math.nan
