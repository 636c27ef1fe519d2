"""Which samples a training step takes: a fixed sample in one random order after another, or new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from lggwjax.data.order import LARGEST_LIST, Order
from lggwjax.gradients.selection import batch_size
from lggwjax.sharding import lies_on, shard_rows, shard_samples
from lggwjax.training.feed import feed
from lggwjax.training.rows import Rows, num_rows, reader

if TYPE_CHECKING:
    from lggwjax.training.left_out import LeftOut
    from lggwjax.training.loop import TrainSpec

DrawFresh = Callable[[Array, int], PyTree]
BatchAt = Callable[[int], tuple[PyTree, str | None]]
# Streams of the one seed that must not meet: the order of the sample, and fresh samples.
_ORDER, _FRESH = 0, 1


def batches_of(
    sample: PyTree | Rows | Iterable[PyTree],
    asked: TrainSpec,
    start: tuple[int, PyTree, str | None],
    draw_fresh: DrawFresh | None = None,
    left_out: LeftOut | None = None,
) -> BatchAt:
    """Batches by step.

    Args:
        sample: In memory, read when asked for, or an iterator of batches; see `lggwjax.training.loop.train`.
        asked: Batch size, steps, seed.
        start: The step begun with, its parameters, which say on which devices batches go, and the iterator's position.
        draw_fresh: For fresh samples, where these are asked for.
        left_out: Samples that no batch takes; looked at for each batch anew.

    Returns:
        From a step, counted from 0, to its batch and the position after it of the iterator that gave it, or None.

    Raises:
        ValueError: If the batch exceeds the sample, or what is given does not fit together.
    """
    step, params, position = start
    mesh = lies_on(params)
    put: Callable[[PyTree], PyTree] = (
        (lambda batch: jax.tree.map(jnp.asarray, batch)) if mesh is None else (lambda batch: shard_samples(batch, mesh))
    )
    if asked.fresh:
        at = _fresh(sample, asked, draw_fresh)
        return lambda step: (put(at(step)), None)
    if isinstance(sample, Iterator) or _gives_batches(sample):
        if asked.batch_size is not None or left_out is not None:
            raise ValueError(
                f"Expected neither a batch_size nor samples to leave out with an iterator of batches, got batch_size "
                f"{asked.batch_size}. Let the iterator choose its samples."
            )
        fed = feed(cast("Iterable[PyTree]", sample), step, asked.steps, position)
        return lambda _: (lambda batch, after: (put(batch), after))(*next(fed))
    rows_at = _remaining(_rows_at(num_rows(sample), asked), left_out)
    if mesh is None and not isinstance(sample, Rows):
        return _in_memory(sample, rows_at)
    read = reader(sample)
    one_ahead = _Ahead(lambda rows: put(read(rows)) if mesh is None else shard_rows(read, rows, mesh), rows_at, asked)
    return lambda step: (one_ahead(step), None)


def batch_rows(seed: int, step: int, num_samples: int, size: int) -> np.ndarray:
    """Rows of the sample that step ``step``, counted from 0, takes."""
    epoch, offset = divmod(step * size, num_samples)
    here = min(size, num_samples - offset)
    rows = _order(seed, epoch, num_samples)[np.arange(offset, offset + here)]
    if here < size:
        rows = np.concatenate([rows, _order(seed, epoch + 1, num_samples)[np.arange(size - here)]])
    return rows


def _in_memory(sample: PyTree, rows_at: Callable[[int], np.ndarray]) -> BatchAt:
    sample = jax.tree.map(jnp.asarray, sample)
    num = batch_size(sample)
    # The sample is an argument: closed over, it would be compiled in as a constant, a second copy of all data.
    take = jax.jit(lambda sample, rows: jax.tree.map(lambda leaf: leaf[rows], sample))

    def at(step: int) -> tuple[PyTree, None]:
        rows = rows_at(step)
        whole = len(rows) == num and bool((rows == np.arange(num)).all())
        return (sample if whole else take(sample, rows)), None

    return at


class _Ahead:
    """Reads the batch after the one in use in a thread of its own, so that reading and computing overlap."""

    def __init__(self, read: Callable[[np.ndarray], PyTree], rows_at: Callable[[int], np.ndarray], asked: TrainSpec):
        self._read, self._rows_at, self._steps = read, rows_at, asked.steps
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lggwjax-read")
        self._next: tuple[np.ndarray, Future[PyTree]] | None = None
        self._last: tuple[np.ndarray, PyTree] | None = None

    def __call__(self, step: int) -> PyTree:
        rows, begun = self._rows_at(step), self._next
        if self._last is not None and np.array_equal(self._last[0], rows):
            return self._last[1]  # the full sample, step after step, is read and placed once
        # What was begun may hold samples that were left out since.
        batch = begun[1].result() if begun and np.array_equal(begun[0], rows) else self._read(rows)
        following = self._rows_at(step + 1) if step + 1 < self._steps else rows
        self._last = (rows, batch) if np.array_equal(following, rows) else None
        self._next = None if self._last else (following, self._pool.submit(self._read, following))
        return batch


def _rows_at(num_samples: int, asked: TrainSpec) -> Callable[[int], np.ndarray]:
    size = num_samples if asked.batch_size is None else asked.batch_size
    if size > num_samples:
        raise ValueError(f"Expected batch_size <= {num_samples}, the size of the sample, got {size}.")
    if size == num_samples:
        return lambda _: np.arange(num_samples)
    return lambda step: batch_rows(asked.seed, step, num_samples, size)


def _remaining(rows_at: Callable[[int], np.ndarray], left_out: LeftOut | None) -> Callable[[int], np.ndarray]:
    if left_out is None:
        return rows_at

    def at(step: int) -> np.ndarray:
        rows = rows_at(step)
        left = left_out.remaining(rows)
        if not len(left):
            raise FloatingPointError(
                f"Expected samples with a finite loss and gradient to train on, got none among the {len(rows)} of the "
                f"batch at step {step}. Look at the data, or lower the learning rate or the initialisation scale."
            )
        return left

    return at


def _fresh(sample: PyTree | Rows, asked: TrainSpec, draw_fresh: DrawFresh | None) -> Callable[[int], PyTree]:
    if draw_fresh is None:
        raise ValueError("Expected a population to draw fresh samples from, got a fixed sample. Leave fresh out.")
    size = num_rows(sample) if asked.batch_size is None else asked.batch_size
    key = _stream(asked.seed, _FRESH)
    return lambda step: draw_fresh(jax.random.fold_in(key, step), size)


def _gives_batches(sample: PyTree) -> bool:
    """Whether it is no array and no container of arrays, but something that gives batches when iterated over."""
    if isinstance(sample, Rows):
        return False
    is_leaf = jax.tree_util.all_leaves([sample])
    return is_leaf and isinstance(sample, Iterable) and not hasattr(sample, "shape")


def _stream(seed: int, stream: int) -> Array:
    # np.uint32: a Python int of 2**31 or more does not fit jax's default integer.
    return jax.random.fold_in(jax.random.key(np.uint32(seed)), stream)


# Two orders are alive at a time, when a batch straddles them; a few more serve runs side by side.
@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, num_samples: int) -> np.ndarray | Order:
    if num_samples > LARGEST_LIST:
        return Order((seed, _ORDER, epoch), num_samples)
    key = jax.random.fold_in(_stream(seed, _ORDER), epoch)
    return np.asarray(jax.random.permutation(key, num_samples))
