"""A whole run, small: what it leaves, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import lggwjax
from lggwjax.cli import main
from lggwjax.data import DataSpec
from lggwjax.models import ModelSpec
from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, checkpoints, prepare_run
from lggwjax.training.run import run, states

WIDTHS = ("lggw", "single_width", "union_width", "cloud_width", "feature_width", "heldout_lggw", "heldout_cloud_width")
NERCS = ("nerc", "heldout_nerc")
MEANS = ("heldout_grad_norm", "deviation", "population_descent")
NUMBERS = ("train_loss", "heldout_loss", "train_accuracy", "heldout_accuracy", "grad_norm", "gradient_rms")
SMALL = ["--widths", "12", "--num-samples", "40", "--heldout-samples", "80", "--probe-size", "10", "--steps", "12"]
SMALL += ["--measurements", "5", "--directions", "32", "--quiet"]


def read(folder: Path) -> list[dict]:
    def refuse(token):
        raise AssertionError(f"{token} is no strict JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_resources(records: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory")} for record in records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    assert main(["run", *SMALL, "--out", str(out)]) == 0
    return out


def test_the_folder_holds_what_the_readme_promises(folder):
    names = {entry.name for entry in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "figures", "report.html"} <= names
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg", ".csv"}
    config = json.loads((folder / "config.json").read_text())
    assert config["measuring"]["route"] == "exact"
    assert config["measuring"]["steps"] == [record["step"] for record in read(folder)]
    assert config["environment"]["versions"]["jax"]


def test_every_record_has_every_field(folder):
    records = read(folder)
    assert records[0]["step"] == 0
    assert records[-1]["step"] == 12
    assert len(records) == 5
    for record in records:
        assert all(isinstance(record[name], float) for name in NUMBERS)
        assert record["passes"] == record["step"]
        for name in (*WIDTHS, *NERCS):
            assert {"value", "stderr", "ci95", "num_draws", "num_samples", "num_checkpoints"} <= set(record[name]), name
            assert ("draws_bound95" in record[name]) == (name in WIDTHS)
            assert record[name]["ci95"][0] <= record[name]["value"] <= record[name]["ci95"][1]
            assert record["status"][name] == ("independent" if name.startswith("heldout") else "descriptive")
        for name in MEANS:
            assert (
                record[name] is None
                if (name, record["step"]) == ("population_descent", 0)
                else set(record[name]) == {"value", "stderr", "ci95"}
            )
        assert set(record["features"]) == {"active_share", "l1", "l2"}
        assert set(record["seconds"]) == {"training", "measuring"}
        assert record["peak_memory"] > 2**20


def test_the_default_run_measures_at_least_eight_times():
    assert len(RunConfig().steps_measured) >= 8


def test_measuring_does_not_change_training(folder):
    config = RunConfig(
        DataSpec(num_samples=40, heldout_samples=80, probe_size=10),
        ModelSpec("ffn", widths=(12,)),
        TrainSpec(steps=12),
        MeasureSpec(2, directions=8),
    )
    prepared = prepare_run(config)
    *_, last = states(prepared)
    measured = checkpoints.restore(folder / "checkpoints", 12, like=prepared.start)
    jax.tree.map(np.testing.assert_array_equal, last.params, measured.params)


def test_load_run_gives_a_table(folder):
    table = lggwjax.load_run(folder)
    assert table["step"].tolist() == [record["step"] for record in read(folder)]
    assert table["lggw.value"].iloc[-1] == read(folder)[-1]["lggw"]["value"]


def test_widths_grow_along_the_path(folder):
    for name in ("lggw", "single_width", "union_width", "nerc", "heldout_lggw"):
        values = [record[name]["value"] for record in read(folder)]
        assert all(np.diff(values) >= -1e-5 * values[-1]), name
        assert values[-1] > 0


def test_a_finished_run_is_resumed_without_a_change(folder):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert main(["run", *SMALL, "--out", str(folder), "--resume"]) == 0
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A run that ended after its record of step 2, with what it takes to go on."""
    prepared = prepare_run(
        RunConfig(
            DataSpec(num_samples=40, heldout_samples=80, probe_size=10),
            ModelSpec("ffn", widths=(12,)),
            TrainSpec(steps=12),
            MeasureSpec(5, directions=32),
        )
    )

    def interrupt(step, record):
        if record is not None and record["step"] >= 2:
            raise KeyboardInterrupt

    out = tmp_path_factory.mktemp("runs") / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(prepared, out, progress=interrupt)
    assert 2 <= len(read(out)) < 5
    return prepared, out


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_records(folder, cut, tmp_path, caplog):
    prepared, out = cut
    shutil.copytree(out, tmp_path / "cut")
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "torn')  # what a kill in the middle of a line leaves
    run(prepared, tmp_path / "cut", resume=True)
    assert "dropped 18 bytes after step" in caplog.text
    assert without_resources(read(tmp_path / "cut")) == without_resources(read(folder))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, Path.unlink])
