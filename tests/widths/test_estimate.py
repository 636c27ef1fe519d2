"""Intervals: that both cover what they say, and that a wrong number would be found out."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from lggwjax.widths import Estimate, WidthEstimate, closed_form, gaussian_width
from lggwjax.widths.estimate import Moments

EYE = jnp.eye(10)


def _estimate(value=1.0, stderr=0.5, replicates=16, **changes) -> WidthEstimate:
    fields = {
        "value": jnp.asarray(value),
        "stderr": jnp.asarray(stderr),
        "num_draws": jnp.asarray(1024),
        "num_replicates": jnp.asarray(replicates),
        "rounding": jnp.asarray(0.0),
        "diameter": jnp.asarray(2.0),
        "counts": jnp.zeros(3, jnp.int32),
        "diameter_is_exact": jnp.asarray(True),
    }
    return WidthEstimate(**(fields | changes))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("replicates", [8, 16, 64, 1024])
def test_interval_is_student_t_over_the_replicates(level, replicates):
    expected = 0.5 * special.stdtrit(replicates - 1, 0.5 + level / 2)
    low, high = _estimate(replicates=replicates).interval(level)
    np.testing.assert_allclose([1 - low, high - 1], expected, rtol=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("replicates", [8, 16, 64, 1024])
def test_interval_inside_a_trace_is_the_same_to_a_thousandth(level, replicates):
    inside = jax.jit(lambda estimate: estimate.interval(level))(_estimate(replicates=replicates))
    outside = _estimate(replicates=replicates).interval(level)
    np.testing.assert_allclose(inside.high - inside.low, outside.high - outside.low, rtol=1e-3)


def test_guaranteed_interval_is_the_formula():
    # (diam/2) sqrt(2 ln(2/delta) / K), K the independent terms of the mean
    low, high = _estimate(replicates=100).guaranteed_interval(0.95)
    half = (2.0 / 2) * math.sqrt(2 * math.log(2 / 0.05) / 100)
    np.testing.assert_allclose([1 - low, high - 1], half, rtol=1e-5)


def test_rounding_widens_both_intervals():
    exact, rounded = _estimate(), _estimate(rounding=jnp.asarray(0.25))
    for method in ("interval", "guaranteed_interval"):
        assert getattr(exact, method)().low - getattr(rounded, method)().low == pytest.approx(0.25, rel=1e-5)
        assert getattr(rounded, method)().high - getattr(exact, method)().high == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.1])
def test_level_outside_the_unit_interval_is_refused(level):
    for method in (_estimate().interval, _estimate().guaranteed_interval):
        with pytest.raises(ValueError, match=r"Expected a confidence level between 0 and 1, got .* Pass"):
            method(level)


def test_effective_dimension():
    assert float(_estimate(value=3.0).effective_dimension) == pytest.approx(2.25)
    assert float(_estimate(value=0.0, diameter=jnp.asarray(0.0)).effective_dimension) == 0


def test_results_are_frozen():
    with pytest.raises(AttributeError):
        _estimate().value = jnp.asarray(2.0)  # type: ignore[misc]


def test_results_are_registered_pytrees_and_keep_their_methods_out_of_jit():
    estimate = jax.jit(lambda e: e)(_estimate())
    assert isinstance(estimate, WidthEstimate)
    assert isinstance(estimate, Estimate)
    assert len(jax.tree.leaves(estimate)) == 8
    assert estimate.interval().low < 1 < estimate.guaranteed_interval().high


def test_moments_in_blocks_are_those_of_all_terms_at_once():
    terms = np.random.default_rng(0).normal(5, 2, (7, 64)).astype(np.float32)
    moments, keep = Moments.empty(dtype=jnp.dtype("float32")), np.ones(64, np.float32)
    keep_last = np.arange(64) < 10
    for block in terms[:-1]:
        moments = moments.add(jnp.asarray(block), jnp.asarray(keep))
    moments = moments.add(jnp.asarray(terms[-1]), jnp.asarray(keep_last, jnp.float32))
    kept = np.concatenate([terms[:-1].ravel(), terms[-1, :10]]).astype(np.float64)
    assert float(moments.count) == kept.size
    assert float(moments.mean) == pytest.approx(kept.mean(), rel=1e-6)
    assert float(moments.stderr) == pytest.approx(kept.std(ddof=1) / math.sqrt(kept.size), rel=1e-5)


def test_moments_of_few_terms_claim_nothing():
    empty = Moments.empty(dtype=jnp.dtype("float32"))
    assert float(empty.stderr) == math.inf
    assert float(empty.add(jnp.array([3.0]), jnp.ones(1)).stderr) == math.inf
    assert float(empty.add(jnp.array([3.0, jnp.inf])[:1], jnp.ones(1)).mean) == 3


KNOWN_SETS = {
    "two points": (jnp.zeros((10, 10)).at[0, 3].set(5.0), closed_form.segment(5.0)),
    "simplex": (EYE, closed_form.expected_max_normal(10)),
    "far from the origin": (EYE + 30.0, closed_form.expected_max_normal(10)),
    "cross-polytope": (jnp.concatenate([jnp.eye(5, 10), -jnp.eye(5, 10)]), closed_form.expected_max_abs_normal(5)),
    "square": (
        jnp.zeros((10, 10)).at[:4, :2].set(jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])),
        2 * math.sqrt(2 / math.pi),
    ),
}


_repeat = jax.jit(
    jax.vmap(lambda key, points, num: gaussian_width(key, points, num_draws=num), in_axes=(0, None, None))
)


def _hits(points, truth, num_draws, repetitions, seed=0):
    """How often each interval contains ``truth``."""
    keys = jax.random.split(jax.random.key(seed), repetitions)
    estimates = _repeat(keys, points, num_draws)
    quantile = special.stdtrit(num_draws - 1, 0.975)
    asymptotic = np.abs(estimates.value - truth) <= quantile * np.asarray(estimates.stderr) + estimates.rounding
    low, high = estimates.guaranteed_interval(0.95)
    return int(asymptotic.sum()), int(((low <= truth) & (truth <= high)).sum())


def _check_coverage(name, num_draws, repetitions):
    points, truth = KNOWN_SETS[name]
    asymptotic, guaranteed = _hits(points, truth, num_draws, repetitions)
    # theory.md: .92 and more at K = 8, .94 and more from K = 128 on; a shortfall that luck explains once in 10^4 is let
    # pass.
    nominal = 0.92 if num_draws < 128 else 0.94
    assert asymptotic >= stats.binom.ppf(1e-4, repetitions, nominal)
    assert guaranteed >= stats.binom.ppf(1e-4, repetitions, 0.95)
    if name != "two points":  # exact, always covered
        assert asymptotic <= stats.binom.ppf(1 - 1e-4, repetitions, 0.965)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN_SETS)
def test_both_intervals_cover(name):
    _check_coverage(name, 128, 200)


@pytest.mark.slow
@pytest.mark.parametrize("num_draws", [8, 128, 1024])
@pytest.mark.parametrize("name", KNOWN_SETS)
def test_both_intervals_cover_over_many_repetitions(name, num_draws):
    _check_coverage(name, num_draws, 2000)


@pytest.mark.slow
def test_coverage_test_would_find_a_width_wrong_by_three_percent():
    points, truth = KNOWN_SETS["simplex"]
    asymptotic, _ = _hits(points, 1.03 * truth, 4096, 200)
    assert asymptotic < stats.binom.ppf(1e-4, 200, 0.94)


def test_guaranteed_interval_is_wider_than_the_asymptotic_and_both_shrink():
    few, many = (gaussian_width(jax.random.key(0), EYE, num_draws=k) for k in (64, 4096))
    for estimate in (few, many):
        (low, high), (glow, ghigh) = estimate.interval(), estimate.guaranteed_interval()
        assert glow < low < high < ghigh
    shrink = np.diff(few.guaranteed_interval())[0] / np.diff(many.guaranteed_interval())[0]
    assert shrink == pytest.approx(8, rel=1e-3)
