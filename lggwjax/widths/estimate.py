"""Estimates with their error bars: what every measurement of this library returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import scipy  # loads its parts at their first use
from jax.core import Tracer
from jaxtyping import Array, Float, Int


class Interval(NamedTuple):
    """A confidence interval, both ends in the unit of the estimate."""

    low: Float[Array, "..."]
    high: Float[Array, "..."]


def _student_quantile(level: float, dof: Float[Array, "..."]) -> Float[Array, "..."]:
    """Two-sided Student t quantile; inside a trace its expansion, good to 1e-3 for dof >= 7 and level <= 0.99."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"Expected a confidence level between 0 and 1, got {level}. Pass for instance level=0.95.")
    tail = 0.5 + level / 2
    if not isinstance(dof, Tracer):
        return jnp.asarray(scipy.special.stdtrit(dof, tail), dtype=jnp.result_type(float))
    z = float(scipy.special.ndtri(tail))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + terms[0] / dof + terms[1] / dof**2 + terms[2] / dof**3 + terms[3] / dof**4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean and its standard error.

    Attributes:
        value: The mean over the draws.
        stderr: Its standard error. It speaks of the draws alone, not of which samples or checkpoints were looked at.
        num_draws: Directions or sign vectors that were drawn.
        num_replicates: Independent terms of the mean: the draws, or the scrambles of a quasi-random sampler.
        rounding: Half-width that rounding may add; part of every interval.
    """

    value: Float[Array, "..."]
    stderr: Float[Array, "..."]
    num_draws: Int[Array, ""]
    num_replicates: Int[Array, ""]
    rounding: Float[Array, "..."]

    def interval(self, level: float = 0.95) -> Interval:
        """Return the asymptotic interval: Student t over the replicates, widened by the rounding allowance.

        Args:
            level: Coverage asked for, between 0 and 1.

        Returns:
            Both ends, in the unit of the estimate.

        Raises:
            ValueError: If ``level`` is not between 0 and 1.

        Example:
            >>> import jax
            >>> import lggwjax
            >>> estimate = lggwjax.gaussian_width(jax.random.key(0), jax.numpy.eye(3))
            >>> low, high = estimate.interval(0.999)
            >>> bool(low < 0.846284 < high)
            True
        """
        half = _student_quantile(level, self.num_replicates - 1.0) * self.stderr + self.rounding
        return Interval(self.value - half, self.value + half)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WidthEstimate(Estimate):
    """An estimate of a Gaussian width.

    Attributes:
        diameter: Largest distance between two points of the set; for the mean of several widths, the mean diameter.
        counts: How often each point attained the maximum or the minimum; two per draw. Shape (N,).
        diameter_is_exact: False where ``diameter`` is an upper bound (sets that are streamed).
    """

    diameter: Float[Array, "..."]
    counts: Int[Array, "... N"]
    diameter_is_exact: Float[Array, ""]

    def guaranteed_interval(self, level: float = 0.95) -> Interval:
        r"""Return the interval that holds at any number of draws fixed beforehand.

        .. math:: |\bar h_K - w| \le \tfrac{\mathrm{diam}}{2} \sqrt{2 \ln(2/\delta) / K}, \quad \delta = 1 - level

        A half-range is (diam/2)-Lipschitz in the Gaussian direction, so its mean over K draws is sub-Gaussian.

        Args:
            level: Coverage guaranteed, between 0 and 1.

        Returns:
            Both ends, in the unit of the estimate.

        Raises:
            ValueError: If ``level`` is not between 0 and 1.

        Example:
            >>> import jax
            >>> import lggwjax
            >>> estimate = lggwjax.gaussian_width(jax.random.key(0), jax.numpy.eye(3))
            >>> low, high = estimate.guaranteed_interval(0.95)
            >>> bool(low < 0.846284 < high)
            True
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"Expected a confidence level between 0 and 1, got {level}. Pass for instance level=0.95.")
        deviation = jnp.sqrt(2 * jnp.log(2 / (1 - level)) / self.num_replicates)
        half = self.diameter / 2 * deviation + self.rounding
        return Interval(self.value - half, self.value + half)

    @property
    def effective_dimension(self) -> Float[Array, "..."]:
        """(width / diameter)^2: a quarter of the dimension of a ball, about ln N for N far points; 0 for one."""
        return jnp.where(self.diameter > 0, self.value / jnp.where(self.diameter > 0, self.diameter, 1), 0.0) ** 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Running count, mean and sum of squared deviations of terms that arrive in blocks (Chan's update)."""

    count: Float[Array, ""]
    mean: Float[Array, "..."]
    squares: Float[Array, "..."]

    @classmethod
    def empty(cls, shape: tuple[int, ...] = (), dtype: jnp.dtype | None = None) -> Moments:
        """Moments of nothing."""
        return cls(jnp.zeros((), dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def add(self, terms: Float[Array, "b ..."], keep: Float[Array, " b"]) -> Moments:
        """Add the terms whose ``keep`` is 1; those whose ``keep`` is 0 are not counted."""
        weights = keep.reshape(keep.shape + (1,) * (terms.ndim - 1))
        num = keep.sum()
        total = self.count + num
        mean = jnp.sum(weights * terms, 0) / jnp.maximum(num, 1)
        shift = mean - self.mean
        squares = jnp.sum(weights * (terms - mean) ** 2, 0) + shift**2 * self.count * num / jnp.maximum(total, 1)
        return Moments(total, self.mean + shift * num / jnp.maximum(total, 1), self.squares + squares)

    @property
    def stderr(self) -> Float[Array, "..."]:
        """Standard error of the mean; infinite below two terms, where nothing is known of it."""
        enough = self.count > 1
        spread = jnp.sqrt(self.squares / jnp.where(enough, self.count - 1, 1) / jnp.where(enough, self.count, 1))
        return jnp.where(enough, spread, jnp.inf)
