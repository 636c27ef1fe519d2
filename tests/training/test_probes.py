"""Widths along a growing path: one pass a checkpoint, and the same numbers as from the whole path at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import gaussian_width, lggw, nerc
from lggwjax.gradients import path_grams
from lggwjax.gradients.engine import Engine, pose
from lggwjax.training.probes import Probe

NUM, DIM, CAPACITY = 7, 5, 6
RNG = np.random.default_rng(0)
BATCH = {
    "x": jnp.asarray(RNG.normal(size=(NUM, DIM)), jnp.float32),
    "y": jnp.asarray(RNG.normal(size=NUM), jnp.float32),
}
PATH = [jnp.asarray(0.5 * step * RNG.normal(size=DIM) + 0.3, jnp.float32) for step in range(CAPACITY)]


def loss(w, example):
    return 0.5 * (jnp.tanh(w @ example["x"]) - example["y"]) ** 2


def _probe(route="exact", chunk_size=3, num_draws=512, capacity=CAPACITY, union=True, **more) -> Probe:
    problem = pose(loss, PATH[0], BATCH, None)
    return Probe(problem, BATCH, chunk_size, capacity, num_draws, route, union, **more)


def _walk(probe, path=PATH):
    state, found = probe.start(jax.random.key(0)), []
    for params in path:
        state, widths = probe.extend(state, params)
        found.append(widths)
    return state, found


@pytest.fixture(scope="module")
def walked():
    return _walk(_probe())


@pytest.mark.slow
@pytest.mark.parametrize(("route", "chunk_size", "chunks"), [("exact", 3, 3), ("exact", 7, 1), ("sketched", 3, 3)])
def test_each_checkpoint_takes_exactly_one_pass(monkeypatch, route, chunk_size, chunks):
    passes, factors, gradients = [], Engine.factors, Engine.gradients
    monkeypatch.setattr(Engine, "factors", lambda *args: passes.append("factors") or factors(*args))
    monkeypatch.setattr(Engine, "gradients", lambda *args: passes.append("gradients") or gradients(*args))
    _walk(_probe(route, chunk_size))
    assert passes == ["factors"] * chunks * CAPACITY


def _same(found, others, names):
    for one, other in zip(found, others, strict=True):
        for name in names:
            assert float(getattr(one, name).value) == pytest.approx(
                float(getattr(other, name).value), rel=1e-3, abs=1e-5
            ), name


@pytest.mark.slow
def test_chunks_do_not_matter(walked):
    state, found = _walk(_probe("exact", 7))
    np.testing.assert_allclose(state.exact.grams, walked[0].exact.grams, rtol=1e-4, atol=1e-6)
    _same(found, walked[1], ("stacked", "single", "union", "cloud", "nerc"))


def test_the_grams_of_a_growing_path_are_those_of_the_whole(walked):
    whole = path_grams(loss, PATH, BATCH)
    np.testing.assert_allclose(walked[0].exact.grams, whole.grams, rtol=1e-4, atol=1e-6)
    assert walked[0].exact.references == whole.references


def test_late_short_steps_move_the_reference_as_in_the_whole_path():
    moves = [0.0, 1.0, 1.0 + 1e-3, 1.0 + 2e-3, 1.5]
    path = [PATH[0] + move * (PATH[2] - PATH[0]) for move in moves]
    state, found = _walk(_probe(), path)
    whole = path_grams(loss, path, BATCH)
    assert state.exact.references == whole.references
    assert whole.references == (0, 0, 1, 1, 1)
    np.testing.assert_allclose(
        state.exact.grams[:, :5, :5], whole.grams, rtol=1e-3, atol=1e-3 * float(jnp.abs(whole.grams[:, 2, 2]).max())
    )
    exact = lggw(jax.random.key(7), loss, path, BATCH, num_draws=2048)
    assert abs(float(found[-1].stacked.value - exact.value)) <= 4 * jnp.hypot(found[-1].stacked.stderr, exact.stderr)
    assert float(found[-1].stacked.diameter) == pytest.approx(float(exact.diameter), rel=1e-4)


@pytest.mark.slow
def test_the_sketched_route_agrees_where_it_is_exact_and_within_its_error_where_not(walked):
    small = _walk(_probe("sketched"))
    _same(small[1], walked[1], ("cloud", "nerc"))
    _same(_walk(_probe("sketched", 7))[1], small[1], ("stacked",))
    assert small[0].exact is None
    assert small[1][-1].single is small[1][-1].union is None
    for size in (32, 2048):
        widths = _walk(_probe("sketched", sketch_size=size))[1]
        for one, other in zip(widths, walked[1], strict=True):
            error = jnp.hypot(jnp.hypot(one.stacked.stderr, one.stacked.sketch_stderr), other.stacked.stderr)
            # 4.5 of seven degrees of freedom: one in 350 by chance.
            assert abs(float(one.stacked.value - other.stacked.value)) <= 4.5 * float(error) + 1e-6
    relative = float(widths[-1].stacked.sketch_stderr / widths[-1].stacked.value)
    assert 0 < relative < 0.1, "a large sketch is a good one, so that the comparison says something"


def test_the_sketched_route_has_no_longest_path():
    state, _ = _walk(_probe("sketched", capacity=2), PATH[:4])
    assert state.length == 4


@pytest.mark.slow
def test_agrees_with_the_path_measured_at_once(walked):
    found, path, key = walked[1][-1], PATH, jax.random.key(7)
    for name in ("stacked", "single", "union"):
        whole, one = lggw(key, loss, path, BATCH, kind=name, num_draws=2048), getattr(found, name)
        slack = 4 * float(jnp.hypot(whole.stderr, one.stderr)) + float(whole.rounding + one.rounding)
        assert abs(float(whole.value - one.value)) <= slack, name
        assert abs(float(whole.value - 1.5 * one.value)) > slack, name
    whole = nerc(key, loss, path, BATCH, num_draws=2048)
    assert abs(whole.value - found.nerc.value) <= 4 * jnp.hypot(whole.stderr, found.nerc.stderr)
    problem = pose(loss, PATH[0], BATCH, None)
    cloud = problem.engine.flat_gradients(problem.loss, path[-1], BATCH)
    whole = gaussian_width(key, cloud, num_draws=2048)
    assert abs(whole.value - found.cloud.value) <= 4 * jnp.hypot(whole.stderr, found.cloud.stderr)
    assert float(found.gradient_rms) == pytest.approx(float(jnp.sqrt((cloud**2).sum(1).mean())), rel=1e-4)


def test_of_more_checkpoints_than_parameters_the_gradients_are_kept():
    path = [PATH[index % CAPACITY] * (1 + 0.1 * index) for index in range(DIM + 4)]
    state, found = _walk(_probe(capacity=DIM + 5), path)
    assert state.exact.points.shape == (NUM, DIM + 5, DIM)
    whole = lggw(jax.random.fold_in(jax.random.key(0), 3), loss, path, BATCH, kind="single", num_draws=512)
    assert float(found[-1].single.value) == pytest.approx(float(whole.value), rel=1e-5)
    assert _walk(_probe())[0].exact.points is None


def test_widths_of_a_growing_path_never_fall(walked):
    for name in ("stacked", "single", "union", "nerc"):
        values = np.array([float(getattr(widths, name).value) for widths in walked[1]])
        assert (np.diff(values) >= -1e-5 * values[-1]).all(), name
        assert values[-1] > values[0], name


def test_a_checkpoint_that_comes_again_adds_nothing(walked):
    _, found = _walk(_probe(), [*PATH[:3], PATH[1], PATH[0]])
    for name in ("stacked", "single", "union", "nerc"):
        assert float(getattr(found[4], name).value) == pytest.approx(float(getattr(found[2], name).value), rel=1e-3), (
            name
        )


def test_the_first_checkpoint_has_stacked_width_zero_and_a_cloud(walked):
    first = walked[1][0]
    assert float(first.stacked.value) == float(first.single.value) == float(first.stacked.stderr) == 0
    assert float(first.cloud.value) > 0
    assert abs(first.union.value - first.cloud.value) <= 4 * jnp.hypot(first.union.stderr, first.cloud.stderr)


def test_counts_name_the_checkpoints(walked):
    counts = walked[1][2].stacked.counts
    assert counts.shape == (CAPACITY,)
    assert int(counts[3:].sum()) == 0


def test_without_union():
    state, found = _walk(_probe(union=False), PATH[:2])
    assert state.extremes is None
    assert found[-1].union is None


def test_a_full_path_is_refused(walked):
    with pytest.raises(ValueError, match=r"at most 6 checkpoints, got one more. Raise max_checkpoints="):
        _probe().extend(walked[0], PATH[0])
