"""Gradients that are affine in the parameters, as those of least squares are: suprema over a ball, exactly."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import optimize


def affine_supremum(matrix: Float[np.ndarray, "m d"], offset: Float[np.ndarray, " m"], radius: float) -> float:
    r"""Largest norm of an affine map over a ball.

    .. math:: \max_{|v| \le \rho} |b + A v|

    A convex function is largest on the sphere, where a maximiser solves :math:`(\lambda - A^\top A) v = A^\top b` for
    the :math:`\lambda \ge |A|^2` at which :math:`|v| = \rho`: a trust-region problem, solved by one
    eigendecomposition and the root of one decreasing function. In the hard case, where no such :math:`\lambda` is above
    :math:`|A|^2`, the rest of the radius goes into the leading eigenvector.

    Args:
        matrix: A.
        offset: b.
        radius: :math:`\rho`.

    Returns:
        The maximum.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite, or the radius is negative.

    Example:
        >>> affine_supremum(np.eye(2), np.array([3.0, 4.0]), 2.0)
        7.0
    """
    a, b = np.asarray(matrix, np.float64), np.asarray(offset, np.float64)
    if a.ndim != 2 or b.shape != a.shape[:1] or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"Expected a finite matrix (m, d) and offset (m,), got shapes {a.shape} and {b.shape}.")
    if not 0 <= radius < math.inf:
        raise ValueError(f"Expected a radius of at least 0, got {radius}.")
    values, vectors = np.linalg.eigh(a.T @ a)
    values, top = np.maximum(values, 0.0), max(float(values[-1]), 0.0)
    pull = vectors.T @ (a.T @ b)
    if radius == 0 or top == 0:
        return float(np.linalg.norm(b))
    leading = values >= top * (1 - 1e-12)
    rest = pull[~leading] / (top - values[~leading])
    is_hard = np.linalg.norm(pull[leading]) <= 1e-14 * np.linalg.norm(pull) or not pull[leading].any()
    if is_hard and np.linalg.norm(rest) <= radius:
        step = np.zeros(len(values))
        step[~leading] = rest
        step[-1] = math.sqrt(radius**2 - float(rest @ rest))
    else:
        # |v| falls from infinity (or from above the radius) to below it: at this end it is at most |pull| / excess.
        most = float(np.linalg.norm(pull)) / radius
        excess: Any = optimize.brentq(
            lambda e: float(np.linalg.norm(pull / (e + top - values))) - radius,
            *_bracket(pull, values, top, radius, most),
            xtol=1e-300,
            rtol=1e-14,  # pyright: ignore[reportArgumentType]
        )
        step = pull / (excess + top - values)
        step *= radius / np.linalg.norm(step)
    return float(np.linalg.norm(b + a @ (vectors @ step)))


def least_squares_ball_nerc(
    key: Key[Array, ""], sample: dict[str, Any], center: Float[Array, "..."], radius: float, num_signs: int
) -> float:
    r"""Mean over sign vectors of the exact supremum over a ball of a signed mean gradient of least squares.

    Args:
        key: One PRNG key, consumed here.
        sample: ``x`` of shape (n, d) and ``y`` of shape (n,).
        center: The d parameters in the middle.
        radius: Of the ball.
        num_signs: Sign vectors.

    Returns:
        The mean supremum, in loss per unit of parameter.

    Example:
        >>> sample = {"x": np.ones((1, 1)), "y": np.zeros(1)}
        >>> least_squares_ball_nerc(jax.random.key(0), sample, np.zeros(1), 3.0, 1)
        3.0

    References:
        lggwjax/theory/README.md, (4.2).
    """
    x, y = np.asarray(sample["x"], np.float64), np.asarray(sample["y"], np.float64)
    signs = np.asarray(jax.random.rademacher(key, (num_signs, len(y))), np.float64)
    errors = x @ np.asarray(center, np.float64).reshape(-1) - y
    suprema = [affine_supremum((one[:, None] * x).T @ x / len(y), (one * errors) @ x / len(y), radius) for one in signs]
    return float(np.mean(suprema))


def _bracket(pull, values, top: float, radius: float, most: float) -> tuple[float, float]:
    """Ends between which the excess of lambda over its least value lies."""
    low = most
    while np.linalg.norm(pull / (low + top - values)) <= radius and low > most * 1e-280:
        low *= 1e-2
    return low, most * (1 + 1e-12)
