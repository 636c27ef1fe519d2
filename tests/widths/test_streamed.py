"""Extremes of a stream against the same set seen at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.widths import RunningExtremes, closed_form, update_extremes, width_from_extremes

NUM_DRAWS = 512
KEY = jax.random.key(0)


def _stream(points, chunk, num_draws=NUM_DRAWS, reference=None):
    extremes = RunningExtremes.empty(num_draws)
    for start in range(0, len(points), chunk):
        moved = points[start : start + chunk] - (points[0] if reference is None else reference)
        projections = moved @ jax.random.normal(KEY, (num_draws, moved.shape[1])).T
        extremes = update_extremes(extremes, projections, jnp.linalg.norm(moved, axis=1))
    return extremes


@pytest.fixture(scope="module")
def points():
    return jnp.asarray(np.random.default_rng(0).normal(size=(12, 10)), jnp.float32)


@pytest.mark.slow
def test_the_stream_is_the_half_range_of_all_points(points):
    found = width_from_extremes(_stream(points, 4), max_points=12)
    scores = np.asarray(points @ jax.random.normal(KEY, (NUM_DRAWS, points.shape[1])).T)
    half = (scores.max(0) - scores.min(0)) / 2
    assert float(found.value) == pytest.approx(half.mean(), rel=1e-5)
    assert float(found.stderr) == pytest.approx(half.std(ddof=1) / NUM_DRAWS**0.5, rel=1e-4)
    attained = np.bincount(scores.argmax(0), minlength=12) + np.bincount(scores.argmin(0), minlength=12)
    assert found.counts.tolist() == attained.tolist()
    assert int(found.num_draws) == int(found.num_replicates) == NUM_DRAWS


@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_chunks_do_not_matter(points, chunk):
    whole, chunked = _stream(points, 6), _stream(points, chunk)
    np.testing.assert_allclose(chunked.highest, whole.highest, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(chunked.lowest, whole.lowest, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(chunked.highest_index, whole.highest_index)
    assert int(chunked.num_points) == 12


def test_known_width_and_guaranteed_interval():
    found = width_from_extremes(_stream(jnp.eye(10), 10, 4096), max_points=10)
    truth = closed_form.expected_max_normal(10)
    assert abs(found.value - truth) < 4 * found.stderr
    assert abs(found.value - 1.1 * truth) > 4 * found.stderr
    low, high = found.guaranteed_interval(0.999)
    assert low <= truth <= high


def test_the_diameter_is_an_upper_bound_and_says_so(points):
    found = width_from_extremes(_stream(points, 4), max_points=12)
    exact = max(float(jnp.linalg.norm(a - b)) for a in points for b in points)
    radius = max(float(jnp.linalg.norm(a - points[0])) for a in points)
    assert not bool(found.diameter_is_exact)
    assert float(found.diameter) == pytest.approx(2 * radius, rel=1e-6)
    assert exact <= float(found.diameter)


def test_more_points_never_lower_a_draw(points):
    few, many = _stream(points[:8], 4), _stream(points, 4)
    assert (many.highest >= few.highest).all()
    assert (many.lowest <= few.lowest).all()


def test_translation_leaves_the_draws(points):
    near, far = (width_from_extremes(_stream(p, 4), max_points=12) for p in (points, points + 1.0))
    assert float(near.value) == pytest.approx(float(far.value), rel=1e-5)


def test_one_point_has_width_zero():
    found = width_from_extremes(_stream(jnp.ones((4, 10)), 4), max_points=4)
    assert float(found.value) == float(found.stderr) == 0
    assert found.interval() == (0, 0)


@pytest.mark.makes_nan
def test_nan_stays_nan_whatever_comes_after_it(points):
    seen = update_extremes(RunningExtremes.empty(3), jnp.array([[1.0, jnp.nan, 2.0]]), jnp.ones(1))
    later = update_extremes(seen, jnp.ones((2, 3)), jnp.ones(2))
    assert np.isnan(later.highest).tolist() == np.isnan(later.lowest).tolist() == [False, True, False]
    assert np.isnan(width_from_extremes(later, max_points=3).value)


def test_works_under_jit(points):
    inside = jax.jit(lambda p: width_from_extremes(_stream(p, 4), max_points=12))(points)
    outside = width_from_extremes(_stream(points, 4), max_points=12)
    assert float(inside.value) == pytest.approx(float(outside.value), rel=1e-5)
