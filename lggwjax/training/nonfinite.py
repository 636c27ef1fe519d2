"""Which samples have a loss or gradient that is NaN or infinite, and in which layer: what one looks at next."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lggwjax.gradients.chunks import checked_chunk
from lggwjax.gradients.selection import LossFn, Selection, Wrt, as_partial, select
from lggwjax.sharding import mesh_of, place_whole, to_host
from lggwjax.training.rows import Rows, chunks_of, num_rows

_FLOATS = 2**25  # of per-sample gradients held at a time: this runs once, when all is lost anyway


def leaf_names(selection: Selection, params: PyTree) -> list[str]:
    """Paths of the leaves that are gradient coordinates, such as ``dense/kernel``.

    Example:
        >>> params = {"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}
        >>> leaf_names(select(params), params)
        ['dense/bias', 'dense/kernel']
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    chosen = [path for path, flag in zip(paths, selection.chosen, strict=True) if flag]
    return [jax.tree_util.keystr(path, simple=True, separator="/") or "params" for path in chosen]


class NonFinite(NamedTuple):
    """Samples whose loss or gradient is not finite.

    Attributes:
        indices: Which, from 0, rising; at least one.
        what: What of the first is not finite: ``loss``, or ``gradient`` and, where not all of it, in which layers.
    """

    indices: tuple[int, ...]
    what: str

    def __str__(self) -> str:
        """Say what the first one has, and how many more there are."""
        more = f", and so have {len(self.indices) - 1} more" if len(self.indices) > 1 else ""
        return f"has a NaN or infinite {self.what}{more}"


def find_non_finite(loss_fn: LossFn, params: PyTree, batch: PyTree | Rows, wrt: Wrt = None) -> NonFinite | None:
    """Find the samples whose loss or gradient is not finite, one by one.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        params: Where it is asked.
        batch: Samples with a leading axis n, or read when they are asked for.
        wrt: Which leaves are gradient coordinates; by default all floating ones.

    Returns:
        The samples, or None if there is none.

    Example:
        >>> root = lambda w, z: jnp.sqrt(w["a"] * z) + w["b"]
        >>> find_non_finite(root, {"a": jnp.ones(()), "b": jnp.ones(())}, jnp.array([1.0, 0.0, -4.0]))
        NonFinite(indices=(1, 2), what='gradient in a')
    """
    selection, loss, num = select(params, wrt), as_partial(loss_fn), num_rows(batch)
    names = leaf_names(selection, params)
    num_floats = sum(leaf.size for leaf in selection.split(params)[0])
    chunk_size = checked_chunk(None, num, max(1, _FLOATS // max(1, num_floats)))
    mesh = mesh_of(params, None if isinstance(batch, Rows) else batch)
    params, chunks = place_whole(params, mesh), chunks_of(batch, chunk_size, mesh)
    parts = [to_host(_finite(loss, params, chunk, selection))[:count] for count, chunk in chunks]
    finite = np.concatenate(parts)
    bad = np.flatnonzero(~finite.all(axis=1))
    if not bad.size:
        return None
    loss_is_finite, *leaves = finite[bad[0]]
    layers = [name for name, fine in zip(names, leaves, strict=True) if not fine]
    where = f" in {', '.join(layers[:3])}{' and others' if len(layers) > 3 else ''}" if len(layers) < len(names) else ""
    return NonFinite(tuple(bad.tolist()), f"gradient{where}" if loss_is_finite else "loss")


def blame(loss_fn: LossFn, params: PyTree, batch: PyTree, wrt: Wrt = None) -> str:
    """Say which samples have a loss or gradient that is not finite; arguments as for `find_non_finite`.

    Returns:
        The first such sample by its index from 0, with its layers, and how many there are; empty if there is none.

    Example:
        >>> root = lambda w, z: jnp.sqrt(w["a"] * z) + w["b"]
        >>> blame(root, {"a": jnp.ones(()), "b": jnp.ones(())}, jnp.array([1.0, 0.0, 4.0]))
        'sample 1 of 3 has a NaN or infinite gradient in a'
    """
    found = find_non_finite(loss_fn, params, batch, wrt)
    return "" if found is None else f"sample {found.indices[0]} of {num_rows(batch)} {found}"


@partial(jax.jit, static_argnames="selection")
def _finite(loss, params, chunk, selection):
    """Whether the loss, and the gradient in each leaf, are finite: (n, 1 + leaves)."""
    coordinates, others = selection.split(params)

    def one(example):
        value, gradient = jax.value_and_grad(lambda c: loss(selection.merge(c, others), example))(coordinates)
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in (value, *gradient)])

    return jax.vmap(one)(chunk)
