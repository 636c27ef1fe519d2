"""Projections on directions of parameter space: the same ones by every route, and unions streamed past them."""

from __future__ import annotations

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax import lggw, random_projections
from lggwjax.gradients import projections
from lggwjax.gradients.directions import directions_of_leaf
from lggwjax.gradients.engine import pose
from lggwjax.gradients.projections import distances, leaf_products, project_by_jvp, project_factors
from tests.gradients.layers import LAYERS, NUM, WITHOUT, normal, quick

KEY = jax.random.key(3)
ALL = LAYERS | WITHOUT
FEW = ("dense", "strided", "scanned", "mixed")
DRAWS = 70  # more than a tile


def _brute(layer, num_draws=DRAWS):
    """Materialised gradients times materialised directions."""
    total = np.zeros((NUM, num_draws))
    for leaf, (block, params) in enumerate(zip(layer.blocks(layer.params), jax.tree.leaves(layer.params), strict=True)):
        normals = directions_of_leaf(KEY, jnp.arange(num_draws), leaf, params.shape, jnp.float32)
        total += block @ np.asarray(normals, np.float64).reshape(num_draws, -1).T
    return total


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in ALL if name not in FEW)]
)
def test_factors_and_forward_derivatives_project_on_the_same_directions(name):
    layer = ALL[name]
    problem = layer.problem()
    arrays, brute = problem.factors(layer.params, layer.batch), _brute(layer)
    scale = np.abs(brute).max()
    found = np.asarray(quick(lambda a: project_factors(problem, KEY, a, DRAWS))(arrays))
    assert found.shape == (NUM, DRAWS)
    assert np.abs(found - brute).max() < 1e-5 * scale
    assert np.abs(1.001 * found - brute).max() > 1e-4 * scale
    forward = np.asarray(quick(lambda p: project_by_jvp(problem, KEY, p, layer.batch, 2))(layer.params))
    assert np.abs(forward - brute[:, :2]).max() < 1e-5 * scale
    np.testing.assert_allclose(
        quick(lambda a: distances(problem.engine.held, a, [array[:1] for array in a]))(arrays),
        np.linalg.norm(layer.rows(layer.params) - layer.rows(layer.params)[:1], axis=1),
        rtol=1e-4,
        atol=1e-5 * scale,
    )


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in ALL if name not in FEW)]
)
def test_products_with_one_direction_leaf_by_leaf(name):
    layer = ALL[name]
    problem = layer.problem()
    direction = [normal(200 + leaf, *jnp.shape(x)) for leaf, x in enumerate(jax.tree.leaves(layer.params))]
    found = np.asarray(leaf_products(problem, problem.factors(layer.params, layer.batch), direction))
    brute = [
        block @ np.asarray(along, np.float64).reshape(-1)
        for block, along in zip(layer.blocks(layer.params), direction, strict=True)
    ]
    brute = np.stack(brute, axis=1)
    assert found.shape == (NUM, len(direction))
    scale = np.abs(brute).max()
    assert np.abs(found - brute).max() < 1e-5 * scale
    assert np.abs(1.001 * found - brute).max() > 1e-4 * scale


@pytest.mark.slow
def test_tiles_and_chunks_do_not_matter(monkeypatch):
    layer = ALL["mixed"]
    problem, brute = layer.problem(), _brute(layer)
    project = quick(lambda p, b: random_projections(KEY, layer.loss, p, b, num_draws=3, chunk_size=2, self_check=False))
    assert np.abs(project(layer.params, layer.batch) - brute[:, :3]).max() < 1e-5 * np.abs(brute).max()
    monkeypatch.setattr(projections, "NORMALS_AT_ONCE", 2 * max(item.size for item in problem.engine.held))
    arrays = problem.factors(layer.params, layer.batch)
    found = quick(lambda a: project_factors(problem, KEY, a, DRAWS + 1))(arrays)[:, :DRAWS]
    assert np.abs(found - brute).max() < 1e-5 * np.abs(brute).max()


def _dense(w, x):
    return jnp.sum(jnp.tanh(w @ x))


def test_neither_all_directions_nor_all_gradients_are_formed():
    # 64 directions of a million coordinates are 256 MB, 32 gradients 128 MB.
    params, batch = jax.ShapeDtypeStruct((1000, 1000), jnp.float32), jax.ShapeDtypeStruct((32, 1000), jnp.float32)
    problem = pose(_dense, params, batch, None, self_check=False)

    def project(p, b):
        return project_factors(problem, KEY, problem.factors(p, b), 64)

    def all_at_once(p, b):
        rows = problem.engine.flat_gradients(problem.loss, p, b)
        return rows @ directions_of_leaf(KEY, jnp.arange(64), 0, (1_000_000,), jnp.float32).T

    sizes = [
        jax.jit(function).lower(params, batch).compile().memory_analysis().temp_size_in_bytes
        for function in (project, all_at_once)
    ]
    assert sizes[0] < 32e6
    assert sizes[1] > 100e6, "the analysis does see a block"


