"""Per-sample gradients against a loop over ``jax.grad``, for every form of loss and parameters."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from lggwjax import per_sample_gradients
from lggwjax.gradients import engine
from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.engine import pose

NUM = 7


def loss(params, example):
    hidden = jnp.tanh(params["layers"][0]["w"] @ example["x"] + params["layers"][0]["b"])
    scores = params["layers"][1]["w"] @ hidden * params["scale"]
    return jax.nn.logsumexp(scores) - scores[example["y"]]


@pytest.fixture(scope="module")
def params() -> Any:
    rng = np.random.default_rng(0)
    first = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.asarray(rng.normal(size=4), jnp.float32)}
    second = {"w": jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)}
    return {"layers": (first, second), "scale": jnp.float32(1.5), "steps": jnp.int32(3)}


@pytest.fixture(scope="module")
def batch() -> Any:
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(NUM, 3)).astype(np.float32), "y": rng.integers(0, 2, NUM)}


@pytest.fixture(scope="module")
def brute(params, batch):
    gradients = [jax.grad(loss, allow_int=True)(params, jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(NUM)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *gradients)


def _check(found, brute):
    np.testing.assert_allclose(found["layers"][0]["w"], brute["layers"][0]["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["layers"][1]["w"], brute["layers"][1]["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["scale"], brute["scale"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 7, 100])
def test_equal_to_a_loop_over_grad_whatever_the_chunk(params, batch, brute, chunk_size):
    found = per_sample_gradients(loss, params, batch, chunk_size=chunk_size)
    _check(found, brute)
    np.testing.assert_allclose(found["layers"][0]["b"], brute["layers"][0]["b"], rtol=1e-5, atol=1e-6)
    assert found["steps"] is None
    assert found["layers"][0]["w"].shape == (NUM, 4, 3)


def test_mean_is_the_gradient_of_the_mean_loss(params, batch):
    def mean(scale):
        return jax.vmap(loss, in_axes=(None, 0))(params | {"scale": scale}, batch).mean()

    found = per_sample_gradients(loss, params, batch)
    assert float(found["scale"].mean()) == pytest.approx(float(jax.grad(mean)(params["scale"])), rel=1e-5)


def test_works_under_jit_and_vmap(params, batch, brute):
    _check(jax.jit(lambda p, b: per_sample_gradients(loss, p, b, chunk_size=3))(params, batch), brute)
    several = jax.vmap(lambda s: per_sample_gradients(loss, params | {"scale": s}, batch)["scale"])(
        jnp.array([1.5, 2.0])
    )
    assert several.shape == (2, NUM)
    np.testing.assert_allclose(several[0], brute["scale"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["mask", "predicate"])
def test_wrt_chooses_leaves(params, batch, brute, form):
    mask = jax.tree.map(lambda _: False, params) | {"scale": True}
    wrt = mask if form == "mask" else lambda path, leaf: jax.tree_util.keystr(path) == "['scale']"
    found = per_sample_gradients(loss, params, batch, wrt=wrt)
    np.testing.assert_allclose(found["scale"], brute["scale"], rtol=1e-5, atol=1e-6)
    assert found["layers"] == ({"w": None, "b": None}, {"w": None})


def test_a_dropout_key_and_integers_travel_along():
    def noisy(params, example):
        return params["w"] @ example + params["w"].sum() * jax.random.normal(params["key"]) * params["count"]

    params = {"w": jnp.ones(3), "key": jax.random.key(5), "count": 2}
    found = per_sample_gradients(noisy, params, jnp.eye(3))
    np.testing.assert_allclose(found["w"], jnp.eye(3) + 2 * jax.random.normal(jax.random.key(5)), rtol=1e-6)
    assert found["key"] is None


def test_half_precision_parameters_keep_their_type():
    def halved(w, x):
        return (w * x).sum().astype(jnp.float32)

    half, batch = jnp.ones(3, jnp.bfloat16), jnp.eye(3)
    assert per_sample_gradients(halved, half, batch).dtype == jnp.bfloat16
    problem = pose(halved, half, batch, None)
    rows = problem.engine.flat_gradients(problem.loss, half, batch)
    assert rows.dtype == jnp.float32, "rows are multiplied in single precision"
    assert problem.num_samples == 3


def _weighted(weights, params, example):
    return (weights * (params - example) ** 2).sum()


class Weighted(eqx.Module):
    """A loss with an array of its own: a callable pytree."""

    weights: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, params, example):
        return (self.weights * (params - example) ** self.power).sum()


@pytest.mark.parametrize(
    "make", [lambda w: Partial(_weighted, w), lambda w: Weighted(w, 2)], ids=["Partial", "equinox"]
)
def test_a_loss_with_arrays_neither_compiles_again_nor_goes_stale(make, compilations):
    batch = jnp.arange(10.0).reshape(5, 2)
    weights = jnp.ones(2), 3 * jnp.ones(2)
    with compilations() as compiled:
        first = per_sample_gradients(make(weights[0]), jnp.zeros(2), batch)
    with compilations() as again:
        second = per_sample_gradients(make(weights[1]), jnp.zeros(2), batch)
    assert compiled
    assert again == []
    np.testing.assert_allclose(first, -2 * batch)
    np.testing.assert_allclose(second, -6 * batch)


def test_static_fields_of_a_callable_pytree_do_compile_anew():
    batch = jnp.ones((5, 2))
    square = per_sample_gradients(Weighted(jnp.ones(2), 2), jnp.zeros(2), batch)
    fourth = per_sample_gradients(Weighted(jnp.ones(2), 4), jnp.zeros(2), batch)
    np.testing.assert_allclose(square, -2.0)
    np.testing.assert_allclose(np.asarray(fourth), -4.0)


def test_the_same_function_compiles_once(params, batch, compilations):
    per_sample_gradients(loss, params, batch)
    moved = jax.tree.map(lambda x: x + 1, params)
    with compilations() as again:
        per_sample_gradients(loss, moved, batch)
    assert again == []


@pytest.mark.parametrize(
    "bad",
    [
        lambda p, e: p * e,
        lambda p, e: (p * e).sum()[None],
        lambda p, e: (1, 2.0),
        lambda p, e: jnp.int32(1),
        lambda p, e: None,
    ],
    ids=["array", "one element", "tuple", "integer", "none"],
)
def test_a_loss_that_is_no_scalar_is_refused(bad):
    with pytest.raises(ValueError, match="to return one floating scalar for one example without batch axis, got"):
        per_sample_gradients(bad, jnp.ones(2), jnp.ones((3, 2)))


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ValueError, match="Expected a callable loss_fn"):
        per_sample_gradients(3, jnp.ones(2), jnp.ones((3, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "batch",
    [{}, {"x": jnp.ones((3, 2)), "y": jnp.ones(4)}, {"x": jnp.float32(1)}, {"x": jnp.ones((0, 2))}],
    ids=["none", "ragged", "scalar", "empty"],
)
def test_a_batch_without_a_common_axis_is_refused(batch):
    with pytest.raises(ValueError, match="leading axis"):
        per_sample_gradients(lambda p, e: p.sum(), jnp.ones(2), batch)


def test_chunk_size_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk_size >= 1, got 0"):
        per_sample_gradients(_weighted_loss, jnp.ones(2), jnp.ones((3, 2)), chunk_size=0)


def _weighted_loss(params, example):
    return (params * example).sum()


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_chunks_have_one_shape_and_count_every_example_once(chunk_size):
    batch = {"x": jnp.arange(5)}
    chunks = list(iter_chunks(batch, 5, chunk_size))
    assert {chunk["x"].shape for _, _, chunk in chunks} == {(chunk_size,)}
    assert np.concatenate([chunk["x"][:count] for _, count, chunk in chunks]).tolist() == list(range(5))
    assert [start for start, *_ in chunks] == list(range(0, 5, chunk_size))


def test_chunks_by_default_hold_half_a_gibibyte(monkeypatch):
    cut = []

    def spy(batch, num_samples, chunk_size, mesh):
        cut.append((num_samples, chunk_size))
        return iter_chunks(batch, num_samples, chunk_size, mesh)

    monkeypatch.setattr(engine, "iter_chunks", spy)
    wide, batch = jax.ShapeDtypeStruct((2**20,), jnp.float32), jax.ShapeDtypeStruct((1000, 2**20), jnp.float32)
    found = jax.eval_shape(lambda p, b: per_sample_gradients(_weighted_loss, p, b), wide, batch)
    assert found.shape == (1000, 2**20)
    assert cut == [(1000, 125)]  # 128 fit; eight chunks of one size
