"""A decoder-only transformer in plain JAX, a scan over its layers: the large model of the benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Params = dict[str, Any]


@dataclass(frozen=True)
class Transformer:
    """Sizes; embedding and output share their matrix.

    Attributes:
        layers: L.
        width: d, a multiple of the heads' size.
        length: Tokens of one sample.
        vocabulary: Tokens there are.
        head: Size of one head.
    """

    layers: int = 18
    width: int = 2048
    length: int = 1024
    vocabulary: int = 32768
    head: int = 128

    @property
    def shapes(self) -> Params:
        """Parameters by name, as shapes; those of all layers are stacked."""
        many, d = self.layers, self.width
        stacked = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, 4 * d), "down": (4 * d, d), "norm1": (d,), "norm2": (d,)}
        layers = {name: jax.ShapeDtypeStruct((many, *shape), jnp.float32) for name, shape in stacked.items()}
        own = {"embed": (self.vocabulary, d), "norm": (d,)}
        return {"layers": layers} | {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in own.items()}

    @property
    def num_parameters(self) -> int:
        """P."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes))

    def batch(self, num_samples: int) -> jax.ShapeDtypeStruct:
        """Shape of n samples: their tokens, one more than are predicted from."""
        return jax.ShapeDtypeStruct((num_samples, self.length + 1), jnp.int32)

    def init(self, key: jax.Array) -> Params:
        """Parameters: gains of one, the others normal with variance 1 / inputs."""
        leaves, treedef = jax.tree.flatten(self.shapes)
        keys = jax.random.split(key, len(leaves))

        def draw(key: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
            if leaf.shape[-1] == self.width and (leaf.ndim == 1 or leaf.shape == (self.layers, self.width)):
                return jnp.ones(leaf.shape)
            fan_in = self.width if leaf.ndim == 2 else leaf.shape[-2]
            return jax.random.normal(key, leaf.shape) / math.sqrt(fan_in)

        return treedef.unflatten([draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])

    def loss(self, params: Params, tokens: jax.Array) -> jax.Array:
        """Mean cross-entropy of the next token over one sample."""
        x = params["embed"][tokens[:-1]]
        # Recomputed in the backward pass: what is kept of a layer is its input.
        block = jax.checkpoint(partial(_block, self.head))
        x, _ = jax.lax.scan(lambda x, layer: (block(x, layer), None), x, params["layers"])
        scores = jax.nn.log_softmax(_rms(x, params["norm"]) @ params["embed"].T)
        return -jnp.mean(jnp.take_along_axis(scores, tokens[1:, None], axis=1))


def _block(head: int, x: jax.Array, layer: Params) -> jax.Array:
    length, width = x.shape
    parts = jnp.split(_rms(x, layer["norm1"]) @ layer["qkv"], 3, axis=-1)
    queries, keys, values = (part.reshape(length, width // head, head) for part in parts)
    weights = jnp.einsum("shd,thd->hst", queries, keys) / math.sqrt(head)
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), weights, -1e9))
    x = x + jnp.einsum("hst,thd->shd", weights, values).reshape(length, width) @ layer["out"]
    return x + jax.nn.gelu(_rms(x, layer["norm2"]) @ layer["up"]) @ layer["down"]


def _rms(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * gain
