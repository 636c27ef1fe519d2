"""Widths from sketches: whether the stated error is the actual one, for sets whose width is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.gradients.engine import pose
from lggwjax.training.probes import Probe
from lggwjax.widths.sketched import SketchedExtremes, update_sketched, width_from_sketched
from tests.gradients.layers import WITHOUT, quick

GROUPS, PER_GROUP, DRAWS, REPEATS = 8, 16, 256, 200
KEY = jax.random.key(0)


def _exact_width(points, num=40_000):
    rng, half = np.random.default_rng(0), []
    for _ in range(num // 1000):
        scores = points @ rng.normal(size=(points.shape[1], 1000))
        half.append((scores.max(0) - scores.min(0)) / 2)
    return np.concatenate(half).mean()


_update, _width = quick(update_sketched), quick(width_from_sketched)


def _measure(key, sketches):
    """Width of T points, each given as (G, m)."""
    seen = SketchedExtremes.empty(GROUPS, DRAWS)
    for point in sketches:
        seen = _update(seen, key, point)
    return _width(seen), seen


@pytest.fixture(scope="module")
def repeated():
    """Widths of one path from many independent Gaussian sketches of it, and the exact one."""
    path = np.cumsum(np.random.default_rng(5).normal(size=(7, 60)), 0)
    path = jnp.asarray(path - path[0], jnp.float32)

    @quick
    @jax.vmap
    def measure(key):
        sketch_key, key = jax.random.split(key)
        maps = jax.random.normal(sketch_key, (GROUPS, PER_GROUP, path.shape[1])) / PER_GROUP**0.5
        seen = SketchedExtremes.empty(GROUPS, DRAWS)
        for point in jnp.einsum("gmp,tp->tgm", maps, path):
            seen = update_sketched(seen, key, point)
        width = width_from_sketched(seen)
        return width, ((seen.highest[0] - seen.lowest[0]) / 2).mean()

    return *measure(jax.random.split(KEY, REPEATS)), _exact_width(np.asarray(path))


def _coverage(interval, truth):
    return np.mean((np.asarray(interval.low) <= truth) & (truth <= np.asarray(interval.high)))


@pytest.mark.slow
def test_the_interval_holds_the_exact_width_as_often_as_it_says(repeated):
    width, _, truth = repeated
    # Three standard errors of 200 repetitions below what is said; a lower level covers less often.
    assert _coverage(width.interval(0.95), truth) >= 0.905
    assert _coverage(width.interval(0.5), truth) == pytest.approx(0.5, abs=0.12)


@pytest.mark.slow
def test_the_bias_is_far_below_the_stated_error(repeated):
    width, plain, truth = repeated
    np.testing.assert_allclose(width.value, plain, rtol=1e-6)
    stated = np.sqrt(np.mean(np.asarray(width.sketch_stderr) ** 2))
    error = np.asarray(plain).std() / REPEATS**0.5
    assert abs(np.asarray(plain).mean() - truth) < stated / 4 + 3 * error
    assert abs(1.5 * np.asarray(plain).mean() - truth) > stated / 4 + 3 * error


@pytest.mark.slow
def test_the_stated_error_is_the_actual_spread(repeated):
    width, _, truth = repeated
    stated = np.sqrt(np.mean(np.asarray(width.stderr) ** 2 + np.asarray(width.sketch_stderr) ** 2))
    assert 0.85 < stated / np.asarray(width.value).std() < 1.5
    sketch = np.sqrt(max(np.asarray(width.value).var() - np.mean(np.asarray(width.stderr) ** 2), 0))
    assert 0.5 < np.sqrt(np.mean(np.asarray(width.sketch_stderr) ** 2)) / sketch < 2
    assert stated / truth < 0.2, "the error is one that says something"


def test_a_large_sketch_gives_the_width_itself():
    points = jnp.asarray(np.random.default_rng(1).normal(size=(5, GROUPS, 300)), jnp.float32)
    width, _ = _measure(KEY, points)
    flat = np.asarray(points).reshape(5, -1) / GROUPS**0.5
    assert abs(float(width.value) - _exact_width(flat, 4000)) < 5 * np.hypot(width.stderr, width.sketch_stderr)


def test_extremes_grow_and_order_does_not_matter():
    points = jnp.asarray(np.random.default_rng(1).normal(size=(4, GROUPS, PER_GROUP)), jnp.float32)
    _, forwards = _measure(KEY, points)
    _, backwards = _measure(KEY, points[::-1])
    np.testing.assert_array_equal(forwards.highest, backwards.highest)
    np.testing.assert_array_equal(forwards.lowest, backwards.lowest)
    assert forwards.highest.shape == (GROUPS + 1, DRAWS)
    once, _ = _measure(KEY, points[:2])
    again, _ = _measure(KEY, points[jnp.array([0, 1, 0])])
    assert float(once.value) == float(again.value)


def test_one_point_has_width_zero_and_scaling_scales():
    points = jnp.asarray(np.random.default_rng(1).normal(size=(4, GROUPS, PER_GROUP)), jnp.float32)
    one, _ = _measure(KEY, points[:1])
    assert float(one.value) == float(one.stderr) == float(one.sketch_stderr) == 0
    plain, scaled = _measure(KEY, points)[0], _measure(KEY, -4 * points)[0]
    for name in ("value", "stderr", "sketch_stderr"):
        assert float(getattr(scaled, name)) == pytest.approx(4 * float(getattr(plain, name)), rel=1e-5)


def test_nan_stays():
    width, _ = _measure(KEY, [jnp.full((GROUPS, PER_GROUP), value) for value in (0.0, jnp.nan, 1.0)])
    assert np.isnan(width.value)
    assert np.isnan(width.stderr)


def test_the_interval_is_that_of_both_errors(repeated):
    width = jax.tree.map(lambda leaf: leaf[0], repeated[0])
    both, draws = width.interval(), width.draws_interval()
    assert float(both.low) < float(draws.low) < float(width.value) < float(draws.high) < float(both.high)
    assert int(width.num_replicates) == GROUPS
    assert int(width.num_draws) == DRAWS


@pytest.mark.slow
def test_a_probe_of_a_model_states_its_error():
    layer = WITHOUT["mixed"]
    path = [layer.params, layer.moved(1, 0.2), layer.moved(2, 0.4), layer.moved(3, 0.4)]
    problem = pose(layer.loss, layer.params, layer.batch, None)
    rows = np.stack([layer.rows(params) for params in path])
    truth = _exact_width(rows.reshape(len(path), -1) / len(rows[0]) ** 0.5)
    probe = Probe(problem, layer.batch, 5, len(path), 256, "sketched", union=False)
    found = []
    for seed in range(80):
        state = probe.start(jax.random.key(seed))
        for params in path:
            state, widths = probe.extend(state, params)
        found.append(widths.stacked)
    values, stderr, sketch = (
        np.array([float(getattr(w, n)) for w in found]) for n in ("value", "stderr", "sketch_stderr")
    )
    inside = [float(w.interval().low) <= truth <= float(w.interval().high) for w in found]
    assert np.mean(inside) >= 0.88
    assert abs(values.mean() - truth) < 3.5 * values.std() / len(found) ** 0.5
    assert 0.5 < np.sqrt(np.mean(stderr**2 + sketch**2)) / values.std() < 2
