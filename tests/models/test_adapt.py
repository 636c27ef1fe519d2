"""The adapter on models of all kinds, and what goes wrong without it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from lggwjax.models import Featurized, ModelSpec, adapt, build


class Mixed(nnx.Module):
    """A user's model with everything that has a mode: BatchNorm and Dropout, and a list of layers."""

    def __init__(self, rngs: nnx.Rngs, dropout: float = 0.5) -> None:
        self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs)])
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.last = nnx.Linear(5, 2, rngs=rngs)

    def embed(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.dropout(jnp.tanh(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.embed(x))


@pytest.fixture(scope="module")
def batch() -> dict:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(6, 3)).astype(np.float32), "y": rng.integers(0, 2, 6).astype(np.int32)}


def example_of(batch: dict) -> dict:
    return jax.tree.map(lambda leaf: leaf[0], batch)


def test_functions_are_the_same_objects_at_each_access() -> None:
    adapted = adapt(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), "cross_entropy")
    for name in ("loss_fn", "predict_fn", "feature_fn", "train_fn", "wrt"):
        assert getattr(adapted, name) is getattr(adapted, name)
    traces = []
    counted = jax.jit(lambda params, example: traces.append(1) or adapted.loss_fn(params, example))
    for value in (0.0, 1.0):
        counted(adapted.params, {"x": jnp.full(3, value), "y": jnp.int32(1)})
    assert len(traces) == 1


def test_params_are_plain_and_come_back(batch: dict) -> None:
    model = Mixed(nnx.Rngs(0))
    adapted = adapt(model, "cross_entropy")
    paths = {jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in jax.tree.leaves_with_path(adapted.params)}
    assert paths == {
        *(f"params/layers/{i}/{n}" for i, n in ((0, "kernel"), (0, "bias"), (1, "scale"), (1, "bias"))),
        *("params/last/kernel", "params/last/bias", "state/layers/1/mean", "state/layers/1/var"),
        *("state/dropout/rngs/count", "state/dropout/rngs/key"),
    }
    # Numpy arrays, as a checkpoint gives them, do as well: there are no typed keys among them.
    restored = jax.tree.map(np.asarray, adapted.params)
    np.testing.assert_array_equal(
        adapted.loss_fn(restored, example_of(batch)), adapted.loss_fn(adapted.params, example_of(batch))
    )
    train_fn = jax.jit(adapted.train_fn)
    jax.tree.map(np.testing.assert_array_equal, train_fn(restored, batch), train_fn(adapted.params, batch))
    # Outside jit, numpy arrays given are not written to.
    mean = np.zeros(5, np.float32)
    restored["state"]["layers"]["1"]["mean"] = mean
    adapted.train_fn(restored, batch)
    np.testing.assert_array_equal(mean, 0)


def test_wrt_marks_parameters_only() -> None:
    adapted = adapt(Mixed(nnx.Rngs(0)), "cross_entropy")
    mask = jax.tree_util.tree_map_with_path(adapted.wrt, adapted.params)
    assert all(jax.tree.leaves(mask["params"]))
    assert not any(jax.tree.leaves(mask["state"]))


def test_the_model_handed_in_stays_as_it_is(batch: dict) -> None:
    model = Mixed(nnx.Rngs(0))
    model.layers[1].use_running_average = True
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    adapted = adapt(model, "cross_entropy")
    adapted.train_fn(adapted.params, batch)
    assert model.layers[1].use_running_average
    assert not model.dropout.deterministic
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))), before)


