"""How far the gradient of a sample can be from the population's: bounds on the deviation (section 4)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float

from lggwjax.theory.bound import Assumption, Bound, Design, assume_design

DEVIATION = "the deviation of the empirical from the population gradient"


def points_bound(
    gradient_bound: float,
    num_samples: int,
    num_points: int,
    *,
    design: Design,
    is_bound_declared: bool = True,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the largest deviation over T points of parameter space that do not depend on the samples.

    .. math:: \frac{B}{\sqrt n} \Big( 1 + \sqrt{2 \ln (T / \delta)} \Big), \quad \delta = 1 - \text{confidence}

    Args:
        gradient_bound: B, no smaller than the norm of any sample's gradient at these points, in loss per unit of
            parameter.
        num_samples: n, independent samples.
        num_points: T.
        design: How the points relate to the samples.
        is_bound_declared: False where B is only the largest norm seen; the result is then descriptive.
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
    _check(gradient_bound, num_samples, confidence)
    if num_points < 1:
        raise ValueError(f"Expected at least one point, got {num_points}.")
    scale = gradient_bound / math.sqrt(num_samples)
    parts = {"mean": scale, "chance": scale * math.sqrt(2 * math.log(num_points / (1 - confidence)))}
    return Bound(
        value=sum(parts.values()),
        quantity=DEVIATION,
        statement="4.4",
        about="population",
        gradient_set=_points(num_points),
        num_samples=num_samples,
        confidence=confidence,
        assumptions=_assumptions(gradient_bound, design, is_bound_declared),
        parts=parts,
    )


def nerc_bound(
    nerc: float,
    gradient_bound: float,
    num_samples: int,
    *,
    gradient_set: str,
    design: Design,
    is_bound_declared: bool = True,
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
        is_bound_declared: False where B is only the largest norm seen.
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
    _check(gradient_bound, num_samples, confidence)
    if not nerc >= 0:
        raise ValueError(f"Expected a NERC of at least 0, got {nerc}.")
    chance = 3 * gradient_bound * math.sqrt(2 * math.log(1 / (1 - confidence)) / num_samples)
    return Bound(
        value=2 * nerc + chance,
        quantity=DEVIATION,
        statement="4.2",
        about="population",
        gradient_set=gradient_set,
        num_samples=num_samples,
        confidence=confidence,
        assumptions=_assumptions(gradient_bound, design, is_bound_declared),
        parts={"NERC": 2 * nerc, "chance": chance},
    )


def exact_nerc_bound(
    nerc: float,
    gradient_bound: float,
    num_samples: int,
    *,
    gradient_set: str,
    design: Design,
    is_bound_declared: bool = True,
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
        is_bound_declared: False where B is only the largest norm seen.
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
    _check(gradient_bound, num_samples, confidence)
    if not nerc >= 0:
        raise ValueError(f"Expected a NERC of at least 0, got {nerc}.")
    level = math.log(2 / (1 - confidence))
    parts = {
        "NERC": 2 * nerc,
        "chance": gradient_bound * math.sqrt(2 * level / num_samples),
        "NERC's own chance": 2 * math.sqrt(2 * gradient_bound * level * nerc / num_samples)
        + 4 * gradient_bound * level / num_samples,
    }
    return Bound(
        value=sum(parts.values()),
        quantity=DEVIATION,
        statement="4.3",
        about="population",
        gradient_set=gradient_set,
        num_samples=num_samples,
        confidence=confidence,
        assumptions=_assumptions(gradient_bound, design, is_bound_declared),
        parts=parts,
    )


def split_bound(
    distances: Float[Array, " T"],
    gradient_bound: float,
    num_heldout: int,
    *,
    is_bound_declared: bool = True,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the deviation along a path trained on one split by a second split that took no part in training.

    .. math:: \max_t |\nabla L_S - \nabla L_H|(\theta_t) + \frac{B}{\sqrt m} \Big( 1 + \sqrt{2 \ln(T/\delta)} \Big)

    The points were trained on S, but for H they are fixed; so this is the statement that a run may make.

    Args:
        distances: Norm of the difference between the mean gradients on S and on H at each of T checkpoints.
        gradient_bound: B, see :func:`points_bound`.
        num_heldout: m samples of H, all of them.
        is_bound_declared: False where B is only the largest norm seen.
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
    chance = points_bound(
        gradient_bound,
        num_heldout,
        len(seen),
        design="independent split",
        is_bound_declared=is_bound_declared,
        confidence=confidence,
    )
    parts = {"seen between the splits": float(seen.max()), "held-out chance": chance.value}
    return Bound(
        value=sum(parts.values()),
        quantity=DEVIATION,
        statement="4.5",
        about="population",
        gradient_set=chance.gradient_set,
        num_samples=num_heldout,
        confidence=confidence,
        assumptions=chance.assumptions,
        parts=parts,
    )


def _check(gradient_bound: float, num_samples: int, confidence: float) -> None:
    if not 0 <= gradient_bound < math.inf:
        raise ValueError(f"Expected a gradient bound of at least 0, got {gradient_bound}.")
    if num_samples < 1:
        raise ValueError(f"Expected at least one sample, got {num_samples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, got {confidence}. Pass for instance 0.95.")


def _assumptions(gradient_bound: float, design: Design, is_bound_declared: bool) -> tuple[Assumption, ...]:
    norm = f"no sample's gradient is longer than {gradient_bound:.4g}"
    if is_bound_declared:
        known = Assumption(norm, "declared")
    else:
        known = Assumption(f"{norm} is only what was seen, and a bound has to be declared", "missing")
    return assume_design(design), known, Assumption("the samples are independent", "declared")


def _points(number: int) -> str:
    return "1 point" if number == 1 else f"{number:,} points"
