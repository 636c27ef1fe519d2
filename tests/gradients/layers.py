"""One small loss for each kind of layer, and their gradients by ``jax.vmap(jax.grad)`` for comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lggwjax.gradients.engine import Problem, pose

NUM = 5


class Layered(NamedTuple):
    """A loss with parameters, other parameters near to them, and NUM examples."""

    loss: Callable[[Any, Any], jax.Array]
    params: Any
    batch: Any

    def problem(self) -> Problem:
        return pose(self.loss, self.params, self.batch, None, self_check=False)

    def moved(self, seed: int, scale: float = 0.1) -> Any:
        """Parameters near to the given ones."""
        leaves, treedef = jax.tree.flatten(self.params)
        rng = np.random.default_rng(seed)
        return treedef.unflatten([x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype) for x in leaves])

    def blocks(self, params: Any) -> list[np.ndarray]:
        """Per-sample gradients in double precision, one (n, size) block a leaf that is used."""
        leaves = jax.tree.leaves(_brute(self.loss)(params, self.batch))
        return [np.asarray(leaf, np.float64).reshape(NUM, -1) for leaf in leaves]

    def rows(self, params: Any) -> np.ndarray:
        return np.concatenate(self.blocks(params), 1)


_compiled: dict[Callable, Callable] = {}


def _brute(loss: Callable) -> Callable:
    if loss not in _compiled:
        _compiled[loss] = quick(jax.vmap(jax.grad(loss), (None, 0)))
    return _compiled[loss]


def quick(function: Callable) -> Callable:
    """Here compiling is all the time there is: the compiler need not try hard."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def _score(out: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(jnp.tanh(out) - 0.3))


def _dense(params, x):
    return _score(x @ params["w"])


def _batched(params, x):
    return _score(jnp.einsum("bi,bio->bo", x, params["w"]))


def _conv(params, x, strides, groups):
    return lax.conv_general_dilated(
        x[None],
        params["w"],
        strides,
        "SAME" if groups == 1 else "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _strided(params, x):
    return _score(_conv(params, x, (2, 2), 1))


def _grouped(params, x):
    return _score(_conv(params, x, (1, 1), 2))


def _embedding(params, tokens):
    return _score(params["w"][tokens] * jnp.arange(1.0, 6.0)[:, None])


def _twice(params, x):
    return _score(jnp.tanh(x @ params["w"]) @ params["w"])


def _scanned(params, x):
    def step(carry, _):
        return jnp.tanh(carry @ params["w"]), None

    return _score(lax.scan(step, x, None, length=2)[0])


def _mixed(params, example):
    hidden = jnp.tanh(example["x"] @ params["dense"] + params["bias"])
    return (
        _dense({"w": params["dense"]}, example["t"]) + _embedding({"w": params["table"]}, example["i"]) + hidden.sum()
    )


_TOKENS = jnp.asarray(np.random.default_rng(3).integers(0, 20, (NUM, 5)))

LAYERS = {
    "dense": Layered(_dense, {"w": normal(0, 9, 8, scale=0.3)}, normal(1, NUM, 9)),
    "tokens": Layered(_dense, {"w": normal(0, 9, 12, scale=0.3)}, normal(2, NUM, 3, 9)),
    "batched": Layered(_batched, {"w": normal(0, 3, 6, 4, scale=0.3)}, normal(3, NUM, 3, 6)),
    "strided": Layered(_strided, {"w": normal(0, 2, 2, 4, 16, scale=0.2)}, normal(4, NUM, 4, 4, 4)),
    "grouped": Layered(_grouped, {"w": normal(0, 2, 2, 2, 16, scale=0.2)}, normal(5, NUM, 3, 3, 4)),
    "embedding": Layered(_embedding, {"w": normal(0, 20, 6)}, _TOKENS),
    "twice": Layered(_twice, {"w": normal(0, 12, 12, scale=0.3)}, normal(6, NUM, 12)),
}
"""Layers whose gradients have factors, small enough that these are fewer numbers than the gradient."""

WITHOUT = {
    "scanned": Layered(_scanned, {"w": normal(0, 7, 7, scale=0.3)}, normal(7, NUM, 7)),
    "mixed": Layered(
        _mixed,
        {"bias": normal(0, 12), "dense": normal(1, 9, 12, scale=0.3), "table": normal(2, 20, 6)},
        {"x": normal(8, NUM, 9), "t": normal(9, NUM, 2, 9), "i": _TOKENS},
    ),
}
"""A layer that keeps its own gradient, and several layers together."""
