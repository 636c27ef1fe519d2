"""From points or a Gram matrix to a factor: coordinates in which the draws are made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

NARROW = 1e-4  # below this share of the largest squared norm, a float32 Gram has lost the squared diameter
_CHOLESKY_BLOCK = 96  # twice that is small enough for LAPACK to stay on one thread
_LARGE_CHOLESKY = 1024  # beyond, its threads are worth their noise
_UNDERFLOW = 1e6  # a sum of products of layer factors is this much above what its parts have rounded to
_HIGHEST = jax.lax.Precision.HIGHEST


class Factor(NamedTuple):
    """A set of N points up to translation and rotation.

    Attributes:
        rows: C, one point a row, the first of them at the origin; d columns. Where there are N - 1 columns, row i has
            zeros from column i on.
        diameter: Largest distance between two points.
        norm: Largest norm of a point before translation: what rounding is relative to.
    """

    rows: Float[Array, "N d"]
    diameter: Float[Array, ""]
    norm: Float[Array, ""]


@jax.jit
def factor_points(points: Float[Array, "N p"]) -> Factor:
    """Translate to the first point; the points are their own factor when there are few coordinates."""
    moved = points - points[:1]
    unit = binary_scale(moved)
    moved = moved / unit
    gram = jnp.einsum("ap,bp->ab", moved, moved, precision=_HIGHEST)
    if moved.shape[0] > moved.shape[1] + 1:
        diameter = jnp.sqrt(_squared_distances(gram).max())
        factor = Factor(moved, diameter, diameter)
    else:
        factor = factor_moved_gram(gram)
    return Factor(*(unit * leaf for leaf in factor))


def binary_scale(array: Float[Array, "..."]) -> Float[Array, ""]:
    """Power of two at or below the largest entry: dividing by it is exact, and squares neither overflow nor vanish."""
    largest = jnp.max(jnp.abs(array))
    usable = (largest > 0) & jnp.isfinite(largest)
    exponent = jnp.frexp(jnp.where(usable, largest, 1))[1] - 1
    return jnp.ldexp(jnp.ones((), array.dtype), exponent)


@jax.jit
def factor_gram(gram: Float[Array, "N N"]) -> Factor:
    """Translate to the first point, then factor."""
    moved = gram - gram[:1] - gram[:, :1] + gram[0, 0]
    norm = jnp.sqrt(jnp.max(jnp.diagonal(gram)))
    return factor_moved_gram(moved)._replace(norm=norm)


@jax.jit
def factor_moved_gram(gram: Float[Array, "N N"], ancestors: Float[Array, "N N"] | None = None) -> Factor:
    """Factor the Gram matrix of points whose first is the origin: Cholesky in order of arrival.

    The matrix is scaled to unit diagonal, so that points near the origin keep their own relative accuracy, and shifted
    by 4 sqrt(N) eps (more where that fails), because semidefinite up to rounding is not enough for Cholesky. A column
    whose pivot is of the size of the shift would carry the shift as noise (two equal points would drift apart) and is
    dropped.

    Args:
        gram: Inner products relative to the first point, or each relative to its reference: row and column 0 are zero.
        ancestors: From :func:`ancestor_matrix` where a point's reference is not the first; short differences far from
            the first point then keep their accuracy.

    Returns:
        The factor; N - 1 columns, or one for a single point.
    """
    inner = gram[1:, 1:] if gram.shape[0] > 1 else gram
    num = inner.shape[0]
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(inner), 0))
    present = (lengths > 0) & ~_underflown(inner, lengths)
    scale = jnp.where(present, lengths, 1)
    unit = jnp.where(present[:, None] & present[None, :], inner / scale[:, None] / scale[None, :], 0)

    def attempt(state):
        tries, shift, _ = state
        return tries + 1, 16 * shift, _cholesky(unit + jnp.diag(jnp.where(present, shift, 1.0)))

    shift = jnp.asarray(4 * num**0.5 * jnp.finfo(gram.dtype).eps, gram.dtype)
    start = (0, shift, jnp.full_like(unit, jnp.nan))
    _, next_shift, lower = jax.lax.while_loop(lambda s: (s[0] < 4) & ~jnp.isfinite(s[2]).all(), attempt, start)
    # A pivot squared is the unexplained share of the point, plus the shift.
    lower = jnp.where((jnp.diagonal(lower) ** 2 <= 4 * next_shift / 16)[None, :], 0, lower)
    rows = lengths[:, None] * lower
    if gram.shape[0] > 1:
        rows = jnp.concatenate([jnp.zeros((1, num), gram.dtype), rows])
    if ancestors is not None:
        rows = jnp.einsum("ab,bd->ad", ancestors.astype(rows.dtype), rows, precision=_HIGHEST)
        gram = jnp.einsum("ad,bd->ab", rows, rows, precision=_HIGHEST)
    norm = jnp.sqrt(jnp.maximum(jnp.max(jnp.diagonal(gram)), 0))
    return Factor(rows, jnp.sqrt(_squared_distances(gram).max()), norm)


def _underflown(inner: Float[Array, "N N"], lengths: Float[Array, " N"]) -> Bool[Array, " N"]:
    """Points so near the origin that their squares have lost their digits below the smallest normal number.

    Their products with longer points have not, and would contradict Cauchy and Schwarz; the point is as good as at the
    origin.
    """
    near = lengths**2 <= _UNDERFLOW * jnp.finfo(inner.dtype).tiny
    excess = jnp.abs(inner) > 1.01 * lengths[:, None] * lengths[None, :]
    return near & jnp.any(excess, axis=1)


def _cholesky(matrix: Float[Array, "N N"]) -> Float[Array, "N N"]:
    r"""Lower Cholesky factor of a matrix with ones on its diagonal; NaN where it is not positive definite.

    On a CPU one large call of LAPACK is made many small ones. Its threads would go on spinning for some 30 ms after a
    large call, and take the processor from the draws that follow, which take less than that. What stands below a
    diagonal block is had from the factor of a matrix twice the block's size:

    .. math:: \begin{pmatrix} A & B^\top \\ B & c I \end{pmatrix} \text{ has the factor }
        \begin{pmatrix} L & 0 \\ B L^{-\top} & \ast \end{pmatrix}, \quad A = L L^\top
    """
    num, size = matrix.shape[0], _CHOLESKY_BLOCK
    if jax.default_backend() != "cpu" or not 2 * size < num <= _LARGE_CHOLESKY:
        return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    rest = jax.scipy.linalg.block_diag(matrix, jnp.eye(-num % size, dtype=matrix.dtype))
    padded = rest.shape[0]
    # c above the largest eigenvalue of what stands there in truth, which is at most the block's trace.
    corner = 2 * size * jnp.eye(size, dtype=matrix.dtype)
    columns = []
    while len(rest) > size:
        above, below = rest[:size, :size], rest[size:, :size].reshape(-1, size, size)
        pair = lambda block, above=above: jnp.block([[above, block.T], [block, corner]])  # noqa: E731
        factors = jax.lax.linalg.cholesky(jax.vmap(pair)(below), symmetrize_input=False)
        column = jnp.concatenate([factors[0, :size, :size], factors[:, size:, :size].reshape(-1, size)])
        columns.append(jnp.pad(column, ((padded - len(rest), 0), (0, 0))))
        below = column[size:]
        rest = rest[size:, size:] - jnp.einsum("ai,bi->ab", below, below, precision=_HIGHEST)
    last = jax.lax.linalg.cholesky(rest, symmetrize_input=False)
    columns.append(jnp.pad(last, ((padded - size, 0), (0, 0))))
    return jnp.concatenate(columns, axis=1)[:num, :num]


def ancestor_matrix(references: Sequence[int], size: int | None = None) -> np.ndarray | None:
    """Which differences add up to each point: its own, its reference's, and so on back to the first point.

    Args:
        references: For each point the one its difference is taken from; at most its own index, the first its own.
        size: Rows and columns, at least the number of points; points that have not arrived stand for themselves.

    Returns:
        A matrix of zeros and ones; None where every reference is the first point and no size is given.

    Example:
        >>> ancestor_matrix([0, 0, 1]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    """
    if size is None and not any(references):
        return None
    matrix = np.eye(size or len(references), dtype=np.float32)
    for index, reference in enumerate(references):
        if reference != index:
            matrix[index] += matrix[reference] * (reference != 0)
    return matrix


def _squared_distances(gram: Float[Array, "N N"]) -> Float[Array, "N N"]:
    squares = jnp.diagonal(gram)
    return jnp.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)


def require_gram(gram: Float[Array, "N N"]) -> None:
    """Refuse, outside a trace, a matrix that is not symmetric or has an entry that no Gram matrix can have."""
    if isinstance(gram, Tracer):
        return
    values = np.asarray(gram)  # inside jit, operations of jax on a constant would be traced
    largest = float(np.abs(np.diagonal(values)).max())
    allowed = 1e3 * float(jnp.finfo(gram.dtype).eps) * largest
    if float(np.abs(values - values.T).max()) > allowed:
        raise ValueError(
            "Expected a symmetric Gram matrix, got one that differs from its transpose. Pass points @ points.T."
        )
    if float(np.diagonal(values).min()) < -allowed or float(np.abs(values).max()) > largest + allowed:
        raise ValueError("Expected a positive semidefinite Gram matrix, got one that no points can have.")


def is_narrow(factor: Factor, dtype: jnp.dtype) -> bool:
    """Whether float32 has lost the distances to the norms; inside a trace nothing is known, and the answer is no."""
    if isinstance(factor.rows, Tracer) or dtype != jnp.float32:
        return False
    return 0 < float(factor.diameter) ** 2 < NARROW * float(factor.norm) ** 2


def check_factor(factor: Factor, dtype: jnp.dtype) -> None:
    """Warn where float32 has lost the distances to the norms; refuse a matrix that is indefinite for no such reason.

    Inside a trace nothing is known, and nothing is said.
    """
    if isinstance(factor.rows, Tracer):
        return
    if is_narrow(factor, dtype):
        warnings.warn(
            "The points differ by less than 1% of their norm: a float32 Gram matrix has lost most of their distances. "
            "Subtract one point from all before multiplying (lggw and gaussian_width do), or use float64.",
            stacklevel=3,
        )
    elif not np.isfinite(np.asarray(factor.rows)).all():
        raise ValueError("Expected a positive semidefinite Gram matrix, got one that no points can have.")
