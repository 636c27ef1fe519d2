"""Which samples a training step takes: a fixed sample in one random order after another, or fresh ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from lggwjax.gradients.selection import batch_size
from lggwjax.training.left_out import LeftOut

DrawFresh = Callable[[Array, int], PyTree]
# Streams of the one seed that must not meet: the order of the sample, and fresh samples.
_ORDER, _FRESH = 0, 1


def _stream(seed: int, stream: int) -> Array:
    # np.uint32: a Python int of 2**31 or more does not fit jax's default integer.
    return jax.random.fold_in(jax.random.key(np.uint32(seed)), stream)


def reused_batches(
    sample: PyTree, size: int | None, seed: int, left_out: LeftOut | None = None
) -> Callable[[int], PyTree]:
    """Batches of a fixed sample, used again and again.

    Args:
        sample: Arrays with a common leading axis n.
        size: Examples a batch, or None for all.
        seed: Fixes the orders.
        left_out: Samples that no batch takes; looked at for each batch anew.

    Returns:
        From a step, counted from 0, to its batch.

    Raises:
        ValueError: If the batch exceeds the sample.
    """
    num_samples = batch_size(sample)
    size = num_samples if size is None else size
    if size > num_samples:
        raise ValueError(f"Expected batch_size <= {num_samples}, the size of the sample, got {size}.")
    sample = jax.tree.map(jnp.asarray, sample)
    # The sample is an argument: closed over, it would be compiled in as a constant, a second copy of all data.
    take = jax.jit(lambda sample, rows: jax.tree.map(lambda leaf: leaf[rows], sample))

    def batch_at(step: int) -> PyTree:
        if size == num_samples and (left_out is None or not left_out.train):
            return sample
        rows = np.arange(num_samples) if size == num_samples else batch_rows(seed, step, num_samples, size)
        if left_out is not None and not len(rows := left_out.remaining(rows)):
            raise FloatingPointError(
                f"Expected samples with a finite loss and gradient to train on, got none among the {size} of the batch "
                f"at step {step}. Look at the data, or lower the learning rate or the initialisation scale."
            )
        return take(sample, rows)

    return batch_at


def fresh_batches(sample: PyTree, size: int | None, seed: int, draw_fresh: DrawFresh | None) -> Callable[[int], PyTree]:
    """Batches of new samples, as many as ``size`` or as ``sample`` has; arguments as for `reused_batches`.

    Raises:
        ValueError: If there is nothing to draw from.
    """
    if draw_fresh is None:
        raise ValueError("Expected a population to draw fresh samples from, got a fixed sample. Leave fresh out.")
    num = batch_size(sample) if size is None else size
    key = _stream(seed, _FRESH)
    return lambda step: jax.tree.map(jnp.asarray, draw_fresh(jax.random.fold_in(key, step), num))


# Two orders are alive at a time, when a batch straddles them; a few more serve runs side by side.
@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    key = jax.random.fold_in(_stream(seed, _ORDER), epoch)
    return np.asarray(jax.random.permutation(key, num_samples))


def batch_rows(seed: int, step: int, num_samples: int, size: int) -> np.ndarray:
    """Rows of the sample that step ``step``, counted from 0, takes."""
    epoch, offset = divmod(step * size, num_samples)
    rows = _order(seed, epoch, num_samples)[offset : offset + size]
    if len(rows) < size:
        rows = np.concatenate([rows, _order(seed, epoch + 1, num_samples)[: size - len(rows)]])
    return rows
