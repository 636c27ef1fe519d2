"""Gaussian directions of parameter space, regenerated from keys: jitted random projections."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int, Key

DRAWS_PER_TILE = 64
COORDINATES_PER_TILE = 16_384  # a tile of normals is 4 MiB in float32, whatever p and K are


@partial(jax.jit, static_argnames="num_draws")
def random_projections(key: Key[Array, ""], points: Float[Array, "n p"], *, num_draws: int) -> Float[Array, "n K"]:
    r"""Inner products of points with K Gaussian directions that are never stored.

    .. math:: s_{ik} = \langle a_i, g_k \rangle, \quad g_k \sim N(0, I_p)

    Guarantees:
        * Direction k depends on ``key`` and k alone: not on n, on K, or on how the points are cut into chunks.
        * Memory beyond points and result: one tile of 64 x 16,384 normals.

    Args:
        key: One PRNG key; the same key gives the same directions, so that a set may arrive in several calls.
        points: One point a row.
        num_draws: K, at least 1.

    Returns:
        The inner products, not scaled by 1/sqrt(K).

    Raises:
        ValueError: If ``num_draws < 1`` or ``points`` is not a matrix.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> points = jnp.eye(3)
        >>> few, many = (random_projections(jax.random.key(0), points, num_draws=k) for k in (5, 100))
        >>> bool((few == many[:, :5]).all())
        True
    """
    if points.ndim != 2 or num_draws < 1:
        raise ValueError(f"Expected points of shape (n, p) and num_draws >= 1, got {points.shape} and {num_draws}.")
    num_points, dim = points.shape
    num_tiles = -(-dim // COORDINATES_PER_TILE)
    width = min(dim, COORDINATES_PER_TILE)
    padded = jnp.pad(points, ((0, 0), (0, num_tiles * width - dim))) if num_tiles > 1 else points

    def block(draw_block):
        block_key = jax.random.fold_in(key, draw_block)

        def add_tile(tile, total):
            normals = jax.random.normal(jax.random.fold_in(block_key, tile), (DRAWS_PER_TILE, width), points.dtype)
            piece = jax.lax.dynamic_slice_in_dim(padded, tile * width, width, axis=1)
            return total + jnp.einsum("np,kp->nk", piece, normals, precision=jax.lax.Precision.HIGHEST)

        return jax.lax.fori_loop(0, num_tiles, add_tile, jnp.zeros((num_points, DRAWS_PER_TILE), points.dtype))

    blocks = jax.lax.map(block, jnp.arange(-(-num_draws // DRAWS_PER_TILE)))
    return jnp.moveaxis(blocks, 0, 1).reshape(num_points, -1)[:, :num_draws]


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
