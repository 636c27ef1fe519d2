"""Gram matrices and widths over the battery of losses, whatever the route, against materialised gradients."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax import gradient_gram, lggw
from lggwjax.gradients import path_grams
from lggwjax.gradients.selection import select
from tests.gradients.losses import ANY, CASES, CORE, FAST, NUM, UNUSED, Problem, convolve, score

# Every operation on the way to a gradient rounds, and rounds anew in every program it is compiled into: a few eps each,
# some thirty operations deep, relative to the largest gradient. A bfloat16 loss rounds only in its few products.
ROUNDINGS, HALF_ROUNDINGS = 128, 4


class Solved:
    """A problem of the battery, and its gradients by ``jax.vmap(jax.grad)``; products of them are of float64."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.selection = select(problem.params, problem.wrt)
        leaves = jax.tree_util.tree_flatten_with_path(problem.params)[0]
        self.names = [
            jax.tree_util.keystr(path)
            for (path, _), chosen in zip(leaves, self.selection.chosen, strict=True)
            if chosen
        ]
        self.coordinates, others = self.selection.split(problem.params)

        def loss(coordinates, example):
            return problem.loss_fn(self.selection.merge(coordinates, others), example)

        self._gradients = quick_jit(jax.vmap(jax.grad(loss), (None, 0)))
        self.rows = self.gradients(self.coordinates)
        assert all(np.isfinite(rows).all() for rows in self.rows)
        self.tolerance = problem.eps * (ROUNDINGS if problem.eps < 1e-4 else HALF_ROUNDINGS)

    def gradients(self, coordinates: list) -> list[np.ndarray]:
        """One (n, size) block a leaf."""
        leaves = self._gradients(coordinates, self.problem.batch)
        return [
            np.asarray(leaf).astype(np.float64).reshape(leaf.shape[0], math.prod(leaf.shape[1:])) for leaf in leaves
        ]

    def path(self, scale: float = 1.0) -> list[list]:
        """Coordinates of three checkpoints: the parameters, and two small steps away from them."""
        rng = np.random.default_rng(0)

        def step(leaf):
            value = np.asarray(leaf).astype(np.float64)
            size = np.sqrt(np.square(value).mean()) if value.any() else 0.1
            moved = value + scale * self.problem.step * size * rng.normal(size=value.shape)
            return float(moved) if isinstance(leaf, float) else jnp.asarray(moved, leaf.dtype)

        return [self.coordinates, *([step(leaf) for leaf in self.coordinates] for _ in range(2))]

    def checkpoints(self, path: list[list]) -> list:
        """A path as the library takes it."""
        _, others = self.selection.split(self.problem.params)
        return [self.selection.merge(coordinates, others) for coordinates in path]

    def call(self, function: Callable, params, **kwargs):
        return function(self.problem.loss_fn, params, self.problem.batch, wrt=self.problem.wrt, **kwargs)

    def error(self, found, expected: np.ndarray, scale: np.ndarray | float | None = None) -> float:
        """Largest difference, in units of what rounding may do; ``scale`` is by default the largest entry."""
        found, scale = np.asarray(found, np.float64), np.abs(expected).max() if scale is None else scale
        assert found.shape == np.shape(expected)
        return float(np.max(np.abs(found - expected) / np.maximum(self.tolerance * scale, 1e-300)))


