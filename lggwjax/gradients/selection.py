"""Which leaves of the parameters are gradient coordinates, and one callable form for every loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

LossFn = Callable[[Any, Any], Array]
Wrt = PyTree[bool] | Callable[[tuple, Any], bool] | None


class Selection(NamedTuple):
    """A pytree of parameters split into gradient coordinates and the rest. Hashable, for ``jax.jit``.

    Attributes:
        treedef: Structure of the whole.
        chosen: One flag a leaf, in flattening order: is it a gradient coordinate?
    """

    treedef: Any
    chosen: tuple[bool, ...]

    def split(self, params: PyTree) -> tuple[list[Array], list[Any]]:
        """Return the coordinates and the other leaves."""
        leaves = self.treedef.flatten_up_to(params)
        return (
            [leaf for leaf, chosen in zip(leaves, self.chosen, strict=True) if chosen],
            [leaf for leaf, chosen in zip(leaves, self.chosen, strict=True) if not chosen],
        )

    def merge(self, coordinates: list[Any], others: list[Any]) -> PyTree:
        """Undo :meth:`split`."""
        first, second = iter(coordinates), iter(others)
        return self.treedef.unflatten([next(first) if chosen else next(second) for chosen in self.chosen])

    def tree(self, coordinates: list[Any]) -> PyTree:
        """Lay the coordinates out as the parameters are, with ``None`` in place of the other leaves."""
        return self.merge(coordinates, [None] * (len(self.chosen) - sum(self.chosen)))


def select(params: PyTree, wrt: Wrt = None) -> Selection:
    """Choose the gradient coordinates.

    Args:
        params: Any pytree.
        wrt: A pytree of booleans of the structure of ``params``, or a predicate on (key path, leaf); by default every
            floating leaf.

    Returns:
        The selection.

    Raises:
        ValueError: If nothing is chosen, the mask has another structure, or a chosen leaf is not floating.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    if wrt is None:
        chosen = tuple(_is_floating(leaf) for _, leaf in paths)
    elif callable(wrt) and (jax.tree_util.treedef_is_leaf(treedef) or jax.tree.structure(wrt) != treedef):
        # A mask may be callable itself: that of an equinox module is one.
        chosen = tuple(bool(wrt(path, leaf)) for path, leaf in paths)
    else:
        if jax.tree.structure(wrt) != treedef:
            raise ValueError(
                f"Expected wrt of the structure of params, got {jax.tree.structure(wrt)} against {treedef}. "
                "Pass a pytree of booleans like params, or a predicate on (path, leaf)."
            )
        chosen = tuple(bool(flag) for flag in jax.tree.leaves(wrt))
    for (path, leaf), flag in zip(paths, chosen, strict=True):
        if flag and not _is_floating(leaf):
            name = jax.tree_util.keystr(path)
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(f"Expected floating gradient coordinates, got {kind} at params{name}. Exclude it by wrt=.")
    if not any(chosen):
        raise ValueError("Expected at least one floating leaf of params, got none. Check params and wrt=.")
    return Selection(treedef, chosen)


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating) if hasattr(leaf, "dtype") else isinstance(leaf, float)


@dataclass(frozen=True)
class _Rebuild:
    """A callable pytree (an equinox module, say) with its arrays taken out; equal when all that is left is equal."""

    treedef: Any
    others: tuple[Any, ...]

    def __call__(self, arrays: list[Any], params: PyTree, example: PyTree) -> Array:
        rest = iter(self.others)
        leaves = [next(rest) if leaf is None else leaf for leaf in arrays]
        return self.treedef.unflatten(leaves)(params, example)


def as_partial(loss_fn: LossFn) -> Partial:
    """Give a loss the one form that jitted functions here take as argument.

    A plain function becomes a ``Partial`` without arguments, compared by identity: the same object compiles once. A
    ``Partial`` or a callable pytree keeps its arrays as traced arguments, so new values neither recompile nor go stale.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.

    Returns:
        A pytree that can be called like ``loss_fn``.

    Raises:
        ValueError: If ``loss_fn`` cannot be called.
    """
    if isinstance(loss_fn, Partial):
        return loss_fn
    if not callable(loss_fn):
        raise ValueError(f"Expected a callable loss_fn(params, example), got {type(loss_fn).__name__}.")
    leaves, treedef = jax.tree.flatten(loss_fn)
    if jax.tree_util.treedef_is_leaf(treedef):
        return Partial(loss_fn)
    arrays = [leaf if isinstance(leaf, jax.Array) or hasattr(leaf, "__array__") else None for leaf in leaves]
    return Partial(_Rebuild(treedef, tuple(x for x, a in zip(leaves, arrays, strict=True) if a is None)), arrays)


def batch_size(batch: PyTree) -> int:
    """Number of examples in a batch: the leading axis that all leaves share.

    Args:
        batch: A pytree of arrays.

    Returns:
        n, at least 1.

    Raises:
        ValueError: If there is no leaf, a scalar leaf, an empty batch, or leading axes that differ.
    """
    sizes = {
        jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]
    }
    if not sizes or any(len(shape) == 0 for shape in sizes.values()):
        raise ValueError(f"Expected a batch of arrays with a leading axis of examples, got shapes {sizes}.")
    lengths = {shape[0] for shape in sizes.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Expected one common leading axis of at least one example, got shapes {sizes}.")
    return lengths.pop()


def check_loss(loss_fn: Partial, params: PyTree, batch: PyTree) -> None:
    """Trace the loss for one example and refuse what is not one real floating scalar.

    Args:
        loss_fn: From :func:`as_partial`.
        params: Its first argument.
        batch: Examples; the first is traced, none is computed.

    Raises:
        ValueError: If the loss is not a floating scalar; the message says what came out.
    """
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), batch)
    out = jax.eval_shape(loss_fn, params, example)
    if not hasattr(out, "shape") or out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
        got = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", out)
        raise ValueError(
            "Expected loss_fn(params, example) to return one floating scalar for one example without batch axis, "
            f"got {got}. "
            "If it returns an array, take the sum over its outputs; if it needs a batch axis, add one inside: x[None]."
        )
