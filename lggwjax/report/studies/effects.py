"""What changes of a design do to a number, paired over seeds, when many changes and numbers are looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, holm, mean_interval, paired_difference
from lggwjax.report.studies.common import ALPHA, number, p_over_seeds, ratio_text
from lggwjax.report.table import NONE, number_text

Runs = Mapping[int, Mapping[str, Any]]
"""The numbers of one design by seed; a run that diverged has ``diverged`` 1."""


class Quantity(NamedTuple):
    """A number that designs are compared by.

    Attributes:
        name: In the records.
        title: Its heading, without a unit.
        ratio: Whether its change is a ratio, which is the mean of the logarithms' differences; else a difference.
        better: 1 if more of it is better, -1 if less is, 0 if that is not clear.
        censored: Whether a missing number means that it was not reached.
    """

    name: str
    title: Text
    ratio: bool = False
    better: int = 0
    censored: bool = False


@dataclass(frozen=True)
class Effect:
    """The change of one number from one design to another.

    Attributes:
        quantity: The number.
        change: With its 95% interval over pairs of seeds; a logarithm where the quantity is a ratio.
        p: Of Student's t; NaN where nothing was tested.
        adjusted: For all tests of the table, after Holm.
        level: The level at which Holm's procedure tests it: the interval of ``wide`` leaves out zero exactly where the
            change is decided.
        reached: For a censored quantity, in how many of the design's seeds it was reached, and of how many.
    """

    quantity: Quantity
    change: Interval
    p: float = math.nan
    adjusted: float = math.nan
    level: float = math.nan
    reached: tuple[int, int] | None = None

    @property
    def decided(self) -> bool:
        """Whether the change differs from zero, all tests counted."""
        return self.adjusted <= ALPHA

    @property
    def sign(self) -> int:
        """-1 for lowered, 1 for raised, 0 for not decided."""
        return int(np.sign(self.change.value)) if self.decided else 0

    @property
    def mark(self) -> str:
        """An arrow, or a dot for what is not decided."""
        return {-1: "↓", 1: "↑", 0: "·"}[self.sign]

    @property
    def wide(self) -> Interval:
        """The change with the interval at the level of its test."""
        found = self.change
        if math.isnan(self.level) or math.isnan(found.stderr):
            return Interval(found.value, math.nan, math.nan, found.stderr, found.num)
        half = float(stats.t.ppf(1 - self.level / 2, found.num - 1)) * found.stderr
        return Interval(found.value, found.value - half, found.value + half, found.stderr, found.num)

    def short(self) -> Text:
        """The mark and the estimate; for a censored quantity how often it was reached, if not always."""
        if self.reached is not None and self.reached[0] < self.reached[1]:
            return Text("{a} of {b}", "{a}/{b}").format(a=self.reached[0], b=self.reached[1])
        if math.isnan(self.change.value):
            return Text.same(NONE)
        if self.quantity.ratio:
            return Text.same(f"{self.mark} ×{math.exp(self.change.value):.2f}")
        text = brief(self.change.value)
        return Text.same(f"{self.mark} {'+' if self.change.value > 0 and text != '0' else ''}{text}")

    def long(self) -> str:
        """The estimate with its 95% interval."""
        found = self.change
        if 0 <= found.stderr < 1e-12 * abs(found.value):  # all alike: no spread, and no interval of width 0 either
            found = found._replace(low=math.nan, high=math.nan)
        if self.quantity.ratio:
            return ratio_text(found)
        if math.isnan(found.value) or math.isnan(found.low):
            return signed(found.value)
        return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"


def brief(value: float) -> str:
    """Write a difference with two significant digits, four decimals at most.

    Example:
        >>> brief(0.0213), brief(-0.00021), brief(12.0)
        ('0.021', '−0.0002', '12')
    """
    places = 0 if value == 0 else max(0, min(4, 1 - math.floor(math.log10(abs(value)))))
    return "0" if round(value, places) == 0 else f"{value:,.{places}f}".replace("-", "−")


def signed(value: float) -> str:
    """Write a change with its sign.

    Example:
        >>> signed(0.25), signed(-3.0), signed(0.0)
        ('+0.250', '−3', '0')
    """
    return ("+" if value > 0 else "") + number_text(value)


def diverged(runs: Runs) -> int:
    """Count the runs that became NaN or infinite."""
    return sum(number(numbers, "diverged") > 0 for numbers in runs.values())


def summary(runs: Runs, name: str) -> Interval:
    """The mean of a number over the seeds of a design, with its interval."""
    return mean_interval([number(numbers, name) for numbers in runs.values()])


def effect(quantity: Quantity, base: Runs, other: Runs) -> Effect:
    """Compare a design with another one on the seeds that both have.

    A run that diverged has no numbers, and those of the other seeds are no fair sample of the design: nothing is
    tested then. The same holds for what was not reached in some seeds.

    Args:
        quantity: The number.
        base: What is compared with.
        other: The design.

    Returns:
        The change from ``base`` to ``other``.

    Example:
        >>> base, other = ({s: {"lggw": c * (1 + s)} for s in range(4)} for c in (1.0, 0.5))
        >>> effect(Quantity("lggw", Text.same("LGGW"), ratio=True), base, other).long()
        '×0.500'
    """
    seeds = sorted(set(base) & set(other))
    before, after = (np.array([number(runs[seed], quantity.name) for seed in seeds]) for runs in (base, other))
    if quantity.ratio:
        with np.errstate(divide="ignore", invalid="ignore"):
            before, after = (np.where(x > 0, np.log(np.where(x > 0, x, 1)), np.nan) for x in (before, after))
    change = paired_difference(after, before)
    reached, whole = None, diverged(other) == 0
    if quantity.censored:
        reached = sum(math.isfinite(number(runs, quantity.name)) for runs in other.values()), len(other)
        whole = whole and bool(np.isfinite(before).all() and np.isfinite(after).all())
    return Effect(quantity, change, p_over_seeds(change) if whole else math.nan, reached=reached)


def adjusted(effects: Sequence[Effect]) -> list[Effect]:
    """Adjust effects for being several, after Holm.

    Args:
        effects: All that are looked at together.

    Returns:
        The same, each with its adjusted p-value and the level at which it is tested.

    Example:
        >>> tests = [Effect(Quantity("a", Text.same("a")), Interval(1, 0, 2, 0.2, 9), p=p) for p in (0.01, 0.04)]
        >>> [(one.adjusted, one.level) for one in adjusted(tests)]
        [(0.02, 0.025), (0.04, 0.05)]
    """
    ps = [one.p for one in effects]
    order = [int(i) for i in np.argsort(ps, kind="stable") if not math.isnan(ps[i])]
    levels, level, open_ = {}, math.nan, True
    for place, i in enumerate(order):
        if open_:
            level = ALPHA / (len(order) - place)
            open_ = ps[i] <= level
        levels[i] = level
    return [
        replace(one, adjusted=float(p), level=levels.get(i, math.nan))
        for i, (one, p) in enumerate(zip(effects, holm(ps), strict=True))
    ]