def quick_jit(function: Callable) -> Callable:
    """Here compiling is all the time there is: the compiler need not try hard."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def product(rows: list[np.ndarray]) -> np.ndarray:
    flat = np.concatenate(rows, axis=1)
    return flat @ flat.T


# Of the module's scope, so that all that is asked of one problem is asked while it is there.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in CASES],
)
def solved(request: pytest.FixtureRequest) -> Solved:
    return Solved(CASES[request.param]())


def test_gram_is_the_product_of_the_gradients(solved):
    assert solved.error(solved.call(gradient_gram, solved.problem.params), product(solved.rows)) < 1


def test_a_wrong_gram_is_seen(solved):
    """Negative control: the same comparison refuses other parameters, and the loss of any leaf."""
    expected = product(solved.rows)
    larger = [1.1 * leaf if isinstance(leaf, float) else (1.1 * leaf).astype(leaf.dtype) for leaf in solved.coordinates]
    assert solved.error(product(solved.gradients(larger)), expected) > 1
    for index, name in enumerate(solved.names):
        if not re.search(solved.problem.silent, name):
            rest = [np.zeros_like(rows) if i == index else rows for i, rows in enumerate(solved.rows)]
            assert solved.error(product(rest), expected) > 1, name


@pytest.mark.slow
def test_gram_in_chunks(solved):
    # Without the self-check: nothing mends factors that are wrong.
    found = solved.call(gradient_gram, solved.problem.params, chunk_size=2, self_check=False)
    assert solved.error(found, product(solved.rows)) < 1


@pytest.mark.slow
def test_gram_under_jit(solved):
    problem = solved.problem
    found = quick_jit(lambda p: gradient_gram(problem.loss_fn, p, problem.batch, wrt=problem.wrt))(problem.params)
    assert solved.error(found, product(solved.rows)) < 1


@pytest.mark.slow
def test_path_grams_are_products_of_differences(solved):
    rows, wrong = (_stacked(solved, solved.path(scale)) for scale in (1.0, 1.1))
    found = solved.call(path_grams, solved.checkpoints(solved.path()))
    expected, scale = _path_products(rows, found.references)
    # Not even rounding is left of a checkpoint relative to itself.
    assert float(jnp.abs(found.grams[:, 0]).max()) == float(jnp.abs(found.grams[:, :, 0]).max()) == 0
    assert solved.error(found.grams, expected, scale) < 1
    assert solved.error(_path_products(wrong, found.references)[0], expected, scale) > 1

    # Three points lie in a plane, where the width of a convex set is its perimeter over 2 sqrt(2 pi).
    sides = np.stack([np.linalg.norm(rows[:, s] - rows[:, t], axis=-1) for s, t in itertools.combinations(range(3), 2)])
    for kind, lengths in (("stacked", np.sqrt(np.square(sides).mean(1, keepdims=True))), ("single", sides)):
        key, problem, path = jax.random.key(0), solved.problem, solved.checkpoints(solved.path())
        found = lggw(key, problem.loss_fn, path, problem.batch, kind, num_draws=64, wrt=problem.wrt)
        assert solved.error(found.diameter**2, lengths.max(0).mean() ** 2, scale.max()) < 1
        width = (lengths.sum(0) / (2 * math.sqrt(2 * math.pi))).mean()
        slack = solved.tolerance * scale.max() / lengths.max(0).mean()
        assert abs(float(found.value) - width) < 6 * float(found.stderr) + float(found.rounding) + slack


@pytest.mark.parametrize("name", ["dense-tokens", "conv-few-positions", "embedding-row-chosen-by-parameters"])
def test_a_short_step_far_away_keeps_its_digits(name):
    solved = Solved(CASES[name]())
    first, far, other = solved.path()
    path = [first, far, [a + 1e-3 * (b - c) for a, b, c in zip(far, other, first, strict=True)]]
    rows = _stacked(solved, path)
    found = solved.call(path_grams, solved.checkpoints(path))
    assert found.references == (0, 0, 1)
    expected, scale = _path_products(rows, found.references)
    assert solved.error(found.grams, expected, scale) < 1
    assert solved.error(_path_products(rows, (0, 0, 0))[0], expected, scale) > 1


def _stacked(solved: Solved, path: list[list]) -> np.ndarray:
    """Gradients along a path as an array (n, T, p)."""
    return np.stack([np.concatenate(solved.gradients(coordinates), 1) for coordinates in path], 1)


def _path_products(rows: np.ndarray, references: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrices of differences, and the size of what rounding is relative to in each entry.

    A difference carries the rounding of the gradients themselves, so a product carries it times the other difference.
    """
    moved = rows - rows[:, list(references)]
    sizes = np.linalg.norm(moved, axis=-1).max(0)
    scale = np.linalg.norm(rows, axis=-1).max() * (sizes[:, None] + sizes)
    return np.einsum("isp,itp->ist", moved, moved), scale


def test_plan_tells_the_route_of_every_leaf(solved):
    problem = solved.problem
    plan = lggwjax.plan(problem.loss_fn, [problem.params], problem.batch, "gram", wrt=problem.wrt)
    assert [tuple(leaf.shape) for leaf in plan.leaves] == [jnp.shape(leaf) for leaf in solved.coordinates]
    for pattern, family in problem.expected.items():
        leaves = [leaf for leaf, name in zip(plan.leaves, solved.names, strict=True) if re.search(pattern, name)]
        assert leaves, pattern
        for leaf in leaves:
            assert has_route(leaf, family), (leaf, family)


def has_route(leaf: "lggwjax.LeafPlan", family: str) -> bool:
    """Whether a leaf's plan is of a family of routes."""
    assert leaf.route in ("activations", "contracted", "gradient", "unused")
    if family == ANY:
        return leaf.route != "unused"
    if family == FAST:
        return leaf.route in ("activations", "contracted") or (leaf.route == "gradient" and not leaf.reason)
    if family == UNUSED:
        return leaf.route == "unused"
    return leaf.route == "gradient" and family.removeprefix("gradient:") in leaf.reason


def test_the_core_is_of_the_battery():
    assert set(CASES) >= CORE


# The battery is too small to say what is cheapest; these are not. Weight, example, layer, and the route of the weight.
WIDE = {
    "dense": ((300, 200), (200,), lambda w, x: w @ x, "activations"),
    "dense-few-tokens": ((200, 300), (4, 200), lambda w, x: x @ w, "activations"),
    "dense-many-tokens": ((8, 8), (500, 8), lambda w, x: x @ w, "contracted"),
    "experts": ((4, 100, 100), (4, 3, 100), lambda w, x: jnp.einsum("ecd,edf->ecf", x, w), "activations"),
    "conv-few-positions": ((3, 3, 64, 64), (4, 4, 64), lambda w, x: convolve(x[None], w), "activations"),
    "conv-many-positions": ((3, 3, 3, 8), (32, 32, 3), lambda w, x: convolve(x[None], w), "contracted"),
    "bias": ((8,), (500, 8), lambda w, x: jnp.tanh(x + w), "gradient"),
    "in-scan": ((50, 50), (3, 50), lambda w, x: jax.lax.map(lambda row: w @ row, x), "gradient"),
}


@pytest.mark.parametrize("name", WIDE)
def test_plan_takes_the_cheapest_route(name):
    weight, example, layer, route = WIDE[name]
    params, batch = {"w": jnp.ones(weight)}, jnp.ones((NUM, *example))
    (leaf,) = lggwjax.plan(lambda p, x: score(layer(p["w"], x)), [params], batch, "gram").leaves
    assert (leaf.route, bool(leaf.reason)) == (route, name == "in-scan")
