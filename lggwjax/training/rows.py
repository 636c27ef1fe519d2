"""Samples in memory, or read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from lggwjax.gradients.selection import batch_size
from lggwjax.sharding import num_shares, shard_rows

Item = TypeVar("Item")
Read = TypeVar("Read")


@runtime_checkable
class Rows(Protocol):
    """Samples that stay where they are until some are asked for, such as :class:`lggwjax.data.StreamedSample`."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def rows(self, indices: np.ndarray) -> PyTree:
        """Read some, in the order asked for, as arrays with a leading axis."""
        ...


def num_rows(data: PyTree | Rows) -> int:
    """Count the samples, at least 1."""
    return len(data) if isinstance(data, Rows) else batch_size(data)


def reader(data: PyTree | Rows) -> Callable[[np.ndarray], PyTree]:
    """From row numbers to these samples, on the host."""
    if isinstance(data, Rows):
        return data.rows
    held = jax.tree.map(np.asarray, data)
    return lambda rows: jax.tree.map(lambda leaf: leaf[rows], held)


def take_each(data: PyTree | Rows, indices: Iterable[np.ndarray], mesh: Mesh | None = None) -> Iterator[PyTree]:
    """Give the samples at each of ``indices``, in that order, spread over a mesh; what is read is read one ahead."""
    if mesh is not None:
        read = reader(data)
        return ahead(lambda index: shard_rows(read, index, mesh), indices)
    if isinstance(data, Rows):
        return ahead(data.rows, indices)
    return (jax.tree.map(lambda leaf, i=index: jnp.asarray(leaf)[i], data) for index in indices)


def chunks_of(data: PyTree | Rows, chunk_size: int, mesh: Mesh | None = None) -> Iterator[tuple[int, Any]]:
    """Cut samples into chunks of one shape: how many count, and the chunk, filled up with its last sample."""
    num, shares = num_rows(data), num_shares(mesh)
    chunk_size = -(-chunk_size // shares) * shares
    starts = range(0, num, chunk_size)
    chunks = take_each(data, (np.minimum(np.arange(start, start + chunk_size), num - 1) for start in starts), mesh)
    return zip((min(chunk_size, num - start) for start in starts), chunks, strict=True)


def ahead(read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[Read]:
    """Read one item ahead of the one in use, in a thread of its own, so that reading and computing overlap.

    Example:
        >>> list(ahead(lambda step: step * step, range(4)))
        [0, 1, 4, 9]
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="lggwjax-read") as pool:
        pending = None
        for item in items:
            following = pool.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