# Streamed unions ---------------------------------------------------------------------------------------------------


def _brute_width(points, num=20_000):
    rng, half = np.random.default_rng(0), []
    for _ in range(num // 1000):
        scores = points @ rng.normal(size=(points.shape[1], 1000))
        half.append((scores.max(0) - scores.min(0)) / 2)
    half = np.concatenate(half)
    return half.mean(), half.std() / math.sqrt(half.size)


@pytest.fixture
def streamed(monkeypatch):
    monkeypatch.setattr(sys.modules["lggwjax.lggw"], "prefers_gram", lambda *_: False)


@pytest.mark.parametrize(
    "name", ["dense", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mixed", "strided"))]
)
def test_a_streamed_union_agrees_with_the_gram_matrix(monkeypatch, name):
    layer = ALL[name]
    path = [layer.params, layer.moved(1, 0.3), layer.moved(2, 0.3)]

    def measure(num_draws, chunk_size=None):
        options = {"num_draws": num_draws, "chunk_size": chunk_size}
        return quick(lambda p: lggw(KEY, layer.loss, p, layer.batch, kind="union", **options))(path)

    gram = measure(2048)
    assert bool(gram.diameter_is_exact)
    monkeypatch.setattr(sys.modules["lggwjax.lggw"], "prefers_gram", lambda *_: False)
    whole = measure(1024)
    assert not bool(whole.diameter_is_exact), "it was streamed"
    error = 4 * math.hypot(float(gram.stderr), float(whole.stderr))
    assert abs(float(gram.value - whole.value)) < error
    assert abs(float(1.5 * gram.value - whole.value)) > error
    truth, stderr = _brute_width(np.concatenate([layer.rows(params) for params in path]))
    assert abs(float(whole.value) - truth) < 4 * math.hypot(float(whole.stderr), stderr)
    assert float(gram.diameter) <= float(whole.diameter) * (1 + 1e-5)
    for found in (gram, whole):
        assert found.counts.shape == (3 * NUM,)
        assert int(found.counts.sum()) == 2 * int(found.num_draws)

    chunked = measure(1024, 3)
    assert float(chunked.value) == pytest.approx(float(whole.value), rel=1e-5)
    # The copies that fill up the last chunk count as the example they repeat.
    assert np.abs(np.asarray(chunked.counts - whole.counts)).sum() <= 4


def test_a_streamed_union_takes_the_draws_asked_for(streamed):
    layer = ALL["dense"]
    found = lggw(KEY, layer.loss, [layer.params], layer.batch, kind="union", num_draws=np.int64(64))
    assert int(found.num_draws) == 64
    assert int(found.counts.sum()) == 128


def test_streamed_options_are_checked(streamed):
    layer = ALL["dense"]
    options = ({"num_draws": 1}, {"num_draws": 64, "tolerance": 0.1}, {"num_draws": 2.5})
    for wrong, message in zip(options, ("num_draws >= 2", "got both", "num_draws >= 2"), strict=True):
        with pytest.raises(ValueError, match=message):
            lggw(KEY, layer.loss, [layer.params], layer.batch, kind="union", **wrong)
    found = lggw(KEY, layer.loss, [layer.params], layer.batch, kind="union", tolerance=0.1)
    assert float(found.stderr / found.value) < 0.11


@pytest.mark.slow
def test_little_memory_streams_a_union():
    path, batch = [normal(seed, 96, 64, scale=0.1) for seed in (0, 1)], normal(12, 100, 64)
    limits = {"gram": 2**30, "streamed": 2**18}  # the Gram matrix and its factor take twice the latter
    for route, limit in limits.items():
        plan = lggwjax.plan(_dense, path, batch, "union", num_draws=128, max_memory=limit)
        assert plan.route == route
        assert plan.memory <= limit
    gram, few = (lggw(KEY, _dense, path, batch, kind="union", num_draws=128, max_memory=m) for m in limits.values())
    assert bool(gram.diameter_is_exact)
    assert not bool(few.diameter_is_exact)
    assert abs(float(few.value - gram.value)) < 4 * math.hypot(float(few.stderr), float(gram.stderr))


def _nearly_constant(w, x):
    return jnp.sum(w * (1 + 1e-4 * x))


def test_a_narrow_union_is_streamed_because_single_precision_has_lost_its_gram_matrix():
    points, width = normal(11, NUM, 30), jnp.zeros(30, jnp.float32)
    truth, stderr = _brute_width(np.asarray(1 + 1e-4 * np.asarray(points, np.float64)))
    found = lggw(KEY, _nearly_constant, [width], points, kind="union", num_draws=512)
    assert not bool(found.diameter_is_exact)
    slack = 4 * math.hypot(float(found.stderr), stderr)
    assert abs(float(found.value) - truth) < slack + float(found.rounding)
    assert abs(float(found.value) - truth) < slack + 0.02 * truth, "and by far better than its allowance for rounding"
