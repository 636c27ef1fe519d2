"""What held-out samples say, against populations whose truth is known."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from lggwjax.gradients.selection import as_partial, select
from lggwjax.training.heldout import all_finite, gradient_norm, pass_over, population_descent

DIM = 6


def loss(w, example):
    return 0.5 * jnp.sum((w - example["x"]) ** 2)


def predict(w, example):
    return jnp.stack([w @ example["x"], jnp.float32(0)])


def _data(num, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, DIM)).astype(np.float32) + 1
    return {"x": x, "y": rng.integers(0, 2, num)}


PARAMS = jnp.arange(1.0, DIM + 1)
SELECTION = select(PARAMS)


@pytest.mark.parametrize("num", [5, 37, 300])
@pytest.mark.parametrize("num_blocks", [None, 4, 16])
def test_blocks_use_every_sample_once(num, num_blocks):
    data = _data(num)
    found = pass_over(as_partial(loss), predict, PARAMS, data, SELECTION, num_blocks)
    assert found.sizes.sum() == num
    assert found.sizes.max() - found.sizes.min() <= 1
    if num_blocks is not None:
        assert len(found.sizes) == min(num, num_blocks)
    bounds = np.concatenate([[0], np.cumsum(found.sizes)])
    per_sample = np.asarray(PARAMS) - data["x"]
    blocks = [per_sample[a:b].mean(0) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_allclose(found.gradients, blocks, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gradient, per_sample.mean(0), rtol=1e-4, atol=1e-5)
    assert found.loss == pytest.approx(0.5 * (per_sample**2).sum(1).mean(), rel=1e-5)
    assert found.accuracy == pytest.approx(((data["x"] @ np.asarray(PARAMS) <= 0) == data["y"]).mean())


class _Rows:
    """Samples that are read when asked for, at most 256 at a time."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data["y"])

    def rows(self, indices):
        assert len(indices) <= 256
        return {name: array[indices] for name, array in self.data.items()}


@pytest.mark.parametrize("num_blocks", [None, 16])
def test_a_large_sample_keeps_few_gradients_and_is_read_in_parts(num_blocks):
    data = _data(17_000)
    found = pass_over(as_partial(loss), predict, PARAMS, _Rows(data), SELECTION, num_blocks)
    assert found.gradients.shape == (num_blocks or 64, DIM)
    assert found.sizes.sum() == 17_000
    per_sample = np.asarray(PARAMS) - data["x"]
    np.testing.assert_allclose(found.gradient, per_sample.mean(0), rtol=1e-4, atol=1e-5)
    assert found.loss == pytest.approx(0.5 * (per_sample**2).sum(1).mean(), rel=1e-5)
    in_memory = pass_over(as_partial(loss), predict, PARAMS, data, SELECTION, num_blocks)
    np.testing.assert_array_equal(found.gradients, in_memory.gradients)
    assert found[2:] == in_memory[2:]


def test_accuracy_is_unknown_without_predictions():
    assert pass_over(as_partial(loss), None, PARAMS, _data(5), SELECTION).accuracy is None


def _blocks(truth, noise, repetitions=400, num=16, seed=0):
    return truth + noise * np.random.default_rng(seed).normal(size=(repetitions, num, len(truth)))


def _squares(blocks):
    """The U-statistic itself, which is unbiased; the norm is the root of its positive part."""
    num = len(blocks)
    gram = blocks @ blocks.T
    return (gram.sum() - np.trace(gram)) / (num * (num - 1))


def test_norm_is_the_root_of_an_unbiased_square():
    truth = np.full(DIM, 0.3)
    blocks = _blocks(truth, 1.0)
    squares = np.array([_squares(b) for b in blocks])
    found = np.array([gradient_norm(jnp.asarray(b, jnp.float32)).value for b in blocks])
    np.testing.assert_allclose(found, np.sqrt(np.maximum(squares, 0)), rtol=1e-2, atol=2e-3)
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - truth @ truth) < 4 * error
    # The square of the averaged gradient is biased upwards by the trace of the covariance over M.
    naive = np.array([b.mean(0) @ b.mean(0) for b in blocks])
    assert naive.mean() - truth @ truth > 4 * naive.std() / math.sqrt(len(naive))


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_the_jackknife_interval_covers(size):
    truth = np.zeros(DIM)
    truth[0] = size
    found = [gradient_norm(jnp.asarray(b, jnp.float32)) for b in _blocks(truth, 1.0)]
    hits = sum(scalar.low <= size <= scalar.high for scalar in found)
    assert hits >= stats.binom.ppf(1e-4, 400, 0.92)
    if size == 2.0:
        missed = sum(scalar.low <= 1.5 * size <= scalar.high for scalar in found)
        assert missed < stats.binom.ppf(1e-4, 400, 0.92), "a norm wrong by half would be found"


