"""Gradient domination where every constant is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from lggwjax.theory.domination import ALPHAS, convex, envelope, strongly_convex

CURVATURES = np.array([0.5, 1.0, 4.0])


def _quadratic(seed: int, num: int = 200):
    """Gaps and gradient norms of sum(curvature x^2)/2 at random points within 3 of its minimiser."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num, 3))
    points *= 3 * rng.random((num, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    return 0.5 * (CURVATURES * points**2).sum(1), np.linalg.norm(CURVATURES * points, axis=1)


def _holds(condition, gaps, norms) -> bool:
    return bool(np.all(gaps <= condition.constant * norms**condition.alpha * (1 + 1e-12)))


@pytest.mark.parametrize("seed", range(5))
def test_rigorous_constants_hold(seed):
    gaps, norms = _quadratic(seed)
    assert _holds(strongly_convex(0.5), gaps, norms)
    assert _holds(convex(3.0), gaps, norms)
    assert strongly_convex(0.5).assumption.source == convex(3.0).assumption.source == "declared"


def test_the_strongly_convex_constant_is_sharp():
    # Along the flattest direction gap = x^2/4 and |gradient| = x/2: a constant 10% smaller fails.
    x = np.linspace(0.1, 3, 20)
    right = strongly_convex(0.5)
    assert _holds(right, 0.25 * x**2, 0.5 * x)
    assert not _holds(right._replace(constant=0.9 * right.constant), 0.25 * x**2, 0.5 * x)


def test_an_envelope_is_the_smallest_constant_of_its_points_and_no_bound_for_others():
    gaps, norms = _quadratic(0, 20)
    found = envelope(gaps, norms)
    assert tuple(c.alpha for c in found) == ALPHAS
    for condition in found:
        assert _holds(condition, gaps, norms)
        assert not _holds(condition._replace(constant=0.999 * condition.constant), gaps, norms)
        assert condition.assumption.source == "missing"
    assert not _holds(found[-1], *_quadratic(1, 2000)), "points not visited may need more"


def test_a_fit_of_logarithms_is_no_bound():
    """The false claim: exponent and constant by regression. It fails on the very points it was fitted to."""
    gaps, norms = _quadratic(0)
    alpha, log_constant = np.polyfit(np.log(norms), np.log(gaps), 1)
    assert np.mean(gaps > np.exp(log_constant) * norms**alpha) > 0.2


def test_the_best_loss_seen_makes_the_constant_too_small():
    gaps, norms = _quadratic(2, 50)
    [true] = envelope(gaps, norms, alphas=(2.0,))
    [biased] = envelope(gaps - gaps.min(), norms, alphas=(2.0,))
    [safe] = envelope(gaps + 0.3, norms, alphas=(2.0,))  # the least loss is not 0 but was taken for it
    assert biased.constant < true.constant < safe.constant


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="does not hold there"):
        envelope([1.0, 0.5], [1.0, 0.0])
    assert envelope([1.0, 0.0], [1.0, 0.0])[0].constant == 1  # at a minimiser nothing is asked
    with pytest.raises(ValueError, match="as many gaps"):
        envelope([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="from 1 to 2"):
        envelope([1.0], [1.0], alphas=(3.0,))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive"):
            strongly_convex(wrong)
        with pytest.raises(ValueError, match="positive"):
            convex(wrong)


def test_a_cone_attains_the_convex_constant():
    # |theta| at distance 3: gradient 1, gap 3.
    assert convex(3.0).constant * 1.0 ** convex(3.0).alpha == 3.0


@pytest.mark.parametrize("penalty", [0.1, 2.0])
def test_penalised_regressions_have_the_constant_of_their_penalty(penalty):
    """Ridge and logistic regression at random points: gap <= |gradient|^2 / (2 lambda), to which ridge comes near."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=50)
    x[:, 3] = 1e-3 * x[:, 3]  # a direction that the data hardly see: the penalty alone bends it
    sign = np.sign(y)
    ridge = lambda w: 0.5 * np.mean((x @ w - y) ** 2) + penalty / 2 * w @ w  # noqa: E731
    ridge_gradient = lambda w: x.T @ (x @ w - y) / 50 + penalty * w  # noqa: E731
    logistic = lambda w: np.mean(np.logaddexp(0, -sign * (x @ w))) + penalty / 2 * w @ w  # noqa: E731
    logistic_gradient = lambda w: x.T @ (-sign / (1 + np.exp(sign * (x @ w)))) / 50 + penalty * w  # noqa: E731
    constant, sharpest = strongly_convex(penalty).constant, 0.0
    for loss, gradient in ((ridge, ridge_gradient), (logistic, logistic_gradient)):
        best = optimize.minimize(loss, np.zeros(4), jac=gradient, method="BFGS", options={"gtol": 1e-10})
        for w in [*rng.normal(size=(50, 4)), best.x + np.array([0, 0, 0, 1.0])]:
            needed = (loss(w) - best.fun) / (gradient(w) @ gradient(w))
            assert needed <= constant * (1 + 1e-6)
            sharpest = max(sharpest, needed / constant)
    assert sharpest > 0.95, "a constant 10% smaller would be false"
