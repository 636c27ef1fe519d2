"""Linear regression with bounded inputs, as a population whose every quantity is a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

_Params = TypeVar("_Params", bound=PyTree)


@dataclass(frozen=True, eq=False)
class LinearPopulation:
    r"""Inputs ``x = A u`` with ``A A^T = Sigma``, labels ``y = <w_star, x> + e``, loss ``(<w, x> - y)^2 / 2``.

    The coordinates of u are independent and uniform on [-sqrt 3, sqrt 3] (mean 0, variance 1). The noise e has mean 0
    and standard deviation ``noise_scale``. ``A = Q diag(spectrum)^{1/2}`` with orthogonal Q, so that every corner of
    the cube has the same norm ``|A u| = (3 tr Sigma)^{1/2}`` and :meth:`gradient_bound` is exact, not only a bound.

    The parameters of the closed forms are w of shape (d,), or any pytree whose only array holds d numbers, as the
    kernel (d, 1) of a linear layer without bias. They are computed in float64 on the host, not under ``jit``.

    Args:
        root: A, of shape (d, d).
        spectrum: Eigenvalues of Sigma, of shape (d,).
        w_star: The optimum, of shape (d,).
        noise: ``uniform`` or ``gaussian``.
        noise_scale: Standard deviation of the noise, in the unit of y.

    Example:
        >>> population = LinearPopulation.draw(0, [1.0, 0.5], noise_scale=0.2)
        >>> round(population.loss(population.w_star), 6)
        0.02
    """

    root: Float[np.ndarray, "d d"]
    spectrum: Float[np.ndarray, " d"]
    w_star: Float[np.ndarray, " d"]
    noise: Literal["uniform", "gaussian"]
    noise_scale: float

    @classmethod
    def draw(
        cls,
        seed: int,
        spectrum: Any,
        *,
        noise: Literal["uniform", "gaussian"] = "uniform",
        noise_scale: float = 0.5,
    ) -> LinearPopulation:
        """Draw the directions Q uniformly and ``w_star`` uniformly on the unit sphere.

        Args:
            seed: Of Q and ``w_star``.
            spectrum: Eigenvalues of Sigma, of shape (d,), positive.
            noise: ``uniform``, or ``gaussian``, for which no gradient bound exists.
            noise_scale: Standard deviation of the noise, >= 0.

        Raises:
            ValueError: If ``spectrum`` is not a vector of positive finite numbers, ``noise_scale`` is negative, or
                ``noise`` is another word.

        Example:
            >>> LinearPopulation.draw(0, [1.0, 0.5]).beta
            1.0
        """
        values = np.asarray(spectrum, np.float64)
        if values.ndim != 1 or values.size == 0 or not np.all((values > 0) & np.isfinite(values)):
            raise ValueError(f"Expected a spectrum of positive finite numbers, got {spectrum}. Give the eigenvalues.")
        if noise not in ("uniform", "gaussian"):
            raise ValueError(f"Expected noise to be uniform or gaussian, got {noise!r}. Choose one of these.")
        if not (math.isfinite(noise_scale) and noise_scale >= 0):
            raise ValueError(f"Expected a finite noise_scale >= 0, got {noise_scale}. Give 0 for no noise.")
        rng = np.random.default_rng([seed, 2])
        q, r = np.linalg.qr(rng.normal(size=(values.size, values.size)))
        # The signs make Q uniform over all orthogonal matrices, whatever convention qr has.
        root = q * np.sign(np.diag(r)) * np.sqrt(values)
        direction = rng.normal(size=values.size)
        return cls(root, values, direction / np.linalg.norm(direction), noise, float(noise_scale))

    @property
    def dimension(self) -> int:
        """Number of input coordinates d."""
        return self.w_star.size

    @property
    def mu(self) -> float:
        """Smallest eigenvalue of the second moment: the loss is mu-strongly convex (PL with c = 1/(2 mu))."""
        return float(self.spectrum.min())

    @property
    def beta(self) -> float:
        """Largest eigenvalue of the second moment: the population loss is beta-smooth."""
        return float(self.spectrum.max())

    @property
    def loss_star(self) -> float:
        """The lowest population loss, ``noise_scale^2 / 2``."""
        return 0.5 * self.noise_scale**2

    @property
    def input_radius(self) -> float:
        """The largest norm of an input, ``(3 tr Sigma)^{1/2}``; it is attained."""
        return math.sqrt(3 * float(self.spectrum.sum()))

    def sample(self, key: Key[Array, ""], n: int) -> dict[str, jax.Array]:
        """Draw n fresh samples; may be called under ``jit`` (n static).

        Args:
            key: One PRNG key, consumed here.
            n: Number of samples.

        Returns:
            ``{"x": float32 (n, d), "y": float32 (n,)}``.

        Example:
            >>> LinearPopulation.draw(0, [1.0, 0.5]).sample(jax.random.key(0), 3)["x"].shape
            (3, 2)
        """
        root = self.root.T.astype(np.float32)
        # <w_star, A u> rather than <w_star, x>: one rounding less on the label.
        coefficients = (self.root.T @ self.w_star).astype(np.float32)
        return _sample(key, root, coefficients, self.noise_scale, n=n, noise=self.noise)

    def loss(self, params: PyTree) -> float:
        """Population loss ``(|A^T (w - w_star)|^2 + noise_scale^2) / 2``.

        Args:
            params: w, of shape (d,), or a pytree whose only array holds d numbers.

        Raises:
            ValueError: If ``params`` is neither.

        Example:
            >>> population = LinearPopulation.draw(0, [2.0], noise_scale=0.0)
            >>> round(population.loss(population.w_star + 1.0), 6)
            1.0
        """
        v = self._vector(params) - self.w_star
        return 0.5 * float(np.sum((self.root.T @ v) ** 2)) + self.loss_star

    def gradient(self, params: _Params) -> _Params:
        """Population gradient ``Sigma (w - w_star)``, in float64, in the structure and shape of ``params``.

        Args:
            params: w, of shape (d,), or a pytree whose only array holds d numbers.

        Raises:
            ValueError: If ``params`` is neither.

        Example:
            >>> population = LinearPopulation.draw(0, [2.0])
            >>> population.gradient({"kernel": population.w_star[:, None] + 1.0})["kernel"].round(6)
            array([[2.]])
        """
        v = self._vector(params) - self.w_star
        gradient = self.root @ (self.root.T @ v)
        return jax.tree.map(lambda leaf: gradient.reshape(np.shape(leaf)), params)

    def gradient_bound(self, radius: float, center: PyTree) -> float:
        r"""The largest norm of a per-sample gradient over the ball ``|w - center| <= radius``.

        .. math:: B = R (\sqrt 3 \, |A^T (c - w^*)|_1 + R \rho + \sqrt 3 \, \sigma), \; R^2 = 3 \, \mathrm{tr} \Sigma

        Guarantees:
            * Exact: the corner of the cube with the signs of ``A^T (c - w_star)`` attains all three terms at once.

        Args:
            radius: Radius rho of the ball, >= 0, in units of the parameters.
            center: Centre c of the ball, as in :meth:`loss`.

        Raises:
            ValueError: If the noise is Gaussian, which has no bound, or ``radius`` is negative or not finite.

        Example:
            >>> population = LinearPopulation.draw(0, [1.0], noise_scale=0.0)
            >>> round(population.gradient_bound(1.0, population.w_star), 6)
            3.0
        """
        if self.noise == "gaussian":
            raise ValueError("Expected bounded noise, got gaussian. Draw the population with noise='uniform'.")
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"Expected a finite radius >= 0, got {radius}. Give the radius of the ball.")
        offset = np.abs(self.root.T @ (self._vector(center) - self.w_star)).sum()
        largest = math.sqrt(3) * (float(offset) + self.noise_scale) + self.input_radius * radius
        return self.input_radius * largest

    def _vector(self, params: PyTree) -> Float[np.ndarray, " d"]:
        leaves = jax.tree.leaves(params)
        if len(leaves) != 1 or np.size(leaves[0]) != self.dimension:
            shapes = [np.shape(leaf) for leaf in leaves]
            raise ValueError(
                f"Expected parameters with one array of {self.dimension} numbers, got shapes {shapes}. "
                "Use a linear layer without bias."
            )
        return np.asarray(leaves[0], np.float64).reshape(-1)


@partial(jax.jit, static_argnames=("n", "noise"))
def _sample(
    key: Array, root: np.ndarray, coefficients: np.ndarray, noise_scale: float, *, n: int, noise: str
) -> dict[str, jax.Array]:
    input_key, noise_key = jax.random.split(key)
    edge = math.sqrt(3)
    u = jax.random.uniform(input_key, (n, root.shape[0]), jnp.float32, -edge, edge)
    if noise == "uniform":
        e = jax.random.uniform(noise_key, (n,), jnp.float32, -edge, edge)
    else:
        e = jax.random.normal(noise_key, (n,), jnp.float32)
    x = jnp.matmul(u, root, precision="highest")
    return {"x": x, "y": jnp.matmul(u, coefficients, precision="highest") + noise_scale * e}