def test_a_norm_of_zero_is_never_nan():
    for blocks in _blocks(np.zeros(DIM), 1.0, repetitions=50):
        found = gradient_norm(jnp.asarray(blocks, jnp.float32))
        assert np.isfinite(found).all()
        assert 0 <= found.low <= found.value <= found.high
    assert gradient_norm(jnp.zeros((8, 3))) == (0, 0, 0, 0)
    assert gradient_norm(jnp.ones((3, 4))).value == 2


def test_a_gradient_that_is_nan_does_not_end_as_zero():
    assert np.isnan(gradient_norm(jnp.ones((8, 3)).at[2, 1].set(jnp.nan)).value)


def test_too_few_blocks_are_refused():
    with pytest.raises(ValueError, match="at least 3 held-out blocks, got 2"):
        gradient_norm(jnp.ones((2, 3)))


def test_population_descent_is_the_inner_product_of_step_and_gradient():
    before, after, data = PARAMS, PARAMS - 0.1 * (PARAMS - 1), _data(600)
    found = population_descent(as_partial(loss), before, after, data, SELECTION)
    each = (np.asarray(before) - data["x"]) @ (np.asarray(before) - np.asarray(after))
    assert found.value == pytest.approx(each.mean(), rel=1e-4)
    assert found.stderr == pytest.approx(each.std(ddof=1) / math.sqrt(600), rel=1e-3)
    half = special.stdtrit(599, 0.975) * found.stderr
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-6)
    # The population: x ~ N(1, I), so the gradient at w is w - 1 and the step descends by .1 |w - 1|^2.
    truth = 0.1 * float(jnp.sum((PARAMS - 1) ** 2))
    assert abs(found.value - truth) < 4 * found.stderr
    assert abs(found.value - 1.2 * truth) > 4 * found.stderr


def test_population_descent_is_negative_where_a_step_goes_uphill():
    found = population_descent(as_partial(loss), PARAMS, PARAMS + 0.1 * (PARAMS - 1), _data(300), SELECTION)
    assert found.high < 0


def test_population_descent_covers():
    before, after = jnp.zeros(DIM), 0.1 * jnp.ones(DIM)
    hits = 0
    for seed in range(200):
        found = population_descent(as_partial(loss), before, after, _data(40, seed), SELECTION)
        hits += found.low <= 0.1 * DIM <= found.high
    assert hits >= stats.binom.ppf(1e-4, 200, 0.95)


def test_leaves_that_are_no_coordinates_do_not_move():
    def with_state(params, example):
        return loss(params["w"], example) * params["scale"]

    before = {"w": PARAMS, "scale": jnp.float32(1)}
    after = {"w": PARAMS - 0.1, "scale": jnp.float32(100)}
    selection = select(before, {"w": True, "scale": False})
    found = population_descent(as_partial(with_state), before, after, _data(50), selection)
    plain = population_descent(as_partial(loss), PARAMS, PARAMS - 0.1, _data(50), SELECTION)
    assert found.value == pytest.approx(plain.value, rel=1e-5)


def test_one_held_out_sample_is_too_few():
    with pytest.raises(ValueError, match="at least 2 held-out samples, got 1"):
        population_descent(as_partial(loss), PARAMS, PARAMS, _data(1), SELECTION)


def test_all_finite():
    assert all_finite({"a": jnp.ones(2), "n": jnp.int32(3)}, [jnp.zeros(1)])
    assert not all_finite({"a": jnp.ones(2)}, [jnp.array([jnp.inf])])
    assert jax.tree.leaves({}) == []
