r"""Gaussian width of finite sets: from points, from a Gram matrix, from projections that arrive in a stream.

The inner products of N points with a Gaussian direction are jointly normal with the points' Gram matrix as covariance,
so a width needs no direction of the points' own dimension p: any factor C with C C^T equal to the Gram matrix, and
normals in as many coordinates as C has columns, give the same law (lggwjax/theory/README.md, section 2).

Each direction gives one half-range, (max - min)/2: unbiased, unmoved by translation draw by draw, and of variance at
most diam^2/8. Where the whole direction is known, the half-range is multiplied by E|z|/|z| (the radial factor), which
keeps the mean and never raises the variance.
"""

from __future__ import annotations

import functools
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its parts at their first use
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from lggwjax.widths.closed_form import expected_chi
from lggwjax.widths.estimate import Moments, WidthEstimate
from lggwjax.widths.factor import Factor, binary_scale, check_factor, factor_gram, factor_points, require_gram

DRAWS_PER_BLOCK = 64  # draws to a key; one shape for every number of draws, so none compiles anew
WIDE_BLOCK = 16  # of these at once where there are as many
WIDE_FLOATS = 2**20  # unless their products with the points would be more numbers than this
NUM_SCRAMBLES = 16  # independent randomisations of the quasi-random sampler
SOBOL_MAX_DIM = 21_201
_MANY_POINTS = 256  # worth leaving out half of a product for
_HIGHEST = jax.lax.Precision.HIGHEST

Sampler = Literal["iid", "rqmc"]


def gaussian_width(
    key: Key[Array, ""],
    points: Float[Array, "N p"],
    *,
    num_draws: int | Int[Array, ""] | None = None,
    tolerance: float | None = None,
    sampler: Sampler = "iid",
) -> WidthEstimate:
    r"""Estimate the Gaussian width of finitely many points.

    .. math:: w(A) = \mathbb{E}_{g \sim N(0, I_p)} \max_{a \in A} \langle g, a \rangle

    Guarantees (for a fixed ``key``, up to rounding):
        * Moving every point by the same vector leaves every draw as it is.
        * Scaling every point by ``s`` scales every draw by ``|s|``.

    Args:
        key: One PRNG key, consumed here.
        points: The set, one point a row; loss gradients have the unit loss per unit of parameter.
        num_draws: Gaussian directions, at least 2; may be traced. Default 1024.
        tolerance: Relative standard error asked for, instead of ``num_draws``; outside ``jit`` only. A pilot of 64
            draws, thrown away, fixes the number of fresh draws.
        sampler: ``"iid"``, or ``"rqmc"`` (scrambled Sobol points, on the host): far fewer draws for sets that look like
            an optimisation path, no gain for clouds without a preferred direction.

    Returns:
        The estimate, in the unit of ``points``. For points sampled from a larger set it is, on average, a lower
        bound on the width of that set.

    Raises:
        ValueError: If ``points`` is not of shape (N, p) with N >= 1, is not finite, or ``num_draws < 2``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> segment = jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> width = gaussian_width(jax.random.key(0), segment)
        >>> bool(abs(width.value - 5 / jnp.sqrt(2 * jnp.pi)) <= 4 * width.stderr + width.rounding)
        True

    References:
        lggwjax/theory/README.md, section 2; Vershynin (2018), High-Dimensional Probability, section 7.5.
    """
    points = _floating(points)
    if points.ndim != 2 or points.shape[0] < 1 or points.shape[1] < 1:
        raise ValueError(
            f"Expected points of shape (N, p) with N >= 1 and p >= 1, got {points.shape}. One point a row."
        )
    require_finite("points", points)
    return width_from_factor(key, factor_points(points), num_draws=num_draws, tolerance=tolerance, sampler=sampler)


