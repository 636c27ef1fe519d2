from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lggwjax.report.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    kendall,
    log_slope,
    mean_interval,
    p_value,
    paired_difference,
)

RNG = np.random.default_rng(7)
TOLERANCE = 1e-12


def covers(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


def expect_share(hits: int, trials: int, share: float, *, away: bool = False) -> None:
    """Hold a count to its binomial spread; a negative control is more than four standard errors away."""
    spread = 4 * math.sqrt(share * (1 - share) / trials)
    assert (abs(hits / trials - share) > spread) == away, (hits, trials)


@pytest.mark.parametrize("num", [2, 3, 10, 50])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_mean_is_scipys(num, level):
    values = RNG.normal(3.0, 2.0, num)
    found, test = mean_interval(values, level), stats.ttest_1samp(values, 0.0)
    ends = test.confidence_interval(level)
    assert np.allclose([found.low, found.high], [ends.low, ends.high], rtol=TOLERANCE)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(stats.sem(values))
    assert p_value(found) == pytest.approx(test.pvalue, rel=1e-9)
    assert p_value(values) == p_value(found)


def test_too_few_numbers_have_no_interval():
    one, none = mean_interval([2.0, np.nan]), mean_interval([])
    assert (one.value, one.num) == (2.0, 1)
    assert all(math.isnan(x) for x in (one.low, one.high, one.stderr, none.value, none.low, p_value(one), p_value([])))


def test_numbers_all_alike_are_no_error():
    assert mean_interval([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0, 0.0, 3)
    assert (p_value([1.0, 1.0]), p_value([0.0, 0.0])) == (0.0, 1.0)


def test_pairs_are_scipys_paired_test():
    a = RNG.normal(size=8)
    b = a + RNG.normal(0.3, 0.1, size=8)
    assert p_value(paired_difference(a, b)) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert paired_difference(a, b).value == pytest.approx((a - b).mean())
    assert paired_difference([*a, np.nan], [*b, 1.0]) == paired_difference(a, b)
    with pytest.raises(ValueError, match="Expected pairs"):
        paired_difference(a, b[1:])


def test_holm_is_scipys_and_by_hand():
    p_values = [0.01, 0.02, 0.022, 0.09, 0.5, 0.01]
    # Sorted .01 .01 .02 .022 .09 .5, times 6 5 4 3 2 1, then the running maximum.
    assert np.allclose(holm(p_values), [0.06, 0.08, 0.08, 0.18, 0.5, 0.06])
    assert np.allclose(holm([0.2]), [0.2])
    assert np.allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02], equal_nan=True)
    assert holm([0.9, 0.8]).max() <= 1
    assert len(holm([])) == 0


def test_the_slope_is_scipys():
    x = np.geomspace(1, 100, 9)
    y = 3 * x**-0.5 * np.exp(RNG.normal(0, 0.1, 9))
    found, other = log_slope(x, y), stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, 7) * other.stderr
    assert np.allclose(found[:4], [other.slope, other.slope - half, other.slope + half, other.stderr], rtol=1e-9)
    assert log_slope([*x, 0.0, np.nan], [*y, 1.0, 1.0]) == found


def test_a_slope_needs_points():
    two, one = log_slope([1.0, 10.0], [1.0, 100.0]), log_slope([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert two.value == pytest.approx(2.0)
    assert math.isnan(two.low)
    assert math.isnan(one.value)
    assert math.isnan(log_slope([], []).value)


def test_kendall_by_hand():
    assert kendall([1, 2, 3], [1, 2, 3]) == 1
    assert kendall([1, 2, 3], [3, 2, 1]) == -1
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall([1, 2, 3, np.nan], [1, 2, 3, 0]) == 1
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall([1], [1]))


def test_the_bootstrap_does_not_depend_on_chance_but_on_its_seed():
    x = RNG.normal(size=20)
    first, again, other = (bootstrap_interval(np.mean, x, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_bootstrap_draws_rows_together():
    x = RNG.normal(size=30)
    found = bootstrap_interval(lambda a, b: float(np.abs(a - 2 * b).max()), x, x / 2, seed=0, num=50)
    assert found[:3] == (0.0, 0.0, 0.0)


def test_the_bootstrap_draws_whole_clusters():
    sizes = []
    bootstrap_interval(
        lambda x, c: sizes.append(sorted(np.unique(c, return_counts=True)[1] % 3)) or 0.0,
        np.arange(12.0),
        np.repeat(np.arange(4), 3),
        seed=0,
        num=20,
        clusters=[name for name in "abcd" for _ in range(3)],
    )
    assert all(set(counts) == {0} for counts in sizes)


def test_the_bootstrap_says_where_it_cannot():
    assert math.isnan(bootstrap_interval(np.mean, [1.0, 2.0], seed=0, clusters=["a", "a"]).low)
    assert math.isnan(bootstrap_interval(lambda x: math.nan, [1.0, 2.0], seed=0, num=10).low)
    with pytest.raises(ValueError, match="one length"):
        bootstrap_interval(np.mean, [1.0, 2.0], [1.0], seed=0)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        mean_interval([1.0, 2.0], 95)


def test_the_mean_covers_as_often_as_it_says():
    samples = RNG.exponential(size=0), RNG.normal(1.0, 2.0, (4000, 3))
    found = [mean_interval(row) for row in samples[1]]
    expect_share(sum(covers(x, 1.0) for x in found), 4000, 0.95)
    # Normal quantiles in place of Student's cover three numbers less often.
    normal = [x._replace(low=x.value - 1.96 * x.stderr, high=x.value + 1.96 * x.stderr) for x in found]
    expect_share(sum(covers(x, 1.0) for x in normal), 4000, 0.95, away=True)


def test_the_slope_covers_as_often_as_it_says():
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    found = [log_slope(x, x**0.5 * np.exp(RNG.normal(0, 0.3, 5))) for _ in range(2000)]
    expect_share(sum(covers(f, 0.5) for f in found), 2000, 0.95)
    expect_share(sum(covers(f, 0.8) for f in found), 2000, 0.95, away=True)


def test_holm_rejects_a_true_one_as_seldom_as_it_says():
    p_values = RNG.uniform(size=(4000, 5))
    adjusted = np.array([holm(row) for row in p_values])
    hits, unadjusted = int((adjusted.min(1) <= 0.05).sum()), int((p_values.min(1) <= 0.05).sum())
    expect_share(hits, 4000, 1 - (1 - 0.05 / 5) ** 5)
    expect_share(unadjusted, 4000, 0.05, away=True)


@pytest.mark.slow
def test_the_bootstrap_covers_only_with_its_clusters():
    clusters = np.repeat(np.arange(40), 5)
    with_them = without = 0
    for trial in range(300):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=200)
        with_them += covers(bootstrap_interval(np.mean, x, seed=trial, num=300, clusters=clusters), 0.0)
        without += covers(bootstrap_interval(np.mean, x, seed=trial, num=300), 0.0)
    assert 0.90 <= with_them / 300 <= 0.98
    assert without / 300 < 0.75
