"""Gaussian directions of parameter space, regenerated from keys, leaf by leaf."""

from __future__ import annotations

import jax
from jaxtyping import Array, DTypeLike, Float, Int, Key


def directions_of_leaf(
    key: Key[Array, ""], draws: Int[Array, " D"], leaf: int | Int[Array, ""], shape: tuple[int, ...], dtype: DTypeLike
) -> Float[Array, "D ..."]:
    """Gaussian directions of one leaf: direction k of leaf l is drawn from ``fold_in(fold_in(key, k), l)``.

    It depends neither on how samples and directions are cut into chunks nor on how it is multiplied.

    Args:
        key: Fixes all directions.
        draws: Which of them.
        leaf: Which leaf, counted among the gradient coordinates.
        shape: Of the leaf.
        dtype: Of the result.

    Returns:
        Standard normals, one direction after the other.
    """
    keys = jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(key, k), leaf))(draws)
    return jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys)