@pytest.mark.parametrize("index", [0, -1])
def test_a_damaged_checkpoint_is_told_and_made_again(folder, cut, tmp_path, caplog, damage, index):
    prepared, out = cut
    shutil.copytree(out, tmp_path / "cut")
    step = checkpoints.steps(tmp_path / "cut" / "checkpoints")[index]
    place = tmp_path / "cut" / "checkpoints" / str(step)
    damage(max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size))
    run(prepared, tmp_path / "cut", resume=True)
    said = [record.getMessage() for record in caplog.records if "as it was written" in record.getMessage()]
    assert len(said) == 1
    assert str(place) in said[0]
    assert ("Going on from the start" in said[0]) == (index == 0)
    assert without_resources(read(tmp_path / "cut")) == without_resources(read(folder))


def test_an_existing_folder_is_refused_and_a_difference_is_named(folder, capsys):
    assert main(["run", *SMALL, "--out", str(folder)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["run", *SMALL, "--out", str(folder), "--resume", "--learning-rate", "0.1"]) == 2
    error = capsys.readouterr().err
    assert "--learning-rate" in error
    assert "0.003" in error
    assert "0.1" in error


@pytest.mark.slow
def test_checkpoints_of_a_run_measured_again_give_its_records(folder, tmp_path):
    options = [*SMALL[: SMALL.index("--steps")], "--directions", "32", "--quiet", "--out", str(tmp_path / "again")]
    assert main(["measure", "--checkpoints", str(folder / "checkpoints"), *options]) == 0
    for first, again in zip(read(folder), read(tmp_path / "again"), strict=True):
        for name in (*WIDTHS, *NERCS, "train_loss", "heldout_grad_norm", "deviation"):
            assert again[name] == first[name], name
        assert again["passes"] is None


@pytest.mark.slow
def test_measure_in_python_without_heldout_samples_does_not_speak_of_unseen_data(tmp_path):
    def loss(w, z):
        return 0.5 * (w @ z["x"] - z["y"]) ** 2

    data = {"x": np.eye(4, dtype=np.float32), "y": np.ones(4, np.float32)}
    path = [np.full(4, value, np.float32) for value in (0.0, 0.5, 0.75)]
    page = lggwjax.measure(path, loss, data, out=tmp_path / "given", num_draws=64)
    records = read(tmp_path / "given")
    assert [record["population_descent"] for record in records] == [None] * 3
    assert [record["heldout_lggw"] for record in records] == [None] * 3
    assert records[-1]["lggw"]["value"] > 0
    assert page.exists()


@pytest.mark.slow
def test_divergence_stops_with_the_step_and_keeps_the_records(tmp_path, capsys):
    options = [
        "--data",
        "linear",
        "--optimizer",
        "gd",
        "--learning-rate",
        "1e15",
        "--steps",
        "12",
        "--out",
        str(tmp_path / "nan"),
    ]
    assert main(["run", *SMALL[2:], *options]) == 1
    error = capsys.readouterr().err
    assert "NaN or infinit" in error
    assert "step" in error
    assert error.count("\n") == 1
    assert read(tmp_path / "nan")[0]["step"] == 0
    assert not (tmp_path / "nan" / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--learning-rate", "abc"], ["--learning-rate", "abc"]),
        (["--learning-rate", "-1"], ["--learning-rate", "> 0", "-1"]),
        (["--learning-rate", "nan"], ["--learning-rate", "nan"]),
        (["--data", "nosuch"], ["--data", "mnist", "nosuch"]),
        (["--data", "mnist"], ["--data-dir"]),
        (["--data", "mnist", "--data-dir", "/no/such/place"], ["/no/such/place"]),
        (["--num-samples", "100000"], ["--num-samples", "1797", "100000"]),
        (["--num-samples", "0"], ["--num-samples", "0"]),
        (["--model", "resnet9"], ["--model", "resnet8", "resnet9"]),
        (["--model", "cnn", "--data", "linear"], ["cnn"]),
        (["--probe-size", "0"], ["--probe-size", "0"]),
        (["--widths", "3,x"], ["--widths", "3,x"]),
        (["--widths", "0"], ["--widths", "0"]),
        (["--seed", "-3"], ["--seed", "-3"]),
        (["--steps", "0"], ["--steps", "0"]),
        (["--steps", "5", "--passes", "2"], ["--passes", "--steps"]),
        (["--passes", "-2"], ["--passes", "-2"]),
        (["--batch-size", "900"], ["--batch-size", "900"]),
        (["--optimizer", "lion"], ["--optimizer", "adamw", "lion"]),
        (["--fresh"], ["fresh", "linear"]),
        (["--measurements", "1"], ["--measurements", "1"]),
        (["--spacing", "cubic"], ["--spacing", "cubic"]),
        (["--directions", "1"], ["--directions", "1"]),
        (["--weight-decay", "inf"], ["--weight-decay", "inf"]),
        (["--top-k", "0"], ["--top-k", "0"]),
        (["--norm", "weird"], ["--norm", "weird"]),
        (["--nosuch"], ["--nosuch"]),
    ],
)
def test_a_bad_value_is_refused_in_one_line_before_a_folder_is_made(options, words, tmp_path, capsys):
    out = tmp_path / "never"
    assert main(["run", "--out", str(out), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(word in captured.err for word in words), captured.err
    assert not out.exists()


def test_the_command_line_leaves_the_logger_as_it_was(tmp_path):
    log = logging.getLogger("lggwjax")
    before = log.level, log.propagate, list(log.handlers)
    main(["run", *SMALL, "--plan", "--out", str(tmp_path / "run")])
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_plan_prints_and_writes_nothing(tmp_path, capsys):
    assert main(["run", *SMALL, "--plan", "--out", str(tmp_path / "never")]) == 0
    text = capsys.readouterr().out
    assert "time" in text
    assert "GiB" in text
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_fresh_samples_are_said_to_be_independent(tmp_path):
    options = [
        "--data",
        "linear",
        "--fresh",
        "--optimizer",
        "gd",
        "--learning-rate",
        "0.05",
        "--out",
        str(tmp_path / "fresh"),
    ]
    assert main(["run", *SMALL[2:], *options]) == 0
    assert set(read(tmp_path / "fresh")[-1]["status"].values()) == {"independent"}


def test_damaged_records_are_refused_in_one_line(folder, tmp_path, capsys):
    cut, empty = tmp_path / "cut", tmp_path / "empty"
    for place in (cut, empty):
        shutil.copytree(folder, place)
    (cut / "report.html").unlink()
    (cut / "metrics.jsonl").write_text('{"step": 0}\n')
    (empty / "metrics.jsonl").write_text("")
    for place in (cut, empty):
        options = [option for option in SMALL if option != "--quiet"]
        assert main(["run", *options, "--out", str(place), "--resume"]) == 2
        error = capsys.readouterr().err
        assert "metrics.jsonl" in error
        assert error.count("\n") == 1


@pytest.mark.slow
def test_measuring_goes_on_only_with_the_same_samples(tmp_path):
    def loss(w, z):
        return 0.5 * (w @ z["x"] - z["y"]) ** 2

    data = {"x": np.eye(4, dtype=np.float32), "y": np.ones(4, np.float32)}
    path = [np.zeros(4, np.float32), np.ones(4, np.float32)]
    lggwjax.measure(path, loss, data, out=tmp_path / "given", num_draws=64)
    with pytest.raises(ValueError, match="fingerprint"):
        lggwjax.measure(path, loss, data | {"y": 2 * data["y"]}, out=tmp_path / "given", num_draws=64, resume=True)
    for wrong in ({"heldout": {"x": data["x"]}}, {"steps": [-3, 1]}):
        with pytest.raises(ValueError, match="Expected"):
            lggwjax.measure(path, loss, data, out=tmp_path / "never", num_draws=64, **wrong)
        assert not (tmp_path / "never").exists()
