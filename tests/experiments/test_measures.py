"""Numbers of a trained network against what is known by other means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.data import DataSpec
from lggwjax.experiments.measures import path_rms, sharpness, usual_measures
from lggwjax.experiments.outcomes import outcomes
from lggwjax.experiments.trained import compact, replaced, run_config, run_settings, train_path
from lggwjax.models.spec import ModelSpec
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.loop import TrainSpec

pytestmark = pytest.mark.slow  # whole runs, compiled as users compile them

LINEAR = RunConfig(
    DataSpec("linear", num_samples=40, probe_size=40, heldout_samples=100, dimension=5),
    ModelSpec(widths=(), bias=False),
    TrainSpec(optimizer="gd", steps=4, learning_rate=0.1),
    MeasureSpec(measurements=3, directions=16),
)
DIGITS = RunConfig(
    DataSpec("digits", num_samples=60, probe_size=20, heldout_samples=100),
    ModelSpec(widths=(8,)),
    TrainSpec(steps=6, learning_rate=0.01),
    MeasureSpec(measurements=3, directions=16),
)


@pytest.fixture(scope="module")
def linear():
    return train_path(LINEAR, watch_losses=True)


@pytest.fixture(scope="module")
def digits():
    return train_path(DIGITS)


def test_sharpness_of_least_squares_is_the_largest_eigenvalue(linear):
    x = np.asarray(linear.prepared.split.sample["x"], np.float64)
    largest = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    assert sharpness(linear, linear.path[-1], linear.prepared.split.sample) == pytest.approx(largest, rel=1e-3)


def test_losses_at_every_step_are_those_of_the_sample(linear):
    assert len(linear.train_losses) == 5
    assert linear.train_losses[0] == pytest.approx(linear.records[0]["train_loss"], rel=1e-5)
    assert linear.train_losses[-1] == pytest.approx(linear.records[-1]["train_loss"], rel=1e-5)


def test_margins_norms_and_variance_by_hand(digits):
    params, sample = digits.path[-1], digits.prepared.split.sample
    found = usual_measures(digits)
    predict = digits.prepared.model.predict_fn
    scores = np.asarray(jax.vmap(lambda x: predict(params, {"x": x}))(jnp.asarray(sample["x"])))
    margins = [row[y] - max(np.delete(row, y)) for row, y in zip(scores, sample["y"], strict=True)]
    assert found["margin"] == pytest.approx(np.quantile(margins, 0.1), rel=1e-4)
    leaves = jax.tree.leaves(params["params"])
    assert found["parameter_norm"] == pytest.approx(float(np.sqrt(sum(np.sum(np.square(x)) for x in leaves))), rel=1e-5)
    last = digits.records[-1]
    assert found["gradient_variance"] == pytest.approx(last["gradient_rms"] ** 2 - last["grad_norm"] ** 2)


def test_the_paths_rms_is_over_all_checkpoints():
    assert path_rms([{"gradient_rms": 3.0}, {"gradient_rms": 4.0}]) == pytest.approx(np.sqrt(12.5))


def test_a_design_in_numbers(digits):
    found = outcomes(DIGITS, target_loss=100.0, twin=True)
    numbers, last = found["numbers"], digits.records[-1]
    assert numbers["steps_to_target"] == 0
    assert numbers["gap"] == pytest.approx(last["heldout_loss"] - last["train_loss"])
    assert numbers["lggw_over_rms"] == pytest.approx(last["lggw"]["value"] / path_rms(digits.records))
    assert 0 < numbers["prediction_spread"] < 1
    assert found["records"] == compact(digits.records)
    assert outcomes(DIGITS, target_loss=0.0)["numbers"]["steps_to_target"] is None


def test_a_run_that_diverges_is_an_outcome():
    wild = replaced(LINEAR, training={"learning_rate": 1e30, "steps": 30})
    found = outcomes(wild)
    assert found["numbers"] == {"diverged": 1.0}
    assert found["records"] == []


def test_settings_give_the_run_back():
    assert run_config(run_settings(DIGITS)) == DIGITS
