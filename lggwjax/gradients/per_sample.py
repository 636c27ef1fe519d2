"""Per-sample gradients: ``jax.vmap(jax.grad)`` in chunks of one shape."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import PyTree

from lggwjax.gradients.chunks import checked_chunk
from lggwjax.gradients.engine import Problem, pose
from lggwjax.gradients.halving import halving
from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.sharding import place_whole

CHUNK_BYTES = 2**29  # gradients computed at once when the caller does not choose


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
    problem = pose(loss_fn, params, batch, wrt, self_check=False)
    held = sum(layer.size for layer in problem.engine.layers) * problem.engine.itemsize
    chunk_size = checked_chunk(chunk_size, problem.num_samples, max(1, CHUNK_BYTES // max(held, 1)))
    return halving(lambda size: _in_chunks(problem, params, batch, size), chunk_size)


def _in_chunks(problem: Problem, params: PyTree, batch: PyTree, chunk_size: int) -> PyTree:
    params = place_whole(params, problem.mesh)
    chunks = [
        [leaf[:count] for leaf in problem.engine.gradients(problem.loss, params, chunk)]
        for _, count, chunk in problem.chunks(batch, chunk_size)
    ]
    leaves = chunks[0] if len(chunks) == 1 else [jnp.concatenate(leaves) for leaves in zip(*chunks, strict=True)]
    return problem.selection.tree(leaves)
