"""How far the gradient of a sample can be from the population's: bounds on the deviation (section 4)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Array, Float

from lggwjax.theory.bound import Assumption, Bound, Design, GradientBound, assume_design


def points_bound(
    gradient_bound: GradientBound | float,
    num_samples: int,
    num_points: int,
    *,
    design: Design,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the largest deviation over T points of parameter space that do not depend on the samples.

    .. math:: \frac{B}{\sqrt n} \Big( 1 + \sqrt{2 \ln (T / \delta)} \Big), \quad \delta = 1 - \text{confidence}

    Args:
        gradient_bound: B, no smaller than the norm of any sample's gradient at these points, in loss per unit of
            parameter. A number counts as declared; :meth:`GradientBound.seen` makes the result descriptive.
        num_samples: n, independent samples.
        num_points: T.
        design: How the points relate to the samples.
        confidence: Probability with which the bound holds.

    Returns:
        The bound, certified where B is declared and the points do not depend on the samples.

    Raises:
        ValueError: If B is negative or not finite, n or T below 1, or ``confidence`` not between 0 and 1.

    Example:
        >>> bound = points_bound(1.0, 400, 16, design="independent split")
        >>> round(bound.value, 4), bound.status
        (0.2198, 'certified')
        >>> points_bound(1.0, 400, 16, design="trained on these samples").status
        'descriptive'

    References:
        lggwjax/theory/README.md, (4.4).
    """
    bound, failure = _checked(gradient_bound, num_samples, confidence)
    if num_points < 1:
        raise ValueError(f"Expected at least one point, got {num_points}.")
    scale = bound.value / math.sqrt(num_samples)
    parts = {"mean": scale, "chance": scale * math.sqrt(2 * math.log(num_points / failure))}
    return _deviation("4.4", parts, _points(num_points), bound, num_samples, design, confidence)


