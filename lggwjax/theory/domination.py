"""Gradient domination: loss gaps bounded by powers of the population gradient's norm (sections 5.2 and 5.3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from lggwjax.theory.bound import Assumption, Source

ALPHAS = (1.0, 1.25, 1.5, 1.75, 2.0)


class Domination(NamedTuple):
    """That gaps are at most ``constant * |gradient|^alpha``, and who stands for it.

    Attributes:
        alpha: Exponent, from 1 to 2; 2 is the PL condition.
        constant: c, in loss / (loss per unit of parameter)^alpha.
        assumption: For a bound that rests on it.
    """

    alpha: float
    constant: float
    assumption: Assumption


def strongly_convex(modulus: float, source: Source = "declared") -> Domination:
    r"""Gradient domination of a :math:`\mu`-strongly convex population loss: alpha = 2, c = 1/(2 mu).

    An L2 penalty :math:`(\lambda/2) |\theta|^2` on a convex loss (ridge, logistic regression) has modulus lambda at
    least; least squares has the smallest eigenvalue of the population's second-moment matrix, which one has to know.

    Args:
        modulus: mu.
        source: Who stands for it: ``declared`` by the caller, or ``checked`` where the population is known.

    Returns:
        The condition.

    Raises:
        ValueError: If ``modulus`` is not positive.

    Example:
        >>> strongly_convex(0.5).constant
        1.0

    References:
        lggwjax/theory/README.md, (5.2).
    """
    if not 0 < modulus < math.inf:
        raise ValueError(f"Expected a positive modulus, got {modulus}. Without one use convex(radius).")
    text = f"the population loss is {modulus:.4g}-strongly convex"
    return Domination(2.0, 1 / (2 * modulus), Assumption(text, source))


def convex(radius: float) -> Domination:
    r"""Gradient domination of a convex population loss: alpha = 1, c the distance to a minimiser.

    Args:
        radius: No smaller than the distance of any parameters in question from a minimiser; declared by the caller.

    Returns:
        The condition.

    Raises:
        ValueError: If ``radius`` is not positive.

    Example:
        >>> convex(3.0).alpha
        1.0

    References:
        lggwjax/theory/README.md, (5.2).
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"Expected a positive radius, got {radius}.")
    text = f"the population loss is convex with a minimiser within {radius:.4g}"
    return Domination(1.0, radius, Assumption(text, "declared"))


def domination_ratios(
    gaps: Float[Array, " T"], gradient_norms: Float[Array, " T"], alphas: tuple[float, ...] = ALPHAS
) -> Float[np.ndarray, "A T"]:
    r"""Ratio :math:`gap_t / |\nabla_t|^\alpha` at each point: the constant that gradient domination would need there.

    Args:
        gaps: Loss minus the least loss possible, at T points; what is not positive needs no constant.
        gradient_norms: Norm of the population gradient at the same points.
        alphas: Exponents from 1 to 2.

    Returns:
        One row an exponent.

    Raises:
        ValueError: If lengths differ, an exponent is not in [1, 2], or a gap is positive where the gradient is 0 (no
            constant is then large enough).

    Example:
        >>> domination_ratios([4.0, 1.0], [2.0, 1.0], alphas=(1.0, 2.0)).tolist()
        [[2.0, 1.0], [1.0, 1.0]]

    References:
        lggwjax/theory/README.md, (5.3).
    """
    gap, norm = (np.asarray(x, np.float64).reshape(-1) for x in (gaps, gradient_norms))
    if len(gap) != len(norm) or not len(gap):
        raise ValueError(f"Expected as many gaps as gradient norms, and one at least, got {len(gap)} and {len(norm)}.")
    if not all(1 <= alpha <= 2 for alpha in alphas):
        raise ValueError(f"Expected exponents from 1 to 2, got {alphas}.")
    counts = gap > 0
    if np.any(norm[counts] <= 0):
        index = int(np.flatnonzero(counts & (norm <= 0))[0])
        raise ValueError(
            f"Expected a gradient where the gap is positive, got norm 0 and gap {gap[index]:.4g} at point {index}. "
            "Gradient domination does not hold there."
        )
    powers = np.where(counts, norm, 1.0)[None, :] ** np.asarray(alphas, np.float64)[:, None]
    return np.maximum(gap, 0.0) / powers


def envelope(
    gaps: Float[Array, " T"], gradient_norms: Float[Array, " T"], alphas: tuple[float, ...] = ALPHAS
) -> tuple[Domination, ...]:
    r"""Find the smallest constants that the visited points allow: :math:`\max_t gap_t / |\nabla_t|^\alpha`.

    No bound: points that were not visited may need more, and a gap to the best loss *seen* makes the constant too
    small. A fit of logarithms would be smaller still.

    Args:
        gaps: Loss minus the least loss possible, at T points. Where the least is unknown 0 may stand for it (a loss
            that is never negative), which makes the constants too large.
        gradient_norms: Norm of the population gradient at the same points.
        alphas: Exponents.

    Returns:
        One condition an exponent, each with its assumption marked as missing.

    Raises:
        ValueError: As :func:`domination_ratios`.

    Example:
        >>> [found] = envelope([4.0, 1.0], [2.0, 1.0], alphas=(2.0,))
        >>> found.constant, found.assumption.source
        (1.0, 'missing')

    References:
        lggwjax/theory/README.md, (5.3).
    """
    found = []
    for alpha, ratios in zip(alphas, domination_ratios(gaps, gradient_norms, alphas), strict=True):
        constant = float(ratios.max())
        text = f"gradient domination with alpha = {alpha:g}, c = {constant:.4g} was seen at {len(ratios)} points only"
        found.append(Domination(alpha, constant, Assumption(text, "missing")))
    return tuple(found)
