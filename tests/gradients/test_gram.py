"""Gram matrices against products of materialised gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import gradient_gram
from lggwjax.gradients import path_grams
from lggwjax.gradients.products import inner_products

NUM, DIM = 7, 5


def loss(params, example):
    return jnp.tanh(params["w"] @ example["x"] + params["b"]) * example["y"]


def _params(seed):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=DIM), jnp.float32), "b": jnp.asarray(rng.normal(), jnp.float32)}


BATCH = {
    "x": np.random.default_rng(10).normal(size=(NUM, DIM)).astype(np.float32),
    "y": np.linspace(0.5, 2, NUM).astype(np.float32),
}


def _brute(params):
    rows = []
    for index in range(NUM):
        gradient = jax.grad(loss)(params, jax.tree.map(lambda x, i=index: x[i], BATCH))
        rows.append(np.concatenate([[gradient["b"]], gradient["w"]]))
    return np.asarray(rows, np.float64)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 6, 7])
def test_gradient_gram_is_the_product_of_the_gradients(chunk_size):
    rows = _brute(_params(0))
    np.testing.assert_allclose(
        gradient_gram(loss, _params(0), BATCH, chunk_size=chunk_size), rows @ rows.T, rtol=1e-4, atol=1e-5
    )


def test_gradient_gram_works_under_jit_and_vmap_and_follows_wrt():
    rows = _brute(_params(0))[:, 1:]
    wrt = {"w": True, "b": False}
    inside = jax.jit(lambda p: gradient_gram(loss, p, BATCH, chunk_size=4, wrt=wrt))(_params(0))
    np.testing.assert_allclose(inside, rows @ rows.T, rtol=1e-4, atol=1e-5)
    both = jax.tree.map(lambda *x: jnp.stack(x), _params(0), _params(1))
    grams = jax.vmap(lambda p: gradient_gram(loss, p, BATCH))(both)
    np.testing.assert_allclose(grams[1], _brute(_params(1)) @ _brute(_params(1)).T, rtol=1e-4, atol=1e-5)


def test_chunks_below_one_are_refused():
    with pytest.raises(ValueError, match="chunk_size >= 1, got 0"):
        gradient_gram(loss, _params(0), BATCH, chunk_size=0)
    with pytest.raises(ValueError, match="chunk_size >= 1, got 0"):
        path_grams(loss, [_params(0), _params(1)], BATCH, chunk_size=0)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_path_grams_are_products_of_differences(chunk_size):
    path = [_params(seed) for seed in range(4)]
    moved = np.stack([_brute(p) - _brute(path[0]) for p in path], 1)
    found, references = path_grams(loss, path, BATCH, chunk_size=chunk_size)
    assert references == (0, 0, 0, 0)
    np.testing.assert_allclose(found, np.einsum("isp,itp->ist", moved, moved), rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(found[:, 0]).max()) == float(jnp.abs(found[:, :, 0]).max()) == 0


def test_path_grams_read_a_lazy_path_again_and_again():
    class Lazy:
        reads = 0

        def __iter__(self):
            self.reads += 1
            return iter([_params(0), _params(1)])

    lazy = Lazy()
    found = path_grams(loss, lazy, BATCH, chunk_size=3)
    plain = path_grams(loss, [_params(0), _params(1)], BATCH)
    np.testing.assert_allclose(found.grams, plain.grams, rtol=1e-4, atol=1e-6)
    assert found.references == plain.references == (0, 0)
    assert lazy.reads >= 3


def test_products():
    left, right = (np.random.default_rng(s).normal(size=(4, 9)).astype(np.float32) for s in (0, 1))
    np.testing.assert_allclose(inner_products(left, right), left @ right.T, rtol=1e-5, atol=1e-5)


def test_products_state_full_precision():
    assert "HIGHEST" in str(jax.make_jaxpr(inner_products)(jnp.ones((2, 3)), jnp.ones((2, 3)))).upper()
