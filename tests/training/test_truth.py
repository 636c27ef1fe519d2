"""Against populations whose gradient is known: do the numbers of a run tell the truth?"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lggwjax.data import DataSpec, LinearPopulation
from lggwjax.gradients.selection import as_partial, select
from lggwjax.models import ModelSpec
from lggwjax.report import load_run, verdict
from lggwjax.report.records import load_config
from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, prepare_run
from lggwjax.training.heldout import gradient_norm, pass_over, population_descent
from lggwjax.training.run import run, states

NUM_SEEDS = 100


def squared_error(w, z):
    return 0.5 * (w @ z["x"] - z["y"]) ** 2


@pytest.fixture(scope="module")
def coverage() -> dict[str, list[tuple[float, float, float, float]]]:
    """For 100 seeds: (value, low, high, truth) of each held-out quantity, after 20 steps on a reused sample."""
    spectrum = np.geomspace(1.0, 0.1, 10)
    loss = as_partial(squared_error)
    selection = select(jnp.zeros(10))
    found: dict[str, list] = {"heldout_grad_norm": [], "deviation": [], "population_descent": []}
    for seed in range(NUM_SEEDS):
        population = LinearPopulation.draw(seed, spectrum, noise="uniform", noise_scale=0.5)
        own, outside = (population.sample(jax.random.key(2 * seed + side), size) for side, size in ((0, 40), (1, 800)))
        before = jnp.zeros(10)
        for _ in range(20):
            before = before - 0.3 * pass_over(loss, None, before, own, selection).gradient
        gradient = pass_over(loss, None, before, own, selection).gradient
        after = before - 0.3 * gradient
        blocks = pass_over(loss, None, before, outside, selection, 16).gradients
        exact = np.asarray(population.gradient(before), np.float64)
        truths = {
            "heldout_grad_norm": (gradient_norm(blocks), np.linalg.norm(exact)),
            "deviation": (gradient_norm(gradient - blocks), np.linalg.norm(np.asarray(gradient, np.float64) - exact)),
            "population_descent": (
                population_descent(loss, before, after, outside, selection),
                -exact @ np.asarray(after - before, np.float64),
            ),
        }
        for name, (scalar, truth) in truths.items():
            found[name].append((scalar.value, scalar.low, scalar.high, float(truth)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heldout_grad_norm", "deviation", "population_descent"])
def test_intervals_cover_the_closed_form_over_100_seeds(coverage, name):
    rows = np.array(coverage[name])
    covered = int(((rows[:, 1] <= rows[:, 3]) & (rows[:, 3] <= rows[:, 2])).sum())
    # As many misses as the nominal 0.95 allows at odds of one in a thousand.
    assert covered >= stats.binom.ppf(1e-3, NUM_SEEDS, 0.95), covered
    # Negative control: twice the truth is not covered.
    twice = int(((rows[:, 1] <= 2 * rows[:, 3]) & (2 * rows[:, 3] <= rows[:, 2])).sum())
    assert twice < stats.binom.ppf(1e-3, NUM_SEEDS, 0.95), twice


def exact_turn(prepared) -> tuple[int, np.ndarray]:
    """Step at which the exact population loss is lowest, and that loss at every step."""
    losses = np.array([prepared.split.population.loss(state.params) for state in states(prepared)])
    return int(losses.argmin()), losses


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_overfitting_least_squares_is_said_to_hurt_near_the_lowest_population_loss(seed, tmp_path):
    config = RunConfig(
        DataSpec(
            "linear", num_samples=50, probe_size=32, heldout_samples=1000, dimension=100, noise_scale=1.0, seed=seed
        ),
        ModelSpec("ffn", widths=(), bias=False),
        TrainSpec("gd", learning_rate=0.1, steps=400, seed=seed),
        MeasureSpec(16, directions=64),
    )
    prepared = prepare_run(config)
    run(prepared, tmp_path / "run")
    lowest, losses = exact_turn(prepared)
    records, settings = load_run(tmp_path / "run"), load_config(tmp_path / "run")
    said = verdict(records, settings)
    assert said.word == "hurts"
    assert said.turn is not None
    helped, hurt = said.turn
    assert helped is not None
    measured = records["step"].tolist()
    # Between the two steps named, give or take the one measurement at which the interval may still lie across zero.
    assert measured[measured.index(helped) - 1] <= lowest <= measured[measured.index(hurt)]
    assert losses[-1] > losses[lowest]


@pytest.mark.slow
def test_killed_runs_end_with_the_same_records(tmp_path):
    command = [
        sys.executable,
        "-m",
        "lggwjax",
        "run",
        "--quiet",
        "--widths",
        "16",
        "--steps",
        "300",
        "--measurements",
        "12",
    ]
    command += ["--probe-size", "16", "--directions", "64", "--heldout-samples", "100"]

    def start(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([*command, "--out", str(folder), "--resume"], stderr=subprocess.PIPE, text=True)

    def num_records(folder: Path) -> int:
        file = folder / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    generator, killed = np.random.default_rng(0), tmp_path / "killed"
    resumed_from = []
    for target in (1, 4, 8):
        process = start(killed)
        deadline = time.monotonic() + 300
        while num_records(killed) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(float(generator.uniform(0, 0.3)))
        process.kill()
        resumed_from.append("resumed from step" in process.communicate()[1])
    process = start(killed)
    _, log = process.communicate(timeout=600)
    assert process.returncode == 0, log
    assert "resumed from step" in log
    whole = start(tmp_path / "whole")
    assert whole.communicate(timeout=600)
    assert whole.returncode == 0
    drop = [name for name in load_run(killed).columns if name.startswith("seconds") or name == "peak_memory"]
    assert load_run(killed).drop(columns=drop).equals(load_run(tmp_path / "whole").drop(columns=drop))
    assert resumed_from == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--model", "cnn", "--data", "mnist", "--num-samples", "200"],
        ["--model", "resnet8", "--data", "cifar10", "--num-samples", "100", "--base-width", "8", "--norm", "batch"],
    ],
)
def test_real_images_run_to_the_end(options, shared_data, tmp_path):
    from lggwjax.cli import main

    place = shared_data / ("mnist" if "mnist" in options else "cifar-10-batches-bin")
    small = [
        "--steps",
        "8",
        "--measurements",
        "4",
        "--probe-size",
        "16",
        "--heldout-samples",
        "64",
        "--batch-size",
        "32",
        "--quiet",
    ]
    assert main(["run", *options, "--data-dir", str(place), *small, "--out", str(tmp_path / "run")]) == 0
    assert load_run(tmp_path / "run")["lggw.value"].iloc[-1] > 0
