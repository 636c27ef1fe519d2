"""Samples cut into chunks of one shape, each laid where it is to be computed with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from lggwjax.sharding import num_shares, on_mesh, place, spread_over


def checked_chunk(chunk_size: int | None, num_samples: int, fitting: int) -> int:
    """The chunk size a caller asked for, or one that fits and cuts n evenly; at most n.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"Expected chunk_size >= 1, got {chunk_size}.")
    if chunk_size is None:
        return math.ceil(num_samples / math.ceil(num_samples / fitting))
    return min(chunk_size, num_samples)


def iter_chunks(
    batch: PyTree, num_samples: int, chunk_size: int, mesh: Mesh | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Cut a batch into chunks of one shape; the last one is filled up with copies of its last example.

    In Python rather than ``lax.map``: on a CPU, convolutions inside a loop of XLA can be ten times slower.

    Args:
        batch: n examples along the leading axis.
        num_samples: n.
        chunk_size: Examples of a chunk; on a mesh rounded up to a multiple of its devices.
        mesh: Over whose devices each chunk is spread, or None.

    Yields:
        Where the chunk starts, how many of its examples count, and the chunk.
    """
    shares = num_shares(mesh)
    chunk_size = -(-min(chunk_size, num_samples) // shares) * shares
    batch = batch if mesh is None else on_mesh(batch, mesh)
    for start in range(0, num_samples, chunk_size):
        count = min(chunk_size, num_samples - start)
        chunk = _cut(batch, num_samples, start, chunk_size)
        yield start, count, chunk if mesh is None else jax.tree.map(lambda x: place(x, spread_over(mesh)), chunk)


def _cut(batch: PyTree, num_samples: int, start: int, chunk_size: int) -> PyTree:
    if chunk_size == num_samples:
        return batch
    if start + chunk_size <= num_samples:
        return jax.tree.map(lambda x: x[start : start + chunk_size], batch)
    index = np.minimum(np.arange(start, start + chunk_size), num_samples - 1)
    return jax.tree.map(lambda x: x[index] if isinstance(x, np.ndarray) else jnp.asarray(x)[index], batch)
