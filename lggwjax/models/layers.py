"""What the models of the zoo share: the featurizer protocol, initialisation, norms, the sparse head."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lggwjax.models.spec import ModelSpec

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nnx.relu, "tanh": jnp.tanh, "gelu": nnx.gelu}


class Featurized(nnx.Module):
    """A model that is a dense head on its features, so that one forward pass gives both.

    A subclass sets ``head`` and defines :meth:`features`; the adapter then reads features and logits from one pass.

    Attributes:
        head: The last layer, from (n, m) features to (n, num_outputs) logits.
    """

    head: nnx.Linear

    @abc.abstractmethod
    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """Return the output of the last-but-one layer.

        Args:
            x: Inputs with their batch axis first.

        Returns:
            One row of m features a sample.
        """

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n num_outputs"]:
        """Return the logits: the head applied to the features.

        Args:
            x: Inputs with their batch axis first.

        Returns:
            One row of logits a sample.
        """
        return self.head(self.features(x))


def keep_largest(features: Float[Array, "n m"], top_k: int | None) -> Float[Array, "n m"]:
    """Keep the ``top_k`` features of each row that are largest in absolute value and set the others to 0.

    Ties go to the lower index, so never more than ``top_k`` stay. The gradient passes through the kept ones only.

    Args:
        features: One row a sample.
        top_k: How many stay; ``None`` keeps all.

    Returns:
        The features, of the same shape.

    Example:
        >>> keep_largest(jnp.array([[1.0, -3.0, 2.0]]), 2).tolist()
        [[0.0, -3.0, 2.0]]
    """
    if top_k is None:
        return features
    _, kept = jax.lax.top_k(jnp.abs(features), top_k)
    mask = jnp.put_along_axis(jnp.zeros_like(features), kept, 1, axis=-1, inplace=False)
    return features * mask


def check_top_k(spec: ModelSpec, num_features: int) -> None:
    """Refuse a ``top_k`` larger than the number of features.

    Args:
        spec: The model's description.
        num_features: Length m of the features.

    Raises:
        ValueError: If ``spec.top_k > num_features``.
    """
    if spec.top_k is not None and spec.top_k > num_features:
        raise ValueError(f"Expected top_k <= {num_features}, the number of features, got {spec.top_k}. Lower top_k.")


def kernel_init(spec: ModelSpec, *, linear: bool = False, averaged: bool = False) -> nnx.Initializer:
    """Return the initialiser of a kernel: normal, scaled by fan-in, times ``spec.init_scale``.

    Args:
        spec: The model's description.
        linear: Whether no activation follows (head, shortcut): variance 1/fan-in.
        averaged: Whether its outputs start as averages over its inputs: another factor of 1/sqrt(fan-in).

    Returns:
        A flax initialiser. Under one key, ``init_scale = s`` gives s times the kernel of ``init_scale = 1``.
    """
    gain = 1.0 if linear or spec.activation == "tanh" else 2.0

    def initialise(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        fan_in = math.prod(shape[:-1])
        scale = spec.init_scale * math.sqrt(gain / fan_in) / (math.sqrt(fan_in) if averaged else 1.0)
        # Drawn flat: XLA takes up to ten times as long to compile random bits for the shape of a small convolution.
        return scale * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return initialise


def dense(spec: ModelSpec, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return a hidden dense layer, without bias if a norm follows."""
    bias = spec.bias and spec.norm == "none"
    return nnx.Linear(num_inputs, num_outputs, use_bias=bias, kernel_init=kernel_init(spec), rngs=rngs)


def head(spec: ModelSpec, num_features: int, num_outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Return the last layer, from features to logits."""
    init = kernel_init(spec, linear=True, averaged=spec.init == "mean-field")
    return nnx.Linear(num_features, num_outputs, use_bias=spec.bias, kernel_init=init, rngs=rngs)


def conv(
    spec: ModelSpec, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs, size: int = 3, stride: int = 1
) -> nnx.Conv:
    """Return a square convolution with same padding, without bias if a norm follows.

    A 1 x 1 convolution is a shortcut: nothing but a norm follows it before it is added.
    """
    return nnx.Conv(
        num_inputs,
        num_outputs,
        (size, size),
        strides=(stride, stride),
        padding="SAME",
        use_bias=spec.bias and spec.norm == "none",
        kernel_init=kernel_init(spec, linear=size == 1),
        rngs=rngs,
    )


def normalise(spec: ModelSpec, num_channels: int, *, rngs: nnx.Rngs) -> Callable[[Array], Array]:
    """Return the norm over the last axis that ``spec.norm`` names; the identity for ``"none"``."""
    if spec.norm == "layer":
        return nnx.LayerNorm(num_channels, use_bias=spec.bias, rngs=rngs)
    if spec.norm == "group":
        return nnx.GroupNorm(num_channels, num_groups=_num_groups(num_channels), use_bias=spec.bias, rngs=rngs)
    if spec.norm == "batch":
        # Runs are short: statistics with flax's default momentum of .99 would lag behind by a hundred steps.
        return nnx.BatchNorm(num_channels, momentum=0.9, use_bias=spec.bias, rngs=rngs)
    return nnx.identity


def _num_groups(num_channels: int) -> int:
    # Groups of one channel would turn dense features into zeros, groups of two into signs: at least four each.
    return next((groups for groups in (8, 4, 2) if num_channels % groups == 0 and num_channels >= 4 * groups), 1)
