"""Deviation bounds against populations whose gradient is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lggwjax.theory.bound import Assumption, GradientBound
from lggwjax.theory.sample_reuse import doubled_radius, exact_nerc_bound, nerc_bound, points_bound, split_bound

NUM, POINTS, DIM = 100, 8, 3


def _repetition(rng: np.random.Generator, num: int = NUM):
    """Gradients of norm 1 at fixed points, of mean zero; the deviation is then the norm of their mean."""
    gradients = rng.normal(size=(POINTS, num, DIM))
    return gradients / np.linalg.norm(gradients, axis=-1, keepdims=True)


def _deviation(gradients: np.ndarray) -> float:
    return float(np.linalg.norm(gradients.mean(1), axis=-1).max())


def _nerc(gradients: np.ndarray, rng: np.random.Generator, num_signs: int) -> float:
    signs = rng.choice((-1.0, 1.0), size=(num_signs, gradients.shape[1]))
    sums = np.einsum("ei,tip->etp", signs, gradients) / gradients.shape[1]
    return float(np.linalg.norm(sums, axis=-1).max(1).mean())


def test_certified_bounds_hold_over_two_hundred_repetitions():
    rng = np.random.default_rng(0)
    design = {"gradient_set": "8 points", "design": "independent split", "confidence": 0.9}
    fixed = points_bound(1.0, NUM, POINTS, design="independent split", confidence=0.9).value
    failures = np.zeros(3, int)
    for _ in range(200):
        gradients = _repetition(rng)
        seen = _deviation(gradients)
        one_sign = nerc_bound(_nerc(gradients, rng, 1), 1.0, NUM, **design).value
        exact = exact_nerc_bound(_nerc(gradients, rng, 200), 1.0, NUM, **design).value
        failures += [seen > fixed, seen > one_sign, seen > exact]
    assert (failures <= 20).all()  # a tenth of 200
    assert seen > fixed / 4, "the bound is not so loose that nothing could break it"


def test_the_mean_of_one_deviation_reaches_its_part_of_the_bound():
    # Gradients of norm B and mean zero have E|mean|^2 = B^2/n: the first part of (4.4) is the root of that.
    rng = np.random.default_rng(1)
    squares = [np.sum(_repetition(rng)[0].mean(0) ** 2) for _ in range(4000)]
    part = points_bound(1.0, NUM, 1, design="independent split").parts["mean"]
    error = np.std(squares) / math.sqrt(len(squares))
    assert abs(np.mean(squares) - part**2) <= 4 * error
    assert abs(np.mean(squares) - (1.1 * part) ** 2) > 4 * error
    assert abs(np.mean(squares) - (0.9 * part) ** 2) > 4 * error


def test_chance_is_what_mcdiarmid_gives():
    for num_points, confidence in ((1, 0.95), (16, 0.99)):
        bound = points_bound(2.0, 400, num_points, design="independent split", confidence=confidence)
        delta = 1 - confidence
        # Differences of 2B/n each: exp(-2 t^2 / (n (2B/n)^2)) = delta / T.
        t = bound.parts["chance"]
        assert math.exp(-2 * t**2 / (400 * (2 * 2.0 / 400) ** 2)) == pytest.approx(delta / num_points)
    bound = nerc_bound(0.0, 2.0, 400, gradient_set="a ball", design="data-free ball", confidence=0.95)
    assert math.exp(-2 * bound.value**2 / (400 * (6 * 2.0 / 400) ** 2)) == pytest.approx(0.05)


def test_for_finitely_many_points_the_simple_bound_is_smaller():
    rng = np.random.default_rng(2)
    gradients = _repetition(rng)
    simple = points_bound(1.0, NUM, POINTS, design="independent split").value
    width = nerc_bound(_nerc(gradients, rng, 64), 1.0, NUM, gradient_set="8 points", design="independent split").value
    assert simple < width


def test_the_exact_nerc_pays_for_many_samples():
    given = {"gradient_set": "a ball", "design": "data-free ball"}
    few, many = 10, 10**6
    assert exact_nerc_bound(0.1, 1.0, few, **given).value > nerc_bound(0.1, 1.0, few, **given).value
    assert exact_nerc_bound(1e-3, 1.0, many, **given).value < nerc_bound(1e-3, 1.0, many, **given).value


def test_a_path_trained_on_the_samples_is_never_certified():
    trained = "trained on these samples"
    found = [
        points_bound(1.0, NUM, POINTS, design=trained),
        nerc_bound(0.0, 1.0, NUM, gradient_set="a path", design=trained),
        exact_nerc_bound(0.0, 1.0, NUM, gradient_set="a path", design=trained),
    ]
    assert {b.status for b in found} == {"descriptive"}
    assert all("trained on them" in str(b) for b in found)


def test_interpolating_least_squares_is_why():
    """Every gradient vanishes on the path's end, NERC is 0, and the population gradient is not."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    x = rng.normal(size=(20, 40))
    end = np.linalg.pinv(x) @ (x @ truth)
    gradients = (x @ end - x @ truth)[:, None] * x
    assert np.abs(gradients).max() < 1e-12
    assert np.linalg.norm(end - truth) > 1  # the population gradient, as the covariance is the identity
    bound = nerc_bound(0.0, 1e-12, 20, gradient_set="the path", design="trained on these samples")
    assert bound.value < 1e-11
    assert bound.status == "descriptive"