def test_statistics_are_frozen_when_measured_and_move_in_training(batch: dict) -> None:
    adapted = adapt(Mixed(nnx.Rngs(0), dropout=0.0), "cross_entropy")
    each = jax.jit(jax.vmap(adapted.loss_fn, (None, 0)))
    trained, _, state = jax.jit(adapted.train_fn)(adapted.params, batch)
    hidden = batch["x"] @ adapted.params["params"]["layers"]["0"]["kernel"]
    statistics = state["layers"]["1"]
    np.testing.assert_allclose(statistics["mean"], 0.01 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.99 + 0.01 * hidden.var(0), rtol=1e-4)
    # The measured loss of an example does not depend on its neighbours, the trained one does.
    alone = each(adapted.params, jax.tree.map(lambda leaf: leaf[:2], batch))
    np.testing.assert_allclose(alone, each(adapted.params, batch)[:2], rtol=1e-6)
    fewer = jax.jit(adapted.train_fn)(adapted.params, jax.tree.map(lambda leaf: leaf[:2], batch))[0]
    assert float(jnp.abs(fewer - trained[:2]).max()) > 1e-2
    # It is measured with the checkpoint's own statistics: new ones change it.
    moved = each({"params": adapted.params["params"], "state": state}, batch)
    assert float(jnp.abs(moved - each(adapted.params, batch)).max()) > 1e-4


def test_dropout_is_off_when_measured_and_moves_on_in_training(batch: dict) -> None:
    adapted = adapt(Mixed(nnx.Rngs(0)), "cross_entropy", feature_fn=Mixed.embed)
    train_fn = jax.jit(adapted.train_fn)
    losses, features, state = train_fn(adapted.params, batch)
    again, _, _ = train_fn(adapted.params, batch)
    moved, _, _ = train_fn({"params": adapted.params["params"], "state": state}, batch)
    np.testing.assert_array_equal(losses, again)
    assert float(jnp.abs(moved - losses).max()) > 1e-3
    assert 0 < int((features == 0).sum()) < features.size
    # Logits and features come from the same dropout mask, and the statistics move once.
    last = adapted.params["params"]["last"]
    logits = features @ last["kernel"] + last["bias"]
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert int(state["dropout"]["rngs"]["count"]) == 1
    measured = jax.vmap(adapted.feature_fn, (None, 0))(adapted.params, batch)
    assert int((measured == 0).sum()) == 0


def test_default_features_are_the_named_ones(batch: dict) -> None:
    named = adapt(Mixed(nnx.Rngs(0)), "cross_entropy", feature_fn=Mixed.embed)
    found = adapt(Mixed(nnx.Rngs(0)), "cross_entropy")
    np.testing.assert_array_equal(
        named.feature_fn(named.params, example_of(batch)), found.feature_fn(found.params, example_of(batch))
    )
    got, expected = (jax.jit(adapted.train_fn)(adapted.params, batch) for adapted in (found, named))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_zoo_runs_one_forward_pass() -> None:
    calls = []

    class Counted(Featurized):
        def __init__(self) -> None:
            self.head = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def features(self, x: jax.Array) -> jax.Array:
            calls.append(x.shape)
            return jnp.tanh(x)

    adapted = adapt(Counted(), "cross_entropy")
    adapted.train_fn(adapted.params, {"x": jnp.ones((4, 3)), "y": jnp.zeros(4, jnp.int32)})
    assert calls == [(4, 3)]


def test_squared_error_is_half_the_squared_distance(batch: dict) -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    targets = np.arange(12, dtype=np.float32).reshape(6, 2)
    adapted = adapt(model, "squared_error")
    losses = jax.vmap(adapted.loss_fn, (None, 0))(adapted.params, {"x": batch["x"], "y": targets})
    np.testing.assert_allclose(losses, 0.5 * ((model(batch["x"]) - targets) ** 2).sum(1), rtol=1e-5)
    single = adapt(build(ModelSpec("ffn", widths=()), (3,), 1, 0), "squared_error")
    flat, column = (
        jax.vmap(single.loss_fn, (None, 0))(single.params, {"x": batch["x"], "y": y})
        for y in (targets[:, 0], targets[:, :1])
    )
    np.testing.assert_array_equal(flat, column)
    np.testing.assert_allclose(
        single.train_fn(single.params, {"x": batch["x"], "y": targets[:, 0]})[0], flat, rtol=1e-5
    )


