"""One compiled plan a loss and shape: what compiles again and what does not, what is kept, and the self-check."""

from __future__ import annotations

import dataclasses
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


def _all(loss_fn, num_draws=128):
    results = [lggwjax.lggw(KEY, loss_fn, PATH, BATCH, kind, num_draws=num_draws) for kind in ("stacked", "single")]
    results.append(lggwjax.lggw(KEY, loss_fn, PATH, BATCH, "union", num_draws=num_draws))
    results.append(lggwjax.nerc(KEY, loss_fn, PATH, BATCH, num_draws=num_draws))
    results.append(lggwjax.single_widths(KEY, loss_fn, PATH, BATCH, num_draws=num_draws))
    results.append(lggwjax.gradient_gram(loss_fn, PARAMS, BATCH))
    lggwjax.plan(loss_fn, PATH, BATCH)
    return jax.block_until_ready(results)


def _rows(loss_fn, params=PARAMS):
    """Materialised gradients, by nothing of the library."""
    leaves = jax.tree.leaves(jax.vmap(jax.grad(loss_fn), (None, 0))(params, BATCH))
    return np.concatenate([np.asarray(leaf).reshape(NUM, -1) for leaf in leaves], 1)


def _assert_close(found, expected):
    """Up to some hundred roundings of the largest entry: another program adds in another order."""
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=128 * np.finfo(np.float32).eps * float(jnp.abs(expected).max())
    )


@pytest.mark.slow
def test_a_second_call_compiles_nothing_whatever_the_draws(compilations):
    with compilations() as first:
        _all(loss)
    assert first, "the listener hears the first call"
    with compilations() as again:
        _all(loss, num_draws=300)
    assert not again


@pytest.mark.parametrize("wrap", [lambda s: jax.tree_util.Partial(scaled_loss, s), Scaled])
def test_new_values_in_a_partial_or_a_module_neither_compile_nor_go_stale(compilations, wrap):
    one, three = jnp.array(1.0), jnp.array(3.0)
    first = _all(wrap(one))
    with compilations() as again:
        second = _all(wrap(three))
    assert not again
    for before, after in zip(first[:-1], second[:-1], strict=True):
        before, after = (getattr(found, "mean", found).value for found in (before, after))
        assert float(after) == pytest.approx(3 * float(before), rel=1e-4)
    _assert_close(second[-1], 9 * first[-1])
    rows = _rows(lambda params, example: scaled_loss(3.0, params, example))
    _assert_close(second[-1], rows @ rows.T)


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


def _from_here(place, scale):
    if place is id:
        return lambda params, example: scaled_loss(scale, params, example)
    return lambda params, example: scaled_loss(scale, params, example)


@pytest.mark.slow
@pytest.mark.parametrize("place", [id, lambda fn: 0], ids=["as it is", "always the same"])
def test_functions_made_and_dropped_one_after_the_other_are_hinted_at(caplog, monkeypatch, place):
    # A function may have the place in memory of the one dropped before it, and with it its ``id``.
    monkeypatch.setattr(engine, "id", place, raising=False)
    with caplog.at_level(logging.WARNING, logger="lggwjax"):
        for scale in range(6):
            own = _from_here(place, scale)
            lggwjax.gradient_gram(own, PARAMS, BATCH, self_check=False)
            del own
            gc.collect()
    assert len(caplog.records) == 1


def test_one_function_at_many_shapes_is_not_hinted_at(caplog):
    with caplog.at_level(logging.WARNING, logger="lggwjax"):
        for dim in range(2, 8):
            batch = {"x": jnp.ones((NUM, dim)), "y": jnp.ones(NUM)}
            pose(loss, {"w": jnp.ones((dim, 4)), "b": jnp.zeros(4)}, batch, None, self_check=False)
    assert not caplog.records


def test_the_cache_is_bounded():
    kept = [functools.partial(scaled_loss, float(scale)) for scale in range(MAX_ENGINES + 5)]
    for one in kept:
        pose(one, PARAMS, BATCH, None, self_check=False)
    assert len(engine._engines) == MAX_ENGINES
    _assert_close(lggwjax.gradient_gram(kept[1], PARAMS, BATCH), lggwjax.gradient_gram(loss, PARAMS, BATCH))
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


