"""What samples outside the training set say: losses, unbiased gradient norms, and whether the last step helped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree
from scipy import special

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.halving import halving
from lggwjax.gradients.products import inner_products
from lggwjax.gradients.selection import Selection, batch_size
from lggwjax.sharding import mesh_of, num_shares, place_whole, to_host
from lggwjax.training.rows import Rows, num_rows, take_each

NUM_BLOCKS = 16  # blocks of held-out samples behind each U-statistic
LARGEST_BLOCK = 256  # samples differentiated at once
MOST_BLOCKS = 64  # gradients kept, whatever the number of samples


class Pass(NamedTuple):
    """One pass over a data set at fixed parameters.

    Attributes:
        gradients: Mean gradient of each block. Shape (M, p).
        sizes: Samples in each block. Shape (M,).
        loss: Mean loss per sample.
        accuracy: Share of samples whose largest output is their label, or None without labels.
    """

    gradients: Float[Array, "M p"]
    sizes: np.ndarray
    loss: float
    accuracy: float | None

    @property
    def gradient(self) -> Float[Array, " p"]:
        """Gradient of the mean loss."""
        weights = jnp.asarray(self.sizes / self.sizes.sum(), self.gradients.dtype)
        return jnp.einsum("m,mp->p", weights, self.gradients, precision=jax.lax.Precision.HIGHEST)


class Scalar(NamedTuple):
    """A number with its standard error and its interval, of 95% unless asked for otherwise."""

    value: float
    stderr: float
    low: float
    high: float


def pass_over(
    loss: Partial,
    predict: Callable | None,
    params: PyTree,
    data: PyTree | Rows,
    selection: Selection,
    num_blocks: int | None = None,
) -> Pass:
    """Loss, accuracy and block gradients of a data set in one pass.

    Args:
        loss: From :func:`lggwjax.gradients.selection.as_partial`.
        predict: ``predict(params, example) -> (k,)`` scores, for the accuracy against ``example["y"]``; or None.
        params: Parameters.
        data: n examples along the leading axis, or samples that are read when they are asked for, 256 at a time.
        selection: Gradient coordinates.
        num_blocks: Independent blocks asked for (the last samples make the blocks unequal by one at most), or None for
            blocks of 256, and 64 larger ones where there are more.

    Returns:
        The pass; every sample counts once.
    """
    num = num_rows(data)
    num_blocks = min(-(-num // LARGEST_BLOCK), MOST_BLOCKS) if num_blocks is None else min(num_blocks, num)
    bounds = np.linspace(0, num, num_blocks + 1).astype(int)
    width = int(np.diff(bounds).max())
    scores = None if predict is None else Partial(predict)
    gradients, totals = halving(
        lambda size: _pass(loss, scores, params, data, selection, bounds, size),
        -(-width // -(-width // LARGEST_BLOCK)),
    )
    accuracy = None if predict is None else float(totals[1] / num)
    return Pass(gradients, np.diff(bounds), float(totals[0] / num), accuracy)


def _pass(loss, predict, params, data, selection, bounds, size) -> tuple[Float[Array, "M p"], np.ndarray]:
    """Mean gradient of each block, and the sums of loss and hits, ``size`` samples at once."""
    mesh, last = mesh_of(params, None if isinstance(data, Rows) else data), bounds[-1] - 1
    # A block is cut into parts of one shape, the last one filled up with samples of weight 0.
    offsets = np.arange(-(-size // num_shares(mesh)) * num_shares(mesh))
    pieces = [
        (i, first + offsets)
        for i, (start, stop) in enumerate(pairwise(bounds))
        for first in range(start, stop, len(offsets))
    ]
    params, gradients, totals = place_whole(params, mesh), [], np.zeros(2)
    parts = take_each(data, [np.minimum(index, last) for _, index in pieces], mesh)
    for (i, index), part in zip(pieces, parts, strict=True):
        weights = (index < bounds[i + 1]).astype(np.float32)
        gradient, sums = _block_sums(loss, predict, params, part, weights, selection)
        if i == len(gradients):
            gradients.append(gradient)
        else:
            gradients[i] += gradient
        totals += np.asarray(sums, np.float64)
    sizes = map(int, np.diff(bounds))
    return jnp.stack([gradient / num for gradient, num in zip(gradients, sizes, strict=True)]), totals


@partial(jax.jit, static_argnames="selection")
def _block_sums(loss, predict, params, block, weights, selection):
    coordinates, others = selection.split(params)

    def total(coordinates):
        losses = jax.vmap(loss, in_axes=(None, 0))(selection.merge(coordinates, others), block)
        return jnp.sum(losses * weights)

    value, gradient = jax.value_and_grad(total)(coordinates)
    flat = jnp.concatenate([leaf.reshape(-1).astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in gradient])
    correct = jnp.zeros(())
    if predict is not None:
        scores = jax.vmap(predict, in_axes=(None, 0))(params, block)
        correct = jnp.sum((scores.argmax(-1) == block["y"]) * weights)
    return flat, jnp.stack([value.astype(jnp.float32), correct.astype(jnp.float32)])


def gradient_norm(gradients: Float[Array, "M p"], level: float = 0.95) -> Scalar:
    r"""Norm of the population gradient from independent block gradients, without the upward bias of a noisy average.

    .. math:: \frac{1}{M(M-1)} \sum_{a \ne b} \langle g_a, g_b \rangle

    is unbiased for the squared norm and may be negative; the norm is the root of its positive part, and the interval is
    the interval's root. Standard error by jackknife over the blocks.

    Args:
        gradients: Mean gradients of M >= 3 independent blocks; for a deviation, differences from one fixed gradient.
        level: Coverage of the interval.

    Returns:
        The norm, in loss per unit of parameter, never NaN for finite input.

    Raises:
        ValueError: If there are fewer than three blocks.

    Example:
        >>> import jax.numpy as jnp
        >>> gradient_norm(jnp.ones((8, 4))).value
        2.0

    References:
        lggwjax/theory/README.md, section 5; theory of U-statistics: Hoeffding (1948).
    """
    num = gradients.shape[0]
    if num < 3:
        raise ValueError(f"Expected at least 3 held-out blocks, got {num}. Hold out more samples.")
    gram = np.array(inner_products(gradients, gradients), np.float64)
    np.fill_diagonal(gram, 0.0)
    with np.errstate(all="ignore"):  # the caller refuses what is not finite
        total, rows = gram.sum(), gram.sum(1)
        square = total / (num * (num - 1))
        without = (total - 2 * rows) / ((num - 1) * (num - 2))
        stderr = np.sqrt((num - 1) / num * np.sum((without - without.mean()) ** 2))
    quantile = special.stdtrit(num - 1, 0.5 + level / 2)
    # np.maximum and not max: a gradient that is NaN must not end as the norm 0.
    low, value, high = (float(np.sqrt(np.maximum(0.0, square + side * quantile * stderr))) for side in (-1, 0, 1))
    return Scalar(value, (high - low) / (2 * quantile), low, high)


def population_descent(loss: Partial, before: PyTree, after: PyTree, data: PyTree, selection: Selection) -> Scalar:
    r"""How much of the step just taken still descends on unseen data.

    .. math:: a_t = \langle -(\theta_{t+1} - \theta_t), \nabla L_D(\theta_t) \rangle

    as a mean over held-out samples of one directional derivative each, so that an ordinary t interval is honest as long
    as these samples took no part in training. Positive: the step helps on unseen data, to first order; negative: it
    hurts.

    Args:
        loss: From :func:`lggwjax.gradients.selection.as_partial`.
        before: Parameters before the step.
        after: Parameters after it.
        data: m >= 2 held-out samples.
        selection: Gradient coordinates; other leaves are taken from ``before``.

    Returns:
        The descent, in loss.

    Raises:
        ValueError: If there are fewer than two held-out samples.
    """
    values = sample_descents(loss, before, after, data, selection)
    with np.errstate(all="ignore"):  # the caller refuses what is not finite
        mean = float(values.mean())
        stderr = float(values.std(ddof=1) / np.sqrt(len(values)))
    half = float(special.stdtrit(len(values) - 1, 0.975)) * stderr
    return Scalar(mean, stderr, mean - half, mean + half)


def sample_descents(
    loss: Partial, before: PyTree, after: PyTree, data: PyTree, selection: Selection
) -> Float[np.ndarray, " m"]:
    """Compute the terms of :func:`population_descent`, one a sample.

    Args:
        loss: As there.
        before: As there.
        after: As there.
        data: m >= 2 held-out samples.
        selection: As there.

    Returns:
        How much the step descends on each sample, in loss, to first order.

    Raises:
        ValueError: If there are fewer than two held-out samples.
    """
    num = batch_size(data)
    if num < 2:
        raise ValueError(f"Expected at least 2 held-out samples, got {num}. Hold out more samples.")

    mesh = mesh_of((before, after), data)
    points = place_whole((before, after), mesh)

    def measure(size: int) -> Float[np.ndarray, " m"]:
        parts = [
            to_host(_descents(loss, *points, chunk, selection))[:count].astype(np.float64)
            for _, count, chunk in iter_chunks(data, num, size, mesh)
        ]
        return np.concatenate(parts)

    return halving(measure, min(num, LARGEST_BLOCK))


@partial(jax.jit, static_argnames="selection")
def _descents(loss, before, after, chunk, selection):
    start, others = selection.split(before)
    stop, _ = selection.split(after)
    direction = jax.tree.map(lambda a, b: a - b, start, stop)

    def losses(coordinates):
        return jax.vmap(loss, in_axes=(None, 0))(selection.merge(coordinates, others), chunk)

    return jax.jvp(losses, (start,), (direction,))[1]


def all_finite(*trees: Any) -> bool:
    """Whether every floating leaf of the trees is finite."""
    leaves = [x for x in jax.tree.leaves(trees) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
