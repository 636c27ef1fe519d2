"""The contract in three lines for each framework, as the README shows it, and what a raw loss is not protected from."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from lggwjax.models import adapt

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def with_nnx() -> tuple:
    model = nnx.Sequential(nnx.Linear(4, 16, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(16, 3, rngs=nnx.Rngs(1)))
    adapted = adapt(model, "cross_entropy")
    return adapted.params, adapted.loss_fn, model


def with_linen() -> tuple:
    model = linen.Sequential([linen.Dense(16), linen.relu, linen.Dense(3)])
    params = model.init(jax.random.key(0), jnp.zeros(4))
    loss_fn = lambda params, example: cross_entropy(model.apply(params, example["x"]), example["y"])  # noqa: E731
    return params, loss_fn, lambda x: model.apply(params, x)


def with_equinox() -> tuple:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(4, 3, width_size=16, depth=1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    loss_fn = lambda params, example: cross_entropy(eqx.combine(params, static)(example["x"]), example["y"])  # noqa: E731
    return params, loss_fn, jax.vmap(model)


def with_plain_jax() -> tuple:
    params = {"w": 0.1 * jax.random.normal(jax.random.key(0), (4, 3)), "b": jnp.zeros(3)}
    loss_fn = lambda params, example: cross_entropy(example["x"] @ params["w"] + params["b"], example["y"])  # noqa: E731
    return params, loss_fn, lambda x: x @ params["w"] + params["b"]


@pytest.mark.parametrize("make", [with_nnx, with_linen, with_equinox, with_plain_jax])
def test_per_sample_gradients_average_to_the_batch_gradient(make: Callable[[], tuple]) -> None:
    params, loss_fn, batched = make()
    batch = {"x": jnp.linspace(-1, 1, 20).reshape(5, 4), "y": jnp.array([0, 1, 2, 0, 1])}
    losses, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss_fn), (None, 0)))(params, batch)
    np.testing.assert_allclose(losses, cross_entropy(batched(batch["x"]), batch["y"]), rtol=1e-5, atol=1e-6)
    whole = jax.jit(jax.grad(lambda p: jax.vmap(loss_fn, (None, 0))(p, batch).mean()))(params)
    for each, mean in zip(jax.tree.leaves(gradients), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(each.mean(0), mean, rtol=1e-4, atol=1e-6)


def test_train_mode_batch_norm_in_a_raw_loss_means_nothing() -> None:
    """Without the adapter one example is its own mean: all before the norm silently has gradient zero."""

    class Normed(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.last = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(self.norm(self.first(x)))

    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(6, 3)).astype(np.float32), "y": rng.integers(0, 2, 6).astype(np.int32)}
    model = Normed(nnx.Rngs(0))
    graph, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)

    def raw_loss_fn(params: nnx.State, example: dict) -> jax.Array:
        logits = nnx.merge(graph, params, statistics, copy=True)(example["x"][None])
        return cross_entropy(logits[0], example["y"])

    raw = jax.jit(jax.vmap(jax.grad(raw_loss_fn), (None, 0)))(params, batch)
    np.testing.assert_array_equal(raw["first"]["kernel"][...], 0)
    adapted = adapt(model, "cross_entropy")
    sound = jax.jit(jax.vmap(jax.grad(adapted.loss_fn), (None, 0)))(adapted.params, batch)["params"]
    assert float(jnp.abs(sound["first"]["kernel"]).max()) > 1e-2
    # The logits of every example are the same, whatever it is.
    predictions = jax.vmap(lambda x: nnx.merge(graph, params, statistics, copy=True)(x[None])[0])(batch["x"])
    np.testing.assert_allclose(predictions, jnp.broadcast_to(predictions[0], predictions.shape), atol=1e-6)


def test_group_norm_without_batch_axis_means_something_else() -> None:
    """nnx.GroupNorm takes the first axis for the batch: an image without batch axis is normalised row by row."""
    image = np.random.default_rng(0).normal(size=(4, 4, 8)).astype(np.float32)
    image *= np.arange(1, 5, dtype=np.float32)[:, None, None]
    norm = nnx.GroupNorm(8, num_groups=2, rngs=nnx.Rngs(0))
    with_axis, without = norm(image[None])[0], norm(image)
    assert with_axis.shape == without.shape
    assert float(jnp.abs(with_axis - without).max()) > 0.1

    class Normed(nnx.Module):
        def __init__(self) -> None:
            self.norm, self.last = norm, nnx.Linear(128, 2, rngs=nnx.Rngs(1))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(self.norm(x).reshape(x.shape[0], -1))

    adapted = adapt(Normed(), "cross_entropy")
    features = adapted.feature_fn(adapted.params, {"x": image})
    np.testing.assert_allclose(features, with_axis.ravel(), rtol=1e-5, atol=1e-6)
