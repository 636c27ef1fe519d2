"""Descent with wrong gradients on quadratics, where every quantity is known."""

from __future__ import annotations

import numpy as np
import pytest

from lggwjax.theory.bound import assume_design
from lggwjax.theory.optimisation import gap_bound, mean_gradient_bound

CURVATURES = np.array([0.2, 1.0, 2.0])
SMOOTH, MODULUS = 2.0, 0.2


def _loss(point):
    return 0.5 * float((CURVATURES * point**2).sum())


def _descend(errors, rate, start, noise=None):
    points = [start]
    for step, error in enumerate(errors):
        drift = error if noise is None else error + noise[step]
        points.append(points[-1] - rate * (CURVATURES * points[-1] + drift))
    return np.array(points)


@pytest.mark.parametrize("seed", range(8))
def test_the_mean_gradient_stays_below_its_bound(seed):
    rng = np.random.default_rng(seed)
    errors = 0.3 * rng.normal(size=(60, 3)) + 0.3 * rng.normal(size=3)
    points = _descend(errors, 0.5, rng.normal(size=3))
    seen = np.mean(np.sum((CURVATURES * points[:-1]) ** 2, 1))
    bound = mean_gradient_bound(
        _loss(points[0]), _loss(points[-1]), 0.5, np.linalg.norm(errors, axis=1), smoothness=SMOOTH, num_samples=64
    )
    assert seen <= bound.value * (1 + 1e-9)


def test_the_mean_gradient_bound_is_sharp():
    """Where the error holds descent still, the gradient is as large as the deviation: no term is wasted."""
    error = np.array([0.0, 0.0, 0.3])
    start = -error / CURVATURES
    points = _descend(np.tile(error, (50, 1)), 0.5, start)
    seen = np.mean(np.sum((CURVATURES * points[:-1]) ** 2, 1))
    bound = mean_gradient_bound(_loss(start), _loss(points[-1]), 0.5, np.full(50, 0.3), smoothness=2, num_samples=64)
    assert seen == pytest.approx(bound.value)
    assert seen > 0.9 * bound.parts["deviation"] + bound.parts["progress"]


def test_minibatch_noise_adds_its_term():
    rng = np.random.default_rng(0)
    seen, values = [], []
    for _ in range(300):
        noise = 0.5 * rng.normal(size=(40, 3))
        errors = np.tile([0.1, 0.0, 0.1], (40, 1))
        points = _descend(errors, 0.5, np.ones(3), noise)
        seen.append(np.mean(np.sum((CURVATURES * points[:-1]) ** 2, 1)))
        bound = mean_gradient_bound(
            _loss(points[0]),
            _loss(points[-1]),
            0.5,
            np.full(40, 0.02**0.5),
            smoothness=2,
            num_samples=9,
            noise=0.75**0.5,
        )
        values.append(bound.value)
    assert bound.statement == "6.3"
    error = np.std(np.subtract(seen, values)) / 300**0.5
    assert np.mean(seen) <= np.mean(values) + 4 * error
    without = np.mean(values) - bound.parts["minibatches"]
    assert np.mean(seen) > without + 4 * error, "without the noise's term the statement would be false"


def test_the_pl_floor_is_attained():
    """An error along the flattest direction: the gap goes to eps^2 / (2 mu), and a floor 10% lower would be false."""
    error = np.array([0.05, 0.0, 0.0])
    points = _descend(np.tile(error, (2000, 1)), 0.5, np.zeros(3))
    bound = gap_bound(0.0, 0.5, 2000, 0.05, modulus=MODULUS, smoothness=SMOOTH, num_samples=64)
    assert _loss(points[-1]) <= bound.value * (1 + 1e-9)
    assert _loss(points[-1]) > 0.99 * bound.parts["floor"]


@pytest.mark.parametrize("seed", range(8))
def test_the_gap_stays_below_its_bound_at_every_step(seed):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(80, 3))
    errors = 0.1 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = _descend(errors, 0.5, 2 * rng.normal(size=3))
    for steps in (0, 1, 5, 80):
        bound = gap_bound(_loss(points[0]), 0.5, steps, 0.1, modulus=MODULUS, smoothness=SMOOTH, num_samples=64)
        assert _loss(points[steps]) <= bound.value * (1 + 1e-9)


def test_status_is_that_of_the_deviations():
    given = {"smoothness": 1.0, "num_samples": 10}
    for design, status in (("independent split", "certified"), ("trained on these samples", "descriptive")):
        rests_on = (assume_design(design),)
        assert mean_gradient_bound(1, 0, 0.1, [0.1], **given, assumptions=rests_on).status == status
        assert gap_bound(1, 0.1, 3, 0.1, modulus=0.5, **given, assumptions=rests_on).status == status


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="larger steps"):
        mean_gradient_bound(1, 0, 0.6, [0.1], smoothness=2.0, num_samples=10)
    with pytest.raises(ValueError, match="one at least"):
        mean_gradient_bound(1, 0, 0.5, [], smoothness=2.0, num_samples=10)
    with pytest.raises(ValueError, match="modulus"):
        gap_bound(1, 0.5, 1, 0.1, modulus=3.0, smoothness=2.0, num_samples=10)
    with pytest.raises(ValueError, match="noise"):
        mean_gradient_bound(1, 0, 0.5, [0.1], smoothness=2.0, num_samples=10, noise=-1.0)
    with pytest.raises(ValueError, match="number of steps"):
        gap_bound(-1, 0.5, 1, 0.1, modulus=0.5, smoothness=2.0, num_samples=10)


def test_one_step_along_the_steepest_direction_attains_the_progress_term():
    # Step 1/beta to the minimum of beta x^2 / 2: the squared gradient is 2 beta times the loss gained.
    start = np.array([0.0, 0.0, 1.5])
    points = _descend(np.zeros((1, 3)), 1 / SMOOTH, start)
    seen = float(np.sum((CURVATURES * start) ** 2))
    given = {"smoothness": SMOOTH, "num_samples": 9}
    bound = mean_gradient_bound(_loss(start), _loss(points[-1]), 1 / SMOOTH, np.zeros(1), **given)
    assert bound.value == pytest.approx(seen)


def test_every_term_is_as_stated():
    given = {"smoothness": 2.0, "num_samples": 9}
    noisy = mean_gradient_bound(1.0, 0.5, 0.25, np.full(10, 0.1), noise=0.3, **given)
    assert noisy.value == pytest.approx(2 * 0.5 / (0.25 * 10) + 0.01 + 2.0 * 0.25 * 0.09)
    gap = gap_bound(3.0, 0.25, 7, 0.1, modulus=0.4, **given)
    assert gap.value == pytest.approx(0.9**7 * 3.0 + 0.01 / 0.8)