def test_all_that_was_measured_of_a_dead_function_is_let_go():
    def made(params, example):
        return loss(params, example)

    _all(made)
    lggwjax.random_projections(KEY, made, PARAMS, BATCH, num_draws=3)
    lggwjax.per_sample_gradients(made, PARAMS, BATCH)
    function, before = weakref.ref(made), len(engine._engines)
    del made
    gc.collect()
    assert function() is None
    assert len(engine._engines) < before


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
    bound = functools.partial(scaled_loss, jnp.array(2.0))
    _assert_close(lggwjax.gradient_gram(bound, PARAMS, BATCH), 4 * expected)
    assert pose(bound, PARAMS, BATCH, None).engine is pose(bound, PARAMS, BATCH, None).engine


def test_two_objects_of_one_class_are_two_losses():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        def loss(self, params, example):
            return scaled_loss(self.scale, params, example)

        def __call__(self, params, example):
            return self.loss(params, example)

    expected, models = lggwjax.gradient_gram(loss, PARAMS, BATCH), [Model(1.0), Model(2.0)]
    for model in models:
        _assert_close(lggwjax.gradient_gram(model.loss, PARAMS, BATCH), model.scale**2 * expected)
        _assert_close(lggwjax.gradient_gram(model, PARAMS, BATCH), model.scale**2 * expected)


def test_an_object_that_cannot_be_hashed_is_a_loss():
    @dataclasses.dataclass
    class Model:  # compares by value, so Python gives it no hash
        scale: float

        def __call__(self, params, example):
            return scaled_loss(self.scale, params, example)

    found = lggwjax.gradient_gram(Model(2.0), PARAMS, BATCH)
    _assert_close(found, 4 * lggwjax.gradient_gram(loss, PARAMS, BATCH))


def test_a_loss_that_closes_over_a_trace_is_right_and_not_kept():
    def of(scale):
        return lggwjax.gradient_gram(lambda p, e: scaled_loss(scale, p, e), PARAMS, BATCH)

    before, expected = set(engine._engines), lggwjax.gradient_gram(loss, PARAMS, BATCH)
    scales = jnp.array([1.0, 2.0])
    for found in (jax.jit(jax.vmap(of))(scales), jax.vmap(of)(scales)):
        _assert_close(found, jnp.stack([expected, 4 * expected]))
    slope = jax.grad(lambda scale: jnp.trace(of(scale)))(2.0)
    assert float(slope) == pytest.approx(4 * float(jnp.trace(expected)), rel=1e-5)
    width = jax.jit(lambda s: lggwjax.lggw(KEY, lambda p, e: scaled_loss(s, p, e), PATH, BATCH).value)(2.0)
    assert float(width) == pytest.approx(2 * float(lggwjax.lggw(KEY, loss, PATH, BATCH).value), rel=1e-4)
    assert len(set(engine._engines) - before) <= 1  # that of ``loss`` itself


def _broken(monkeypatch):
    right = forms.DotForm.inputs
    monkeypatch.setattr(forms.DotForm, "inputs", lambda self, lhs: [1.01 * rows for rows in right(self, lhs)])


def test_factors_that_are_wrong_are_named_and_not_used(monkeypatch):
    flat = _rows(loss)
    _broken(monkeypatch)
    wide = lambda params, example: loss(params, example)  # noqa: E731
    with pytest.warns(UserWarning, match=r"Factors of \['w'\] differ"):
        gram = lggwjax.gradient_gram(wide, PARAMS, BATCH)
    np.testing.assert_allclose(gram, flat @ flat.T, rtol=1e-4, atol=1e-5)
    moved = _rows(loss, PATH[1]) - _rows(loss, PATH[0])
    width = lggwjax.lggw(KEY, wide, PATH, BATCH, num_draws=2)  # of two points it is known
    assert float(width.value) == pytest.approx(np.sqrt((moved**2).sum() / NUM / (2 * np.pi)), rel=1e-4)
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


@pytest.mark.makes_nan
def test_gradients_that_are_not_finite_do_not_trip_the_self_check():
    def undefined(params, example):
        return jnp.sum(jnp.sqrt(example["x"] @ params["w"] - 1e6))

    assert np.isnan(np.asarray(lggwjax.gradient_gram(undefined, PARAMS, BATCH))).all()  # warnings are errors here
