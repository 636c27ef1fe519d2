"""How sure a comparison is: intervals over seeds, paired differences, many comparisons at once, slopes and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_NAN = float("nan")


class Interval(NamedTuple):
    """An estimate with its confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end; NaN where the numbers do not support an interval.
        high: Upper end.
        stderr: Standard error.
        num: Observations behind it: seeds, pairs, points or clusters.
    """

    value: float
    low: float
    high: float
    stderr: float
    num: int


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    r"""Estimate a mean with Student's t interval.

    .. math:: \bar x \pm t_{(1 + level) / 2,\, n - 1} \; s / \sqrt n

    Args:
        values: Independent observations, one a seed; NaN is left out.
        level: Confidence.

    Returns:
        The mean; NaN ends for fewer than two observations, NaN throughout for none.

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> found.value, round(found.low, 3), round(found.high, 3), found.num
        (2.0, -0.484, 4.484, 3)
    """
    _check_level(level)
    known = _finite(values)
    if len(known) < 2:
        return Interval(float(known[0]) if len(known) else _NAN, _NAN, _NAN, _NAN, len(known))
    mean, stderr = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(len(known))
    half = float(stats.t.ppf((1 + level) / 2, len(known) - 1)) * stderr
    return Interval(mean, mean - half, mean + half, stderr, len(known))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Estimate the mean of ``a - b`` over pairs, such as two designs on the same seeds, with Student's t interval.

    Args:
        a: One number a pair.
        b: The same, in the same order; a pair with NaN is left out.
        level: Confidence.

    Returns:
        The mean difference, as `mean_interval` gives it.

    Raises:
        ValueError: If there are not as many of one as of the other.

    Example:
        >>> paired_difference([1.0, 2.0, 4.0], [0.0, 1.0, 3.0])
        Interval(value=1.0, low=1.0, high=1.0, stderr=0.0, num=3)
    """
    first, second = _column(a), _column(b)
    if len(first) != len(second):
        raise ValueError(f"Expected pairs, got {len(first)} numbers and {len(second)}. Keep the seeds that both have.")
    return mean_interval(first - second, level)


def p_value(mean: Interval | ArrayLike) -> float:
    """Test whether a mean is zero: the two-sided p-value of Student's t.

    Args:
        mean: What `mean_interval` or `paired_difference` returned, or the observations themselves.

    Returns:
        The p-value; NaN for fewer than two observations. Observations that are all alike give 0, or 1 if they are 0.

    Example:
        >>> round(p_value([1.0, 2.0, 3.0]), 4)
        0.0742
        >>> p_value([1.0, 2.0, 3.0]) == p_value(mean_interval([1.0, 2.0, 3.0]))
        True
    """
    found = mean if isinstance(mean, Interval) else mean_interval(mean)
    if found.num < 2 or math.isnan(found.value) or math.isnan(found.stderr):
        return _NAN
    if found.stderr == 0:
        return float(found.value == 0)
    return float(2 * stats.t.sf(abs(found.value) / found.stderr, found.num - 1))


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""Adjust p-values for being several, after Holm (1979).

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\{(m - j + 1) \, p_{(j)}, 1\}

    Guarantee: rejecting where the adjusted value is at most alpha rejects any true hypothesis with probability at most
    alpha, whatever the dependence between the tests.

    Args:
        p_values: One a test; NaN stands for no test and stays NaN, uncounted.

    Returns:
        The adjusted p-values, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(9).tolist()
        [0.03, 0.06, 0.06]
    """
    given = _column(p_values)
    adjusted = np.full(len(given), np.nan)
    order = [i for i in np.argsort(given, kind="stable") if not math.isnan(given[i])]
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * float(given[i])))
        adjusted[i] = largest
    return adjusted


def log_slope(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval:
    """Estimate the exponent b of a power law y = a x^b: the least-squares slope of log y on log x.

    Args:
        x: Positive numbers.
        y: Positive numbers, as many; a pair that is not positive and finite is left out.
        level: Confidence of Student's t interval with n - 2 degrees of freedom, which takes the errors of log y to be
            normal, independent and of one size.

    Returns:
        The exponent; NaN ends for fewer than three points, NaN throughout for fewer than two different x.

    Raises:
        ValueError: If there are not as many x as y.

    Example:
        >>> round(log_slope([1.0, 2.0, 4.0, 8.0], [3.0, 12.0, 48.0, 192.0]).value, 9)
        2.0
    """
    _check_level(level)
    x, y = _column(x), _column(y)
    if len(x) != len(y):
        raise ValueError(f"Expected as many x as y, got {len(x)} and {len(y)}. Keep the points that have both.")
    kept = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    x, y = np.log(x[kept]), np.log(y[kept])
    num = len(x)
    spread = float(((x - x.mean()) ** 2).sum()) if num else 0.0
    if num < 2 or spread <= 0:
        return Interval(_NAN, _NAN, _NAN, _NAN, num)
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    if num < 3:
        return Interval(slope, _NAN, _NAN, _NAN, num)
    left = y - y.mean() - slope * (x - x.mean())
    stderr = math.sqrt(float((left**2).sum()) / (num - 2) / spread)
    half = float(stats.t.ppf((1 + level) / 2, num - 2)) * stderr
    return Interval(slope, slope - half, slope + half, stderr, num)


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Measure whether two quantities order the same things alike: Kendall's tau-b.

    Args:
        x: One number a thing.
        y: The same; a pair with NaN is left out.

    Returns:
        Between -1 and 1; NaN for fewer than two pairs, or where all x or all y are equal.

    Raises:
        ValueError: If there are not as many x as y.

    Example:
        >>> round(kendall([1, 2, 3, 4], [10, 20, 40, 30]), 9)
        0.666666667
    """
    x, y = _column(x), _column(y)
    if len(x) != len(y):
        raise ValueError(f"Expected as many x as y, got {len(x)} and {len(y)}. Keep the things that have both.")
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return _NAN
    found: Any = stats.kendalltau(x, y)
    return float(found.statistic)


