from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.data import TeacherPopulation


@pytest.fixture(scope="module")
def population() -> TeacherPopulation:
    return TeacherPopulation.draw(0, dimension=6, num_classes=3, half_width=2.0)


PARAMS = {"w": 0.3 * np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}


def loss_fn(params, example):
    logits = example["x"] @ params["w"] + params["b"]
    return -jax.nn.log_softmax(logits)[example["y"]]


def softmax_gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Per-sample gradients of the loss above by hand, (n, 7, 3): weights and then biases."""
    logits = x @ PARAMS["w"] + PARAMS["b"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)[:, :, None] * (p - np.eye(3)[y])[:, None, :]


def test_inputs_fill_the_declared_box(population):
    x = np.asarray(population.sample(jax.random.key(0), 40_000)["x"])
    assert abs(x).max() <= 2
    assert abs(x).max() > 1.99
    assert np.linalg.norm(x, axis=1).max() <= population.input_radius
    # A uniform coordinate on [-2, 2] has variance 4/3, and its square has variance 64/45.
    assert np.all(abs((x**2).mean(axis=0) - 4 / 3) < 4.5 * (64 / 45 / 40_000) ** 0.5)


def test_sampled_labels_have_the_probabilities_of_the_network(population):
    batch = population.sample(jax.random.key(0), 40_000)
    x, y = np.asarray(batch["x"]), np.asarray(batch["y"])

    def scores(temperature: float) -> np.ndarray:
        p = np.asarray(jax.nn.softmax(population.logits(x) / temperature), np.float64)
        # Weighted by p itself, so that a wrong temperature shows even where the classes are balanced.
        residual = (np.eye(3)[y] - p) * p
        return residual.mean(axis=0) / (residual.std(axis=0) / len(x) ** 0.5)

    assert np.all(abs(scores(population.temperature)) < 4)
    assert np.any(abs(scores(1.3 * population.temperature)) > 4)


def test_temperature_zero_gives_the_most_probable_class():
    population = TeacherPopulation.draw(0, dimension=6, num_classes=3, temperature=0.0)
    batch = population.sample(jax.random.key(0), 1000)
    np.testing.assert_array_equal(batch["y"], np.argmax(population.logits(batch["x"]), axis=1))
    assert batch["y"].dtype == jnp.int32


def test_logits_are_standardised_and_every_class_occurs(population):
    batch = population.sample(jax.random.key(5), 20_000)
    logits = np.asarray(population.logits(batch["x"]))
    # Both the calibration (4,096 inputs) and this check (20,000) have an error.
    error = 4 * (1 / 4096 + 1 / 20_000) ** 0.5
    assert np.all(abs(logits.mean(axis=0)) < error)
    assert np.all(abs(logits.std(axis=0) - 1) < error)
    assert np.bincount(batch["y"], minlength=3).min() > 2000


def test_gradient_agrees_with_one_by_hand_from_other_samples(population):
    est = population.gradient(loss_fn, PARAMS, key=jax.random.key(1), num_samples=40_000)
    assert est.num_samples >= 40_000
    batch = population.sample(jax.random.key(2), 40_000)
    by_hand = softmax_gradient(np.asarray(batch["x"]), np.asarray(batch["y"]))
    truth, truth_error = by_hand.mean(axis=0), by_hand.std(axis=0) / 200
    mean = np.vstack([est.mean["w"], est.mean["b"]])
    error = np.hypot(np.vstack([est.stderr["w"], est.stderr["b"]]), truth_error)
    assert np.all(abs(mean - truth) < 4.5 * error)
    assert np.any(abs(mean - 1.2 * truth) > 4.5 * error)


def test_loss_agrees_with_one_by_hand_from_other_samples(population):
    est = population.loss(loss_fn, PARAMS, key=jax.random.key(1), num_samples=40_000)
    batch = population.sample(jax.random.key(2), 40_000)
    losses = np.asarray(jax.vmap(loss_fn, (None, 0))(PARAMS, batch))
    error = np.hypot(float(est.stderr), losses.std() / 200)
    assert abs(est.mean - losses.mean()) < 4 * error
    assert abs(1.05 * est.mean - losses.mean()) > 4 * error


def test_the_standard_error_is_the_spread_over_keys(population):
    runs = [population.gradient(loss_fn, PARAMS, key=jax.random.key(i), num_samples=640) for i in range(100)]
    spread = np.var([run.mean["w"] for run in runs], axis=0, ddof=1).sum()
    claimed = np.mean([np.square(run.stderr["w"]).sum() for run in runs])
    # 18 coordinates of at least 4 effective dimensions: the ratio of variances has an error below sqrt(2/(99*4)).
    assert abs(spread / claimed - 1) < 4 * (2 / (99 * 4)) ** 0.5


def test_the_error_falls_as_the_root_of_the_samples(population):
    small, large = (population.gradient(loss_fn, PARAMS, key=jax.random.key(0), num_samples=n) for n in (640, 40_000))
    ratio = np.linalg.norm(small.stderr["w"]) / np.linalg.norm(large.stderr["w"])
    ratio /= (large.num_samples / small.num_samples) ** 0.5
    # The error of 32 chunks on 4 effective dimensions is 1/sqrt(2*31*4) = 6%.
    assert abs(ratio - 1) < 4 * 0.065


@pytest.mark.slow
def test_chunks_keep_memory_flat(population):
    """The compiled loop holds one chunk, however many samples are asked for."""
    from lggwjax.data.teacher import _chunk_moments, _mean_gradient

    def temporary(num_chunks: int) -> int:
        keys = jax.random.split(jax.random.key(0), num_chunks)
        lowered = _chunk_moments.lower(_mean_gradient, population, loss_fn, 256, PARAMS, keys)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(1024) <= temporary(32) + 64 * 1024


def test_other_seeds_are_other_networks():
    first, second = (TeacherPopulation.draw(seed, 4, 2) for seed in (0, 1))
    assert not np.array_equal(first.weights[0], second.weights[0])
    again = TeacherPopulation.draw(0, 4, 2)
    np.testing.assert_array_equal(first.weights[0], again.weights[0])


@pytest.mark.parametrize(
    "fields",
    [{"dimension": 0}, {"num_classes": 1}, {"widths": (0,)}, {"half_width": 0.0}, {"temperature": -1.0}],
)
def test_bad_populations_are_refused(fields):
    with pytest.raises(ValueError, match="Expected"):
        TeacherPopulation.draw(0, **({"dimension": 4, "num_classes": 2} | fields))


def test_too_few_samples_for_an_error_bar_are_refused(population):
    with pytest.raises(ValueError, match="Expected num_samples >= 64 and chunk_size >= 1, got 10 and 256"):
        population.loss(loss_fn, PARAMS, key=jax.random.key(0), num_samples=10)
