"""Bounds of NERC against NERC itself, all sign vectors counted."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.lggw import lggw, single_widths
from lggwjax.theory.complexity import chain_bounds, comb, homogeneous_ratio, nerc_bounds, nerc_shapes
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


def test_the_bound_for_finitely_many_points_is_the_best_that_its_proof_gives():
    gradients = _gradients(4, 6, 8, 5)
    bound = nerc_bounds(*_measured(gradients))["3.2"]
    sizes = np.linalg.norm(gradients, axis=(1, 2)) / math.sqrt(8)
    op = max(np.linalg.norm(one, 2) for one in gradients) / math.sqrt(8)
    s = np.linspace(0, 1 / op**2, 1_000_001)[1:-1]
    squares = 2 / s * math.log(6) + sizes.max() ** 2 / (1 - s * op**2)
    assert bound.value * math.sqrt(8) == pytest.approx(math.sqrt(squares.min()), rel=1e-4)


def test_the_bound_by_the_width_is_the_best_that_its_comparison_gives():
    gradients = _gradients(5, 4, 8, 5)
    grams, width = _measured(gradients)
    bound = nerc_bounds(grams, width)["3.3"]
    high = float(width.guaranteed_interval(0.95).high)
    trace = bound.parts["trace"] ** 2 * 8 * 2 / math.pi
    second = sum(one.T @ one / 8 for one in gradients)
    assert trace <= np.trace(second) * (1 + 1e-4), "never more than the sum of all second moments"
    tau = np.geomspace(1e-8, 1e8, 400_001)
    best = (np.sqrt(1 + tau) * high + np.sqrt(1 + 1 / tau) * math.sqrt(trace)).min()
    assert bound.value * math.sqrt(8) == pytest.approx(math.sqrt(math.pi / 2) * best, rel=2e-3)


@pytest.mark.parametrize("num", [16, 64, pytest.param(4096, marks=pytest.mark.slow)])
def test_chaining_adds_up_level_by_level(num):
    """The proof's sum for a set as wide as its nets allow, w = 1: the constants round it up, and by little."""
    gradients = np.zeros((2, num, 1), np.float32)
    gradients[1] = 1.0  # two points, one of them without gradients: rms(theta_0) is 0 there
    grams = jnp.asarray(np.einsum("tip,tjp->tij", gradients, gradients))
    width = width_from_gram(KEY, jnp.diag(jnp.array([0.0, 1.0])))
    bound = nerc_bounds(grams, width)["3.4"]
    high = float(width.guaranteed_interval(0.95).high)
    levels = math.ceil(math.log2(num) / 2)
    diameter = math.sqrt(2 * math.pi) * high
    total = math.sqrt(num) * 2.0**-levels * diameter
    for level in range(1, levels + 1):
        step = 2.0 ** (1 - level) * diameter
        # Sudakov with m_N >= sqrt(ln N / (pi ln 2)): the most points that the width leaves room for.
        log_points = math.pi * math.log(2) * 2 * (high / (2.0**-level * diameter)) ** 2
        total += step * (1 + math.sqrt(2 * log_points))
    assert total <= bound.value * math.sqrt(num) <= total + 2.0 ** (2 - levels) * diameter


@pytest.mark.slow
def test_the_chain_is_attained_at_both_ends():
    key = jax.random.key(1)
    # One sample alone has gradients that differ between the checkpoints: the lower end.
    loss = lambda theta, z: 0.5 * z * jnp.sum(theta**2)  # noqa: E731
    path, batch = [jnp.zeros(3), jnp.ones(3), jnp.array([2.0, 0.0, 0.0])], jnp.array([1.0, 0.0, 0.0, 0.0])
    width = lggw(key, loss, path, batch, num_draws=16_384)
    found = chain_bounds(single_widths(key, loss, path, batch, num_draws=16_384), 3)
    error = float(width.value - found["at least"].value)
    slack = 2 * float(width.diameter) / 2 * math.sqrt(2 * math.log(40) / 8192)
    assert 0 <= error <= 2 * slack
    assert found["at least"].value * 1.1 > float(width.value)
    # Every sample chooses its gradient by itself: the upper end.
    choices = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=3)))
    apart = lambda theta, z: 0.5 * theta[z] ** 2  # noqa: E731
    samples = jnp.arange(3)
    width = lggw(key, apart, list(choices), samples, num_draws=16_384)
    found = chain_bounds(single_widths(key, apart, list(choices), samples, num_draws=16_384), 8)
    assert float(width.value - 4 * width.stderr) <= found["at most"].value
    assert 0.9 * found["at most"].value < float(width.value)
    assert {b.status for b in found.values()} == {"certified"}


@pytest.mark.slow
def test_a_single_width_does_not_bound_the_lggw_without_n():
    """The false claim: with independent choices the LGGW is sqrt(n) times a single sample's width."""
    choices = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4)))
    loss = lambda theta, z: 0.5 * theta[z] ** 2  # noqa: E731
    key = jax.random.key(2)
    width = lggw(key, loss, list(choices), jnp.arange(4))
    largest = single_widths(key, loss, list(choices), jnp.arange(4)).largest
    assert float(width.value) > 1.7 * float(largest.value)


def test_no_width_is_bounded_by_the_nerc():
    """The false claim: one sample at a time may have a gradient; NERC sees one of n, the width all that it could be."""
    ratios = []
    for num in (4, 64):
        gradients = np.zeros((2 * num, num, 1))
        gradients[np.arange(num), np.arange(num), 0] = math.sqrt(num)
        gradients[num + np.arange(num), np.arange(num), 0] = -math.sqrt(num)
        rng = np.random.default_rng(0)
        signs = rng.choice((-1.0, 1.0), size=(64, num))
        sums = np.abs(np.einsum("ei,tip->etp", signs, gradients)).max((1, 2)) / num
        stacked = gradients.reshape(2 * num, -1) / math.sqrt(num)
        width = width_from_gram(KEY, jnp.asarray(stacked @ stacked.T, jnp.float32))
        ratios.append(float(width.value) / (math.sqrt(num) * sums.mean()))
    assert ratios[1] > 1.5 * ratios[0]


def test_shapes_are_never_certified():
    width = width_from_gram(KEY, jnp.eye(3))
    found = nerc_shapes(width, 2.0, 16, 3)
    assert {name: bound.status for name, bound in found.items()} == {"3.5": "shape", "3.6": "shape"}
    assert found["3.5"].value == pytest.approx((2.0 + float(width.value)) / 4)
    assert all("unnamed constant" in str(bound) for bound in found.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_mean_deviation_is_at_most_twice_the_nerc(seed):
    """(4.1): symmetrisation, for gradients at several points of a population that is known."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(5, 4, 3)) * rng.gamma(1, size=(5, 1, 1))  # 5 equally likely samples, 4 points
    mean, deviations, nercs = values.mean(0), [], []
    for _ in range(3000):
        drawn = values[rng.integers(0, 5, 10)]
        signs = rng.choice((-1.0, 1.0), size=10)
        deviations.append(np.linalg.norm(drawn.mean(0) - mean, axis=1).max())
        nercs.append(np.linalg.norm(np.einsum("i,itp->tp", signs, drawn) / 10, axis=1).max())
    error = 4 * (np.std(deviations) + 2 * np.std(nercs)) / math.sqrt(3000)
    assert np.mean(deviations) <= 2 * np.mean(nercs) + error
    assert np.mean(deviations) > 0.25 * 2 * np.mean(nercs), "not so loose that nothing could break it"
