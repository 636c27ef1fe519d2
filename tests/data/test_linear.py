from __future__ import annotations

from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.data import LinearPopulation

SPECTRUM = (1.5, 0.7, 0.2, 0.05)


@pytest.fixture(scope="module", params=["uniform", "gaussian"])
def population(request) -> LinearPopulation:
    return LinearPopulation.draw(3, SPECTRUM, noise=request.param, noise_scale=0.4)


@pytest.fixture(scope="module")
def bounded() -> LinearPopulation:
    return LinearPopulation.draw(3, SPECTRUM, noise_scale=0.4)


@cache
def draws(population: LinearPopulation, n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    batch = population.sample(jax.random.key(1), n)
    return np.asarray(batch["x"], np.float64), np.asarray(batch["y"], np.float64)


def z_scores(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (values.mean(axis=0) - truth) / (values.std(axis=0) / len(values) ** 0.5)


W = np.array([0.3, -1.0, 0.5, 2.0])


def test_loss_is_that_of_the_samples(population):
    x, y = draws(population)
    losses = 0.5 * (x @ W - y) ** 2
    assert abs(z_scores(losses, population.loss(W))) < 4
    # The negative control: a truth off by 2% is told apart.
    assert abs(z_scores(losses, 1.02 * population.loss(W))) > 4


def test_gradient_is_that_of_the_samples(population):
    x, y = draws(population)
    gradients = x * (x @ W - y)[:, None]
    assert np.all(abs(z_scores(gradients, population.gradient(W))) < 4)
    assert np.any(abs(z_scores(gradients, 1.02 * population.gradient(W))) > 4)


def test_gradient_is_the_derivative_of_the_loss(population):
    steps = 1e-6 * np.eye(4)
    numeric = [(population.loss(W + h) - population.loss(W - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(population.gradient(W), numeric, rtol=1e-7)


def test_second_moment_has_the_declared_spectrum(population):
    sigma = population.root @ population.root.T
    np.testing.assert_allclose(np.linalg.eigvalsh(sigma)[::-1], SPECTRUM, rtol=1e-12)
    assert (population.mu, population.beta) == (0.05, 1.5)
    x, _ = draws(population)
    moments = x[:, :, None] * x[:, None, :]
    assert np.all(abs(z_scores(moments, sigma)) < 4)
    assert not np.all(abs(z_scores(moments, np.diag(SPECTRUM))) < 4)


def test_the_optimum_is_the_optimum(population):
    assert population.loss(population.w_star) == pytest.approx(population.loss_star)
    assert population.loss_star == pytest.approx(0.08)
    np.testing.assert_allclose(population.gradient(population.w_star), 0)
    assert np.linalg.norm(population.w_star) == pytest.approx(1)
    assert population.loss(population.w_star + 0.01) > population.loss_star


def test_gradient_bound_is_attained_at_a_corner(bounded):
    """Brute force over the corners of the cube, the ends of the noise and, per corner, the worst point of the ball."""
    radius = 0.7
    norms = []
    for signs, e in product(product((-1, 1), repeat=4), (-1, 1)):
        x = bounded.root @ (np.sqrt(3) * np.array(signs))
        label = bounded.w_star @ x + e * np.sqrt(3) * bounded.noise_scale
        for side in (-radius, radius):
            w = W + side * x / np.linalg.norm(x)
            norms.append(np.linalg.norm(x * (x @ w - label)))
    assert bounded.gradient_bound(radius, W) == pytest.approx(max(norms))


def test_no_sampled_gradient_exceeds_the_bound(bounded):
    x, y = draws(bounded)
    norms = np.linalg.norm(x, axis=1) * abs(x @ W - y)
    bound = bounded.gradient_bound(0.0, W)
    assert norms.max() <= bound * (1 + 1e-6)
    assert norms.max() > 0.8 * bound
    assert np.linalg.norm(x, axis=1).max() <= bounded.input_radius * (1 + 1e-6)


def test_gaussian_noise_has_no_bound_and_exceeds_that_of_uniform_noise():
    gaussian = LinearPopulation.draw(3, SPECTRUM, noise="gaussian", noise_scale=0.4)
    with pytest.raises(ValueError, match="Expected bounded noise, got gaussian"):
        gaussian.gradient_bound(1.0, W)
    x, y = draws(gaussian)
    assert abs(y - x @ gaussian.w_star).max() > np.sqrt(3) * 0.4 * 1.5


def test_noise_is_bounded_and_has_the_declared_scale(bounded):
    x, y = draws(bounded)
    noise = y - x @ bounded.w_star
    assert abs(noise).max() <= np.sqrt(3) * 0.4 + 1e-5
    assert abs(z_scores(noise**2, np.array(0.16))) < 4


def test_parameters_may_be_the_kernel_of_a_layer(bounded):
    params = {"params": {"linear": {"kernel": jnp.asarray(W[:, None], jnp.float32)}}, "state": {}}
    gradient = bounded.gradient(params)["params"]["linear"]["kernel"]
    np.testing.assert_allclose(gradient[:, 0], bounded.gradient(W), rtol=1e-6)
    assert bounded.loss(params) == pytest.approx(bounded.loss(W), rel=1e-6)
    assert bounded.gradient_bound(1.0, params) == pytest.approx(bounded.gradient_bound(1.0, W), rel=1e-6)
    for wrong in (W[:3], {"kernel": W, "bias": np.zeros(1)}):
        with pytest.raises(ValueError, match="Expected parameters with one array of 4 numbers"):
            bounded.loss(wrong)


def test_sampling_works_under_jit_and_gives_fresh_samples(bounded):
    sample = jax.jit(bounded.sample, static_argnums=1)
    first, second = (sample(jax.random.key(i), 5)["x"] for i in (0, 1))
    np.testing.assert_allclose(first, bounded.sample(jax.random.key(0), 5)["x"], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("spectrum", "fields"),
    [
        ([1.0, 0.0], {}),
        ([], {}),
        ([[1.0]], {}),
        ([float("nan")], {}),
        ([1.0], {"noise": "x"}),
        ([1.0], {"noise_scale": -1.0}),
    ],
)
def test_bad_populations_are_refused(spectrum, fields):
    with pytest.raises(ValueError, match="Expected"):
        LinearPopulation.draw(0, spectrum, **fields)


def test_bad_balls_are_refused(bounded):
    for radius in (-1.0, float("inf")):
        with pytest.raises(ValueError, match="Expected a finite radius"):
            bounded.gradient_bound(radius, W)
