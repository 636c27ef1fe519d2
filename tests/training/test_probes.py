"""Widths along a growing path: one pass a checkpoint, and the same numbers as from the whole path at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import gaussian_width, lggw, nerc
from lggwjax.gradients.per_sample import flat_gradients, prepare
from lggwjax.training import probes
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


def _probe(route="stored", chunk_size=3, num_draws=512, capacity=CAPACITY, union=True) -> Probe:
    selection, partial, *_ = prepare(loss, PATH[0], BATCH, None, None)
    return Probe(partial, selection, BATCH, chunk_size, capacity, num_draws, route, union)


def _walk(probe, path=PATH):
    state, found = probe.start(jax.random.key(0)), []
    for params in path:
        state, widths = probe.extend(state, params)
        found.append(widths)
    return state, found


@pytest.fixture(scope="module")
def walked():
    return _walk(_probe())


def test_each_checkpoint_takes_exactly_one_pass(monkeypatch):
    passes = []
    monkeypatch.setattr(probes, "flat_gradients", lambda *args: passes.append(1) or flat_gradients(*args))
    _walk(_probe())
    assert len(passes) == CAPACITY


def test_recomputing_takes_one_pass_for_each_earlier_checkpoint(monkeypatch):
    passes = []
    monkeypatch.setattr(probes, "flat_gradients", lambda *args: passes.append(1) or flat_gradients(*args))
    _walk(_probe("recomputed"))
    assert len(passes) == CAPACITY + sum(range(CAPACITY - 1))


@pytest.mark.parametrize(("route", "chunk_size"), [("recomputed", 3), ("stored", 7)])
def test_routes_and_chunks_agree(walked, route, chunk_size):
    state, found = _walk(_probe(route, chunk_size))
    np.testing.assert_allclose(state.grams, walked[0].grams, rtol=1e-4, atol=1e-6)
    for one, other in zip(found, walked[1], strict=True):
        for name in ("stacked", "single", "union", "cloud", "nerc"):
            assert float(getattr(one, name).value) == pytest.approx(
                float(getattr(other, name).value), rel=1e-3, abs=1e-5
            )


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
    selection, partial, *_ = prepare(loss, PATH[0], BATCH, None, None)
    cloud = flat_gradients(partial, path[-1], BATCH, selection, NUM)
    whole = gaussian_width(key, cloud, num_draws=2048)
    assert abs(whole.value - found.cloud.value) <= 4 * jnp.hypot(whole.stderr, found.cloud.stderr)
    assert float(found.gradient_rms) == pytest.approx(float(jnp.sqrt((cloud**2).sum(1).mean())), rel=1e-4)


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
