"""A sample whose loss or gradient is not finite is found, with its layers, whatever the chunk it lies in."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.cli import main
from lggwjax.training import Monitor, nonfinite
from lggwjax.training.meter import Meter, Samples
from lggwjax.training.nonfinite import blame

PARAMS = {"scale": jnp.ones(3), "root": jnp.ones(()), "frozen": jnp.ones((), jnp.int32)}


def loss(params, example):
    # The root has an infinite slope at 0, where the loss itself is fine.
    return jnp.sqrt(params["root"] * example["r"]) + params["scale"] @ example["x"]


def samples(num: int = 30, **bad: tuple[int, float]) -> dict:
    batch = {"r": np.ones(num, np.float32), "x": np.random.default_rng(num).normal(size=(num, 3)).astype(np.float32)}
    for name, (index, value) in bad.items():
        batch[name][index] = value
    return batch


@pytest.mark.parametrize("floats", [2**25, 4 * 7, 1])
def test_the_sample_and_its_layer_are_named(monkeypatch, floats):
    monkeypatch.setattr(nonfinite, "_FLOATS", floats)
    assert blame(loss, PARAMS, samples()) == ""
    assert blame(loss, PARAMS, samples(r=(29, 0.0))) == "sample 29 of 30 has a NaN or infinite gradient in root"


def test_all_layers_and_the_loss_are_told_apart():
    both = samples(x=(4, np.inf), r=(2, 0.0))
    assert blame(loss, PARAMS, both) == "sample 2 of 30 has a NaN or infinite gradient in root, and so have 1 more"
    assert blame(loss, PARAMS, samples(x=(4, np.inf))) == "sample 4 of 30 has a NaN or infinite loss"
    only = lambda path, leaf: path[0].key == "root"  # noqa: E731
    assert blame(loss, PARAMS, both, only).startswith("sample 2 of 30 has a NaN or infinite gradient,")


@pytest.mark.slow
def test_a_meter_names_it():
    bad = samples(r=(7, 0.0))
    for of, words in ((Samples(bad, samples(5), samples(40), samples(16)), "trained on, sample 7 of 30"),
                      (Samples(samples(), samples(5), bad, bad), "held out, sample 7 of 30")):  # fmt: skip
        meter = Meter(loss, of, max_checkpoints=2, num_draws=8)
        with pytest.raises(FloatingPointError, match=f"{words} has a NaN or infinite gradient in root"):
            meter.measure(meter.init(PARAMS), PARAMS)


@pytest.mark.slow
def test_a_monitor_names_it_with_the_step():
    monitor = Monitor(loss, samples(20), samples(30, r=(7, 0.0)), every=1)
    state = monitor.init(PARAMS)
    with pytest.raises(FloatingPointError, match=r"sample 7 of 30 .* in root.* step 1"):
        monitor.observe(state, 1, PARAMS)


@pytest.mark.slow
def test_a_monitor_may_skip_such_looks_and_count_them(caplog):
    """Skipped looks leave nothing behind: the reports are those of a monitor that never took them."""
    path = [PARAMS | {"root": jnp.float32(root)} for root in (1.0, 0.9, -1.0, -1.0, 0.8, 0.7)]
    reports, states = {}, {}
    for name, steps in (("skips", range(6)), ("never there", (0, 1, 5))):
        monitor = Monitor(loss, samples(20), samples(30), every=1, non_finite="skip")
        states[name] = monitor.init(PARAMS)
        for step in steps:
            states[name], report = monitor.observe(states[name], step, path[step])
            assert (report is None) == (step in (2, 3, 4))
            reports[name, step] = report
    # The look at step 4 is fine itself, but the move it saw came from a negative root.
    assert states["skips"].skipped == 3
    said = [record.getMessage() for record in caplog.records if "This look is left out." in record.getMessage()]
    assert len(said) == 3
    assert "sample 0 of 20 has a NaN or infinite" in said[0]
    assert "step 2" in said[0]
    for step in (0, 1):
        assert reports["skips", step].record["lggw"] == reports["never there", step].record["lggw"]
    assert reports["skips", 5].record["skipped_looks"] == 3
    assert reports["skips", 5].record["lggw"] == reports["never there", 5].record["lggw"]
    with pytest.raises(ValueError, match='non_finite "stop" or "skip"'):
        Monitor(loss, samples(20), every=1, non_finite="pass")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_run_names_the_sample_that_ended_it(tmp_path, capsys):
    """One target so large that its squared error overflows: the sample is to blame, not the learning rate."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=60).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(60, 4)).astype(np.float32), y=y)
    options = [
        "--data",
        "npz",
        "--data-dir",
        str(tmp_path / "d.npz"),
        "--widths",
        "5",
        "--num-samples",
        "40",
        "--steps",
        "3",
    ]
    options += ["--measurements", "2", "--heldout-samples", "20", "--quiet", "--out"]
    assert main(["run", *options, str(tmp_path / "fine")]) == 0
    y[:] = np.where(np.arange(60) % 2, 1e25, y)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(60, 4)).astype(np.float32), y=y)
    assert main(["run", *options, str(tmp_path / "bad")]) == 1
    error = capsys.readouterr().err
    assert "has a NaN or infinite loss, and so have" in error
    assert "step 0" in error
    assert error.count("\n") == 1
