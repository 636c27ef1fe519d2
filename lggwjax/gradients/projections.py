"""Projections of per-sample gradients on Gaussian directions of parameter space, the same ones by every route."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.costs import needs_contraction
from lggwjax.gradients.directions import directions_of_leaf
from lggwjax.gradients.engine import Held, Problem, pose
from lggwjax.gradients.forms import HIGHEST, Operands, Product, working
from lggwjax.gradients.halving import halving
from lggwjax.gradients.layout import stream_layout
from lggwjax.gradients.products import pair_products
from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.sharding import DIRECTIONS, for_directions, gathered, num_shares

NORMALS_AT_ONCE = 2**18  # small enough for the cache: a tile is multiplied before it leaves it


def random_projections(
    key: Key[Array, ""],
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    num_draws: int,
    wrt: Wrt = None,
    chunk_size: int | None = None,
    max_memory: int | None = None,
    self_check: bool = True,
) -> Float[Array, "n K"]:
    r"""Inner products of per-sample gradients with K Gaussian directions of parameter space that are never stored.

    .. math:: s_{ik} = \langle \xi_i, g_k \rangle, \quad g_k \sim N(0, I_p)

    Guarantees (up to rounding):
        * Direction k depends on ``key``, k and the shapes of the leaves alone: not on the samples, on K or on chunks.
        * No p x K block is formed, and no n x p block where layers have factors.

    Args:
        key: One PRNG key; the same key gives the same directions, so that samples may arrive in several calls.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        params: Any pytree.
        batch: n examples along the leading axis.
        num_draws: K, at least 1.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Examples at once; by default what fits ``max_memory``. Directions are drawn again for each chunk.
        max_memory: Bytes that may be used on top of what is there.
        self_check: See :func:`lggwjax.gradient_gram`.

    Returns:
        The inner products, in loss per unit of parameter; not scaled by 1/sqrt(K).

    Raises:
        ValueError: If ``num_draws < 1``, or as :func:`lggwjax.per_sample_gradients`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x): return w @ x
        >>> key, points = jax.random.key(0), jnp.eye(3)
        >>> few, many = (random_projections(key, loss, jnp.ones(3), points, num_draws=k) for k in (5, 9))
        >>> bool((few == many[:, :5]).all())
        True
    """
    if num_draws < 1:
        raise ValueError(f"Expected num_draws >= 1, got {num_draws}.")
    problem = pose(loss_fn, params, batch, wrt, self_check=self_check)
    problem = problem._replace(mesh=for_directions(problem.mesh, problem.num_samples))
    mesh, shares = problem.mesh, num_shares(problem.mesh)
    layout = stream_layout(problem.engine, problem.num_samples, 1, num_draws, chunk_size, max_memory, shares)
    if not problem.engine.held:
        return jnp.zeros((problem.num_samples, num_draws))  # the loss does not depend on its parameters

    def measure(size: int) -> Float[Array, "n K"]:
        parts = []
        for _, count, chunk in problem.chunks(batch, size):
            if layout.route == "jvp":
                found = project_by_jvp(problem, key, params, chunk, num_draws)
            else:
                found = project_factors(problem, key, problem.factors(params, chunk), num_draws)
            parts.append(gathered(found, mesh, count))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    return halving(measure, layout.chunk_size)


def project_factors(problem: Problem, key: Key[Array, ""], arrays: list[Array], num_draws: int) -> Float[Array, "n K"]:
    """Inner products of gradients, given by their factors, with K directions.

    A dense layer's factors are contracted with the direction and no gradient is formed; a layer with positions is
    contracted to its own gradients first, one layer at a time.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        key: Fixes the directions.
        arrays: From :meth:`Problem.factors`; n samples.
        num_draws: K.

    Returns:
        The projections, not scaled by 1/sqrt(K).
    """
    total = jnp.zeros((arrays[0].shape[0], num_draws))
    mesh = problem.mesh if problem.mesh is not None and DIRECTIONS in problem.mesh.axis_names else None
    for index, (item, shape) in enumerate(problem.engine.held_leaves()):
        operands = item.operands(arrays) if item.product is not None else arrays[item.places[0]]
        tile = max(1, min(64, num_draws, NORMALS_AT_ONCE // max(item.size, 1)))
        total = total + _project_leaf(item, shape, key, index, operands, num_draws, tile, mesh)
    return total


@partial(jax.jit, static_argnames=("item", "shape", "num_draws", "tile", "mesh"))
def _project_leaf(
    item: Held, shape, key, leaf, operands, num_draws: int, tile: int, mesh: Mesh | None
) -> Float[Array, "n K"]:
    product_with = _contraction(item, operands)
    share = 1 if mesh is None else mesh.shape[DIRECTIONS]
    tile = -(-tile // share) * share  # each device draws its own directions, the same ones as a single device would

    def one_tile(start):
        draws = start * tile + jnp.arange(tile)
        if mesh is not None and share > 1:
            draws = jax.lax.with_sharding_constraint(draws, NamedSharding(mesh, PartitionSpec(DIRECTIONS)))
        return product_with(directions_of_leaf(key, draws, leaf, shape, jnp.float32))

    tiles = jax.lax.map(one_tile, jnp.arange(-(-num_draws // tile)))
    return tiles.reshape(-1, tiles.shape[-1])[:num_draws].T


def _contraction(item: Held, operands) -> Callable[[Float[Array, "D ..."]], Float[Array, "D n"]]:
    """Inner products of one leaf's gradients with directions of its shape; what serves all directions is made once."""
    product = item.product
    if product is not None and not needs_contraction(product):
        return lambda directions: _along(product, operands, product.from_leaf(directions))
    if product is None:
        rows = operands
    else:
        blocks = product.gradients(operands)
        rows = product.to_leaf(blocks).reshape(blocks.shape[0], item.size)

    def product_with(directions: Float[Array, "D ..."]) -> Float[Array, "D n"]:
        flat = directions.reshape(-1, item.size).astype(rows.dtype)
        return jnp.einsum("np,dp->dn", rows, flat, precision=HIGHEST)

    return product_with