def nerc_bound(
    nerc: float,
    gradient_bound: GradientBound | float,
    num_samples: int,
    *,
    gradient_set: str,
    design: Design,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the deviation over any set of parameters by a NERC of the same samples, even of a single sign vector.

    .. math:: 2 \, \widehat{\mathrm{NERC}} + 3 B \sqrt{2 \ln(1/\delta) / n}

    Args:
        nerc: Mean over sign vectors drawn independently of the samples of the supremum over the whole set.
        gradient_bound: B, see :func:`points_bound`.
        num_samples: n.
        gradient_set: The set in words; for a continuum the supremum in ``nerc`` must be over all of it.
        design: How the set relates to the samples.
        confidence: Probability with which the bound holds.

    Returns:
        The bound.

    Raises:
        ValueError: As :func:`points_bound`, or if ``nerc`` is negative.

    Example:
        >>> bound = nerc_bound(0.05, 1.0, 400, gradient_set="16 points", design="independent split")
        >>> round(bound.value, 4), bound.largest_part
        (0.4672, 'chance')

    References:
        lggwjax/theory/README.md, (4.2).
    """
    bound, failure = _checked(gradient_bound, num_samples, confidence, nerc)
    chance = 3 * bound.value * math.sqrt(2 * math.log(1 / failure) / num_samples)
    parts = {"NERC": 2 * nerc, "chance": chance}
    return _deviation("4.2", parts, gradient_set, bound, num_samples, design, confidence)


def exact_nerc_bound(
    nerc: float,
    gradient_bound: GradientBound | float,
    num_samples: int,
    *,
    gradient_set: str,
    design: Design,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the deviation by the exact NERC N of the samples (or an upper bound on it); better for large n.

    .. math:: 2 N + B \sqrt{2 \ell / n} + 2 \sqrt{2 B \ell N / n} + 4 B \ell / n, \quad \ell = \ln(2 / \delta)

    Args:
        nerc: N, the mean over all sign vectors, or something known to be larger.
        gradient_bound: B, see :func:`points_bound`.
        num_samples: n.
        gradient_set: The set in words.
        design: How the set relates to the samples.
        confidence: Probability with which the bound holds.

    Returns:
        The bound.

    Raises:
        ValueError: As :func:`nerc_bound`.

    Example:
        >>> bound = exact_nerc_bound(0.05, 1.0, 40_000, gradient_set="16 points", design="independent split")
        >>> round(bound.value, 4)
        0.12

    References:
        lggwjax/theory/README.md, (4.3).
    """
    bound, failure = _checked(gradient_bound, num_samples, confidence, nerc)
    level = math.log(2 / failure)
    parts = {
        "NERC": 2 * nerc,
        "chance": bound.value * math.sqrt(2 * level / num_samples),
        "NERC's own chance": 2 * math.sqrt(2 * bound.value * level * nerc / num_samples)
        + 4 * bound.value * level / num_samples,
    }
    return _deviation("4.3", parts, gradient_set, bound, num_samples, design, confidence)


def split_bound(
    distances: Float[Array, " T"],
    gradient_bound: GradientBound | float,
    num_heldout: int,
    *,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the deviation along a path trained on one split by a second split that took no part in training.

    .. math:: \max_t |\nabla L_S - \nabla L_H|(\theta_t) + \frac{B}{\sqrt m} \Big( 1 + \sqrt{2 \ln(T/\delta)} \Big)

    The points were trained on S, but for H they are fixed; so this is the statement that a run may make.

    Args:
        distances: Norm of the difference between the mean gradients on S and on H at each of T checkpoints.
        gradient_bound: B, see :func:`points_bound`.
        num_heldout: m samples of H, all of them.
        confidence: Probability with which the bound holds.

    Returns:
        The bound at the checkpoint where it is largest; at each checkpoint ``distances[t]`` in place of the first part.

    Raises:
        ValueError: As :func:`points_bound`, or if there is no checkpoint.

    Example:
        >>> import jax.numpy as jnp
        >>> bound = split_bound(jnp.array([0.1, 0.3]), 1.0, 400)
        >>> round(bound.value, 4), bound.about, bound.status
        (0.4858, 'population', 'certified')

    References:
        lggwjax/theory/README.md, (4.5).
    """
    seen = np.asarray(distances, np.float64).reshape(-1)
    if not len(seen):
        raise ValueError("Expected the distance at one checkpoint at least, got none.")
    chance = points_bound(gradient_bound, num_heldout, len(seen), design="independent split", confidence=confidence)
    parts = {"seen between the splits": float(seen.max()), "held-out chance": chance.value}
    return replace(chance, value=sum(parts.values()), statement="4.5", parts=parts)


def doubled_radius(first_radius: float, distance: float, confidence: float = 0.95) -> tuple[float, float]:
    r"""Choose the ball for a distance that is known only after training.

    .. math:: \rho_j = 2^j \rho_0, \qquad \delta_j = \frac{\delta}{(j + 1)(j + 2)}, \qquad \sum_j \delta_j = \delta

    A bound over a ball has to fix the ball before it looks at the samples. Bounds over all balls of this list hold
    together with the confidence asked for, so that afterwards the smallest that holds the path may be taken.

    Args:
        first_radius: rho_0, fixed beforehand.
        distance: Largest distance of the path from the start, which saw no data.
        confidence: 1 - delta.

    Returns:
        The radius, and the confidence to ask the bound over this ball for. As the ball was chosen with the path in
        hand, that bound is then to be quoted with ``confidence``, not with its own.

    Raises:
        ValueError: If ``first_radius`` is not positive, ``distance`` negative, or ``confidence`` not between 0 and 1.

    Example:
        >>> doubled_radius(1.0, 3.0, 0.95)
        (4.0, 0.9958333333333333)

    References:
        lggwjax/theory/README.md, section 4.
    """
    if not 0 < first_radius < math.inf or not 0 <= distance < math.inf:
        raise ValueError(f"Expected a positive radius and a distance of at least 0, got {first_radius} and {distance}.")
    _check_confidence(confidence)
    times = max(0, math.ceil(math.log2(distance / first_radius))) if distance > 0 else 0
    return first_radius * 2**times, 1 - (1 - confidence) / ((times + 1) * (times + 2))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, got {confidence}. Pass for instance 0.95.")


def _checked(
    gradient_bound: GradientBound | float, num_samples: int, confidence: float, nerc: float = 0.0
) -> tuple[GradientBound, float]:
    """The gradient bound, and the probability of failure that is left for the samples."""
    bound = gradient_bound if isinstance(gradient_bound, GradientBound) else GradientBound.declared(gradient_bound)
    if num_samples < 1:
        raise ValueError(f"Expected at least one sample, got {num_samples}.")
    _check_confidence(confidence)
    if not nerc >= 0:
        raise ValueError(f"Expected a NERC of at least 0, got {nerc}.")
    left = 1 - confidence - bound.failure
    if left <= 0:
        raise ValueError(
            f"Expected a confidence below {1 - bound.failure:.6g}, that of the gradient bound, got {confidence}."
        )
    return bound, left


def _deviation(
    statement: str,
    parts: dict[str, float],
    gradient_set: str,
    bound: GradientBound,
    num_samples: int,
    design: Design,
    confidence: float,
) -> Bound:
    return Bound(
        value=sum(parts.values()),
        quantity="the deviation of the empirical from the population gradient",
        statement=statement,
        about="population",
        gradient_set=gradient_set,
        num_samples=num_samples,
        confidence=confidence,
        assumptions=(assume_design(design), bound.assumption, Assumption("the samples are independent", "declared")),
        parts=parts,
    )


def _points(number: int) -> str:
    return "1 point" if number == 1 else f"{number:,} points"
