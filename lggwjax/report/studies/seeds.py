"""Curves of repetitions: the mean over seeds with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lggwjax.report.drawing import Line
from lggwjax.report.language import Text
from lggwjax.report.statistics import mean_interval
from lggwjax.report.studies.common import MIN_SEEDS


def seed_line(
    label: Text | str, x: ArrayLike, rows: Sequence[Sequence[float | None] | np.ndarray], **looks: Any
) -> Line:
    """Draw the mean over seeds, with Student's t interval as its band where there are three or more.

    Of two seeds the interval would be 13 standard errors to each side: a band that hides the line and says nothing.

    Args:
        label: Name of the line.
        x: Places.
        rows: Values of each seed at these places; NaN or None where there is none.
        looks: Further fields of the line.

    Returns:
        The line.

    Example:
        >>> line = seed_line("loss", [1, 2], [[3.0, 2.0], [5.0, 2.0]])
        >>> [float(y) for y in line.y]
        [4.0, 2.0]
    """
    table = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=float)
    found = [mean_interval(column[np.isfinite(column)]) for column in table.T]
    if len(table) < MIN_SEEDS:
        return Line(label, np.asarray(x, float), np.array([i.value for i in found]), **looks)
    low, high = (
        [getattr(i, end) if np.isfinite(getattr(i, end)) else i.value for i in found] for end in ("low", "high")
    )
    return Line(label, np.asarray(x, float), np.array([i.value for i in found]), low=low, high=high, **looks)
