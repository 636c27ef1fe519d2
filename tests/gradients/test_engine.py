"""One compiled plan a loss and shape: what compiles again and what does not, what is kept, and the self-check."""

from __future__ import annotations

import functools
import gc
import logging
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.gradients import engine, forms
from lggwjax.gradients.engine import MAX_ENGINES, pose

KEY = jax.random.key(0)
NUM, DIM = 6, 5
BATCH = {"x": jax.random.normal(KEY, (NUM, DIM)), "y": jnp.linspace(0, 1, NUM)}
PARAMS = {"w": jax.random.normal(jax.random.key(1), (DIM, 4)), "b": jnp.zeros(4)}
PATH = [PARAMS, jax.tree.map(lambda leaf: 1.1 * leaf + 0.1, PARAMS)]


def scaled_loss(scale, params, example):
    return scale * jnp.sum(jnp.tanh(example["x"] @ params["w"] + params["b"]) ** 2) * example["y"]


def loss(params, example):
    return scaled_loss(1.0, params, example)


class Scaled(eqx.Module):
    scale: jax.Array

    def __call__(self, params, example):
        return scaled_loss(self.scale, params, example)


@pytest.fixture
def compilations():
    """Counts what the backend compiles."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.clear_event_listeners()


def _all(loss_fn, num_draws=128):
    results = [lggwjax.lggw(KEY, loss_fn, PATH, BATCH, kind, num_draws=num_draws) for kind in ("stacked", "single")]
    results.append(lggwjax.lggw(KEY, loss_fn, PATH, BATCH, "union", num_draws=num_draws))
    results.append(lggwjax.nerc(KEY, loss_fn, PATH, BATCH, num_draws=num_draws))
    results.append(lggwjax.single_widths(KEY, loss_fn, PATH, BATCH, num_draws=num_draws))
    results.append(lggwjax.gradient_gram(loss_fn, PARAMS, BATCH))
    lggwjax.plan(loss_fn, PATH, BATCH)
    return jax.block_until_ready(results)


def _assert_close(found, expected):
    """Up to some hundred roundings of the largest entry: another program adds in another order."""
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=128 * np.finfo(np.float32).eps * float(jnp.abs(expected).max())
    )


def test_a_second_call_compiles_nothing_whatever_the_draws(compilations):
    _all(loss)
    assert compilations, "the listener hears the first call"
    compilations.clear()
    _all(loss, num_draws=300)
    assert not compilations


@pytest.mark.parametrize("wrap", [lambda s: jax.tree_util.Partial(scaled_loss, s), Scaled])
def test_new_values_in_a_partial_or_a_module_neither_compile_nor_go_stale(compilations, wrap):
    first = lggwjax.gradient_gram(wrap(jnp.array(1.0)), PARAMS, BATCH)
    compilations.clear()
    second = lggwjax.gradient_gram(wrap(jnp.array(3.0)), PARAMS, BATCH).block_until_ready()
    assert not compilations
    _assert_close(second, 9 * first)


def test_what_a_plain_function_closes_over_is_a_constant():
    values = {"scale": jnp.array(1.0)}
    closed = lambda params, example: scaled_loss(values["scale"], params, example)  # noqa: E731
    first = lggwjax.gradient_gram(closed, PARAMS, BATCH)
    values["scale"] = jnp.array(3.0)
    np.testing.assert_array_equal(lggwjax.gradient_gram(closed, PARAMS, BATCH), first)


def test_the_third_function_from_one_place_is_hinted_at_once(caplog):
    def make(scale):
        return lambda params, example: scaled_loss(scale, params, example)

    kept = []
    with caplog.at_level(logging.WARNING, logger="lggwjax"):
        for count in range(1, 6):
            kept.append(make(float(count)))
            lggwjax.gradient_gram(kept[-1], PARAMS, BATCH, self_check=False)
            assert len(caplog.records) == (count >= 3), count
    assert "define it once" in caplog.text


def test_the_cache_is_bounded():
    kept = [functools.partial(scaled_loss, float(scale)) for scale in range(MAX_ENGINES + 5)]
    for one in kept:
        pose(one, PARAMS, BATCH, None, self_check=False)
    assert len(engine._engines) == MAX_ENGINES


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.tree_util.Partial])
def test_a_dead_function_is_let_go_with_its_engine(wrap):
    def made(params, example):
        return loss(params, example)

    problem = pose(wrap(made), PARAMS, BATCH, None)
    lggwjax.gradient_gram(wrap(made), PARAMS, BATCH).block_until_ready()
    function, plan = weakref.ref(made), weakref.ref(problem.engine)
    assert plan() in engine._engines.values()
    del made, problem
    gc.collect()
    assert function() is None
    assert plan() is None


def test_methods_and_partial_functions_are_losses():
    class Model:
        def loss(self, params, example):
            return loss(params, example)

    expected = lggwjax.gradient_gram(loss, PARAMS, BATCH)
    model = Model()
    first = pose(model.loss, PARAMS, BATCH, None).engine
    assert pose(model.loss, PARAMS, BATCH, None).engine is first, "a method is made anew at every use"
    np.testing.assert_allclose(lggwjax.gradient_gram(model.loss, PARAMS, BATCH), expected, rtol=1e-6)
    partial = functools.partial(scaled_loss, 1.0)
    np.testing.assert_allclose(lggwjax.gradient_gram(partial, PARAMS, BATCH), expected, rtol=1e-6)


def test_a_loss_that_closes_over_a_trace_is_right_and_not_kept():
    def of(scale):
        return lggwjax.gradient_gram(lambda p, e: scaled_loss(scale, p, e), PARAMS, BATCH)

    before, expected = set(engine._engines), lggwjax.gradient_gram(loss, PARAMS, BATCH)
    scales = jnp.array([1.0, 2.0])
    for found in (jax.jit(jax.vmap(of))(scales), jax.vmap(of)(scales)):
        _assert_close(found, jnp.stack([expected, 4 * expected]))
    assert len(set(engine._engines) - before) <= 1  # that of ``loss`` itself


def _broken(monkeypatch):
    right = forms.DotForm.inputs
    monkeypatch.setattr(forms.DotForm, "inputs", lambda self, lhs: [1.01 * rows for rows in right(self, lhs)])


def test_factors_that_are_wrong_are_named_and_not_used(monkeypatch):
    rows = lggwjax.per_sample_gradients(loss, PARAMS, BATCH)
    flat = np.concatenate([np.asarray(leaf).reshape(NUM, -1) for leaf in jax.tree.leaves(rows)], 1)
    _broken(monkeypatch)
    wide = lambda params, example: loss(params, example)  # noqa: E731
    with pytest.warns(UserWarning, match=r"\['w'\]"):
        gram = lggwjax.gradient_gram(wide, PARAMS, BATCH)
    np.testing.assert_allclose(gram, flat @ flat.T, rtol=1e-4, atol=1e-5)
    (leaf,) = [leaf for leaf in lggwjax.plan(wide, [PARAMS], BATCH, "gram").leaves if leaf.name == "['w']"]
    assert (leaf.route, leaf.reason) == ("gradient", "failed the self-check")


def test_the_self_check_can_be_left_out_and_runs_once(monkeypatch):
    calls = []
    right = engine.Engine._errors
    monkeypatch.setattr(engine.Engine, "_errors", lambda *args: calls.append(1) or right(*args))
    own = lambda params, example: loss(params, example)  # noqa: E731
    lggwjax.gradient_gram(own, PARAMS, BATCH, self_check=False)
    assert not calls
    for _ in range(3):
        lggwjax.gradient_gram(own, PARAMS, BATCH)
    assert len(calls) == 1


def test_gradients_that_are_not_finite_do_not_trip_the_self_check():
    def undefined(params, example):
        return jnp.sum(jnp.sqrt(example["x"] @ params["w"] - 1e6))

    assert np.isnan(np.asarray(lggwjax.gradient_gram(undefined, PARAMS, BATCH))).all()  # warnings are errors here