def test_variables_made_in_a_pass_and_shared_weights(batch: dict) -> None:
    class Odd(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.one = nnx.Linear(3, 3, rngs=rngs)
            self.two = self.one
            self.last = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = self.two(jnp.tanh(self.one(x)))
            self.seen = nnx.Intermediate(x)
            return self.last(x)

    model = Odd(nnx.Rngs(0))
    adapted = adapt(model, "cross_entropy")
    assert adapted.params["params"].keys() == {"one", "last"}
    losses, _, state = jax.jit(adapted.train_fn)(adapted.params, batch)
    assert state == {}
    np.testing.assert_allclose(jax.vmap(adapted.loss_fn, (None, 0))(adapted.params, batch), losses, rtol=1e-5)


class Stubborn(nnx.Module):
    """A model whose BatchNorm cannot be switched: the call itself says to use the batch's statistics."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.last = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.norm(x, use_running_average=False))


def test_batch_norm_that_cannot_be_frozen_is_refused(batch: dict) -> None:
    adapted = adapt(Stubborn(nnx.Rngs(0)), "cross_entropy")
    for function in (adapted.loss_fn, jax.grad(adapted.loss_fn), adapted.predict_fn, adapted.feature_fn):
        with pytest.raises(ValueError, match="Expected BatchNorm to use its running averages"):
            jax.jit(jax.vmap(function, (None, 0)))(adapted.params, batch)
    named = adapt(Stubborn(nnx.Rngs(0)), "cross_entropy", feature_fn=lambda model, x: model.norm(x, False))
    with pytest.raises(ValueError, match="Expected BatchNorm to use its running averages"):
        named.feature_fn(named.params, example_of(batch))


def model_with(**attributes: object) -> nnx.Module:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (linen.Dense(2), "cross_entropy", "Expected model to be a flax nnx module, got Dense"),
        (lambda x: x, "cross_entropy", "Expected model to be a flax nnx module, got function"),
        (nnx.Dropout(0.5), "cross_entropy", "nnx.Param leaves of floating dtype, got none"),
        (model_with(kernel=nnx.Param(jnp.ones((3, 2), jnp.int8))), "cross_entropy", "floating dtype, got int8"),
        (model_with(), "hinge", "Expected loss to be one of cross_entropy, squared_error, got 'hinge'"),
    ],
)
def test_adapt_refuses(model: nnx.Module, loss: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        adapt(model, loss)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "example", "message"),
    [
        ("cross_entropy", {"x": jnp.ones(3), "y": jnp.float32(1)}, "Expected one integer label"),
        ("cross_entropy", {"x": jnp.ones(3), "y": jnp.array([0, 1])}, "Expected one integer label"),
        ("cross_entropy", {"x": None, "y": jnp.int32(1)}, "Expected a dict with an array under 'x'"),
        ("cross_entropy", {"x": jnp.ones(3)}, "Expected a dict with an array under 'y'"),
        ("cross_entropy", (jnp.ones(3), jnp.int32(1)), "Expected a dict with an array under 'y', got tuple"),
        ("cross_entropy", {"x": jnp.ones((4, 3)), "y": jnp.int32(1)}, "Pass examples without batch axis"),
        ("squared_error", {"x": jnp.ones(3), "y": jnp.float32(1)}, r"Expected a target of shape \(2,\)"),
    ],
)
def test_loss_fn_refuses(loss: str, example: dict, message: str) -> None:
    adapted = adapt(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), loss)
    with pytest.raises(ValueError, match=message) as caught:
        adapted.loss_fn(adapted.params, example)
    assert "\n" not in str(caught.value)


def test_params_of_another_model_are_refused(batch: dict) -> None:
    adapted = adapt(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), "cross_entropy")
    with pytest.raises(ValueError, match="Expected params to be a dict with the keys 'params' and 'state'"):
        adapted.loss_fn(adapted.params["params"], example_of(batch))
    kernel = {"kernel": adapted.params["params"]["kernel"]}
    with pytest.raises(ValueError, match="a difference at 'bias'"):
        adapted.loss_fn({"params": kernel, "state": {}}, example_of(batch))


def test_double_inputs_are_refused_unless_the_model_is_double() -> None:
    with jax.enable_x64(True):
        example = {"x": np.ones(3), "y": np.int32(1)}
        single = adapt(nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float32), "cross_entropy")
        with pytest.raises(ValueError, match="got float64"):
            single.loss_fn(single.params, example)
        double = adapt(nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64), "cross_entropy")
        assert double.loss_fn(double.params, example).dtype == jnp.float64
