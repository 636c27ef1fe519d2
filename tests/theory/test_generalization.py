"""Excess risk against populations whose least loss is known."""

from __future__ import annotations

import numpy as np
import pytest

from lggwjax.theory.complexity import nerc_bounds
from lggwjax.theory.domination import envelope, strongly_convex
from lggwjax.theory.generalization import excess_risk_bound
from lggwjax.theory.sample_reuse import points_bound


def test_mean_estimation_stays_below_its_bound():
    """Loss |theta - z|^2 / 2, |z| = 1, theta within 1: gradients of norm 2 at most, modulus 1, gap |theta|^2 / 2."""
    num, failures, tightest = 200, 0, np.inf
    for seed in range(200):
        rng = np.random.default_rng(seed)
        samples = rng.normal(size=(num, 3))
        samples /= np.linalg.norm(samples, axis=1, keepdims=True)
        points = rng.normal(size=(4, 3)) / 4
        points /= np.maximum(1, np.linalg.norm(points, axis=1, keepdims=True))
        deviation = points_bound(2.0, num, len(points), design="independent split", confidence=0.9)
        for point in points:
            norm = float(np.linalg.norm(point - samples.mean(0)))
            bound = excess_risk_bound(norm, deviation, strongly_convex(1.0))
            gap = 0.5 * point @ point
            failures += gap > bound.value
            tightest = min(tightest, bound.value / gap)
            assert bound.status == "certified"
    assert failures <= 20
    assert tightest < 3, "the bound is not so loose that nothing could break it"


def test_without_deviation_the_constant_is_sharp():
    deviation = points_bound(0.0, 10, 1, design="fresh samples")
    point = 0.7  # gap 0.245, gradient 0.7
    assert excess_risk_bound(point, deviation, strongly_convex(1.0)).value == pytest.approx(0.5 * point**2)


def test_an_envelope_makes_it_descriptive_and_says_so():
    deviation = points_bound(1.0, 100, 4, design="independent split")
    bound = excess_risk_bound(0.1, deviation, envelope([1.0], [1.0])[0])
    assert bound.status == "descriptive"
    assert "seen at 1 points only" in str(bound)
    trained = points_bound(1.0, 100, 4, design="trained on these samples")
    assert excess_risk_bound(0.1, trained, strongly_convex(1.0)).status == "descriptive"


def test_confidence_and_set_are_those_of_the_deviation():
    deviation = points_bound(1.0, 100, 4, design="independent split", confidence=0.99)
    bound = excess_risk_bound(0.1, deviation, strongly_convex(1.0))
    assert (bound.confidence, bound.gradient_set, bound.num_samples) == (0.99, "4 points", 100)
    assert bound.value <= 2 * sum(bound.parts.values())  # (x + y)^2 <= 2 (x^2 + y^2)


def test_statements_about_the_measured_set_do_not_become_statements_about_the_population():
    import jax
    import jax.numpy as jnp

    from lggwjax.widths import width_from_gram

    found = nerc_bounds(jnp.eye(3)[None], width_from_gram(jax.random.key(0), jnp.zeros((1, 1))))
    with pytest.raises(ValueError, match="population gradient"):
        excess_risk_bound(0.1, found["3.2"], strongly_convex(1.0))
    with pytest.raises(ValueError, match="gradient norm"):
        excess_risk_bound(-0.1, points_bound(1.0, 10, 1, design="fresh samples"), strongly_convex(1.0))
