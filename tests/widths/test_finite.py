"""Widths of finite sets against closed forms, and the laws that hold draw by draw."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.widths import WidthEstimate, closed_form, factor, finite, gaussian_width, width_from_gram
from lggwjax.widths.factor import Factor, factor_gram, factor_moved_gram, factor_points
from lggwjax.widths.finite import DRAWS_PER_BLOCK, NUM_SCRAMBLES, SOBOL_MAX_DIM, draws_for, width_from_factor

KEY = jax.random.key(0)
JITTED = {
    function: jax.jit(lambda key, points, num, function=function: function(key, points, num_draws=num))
    for function in (gaussian_width, width_from_gram)
}


def _rng(seed=0):
    return np.random.default_rng(seed)


def _polygon(num):
    angles = 2 * np.pi * np.arange(num) / num
    return jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], 1), jnp.float32)


def _path_like(num=40, dim=60):
    """A set that looks like an optimisation path: large early moves along few directions, small noise."""
    rng = _rng(3)
    times = np.linspace(0, 1, num)[:, None]
    scales = np.arange(1.0, dim + 1) ** -2.0
    return jnp.asarray((1 - np.exp(-3 * times * scales)) * rng.normal(size=dim) + 1e-3 * rng.normal(size=(num, dim)))


def _within(estimate: WidthEstimate, truth: float, sigmas: float = 4.0) -> bool:
    return bool(abs(estimate.value - truth) <= sigmas * estimate.stderr + estimate.rounding)


def _padded(points):
    """The same set in a common shape, for which everything is compiled once: copies of a point and zero coordinates."""
    points = np.asarray(points, np.float32)
    copies = np.concatenate([points, np.repeat(points[:1], 20 - len(points), 0)])
    return jnp.asarray(np.pad(copies, ((0, 0), (0, 20 - copies.shape[1]))))


CLOSED = {
    "point": (jnp.array([[3.0, -1.0]]), 0.0),
    "symmetric pair": (jnp.array([[3.0, 4.0], [-3.0, -4.0]]), closed_form.segment(10.0)),
    "segment": (jnp.array([[3.0, 4.0], [0.0, 0.0], [1.5, 2.0]]), closed_form.segment(5.0)),
    "simplex 2": (jnp.eye(2), closed_form.expected_max_normal(2)),
    "simplex 20": (jnp.eye(20), closed_form.expected_max_normal(20)),
    "simplex, scaled": (7 * jnp.eye(5), 7 * closed_form.expected_max_normal(5)),
    "simplex, moved": (jnp.eye(5) + 3.0, closed_form.expected_max_normal(5)),
    "cross-polytope": (jnp.concatenate([jnp.eye(10), -jnp.eye(10)]), closed_form.expected_max_abs_normal(10)),
    "polygon": (_polygon(7), closed_form.polygon(np.asarray(_polygon(7)))),
    "box": (jnp.array([[a, b, c] for a in (0, 1.0) for b in (0, 2.0) for c in (0, 3.0)]), 6 / math.sqrt(2 * math.pi)),
}
CLOSED = {name: (_padded(points), truth) for name, (points, truth) in CLOSED.items()}


@pytest.mark.parametrize("name", CLOSED)
def test_known_widths_from_points_and_from_a_gram_matrix(name):
    points, truth = CLOSED[name]
    for estimate in (gaussian_width(KEY, points), width_from_gram(KEY, points @ points.T)):
        assert _within(estimate, truth)
        low, high = estimate.guaranteed_interval(0.999)
        assert low <= truth <= high


@pytest.mark.parametrize("name", [n for n in CLOSED if "simplex" in n or n == "polygon"])
def test_a_width_wrong_by_three_percent_would_be_found(name):
    points, truth = CLOSED[name]
    estimate = gaussian_width(KEY, points, num_draws=20_000)
    assert _within(estimate, truth)
    if float(estimate.stderr) > 0:
        assert not _within(estimate, 1.03 * truth)
        assert not _within(estimate, 0.97 * truth)


def test_against_directions_of_the_points_own_dimension():
    points = _rng().normal(size=(20, 30)) * np.linspace(0.1, 2, 30)
    scores = points @ _rng(1).normal(size=(30, 20_000))
    half = (scores.max(0) - scores.min(0)) / 2
    estimate = gaussian_width(KEY, points.astype(np.float32), num_draws=8192)
    error = math.hypot(half.std() / math.sqrt(half.size), float(estimate.stderr))
    assert abs(float(estimate.value) - half.mean()) < 4 * error


def _draws(factor: Factor, num=512, radial=True):
    """Half-ranges of a factor for fixed normals, so that laws that hold draw by draw can be seen."""
    z = _rng(9).normal(size=(num, factor.rows.shape[1]))
    if radial:
        z *= closed_form.expected_chi(z.shape[1]) / np.linalg.norm(z, axis=1, keepdims=True)
    scores = np.asarray(factor.rows, np.float64) @ z.T
    return (scores.max(0) - scores.min(0)) / 2


def test_half_range_is_unbiased_and_its_variance_is_at_most_an_eighth_of_the_squared_diameter():
    for points, truth in CLOSED.values():
        factor = factor_points(points)
        half = _draws(factor, 4000, radial=False)
        assert abs(half.mean() - truth) <= 4 * half.std() / math.sqrt(half.size) + 1e-6
        # The variance of a variance estimate over 4000 draws is far below 10%.
        assert half.var() <= 1.1 * float(factor.diameter) ** 2 / 8


def test_radial_factor_is_unbiased_and_never_worse():
    for points, truth in CLOSED.values():
        factor = factor_points(points)
        plain, radial = _draws(factor, 4000, radial=False), _draws(factor, 4000)
        assert abs(radial.mean() - truth) <= 4 * radial.std() / math.sqrt(radial.size) + 1e-5
        assert radial.var() <= 1.02 * plain.var() + 1e-12


def test_radial_factor_makes_sets_of_one_dimension_exact():
    estimate = gaussian_width(KEY, jnp.array([[3.0, 4.0], [0.0, 0.0]]), num_draws=2)
    assert float(estimate.stderr) < 1e-6
    assert float(estimate.value) == pytest.approx(closed_form.segment(5.0), rel=1e-6)


@pytest.mark.parametrize("make", [lambda p: factor_points(p), lambda p: factor_gram(p @ p.T)], ids=["points", "gram"])
def test_translation_leaves_every_draw_as_it_is(make):
    points = jnp.asarray(_rng().normal(size=(9, 20)), jnp.float32)
    np.testing.assert_allclose(_draws(make(points + 3.0)), _draws(make(points)), rtol=1e-3)


def test_scaling_scales_every_draw():
    points = jnp.asarray(_rng().normal(size=(20, 20)), jnp.float32)
    for scale in (-3.0, 1e-8, 1e8):
        scaled, plain = (gaussian_width(KEY, p, num_draws=64) for p in (scale * points, points))
        np.testing.assert_allclose(scaled.value, abs(scale) * plain.value, rtol=1e-4)
        np.testing.assert_allclose(scaled.stderr, abs(scale) * plain.stderr, rtol=1e-3)
        np.testing.assert_allclose(scaled.diameter, abs(scale) * plain.diameter, rtol=1e-4)


def test_other_laws_of_the_width():
    points = jnp.asarray(_rng().normal(size=(20, 20)), jnp.float32).at[18:].set(0)
    rotation = jnp.asarray(np.linalg.qr(_rng(1).normal(size=(20, 20)))[0], jnp.float32)
    value = float(gaussian_width(KEY, points).value)
    assert float(gaussian_width(KEY, points @ rotation).value) == pytest.approx(value, rel=1e-4)
    assert float(gaussian_width(KEY, -points).value) == pytest.approx(value, rel=1e-4)
    # A point of the convex hull adds nothing.
    inside = points.at[19].set(points[:18].mean(0))
    found = gaussian_width(KEY, inside, num_draws=8192)
    assert abs(found.value - gaussian_width(KEY, points, num_draws=8192).value) < 4 * math.sqrt(2) * found.stderr
    # w(A + B) = w(A) + w(B)
    first, second = np.asarray(points[:4]), np.asarray(points[4:8])
    total = (first[:, None] + second[None]).reshape(-1, 20)
    found = [gaussian_width(KEY, _padded(p), num_draws=8192) for p in (total, first, second)]
    error = math.sqrt(sum(float(f.stderr) ** 2 for f in found))
    assert abs(float(found[0].value - found[1].value - found[2].value)) < 4 * error


def test_inequalities_of_the_width():
    for points, _ in CLOSED.values():
        estimate, num, dim = gaussian_width(KEY, points), *points.shape
        diameter, slack = float(estimate.diameter), 4 * float(estimate.stderr) + float(estimate.rounding)
        assert diameter / math.sqrt(2 * math.pi) <= float(estimate.value) + slack
        assert float(estimate.value) - slack <= diameter / 2 * closed_form.expected_chi(min(dim, max(1, num - 1)))
        assert float(estimate.value) - slack <= diameter / math.sqrt(2) * closed_form.expected_max_normal(num)


def test_cholesky_in_order_of_arrival_keeps_the_rows_of_earlier_points():
    moved = jnp.asarray(np.cumsum(_rng().normal(size=(12, 40)), 0) * 0.1, jnp.float32).at[0].set(0)
    full = moved @ moved.T
    rows = factor_moved_gram(full).rows
    for length in (2, 5, 11):
        padded = jnp.zeros_like(full).at[:length, :length].set(full[:length, :length])
        np.testing.assert_allclose(factor_moved_gram(padded).rows[:length], rows[:length], atol=1e-6)


def test_a_growing_path_grows_draw_by_draw():
    moved = jnp.asarray(np.cumsum(_rng().normal(size=(12, 40)), 0) * 0.1, jnp.float32).at[0].set(0)
    full, previous = moved @ moved.T, np.zeros(512)
    for length in range(1, 13):
        draws = _draws(factor_moved_gram(jnp.zeros((12, 12)).at[:length, :length].set(full[:length, :length])))
        assert (draws >= previous - 1e-5).all()
        previous = draws
    shuffled = _draws(factor_moved_gram(full[::-1, ::-1]))
    assert (shuffled < previous - 1e-2).any(), "the draws do depend on the order: only the law does not"


def test_factor_reproduces_the_gram_matrix_also_where_it_is_singular():
    points = jnp.asarray(_rng().normal(size=(15, 3)), jnp.float32)
    moved = points - points[:1]
    factor = factor_moved_gram(moved @ moved.T)
    np.testing.assert_allclose(factor.rows @ factor.rows.T, moved @ moved.T, atol=1e-2 * float(factor.diameter))
    assert float(factor.diameter) == pytest.approx(
        max(float(jnp.linalg.norm(a - b)) for a in points for b in points), rel=1e-5
    )


def test_points_near_the_origin_keep_their_own_relative_accuracy():
    moved = np.zeros((3, 2), np.float32)
    moved[1], moved[2] = (1e-6, 0), (0, 1e3)
    rows = np.asarray(factor_moved_gram(jnp.asarray(moved @ moved.T)).rows)
    assert np.linalg.norm(rows[1]) == pytest.approx(1e-6, rel=1e-4)


def test_width_zero_comes_with_stderr_zero():
    for points in (jnp.ones((1, 3)), jnp.ones((20, 20)), jnp.zeros((20, 20))):
        for estimate in (gaussian_width(KEY, points), width_from_gram(KEY, points @ points.T)):
            assert float(estimate.value) == 0
            assert float(estimate.stderr) == 0
            assert estimate.interval() == (0, 0)
            assert estimate.guaranteed_interval() == (0, 0)


@pytest.mark.parametrize("length", [1.0, 1e-6, 1e6])
def test_exact_cases_contain_the_truth(length):
    for points in (jnp.array([[0.0, 0.0], [0.6, 0.8]]), jnp.array([[5.0, 5.0], [5.6, 5.8]])):
        estimate = gaussian_width(KEY, length * points)
        low, high = estimate.interval(0.95)
        assert low <= closed_form.segment(length * float(jnp.linalg.norm(points[1] - points[0]))) <= high
        assert float(high - low) < 1e-4 * length


def test_exact_cases_contain_the_truth_from_a_gram_matrix_far_from_the_origin():
    points = np.array([[5.0, 5.0], [5.6, 5.8]])
    estimate = width_from_gram(KEY, (points @ points.T).astype(np.float32))
    low, high = estimate.interval(0.95)
    assert low <= closed_form.segment(1.0) <= high
    assert float(high - low) < 1e-3


def test_duplicates_do_not_change_the_width():
    points = jnp.asarray(_rng().normal(size=(6, 20)), jnp.float32)
    doubled = jnp.concatenate([points, points, points[:3]])
    plain, double = (gaussian_width(KEY, _padded(p), num_draws=8192) for p in (points, doubled))
    assert abs(plain.value - double.value) < 4 * jnp.hypot(plain.stderr, double.stderr)
    # With the same normals the half-ranges are the same: duplicates add rows, and no column of their own.
    rows = factor_points(doubled).rows
    np.testing.assert_allclose(rows[6:12], rows[:6], atol=1e-4)


def test_near_duplicates_do_not_change_the_width():
    points = _rng().normal(size=(6, 20)).astype(np.float32)
    near = np.concatenate([points, points + 1e-6 * _rng(1).normal(size=points.shape).astype(np.float32)])
    plain, double = (gaussian_width(KEY, _padded(p), num_draws=8192) for p in (points, near))
    assert abs(plain.value - double.value) < 4 * jnp.hypot(plain.stderr, double.stderr)
    rows = np.asarray(factor_points(jnp.asarray(near)).rows)
    assert np.abs(rows[6:] - rows[:6]).max() < 0.01


def test_counts_say_who_attains_the_supremum():
    points = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    counts = gaussian_width(KEY, points, num_draws=100).counts
    assert counts.tolist() == [100, 100, 0]


@pytest.mark.parametrize("num_draws", [2, 63, 64, 65, 1000])
def test_exactly_num_draws_directions_count(num_draws):
    estimate = gaussian_width(KEY, jnp.eye(20), num_draws=num_draws)
    assert int(estimate.num_draws) == num_draws
    assert int(estimate.counts.sum()) == 2 * num_draws


def test_results_follow_the_key():
    first, again, other = (gaussian_width(jax.random.key(s), jnp.eye(20)).value for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_float32_gram_of_a_tiny_set_far_away_warns():
    points = 1.0 + 1e-3 * _rng().normal(size=(20, 20)).astype(np.float32)
    with pytest.warns(UserWarning, match="Subtract one point from all before multiplying"):
        width_from_gram(KEY, points @ points.T)
    moved = points - points[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width_from_gram(KEY, moved @ moved.T)
        gaussian_width(KEY, points)
        width_from_gram(KEY, np.eye(20, dtype=np.float32))


def test_points_far_from_the_origin_keep_their_width():
    points = _rng().normal(size=(20, 20)).astype(np.float32)
    far = points + np.float32(1024.0)
    near = far - np.float32(1024.0)
    assert float(gaussian_width(KEY, far).value) == pytest.approx(float(gaussian_width(KEY, near).value), rel=1e-5)


@pytest.mark.makes_nan
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_outside_and_become_nan_inside(bad):
    points = jnp.eye(20).at[2, 1].set(bad)
    with pytest.raises(ValueError, match=r"Expected finite points, got .* at index \(2, 1\)"):
        gaussian_width(KEY, points)
    with pytest.raises(ValueError, match="Expected finite gram"):
        width_from_gram(KEY, points)
    for function, values in (
        (gaussian_width, points),
        (width_from_gram, points @ points.T),
        (gaussian_width, points * bad),
    ):
        inside = JITTED[function](KEY, values, 100)
        assert np.isnan(inside.value)
        assert np.isnan(inside.interval().low)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 2, 2)])
def test_shapes_are_checked_also_inside_a_trace(shape):
    for function in (gaussian_width, width_from_gram):
        with pytest.raises(ValueError, match="Expected"):
            function(KEY, jnp.zeros(shape))
        with pytest.raises(ValueError, match="Expected"):
            jax.eval_shape(lambda p, f=function: f(KEY, p), jnp.zeros(shape))


def test_matrices_that_are_no_gram_matrix_are_refused():
    for bad, message in (
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
        (np.array([[1.0, 0.0], [0.0, -1.0]]), "positive semidefinite"),
        (np.ones((2, 3)), "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            width_from_gram(KEY, bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 1}, "num_draws >= 2"),
        ({"num_draws": 64, "tolerance": 0.1}, "got both"),
        ({"tolerance": 0.0}, "tolerance between 0 and 1"),
        ({"sampler": "sobol"}, "sampler"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        gaussian_width(KEY, jnp.eye(3), **options)


def test_integer_points_are_points():
    np.testing.assert_allclose(
        gaussian_width(KEY, jnp.eye(20, dtype=int)).value, gaussian_width(KEY, jnp.eye(20)).value
    )


@pytest.mark.parametrize("function", [gaussian_width, width_from_gram])
def test_num_draws_is_traced_under_jit(function):
    jitted = JITTED[function]
    for num_draws in (100, 1000):
        inside, outside = jitted(KEY, jnp.eye(20), num_draws), function(KEY, jnp.eye(20), num_draws=num_draws)
        np.testing.assert_allclose(inside.value, outside.value, rtol=1e-6)
        np.testing.assert_allclose(inside.stderr, outside.stderr, rtol=1e-4)
    assert jitted._cache_size() == 1


def test_jit_around_a_constant_set():
    points = jnp.eye(20)
    inside = jax.jit(lambda key: width_from_gram(key, points).value + gaussian_width(key, points).value)(KEY)
    outside = float(width_from_gram(KEY, points).value + gaussian_width(KEY, points).value)
    assert inside == pytest.approx(outside, rel=1e-6)


@pytest.mark.parametrize("function", [gaussian_width, width_from_gram])
def test_vmap_over_keys_and_over_sets(function):
    keys = jax.random.split(KEY, 3)
    sets = jnp.stack([jnp.eye(20), 2 * jnp.eye(20), jnp.zeros((20, 20))])
    found = jax.jit(jax.vmap(lambda key, points: function(key, points, num_draws=100)))(keys, sets)
    assert found.interval().low.shape == (3,)
    for index in range(3):
        one = function(keys[index], sets[index], num_draws=100)
        np.testing.assert_allclose(found.value[index], one.value, rtol=1e-5)
        np.testing.assert_allclose(found.guaranteed_interval().low[index], one.guaranteed_interval().low, rtol=1e-4)
    assert float(found.value[2]) == float(found.stderr[2]) == 0


def test_no_number_of_draws_compiles_anew():
    gaussian_width(KEY, jnp.eye(20), num_draws=2)
    before = finite._iid_width._cache_size()
    for num_draws in (3, 64, 100, 5000):
        gaussian_width(KEY, jnp.eye(20), num_draws=num_draws)
    assert finite._iid_width._cache_size() == before


def test_draws_are_the_same_in_wide_blocks_and_in_narrow_ones(monkeypatch):
    points = jnp.asarray(_rng().normal(size=(20, 20)), jnp.float32)
    wide = gaussian_width(KEY, points, num_draws=2500)
    monkeypatch.setattr(finite, "WIDE_BLOCK", 1)
    finite._iid_width.clear_cache()
    narrow = gaussian_width(KEY, points, num_draws=2500)
    finite._iid_width.clear_cache()
    assert wide.counts.tolist() == narrow.counts.tolist()
    assert float(wide.value) == pytest.approx(float(narrow.value), rel=1e-5)
    assert float(wide.stderr) == pytest.approx(float(narrow.stderr), rel=1e-4)


def test_leaving_out_the_zeros_of_a_triangular_factor_changes_nothing():
    rows = factor_points(jnp.asarray(_rng().normal(size=(300, 400)), jnp.float32)).rows[None]
    z = jnp.asarray(_rng(1).normal(size=(64, 299)), jnp.float32)
    whole, pieces = finite._half_ranges(rows, z), finite._half_ranges(rows, z, 4)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-5)
    assert pieces[1].tolist() == whole[1].tolist()
    assert pieces[2].tolist() == whole[2].tolist()
    scores = np.asarray(z) @ np.asarray(rows[0]).T
    assert whole[1][:, 0].tolist() == scores.argmax(1).tolist()
    assert whole[2][:, 0].tolist() == scores.argmin(1).tolist()


@pytest.mark.slow
def test_points_just_more_than_coordinates_are_not_taken_for_triangular():
    points = jnp.asarray(_rng().normal(size=(301, 300)), jnp.float32)
    more = gaussian_width(KEY, points, num_draws=4096)
    padded = gaussian_width(KEY, jnp.pad(points, ((0, 0), (0, 10))), num_draws=4096)
    assert float(more.value) == pytest.approx(float(padded.value), abs=4 * float(more.stderr + padded.stderr))


@pytest.mark.parametrize("num", [193, 288, 300, 1000])
def test_the_cholesky_factor_in_blocks(num):
    points = _rng().normal(size=(num, num // 2))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    matrix = points @ points.T + 1e-4 * np.eye(num)
    lower = np.asarray(jax.jit(factor._cholesky)(jnp.asarray(matrix, jnp.float32)), float)
    assert not np.any(np.triu(lower, 1))
    assert np.abs(lower @ lower.T - matrix).max() < 16 * np.finfo(np.float32).eps
    whole = np.linalg.cholesky(matrix)
    assert np.abs(lower - whole).max() < 1e-2  # half of the directions are the shift's alone
    assert np.abs(lower[: num // 2] - whole[: num // 2]).max() < 1e-4


@pytest.mark.makes_nan
def test_the_cholesky_factor_in_blocks_refuses_an_indefinite_matrix():
    for place in (5, 150, 299):  # in the first block, below it, in the last
        matrix = np.eye(300, dtype=np.float32)
        matrix[place, place - 1] = matrix[place - 1, place] = 1.5
        assert not np.isfinite(np.asarray(factor._cholesky(jnp.asarray(matrix)))).all()


@pytest.mark.parametrize("tolerance", [0.05, 0.005])
def test_tolerance_reaches_the_standard_error(tolerance):
    for seed in range(5):
        estimate = gaussian_width(jax.random.key(seed), jnp.eye(20), tolerance=tolerance)
        assert float(estimate.stderr / estimate.value) <= tolerance * 1.1
        assert int(estimate.num_draws) % DRAWS_PER_BLOCK == 0
    assert float(gaussian_width(KEY, jnp.ones((20, 20)), tolerance=0.01).value) == 0


def test_the_pilot_is_thrown_away():
    # The estimate is what a fixed number of draws with the second key gives, so its intervals are those of a fixed K.
    fresh, pilot_key = jax.random.split(KEY)
    pilot = gaussian_width(pilot_key, jnp.eye(20), num_draws=DRAWS_PER_BLOCK)
    estimate = gaussian_width(KEY, jnp.eye(20), tolerance=0.01)
    again = gaussian_width(fresh, jnp.eye(20), num_draws=draws_for(pilot, 0.01))
    assert estimate.value == again.value
    assert int(estimate.num_draws) == int(again.num_draws)


def test_tolerance_is_refused_inside_a_trace():
    with pytest.raises(ValueError, match="Pass num_draws= there"):
        jax.jit(lambda p: gaussian_width(KEY, p, tolerance=0.1).value)(jnp.eye(3))
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda p: gaussian_width(KEY, p, sampler="rqmc").value)(jnp.eye(3))


def test_rqmc_is_unbiased_and_uses_enough_scrambles():
    assert NUM_SCRAMBLES >= 8
    for name in ("simplex 20", "cross-polytope", "box"):
        points, truth = CLOSED[name]
        estimate = gaussian_width(KEY, points, sampler="rqmc", num_draws=1024)
        assert _within(estimate, truth, 5)
        assert not _within(estimate, 1.2 * truth, 5)
        assert int(estimate.num_replicates) == NUM_SCRAMBLES
        assert int(estimate.num_draws) == 1024
        assert int(estimate.counts.sum()) == 2048


def test_rqmc_interval_covers():
    hits = sum(
        bool(low <= 6 / math.sqrt(2 * math.pi) <= high)
        for low, high in (
            gaussian_width(jax.random.key(seed), CLOSED["box"][0], sampler="rqmc", num_draws=128).interval(0.95)
            for seed in range(24)
        )
    )
    assert hits >= 19  # 24 trials at .95: fewer happen once in 1,000


@pytest.mark.slow
def test_rqmc_has_much_less_variance_on_a_path_and_is_compared_at_equal_draws():
    points = jnp.asarray(_path_like(), jnp.float32)
    plain = _draws(factor_points(points), 8192, radial=False)
    quasi = np.array(
        [float(gaussian_width(jax.random.key(s), points, sampler="rqmc", num_draws=1024).stderr) ** 2 for s in range(4)]
    )
    assert plain.var() / 1024 / quasi.mean() >= 12
    isotropic = jnp.asarray(_rng().normal(size=(64, 200)), jnp.float32)
    quasi = float(gaussian_width(KEY, isotropic, sampler="rqmc", num_draws=1024).stderr) ** 2
    assert _draws(factor_points(isotropic), 4096, radial=False).var() / 1024 / quasi < 12, "no such gain on a cloud"


def test_rqmc_refuses_more_dimensions_than_sobol_has():
    factor = Factor(jnp.zeros((2, SOBOL_MAX_DIM + 1)), jnp.array(1.0), jnp.array(1.0))
    with pytest.raises(ValueError, match="at most 21201 dimensions"):
        width_from_factor(KEY, factor, sampler="rqmc")


def test_the_mean_of_several_sets_by_common_directions():
    sets = jnp.asarray(_rng().normal(size=(4, 20, 20)), jnp.float32)
    factors = jax.vmap(factor_points)(sets)
    mean = width_from_factor(KEY, factors, num_draws=512)
    each = [width_from_factor(KEY, jax.tree.map(lambda x, i=i: x[i], factors), num_draws=512) for i in range(4)]
    assert float(mean.value) == pytest.approx(np.mean([float(e.value) for e in each]), rel=1e-5)
    assert float(mean.diameter) == pytest.approx(np.mean([float(e.diameter) for e in each]), rel=1e-5)
    assert mean.counts.tolist() == sum(np.asarray(e.counts) for e in each).tolist()


@pytest.mark.slow
def test_high_dimensional_radial_factor_is_right():
    # 900 points at equal distance: any error of E|z| in single precision would show.
    estimate = gaussian_width(KEY, jnp.eye(900), num_draws=2048)
    assert _within(estimate, closed_form.expected_max_normal(900))
    assert not _within(estimate, 1.03 * closed_form.expected_max_normal(900))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e18, 1e30])
def test_scaling_the_points_scales_the_width_at_any_size_of_float32(scale):
    points = jax.random.normal(jax.random.key(1), (12, 30))
    for shape in (points, points.T):
        plain, scaled = (gaussian_width(jax.random.key(0), s * shape) for s in (1.0, scale))
        np.testing.assert_allclose(scaled.value / scale, plain.value, rtol=1e-6)
        np.testing.assert_allclose(scaled.stderr / scale, plain.stderr, rtol=1e-5)
        np.testing.assert_allclose(scaled.diameter / scale, plain.diameter, rtol=1e-6)


def test_half_precision_is_measured_in_single():
    half, single = (gaussian_width(jax.random.key(0), jnp.eye(10, dtype=kind)) for kind in (jnp.bfloat16, jnp.float32))
    assert half.value.dtype == jnp.float32
    assert half.value == single.value


@pytest.mark.makes_nan
def test_matrices_and_counts_that_mean_nothing_are_refused():
    indefinite = jnp.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1.0]])
    with pytest.raises(ValueError, match="positive semidefinite"):
        width_from_gram(jax.random.key(0), indefinite)
    with pytest.raises(ValueError, match="real numbers"):
        gaussian_width(jax.random.key(0), 1j * jnp.eye(3))
    for num_draws in (2.5, "5", 3 * 10**9):
        with pytest.raises((ValueError, TypeError)):
            gaussian_width(jax.random.key(0), jnp.eye(3), num_draws=num_draws)


def test_a_point_whose_square_has_underflown_is_as_good_as_the_origin():
    """Squares below 1e-37 lose their digits where products with longer points do not: the width is that of the rest."""
    points = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)
    points[0], points[3] = 0, points[3] * np.float32(3e-19)
    exact = points.astype(np.float64) @ points.astype(np.float64).T
    gram = exact.astype(np.float32)
    gram[3, 3] /= 50  # what rounding below the smallest normal number can do
    assert gram[3, 3] > 0
    assert abs(gram[3, 1]) > np.sqrt(gram[3, 3] * gram[1, 1])  # no Gram matrix any more
    found = width_from_gram(jax.random.key(0), jnp.asarray(gram), num_draws=4096)
    truth = gaussian_width(jax.random.key(1), jnp.asarray(points), num_draws=4096)
    assert abs(found.value - truth.value) < 4 * (found.stderr + truth.stderr)