def test_a_split_certifies_what_the_trained_path_cannot():
    """Training on S, measured against H: the true deviation stays below in every repetition that it should."""
    failures = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        # Mean estimation on the sphere: gradients theta - z, the path is dragged to the mean of S.
        train, held = (_repetition(rng, num)[0] for num in (20, 400))
        path = [t * train.mean(0) for t in np.linspace(0, 1, 5)]
        between = [np.linalg.norm(train.mean(0) - held.mean(0)) for _ in path]
        bound = split_bound(np.array(between), 2.0, 400, confidence=0.9)
        failures += np.linalg.norm(train.mean(0)) > bound.value  # the population's mean is zero
        assert bound.status == "certified"
    assert failures <= 20


def test_an_undeclared_bound_is_descriptive_and_names_what_is_missing():
    bound = points_bound(GradientBound.seen(3.25), NUM, POINTS, design="independent split")
    assert bound.status == "descriptive"
    assert "longer than 3.25" in str(bound)
    assert "has to be declared" in str(bound)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_bound": -1.0}, "gradient bound"),
        ({"gradient_bound": math.nan}, "gradient bound"),
        ({"num_samples": 0}, "one sample"),
        ({"num_points": 0}, "one point"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    given = {"gradient_bound": 1.0, "num_samples": 10, "num_points": 2, "design": "fresh samples"} | changes
    with pytest.raises(ValueError, match=message):
        points_bound(**given)
    with pytest.raises(ValueError, match="NERC"):
        nerc_bound(-1.0, 1.0, 10, gradient_set="x", design="fresh samples")
    with pytest.raises(ValueError, match="one checkpoint"):
        split_bound(np.zeros(0), 1.0, 10)


def test_a_computed_gradient_bound_takes_its_chance_of_failure_from_the_whole():
    computed = GradientBound(1.0, Assumption("of the architecture", "checked"), failure=0.01)
    given = {"num_samples": 400, "num_points": 4, "design": "independent split"}
    assert points_bound(computed, **given, confidence=0.95).value == points_bound(1.0, **given, confidence=0.96).value
    with pytest.raises(ValueError, match=r"below 0\.99"):
        points_bound(computed, **given, confidence=0.995)


def test_doubled_radii_share_out_the_failures_and_hold_the_path():
    chances = []
    for times in range(60):
        radius, confidence = doubled_radius(0.5, 0.5 * 2**times, 0.9)
        assert radius == 0.5 * 2**times, "the smallest ball that holds the path"
        assert doubled_radius(0.5, 0.5 * 2**times * 1.001, 0.9)[0] == 2 * radius
        chances.append(1 - confidence)
    assert sum(chances) == pytest.approx(0.1 * 60 / 61)  # all of them together stay below 0.1
    assert doubled_radius(0.5, 0.0)[0] == 0.5
    with pytest.raises(ValueError, match="positive radius"):
        doubled_radius(0.0, 1.0)


def test_every_term_is_as_stated():
    """B = 2, n = 400, delta = 0.05, NERC 0.1: the formulas of section 4 by hand."""
    given = {"gradient_set": "a ball", "design": "data-free ball", "confidence": 0.95}
    few = nerc_bound(0.1, 2.0, 400, **given)
    assert few.value == pytest.approx(2 * 0.1 + 3 * 2 * math.sqrt(2 * math.log(20) / 400))
    exact = exact_nerc_bound(0.1, 2.0, 400, **given)
    level = math.log(40)
    assert exact.value == pytest.approx(
        2 * 0.1 + 2 * math.sqrt(2 * level / 400) + 2 * math.sqrt(2 * 2 * level * 0.1 / 400) + 4 * 2 * level / 400
    )
    between = split_bound(np.array([0.1, 0.3, 0.2]), 2.0, 400)
    assert between.value == pytest.approx(0.3 + points_bound(2.0, 400, 3, design="independent split").value)


def test_the_exact_nerc_s_own_chance_solves_its_inequality():
    """EN <= N + sqrt(2 B l EN / n), solved for EN: the two terms round it up."""
    for nerc, num in ((0.1, 400), (0.5, 50), (1e-3, 10**5)):
        bound = exact_nerc_bound(nerc, 1.0, num, gradient_set="a ball", design="data-free ball", confidence=0.9)
        step = math.sqrt(2 * math.log(20) / num)
        mean = ((step + math.sqrt(step**2 + 4 * nerc)) / 2) ** 2
        assert mean == pytest.approx(nerc + step * math.sqrt(mean))
        assert 2 * mean <= bound.parts["NERC"] + bound.parts["NERC's own chance"] <= 2 * mean + 2 * step**2
