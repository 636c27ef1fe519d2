"""The loop against hand-written numpy, and its promise to go on as if it had never stopped."""

from __future__ import annotations

import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.training.batches import batch_rows
from lggwjax.training.loop import (
    TrainingDiverged,
    TrainSpec,
    initial_state,
    measurement_steps,
    train,
)

RATE, DECAY, L1 = 0.1, 0.03, 0.2
OPTIMIZERS = ("gd", "sgd", "momentum", "adam", "adamw")


def linear_model(params: Any, batch: Any) -> tuple[Any, Any, Any]:
    """Half squared error of a linear model; features are the products, the state counts the calls."""
    weights = params["params"]["w"]
    losses = 0.5 * (batch["x"] @ weights + params["params"]["b"] - batch["y"]) ** 2
    return losses, batch["x"] * weights, {"count": params["state"]["count"] + 1}


def chosen(path: Any, leaf: Any) -> bool:
    return path[0].key == "params"


def only_weights(path: Any, leaf: Any) -> bool:
    return path[-1].key == "w"


def make_params() -> dict[str, Any]:
    return {
        "params": {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.25)},
        "state": {"count": jnp.zeros((), jnp.int32)},
    }


def make_sample(n: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(n, 3)).astype(np.float32), "y": rng.normal(size=n).astype(np.float32)}


def numpy_gradient(w: np.ndarray, b: float, batch: dict[str, np.ndarray], l1: float = 0.0) -> tuple[np.ndarray, float]:
    x, y = batch["x"].astype(np.float64), batch["y"]
    residual = x @ w + b - y
    # mean over samples of sum_j |x_ij w_j| has the gradient mean_i |x_ij| sign(w_j)
    return x.T @ residual / len(y) + l1 * np.abs(x).mean(0) * np.sign(w), residual.mean()


def run(spec: TrainSpec, wrt: Any = chosen, **keywords: Any) -> list[Any]:
    return list(train(linear_model, wrt, make_params(), make_sample(), spec, **keywords))


def same(first: Any, second: Any) -> bool:
    equal = jax.tree.map(lambda a, b: a.dtype == b.dtype and bool(jnp.all(a == b)), first[1:], second[1:])
    return first.step == second.step and jax.tree.all(equal)


@pytest.mark.parametrize("l1", [0.0, L1])
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_gradient_descent_equals_numpy(decay: float, l1: float) -> None:
    states = run(TrainSpec("gd", RATE, weight_decay=decay, feature_l1=l1, steps=6))
    w, b = np.array([0.5, -1.0, 2.0]), 0.25
    for state in states:
        np.testing.assert_allclose(state.params["params"]["w"], w, rtol=1e-5)
        np.testing.assert_allclose(state.params["params"]["b"], b, rtol=1e-5)
        dw, db = numpy_gradient(w, b, make_sample(), l1)
        w, b = w - RATE * (dw + decay * w), b - RATE * (db + decay * b)
    assert [state.step for state in states] == list(range(7))


def test_regularisers_matter() -> None:
    plain = run(TrainSpec("gd", RATE, steps=3))[-1]
    for other in (TrainSpec("gd", RATE, weight_decay=DECAY, steps=3), TrainSpec("gd", RATE, feature_l1=L1, steps=3)):
        difference = run(other)[-1].params["params"]["w"] - plain.params["params"]["w"]
        assert float(jnp.max(jnp.abs(difference))) > 1e-3


def test_adamw_decays_apart_from_the_gradient() -> None:
    # The first step of Adam has size learning_rate in every coordinate, whatever the gradient.
    states = run(TrainSpec("adamw", RATE, weight_decay=DECAY, steps=1))
    w = np.array([0.5, -1.0, 2.0])
    gradient, _ = numpy_gradient(w, 0.25, make_sample())
    np.testing.assert_allclose(states[1].params["params"]["w"], w - RATE * (np.sign(gradient) + DECAY * w), rtol=1e-5)
    coupled = run(TrainSpec("adam", RATE, weight_decay=DECAY, steps=1))
    mixed = np.sign(gradient + DECAY * w)
    np.testing.assert_allclose(coupled[1].params["params"]["w"], w - RATE * mixed, rtol=1e-5)


