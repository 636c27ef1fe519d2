"""Gaussian width of a set known by sketches of its points: constant memory, and a sketch's error beside the draws'."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lggwjax.widths.estimate import Estimate, Interval, Moments

DRAWS_AT_ONCE = 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SketchedExtremes:
    """What K directions of sketch space have seen, with each group of the sketch left out in turn: O(K) memory.

    Attributes:
        highest: Largest projection on each direction, by all groups and by all but one. Shape (G + 1, K).
        lowest: Smallest projection.
    """

    highest: Float[Array, "G+1 K"]
    lowest: Float[Array, "G+1 K"]

    @classmethod
    def empty(cls, num_groups: int, num_draws: int) -> SketchedExtremes:
        """Extremes of nothing seen yet."""
        infinite = jnp.full((num_groups + 1, num_draws), jnp.inf, jnp.result_type(float))  # else weakly typed
        return cls(-infinite, infinite)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SketchedWidth(Estimate):
    """A width told from sketches: ``stderr`` is the draws' error alone, and the sketch has its own.

    Attributes:
        value: The estimate by the whole sketch. A sketch that is unbiased for inner products is not for a supremum: it
            is low by about 1/d, far below its standard error. (Correcting it by the jackknife made the error half as
            large again.)
        sketch_stderr: Standard error of the sketch, by leaving out one of its G groups at a time.
        num_replicates: G, the groups.
    """

    sketch_stderr: Float[Array, ""]

    def interval(self, level: float = 0.95) -> Interval:
        """Return the asymptotic interval over both errors: Student t with the G - 1 degrees of freedom of the sketch's.

        Args:
            level: Coverage asked for, between 0 and 1.

        Returns:
            Both ends, in the unit of the estimate.
        """
        return replace(self, stderr=jnp.hypot(self.stderr, self.sketch_stderr)).draws_interval(level)

    def draws_interval(self, level: float = 0.95) -> Interval:
        """Return the interval over ``stderr`` alone, for this sketch."""
        return Estimate.interval(self, level)


@jax.jit
def update_sketched(extremes: SketchedExtremes, key: Key[Array, ""], point: Float[Array, "G m"]) -> SketchedExtremes:
    """Take one more point into account.

    Args:
        extremes: What was seen before.
        key: Fixes the directions, the same for every point.
        point: A sketch of the point, in G independent parts; each alone keeps inner products on average.

    Returns:
        Extremes of all points seen.
    """
    num_groups, num_draws = point.shape[0], extremes.highest.shape[1]

    def block(index):
        shape = (DRAWS_AT_ONCE, *point.shape)
        normals = jax.random.normal(jax.random.fold_in(key, index), shape, point.dtype)
        return jnp.einsum("kgm,gm->gk", normals, point, precision=jax.lax.Precision.HIGHEST)

    blocks = jax.lax.map(block, jnp.arange(-(-num_draws // DRAWS_AT_ONCE)))
    parts = jnp.moveaxis(blocks, 0, 1).reshape(num_groups, -1)[:, :num_draws]
    whole = parts.sum(0)
    without = (whole[None] - parts) / jnp.sqrt(num_groups - 1.0)
    projections = jnp.concatenate([whole[None] / jnp.sqrt(float(num_groups)), without])
    return SketchedExtremes(jnp.maximum(extremes.highest, projections), jnp.minimum(extremes.lowest, projections))


@jax.jit
def width_from_sketched(extremes: SketchedExtremes) -> SketchedWidth:
    """Turn extremes into a width.

    Args:
        extremes: From :func:`update_sketched`, at least one point.

    Returns:
        The estimate, in the unit of the points.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> seen = SketchedExtremes.empty(8, 512)
        >>> for point in (jnp.zeros((8, 4)), jnp.ones((8, 4))):
        ...     seen = update_sketched(seen, jax.random.key(0), point)
        >>> width = width_from_sketched(seen)  # each part has norm 2: two points 2 apart
        >>> bool(abs(width.value - 2 / jnp.sqrt(2 * jnp.pi)) < 4 * jnp.hypot(width.stderr, width.sketch_stderr))
        True
    """
    half = (extremes.highest - extremes.lowest) / 2
    values = half.mean(1)
    groups = values.shape[0] - 1
    moments = Moments.empty(dtype=half.dtype).add(half[0], jnp.ones_like(half[0]))
    left_out = values[1:]
    jackknife = (groups - 1) / groups * jnp.sum((left_out - left_out.mean()) ** 2)
    # With a group its directions' coordinates are left out too: the jackknife holds the draws' variance as well.
    sketch = jnp.sqrt(jnp.maximum(jackknife - moments.stderr**2, 0))
    return SketchedWidth(
        value=values[0],
        stderr=moments.stderr,
        num_draws=jnp.asarray(half.shape[1], jnp.int32),
        num_replicates=jnp.asarray(groups, jnp.int32),
        rounding=32 * jnp.finfo(half.dtype).eps * jnp.abs(half[0]).max(),
        sketch_stderr=sketch,
    )