def leaf_products(problem: Problem, arrays: list[Array], direction: list[Array]) -> Float[Array, "n L"]:
    r"""Inner products of gradients, given by their factors, with one direction, leaf by leaf.

    .. math:: s_{il} = \langle \nabla_{\theta_l} \ell(\theta; z_i), v_l \rangle

    Guarantees (up to rounding):
        * The sum over leaves is the derivative of each sample's loss along the direction.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        arrays: From :meth:`Problem.factors`; n samples.
        direction: One array a gradient coordinate's leaf, in the order of ``problem.engine.layers``.

    Returns:
        The inner products, in loss; zero for a leaf that the loss does not depend on. No n x p block is formed where
        layers have factors.
    """
    used = iter(problem.engine.held_leaves())
    num = arrays[0].shape[0]
    columns = []
    for layer, along in zip(problem.engine.layers, direction, strict=True):
        if layer.unused:
            columns.append(jnp.zeros(num))
            continue
        item, _ = next(used)
        operands = item.operands(arrays) if item.product is not None else arrays[item.places[0]]
        columns.append(_leaf_product(item, operands, along))
    return jnp.stack(columns, axis=1)


@partial(jax.jit, static_argnames="item")
def _leaf_product(item: Held, operands, direction: Float[Array, "..."]) -> Float[Array, " n"]:
    return _contraction(item, operands)(working(direction)[None])[0]


def _along(product: Product, operands: list[Operands], directions: Float[Array, "D B K I O"]) -> Float[Array, "D n"]:
    """Factors contracted with directions: inputs first, then cotangents."""
    columns = product.cotangents(operands)
    if product.is_lookup:
        rows = product.inputs(operands)[0]
        picked = directions[:, 0, 0][:, jnp.maximum(rows, 0)] * (rows >= 0)[None, :, :, None]
        return jnp.einsum("dnso,nso->dn", picked, columns[:, 0], precision=HIGHEST)
    total = 0
    for offset, rows in enumerate(product.inputs(operands)):
        half = jnp.einsum("nbi,dbio->dnbo", rows[:, :, 0], directions[:, :, offset], precision=HIGHEST)
        total = total + jnp.einsum("dnbo,nbo->dn", half, columns[:, :, 0], precision=HIGHEST)
    return total  # pyright: ignore[reportReturnType]


def project_by_jvp(
    problem: Problem, key: Key[Array, ""], params: PyTree, chunk: PyTree, num_draws: int
) -> Float[Array, "n K"]:
    """The same projections by forward derivatives of the batched loss, one direction at a time.

    No backward pass and no factors: the least memory of all routes, and the least time for a handful of directions.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        key: Fixes the directions.
        params: Parameters.
        chunk: n samples.
        num_draws: K.

    Returns:
        The projections, not scaled by 1/sqrt(K).
    """
    # One call a direction: on a CPU, convolutions inside a loop of XLA can be ten times slower.
    columns = [problem.engine.derivative(problem.loss, params, chunk, key, k) for k in range(num_draws)]
    return jnp.stack(columns, axis=1)


def distances(held: tuple[Held, ...], arrays: list[Array], reference: list[Array]) -> Float[Array, " n"]:
    """Distances of gradients from one gradient, the subtraction before the square.

    Args:
        held: What the arrays are.
        arrays: Factors of n samples.
        reference: Factors of one sample.

    Returns:
        Distances, in the unit of the gradients.
    """
    return _distances(held, arrays, reference)


@partial(jax.jit, static_argnames="held")
def _distances(held: tuple[Held, ...], arrays: list[Array], reference: list[Array]) -> Float[Array, " n"]:
    repeated = [jnp.broadcast_to(one, many.shape) for one, many in zip(reference, arrays, strict=True)]
    return jnp.sqrt(jnp.maximum(pair_products(held, arrays, repeated, arrays, repeated), 0))
