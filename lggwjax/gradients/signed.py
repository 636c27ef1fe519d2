"""Signed mean gradients by backward passes: no per-sample gradient, whatever the number of samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.halving import halving
from lggwjax.gradients.selection import Selection, batch_size

SAMPLES_AT_ONCE = 256


def signed_mean_norms(
    loss: Partial,
    params: PyTree,
    batch: PyTree,
    signs: Float[Array, "b n"],
    selection: Selection,
    chunk_size: int | None = None,
) -> Float[Array, " b"]:
    r"""Norms of signed mean gradients, :math:`|\tfrac1n \sum_i \epsilon_i \xi_i|`, one backward pass a sign vector.

    Args:
        loss: From :func:`lggwjax.gradients.selection.as_partial`.
        params: Parameters.
        batch: n examples along the leading axis.
        signs: b sign vectors.
        selection: Gradient coordinates.
        chunk_size: Samples of one pass.

    Returns:
        One norm a sign vector. Memory: b gradients.
    """
    num = batch_size(batch)
    return halving(
        lambda size: _in_chunks(loss, params, batch, signs, selection, size), min(num, chunk_size or SAMPLES_AT_ONCE)
    )


def _in_chunks(loss, params, batch, signs, selection, chunk_size) -> Float[Array, " b"]:
    num = batch_size(batch)
    totals: list[Any] = [None] * len(signs)
    for start, count, chunk in iter_chunks(batch, num, chunk_size):
        width = jax.tree.leaves(chunk)[0].shape[0]
        # A last chunk that is filled up repeats samples: their sign is 0.
        part = jnp.pad(signs[:, start : start + count], ((0, 0), (0, width - count)))
        for index, one in enumerate(part):
            found = _signed_sum(loss, params, chunk, one, selection)
            totals[index] = found if totals[index] is None else jax.tree.map(jnp.add, totals[index], found)
    return jnp.stack([_norm(total) for total in totals]) / num


@partial(jax.jit, static_argnames="selection")
def _signed_sum(loss, params, chunk, signs, selection):
    coordinates, others = selection.split(params)

    def total(coordinates):
        losses = jax.vmap(loss, in_axes=(None, 0))(selection.merge(coordinates, others), chunk)
        return jnp.sum(losses * signs)

    return jax.grad(total)(coordinates)


@jax.jit
def _norm(leaves) -> Float[Array, ""]:
    squares = [jnp.sum(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) ** 2) for leaf in leaves]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))
