"""The featurizer found in a jaxpr, on models of every framework and on the cases where there is none."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from lggwjax.models import last_layer_input
from lggwjax.models.features import find_last_layer_input

X = np.linspace(-1, 1, 4).astype(np.float32)
PARAMS = {"hidden": np.arange(12, dtype=np.float32).reshape(4, 3) / 10, "head": np.ones((3, 2), np.float32)}
HIDDEN = np.tanh(X @ PARAMS["hidden"])


def hidden_of(params: dict, example: dict) -> jax.Array:
    return jnp.tanh(example["x"] @ params["hidden"])


def branching(params: dict, example: dict) -> jax.Array:
    logits = hidden_of(params, example) @ params["head"]
    return jax.lax.cond(logits[0] > 0, lambda z: z, lambda z: -z, logits)


def scanning(params: dict, example: dict) -> jax.Array:
    _, hidden = jax.lax.scan(lambda carry, column: (carry, jnp.tanh(example["x"] @ column)), 0, params["hidden"].T)
    return hidden @ params["head"]


def with_products_of_data(params: dict, example: dict) -> jax.Array:
    logits = hidden_of(params, example) @ params["head"] + 1
    return jax.nn.log_softmax(logits * (example["x"] @ example["x"]) + jnp.outer(logits, logits) @ logits)


@jax.custom_vjp
def own_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


own_product.defvjp(
    lambda x, kernel: (x @ kernel, (x, kernel)), lambda saved, g: (g @ saved[1].T, jnp.outer(saved[0], g))
)

PREDICTORS: dict[str, Callable[[dict, dict], jax.Array]] = {
    "plain": lambda p, e: hidden_of(p, e) @ p["head"],
    "weights-first": lambda p, e: p["head"].T @ hidden_of(p, e),
    "jit": jax.jit(lambda p, e: jax.jit(hidden_of)(p, e) @ p["head"]),
    "einsum": lambda p, e: jnp.einsum("h,hk->k", hidden_of(p, e), p["head"]),
    "remat": jax.checkpoint(lambda p, e: hidden_of(p, e) @ p["head"]),
    "custom-derivative": lambda p, e: own_product(hidden_of(p, e), p["head"]),
    "scan-before": scanning,
    "branch-after": branching,
    "products-of-data-after": with_products_of_data,
    "products-of-weights": lambda p, e: hidden_of(p, e) @ (p["head"] @ jnp.diag(p["head"][0])),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_finds_the_last_layer(name: str) -> None:
    feature_fn = last_layer_input(PREDICTORS[name])
    np.testing.assert_allclose(feature_fn(PARAMS, {"x": X}), HIDDEN, rtol=1e-5, atol=1e-6)


def test_under_transformations() -> None:
    feature_fn = last_layer_input(PREDICTORS["jit"])
    batch = {"x": np.stack([X, 2 * X])}
    rows = jax.jit(jax.vmap(feature_fn, (None, 0)))(PARAMS, batch)
    np.testing.assert_allclose(rows, np.tanh(batch["x"] @ PARAMS["hidden"]), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda p: feature_fn(p, {"x": X}).sum())(PARAMS)
    np.testing.assert_allclose(gradient["hidden"], np.outer(X, 1 - HIDDEN**2), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient["head"], 0)


def test_keeps_custom_derivatives() -> None:
    """Relu at 0 has derivative 0 by its own rule and 1/2 by that of the maximum it is made of."""
    feature_fn = last_layer_input(lambda p, e: jax.nn.relu(e["x"] * p["scale"]) @ p["head"])
    params = {"scale": jnp.zeros(3), "head": jnp.ones((3, 2))}
    gradient = jax.grad(lambda p: feature_fn(p, {"x": jnp.ones(3)}).sum())(params)
    np.testing.assert_array_equal(gradient["scale"], 0)


def test_under_jit_nothing_after_the_features_is_computed() -> None:
    compiled = jax.jit(last_layer_input(PREDICTORS["plain"])).lower(PARAMS, {"x": X}).compile().as_text()
    assert compiled.count(" dot(") == 1


def test_convolution_is_a_layer() -> None:
    def predict_fn(params: dict, example: dict) -> jax.Array:
        image = jnp.tanh(example["x"])[None]
        out = jax.lax.conv_general_dilated(
            image, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return out.mean((0, 1, 2))

    image = np.linspace(-1, 1, 32).reshape(4, 4, 2).astype(np.float32)
    features = last_layer_input(predict_fn)({"kernel": jnp.ones((3, 3, 2, 5))}, {"x": image})
    np.testing.assert_allclose(features, np.tanh(image).ravel(), rtol=1e-5)


def test_keeps_the_shape_of_a_batch() -> None:
    found = find_last_layer_input(lambda p, x: jnp.tanh(x @ p["hidden"]) @ p["head"], PARAMS, np.stack([X, X]))
    np.testing.assert_allclose(found, np.stack([HIDDEN, HIDDEN]), rtol=1e-5, atol=1e-6)


def test_linen() -> None:
    class Net(linen.Module):
        def setup(self) -> None:
            self.hidden, self.norm, self.last = linen.Dense(6), linen.LayerNorm(), linen.Dense(3)

        def features(self, x: jax.Array) -> jax.Array:
            return linen.relu(self.norm(self.hidden(x)))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(self.features(x))

    model = Net()
    params = model.init(jax.random.key(0), X)
    feature_fn = last_layer_input(lambda params, example: model.apply(params, example["x"]))
    expected = model.apply(params, X, method=Net.features)
    np.testing.assert_allclose(feature_fn(params, {"x": X}), expected, rtol=1e-5, atol=1e-6)


def test_equinox() -> None:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(in_size=4, out_size=3, width_size=6, depth=2, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    feature_fn = last_layer_input(lambda params, example: eqx.combine(params, static)(example["x"]))
    expected = X
    for layer in model.layers[:-1]:
        expected = jax.nn.relu(layer(expected))
    np.testing.assert_allclose(feature_fn(params, {"x": X}), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("predict_fn", "message"),
    [
        (lambda p, e: e["x"][:3] * p["head"].sum(), "no product or convolution of a parameter with the data"),
        (lambda p, e: e["x"] @ PARAMS["hidden"], "no product or convolution of a parameter with the data"),
        (lambda p, e: jax.lax.map(lambda w: hidden_of(p, e) @ w, p["head"].T), "inside the jax primitive 'scan'"),
    ],
)
def test_refuses_where_there_is_no_last_layer(predict_fn: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        last_layer_input(predict_fn)(PARAMS, {"x": X})
    assert "feature_fn=" in str(caught.value)
    assert "\n" not in str(caught.value)
