"""Sketches of per-sample gradients, from layer factors: a few numbers a sample that keep inner products on average."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lggwjax.gradients.engine import Problem
from lggwjax.gradients.forms import HIGHEST, Product

NUM_GROUPS = 8
"""Independent parts of every sketch, from which its error is told."""


def sketch_factors(
    problem: Problem, key: Key[Array, ""], arrays: list[Array], samples: Int[Array, " n"], size: int
) -> Float[Array, "n G d/G"]:
    r"""Sketch per-sample gradients, given by their factors.

    .. math:: Y_j = \sum_{b,s} \langle a_j, x_s \rangle \langle b_j, d_s \rangle, \qquad
        \mathbb{E} \langle Y_g, Y'_g \rangle = \langle \xi, \xi' \rangle \ \text{for each group } g

    with random signs a_j, b_j for a layer with factors; any other leaf is multiplied by random signs and folded. Each
    sample has signs of its own, regenerated from keys, so that in a mean over samples the errors average out; inner
    products between different samples are not kept.

    Guarantees:
        * Linear in the gradient: the difference of sketches is the sketch of the difference.
        * Depends on the key and the sample's number, not on chunks.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        key: Fixes the sketch.
        arrays: From :meth:`Problem.factors`; n samples.
        samples: The samples' numbers.
        size: d, a multiple of the number of groups.

    Returns:
        One sketch a group: each alone is unbiased for inner products.
    """
    width = size // NUM_GROUPS
    total = jnp.zeros((len(samples), NUM_GROUPS, width))
    own = []
    for leaf, item in enumerate(problem.engine.held):
        if item.product is None:
            own.append(arrays[item.places[0]])
        else:
            leaf_key = jax.random.fold_in(key, leaf)
            total = total + _sketch_leaf(item.product, leaf_key, item.operands(arrays), samples, width)
    if own:  # as one, which compiles once
        total = total + _sketch_rows(jax.random.fold_in(key, len(problem.engine.held)), own, samples, width)
    return total


@partial(jax.jit, static_argnames="width")
def _sketch_rows(key, rows: list[Float[Array, "n q"]], samples, width: int) -> Float[Array, "n G d/G"]:
    return _folded(key, jnp.concatenate(rows, axis=1), samples, width)


@partial(jax.jit, static_argnames=("product", "width"))
def _sketch_leaf(product: Product, key, operands, samples, width: int) -> Float[Array, "n G d/G"]:
    if product.is_lookup:
        blocks = product.gradients(operands)
        return _folded(key, blocks.reshape(blocks.shape[0], -1), samples, width)
    size = NUM_GROUPS * width
    left_key, right_key = jax.random.split(key)
    groups, _, _, _, outputs = product.dims
    columns = product.cotangents(operands)
    signs = _own_signs(jax.random.fold_in(right_key, 0), samples, (groups, 1, outputs))
    right = jax.random.rademacher(jax.random.fold_in(right_key, 1), (groups, outputs, size), columns.dtype)
    of_columns = jnp.einsum("nbso,boj->nbsj", columns * signs, right, precision=HIGHEST)
    of_rows = 0
    for offset, rows in enumerate(product.inputs(operands)):
        one_key, all_key = jax.random.split(jax.random.fold_in(left_key, offset))
        signs = _own_signs(one_key, samples, (groups, 1, rows.shape[-1]))
        left = jax.random.rademacher(all_key, (groups, rows.shape[-1], size), rows.dtype)
        of_rows = of_rows + jnp.einsum("nbsi,bij->nbsj", rows * signs, left, precision=HIGHEST)
    sketch = jnp.sum(of_rows * of_columns, axis=(1, 2))
    return sketch.reshape(-1, NUM_GROUPS, width) / jnp.sqrt(float(width))


def _own_signs(key, samples, shape) -> Float[Array, "n ..."]:
    keys = jax.vmap(lambda sample: jax.random.fold_in(key, sample))(samples)
    return jax.vmap(lambda k: jax.random.rademacher(k, shape, jnp.float32))(keys)


def _folded(key, rows: Float[Array, "n q"], samples, width: int) -> Float[Array, "n G d/G"]:
    """Signs, then every d/G-th entry added up. A sample's signs are those of all, moved round by a shift of its own."""
    size = rows.shape[1]
    padded = jnp.pad(rows, ((0, 0), (0, -size % width)))
    keys = jax.random.split(key, NUM_GROUPS + 1)
    moves = jax.vmap(lambda sample: jax.random.randint(jax.random.fold_in(keys[0], sample), (), 0, 2**30))(samples)

    def group(group_key):
        signs = jax.random.rademacher(group_key, (padded.shape[1],), rows.dtype)
        own = jax.vmap(lambda move: jnp.roll(signs, move))(moves)
        return (padded * own).reshape(len(samples), -1, width).sum(1)

    return jnp.stack([group(k) for k in keys[1:]], axis=1)
