r"""Exact Gaussian widths: the oracle of the tests and the reference curve of the plots.

Host functions in float64 that return Python floats, with a relative error of about 1e-13 where nothing else is said. A
width is linear in the size of its set: a ball of radius r has r times the width of the unit ball.

===================================================  ===================================================
set                                                  width
===================================================  ===================================================
one point; {v, -v}; {a, b} or the segment between    ``segment(0)``; ``segment(2 |v|)``; ``segment(|a - b|)``
{e_1 .. e_N} or its hull, the simplex                ``expected_max_normal(N)``
N points, any two at the same distance               ``equidistant_points(N, distance)``
l2 unit ball of R^d, or of a d-dimensional subspace  ``expected_chi(d)``
l1 unit ball of R^d                                  ``expected_max_abs_normal(d)``
box; linf unit ball of R^d                           ``box(sides)``; ``box([2] * d)``
planar convex set                                    ``polygon(vertices)``
ellipsoid                                            ``ellipsoid(singular_values)``
k-sparse unit ball of R^d                            ``sparse_ball(d, k)``, ``sparse_ball_bound(d, k)``
nuclear-norm unit ball, the hull of the unit u v^T   ``nuclear_ball_bound(m, n)``; 2 x 2: ``NUCLEAR_BALL_2X2``
spectral-norm unit ball of 2 x 2 matrices            ``SPECTRAL_BALL_2X2``
===================================================  ===================================================

References:
    lggwjax/theory/README.md, section 1; Vershynin (2018), High-Dimensional Probability, section 7.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy  # loads scipy.special, .integrate and .spatial at their first use: together 0.3 s
from numpy.typing import ArrayLike

# Beyond t = 40 the upper Gaussian tail, 4e-350, is negligible even when multiplied by the largest count.
_TAIL_END = 40.0

NUCLEAR_BALL_2X2 = math.sqrt(math.pi)
"""Expected largest singular value of a 2 x 2 Gaussian matrix: the width of the nuclear-norm unit ball."""

SPECTRAL_BALL_2X2 = math.sqrt(math.pi) * (2 - 1 / math.sqrt(2))
"""Expected sum of the singular values of a 2 x 2 Gaussian matrix: the width of the spectral-norm unit ball."""


def expected_max_normal(num: int) -> float:
    r"""Expected maximum of ``num`` independent standard normals: the width of a simplex.

    .. math:: m_N = \int_0^\infty [1 - \Phi(t)^N - \Phi(-t)^N] \, dt,
        \qquad \sqrt{\ln N / (\pi \ln 2)} \le m_N \le \sqrt{2 \ln N}

    Args:
        num: How many normals, at least 1.

    Raises:
        ValueError: If ``num`` is not an integer from 1 to 1e300.

    Example:
        >>> round(expected_max_normal(10), 6)
        1.538753
    """
    count = float(_count("num", num))
    if count == 1.0:
        return 0.0

    def integrand(t: float) -> float:
        return -math.expm1(count * scipy.special.log_ndtr(t)) - math.exp(count * scipy.special.log_ndtr(-t))

    return _integrate_tail(integrand, float(-scipy.special.ndtri_exp(-math.log(count))))


def expected_max_abs_normal(num: int) -> float:
    r"""Expected largest modulus of ``num`` independent standard normals: the width of the l1 unit ball.

    .. math:: \mathbb{E} \max_i |g_i| = \int_0^\infty [1 - \mathrm{erf}(t / \sqrt 2)^N] \, dt \le \sqrt{2 \ln 2N}

    Args:
        num: How many normals, at least 1; the dimension of the ball.

    Raises:
        ValueError: If ``num`` is not an integer from 1 to 1e300.

    Example:
        >>> round(expected_max_abs_normal(10), 6)
        1.880716
    """
    count = float(_count("num", num))

    def integrand(t: float) -> float:
        # At t = 0 the logarithm is minus infinity and the integrand 1.
        return -math.expm1(count * math.log1p(-math.erfc(t / math.sqrt(2)))) if t > 0 else 1.0

    return _integrate_tail(integrand, float(-scipy.special.ndtri_exp(-math.log(2 * count))))


def expected_chi(dim: int) -> float:
    r"""Expected length of a standard Gaussian vector: the width of the l2 unit ball of a ``dim``-dimensional space.

    .. math:: \mathbb{E} |g_d| = \sqrt 2 \, \Gamma((d + 1) / 2) / \Gamma(d / 2),
        \qquad \sqrt{d - 1/2} \le \mathbb{E} |g_d| \le \sqrt d

    Args:
        dim: Dimension d, at least 1.

    Raises:
        ValueError: If ``dim`` is not an integer from 1 to 1e300.

    Example:
        >>> round(expected_chi(3), 6)
        1.595769
    """
    half = _count("dim", dim) / 2
    if half < 100:
        return math.sqrt(2) * math.gamma(half + 0.5) / math.gamma(half)
    # Differences of log-gammas lose digits as d grows; the expansion's next term is below 1e-16 from here on.
    coefficients = [1, -1 / 8, 1 / 128, 5 / 1024, -21 / 32768, -399 / 262144]
    return math.sqrt(2 * half) * float(np.polynomial.polynomial.polyval(1 / half, coefficients))


def segment(length: float) -> float:
    r"""Width of two points, and of the segment between them: :math:`|a - b| / \sqrt{2\pi}`.

    Args:
        length: Distance of the two points; 0 for one point.

    Raises:
        ValueError: If ``length`` is negative or not finite.

    Example:
        >>> round(segment(2.0), 6)
        0.797885
    """
    return float(_sizes("length", [length])[0]) / math.sqrt(2 * math.pi)


def equidistant_points(num: int, distance: float) -> float:
    r"""Width of ``num`` points of which any two are ``distance`` apart: :math:`s \, m_N / \sqrt 2`.

    Args:
        num: Number of points N, at least 1.
        distance: The common distance s.

    Raises:
        ValueError: If ``num`` is not an integer from 1 to 1e300, or ``distance`` is negative or not finite.

    Example:
        >>> bool(np.isclose(equidistant_points(2, 3.0), segment(3.0)))
        True
    """
    return float(_sizes("distance", [distance])[0]) * expected_max_normal(num) / math.sqrt(2)


def box(sides: ArrayLike) -> float:
    r"""Width of a box: :math:`\sum_i s_i / \sqrt{2\pi}`, the Minkowski sum of its sides.

    Args:
        sides: Lengths of the sides, shape (d,); the linf unit ball has sides 2.

    Raises:
        ValueError: If ``sides`` is not of shape (d,) with d >= 1, or has a negative or non-finite entry.

    Example:
        >>> round(box([2.0, 2.0]), 6)
        1.595769
    """
    return math.fsum(_sizes("sides", sides)) / math.sqrt(2 * math.pi)


def polygon(vertices: ArrayLike) -> float:
    r"""Width of the convex hull of points in a plane: perimeter :math:`/ (2 \sqrt{2\pi})`.

    Args:
        vertices: Points in any order, shape (n, 2); points inside the hull change nothing. A flat hull of length s
            has perimeter 2 s.

    Raises:
        ValueError: If ``vertices`` is not of shape (n, 2) with n >= 1, or is not finite.

    Example:
        >>> bool(np.isclose(polygon([[0, 0], [1, 1], [1, 0], [0, 1]]), box([1.0, 1.0])))
        True
    """
    points = np.asarray(vertices, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or points.shape[0] == 0:
        raise ValueError(f"Expected vertices of shape (n, 2) with n >= 1, got {points.shape}. Pass one point a row.")
    if not np.isfinite(points).all():
        raise ValueError("Expected finite vertices, got NaN or infinity. Remove these rows.")
    # Centred and scaled first: Qhull judges flatness relative to the largest coordinate.
    points = points - points[0]
    scale = float(np.abs(points).max())
    if scale == 0.0:
        return 0.0
    points = points / scale
    try:
        hull = points[scipy.spatial.ConvexHull(points).vertices]
        perimeter = np.linalg.norm(hull - np.roll(hull, 1, axis=0), axis=1).sum()
    except scipy.spatial.QhullError:  # flat up to rounding, or fewer than three points
        axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        perimeter = 2 * np.ptp(points @ axis)
    return scale * float(perimeter) / (2 * math.sqrt(2 * math.pi))


def ellipsoid(singular_values: ArrayLike) -> float:
    r"""Width of the ellipsoid :math:`A B_2`, :math:`\mathbb{E} |A^T g|`, from the singular values of A.

    .. math:: w = \frac{2}{\sqrt\pi} \int_0^\infty \sum_i \frac{l_i^2}{1 + 2 l_i^2 x^2}
        \prod_i (1 + 2 l_i^2 x^2)^{-1/2} \, dx

    Guarantees:
        * :math:`\max(\sqrt{2/\pi} |A|_F, \sqrt{|A|_F^2 - |A|_{op}^2}) \le w \le |A|_F`.

    Args:
        singular_values: Half-axes l, shape (r,), in any order, zeros allowed; for the linearised gradients in a unit
            ball, the moduli of the Hessian's eigenvalues.

    Raises:
        ValueError: If ``singular_values`` is not of shape (r,) with r >= 1, or has a negative or non-finite entry.

    Example:
        >>> round(ellipsoid([1.0, 1.0, 1.0]), 6) == round(expected_chi(3), 6)
        True
    """
    values = _sizes("singular_values", singular_values)
    largest = float(values.max())
    if largest == 0.0:
        return 0.0
    squares = (values / largest) ** 2

    def weighted_laplace(t: float) -> float:
        scaled = 2 * t * squares
        return math.exp(-0.5 * np.log1p(scaled).sum()) * float((squares / (1 + scaled)).sum())

    return largest * _expected_root(weighted_laplace, float(squares.sum()))


def sparse_ball(dim: int, sparsity: int) -> float:
    r"""Width of the unit vectors with at most k nonzero entries: :math:`\mathbb{E} (\sum_{i \le k} g_{(i)}^2)^{1/2}`.

    The k largest moduli are, given the one after them, independent with a truncated law; so the Laplace transform of
    the sum of their squares is an integral over that one order statistic, and the width a second integral over it.

    Args:
        dim: Dimension of the space, at least 1.
        sparsity: Largest number k of nonzero entries, 1 to ``dim``.

    Raises:
        ValueError: If ``dim`` or ``sparsity`` is not an integer from 1 to 1e300, or ``sparsity > dim``.

    Example:
        >>> bool(np.isclose(sparse_ball(10, 1), expected_max_abs_normal(10)))
        True
    """
    bound = sparse_ball_bound(dim, sparsity)
    if sparsity == dim:
        return expected_chi(dim)
    # The tail probability p of the next modulus u is Beta(k + 1, dim - k): a density analytic in the logit of p, where
    # the trapezoid rule converges exponentially; 40 curvature scales to each side leave out less than 1e-17.
    upper, lower = sparsity + 1.0, float(dim - sparsity)
    logit = math.log(upper / lower) + math.sqrt(1 / upper + 1 / lower) * np.arange(-40.0, 40.1, 0.2)
    log_density = upper * scipy.special.log_expit(logit) + lower * scipy.special.log_expit(-logit)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    root_half_u = np.where(
        logit < 0, scipy.special.erfcinv(scipy.special.expit(logit)), scipy.special.erfinv(scipy.special.expit(-logit))
    )

    def weighted_laplace(t: float) -> float:
        z = root_half_u * math.sqrt(1 + 2 * t)
        ratio = scipy.special.erfcx(z) / scipy.special.erfcx(root_half_u)
        log_laplace = np.log(ratio) - 0.5 * math.log1p(2 * t) - 2 * t * root_half_u**2
        slope = (1 + 2 / math.sqrt(math.pi) * z / scipy.special.erfcx(z)) / (1 + 2 * t)
        return float(weights @ (np.exp(sparsity * log_laplace) * slope)) * sparsity

    return _expected_root(weighted_laplace, bound**2)


def sparse_ball_bound(dim: int, sparsity: int) -> float:
    r"""Upper bound for :func:`sparse_ball` without an integral, tight when k and d are large.

    .. math:: w \le \sqrt{d (s + 2 q \varphi(q))} \le \sqrt k + \sqrt{2 k \ln(e d / k)},
        \quad s = k/d, \ q = \Phi^{-1}(1 - s/2)

    Args:
        dim: Dimension d of the space, at least 1.
        sparsity: Largest number k of nonzero entries, 1 to ``dim``.

    Raises:
        ValueError: If ``dim`` or ``sparsity`` is not an integer from 1 to 1e300, or ``sparsity > dim``.

    Example:
        >>> sparse_ball(100, 10) <= sparse_ball_bound(100, 10)
        True
    """
    if _count("sparsity", sparsity) > _count("dim", dim):
        raise ValueError(f"Expected sparsity <= dim = {dim}, got {sparsity}. Lower the sparsity or raise dim.")
    share = sparsity / dim
    q = -float(scipy.special.ndtri(share / 2))
    return math.sqrt(sparsity + dim * 2 * q * math.exp(-(q**2) / 2) / math.sqrt(2 * math.pi))


def nuclear_ball_bound(rows: int, columns: int) -> float:
    r"""Upper bound :math:`\sqrt m + \sqrt n` for the width :math:`\mathbb{E} |G|_{op}` of the nuclear-norm unit ball.

    Args:
        rows: Number m of rows, at least 1.
        columns: Number n of columns, at least 1.

    Raises:
        ValueError: If ``rows`` or ``columns`` is not an integer from 1 to 1e300.

    Example:
        >>> nuclear_ball_bound(4, 9)
        5.0
    """
    return math.sqrt(_count("rows", rows)) + math.sqrt(_count("columns", columns))


def _integrate_tail(integrand: Callable[[float], float], middle: float) -> float:
    """Integral over the half-line of a function that falls from 1 to 0 around ``middle``, where it is cut in two."""
    parts = [(0.0, middle), (middle, _TAIL_END)]
    return math.fsum(scipy.integrate.quad(integrand, *part, epsabs=0.0, epsrel=1e-13, limit=500)[0] for part in parts)


def _expected_root(weighted_laplace: Callable[[float], float], mean: float) -> float:
    r"""E sqrt(S) for S >= 0 from t -> E[S exp(-t S)] and the size of E S.

    sqrt(S) = (2/sqrt(pi)) int_0^inf S exp(-x^2 S) dx has no cancellation at x = 0, unlike the form with 1 - exp(-t S).
    After x = sinh(y)/(2 sqrt(E S)) the integrand is even and analytic for |Im y| < pi/2, so the trapezoid rule of step
    h has error exp(-pi^2/h); its slowest decay, exp(-2 y), leaves out 1e-17 beyond y = 21.
    """
    step = 0.15
    y = np.arange(0.0, 21.0, step)
    scale = 0.5 / math.sqrt(mean)
    values = np.array([weighted_laplace(float(x) ** 2) for x in scale * np.sinh(y)]) * np.cosh(y)
    return 2 / math.sqrt(math.pi) * scale * step * float(values.sum() - values[0] / 2)


def _count(name: str, value: int) -> int:
    if not isinstance(value, int | np.integer) or not 1 <= value <= 10**300:
        raise ValueError(f"Expected an integer {name} from 1 to 1e300, got {value!r}. Pass a count in this range.")
    return int(value)


def _sizes(name: str, values: ArrayLike) -> np.ndarray:
    sizes = np.asarray(values, dtype=np.float64)
    if sizes.ndim != 1 or sizes.size == 0:
        raise ValueError(f"Expected {name} of shape (d,) with d >= 1, got {sizes.shape}. Pass one length an axis.")
    valid = (sizes >= 0) & (sizes < math.inf)
    if not valid.all():
        raise ValueError(f"Expected finite {name} >= 0, got {sizes[~valid][0]}. Pass lengths.")
    return sizes
