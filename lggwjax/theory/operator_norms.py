"""How much an equation can lengthen its operand: linear layers by power iteration, rounded up by its own error."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Primitive
from jaxtyping import Array, Float

from lggwjax.jaxprs import shape_of

FAILURE = 1e-6
"""Probability, over the random start, with which one norm may come out too small."""

ITERATIONS = 200
VIEWS = frozenset({"reshape", "transpose", "squeeze", "expand_dims", "rev", "copy", "slice", "convert_element_type"})
_CONTRACTIONS = frozenset({"tanh", "abs", "neg"})  # 1-Lipschitz, 0 at 0
_ROUNDING = 1e-3  # of float32 products: their relative errors are averaged, not multiplied, along the iteration


def operator_norms(
    primitive: Primitive, params: dict, weights: Float[Array, "T ..."], input_shape: tuple[int, ...], *, side: int
) -> Float[np.ndarray, " T"]:
    r"""Bound the norms of T linear maps that an equation makes of its other operand, from above.

    .. math:: |W| \le \Big( \frac{0.8 \sqrt d}{\delta} \Big)^{1/k} \big( x^\top (W^\top W)^k x \big)^{1/(2k)}

    for a uniformly random unit vector x in d dimensions, with probability :math:`1 - \delta` (Dixon 1983): a few
    percent above the norm itself.

    Args:
        primitive: ``dot_general`` or ``conv_general_dilated``.
        params: Its parameters.
        weights: The T weights.
        input_shape: Of the other operand.
        side: Which operand that other one is: 0 or 1.

    Returns:
        One bound a weight; each fails with a probability of at most ``FAILURE``.

    References:
        J. D. Dixon, Estimating extremal eigenvalues and condition numbers of matrices, SIAM J. Numer. Anal. 20 (1983).
    """
    fixed = tuple(sorted(params.items()))
    logs = np.asarray(_log_moments(primitive, fixed, weights, tuple(input_shape), side), np.float64)
    power = 2 * ITERATIONS + 1
    excess = math.log(0.8 * math.sqrt(math.prod(input_shape)) / FAILURE) / power
    return np.exp(logs / (2 * power) + max(excess, 0.0)) * (1 + _ROUNDING)


@partial(jax.jit, static_argnames=("primitive", "params", "shape", "side"))
def _log_moments(primitive: Primitive, params: tuple, weights, shape: tuple[int, ...], side: int) -> Float[Array, " T"]:
    """Logarithms of ``x^T (W^T W)^k x`` for k = 2 ITERATIONS + 1."""
    start = jax.random.normal(jax.random.key(0), shape, weights.dtype)
    start = start / jnp.linalg.norm(start)

    def one(weight):
        # Squares of small weights would underflow.
        scale = jnp.maximum(jnp.abs(weight).max(), jnp.finfo(weight.dtype).tiny)

        def forward(vector):
            operands = (vector, weight / scale) if side == 0 else (weight / scale, vector)
            return primitive.bind(*operands, **dict(params))

        def step(vector, _):
            image, transpose = jax.vjp(forward, vector)
            (back,) = transpose(image)
            norm = jnp.sqrt(jnp.sum(back**2))
            return back / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny), jnp.log(norm)

        last, logs = jax.lax.scan(step, start, length=ITERATIONS)
        final = jnp.log(jnp.sqrt(jnp.sum(forward(last) ** 2)))
        return 2 * (logs.sum() + final) + 2 * (2 * ITERATIONS + 1) * jnp.log(scale)

    return jax.lax.map(one, weights)


def lipschitz_constant(eqn: JaxprEqn, growth: float) -> float | None:
    """Lipschitz constant of an operation on one value that leaves 0 at 0; None if it is not known to have one."""
    name, params = eqn.primitive.name, eqn.params
    if name == "convert_element_type":
        is_exact = jnp.issubdtype(params["new_dtype"], jnp.floating) and jnp.dtype(params["new_dtype"]).itemsize >= 4
        return 1.0 if is_exact else None
    if name in VIEWS | _CONTRACTIONS | {"reduce_max"}:
        return 1.0
    if name in ("broadcast_in_dim", "reduce_sum"):
        return math.sqrt(max(growth, 1 / growth))
    if name in ("reduce_window_sum", "reduce_window_max") and set(params["window_dilation"]) == {1}:
        window, strides = params["window_dimensions"], params["window_strides"]
        times = math.prod(math.ceil(size / stride) for size, stride in zip(window, strides, strict=True))
        return math.sqrt(times * (math.prod(window) if name == "reduce_window_sum" else 1))
    return None


def overlap(eqn: JaxprEqn, side: int) -> tuple[int, bool]:
    """In how many patches an input entry lies at most, and whether the gradient is a sum over positions."""
    if eqn.primitive.name == "dot_general":
        (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
        taken = len(((left, right)[side], (left_batch, right_batch)[side])[0]) + len((left_batch, right_batch)[side])
        return 1, len(shape_of(eqn.invars[side])) > taken
    spec = eqn.params["dimension_numbers"].rhs_spec[2:]
    window = [shape_of(eqn.invars[1])[axis] for axis in spec]
    steps = [
        stride if dilation == 1 else 1
        for stride, dilation in zip(eqn.params["window_strides"], eqn.params["rhs_dilation"], strict=True)
    ]
    return math.prod(math.ceil(size / step) for size, step in zip(window, steps, strict=True)), True
