"""The featurizer: what bounds its width, and what its width bounds (statements 8.5 and 8.6)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float

from lggwjax.theory.bound import Bound
from lggwjax.widths.closed_form import expected_chi, expected_max_abs_normal, expected_max_normal, sparse_ball
from lggwjax.widths.estimate import WidthEstimate

LOOSEST_COTANGENT = math.sqrt(2)  # norm of a difference of two probability vectors


def feature_width_bounds(features: Float[Array, "N m"]) -> dict[str, Bound]:
    r"""Bound the width of a set of feature vectors, with 0 added, by their norms and their sparsity.

    ============ ======================================= ====================================================
    bound        ball that the features lie in           its width
    ============ ======================================= ====================================================
    ``"l1"``     l1 norm at most R1                      :math:`R_1 \, \mathbb{E} \max_j |g_j|`
    ``"sparse"`` at most k entries not 0, l2 norm R      R times the width of the k-sparse unit ball
    ``"l2"``     l2 norm at most R                       :math:`R \, \mathbb{E} |g|`
    ============ ======================================= ====================================================

    So features that are small in l1 norm, or have few entries that are not 0, have a small width.

    Args:
        features: Features of N examples (or of n examples at T checkpoints), one a row.

    Returns:
        The three bounds, in the unit of the features; certified for the features looked at.

    Raises:
        ValueError: If ``features`` is not of shape (N, m) or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> bounds = feature_width_bounds(jnp.eye(10))
        >>> [round(bounds[name].value, 3) for name in ("l1", "sparse", "l2")]
        [1.881, 1.881, 3.084]

    References:
        lggwjax/theory/README.md, (8.6).
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"Expected features of shape (N, m), got {values.shape}. One example a row.")
    if not np.isfinite(values).all():
        raise ValueError("Expected finite features, got NaN or infinity.")
    num, dim = values.shape
    largest = float(np.linalg.norm(values, axis=1).max())
    entries = max(1, int(np.count_nonzero(values, axis=1).max()))
    widths = {
        "l1": float(np.abs(values).sum(1).max()) * expected_max_abs_normal(dim),
        "sparse": largest * sparse_ball(dim, entries),
        "l2": largest * expected_chi(dim),
    }
    by = {"l1": "l1 norms", "sparse": "sparsity", "l2": "l2 norms"}
    return {
        name: _of_features(width, "8.6", f"the featurizer's width, with 0, by its {by[name]},", num)
        for name, width in widths.items()
    }


def last_layer_bound(
    feature_width: WidthEstimate | float,
    feature_radius: float,
    num_classes: int,
    num_features: int,
    *,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the gradient width of a last layer under softmax cross-entropy by the featurizer's.

    .. math:: \sqrt 2 \, w_0(H) + rad(H) \, m_k

    It speaks of the last layer alone: the featurizer's width by itself bounds no other layer, and so not the network.

    Args:
        feature_width: w0(H): an upper bound, or an estimate from ``gaussian_width`` of the features **and 0**, of which
            the upper end of the guaranteed interval is taken.
        feature_radius: Largest l2 norm of a feature vector.
        num_classes: k.
        num_features: N vectors that were looked at.
        confidence: Of the estimate's guaranteed interval.

    Returns:
        The bound on the width of the union of the layer's per-sample gradients.

    Raises:
        ValueError: If a size is negative or there are fewer than two classes.

    Example:
        >>> bound = last_layer_bound(1.0, 2.0, 10, 100)
        >>> round(bound.value, 4), bound.largest_part
        (4.4917, 'cotangents')

    References:
        lggwjax/theory/README.md, (8.5) and (8.9).
    """
    is_estimate = isinstance(feature_width, WidthEstimate)
    width = float(feature_width.guaranteed_interval(confidence).high) if is_estimate else float(feature_width)
    if not (0 <= width < math.inf and 0 <= feature_radius < math.inf):
        raise ValueError(f"Expected a width and a radius of at least 0, got {width} and {feature_radius}.")
    if num_classes < 2:
        raise ValueError(f"Expected two classes at least, got {num_classes}.")
    parts = {"features": LOOSEST_COTANGENT * width, "cotangents": feature_radius * expected_max_normal(num_classes)}
    return _of_features(
        sum(parts.values()),
        "8.5",
        "the gradient width of the last layer alone",
        num_features,
        parts,
        confidence if is_estimate else 1.0,
    )


def _of_features(
    value: float, statement: str, quantity: str, num: int, parts: dict[str, float] | None = None, confidence=1.0
) -> Bound:
    return Bound(
        value=value,
        quantity=quantity,
        statement=statement,
        about="measured set",
        gradient_set="the feature vectors looked at",
        num_samples=num,
        confidence=confidence,
        parts=parts or {},
    )
