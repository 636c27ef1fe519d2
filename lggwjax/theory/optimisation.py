"""Gradient descent that uses its samples again and again: what the deviation costs (section 6)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float

from lggwjax.theory.bound import Assumption, Bound, Source


def mean_gradient_bound(
    first_loss: float,
    last_loss: float,
    learning_rate: float,
    deviations: Float[Array, " T"],
    *,
    smoothness: float,
    num_samples: int,
    noise: float = 0.0,
    source: Source = "declared",
    assumptions: tuple[Assumption, ...] = (),
) -> Bound:
    r"""Bound the mean squared population gradient along T steps of gradient descent.

    .. math:: \frac{2 (L_D(\theta_0) - L_D(\theta_T))}{\eta T} + \frac1T \sum_t \epsilon_t^2 + \beta \eta s^2

    Args:
        first_loss: Population loss before the first step.
        last_loss: Population loss after the last step, or any lower bound on it.
        learning_rate: eta, at most 1 / ``smoothness``.
        deviations: A bound on the deviation at each of the T points that a step was taken from.
        smoothness: beta: the population gradient's Lipschitz constant.
        num_samples: n that the deviations speak of.
        noise: s: root of a bound on the mean squared noise of unbiased minibatch gradients; 0 for full batches.
        source: Who stands for ``smoothness``: ``declared``, ``checked`` where the population is known, or ``missing``.
        assumptions: Of the deviations, and of the losses where these are estimates.

    Returns:
        The bound, in squared loss per unit of parameter; with ``noise`` it is on the mean over minibatches too.

    Raises:
        ValueError: If the step is larger than ``1 / smoothness``, there is no deviation, or a size is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> bound = mean_gradient_bound(1.0, 0.5, 0.1, jnp.full(100, 0.2), smoothness=1.0, num_samples=64)
        >>> round(bound.value, 4)
        0.14

    References:
        lggwjax/theory/README.md, (6.1) and (6.3).
    """
    sizes = _deviations(deviations)
    _check_step(learning_rate, smoothness)
    if not 0 <= noise < math.inf:
        raise ValueError(f"Expected noise of at least 0, got {noise}.")
    parts = {
        "progress": 2 * (first_loss - last_loss) / (learning_rate * len(sizes)),
        "deviation": float(np.mean(sizes**2)),
        "minibatches": smoothness * learning_rate * noise**2,
    }
    return Bound(
        value=sum(parts.values()),
        quantity="the mean squared population gradient",
        statement="6.3" if noise else "6.1",
        about="population",
        gradient_set=f"{len(sizes):,} steps",
        num_samples=num_samples,
        assumptions=(*assumptions, _smooth(smoothness, source)),
        parts=parts,
    )


def gap_bound(
    first_gap: float,
    learning_rate: float,
    num_steps: int,
    deviation: float,
    *,
    modulus: float,
    smoothness: float,
    num_samples: int,
    source: Source = "declared",
    assumptions: tuple[Assumption, ...] = (),
) -> Bound:
    r"""Bound the population loss above its least value after T steps, under the PL condition.

    .. math:: (1 - \eta \mu)^T \, gap_0 + \frac{\epsilon^2}{2 \mu}

    Args:
        first_gap: Gap before the first step.
        learning_rate: eta, at most 1 / ``smoothness``.
        num_steps: T.
        deviation: A bound on the deviation at every step.
        modulus: mu of the PL condition.
        smoothness: beta, at least mu.
        num_samples: n that the deviation speaks of.
        source: Who stands for both: see :func:`mean_gradient_bound`.
        assumptions: Of the deviation.

    Returns:
        The bound, in units of the loss; its part ``floor`` does not go away with more steps.

    Raises:
        ValueError: If the step is larger than ``1 / smoothness``, or a constant is not positive.

    Example:
        >>> bound = gap_bound(1.0, 0.1, 10**6, 0.2, modulus=0.5, smoothness=1.0, num_samples=64)
        >>> round(bound.value, 4), bound.largest_part
        (0.04, 'floor')

    References:
        lggwjax/theory/README.md, (6.2).
    """
    _check_step(learning_rate, smoothness)
    if not 0 < modulus <= smoothness:
        raise ValueError(f"Expected 0 < modulus <= smoothness, got {modulus} and {smoothness}.")
    if num_steps < 0 or not first_gap >= 0:
        raise ValueError(f"Expected a gap and a number of steps of at least 0, got {first_gap} and {num_steps}.")
    (size,) = _deviations(deviation)
    parts = {"start": (1 - learning_rate * modulus) ** num_steps * first_gap, "floor": float(size**2) / (2 * modulus)}
    condition = Assumption(f"the population loss satisfies the PL condition with {modulus:.4g}", source)
    return Bound(
        value=sum(parts.values()),
        quantity="the population loss above its least value",
        statement="6.2",
        about="population",
        gradient_set=f"the point after {num_steps:,} steps",
        num_samples=num_samples,
        assumptions=(*assumptions, _smooth(smoothness, source), condition),
        parts=parts,
    )


def _smooth(smoothness: float, source: Source) -> Assumption:
    return Assumption(f"the population loss is {smoothness:.4g}-smooth", source)


def _check_step(learning_rate: float, smoothness: float) -> None:
    if not 0 < smoothness < math.inf or not 0 < learning_rate <= 1 / smoothness:
        raise ValueError(
            f"Expected 0 < learning_rate <= 1 / smoothness, got {learning_rate} and {smoothness}. "
            "The statement says nothing about larger steps."
        )


def _deviations(deviations: Float[Array, " T"] | float) -> np.ndarray:
    sizes = np.asarray(deviations, np.float64).reshape(-1)
    if not len(sizes) or not np.all(sizes >= 0):
        raise ValueError(f"Expected deviations of at least 0, one at least, got {sizes}.")
    return sizes
