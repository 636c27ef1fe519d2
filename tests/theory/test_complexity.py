"""Bounds of NERC against NERC itself, all sign vectors counted."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.theory.complexity import comb, homogeneous_ratio, nerc_bounds
from lggwjax.widths import width_from_gram
from lggwjax.widths.estimate import Estimate

KEY = jax.random.key(0)


def _gradients(seed: int, length: int, num: int, dim: int) -> np.ndarray:
    """Checkpoints of unlike sizes, some of them of low rank."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(length, num, dim)) * rng.gamma(1, size=(length, 1, 1))
    return found + rng.gamma(1) * rng.normal(size=(length, 1, dim)) * (rng.random() < 0.5)


def _exact_nerc(gradients: np.ndarray) -> float:
    signs = np.array(list(itertools.product((-1, 1), repeat=gradients.shape[1])))
    sums = np.einsum("ei,tip->etp", signs, gradients) / gradients.shape[1]
    return float(np.linalg.norm(sums, axis=-1).max(1).mean())


def _measured(gradients: np.ndarray, num_draws: int = 4096):
    grams = jnp.asarray(np.einsum("tip,tjp->tij", gradients, gradients), jnp.float32)
    stacked = gradients.reshape(len(gradients), -1) / math.sqrt(gradients.shape[1])
    width = width_from_gram(KEY, jnp.asarray(stacked @ stacked.T, jnp.float32), num_draws=num_draws)
    return grams, width


CASES = [(seed, length, num, dim) for seed in range(6) for length, num, dim in ((1, 6, 3), (4, 8, 5), (12, 9, 40))]


@pytest.mark.filterwarnings("ignore:The points differ by less than")
@pytest.mark.parametrize(("seed", "length", "num", "dim"), CASES)
def test_every_bound_holds_for_the_nerc_of_all_sign_vectors(seed, length, num, dim):
    gradients = _gradients(seed, length, num, dim)
    nerc = _exact_nerc(gradients)
    bounds = nerc_bounds(*_measured(gradients))
    for statement in ("3.2", "3.3", "3.4"):
        assert nerc <= bounds[statement].value * (1 + 1e-5), statement
    assert nerc >= bounds["3.1"].value * (1 - 1e-5)
    if length == 1:
        assert nerc <= math.sqrt(2) * bounds["3.1"].value * (1 + 1e-5)


def test_the_lower_bound_is_attained():
    # Two samples with one and the same gradient: half of the sign vectors cancel, half add up.
    gradients = np.ones((1, 2, 1))
    assert _exact_nerc(gradients) == pytest.approx(0.5)
    assert nerc_bounds(*_measured(gradients))["3.1"].value == pytest.approx(0.5)


def test_two_points_far_apart_need_the_term_in_the_number_of_points():
    # Scaled one-hot rows: at each point one sample alone has a gradient, of its own direction.
    gradients = np.zeros((9, 9, 9))
    gradients[np.arange(9), np.arange(9), np.arange(9)] = 1
    bounds = nerc_bounds(*_measured(gradients))
    assert bounds["3.2"].parts["points"] > bounds["3.2"].parts["rms"]
    assert _exact_nerc(gradients) <= bounds["3.2"].value


def test_bounds_are_about_the_measured_set_and_certified():
    bounds = nerc_bounds(*_measured(_gradients(0, 4, 8, 5)), confidence=0.99)
    assert {b.status for b in bounds.values()} == {"certified"}
    assert {b.about for b in bounds.values()} == {"measured set"}
    assert bounds["3.2"].confidence == 1  # nothing random in it
    assert bounds["3.3"].confidence == bounds["3.4"].confidence == 0.99
    assert bounds["3.1"].relation == "at least"


def test_bounds_scale_with_the_loss():
    gradients = _gradients(1, 4, 8, 5)
    one, seven = (nerc_bounds(*_measured(scale * gradients)) for scale in (1.0, 7.0))
    for statement, bound in one.items():
        assert seven[statement].value == pytest.approx(7 * bound.value, rel=1e-4)


def test_comb_is_what_the_best_split_gives():
    for x, y in ((1.0, 1.0), (3.0, 0.2), (0.0, 2.0)):
        tau = np.geomspace(1e-6, 1e6, 200_001)
        best = (np.sqrt(1 + tau) * x + np.sqrt(1 + 1 / tau) * y).min()
        assert comb(x, y) == pytest.approx(best, rel=2e-3)
        assert x + y <= comb(x, y) * (1 + 1e-12) <= math.sqrt(2) * (x + y) * (1 + 1e-9)


def test_the_ratio_is_unmoved_by_scale_and_carries_both_errors():
    gradients = _gradients(2, 4, 8, 5)
    one, error = jnp.asarray(64), 0.01
    ratios = []
    for scale in (1.0, 100.0):
        _, width = _measured(scale * gradients)
        number = jnp.asarray(_exact_nerc(scale * gradients))
        rms = float(np.sqrt(np.sum((scale * gradients) ** 2, (1, 2)) / 8).max())
        ratios.append(homogeneous_ratio(Estimate(number, error * number, one, one, 0 * number), width, rms, 8))
    assert float(ratios[0].value) == pytest.approx(float(ratios[1].value), rel=1e-4)
    assert error < float(ratios[0].stderr / ratios[0].value) < 2 * error


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"shape \(T, n, n\)"):
        nerc_bounds(jnp.eye(3), width_from_gram(KEY, jnp.eye(3)))
    nothing = width_from_gram(KEY, jnp.zeros((3, 3)))
    zero, one = jnp.zeros(()), jnp.asarray(1)
    with pytest.raises(ValueError, match="not all zero"):
        homogeneous_ratio(Estimate(zero, zero, one, one, zero), nothing, 0.0, 3)


def test_a_gaussian_is_never_below_the_signs():
    """The step of (3.3) from signs to Gaussians, by itself: sqrt(pi/2) is what it costs."""
    gradients = _gradients(3, 5, 8, 4)
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20_000, 8))
    sums = np.linalg.norm(np.einsum("ei,tip->etp", normals, gradients) / 8, axis=-1).max(1)
    error = sums.std() / math.sqrt(len(sums))
    assert _exact_nerc(gradients) <= math.sqrt(math.pi / 2) * (sums.mean() + 4 * error)
