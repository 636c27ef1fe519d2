"""What runs support: against populations whose truth is known, and in the words that are printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.cli import main
from lggwjax.data import DataSpec, LinearPopulation, TeacherPopulation
from lggwjax.models import ModelSpec, adapt, build
from lggwjax.theory import affine_supremum, least_squares_ball_nerc, nerc_bound, network_norms, split_bound
from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, prepare_run, run
from lggwjax.training.claims import claims, split_run
from lggwjax.training.evidence import Evidence, ball_gradient_bound

LINEAR = RunConfig(
    DataSpec("linear", dimension=4, condition=3.0, num_samples=256, probe_size=16, heldout_samples=400),
    ModelSpec("ffn", widths=(), bias=False),
    TrainSpec("gd", learning_rate=0.5, steps=12),
    MeasureSpec(measurements=4, directions=32),
)
DIGITS = RunConfig(
    DataSpec(num_samples=64, probe_size=16, heldout_samples=200),
    ModelSpec("ffn", widths=(12,)),
    TrainSpec(steps=6),
    MeasureSpec(measurements=3, directions=32),
)


def _run(config: RunConfig, folder: Path) -> Path:
    return run(prepare_run(config), folder).parent


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return _run(LINEAR, tmp_path_factory.mktemp("linear") / "run")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return _run(DIGITS, tmp_path_factory.mktemp("digits") / "run")


@pytest.mark.slow
def test_on_a_known_population_every_certified_statement_is_true(linear):
    evidence = Evidence.of_run(linear)
    found = {}
    for bound in claims(evidence).bounds:
        found.setdefault(bound.statement, []).append(bound)
    population = evidence.linear_population
    assert population is not None
    last = evidence.coordinates(-1)
    excess = population.loss(last) - population.loss_star
    truth = [jax.tree.leaves(population.gradient(evidence.coordinates(t)))[0].reshape(-1) for t in range(4)]
    deviations = [np.linalg.norm(p.gradient - g) for p, g in zip(evidence.passes, truth, strict=True)]
    [ball] = [b for b in found["4.2"] if "ball" in b.gradient_set]
    for bound in (ball, *found["4.5"]):
        assert bound.status == "certified"
        assert bound.confidence == 0.95, "also where the radius was chosen afterwards"
        assert max(deviations) <= bound.value
    [risk] = found["5.1"]
    assert risk.status == "certified"
    assert excess <= risk.value
    [mean], [gap] = found["6.1"], found["6.2"]
    assert mean.status == gap.status == "certified"
    assert np.mean([np.sum(g**2) for g in truth]) <= mean.value
    assert excess <= gap.value
    [trained] = [b for b in found["4.4"] if b.num_samples == 256]
    assert trained.status == "descriptive"


@pytest.mark.slow
def test_the_default_kind_of_run_certifies_something_about_the_population(digits):
    found = claims(Evidence.of_run(digits))
    certified = [b for b in found.bounds if b.about == "population" and b.status == "certified"]
    assert {b.statement for b in certified} == {"4.2", "4.4", "4.5"}
    assert all("from which the weights bound every gradient" in str(b) for b in certified)
    risk = [b for b in found.bounds if b.statement == "5.1"]
    assert len(risk) == 5
    assert {b.status for b in risk} == {"descriptive"}
    text = str(found)
    assert text.index("About the population") < text.index("About the measured set") < text.index("Remarks")
    assert "(4.4) gives" in text
    assert "none is made here" in text


@pytest.mark.slow
def test_nothing_about_the_population_is_certified_without_a_gradient_bound(digits, tmp_path):
    config = dataclasses.replace(DIGITS, model=ModelSpec("ffn", widths=(12,), norm="layer"))
    normalised = Evidence.of_run(_run(config, tmp_path / "run"))
    found = claims(normalised)
    assert "certified" not in {b.status for b in found.bounds if b.about == "population"}
    assert "Normalisation" in str(found)
    declared = dataclasses.replace(normalised, declared_bound=50.0)
    assert "certified" in {b.status for b in claims(declared).bounds if b.about == "population"}


@pytest.mark.slow
def test_fresh_samples_are_independent_of_the_path(tmp_path):
    config = dataclasses.replace(LINEAR, training=dataclasses.replace(LINEAR.training, optimizer="sgd", fresh=True))
    found = claims(Evidence.of_run(_run(config, tmp_path / "run")))
    [own] = [b for b in found.bounds if b.statement == "4.4" and b.num_samples == 256]
    assert own.status == "certified"
    assert "no step before" in str(own)


@pytest.mark.slow
def test_a_split_trains_on_one_half_and_holds_out_the_other(digits):
    folder = split_run(digits)
    assert folder == digits / "split"
    whole, half = Evidence.of_run(digits), Evidence.of_run(folder)
    np.testing.assert_array_equal(half.sample["x"], whole.sample["x"][:32])
    np.testing.assert_array_equal(half.heldout["x"], whole.sample["x"][32:])
    assert split_run(digits) == folder, "a second time nothing is trained"


@pytest.mark.slow
def test_the_command_line_prints_and_writes_json(linear, capsys):
    assert main(["claims", str(linear), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"statement", "value", "status", "about", "set", "n", "assumptions"} <= set(rows[0])
    assert {row["status"] for row in rows} == {"certified", "descriptive", "shape"}
    assert main(["claims", str(linear)]) == 0
    printed = capsys.readouterr().out
    assert all(row["sentence"] in printed for row in rows)


@pytest.mark.slow
def test_the_table_of_layers_is_one_command_away(digits, capsys):
    assert main(["claims", str(digits), "--layers"]) == 0
    printed = capsys.readouterr().out
    assert "head.kernel" in printed
    assert "Widest layer" in printed
    assert main(["claims", str(digits), "--layers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["measured"] <= row["spectral"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{missing}"], "Expected"),
        (["{run}", "--confidence", "1.5"], "confidence"),
        (["{run}", "--gradient-bound", "-1"], "gradient bound"),
        (["{run}", "--input-bound", "nan"], "input bound"),
        (["{unfinished}"], "finished run"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments, message, linear, tmp_path, capsys):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((linear / "config.json").read_text())
    (unfinished / "metrics.jsonl").write_text((linear / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    places = {"missing": tmp_path / "none", "run": linear, "unfinished": unfinished}
    assert main(["claims", *(word.format(**places) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def _descent_path(sample, rate=0.3, steps=30):
    x, y = np.asarray(sample["x"], np.float64), np.asarray(sample["y"], np.float64)
    path = [np.zeros(x.shape[1])]
    for _ in range(steps):
        path.append(path[-1] - rate * x.T @ (x @ path[-1] - y) / len(y))
    return x, y, np.array(path)


@pytest.mark.slow
@pytest.mark.parametrize("num", [64, 256, 1024, 4096])
@pytest.mark.parametrize("dim", [2, 8])
def test_descent_from_a_data_free_start_stays_below_its_bound_in_every_run(num, dim):
    """Bounded least squares: the exact supremum over the ball, which holds the path trained on the same samples."""
    population = LinearPopulation.draw(dim, np.geomspace(1, 0.2, dim), noise_scale=0.3)
    sigma, radius = population.root @ population.root.T, 2.0
    bound = ball_gradient_bound(population, radius, jnp.zeros(dim))
    failures = np.zeros(2, int)
    for seed in range(200 if num <= 256 else 40):
        key, sign_key, heldout_key = jax.random.split(jax.random.key(seed), 3)
        x, y, path = _descent_path(population.sample(key, num))
        assert np.linalg.norm(path, axis=1).max() <= radius
        nerc = least_squares_ball_nerc(sign_key, {"x": x, "y": y}, jnp.zeros(dim), radius, num_signs=1)
        certified = nerc_bound(nerc, bound, num, gradient_set="a ball", design="data-free ball", confidence=0.9)
        assert certified.status == "certified"
        matrix = x.T @ x / num - sigma
        offset = sigma @ population.w_star - x.T @ y / num
        supremum = affine_supremum(matrix, offset, radius)
        along = np.linalg.norm(path @ matrix.T + offset, axis=1).max()
        assert along <= supremum * (1 + 1e-9)
        # The same path, certified by samples that took no part in training.
        u, v, _ = _descent_path(population.sample(heldout_key, num), steps=0)
        between = np.linalg.norm(path @ (x.T @ x - u.T @ u) / num - (y @ x - v @ u) / num, axis=1)
        split = split_bound(jnp.asarray(between), bound, num, confidence=0.9)
        assert split.status == "certified"
        failures += [supremum > certified.value, along > split.value]
    assert not failures.any(), "in every run, though a tenth is all that is promised"


@pytest.mark.slow
def test_deviations_fall_as_the_law_of_finitely_many_samples_says():
    """At a fixed point the mean squared deviation is tr Cov / n exactly; over a ball the root falls with slope -1/2."""
    population = LinearPopulation.draw(3, np.array([1.0, 0.5, 0.25]), noise_scale=0.3)
    sigma, sizes, repetitions = population.root @ population.root.T, (64, 256, 1024, 4096), 200
    many = population.sample(jax.random.key(10**6), 400_000)
    x, y = np.asarray(many["x"], np.float64), np.asarray(many["y"], np.float64)
    gradients = -y[:, None] * x
    trace = np.sum(np.var(gradients, axis=0))
    squares, suprema = [], []
    for num in sizes:
        found = []
        for seed in range(repetitions):
            sample = population.sample(jax.random.key(seed), num)
            x, y = np.asarray(sample["x"], np.float64), np.asarray(sample["y"], np.float64)
            matrix, offset = x.T @ x / num - sigma, sigma @ population.w_star - x.T @ y / num
            found.append((offset @ offset, affine_supremum(matrix, offset, 1.0)))
        square, supremum = np.array(found).T
        error = square.std() / np.sqrt(repetitions)
        assert abs(square.mean() - trace / num) <= 4 * error
        assert abs(square.mean() - 1.5 * trace / num) > 4 * error, "another law would not pass"
        squares.append(square.mean())
        suprema.append((supremum.mean(), supremum.std() / np.sqrt(repetitions) / supremum.mean()))
    logs, errors = np.log([mean for mean, _ in suprema]), np.array([error for _, error in suprema])
    steps = np.log(sizes) - np.mean(np.log(sizes))
    slope = steps @ logs / (steps @ steps)
    error = np.sqrt(np.sum((steps * errors) ** 2)) / (steps @ steps)
    # Smaller samples have heavier tails: their suprema are a little above the law.
    assert slope + 4 * error >= -0.5 - 0.02
    assert slope - 4 * error <= -0.5 + 0.02


@pytest.mark.slow
def test_on_a_teacher_certified_statements_fail_no_more_often_than_they_promise():
    """200 networks trained on samples of a known population, measured against held-out samples of it."""
    population = TeacherPopulation.draw(0, 5, 3)
    model = adapt(build(ModelSpec("ffn", widths=(4,), activation="tanh"), (5,), 3, 0), "cross_entropy")
    gradient = jax.jit(jax.grad(lambda p, batch: jnp.mean(jax.vmap(model.loss_fn, (None, 0))(p, batch))))

    @jax.jit
    def trained(batch):
        step = lambda _, p: jax.tree.map(lambda a, g: a - 0.5 * g, p, gradient(p, batch))  # noqa: E731
        return jax.lax.fori_loop(0, 60, step, model.params)

    flat = lambda tree: np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])  # noqa: E731
    many = population.sample(jax.random.key(10**6), 100_000)
    example = {"x": jnp.zeros(5), "y": jnp.zeros((), jnp.int32)}
    failures = np.zeros(2, int)
    for seed in range(200):
        train_key, heldout_key = jax.random.split(jax.random.key(seed))
        sample, heldout = population.sample(train_key, 32), population.sample(heldout_key, 64)
        last = trained(sample)
        bound = network_norms(
            model.predict_fn, [last], example, input_radius=population.input_radius, wrt=model.wrt
        ).gradient_bound
        own, other, truth = (flat(gradient(last, batch)) for batch in (sample, heldout, many))
        between, deviation = np.linalg.norm(own - other), np.linalg.norm(own - truth)
        certified = split_bound(jnp.array([between]), bound, 64, confidence=0.9)
        assert certified.status == "certified"
        failures += [deviation > certified.value, deviation > between]
    assert failures[0] <= 20
    assert failures[1] > 20, "without its second term the statement would be false"