def test_momentum_and_minibatches_equal_numpy() -> None:
    sample, spec = make_sample(), TrainSpec("momentum", RATE, batch_size=4, steps=7, seed=3)
    w, b, velocity = np.array([0.5, -1.0, 2.0]), 0.25, np.zeros(4)
    for step, state in enumerate(run(spec)):
        np.testing.assert_allclose(state.params["params"]["w"], w, rtol=2e-5)
        rows = batch_rows(3, step, 10, 4)
        dw, db = numpy_gradient(w, b, {name: part[rows] for name, part in sample.items()})
        velocity = 0.9 * velocity + np.append(dw, db)
        w, b = w - RATE * velocity[:3], b - RATE * velocity[3]


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 10), (7, 3), (5, 1), (6, 3)])
def test_every_pass_holds_every_sample_once(n: int, size: int) -> None:
    stream = np.concatenate([batch_rows(5, step, n, size) for step in range(4 * n)])
    passes = stream.reshape(-1, n)
    assert (np.sort(passes, axis=1) == np.arange(n)).all()
    assert len({tuple(order) for order in passes}) > 1 or n == 1
    assert {len(batch_rows(5, step, n, size)) for step in range(4 * n)} == {size}


def test_order_comes_from_the_seed() -> None:
    first, again, other = (batch_rows(seed, 0, 50, 50) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_the_largest_seed_has_its_own_stream() -> None:
    assert (batch_rows(2**32 - 1, 0, 50, 50) != batch_rows(2**31 - 1, 0, 50, 50)).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_goes_on_from_any_step_bit_for_bit(optimizer: Any) -> None:
    size = None if optimizer == "gd" else 4
    spec = TrainSpec(optimizer, 0.05, batch_size=size, weight_decay=0.01, feature_l1=0.1, steps=6, seed=2)
    whole = run(spec)
    for stop in (1, 4):
        rest = run(spec, start=whole[stop])
        assert len(rest) == len(whole) - stop
        assert all(itertools.starmap(same, zip(rest, whole[stop:], strict=True)))


def test_the_previous_parameters_are_those_before_the_step() -> None:
    states = run(TrainSpec("adam", steps=3))
    assert states[0].previous is states[0].params
    for before, after in itertools.pairwise(states):
        assert after.previous is before.params


def test_looking_at_states_changes_nothing() -> None:
    spec = TrainSpec("adam", batch_size=3, steps=5)
    plain, watched, meanwhile = run(spec), [], train(linear_model, chosen, make_params(), make_sample(), spec)
    for state in train(linear_model, chosen, make_params(), make_sample(), spec):
        # A slow consumer that computes with the state, draws random numbers and trains something else meanwhile.
        jax.grad(lambda p: jnp.sum(p["w"] ** 2))(state.params["params"])
        np.random.default_rng(state.step).normal()
        next(meanwhile)
        time.sleep(0.01)
        watched.append(state)
    assert all(itertools.starmap(same, zip(plain, watched, strict=True)))


def test_only_chosen_leaves_move_and_the_state_is_replaced() -> None:
    states = run(TrainSpec("adam", steps=4), wrt=only_weights)
    last = states[-1].params
    assert float(last["params"]["b"]) == 0.25
    assert int(last["state"]["count"]) == 4
    assert not bool(jnp.any(last["params"]["w"] == make_params()["params"]["w"]))
    # Adam: one count and two moments for the one chosen leaf.
    assert len(jax.tree.leaves(states[-1].opt_state)) == 3


def test_training_is_compiled_once() -> None:
    traces = []

    def counting(params: Any, batch: Any) -> Any:
        traces.append(1)
        return linear_model(params, batch)

    spec = TrainSpec("sgd", batch_size=4, steps=8)
    list(train(counting, chosen, make_params(), make_sample(), spec))
    assert len(traces) == 1


def test_fresh_samples_are_new_at_every_step_and_depend_on_the_step_alone() -> None:
    drawn: list[np.ndarray] = []

    def draw(key: Any, n: int) -> dict[str, Any]:
        x = jax.random.normal(key, (n, 3))
        drawn.append(np.asarray(x))
        return {"x": x, "y": x[:, 0]}

    spec = TrainSpec("sgd", RATE, batch_size=4, steps=5, fresh=True)
    whole = run(spec, draw_fresh=draw)
    assert len(drawn) == 5
    assert len({x.tobytes() for x in drawn}) == 5
    assert {x.shape for x in drawn} == {(4, 3)}
    rest = run(spec, draw_fresh=draw, start=whole[3])
    assert all(itertools.starmap(same, zip(rest, whole[3:], strict=True)))
    assert (drawn[5] == drawn[3]).all()


def test_a_population_is_not_drawn_from_without_fresh() -> None:
    def refuse(key: Any, n: int) -> Any:
        pytest.fail("drew from the population")

    assert same(run(TrainSpec(steps=2), draw_fresh=refuse)[-1], run(TrainSpec(steps=2))[-1])


def test_divergence_stops_at_its_step() -> None:
    finite = []
    training = train(linear_model, chosen, make_params(), make_sample(), TrainSpec("gd", 1e6, steps=100))
    # extend keeps what came before the error.
    with pytest.raises(TrainingDiverged, match=r"at step \d+\. Lower the learning rate \(now 1e\+06\)") as caught:
        finite.extend(training)
    assert caught.value.step == len(finite)
    assert isinstance(caught.value, FloatingPointError)
    assert all(bool(jnp.isfinite(state.params["params"]["w"]).all()) for state in finite)


def test_a_nan_in_the_data_or_the_start_is_told() -> None:
    bad = make_sample() | {"y": np.full(10, np.nan, np.float32)}
    with pytest.raises(TrainingDiverged, match="at step 1"):
        list(train(linear_model, chosen, make_params(), bad, TrainSpec(steps=2)))
    start = make_params() | {"params": {"w": jnp.array([0.0, jnp.inf, 1.0]), "b": jnp.zeros(())}}
    with pytest.raises(TrainingDiverged, match="at step 0"):
        next(train(linear_model, chosen, start, make_sample(), TrainSpec(steps=2)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "lion"}, "optimizer one of gd, sgd"),
        ({"learning_rate": 0.0}, "learning_rate > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate > 0"),
        ({"weight_decay": -1.0}, "weight_decay >= 0"),
        ({"feature_l1": float("inf")}, "feature_l1 >= 0"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"optimizer": "gd", "batch_size": 5}, "no batch_size with optimizer gd"),
        ({"steps": -1}, "steps >= 0"),
        ({"seed": 2**32}, "seed < 2"),
    ],
)
def test_a_bad_specification_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainSpec(**options)


