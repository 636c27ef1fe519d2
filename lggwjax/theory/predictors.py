"""The usual measures of a predictor's complexity, for comparison: numbers to rank by, none of them a bound here."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import PyTree

from lggwjax.gradients.selection import Wrt, select


def predictor_measures(
    params: PyTree, initial: PyTree, *, wrt: Wrt = None, input_radius: float = 1.0, margin: float = 1.0
) -> dict[str, float]:
    r"""Compute what is usually drawn against the generalization gap.

    ============================= =====================================================================================
    ``parameters``                their number
    ``parameter norm``            l2
    ``distance from start``       l2
    ``product of norms``          :math:`\prod_l |W_l|_{op}` over all leaves with two axes or more
    ``spectral complexity``       :math:`\frac{R}{\gamma} \prod_l |W_l|_{op} \big( \sum_l (|(W_l - W_l^0)^\top|_{2,1} /
                                  |W_l|_{op})^{2/3} \big)^{3/2}`
    ============================= =====================================================================================

    The last is the shape of a bound on the Rademacher complexity, without its constants and logarithms. A convolution's
    kernel is taken as the matrix (offsets and inputs) x outputs, whose norm is not that of the convolution.

    Args:
        params: Trained parameters.
        initial: Parameters at the start, of the same structure.
        wrt: Which leaves count.
        input_radius: R, largest norm of an input.
        margin: gamma.

    Returns:
        One number a measure.

    Raises:
        ValueError: If the shapes differ, or the radius or margin is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> found = predictor_measures({"w": 2 * jnp.eye(3)}, {"w": jnp.zeros((3, 3))})
        >>> round(found["product of norms"], 3), round(found["spectral complexity"], 3)
        (2.0, 6.0)

    References:
        P. Bartlett, D. Foster, M. Telgarsky, Spectrally-normalized margin bounds for neural networks, NeurIPS 2017.
    """
    if not (0 < input_radius < math.inf and 0 < margin < math.inf):
        raise ValueError(f"Expected a positive radius and margin, got {input_radius} and {margin}.")
    selection = select(params, wrt)
    leaves, starts = ([np.asarray(x, np.float64) for x in selection.split(tree)[0]] for tree in (params, initial))
    if [x.shape for x in leaves] != [x.shape for x in starts]:
        raise ValueError("Expected params and initial of one structure, got arrays of different shapes.")
    matrices = [
        (w.reshape(-1, w.shape[-1]), v.reshape(-1, w.shape[-1]))
        for w, v in zip(leaves, starts, strict=True)
        if w.ndim > 1
    ]
    norms = [float(np.linalg.norm(w, 2)) for w, _ in matrices]
    product = math.prod(norms)
    # |A^T|_{2,1} with A = W^T outputs x inputs: the l2 norms of the rows of A^T's columns, one an output.
    moved = [float(np.linalg.norm(w - v, axis=0).sum()) for w, v in matrices]
    ratios = sum((m / n) ** (2 / 3) for m, n in zip(moved, norms, strict=True) if n > 0)
    return {
        "parameters": float(sum(x.size for x in leaves)),
        "parameter norm": math.sqrt(sum(float(np.sum(x**2)) for x in leaves)),
        "distance from start": math.sqrt(sum(float(np.sum((x - y) ** 2)) for x, y in zip(leaves, starts, strict=True))),
        "product of norms": product,
        "spectral complexity": input_radius / margin * product * ratios**1.5,
    }
