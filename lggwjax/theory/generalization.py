"""From a small empirical gradient to a small excess risk (section 5)."""

from __future__ import annotations

import dataclasses
import math

from lggwjax.theory.bound import Bound
from lggwjax.theory.domination import Domination


def excess_risk_bound(gradient_norm: float, deviation: Bound, domination: Domination) -> Bound:
    r"""Bound the population loss above its least value, at one point of the set that ``deviation`` is about.

    .. math:: L_D(\theta) - L_D^* \le c \, (|\nabla L_n(\theta)| + \Phi)^\alpha

    Args:
        gradient_norm: Norm of the empirical gradient at the point, on the samples that ``deviation`` speaks of.
        deviation: A bound on the deviation, from :mod:`lggwjax.theory.sample_reuse`.
        domination: From :mod:`lggwjax.theory.domination`; an envelope of visited points makes the result descriptive.

    Returns:
        The bound, in units of the loss; it inherits the assumptions and the confidence of ``deviation``. Its parts are
        what each term gives by itself; they need not add up to the value.

    Raises:
        ValueError: If ``deviation`` is not about the population, or the norm is negative.

    Example:
        >>> from lggwjax.theory.domination import strongly_convex
        >>> from lggwjax.theory.sample_reuse import points_bound
        >>> deviation = points_bound(1.0, 400, 16, design="independent split")
        >>> bound = excess_risk_bound(0.1, deviation, strongly_convex(0.5))
        >>> round(bound.value, 4), bound.status
        (0.1023, 'certified')

    References:
        lggwjax/theory/README.md, (5.1).
    """
    if deviation.about != "population":
        raise ValueError("Expected a deviation from the population gradient, got a statement about the measured set.")
    if not 0 <= gradient_norm < math.inf:
        raise ValueError(f"Expected a gradient norm of at least 0, got {gradient_norm}.")
    power = lambda size: domination.constant * size**domination.alpha  # noqa: E731
    return dataclasses.replace(
        deviation,
        value=power(gradient_norm + deviation.value),
        quantity="the population loss above its least value",
        statement="5.1",
        assumptions=(*deviation.assumptions, domination.assumption),
        parts={"empirical gradient": power(gradient_norm), "deviation": power(deviation.value)},
    )