def test_what_does_not_fit_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="batch_size <= 10, the size of the sample, got 11"):
        train(linear_model, chosen, make_params(), make_sample(), TrainSpec(batch_size=11))
    with pytest.raises(ValueError, match="Leave fresh out"):
        train(linear_model, chosen, make_params(), make_sample(), TrainSpec(fresh=True))
    late = initial_state(make_params(), chosen, TrainSpec())._replace(step=9)
    with pytest.raises(ValueError, match="a start before step 3, got step 9"):
        train(linear_model, chosen, make_params(), make_sample(), TrainSpec(steps=3), start=late)
    with pytest.raises(ValueError, match="the keys 'params' and 'state'"):
        train(linear_model, chosen, {"w": jnp.ones(3)}, make_sample(), TrainSpec())


def test_a_state_of_another_kind_is_refused() -> None:
    def forgetful(params: Any, batch: Any) -> Any:
        return (*linear_model(params, batch)[:2], {})

    with pytest.raises(ValueError, match="a new state like the old one"):
        list(train(forgetful, chosen, make_params(), make_sample(), TrainSpec(steps=1)))


@pytest.mark.parametrize("spacing", ["log", "even"])
def test_measurement_steps_are_as_many_as_asked(spacing: Any) -> None:
    for total in (0, 1, 2, 3, 7, 10, 100, 1001, 10**6):
        for num in (2, 3, 5, 8, 12, 20, 50):
            found = measurement_steps(total, num, spacing)
            assert len(found) == min(num, total + 1)
            assert (found[0], found[-1]) == (0, total)
            assert list(found) == sorted(set(found))


def test_measurement_steps_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="num >= 2"):
        measurement_steps(10, 1)
    with pytest.raises(ValueError, match="total_steps >= 0"):
        measurement_steps(-1, 4)
    with pytest.raises(ValueError, match="spacing log or even"):
        measurement_steps(10, 4, "geometric")  # pyright: ignore[reportArgumentType]
