"""NERC and LGGW: bounds of one by the other and by the gradients' size (statements 3.1 to 3.7)."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lggwjax.lggw import SingleWidths
from lggwjax.theory.bound import Bound, Relation
from lggwjax.widths.estimate import Estimate, WidthEstimate

CHAINING = (3 * math.sqrt(2 * math.pi), 4 * math.sqrt(math.pi * math.log(2)))  # of (3.4), before rounding up


def comb(x: float, y: float) -> float:
    """``(x^(2/3) + y^(2/3))^(3/2)``, between x + y and sqrt(2) (x + y).

    Example:
        >>> comb(1.0, 1.0) == 2**1.5
        True
    """
    return (x ** (2 / 3) + y ** (2 / 3)) ** 1.5


def nerc_bounds(grams: Float[Array, "T n n"], width: WidthEstimate, *, confidence: float = 0.95) -> dict[str, Bound]:
    r"""Bound the NERC of T checkpoints from their Gram matrices and their LGGW.

    All of them are statements about the measured set: they hold for the samples and checkpoints looked at.

    Args:
        grams: Gradient Gram matrix of each checkpoint, from :func:`lggwjax.gradient_gram`.
        width: The LGGW of the same checkpoints and samples, from ``lggwjax.lggw(kind="stacked")``.
        confidence: Of the statements that use the width, through its guaranteed interval.

    Returns:
        Bounds by statement: ``"3.1"`` from below, ``"3.2"``, ``"3.3"`` and ``"3.4"`` from above.

    Raises:
        ValueError: If ``grams`` is not a stack of square matrices.

    Example:
        >>> import jax, jax.numpy as jnp, lggwjax
        >>> grams = jnp.stack([jnp.eye(4), 4 * jnp.eye(4)])
        >>> found = nerc_bounds(grams, lggwjax.width_from_gram(jax.random.key(0), jnp.diag(jnp.array([0.0, 1.0]))))
        >>> round(found["3.1"].value, 4), round(found["3.2"].value, 4)
        (0.7071, 1.5887)

    References:
        lggwjax/theory/README.md, (3.1) to (3.4).
    """
    matrices = np.asarray(grams, np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"Expected Gram matrices of shape (T, n, n), got {matrices.shape}. Stack one a checkpoint.")
    length, num = matrices.shape[:2]
    root = math.sqrt(num)
    rms = np.sqrt(np.maximum(np.trace(matrices, axis1=1, axis2=2), 0) / num)
    values = np.linalg.eigvalsh(matrices)
    op = np.sqrt(np.maximum(values[:, -1], 0) / num)
    highest = float(width.guaranteed_interval(confidence).high)

    def bound(statement: str, parts: dict[str, float], relation: Relation = "at most", total=None) -> Bound:
        parts = {name: part / root for name, part in parts.items()}
        return Bound(
            value=sum(parts.values()) if total is None else total / root,
            quantity="the NERC",
            statement=statement,
            about="measured set",
            gradient_set=_points(length),
            num_samples=num,
            relation=relation,
            confidence=confidence if "width" in parts else 1.0,
            parts=parts,
        )

    # A common A above every (1/n) M M^T: their sum, or the largest eigenvalue on the span of all gradients.
    rank = min(length * num, int(np.sum(values > values.max(initial=0) * num * np.finfo(np.float32).eps)))
    trace = min(float(np.sum(rms**2)), rank * float(op.max() ** 2))
    whole = math.sqrt(math.pi / 2) * comb(highest, math.sqrt(trace))
    chain = CHAINING[0] + CHAINING[1] * math.ceil(math.log2(num) / 2)
    return {
        "3.1": bound("3.1", {"rms": float(rms.max()) / math.sqrt(2)}, relation="at least"),
        "3.2": bound("3.2", {"rms": float(rms.max()), "points": float(op.max()) * math.sqrt(2 * math.log(length))}),
        "3.3": bound(
            "3.3",
            {"width": math.sqrt(math.pi / 2) * highest, "trace": math.sqrt(math.pi / 2 * trace)},
            total=whole,
        ),
        "3.4": bound("3.4", {"rms": float(rms.min()), "width": chain * highest}),
    }


def chain_bounds(single: SingleWidths, num_checkpoints: int, *, confidence: float = 0.95) -> dict[str, Bound]:
    r"""Bound the LGGW by the widths of the single samples' gradient sets.

    .. math:: \max_i \frac{w(\Xi^1(z_i))}{\sqrt n} \le w(\Xi^n) \le \frac{1}{\sqrt n} \sum_i w(\Xi^1(z_i))

    Without n neither bounds the other.

    Args:
        single: From :func:`lggwjax.single_widths`.
        num_checkpoints: T, for the wording.
        confidence: Of each, through the guaranteed intervals.

    Returns:
        ``"at least"`` and ``"at most"``, in the unit of the gradients.

    References:
        lggwjax/theory/README.md, (3.7).
    """
    num = single.widths.value.shape[0]
    root = math.sqrt(num)
    largest = max(0.0, float(single.largest.guaranteed_interval(confidence).low))
    ends: dict[Relation, float] = {
        "at least": largest / root,
        "at most": root * float(single.mean.guaranteed_interval(confidence).high),
    }
    return {
        relation: Bound(
            value=value,
            quantity="the LGGW",
            statement="3.7",
            about="measured set",
            gradient_set=_points(num_checkpoints),
            num_samples=num,
            relation=relation,
            confidence=confidence,
        )
        for relation, value in ends.items()
    }


def nerc_shapes(width: WidthEstimate, gradient_rms: float, num_samples: int, num_checkpoints: int) -> dict[str, Bound]:
    r"""What theory says of the NERC up to constants that nobody has named: curves to draw, not numbers that bound.

    .. math:: \frac{rms(\theta_0) + w}{\sqrt n}, \qquad \frac{\max(w, 1)}{\sqrt n}

    The second is not homogeneous: it presumes gradients of norm about one.

    Args:
        width: The LGGW.
        gradient_rms: Root mean square of the gradients at any one of the checkpoints.
        num_samples: n.
        num_checkpoints: T, for the wording.

    Returns:
        ``"3.5"`` and ``"3.6"``, both of status ``shape``.

    References:
        lggwjax/theory/README.md, (3.5) and (3.6).
    """
    root, value = math.sqrt(num_samples), float(width.value)
    parts = {
        "3.5": {"rms": gradient_rms / root, "width": value / root},
        "3.6": {"width": max(value, 1.0) / root},
    }
    return {
        statement: Bound(
            value=sum(terms.values()),
            quantity="the NERC",
            statement=statement,
            about="measured set",
            gradient_set=_points(num_checkpoints),
            num_samples=num_samples,
            parts=terms,
        )
        for statement, terms in parts.items()
    }


def homogeneous_ratio(nerc: Estimate, width: WidthEstimate, gradient_rms: float, num_samples: int) -> Estimate:
    r"""Measure the ratio :math:`\sqrt n \, \mathrm{NERC} / (w + \mathrm{rms})`, which no scaling of the loss changes.

    Theory says that it stays below a constant that nobody has named, so it may be drawn and bounds nothing.

    Args:
        nerc: From :func:`lggwjax.nerc`.
        width: From ``lggwjax.lggw(kind="stacked")`` on the same samples and checkpoints.
        gradient_rms: Largest root mean square of a checkpoint's per-sample gradient norms.
        num_samples: n.

    Returns:
        The ratio, without unit; its standard error is that of both estimates to first order.

    Raises:
        ValueError: If all gradients are zero.

    References:
        lggwjax/theory/README.md, (3.5) and (3.6).
    """
    scale = width.value + gradient_rms
    if float(scale) == 0:
        raise ValueError("Expected gradients that are not all zero, got a width and an rms of 0. There is no ratio.")
    root = math.sqrt(num_samples)
    ratio = root * nerc.value / scale
    return Estimate(
        value=ratio,
        stderr=jnp.hypot(root * nerc.stderr, ratio * width.stderr) / scale,
        num_draws=nerc.num_draws,
        num_replicates=nerc.num_replicates,
        rounding=(root * nerc.rounding + ratio * width.rounding) / scale,
    )


def _points(number: int) -> str:
    return "1 checkpoint" if number == 1 else f"{number:,} checkpoints"