def width_from_gram(
    key: Key[Array, ""],
    gram: Float[Array, "N N"],
    *,
    num_draws: int | Int[Array, ""] | None = None,
    tolerance: float | None = None,
    sampler: Sampler = "iid",
) -> WidthEstimate:
    r"""Estimate the Gaussian width of N points from their Gram matrix alone.

    Guarantees (for a fixed ``key``, up to rounding):
        * The width is that of any points with this Gram matrix.
        * Points appended at the end leave the draws of the earlier ones as they are when ``num_draws`` and the padded
          size stay the same, because the factor is a Cholesky factor in order of arrival.

    Args:
        key: One PRNG key, consumed here.
        gram: Inner products of the points; symmetric and positive semidefinite up to rounding.
        num_draws: Gaussian directions, at least 2; may be traced. Default 1024.
        tolerance: Relative standard error asked for, instead of ``num_draws``; outside ``jit`` only.
        sampler: ``"iid"`` or ``"rqmc"``, see :func:`gaussian_width`.

    Returns:
        The estimate, in the square root of the unit of ``gram``.

    Raises:
        ValueError: If ``gram`` is not square, not finite, not symmetric, or has an entry that no Gram matrix can have.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> width = width_from_gram(jax.random.key(0), jnp.eye(10))
        >>> bool(abs(width.value - 1.538753) < 4 * width.stderr)
        True

    References:
        lggwjax/theory/README.md, section 2.
    """
    gram = _floating(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] < 1:
        raise ValueError(f"Expected a Gram matrix of shape (N, N) with N >= 1, got {gram.shape}.")
    require_finite("gram", gram)
    require_gram(gram)
    factor = factor_gram(gram)
    check_factor(factor, gram.dtype)
    return width_from_factor(key, factor, num_draws=num_draws, tolerance=tolerance, sampler=sampler)


def width_from_factor(
    key: Key[Array, ""],
    factor: Factor,
    *,
    num_draws: int | Int[Array, ""] | None = None,
    tolerance: float | None = None,
    sampler: Sampler = "iid",
) -> WidthEstimate:
    """Estimate a width from a factor: the one place where Gram matrices become numbers.

    A leading axis of ``factor`` (n, N, d) stands for n sets that share their directions; the result is then the
    mean of their n widths, with the error bar of that mean.

    Args:
        key: One PRNG key, consumed here.
        factor: One set, or n sets along a leading axis.
        num_draws: Gaussian directions, at least 2; may be traced. Default 1024.
        tolerance: Relative standard error asked for, instead of ``num_draws``; outside ``jit`` only.
        sampler: ``"iid"`` or ``"rqmc"``.

    Returns:
        The estimate; ``counts`` are summed over the n sets.

    Raises:
        ValueError: If ``num_draws < 2``, both ``num_draws`` and ``tolerance`` are given, or ``sampler`` is unknown.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> factor = Factor(jnp.array([[0.0], [5.0]]), jnp.array(5.0), jnp.array(5.0))
        >>> round(float(width_from_factor(jax.random.key(0), factor).value), 4)
        1.9947
    """
    if sampler not in ("iid", "rqmc"):
        raise ValueError(f'Expected sampler "iid" or "rqmc", got {sampler!r}.')
    if tolerance is not None:
        if num_draws is not None:
            raise ValueError("Expected num_draws or tolerance, got both. Pass one of them.")
        key, pilot_key = jax.random.split(key)
        pilot = width_from_factor(pilot_key, factor, num_draws=DRAWS_PER_BLOCK)
        num_draws = draws_for(pilot, tolerance)
    num_draws = check_num_draws(1024 if num_draws is None else num_draws)
    if sampler == "rqmc":
        return _rqmc_width(key, _stacked(factor), num_draws)
    return _iid_width(key, factor, num_draws)


def check_num_draws(num_draws: int | Int[Array, ""]) -> Int[Array, ""]:
    """Return ``num_draws`` as an array, refused where it is known and below 2, since one draw has no error bar."""
    if not isinstance(num_draws, Tracer):
        whole = isinstance(num_draws, int | np.integer) or jnp.issubdtype(jnp.result_type(num_draws), jnp.integer)
        if not whole or not 2 <= int(num_draws) < 2**31 - DRAWS_PER_BLOCK:
            raise ValueError(
                f"Expected num_draws >= 2, a whole number below 2e9, got {num_draws!r}. One draw has no standard error."
            )
    return jnp.asarray(num_draws, jnp.int32)


