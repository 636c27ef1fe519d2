"""Per-sample gradients: ``jax.vmap(jax.grad)`` in chunks of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.selection import LossFn, Selection, Wrt, as_partial, batch_size, check_loss, select

CHUNK_BYTES = 2**29  # gradients held at once when the caller does not choose


def per_sample_gradients(
    loss_fn: LossFn, params: PyTree, batch: PyTree, *, chunk_size: int | None = None, wrt: Wrt = None
) -> PyTree:
    r"""Gradients of the loss of each example by itself.

    .. math:: \xi_i = \nabla_\theta \, \mathrm{loss}(\theta; z_i), \quad i = 1, \dots, n

    Guarantees (up to rounding):
        * The mean over examples is the gradient of the mean loss.
        * The result does not depend on ``chunk_size``.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``; the example has no batch axis.
        params: Any pytree.
        batch: A pytree like an example, with a leading axis of n examples.
        chunk_size: Examples differentiated at once; by default what fits half a GiB. Works inside ``jit`` too.
        wrt: Which leaves are gradient coordinates; by default all floating ones.

    Returns:
        A pytree like ``params``, each leaf with a leading axis n, in loss per unit of parameter; ``None`` for leaves
        that are not gradient coordinates. The n x p block is the result itself: use :func:`gradient_gram` where only
        inner products matter.

    Raises:
        ValueError: If the loss is not a scalar, the batch has no common leading axis, or ``chunk_size < 1``.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(params, example): return 0.5 * (params["w"] @ example["x"] - example["y"]) ** 2
        >>> batch = {"x": jnp.eye(3), "y": jnp.zeros(3)}
        >>> per_sample_gradients(loss, {"w": jnp.ones(3)}, batch)["w"].shape
        (3, 3)
    """
    selection, loss, num_samples, chunk_size = prepare(loss_fn, params, batch, wrt, chunk_size)
    chunks = [
        [leaf[:count] for leaf in _chunk_gradients(loss, params, chunk, selection)]
        for _, count, chunk in iter_chunks(batch, num_samples, chunk_size)
    ]
    return selection.tree([jnp.concatenate(leaves) for leaves in zip(*chunks, strict=True)])


def prepare(
    loss_fn: LossFn, params: PyTree, batch: PyTree, wrt: Wrt, chunk_size: int | None, copies: int = 1
) -> tuple[Selection, Partial, int, int]:
    """Check what every public function is given.

    Args:
        loss_fn: The loss.
        params: Its parameters.
        batch: Examples along the leading axis.
        wrt: See :func:`lggwjax.gradients.selection.select`.
        chunk_size: Examples at once, or None for what fits.
        copies: Gradients that will be held for each example of a chunk.

    Returns:
        The selection, the loss as a ``Partial``, n and the chunk size, at most n.

    Raises:
        ValueError: See :func:`per_sample_gradients`.
    """
    loss = as_partial(loss_fn)
    selection, num_samples = select(params, wrt), batch_size(batch)
    check_loss(loss, params, batch)
    if chunk_size is None:
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in map(jnp.asarray, selection.split(params)[0]))
        chunk_size = max(1, CHUNK_BYTES // (held * copies))
    if chunk_size < 1:
        raise ValueError(f"Expected chunk_size >= 1, got {chunk_size}.")
    return selection, loss, num_samples, min(chunk_size, num_samples)


def iter_chunks(batch: PyTree, num_samples: int, chunk_size: int) -> Iterator[tuple[int, int, Any]]:
    """Cut a batch into chunks of one shape; the last one is filled up with copies of its last example.

    In Python rather than ``lax.map``: on a CPU, convolutions inside a loop of XLA can be ten times slower.

    Yields:
        Where the chunk starts, how many of its examples count, and the chunk.
    """
    for start in range(0, num_samples, chunk_size):
        count = min(chunk_size, num_samples - start)
        if count == chunk_size:
            yield start, count, jax.tree.map(lambda x, s=start: x[s : s + chunk_size], batch)
        else:
            index = jnp.minimum(jnp.arange(start, start + chunk_size), num_samples - 1)
            yield start, count, jax.tree.map(lambda x, i=index: jnp.asarray(x)[i], batch)


@partial(jax.jit, static_argnames="selection")
def _chunk_gradients(loss: Partial, params: PyTree, batch: PyTree, selection: Selection) -> list[Array]:
    coordinates, others = selection.split(params)

    def of_coordinates(coordinates, example):
        return loss(selection.merge(coordinates, others), example)

    return jax.vmap(jax.grad(of_coordinates), in_axes=(None, 0))(coordinates, batch)


@partial(jax.jit, static_argnames="selection")
def flat_chunk(loss: Partial, params: PyTree, batch: PyTree, selection: Selection) -> Float[Array, "c p"]:
    """Per-sample gradients of one chunk as rows: the leaves that are gradient coordinates, one after another."""
    leaves = _chunk_gradients(loss, params, batch, selection)
    dtype = jnp.result_type(*leaves)
    # Half-precision gradients are multiplied in float32: a Gram matrix in bfloat16 has two digits.
    dtype = jnp.promote_types(dtype, jnp.float32)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in leaves], axis=1)


def flat_gradients(
    loss: Partial, params: PyTree, batch: PyTree, selection: Selection, chunk_size: int
) -> Float[Array, "n p"]:
    """Per-sample gradients of a whole batch as rows.

    Args:
        loss: From :func:`lggwjax.gradients.selection.as_partial`.
        params: Parameters.
        batch: n examples.
        selection: Gradient coordinates.
        chunk_size: Examples at once.

    Returns:
        One gradient a row; the block that the callers of this function have planned for.
    """
    num_samples = batch_size(batch)
    rows = [
        flat_chunk(loss, params, c, selection)[:count] for _, count, c in iter_chunks(batch, num_samples, chunk_size)
    ]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows)
