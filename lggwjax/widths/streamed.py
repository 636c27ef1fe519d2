"""Gaussian width of sets too large for a Gram matrix: projections that arrive in a stream, extremes kept on the fly."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lggwjax.widths.estimate import Moments, WidthEstimate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RunningExtremes:
    """What K directions have seen so far: O(K) memory, whatever the number and the dimension of the points.

    Attributes:
        highest: Largest projection on each direction. Shape (K,).
        lowest: Smallest projection. Shape (K,).
        highest_index: Which point, counted in order of arrival, attained it. Shape (K,).
        lowest_index: Likewise for the smallest. Shape (K,).
        radius: Largest distance of a point from the reference point, which is all that is known of the diameter.
        num_points: Points seen.
    """

    highest: Float[Array, " K"]
    lowest: Float[Array, " K"]
    highest_index: Int[Array, " K"]
    lowest_index: Int[Array, " K"]
    radius: Float[Array, ""]
    num_points: Int[Array, ""]

    @classmethod
    def empty(cls, num_draws: int, dtype: jnp.dtype | type = jnp.float32) -> RunningExtremes:
        """Extremes of nothing seen yet, for ``num_draws`` directions."""
        infinite = jnp.full(num_draws, jnp.inf, dtype)
        none = jnp.full(num_draws, -1, jnp.int32)
        return cls(-infinite, infinite, none, none, jnp.zeros((), dtype), jnp.zeros((), jnp.int32))


@jax.jit
def update_extremes(
    extremes: RunningExtremes, projections: Float[Array, "n K"], distances: Float[Array, " n"]
) -> RunningExtremes:
    """Take n more points into account.

    Args:
        extremes: What was seen before.
        projections: <g_k, a_i - reference> for the new points, by the same directions in the same order.
        distances: |a_i - reference|, in the unit of the points.

    Returns:
        Extremes of all points seen. A projection that is NaN makes the direction NaN for good.
    """
    first = extremes.num_points
    above = projections.max(0) > extremes.highest
    below = projections.min(0) < extremes.lowest
    return RunningExtremes(
        highest=jnp.maximum(extremes.highest, projections.max(0)),  # NaN stays NaN, whatever comes after it
        lowest=jnp.minimum(extremes.lowest, projections.min(0)),
        highest_index=jnp.where(above, first + projections.argmax(0).astype(jnp.int32), extremes.highest_index),
        lowest_index=jnp.where(below, first + projections.argmin(0).astype(jnp.int32), extremes.lowest_index),
        radius=jnp.maximum(extremes.radius, distances.max()),
        num_points=first + projections.shape[0],
    )


def width_from_extremes(extremes: RunningExtremes, *, max_points: int) -> WidthEstimate:
    """Turn running extremes into a width.

    The diameter is only known to be at most twice the largest distance from the reference point; the guaranteed
    interval uses that bound, and ``diameter_is_exact`` says so. No radial factor: the directions' lengths are not kept.

    Args:
        extremes: From :func:`update_extremes`, at least one point.
        max_points: Length of ``counts``: the number of points, or more.

    Returns:
        The estimate, in the unit of the points.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> points, directions = jnp.eye(10), jax.random.normal(jax.random.key(0), (4096, 10))
        >>> seen = update_extremes(RunningExtremes.empty(4096), points @ directions.T, jnp.ones(10))
        >>> width = width_from_extremes(seen, max_points=10)
        >>> bool(abs(width.value - 1.538753) < 4 * width.stderr)
        True
    """
    num_draws = extremes.highest.shape[0]
    half = (extremes.highest - extremes.lowest) / 2
    moments = Moments.empty(dtype=half.dtype).add(half, jnp.ones_like(half))
    counts = jnp.zeros(max_points, jnp.int32).at[extremes.highest_index].add(1).at[extremes.lowest_index].add(1)
    single = extremes.radius == 0
    drawn = jnp.asarray(num_draws, jnp.int32)
    return WidthEstimate(
        value=jnp.where(single, 0, moments.mean),
        stderr=jnp.where(single, 0, moments.stderr),
        num_draws=drawn,
        num_replicates=drawn,
        rounding=32 * jnp.finfo(half.dtype).eps * extremes.radius,
        diameter=2 * extremes.radius,
        counts=counts,
        diameter_is_exact=jnp.asarray(False),
    )
