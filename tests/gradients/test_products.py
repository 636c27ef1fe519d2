"""Inner products by every route against materialised gradients, and what single precision does to short differences."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import gradient_gram
from lggwjax.gradients import path_grams, products
from lggwjax.gradients.costs import MOVED_COPIES, WORKING_BYTES, pair_costs, path_costs
from lggwjax.gradients.engine import Held, pose
from lggwjax.gradients.products import compact, compact_held, cross_gram, pair_products, path_products
from lggwjax.jaxprs import inner_jaxprs
from lggwjax.widths.factor import ancestor_matrix, factor_moved_gram
from tests.gradients.layers import LAYERS, NUM, WITHOUT, Layered, quick

ROUTES = ("activations", "contracted")


def _force(monkeypatch, route):
    monkeypatch.setattr(products, "cheapest", lambda costs: route)
    products._pair_products.clear_cache()  # the route is chosen while it is traced


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    products._pair_products.clear_cache()


def _close(found, expected, tolerance=2e-5):
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() < tolerance * np.abs(expected).max()


def _path(layer: Layered):
    path = [layer.params, layer.moved(1), layer.moved(2)]
    return path, [layer.rows(params) for params in path]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_route_multiplies_gradients(monkeypatch, name, route):
    layer = LAYERS[name]
    problem = layer.problem()
    held = problem.engine.held
    assert all(item.product is not None for item in held), "the case is one of factors"
    path, rows = _path(layer)
    steps = [problem.factors(params, layer.batch) for params in path]
    _force(monkeypatch, route)

    references = (0, 0, 1)

    @quick
    def all_of(steps):
        return (
            cross_gram(held, steps[0], steps[0]),
            cross_gram(held, steps[0], [array[:3] for array in steps[1]]),
            path_products(held, steps, references),
            pair_products(held, steps[2], steps[1], steps[1], steps[0]),
        )

    same, cross, along, pair = all_of(steps)
    _close(same, rows[0] @ rows[0].T)
    _close(cross, rows[0] @ rows[1][:3].T)
    moved = np.stack([rows[i] - rows[r] for i, r in enumerate(references)], 1)
    _close(along, np.einsum("isp,itp->ist", moved, moved), 1e-4)
    _close(pair, ((rows[2] - rows[1]) * (rows[1] - rows[0])).sum(1), 1e-4)


@pytest.mark.parametrize("name", WITHOUT)
def test_leaves_without_factors_take_part(name):
    layer = WITHOUT[name]
    path, rows = _path(layer)
    gram, grams = quick(
        lambda p: (gradient_gram(layer.loss, p[0], layer.batch), path_grams(layer.loss, p, layer.batch).grams)
    )(path)
    _close(gram, rows[0] @ rows[0].T)
    with pytest.raises(AssertionError):
        _close(gram, 1.001 * rows[0] @ rows[0].T)
    moved = np.stack(rows, 1) - rows[0][:, None]
    _close(grams, np.einsum("isp,itp->ist", moved, moved), 1e-4)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["dense", "tokens", "grouped", "embedding"])
def test_little_scratch_cuts_the_work_and_changes_nothing(monkeypatch, name, route):
    layer = LAYERS[name]
    problem = layer.problem()
    ((item, _),) = problem.engine.held_leaves()
    path, rows = _path(layer)
    path, rows = path[:2], rows[:2]
    steps = [problem.factors(params, layer.batch) for params in path]
    _force(monkeypatch, route)
    cuts, pieces, activations = [], products._pieces, products._activations
    monkeypatch.setattr(products, "_pieces", lambda *a: cuts.append(pieces(*a)) or cuts[-1])
    monkeypatch.setattr(products, "_activations", lambda *a: cuts.append(len(a[1][0][0])) or activations(*a))

    monkeypatch.setattr(products, "WORKING_BYTES", pair_costs(item.product, NUM, NUM)[route].memory / 2.5)
    held = problem.engine.held
    _close(quick(lambda a: cross_gram(held, a, a))(steps[0]), rows[0] @ rows[0].T)
    assert cuts == [2, 2, 1] if route == "activations" else cuts[0] >= 3

    monkeypatch.setattr(products, "WORKING_BYTES", path_costs(item.product, NUM, 3)[route].memory / 2.5)
    moved = rows[1] - rows[0]
    found = quick(lambda a: path_products(held, a, (0, 0)))(steps)
    _close(found[:, 1, 1], (moved**2).sum(1), 1e-4)
    assert route == "activations" or cuts[1] >= 3


def test_rows_are_multiplied_along_a_path_some_columns_at_a_time(monkeypatch):
    sizes, references, rng = (37, 2, 50, 11), (0, 0, 1), np.random.default_rng(0)
    steps = [[jnp.asarray(rng.normal(size=(NUM, size)), jnp.float32) for size in sizes] for _ in references]
    held = tuple(Held(None, (place,), size) for place, size in enumerate(sizes))
    rows = [np.concatenate(arrays, axis=1) for arrays in steps]
    moved = np.stack([rows[i] - rows[r] for i, r in enumerate(references)], 1)
    wanted = np.einsum("isp,itp->ist", moved, moved)
    cuts, add = [], products._add_rows_path
    monkeypatch.setattr(products, "_add_rows_path", lambda *a: cuts.append([len(s[0][0]) for s in a[1]]) or add(*a))
    # Twenty columns of all checkpoints at a time: 37 in two blocks and one column, 2 with nothing, 50 in three.
    monkeypatch.setattr(products, "WORKING_BYTES", MOVED_COPIES * 4 * NUM * len(steps) * 20)
    _close(path_products(held, steps, references), wanted)
    assert cuts == [[37], [2], [50], [11]]
    cuts.clear()
    monkeypatch.setattr(products, "WORKING_BYTES", MOVED_COPIES * 4 * NUM * len(steps) * 70)
    _close(path_products(held, steps, references), wanted)
    assert cuts == [[37, 2], [50, 11]]


def test_rows_along_a_path_take_no_more_scratch_than_is_planned():
    leaf = [jax.ShapeDtypeStruct((1, 2**26), jnp.float32)] * 2  # the copies of a whole one would be 3 times the scratch
    total, references = jax.ShapeDtypeStruct((1, 2, 2), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    found = products._add_rows_path.lower(total, [leaf], references).compile().memory_analysis()
    assert WORKING_BYTES / MOVED_COPIES <= found.temp_size_in_bytes <= WORKING_BYTES


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("name", ["grouped", "embedding", "twice", "mixed"])
def test_compacted_arrays_are_what_compact_held_says(monkeypatch, name, factored):
    layer = (LAYERS | WITHOUT)[name]
    problem = layer.problem()
    held = problem.engine.held
    monkeypatch.setattr(products, "stays_factored", lambda product: factored and product is not None)
    arrays, small = problem.factors(layer.params, layer.batch), compact_held(held)
    kept = quick(lambda a: compact(held, a))(arrays)
    assert [item.size for item in small] == [item.size for item in held]
    assert max(max(item.places) for item in small) == len(kept) - 1
    assert all(item.product is None for item in small) is (not factored or all(h.product is None for h in held))
    rows = layer.rows(layer.params)
    _close(quick(lambda a: cross_gram(small, a, a))(kept), rows @ rows.T)


def _dots(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn
        for inner in inner_jaxprs(eqn):
            yield from _dots(inner)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["strided", "mixed"])
def test_products_state_full_precision(monkeypatch, name, route):
    layer = (LAYERS | WITHOUT)[name]
    problem = layer.problem()
    held, arrays = problem.engine.held, problem.factors(layer.params, layer.batch)
    _force(monkeypatch, route)
    for function in (
        lambda a: cross_gram(held, a, a),
        lambda a: path_products(held, [a, a], (0, 0)),
        lambda a: pair_products(held, a, a, a, a),
    ):
        dots = list(_dots(jax.make_jaxpr(function)(arrays).jaxpr))
        assert all("HIGHEST" in str(eqn.params["precision"]).upper() for eqn in dots)
        assert dots


# What single precision does to differences -----------------------------------------------------------------------

WIDE, HIDDEN, SAMPLES = 48, 64, 24


def wide_loss(params, example):
    scores = params["out"] @ jnp.tanh(params["in"] @ example["x"] + params["bias"])
    return jax.nn.logsumexp(scores) - scores[example["y"]]


RNG = np.random.default_rng(0)
WIDE_BATCH = {
    "x": jnp.asarray(RNG.normal(size=(SAMPLES, WIDE)), jnp.float32),
    "y": jnp.asarray(RNG.integers(0, 10, SAMPLES)),
}
_SHAPES = {"in": (HIDDEN, WIDE), "out": (10, HIDDEN), "bias": (HIDDEN,)}
_START = {name: RNG.normal(size=shape) / shape[-1] ** 0.5 for name, shape in _SHAPES.items()}
_DIRECTIONS = [{name: RNG.normal(size=s) / s[-1] ** 0.5 for name, s in _SHAPES.items()} for _ in range(5)]


def _at(*moves):
    """A checkpoint: the start and so much of each direction."""
    return {
        name: jnp.asarray(w + sum(m * d[name] for m, d in zip(moves, _DIRECTIONS, strict=False)), jnp.float32)
        for name, w in _START.items()
    }


def _double_rows(path):
    """(T, n, p) gradients in double precision at the very same single-precision checkpoints."""
    with jax.enable_x64(True):
        double = lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64)  # noqa: E731
        brute = jax.jit(jax.vmap(jax.grad(wide_loss), (None, 0)))
        batch = {"x": double(WIDE_BATCH["x"]), "y": WIDE_BATCH["y"]}
        steps = [jax.tree.leaves(brute(jax.tree.map(double, params), batch)) for params in path]
        return np.stack([np.concatenate([np.asarray(g).reshape(SAMPLES, -1) for g in step], 1) for step in steps])


def test_squared_distances_of_near_checkpoints_are_right():
    path = [_at(), _at(1e-4), _at(0, 1e-4)]
    exact = _double_rows(path)
    truth = np.square(exact - exact[0]).sum(2).mean(1)
    found = np.asarray(path_grams(wide_loss, path, WIDE_BATCH).grams, np.float64).mean(0)
    # Each gradient has errors of single precision, relative to itself; a squared distance has twice their sum.
    norm, eps = np.sqrt(np.square(exact[0]).sum(1).mean()), np.finfo(np.float32).eps
    allowed = 4 * eps * norm / np.sqrt(truth[1:].min())
    assert allowed < 1e-2  # Gram matrices of the gradients themselves are off by more than that, see below
    np.testing.assert_allclose(np.diagonal(found)[1:], truth[1:], rtol=allowed)
    apart = found[1, 1] + found[2, 2] - 2 * found[1, 2]
    assert apart == pytest.approx(np.square(exact[1] - exact[2]).sum(1).mean(), rel=allowed)


def test_gram_matrices_of_the_gradients_themselves_would_not_do():
    path = [_at(), _at(1e-4)]
    exact = _double_rows(path)
    truth = np.square(exact[1] - exact[0]).sum(1).mean()
    problem = pose(wide_loss, path[0], WIDE_BATCH, None)
    first, second = (problem.factors(params, WIDE_BATCH) for params in path)
    held = problem.engine.held
    ss, tt, st = (np.trace(cross_gram(held, a, b)) for a, b in ((first, first), (second, second), (first, second)))
    assert abs(float(ss + tt - 2 * st) / SAMPLES / truth - 1) > 0.05


def _stacked_rows(exact, references):
    """Coordinates of the stacked set as the library lays them out, in double precision from materialised gradients."""
    stacked = exact.reshape(len(exact), -1) / np.sqrt(SAMPLES)
    moved = np.stack([stacked[i] - stacked[r] for i, r in enumerate(references)])
    lower = np.linalg.cholesky(moved[1:] @ moved[1:].T)
    return ancestor_matrix(references) @ np.concatenate([np.zeros((1, len(lower))), lower]), stacked


def _width(rows):
    scores = np.asarray(rows, np.float64) @ np.random.default_rng(2).normal(size=(rows.shape[1], 2000))
    return np.mean(scores.max(0) - scores.min(0)) / 2


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("name", ["dense", "tokens", "grouped"])
def test_blocks_made_in_turn_add_up_to_the_same(monkeypatch, name, pieces):
    layer = LAYERS[name]
    problem = layer.problem()
    path, rows = _path(layer)
    path, rows = path[:2], rows[:2]
    steps, held = [problem.factors(params, layer.batch) for params in path], problem.engine.held
    _force(monkeypatch, "contracted")
    monkeypatch.setattr(products, "_pieces", lambda *_: pieces)
    waited = []
    monkeypatch.setattr(products, "in_turn", lambda *_: not waited.append(True))
    _close(quick(lambda a: cross_gram(held, a, a))(steps[0]), rows[0] @ rows[0].T)
    _close(quick(lambda a, b: cross_gram(held, a, b))(*steps), rows[0] @ rows[1].T)
    found = quick(lambda a: path_products(held, a, (0, 0)))(steps)
    _close(found[:, 1, 1], ((rows[1] - rows[0]) ** 2).sum(1), 1e-4)
    assert len(waited) >= 3


def test_late_short_steps_are_taken_relative_to_a_near_checkpoint():
    late = [_at(1.0), _at(1.0, 1e-4), _at(1.0, 1e-4, 1e-4), _at(1.0, 1e-4, 1e-4, 1e-4)]
    path = [_at(), _at(0.5), *late]
    grams, references = path_grams(wide_loss, path, WIDE_BATCH)
    assert references == (0, 0, 0, 2, 2, 2)

    exact = _double_rows(path)
    truth_rows, stacked = _stacked_rows(exact, references)
    ancestors = ancestor_matrix(references)
    moved = np.stack([stacked[i] - stacked[r] for i, r in enumerate(references)])
    np.testing.assert_allclose(ancestors @ moved, stacked - stacked[0], atol=1e-12)

    rows = np.asarray(factor_moved_gram(grams.mean(0), ancestors).rows, np.float64)
    assert _width(rows) == pytest.approx(_width(truth_rows), rel=1e-4)
    neighbours = list(itertools.combinations(range(2, 6), 2))
    truth = np.array([np.linalg.norm(stacked[s] - stacked[t]) for s, t in neighbours])
    found = np.array([np.linalg.norm(rows[s] - rows[t]) for s, t in neighbours])
    np.testing.assert_allclose(found, truth, rtol=1e-3)

    problem = pose(wide_loss, path[0], WIDE_BATCH, None)
    steps = [problem.factors(params, WIDE_BATCH) for params in path]
    fixed = path_products(problem.engine.held, steps, (0,) * 6).mean(0)
    rows = np.asarray(factor_moved_gram(fixed).rows, np.float64)
    lost = np.array([np.linalg.norm(rows[s] - rows[t]) for s, t in neighbours])
    assert (np.abs(lost / truth - 1) > 1e-2).any(), "relative to the first checkpoint the late distances are lost"


@pytest.mark.parametrize(
    ("references", "points"),
    [((0,), None), ((0, 0, 0), None), ((0, 0, 1, 2), (5, 7, 11, 13)), ((0, 0, 0, 2, 2, 4), (1, 2, 4, 8, 16, 32))],
)
def test_ancestors_add_differences_up_to_points(references, points):
    matrix = ancestor_matrix(references)
    if points is None:
        assert matrix is None
        np.testing.assert_array_equal(ancestor_matrix(references, 4), np.eye(4))
        return
    points = np.array(points, np.float64)
    np.testing.assert_array_equal(matrix @ (points - points[list(references)]), points - points[0])