def draws_for(pilot: WidthEstimate, tolerance: float) -> int:
    """Fix the number of draws that reach a relative standard error, from a pilot that is then thrown away.

    Drawing until the error looks small enough would bias the mean and void the guaranteed interval.

    Args:
        pilot: An estimate from a few draws, not reused.
        tolerance: Relative standard error asked for.

    Returns:
        Draws, at least 64, a multiple of 64 (of 1,024 where that adds an eighth at most: wide blocks take half the time
        a draw), with a fifth more than the pilot's own noisy spread asks for.

    Raises:
        ValueError: If ``tolerance`` is not positive or the pilot is traced.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> draws_for(width_from_gram(jax.random.key(0), jnp.eye(10), num_draws=64), 0.01) % 64
        0
    """
    if isinstance(pilot.value, Tracer):
        raise ValueError("Expected tolerance= outside jit and vmap, got a traced call. Pass num_draws= there.")
    if not 0 < tolerance < 1:
        raise ValueError(f"Expected tolerance between 0 and 1, got {tolerance}. 0.01 asks for 1% standard error.")
    if float(pilot.value) == 0:
        return DRAWS_PER_BLOCK
    relative = float(pilot.stderr / pilot.value) * float(pilot.num_draws) ** 0.5
    wanted = 1.2 * (relative / tolerance) ** 2
    wide = DRAWS_PER_BLOCK * WIDE_BLOCK
    unit = wide if -(-wanted // wide) * wide <= 1.125 * wanted else DRAWS_PER_BLOCK
    return unit * max(1, int(min(-(-wanted // unit), 2**31 // unit - 1)))


def _stacked(factor: Factor) -> Factor:
    return factor if factor.rows.ndim == 3 else Factor(*(leaf[None] for leaf in factor))


@jax.jit
def _iid_width(key, factor: Factor, num_draws: Int[Array, ""]) -> WidthEstimate:
    """Mean over the draws of the mean half-range of n sets; the trip counts are traced.

    Every 64 draws have a key of their own. Many of these go through one product, which is faster; what is left over
    goes through products of 64, so that a small number of draws stays cheap.
    """
    factor = _stacked(factor)
    num_sets, num_points, dim = factor.rows.shape
    unit = binary_scale(factor.rows)
    rows = factor.rows / unit
    wide = max(1, min(WIDE_BLOCK, WIDE_FLOATS // (num_sets * num_points * DRAWS_PER_BLOCK)))
    pieces = 4 if num_points >= _MANY_POINTS and dim == num_points - 1 else 1  # then the rows are triangular

    def block(first, width, carry):
        moments, counts = carry
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(first + jnp.arange(width))
        z = jax.vmap(lambda k: jax.random.normal(k, (DRAWS_PER_BLOCK, dim), rows.dtype))(keys).reshape(-1, dim)
        half, highest, lowest = _half_ranges(rows, z, pieces)
        half = half * (expected_chi(dim) / jnp.linalg.norm(z, axis=1))
        keep = first * DRAWS_PER_BLOCK + jnp.arange(len(z)) < num_draws
        once = jnp.broadcast_to(keep[:, None].astype(jnp.int32), highest.shape)
        counts = counts.at[highest].add(once, mode="drop").at[lowest].add(once, mode="drop")
        return moments.add(half, keep.astype(rows.dtype)), counts

    carry = (Moments.empty(dtype=rows.dtype), jnp.zeros(num_points, jnp.int32))
    num_blocks = (num_draws + DRAWS_PER_BLOCK - 1) // DRAWS_PER_BLOCK
    done = 0
    for width in sorted({wide, 1}, reverse=True):
        rounds = (num_blocks - done) // width
        carry = jax.lax.fori_loop(0, rounds, lambda i, c, d=done, w=width: block(d + i * w, w, c), carry)
        done = done + rounds * width
    moments, counts = carry
    return _assemble(factor, unit * moments.mean, unit * moments.stderr, counts, num_draws, num_draws)


@functools.partial(jax.jit, static_argnames="pieces")
def _half_ranges(rows: Float[Array, "n N d"], z: Float[Array, "k d"], pieces: int = 1):
    """Mean half-range over the sets for each direction, and which point of each set was highest and lowest.

    Where rows are lower triangular they may be cut into pieces, whose zeros are then left out.
    """
    num_points, dim = rows.shape[1:]
    cuts = [num_points * piece // pieces for piece in range(pieces + 1)]
    scores = []
    for start, stop in itertools.pairwise(cuts):
        ends = min(stop, dim)
        part = rows[:, start:stop, :ends]
        scores.append(jax.lax.dot_general(z[:, :ends], part, (((1,), (2,)), ((), ())), precision=_HIGHEST))
    high = functools.reduce(jnp.maximum, [part.max(-1) for part in scores])
    low = functools.reduce(jnp.minimum, [part.min(-1) for part in scores])

    def first(extreme):
        # An argmax would take as long as the product; where a NaN leaves none equal, no point is named.
        named = []
        for start, part in zip(cuts, scores, strict=False):
            index = start + jax.lax.broadcasted_iota(jnp.int32, part.shape, part.ndim - 1)
            named.append(jnp.where(part == extreme[..., None], index, num_points).min(-1))
        return functools.reduce(jnp.minimum, named)

    return ((high - low) / 2).mean(-1), first(high), first(low)


def _rqmc_width(key, factor: Factor, num_draws: Int[Array, ""]) -> WidthEstimate:
    """Means of half-ranges over independently scrambled Sobol points; the error bar is over the scrambles."""
    if isinstance(factor.rows, Tracer) or isinstance(num_draws, Tracer):
        raise ValueError('Expected sampler="rqmc" outside jit and vmap, got a traced call. It runs on the host.')
    if factor.rows.shape[-1] > SOBOL_MAX_DIM:
        raise ValueError(
            f"Expected at most {SOBOL_MAX_DIM} dimensions with sampler='rqmc', got {factor.rows.shape[-1]}. "
            "Use sampler='iid'."
        )
    unit = binary_scale(factor.rows)
    rows = _principal_coordinates(factor.rows / unit)
    log2_points = max(0, -(-int(num_draws) // NUM_SCRAMBLES) - 1).bit_length()
    seeds = jax.random.randint(key, (NUM_SCRAMBLES,), 0, jnp.iinfo(jnp.int32).max)
    moments, counts = Moments.empty(dtype=rows.dtype), jnp.zeros(rows.shape[1], jnp.int32)
    for seed in seeds:
        uniforms = scipy.stats.qmc.Sobol(rows.shape[-1], scramble=True, rng=int(seed)).random_base2(log2_points)
        # Sobol points are multiples of 2^-32 or so: 0 would map to minus infinity.
        z = jnp.asarray(scipy.stats.norm.ppf(uniforms.clip(2.0**-33, 1 - 2.0**-33)), rows.dtype)
        half, highest, lowest = _half_ranges(rows, z)
        moments = moments.add(half.mean()[None], jnp.ones(1, rows.dtype))
        counts = counts.at[highest].add(1).at[lowest].add(1)
    drawn = NUM_SCRAMBLES * 2**log2_points
    return _assemble(factor, unit * moments.mean, unit * moments.stderr, counts, drawn, NUM_SCRAMBLES)


@jax.jit
def _principal_coordinates(rows: Float[Array, "n N d"]) -> Float[Array, "n N d"]:
    """Rotate so that the first coordinates carry the most variance: Sobol points are best there."""
    flat = rows.reshape(-1, rows.shape[-1])
    _, vectors = jnp.linalg.eigh(jnp.einsum("ad,ae->de", flat, flat, precision=_HIGHEST))
    return jnp.einsum("nad,de->nae", rows, vectors[:, ::-1], precision=_HIGHEST)


def _assemble(factor: Factor, value, stderr, counts, num_draws, num_replicates) -> WidthEstimate:
    """Put a result together, with width 0 and stderr 0 where the set is one point, NaN where it is not finite."""
    eps = jnp.finfo(factor.rows.dtype).eps
    # A maximum may pass over a NaN.
    value, stderr = (jnp.where(jnp.isfinite(factor.rows).all(), number, jnp.nan) for number in (value, stderr))
    diameter = factor.diameter.mean()
    # First order: a Gram entry is off by eps |a|^2, so a distance D by eps |a|^2 / D, and by sqrt(eps) |a| at most.
    safe = jnp.where(factor.diameter > 0, factor.diameter, 1)
    slack = factor.norm * jnp.minimum(16 * eps * (factor.norm / safe), 4 * jnp.sqrt(eps))
    rounding = jnp.where(factor.diameter > 0, slack + 16 * eps * factor.diameter, 0).mean()
    return WidthEstimate(
        value=jnp.where(diameter == 0, 0, value),
        stderr=jnp.where(diameter == 0, 0, stderr),
        num_draws=jnp.asarray(num_draws, jnp.int32),
        num_replicates=jnp.asarray(num_replicates, jnp.int32),
        rounding=rounding,
        diameter=diameter,
        counts=counts,
        diameter_is_exact=jnp.asarray(True),
    )


def _floating(array) -> Float[Array, "..."]:
    """At least float32: a Gram matrix in half precision has two digits."""
    array = jnp.asarray(array)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"Expected real numbers, got {array.dtype}. Pass real and imaginary parts as coordinates.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def require_finite(name: str, array: Float[Array, "..."]) -> None:
    """Refuse values that are not finite; inside a trace nothing is known, and the result becomes NaN by itself."""
    if isinstance(array, Tracer):
        return
    # In numpy: inside jit, operations of jax on a constant would be traced and could not be looked at.
    values = np.asarray(array)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"Expected finite {name}, got {values[where]} at index {where}. Remove or mend it, or rescale."
        )
