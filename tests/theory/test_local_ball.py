"""Widths over regions against quadratics, whose Hessians are known, and against what brute force finds."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.models import ModelSpec, adapt, build
from lggwjax.theory.local_ball import RegionWidths, envelope_bound, region_width_bound, region_widths
from lggwjax.theory.regions import ball, low_rank, random_subspace, segment
from lggwjax.widths import closed_form
from lggwjax.widths.estimate import Estimate

KEY = jax.random.key(0)
DIM = 4


def quadratic(theta, z):
    return 0.5 * theta @ z @ theta


def _hessians(seed, num=3, dim=DIM):
    found = np.random.default_rng(seed).normal(size=(num, dim, dim))
    return (found + found.transpose(0, 2, 1)) / 2


def _near(estimate, exact, errors=4.5):
    return abs(float(estimate.value) - exact) <= errors * float(estimate.stderr) + 1e-5 * exact


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_the_stacked_linear_width_is_that_of_the_stacked_hessians(seed):
    hessians, radius = _hessians(seed), 0.7
    exact = radius * closed_form.ellipsoid(np.linalg.svd(np.concatenate(hessians) / math.sqrt(3), compute_uv=False))
    found = region_widths(
        KEY, quadratic, ball(jnp.zeros(DIM), radius), jnp.asarray(hessians, jnp.float32), num_draws=512
    )
    assert _near(found.linearised, exact)
    assert not _near(found.linearised, 1.1 * exact)
    # Gradients of a quadratic are affine: the ascent ends where the linear part does.
    assert float(found.from_below.value) == pytest.approx(float(found.linearised.value), rel=1e-3)
    assert _near(found.squared, radius**2 * np.sum(hessians**2) / 3)
    # The false claim takes the mean Hessian.
    assert float(found.linearised.value) > 1.2 * radius * np.linalg.norm(hessians.mean(0))


@pytest.mark.slow
def test_single_widths_are_means_of_image_lengths_and_between_their_bounds():
    hessians = _hessians(5)
    batch = jnp.asarray(hessians, jnp.float32)
    found = region_widths(KEY, quadratic, ball(jnp.ones(DIM), 2.0), batch, kind="single", num_draws=2048)
    for index, hessian in enumerate(hessians):
        exact = 2 * closed_form.ellipsoid(np.abs(np.linalg.eigvalsh(hessian)))
        one = jax.tree.map(lambda x, i=index: x[i] if x.ndim else x, found.linearised)
        assert _near(one, exact)
        size, op = np.linalg.norm(hessian), np.linalg.norm(hessian, 2)
        assert max(math.sqrt(2 / math.pi) * size, math.sqrt(size**2 - op**2)) <= exact / 2 <= size
    assert found.linearised.value.shape == (3,)


@pytest.mark.slow
def test_chunks_change_nothing():
    batch = jnp.asarray(_hessians(1, num=5), jnp.float32)
    region = ball(jnp.ones(DIM), 1.0)
    for kind in ("stacked", "single"):
        whole, cut = (
            region_widths(KEY, quadratic, region, batch, kind=kind, num_draws=8, chunk_size=c) for c in (5, 2)
        )
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5)


def _tanh_net():
    def loss(params, z):
        hidden = jnp.tanh(z["x"] @ params["a"] + params["b"])
        return 0.5 * (hidden @ params["c"] - z["y"]) ** 2

    keys = jax.random.split(jax.random.key(4), 5)
    params = {"a": jax.random.normal(keys[0], (3, 4)), "b": jnp.zeros(4), "c": jax.random.normal(keys[1], (4,))}
    batch = {"x": jax.random.normal(keys[2], (6, 3)), "y": jax.random.normal(keys[3], (6,))}
    return loss, params, batch


@pytest.mark.slow
def test_no_checkpoints_of_the_ball_are_wider_than_its_bound():
    loss, params, batch = _tanh_net()
    region = ball(params, 0.3)
    found = region_widths(KEY, loss, region, batch, num_draws=128, num_steps=4)
    # Far above the Lipschitz constant of a Hessian of three layers of this size.
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    third = jax.jit(jax.vmap(jax.jacfwd(jax.hessian(lambda v, z: loss(unravel(v), z))), (None, 0)))
    rng = np.random.default_rng(0)
    rim = rng.normal(size=(20, flat.size))
    rim = 0.3 * rim / np.linalg.norm(rim, axis=1, keepdims=True)
    largest = max(float(jnp.sqrt(jnp.sum(third(flat + move, batch) ** 2, axis=(1, 2, 3)).max())) for move in rim)
    bound = region_width_bound(found, region, 6, hessian_lipschitz=2 * largest)
    assert bound.status == "certified"
    path = [params, *(unravel(flat + move) for move in rim)]
    looked_at = lggwjax.lggw(KEY, loss, path, batch)
    assert float(looked_at.interval(0.999).low) <= bound.value
    assert float(found.lower(0.999)) <= bound.value
    assert float(looked_at.value) < float(found.from_below.value), "the ascent finds more than points by chance"
    assert (
        region_width_bound(found, region, 6, hessian_lipschitz=1.0, is_lipschitz_declared=False).status == "descriptive"
    )


def test_a_cubic_shows_that_the_hessian_at_the_centre_bounds_nothing():
    """The false claim w <= rho |H(theta_0)|_F: at 0 the Hessian of theta^3 / 6 vanishes, and the width does not."""
    cubic = lambda theta, z: z * theta[0] ** 3 / 6  # noqa: E731
    region = ball(jnp.zeros(1), 1.0)
    found = region_widths(KEY, cubic, region, jnp.ones(1), num_draws=64, num_steps=2)
    assert float(found.linearised.value) < 1e-6
    # Gradients theta^2 / 2 fill [0, 1/2], of width 1/2 / sqrt(2 pi); L_H = 1 bounds them.
    width = 0.5 * closed_form.segment(1.0)
    bound = region_width_bound(found, region, 1, hessian_lipschitz=1.0)
    assert width <= bound.value
    # The bound is a ball's width around the affine part: 1/2 E|g|, twice as wide as the half-line that is filled.
    assert bound.value == pytest.approx(0.5 * closed_form.expected_chi(1), abs=1e-6)


def test_the_largest_hessian_norm_bounds_nothing_either():
    """The false claim w <= rho sup |H(theta)|_F, for a loss that bends along one coordinate at a time.

    Two coordinates of a point of the unit ball cannot both be above 1/sqrt(2), so that |H|_F <= 1 everywhere. At its
    2 d poles the gradients are (1 - 1/sqrt(2)) times those of an l1 ball, whose width grows with d.
    """
    edge, dim = 1 / math.sqrt(2), 10_000

    def loss(theta, z):
        return z * 0.5 * jnp.sum(jnp.maximum(jnp.abs(theta) - edge, 0.0) ** 2)

    pole = jnp.zeros(6).at[2].set(-1.0)
    np.testing.assert_allclose(jax.grad(loss)(pole, 1.0), (1 - edge) * np.asarray(pole), rtol=1e-6)
    points = np.random.default_rng(0).normal(size=(1000, 6))
    points = jnp.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), jnp.float32)
    norms = jax.vmap(lambda v: jnp.linalg.norm(jax.hessian(loss)(v, 1.0)))(jnp.concatenate([points, pole[None]]))
    assert float(norms.max()) == pytest.approx(1.0)
    assert (1 - edge) * closed_form.expected_max_abs_normal(dim) > 1.1, "wider than rho sup |H|_F = 1"
    # What is claimed instead takes every Hessian into Q, and tr Q = d.
    assert (1 - edge) * closed_form.expected_max_abs_normal(dim) <= math.sqrt(dim)


@pytest.mark.slow
def test_the_envelope_is_descriptive_and_above_the_ascent():
    loss, params, batch = _tanh_net()
    region = ball(params, 0.3)
    bound = envelope_bound(KEY, loss, region, batch, num_points=3, num_draws=48)
    assert bound.status == "descriptive"
    assert "looked at in 3 points" in str(bound)
    found = region_widths(KEY, loss, region, batch, num_draws=48)
    assert float(found.lower()) <= bound.value


def test_the_frobenius_bound_holds_as_often_as_it_says_and_fails_without_its_factor():
    rng = np.random.default_rng(0)
    failures = np.zeros(2, int)
    for _ in range(400):
        values = rng.gamma(0.3, size=5)
        squares = (rng.normal(size=(40, 5)) ** 2 * values**2).sum(1)
        one = lambda x: Estimate(jnp.asarray(x), jnp.zeros(()), jnp.asarray(40), jnp.asarray(40), jnp.zeros(()))  # noqa: E731
        found = RegionWidths(one(0.0), one(squares.mean()), one(0.0))
        exact = math.sqrt(np.sum(values**2))
        failures += [float(found.frobenius(0.9)) < exact, math.sqrt(squares.mean()) < exact]
    assert failures[0] <= 40
    assert failures[1] > 100
    with pytest.raises(ValueError, match="draws for confidence"):
        RegionWidths(one(0.0), one(1.0), one(0.0)).frobenius(1 - 1e-9)


@pytest.mark.slow
def test_squares_agree_with_matfree():
    stochtrace = pytest.importorskip("matfree.stochtrace")
    hessians = _hessians(7)
    stacked = jnp.asarray(np.concatenate(hessians) / math.sqrt(3), jnp.float32)
    sampler = stochtrace.sampler_normal(jnp.zeros(DIM), num=4096)
    estimate = stochtrace.estimator_monte_carlo_mean_and_sem(stochtrace.monte_carlo_frobeniusnorm_squared(), sampler)
    mean, error = estimate(lambda v: stacked @ v, KEY)
    found = region_widths(KEY, quadratic, ball(jnp.zeros(DIM), 1.0), jnp.asarray(hessians, jnp.float32), num_draws=1024)
    assert abs(float(found.squared.value - mean)) <= 4.5 * math.hypot(float(found.squared.stderr), float(error))


@pytest.mark.parametrize(
    "region",
    [
        ball({"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, 0.5),
        segment({"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, {"w": jnp.zeros((3, 4)), "b": jnp.ones(4)}),
        random_subspace(KEY, {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, 0.5, 5),
        low_rank(KEY, {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, 0.5, 2),
    ],
    ids=lambda region: region.form,
)
def test_regions_never_leave_their_radius(region):
    v = [jax.random.normal(KEY, leaf.shape) for leaf in region.zeros()]
    length = math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in v))
    v = [leaf / length for leaf in v]
    moved = math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in region.embed(v)))
    assert moved == pytest.approx(float(region.radius), rel=1e-5)
    assert jax.tree.map(jnp.shape, region.params(v)) == {"w": (3, 4), "b": (4,)}
    nearer = region.around([leaf / 2 for leaf in v])
    assert jax.tree.structure(nearer) == jax.tree.structure(region)


@pytest.mark.slow
def test_a_segment_of_affine_gradients_has_the_width_of_its_ends():
    hessian = jnp.asarray(_hessians(2)[:1], jnp.float32)
    first, second = jnp.arange(4.0), jnp.array([2.0, 0.0, -1.0, 1.0])
    found = region_widths(KEY, quadratic, segment(first, second), hessian, num_draws=2048)
    exact = float(jnp.linalg.norm(hessian[0] @ (second - first))) / math.sqrt(2 * math.pi)
    assert _near(found.linearised, exact)
    assert _near(found.from_below, exact)


def test_other_leaves_stay_and_a_second_region_compiles_nothing():
    model = adapt(build(ModelSpec("ffn", widths=(5,), norm="batch"), (6,), 3, 0), "cross_entropy")
    batch = {"x": jax.random.normal(KEY, (4, 6)), "y": jnp.arange(4) % 3}
    given = {"num_draws": 4, "num_steps": 1}
    first = region_widths(KEY, model.loss_fn, ball(model.params, 0.1, wrt=model.wrt), batch, **given)
    assert float(first.from_below.value) > 0
    moved = jax.tree.map(lambda x: 1.5 * x if x.dtype == jnp.float32 else x, model.params)
    second = ball(moved, 0.2, wrt=model.wrt)
    counted = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: counted.append(event) if event.endswith("backend_compile_duration") else None
    )
    region_widths(KEY, model.loss_fn, second, batch, **given)
    assert counted == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ball(jnp.ones(2), 0.0), "positive radius"),
        (lambda: segment(jnp.ones(2), jnp.ones(2)), "different ends"),
        (lambda: random_subspace(KEY, jnp.ones(2), 1.0, 3), "from 1 to 2"),
        (lambda: low_rank(KEY, jnp.ones(2), 1.0, 1), "two axes"),
        (lambda: region_widths(KEY, quadratic, ball(jnp.ones(2), 1.0), jnp.eye(2)[None], num_draws=1), "num_draws"),
        (lambda: region_widths(KEY, quadratic, ball(jnp.ones(2), 1.0), jnp.eye(2)[None], kind="x"), "stacked"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