def bootstrap_interval(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    seed: int,
    num: int = 1000,
    level: float = 0.95,
    clusters: Sequence[object] | np.ndarray | None = None,
) -> Interval:
    """Estimate any statistic with a percentile bootstrap interval over rows, or over whole clusters of rows.

    Args:
        statistic: From the columns to a number.
        columns: Equally long; row i of each belongs to the same observation.
        seed: Fixes the resamples.
        num: Resamples.
        level: Confidence, asymptotically: with few rows or clusters the interval is too short.
        clusters: The cluster of each row, such as its seed; rows of a cluster are drawn together, so that rows that
            depend on each other do not count as independent ones.

    Returns:
        The statistic of all rows, the quantiles and the spread of its resamples, and the number of rows or clusters.
        Resamples without a finite statistic are left out; the ends are NaN where half of them are, or for fewer than
        two rows or clusters.

    Raises:
        ValueError: If the columns differ in length or are none.

    Example:
        >>> found = bootstrap_interval(lambda x: x.mean(), [1.0, 2.0, 3.0, 4.0], seed=0)
        >>> found.value, found.low < 2.5 < found.high, found.num
        (2.5, True, 4)
    """
    _check_level(level)
    arrays = [np.asarray(column) for column in columns]
    lengths = {len(array) for array in arrays} | (set() if clusters is None else {len(clusters)})
    if len(lengths) != 1 or not arrays:
        raise ValueError(
            f"Expected columns of one length, got lengths {sorted(lengths)}. Give each row a value in each."
        )
    size = lengths.pop()
    names = np.arange(size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    value = float(statistic(*arrays))
    if len(rows) < 2:
        return Interval(value, _NAN, _NAN, _NAN, len(rows))
    rng = np.random.default_rng(seed)
    found = np.empty(num)
    for i in range(num):
        drawn = np.concatenate([rows[j] for j in rng.integers(len(rows), size=len(rows))])
        found[i] = statistic(*(array[drawn] for array in arrays))
    kept = found[np.isfinite(found)]
    if 2 * len(kept) <= num:
        return Interval(value, _NAN, _NAN, _NAN, len(rows))
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), float(kept.std(ddof=1)), len(rows))


def _column(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1)


def _finite(values: ArrayLike) -> np.ndarray:
    column = _column(values)
    return column[np.isfinite(column)]


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1, got {level}. 0.95 is usual.")
