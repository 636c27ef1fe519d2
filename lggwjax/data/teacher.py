"""A fixed random network as a population: fresh samples at will, gradients as sharp as asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

# Fewer chunks would make the standard error itself too uncertain: its relative error is about 1/sqrt(2 * chunks).
_MIN_CHUNKS = 32


class PopulationEstimate(NamedTuple):
    """A Monte Carlo estimate of a population quantity.

    Args:
        mean: The estimate: a number, or a pytree with the structure of the parameters.
        stderr: Standard error of each number of ``mean``, in the same structure. The root mean square of
            ``|mean - truth|`` is the root of the sum of its squares.
        num_samples: Fresh samples used.
    """

    mean: Any
    stderr: Any
    num_samples: int


@dataclass(frozen=True, eq=False)
class TeacherPopulation:
    """Inputs uniform on the box ``[-half_width, half_width]^d``, labels from a fixed random tanh network.

    The logits are centred and scaled to mean 0 and variance 1 over the box, class by class, so that no class is lost. A
    label is drawn with probabilities ``softmax(logits / temperature)``; temperature 0 gives the most probable class.

    Args:
        weights: Weight matrices, the first of shape (d, width), the last of shape (width, num_classes).
        biases: Their biases.
        half_width: Half the side of the box, in units of the inputs.
        temperature: Of the labels, >= 0.

    Example:
        >>> population = TeacherPopulation.draw(0, dimension=5, num_classes=3)
        >>> population.sample(jax.random.key(0), 4)["x"].shape
        (4, 5)
    """

    weights: tuple[Float[np.ndarray, "fan_in fan_out"], ...]
    biases: tuple[Float[np.ndarray, " fan_out"], ...]
    half_width: float
    temperature: float

    @classmethod
    def draw(
        cls,
        seed: int,
        dimension: int,
        num_classes: int,
        *,
        widths: tuple[int, ...] = (32, 32),
        half_width: float = 1.0,
        temperature: float = 0.5,
    ) -> TeacherPopulation:
        """Draw the network.

        Args:
            seed: Of the weights.
            dimension: Number of input coordinates d.
            num_classes: Number of classes, at least 2.
            widths: Hidden widths.
            half_width: Half the side of the box of the inputs.
            temperature: Of the labels; 0 for the most probable class.

        Raises:
            ValueError: If a size is too small, ``half_width`` is not positive, or ``temperature`` is negative.

        Example:
            >>> TeacherPopulation.draw(0, dimension=5, num_classes=3).num_classes
            3
        """
        if min(dimension, *widths, num_classes - 1) < 1:
            raise ValueError(
                f"Expected dimension >= 1, widths >= 1 and num_classes >= 2, got {dimension}, {widths}, {num_classes}. "
                "Give larger sizes."
            )
        if not (math.isfinite(half_width) and half_width > 0 and math.isfinite(temperature) and temperature >= 0):
            raise ValueError(
                f"Expected half_width > 0 and temperature >= 0, got {half_width} and {temperature}. "
                "Give finite numbers in these ranges."
            )
        rng = np.random.default_rng([seed, 3])
        # Gain 2 keeps tanh clearly non-linear; the first layer undoes the scale of the box.
        sizes = (dimension, *widths, num_classes)
        weights = [rng.normal(0, 2 / math.sqrt(a), (a, b)) for a, b in pairwise(sizes)]
        weights[0] /= half_width
        biases = [rng.normal(0, 0.5, b) for b in sizes[1:]]
        hidden = rng.uniform(-half_width, half_width, (4096, dimension))
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            hidden = np.tanh(hidden @ w + b)
        logits = hidden @ weights[-1]
        weights[-1] = weights[-1] / logits.std(axis=0)
        biases[-1] = -logits.mean(axis=0) / logits.std(axis=0)
        single = [tuple(array.astype(np.float32) for array in arrays) for arrays in (weights, biases)]
        return cls(single[0], single[1], float(half_width), float(temperature))

    @property
    def dimension(self) -> int:
        """Number of input coordinates d."""
        return self.weights[0].shape[0]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.weights[-1].shape[1]

    @property
    def input_radius(self) -> float:
        """The largest norm of an input, ``half_width * sqrt(d)``; bounds on gradients start from it."""
        return self.half_width * math.sqrt(self.dimension)

    def logits(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The network's logits before the temperature.

        Args:
            x: Inputs.

        Returns:
            Logits, of mean 0 and variance 1 over the box (up to the error of 4,096 samples).

        Example:
            >>> TeacherPopulation.draw(0, dimension=5, num_classes=3).logits(jnp.zeros((2, 5))).shape
            (2, 3)
        """
        return _logits(self.weights, self.biases, x)

    def sample(self, key: Key[Array, ""], n: int) -> dict[str, jax.Array]:
        """Draw n fresh samples; may be called under ``jit`` (n static).

        Args:
            key: One PRNG key, consumed here.
            n: Number of samples.

        Returns:
            ``{"x": float32 (n, d), "y": int32 (n,)}``.

        Example:
            >>> TeacherPopulation.draw(0, dimension=5, num_classes=3).sample(jax.random.key(0), 2)["y"].dtype
            dtype('int32')
        """
        network = (self.weights, self.biases)
        return _sample(key, network, self.half_width, self.temperature, n=n, certain=self.temperature == 0)

    def loss(
        self,
        loss_fn: Callable[[Any, Any], Array],
        params: PyTree,
        *,
        key: Key[Array, ""],
        num_samples: int,
        chunk_size: int = 256,
    ) -> PopulationEstimate:
        """Estimate the population loss from fresh samples.

        Args:
            loss_fn: ``loss_fn(params, example) -> scalar``.
            params: Any pytree of arrays.
            key: One PRNG key, consumed here.
            num_samples: At least so many fresh samples; the error falls as their root.
            chunk_size: At most so many are in memory at once.

        Returns:
            The estimate, with its standard error from the means of the chunks (at least 32).

        Raises:
            ValueError: If ``num_samples < 64`` or ``chunk_size < 1``.

        Example:
            >>> population = TeacherPopulation.draw(0, dimension=2, num_classes=2)
            >>> square = lambda w, example: w * example["x"][0] ** 2
            >>> est = population.loss(square, 3.0, key=jax.random.key(0), num_samples=4096)
            >>> bool(abs(est.mean - 1.0) < 4 * est.stderr)
            True
        """
        return self._estimate(_mean_loss, loss_fn, params, key, num_samples, chunk_size)

    def gradient(
        self,
        loss_fn: Callable[[Any, Any], Array],
        params: PyTree,
        *,
        key: Key[Array, ""],
        num_samples: int,
        chunk_size: int = 256,
    ) -> PopulationEstimate:
        """Estimate the population gradient from fresh samples.

        Memory is that of one batched gradient of ``chunk_size`` samples and a few copies of the parameters, however
        many samples are asked for.

        Args:
            loss_fn: ``loss_fn(params, example) -> scalar``.
            params: A pytree of floating arrays; what is not differentiated belongs into ``loss_fn``.
            key: One PRNG key, consumed here.
            num_samples: At least so many fresh samples; the error falls as their root.
            chunk_size: At most so many are in memory at once.

        Returns:
            The estimate, with the standard error of each coordinate from the means of the chunks (at least 32).

        Raises:
            ValueError: If ``num_samples < 64`` or ``chunk_size < 1``.

        Example:
            >>> population = TeacherPopulation.draw(0, dimension=2, num_classes=2)
            >>> square = lambda w, example: w * example["x"][0] ** 2
            >>> est = population.gradient(square, 3.0, key=jax.random.key(0), num_samples=4096)
            >>> bool(abs(est.mean - 1 / 3) < 4 * est.stderr)
            True
        """
        return self._estimate(_mean_gradient, loss_fn, params, key, num_samples, chunk_size)

    def _estimate(
        self, statistic: Callable, loss_fn: Callable, params: PyTree, key: Array, num_samples: int, chunk_size: int
    ) -> PopulationEstimate:
        if num_samples < 2 * _MIN_CHUNKS or chunk_size < 1:
            raise ValueError(
                f"Expected num_samples >= {2 * _MIN_CHUNKS} and chunk_size >= 1, got {num_samples} and {chunk_size}. "
                "Ask for more samples."
            )
        num_chunks = max(_MIN_CHUNKS, -(-num_samples // chunk_size))
        size = -(-num_samples // num_chunks)
        keys = jax.random.split(key, num_chunks)
        mean, stderr = _chunk_moments(statistic, self, loss_fn, size, params, keys)
        return PopulationEstimate(mean, stderr, num_chunks * size)


def _logits(weights: tuple, biases: tuple, x: Array) -> Array:
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        x = jnp.tanh(jnp.matmul(x, w, precision="highest") + b)
    return jnp.matmul(x, weights[-1], precision="highest") + biases[-1]


@partial(jax.jit, static_argnames=("n", "certain"))
def _sample(
    key: Array, network: tuple, half_width: float, temperature: float, *, n: int, certain: bool
) -> dict[str, jax.Array]:
    input_key, label_key = jax.random.split(key)
    weights, biases = network
    x = jax.random.uniform(input_key, (n, weights[0].shape[0]), jnp.float32, -half_width, half_width)
    logits = _logits(weights, biases, x)
    y = jnp.argmax(logits, axis=-1) if certain else jax.random.categorical(label_key, logits / temperature)
    return {"x": x, "y": y.astype(jnp.int32)}


def _mean_loss(params: PyTree, loss_fn: Callable, batch: dict[str, jax.Array]) -> Array:
    return jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0))(params, batch))


_mean_gradient = jax.grad(_mean_loss)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _chunk_moments(
    statistic: Callable, population: TeacherPopulation, loss_fn: Callable, size: int, params: PyTree, keys: Array
) -> tuple[PyTree, PyTree]:
    """Mean over chunks and its standard error, by Welford's update: sums of squares would cancel in float32."""

    def step(carry: tuple, key: Array) -> tuple[tuple, None]:
        count, mean, spread = carry
        value = statistic(params, loss_fn, population.sample(key, size))
        count = count + 1
        delta = jax.tree.map(jnp.subtract, value, mean)
        mean = jax.tree.map(lambda m, d: m + d / count, mean, delta)
        spread = jax.tree.map(lambda s, d, v, m: s + d * (v - m), spread, delta, value, mean)
        return (count, mean, spread), None

    shape = jax.eval_shape(lambda key: statistic(params, loss_fn, population.sample(key, size)), keys[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    (_, mean, spread), _ = jax.lax.scan(step, (jnp.float32(0), zeros, zeros), keys)
    num_chunks = keys.shape[0]
    return mean, jax.tree.map(lambda s: jnp.sqrt(s / (num_chunks * (num_chunks - 1))), spread)
