"""Sketches keep inner products on average: their bias, their spread, and what they do not depend on."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from lggwjax.gradients.engine import pose
from lggwjax.gradients.sketch import NUM_GROUPS, sketch_factors
from tests.gradients.layers import LAYERS, NUM, WITHOUT, quick

ALL = LAYERS | WITHOUT
KEY = jax.random.key(1)
SIZE = 4 * NUM_GROUPS
SAMPLES = jnp.arange(NUM)


@functools.cache
def _products(name: str, num_keys: int):
    """Inner products of sketches at two checkpoints, (keys, n, groups), and of the gradients themselves."""
    layer = ALL[name]
    problem = layer.problem()
    at = [problem.factors(params, layer.batch) for params in (layer.params, layer.moved(1, 0.3))]

    @quick
    @jax.vmap
    def products(key):
        first, second = (sketch_factors(problem, key, arrays, SAMPLES, SIZE) for arrays in at)
        return jnp.sum(first * second, -1), jnp.sum(first * first, -1)

    found = [np.asarray(x, np.float64) for x in products(jax.random.split(KEY, num_keys))]
    rows = [layer.rows(params) for params in (layer.params, layer.moved(1, 0.3))]
    return found, [(rows[0] * rows[1]).sum(1), (rows[0] ** 2).sum(1)]


def _z(values, truth):
    """Standard errors between a mean over keys and the truth."""
    return (values.mean(0) - truth) / (values.std(0) / np.sqrt(len(values)))


def _check_bias(name, num_keys, wrong):
    found, truth = _products(name, num_keys)
    for values, true in zip(found, truth, strict=True):
        assert np.abs(_z(values.mean(2), true)).max() < 4.5
        assert np.abs(_z(values.mean(2), wrong * true)).max() > 4.5, "a bias would be seen"
        # Each group alone is unbiased too; the jackknife over groups rests on it.
        assert np.abs(_z(values, true[:, None])).max() < 5


FEW = ("dense", "strided", "scanned", "mixed")


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_inner_products_within_a_sample_are_unbiased(name):
    _check_bias(name, 400, 1.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_inner_products_within_a_sample_are_unbiased_over_many_keys(name):
    _check_bias(name, 20_000, 1.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_errors_of_groups_and_of_samples_are_not_correlated(name):
    (_, squares), (_, truth) = _products(name, 400)
    errors = squares / truth[:, None] - 1
    for parts in (errors.mean(1), errors.mean(2)):  # groups, then samples
        correlation = np.corrcoef(parts.T)
        assert np.abs(correlation[~np.eye(len(correlation), dtype=bool)]).max() < 5 / np.sqrt(len(parts))


@pytest.mark.parametrize("name", ["strided", "mixed"])
def test_a_sketch_depends_on_key_and_sample_and_not_on_chunks(name):
    layer = ALL[name]
    problem = layer.problem()

    @quick
    def sketch(key, batch, which):
        return sketch_factors(problem, key, problem.factors(layer.params, batch), which, SIZE)

    whole = sketch(KEY, layer.batch, SAMPLES)
    assert whole.shape == (NUM, NUM_GROUPS, SIZE // NUM_GROUPS)
    few = jax.tree.map(lambda x: x[2:4], layer.batch)
    part = sketch(KEY, few, SAMPLES[2:4])
    np.testing.assert_allclose(part, whole[2:4], rtol=1e-4, atol=1e-4 * float(jnp.abs(whole).max()))
    other = sketch(KEY, few, SAMPLES[:2])
    assert not np.allclose(other, part, atol=1e-2 * float(jnp.abs(whole).max()))
    other = sketch(jax.random.key(2), few, SAMPLES[2:4])
    assert not np.allclose(other, part, atol=1e-2 * float(jnp.abs(whole).max()))


def _of_tokens(scale, params, tokens):
    return scale * (jnp.sum(jnp.tanh(tokens @ params["w"]) ** 2) + jnp.sum(jnp.cos(params["b"]) * tokens.sum()))


def test_a_sketch_is_linear_in_the_gradient():
    # A token of zeros has no gradient, so that the gradient of all tokens is the sum of those of each alone.
    layer = LAYERS["tokens"]
    params = layer.params | {"b": jnp.ones(5)}
    loss = Partial(_of_tokens, 1.0)
    problem = pose(loss, params, layer.batch, None, self_check=False)

    @quick
    def sketch(batch, scale=1.0):
        arrays = problem.engine.factors(Partial(_of_tokens, scale), params, batch)
        return sketch_factors(problem, KEY, arrays, SAMPLES, SIZE)

    whole = sketch(layer.batch)
    np.testing.assert_allclose(sketch(layer.batch, -2.0), -2 * whole, atol=1e-5 * float(jnp.abs(whole).max()))
    parts = sum(sketch(layer.batch * (jnp.arange(3) == token)[:, None]) for token in range(3))
    np.testing.assert_allclose(parts, whole, atol=1e-5 * float(jnp.abs(whole).max()))


@pytest.mark.slow
def test_a_larger_sketch_is_a_better_one():
    layer = LAYERS["dense"]
    problem, errors = layer.problem(), []
    truth = (layer.rows(layer.params) ** 2).sum(1)
    arrays = problem.factors(layer.params, layer.batch)
    for size in (SIZE, 64 * SIZE):
        squares = quick(jax.vmap(lambda k, s=size: sketch_factors(problem, k, arrays, SAMPLES, s) ** 2))(
            jax.random.split(KEY, 64)
        )
        errors.append(np.sqrt(np.mean((np.asarray(squares).sum(-1).mean(-1) / truth - 1) ** 2)))
    assert 4 < errors[0] / errors[1] < 16  # the root of 64
    assert errors[1] < 0.1


def test_two_samples_of_one_gradient_have_sketches_of_their_own():
    layer = LAYERS["dense"]
    problem = layer.problem()
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), layer.batch)
    arrays = problem.factors(layer.params, same)
    sketches = np.asarray(
        quick(jax.vmap(lambda k: sketch_factors(problem, k, arrays, SAMPLES, SIZE)))(jax.random.split(KEY, 300))
    )
    found = np.einsum("kngd,kmgd->knm", sketches, sketches)
    apart = found[:, ~np.eye(NUM, dtype=bool)]
    assert np.abs(_z(apart, 0.0)).max() < 4.5, "inner products between samples are not kept"
