"""What may be said at every look of a loop that looks again and again at the same held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

Word = Literal["helps", "undecided", "hurts", "unknown"]
CONFIRMATIONS = 2  # decided looks in a row, all saying the same, that turn a verdict


class LookInterval(NamedTuple):
    """Means over m samples with their intervals at one look; arrays of shape (s,), one entry a statement."""

    value: Float[np.ndarray, " s"]
    stderr: Float[np.ndarray, " s"]
    low: Float[np.ndarray, " s"]
    high: Float[np.ndarray, " s"]

    @property
    def signs(self) -> Int[np.ndarray, " s"]:
        """1 where the interval lies above 0, -1 where below, 0 across."""
        return np.where(self.low > 0, 1, np.where(self.high < 0, -1, 0))


def spent(look: int, level: float = 0.95) -> float:
    r"""Error that look k may make, so that all looks together, however many, keep to ``1 - level``.

    .. math:: \alpha_k = (1 - \text{level}) \, \frac{6}{\pi^2 k^2}, \qquad \sum_{k \ge 1} \alpha_k = 1 - \text{level}

    Args:
        look: k, from 1 on.
        level: Coverage of all intervals of all looks at once.

    Returns:
        The chance of error of this look alone.

    Raises:
        ValueError: If ``look < 1`` or ``level`` does not lie between 0 and 1.

    Example:
        >>> [round(spent(k), 4) for k in (1, 2, 10)]
        [0.0304, 0.0076, 0.0003]
    """
    if look < 1 or not 0 < level < 1:
        raise ValueError(f"Expected look >= 1 and 0 < level < 1, got {look} and {level}.")
    return (1 - level) * 6 / (math.pi * look) ** 2


def look_interval(values: Float[np.ndarray, "m s"], look: int, level: float = 0.95) -> LookInterval:
    r"""Intervals for the means of s quantities over m samples that hold at all looks and for all s at once.

    .. math:: \bar d \pm t_\nu(1 - \alpha_k / 2s) \, \frac{\hat\sigma}{\sqrt m}, \qquad
        \nu = \min\Big(m - 1, \frac{2m}{\hat\kappa - 1}\Big)

    Why it is valid at any time: the parameters of every look come from the training samples, so given the path the
    held-out values of a look are independent draws, and the look's interval errs with chance at most
    :func:`spent`. A union over all looks needs nothing about how the looks depend on each other, and they do: they
    share their samples. So whoever looks may stop, or go on, after any look. **What breaks it**: anything chosen by the
    held-out samples that then changes the path, such as stopping or tuning the learning rate on them and going on.

    Confidence sequences that gain from look to look do not fit: each look has a mean of its own, and no new samples
    arrive. Intervals by betting or by an empirical Bernstein bound need values with a known bound; descents have none.

    The t quantile is asymptotic in m where values are not normal, and small alphas look far into the tail. So the
    degrees of freedom are those of the estimated variance, from the kurtosis (Satterthwaite): few samples that carry
    most of the spread count as few. Descents of fitted networks have kurtosis 20 to 70 and skewness up to 5. Of three
    training runs on digits, with values centred so that every one of 205 looks is null, at most 5.5% of held-out
    samples of 256 or more ever gave a wrong word, 6.5% of those of 64 (m - 1 degrees of freedom: 5.5% and 14%; plain
    95% intervals: half and more).

    Args:
        values: One row a sample, m >= 2; one column a quantity.
        look: k, from 1 on.
        level: Coverage over all looks and all s quantities.

    Returns:
        Means, standard errors and interval ends, in the unit of the values.

    Raises:
        ValueError: If there are fewer than two samples, or as :func:`spent`.

    Example:
        >>> values = np.array([[0.9], [1.1], [1.0], [1.2]])
        >>> bool(look_interval(values, 1).low[0] > 0), bool(look_interval(values, 50).low[0] > 0)
        (True, False)

    References:
        Union over looks: Bonferroni. Student's t under non-normality: Efron (1969), JASA 64.
    """
    num, statements = values.shape
    if num < 2:
        raise ValueError(f"Expected at least 2 held-out samples, got {num}. Hold out more samples.")
    tail = spent(look, level) / statements / 2
    mean = values.mean(0)
    centred = values - mean
    spread = np.sqrt((centred**2).sum(0) / (num - 1))
    scaled = centred / np.where(spread > 0, spread, 1.0)
    kurtosis = (scaled**4).mean(0)
    freedom = np.minimum(num - 1.0, 2 * num / np.maximum(kurtosis - 1, 1e-9))
    stderr = spread / math.sqrt(num)
    half = -special.stdtrit(freedom, tail) * stderr  # from the lower tail: 1 - tail would lose its digits
    return LookInterval(mean, stderr, mean - half, mean + half)


@dataclass(frozen=True)
class Turns:
    """Hysteresis for s verdicts at once: two decided looks in a row that agree turn one; memory does not grow.

    A look that is undecided is passed over: it neither confirms nor breaks a row.

    Attributes:
        verdict: 1 helps, -1 hurts, 0 nothing confirmed yet. Shape (s,).
        since: Step of the first of the looks that confirmed it, -1 before.
        last: What the last decided look said, 0 before any.
        last_since: Step at which the present row of decided looks that agree began, -1 before any.
        row: Length of that row.
        decided: Step of the last decided look, -1 before any.
        first_hurt: Step at which the first confirmed row that hurts began, -1 if none ever.
    """

    verdict: Int[np.ndarray, " s"]
    since: Int[np.ndarray, " s"]
    last: Int[np.ndarray, " s"]
    last_since: Int[np.ndarray, " s"]
    row: Int[np.ndarray, " s"]
    decided: Int[np.ndarray, " s"]
    first_hurt: Int[np.ndarray, " s"]

    @classmethod
    def start(cls, num: int) -> Turns:
        """Nothing seen yet."""
        zero, none = np.zeros(num, np.int64), np.full(num, -1, np.int64)
        return cls(verdict=zero, since=none, last=zero, last_since=none, row=zero, decided=none, first_hurt=none)

    def saw(self, step: int, signs: Int[np.ndarray, " s"]) -> Turns:
        """Take a look into account.

        Args:
            step: The step of the look.
            signs: What it says, 0 where it is undecided.

        Returns:
            The new state; this one is left as it is.

        Example:
            >>> turns = Turns.start(1)
            >>> for step, sign in enumerate([1, 1, -1, 1, -1, 0, -1]):
            ...     turns = turns.saw(step, np.array([sign]))
            >>> int(turns.verdict[0]), int(turns.since[0])
            (-1, 4)
        """
        decided, again = signs != 0, (signs != 0) & (signs == self.last)
        row = np.where(again, self.row + 1, np.where(decided, 1, self.row))
        last_since = np.where(decided & ~again, step, self.last_since)
        confirmed = decided & (row >= CONFIRMATIONS)
        turned = confirmed & (signs != self.verdict)
        first = turned & (signs < 0) & (self.first_hurt < 0)
        return replace(
            self,
            verdict=np.where(turned, signs, self.verdict),
            since=np.where(turned, last_since, self.since),
            last=np.where(decided, signs, self.last),
            last_since=last_since,
            row=np.minimum(row, CONFIRMATIONS),
            decided=np.where(decided, step, self.decided),
            first_hurt=np.where(first, last_since, self.first_hurt),
        )


@dataclass(frozen=True)
class Judgement:
    """What is remembered of all looks at one held-out probe: arrays of fixed size.

    Attributes:
        looks: Looks that could say something.
        whole: Whether a step helps, one entry.
        layers: Whether its part in a leaf does, one entry a leaf.
        samples: Whether it descends on a sample, one entry a sample; descriptive, as a single sample has no error bar.
    """

    looks: int
    whole: Turns
    layers: Turns
    samples: Turns

    @classmethod
    def start(cls, looks: int, num_leaves: int, num_samples: int) -> Judgement:
        """Nothing seen yet, after ``looks`` that somebody else took."""
        return cls(looks, Turns.start(1), Turns.start(num_leaves), Turns.start(num_samples))

    def judged(self, step: int, values: Float[np.ndarray, "m L"], level: float) -> tuple[Judgement, Look]:
        """Take a look into account.

        Args:
            step: The step of the look.
            values: Descent on each of m samples by each of L leaves.
            level: Coverage over all looks: of the whole's intervals, and again of all leaves' together.

        Returns:
            The new state, and what this look says by itself.
        """
        number, of_samples = self.looks + 1, values.sum(1)
        look = Look(
            look_interval(of_samples[:, None], number, level), look_interval(values, number, level), of_samples, level
        )
        after = Judgement(
            number,
            self.whole.saw(step, look.whole.signs),
            self.layers.saw(step, look.layers.signs),
            self.samples.saw(step, np.sign(of_samples).astype(int)),
        )
        return after, look


class Look(NamedTuple):
    """One look: intervals for the whole descent and for the part of each leaf, the descent on each sample."""

    whole: LookInterval
    layers: LookInterval
    samples: Float[np.ndarray, " m"]
    level: float


def word(sign: int) -> Word:
    """Name a sign: ``helps`` above 0, ``hurts`` below, else ``undecided``."""
    return "helps" if sign > 0 else "hurts" if sign < 0 else "undecided"
