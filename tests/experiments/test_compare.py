"""A comparison from a table to its page; what cannot be compared is refused in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lggwjax.cli import main
from lggwjax.experiments.compare import Question, compare
from lggwjax.experiments.compare_data import look_at
from lggwjax.experiments.compare_plan import Cost, num_seeds, num_steps, points, run_point
from lggwjax.experiments.compare_point import measure, trivial
from lggwjax.experiments.designs import TEMPLATES, Design, default_designs, read_designs, template
from lggwjax.models.spec import ModelSpec
from lggwjax.report.studies import study_document
from lggwjax.report.studies.comparison import compared
from lggwjax.report.study import load_study


def write_table(file: Path, rows: int = 120, *, scale: float = 1e5, header: str = "size,colour,price,label") -> Path:
    """A table whose label is decided by a column of numbers around 1e5, with a column of words beside it."""
    rng = np.random.default_rng(0)
    lines = [header]
    for x in rng.normal(size=rows):
        label = "yes" if x + 0.1 * rng.normal() > 0 else "no"
        lines.append(f"{scale * (3 + x):.3f},{rng.choice(['red', 'blue'])},{10 * x + rng.normal():.3f},{label}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "my.csv")


def refused(capsys, *arguments: str) -> str:
    """The one line that the command is refused with."""
    assert main(["compare", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("lggwjax: ")
    assert "\n" not in said
    return said


def test_what_the_data_are_is_found_out(table):
    facts = look_at(str(table), label="label")
    assert (facts.task, facts.num_outputs, facts.images) == ("classification", 2, False)
    assert (facts.spec.num_samples, facts.num_heldout, facts.num_rows) == (80, 40, 120)
    assert facts.overlap == pytest.approx(1 / 3)
    number = look_at(str(table), label="price")
    assert (number.task, number.num_outputs) == ("regression", 1)
    digits = look_at("digits", num_samples=100, num_heldout=50)
    assert digits.images
    assert digits.overlap == pytest.approx(50 / 1797)
    assert look_at("teacher").overlap == 0


def test_a_missing_label_lists_the_columns(table, capsys):
    assert "size, colour, price, label" in refused(capsys, "--data", str(table))


def test_a_wrong_label_lists_the_columns(table, capsys):
    said = refused(capsys, "--data", str(table), "--label", "lable")
    assert "'lable'" in said
    assert "size, colour, price, label" in said


@pytest.mark.parametrize("value", ["7", "1.5", "no"])
def test_a_constant_label_is_refused(tmp_path, capsys, value):
    file = tmp_path / "constant.csv"
    file.write_text("x,y\n" + "".join(f"{i},{value}\n" for i in range(60)))
    said = refused(capsys, "--data", str(file), "--label", "y")
    assert "label" in said


def test_five_rows_are_too_few(tmp_path, capsys):
    file = write_table(tmp_path / "few.csv", rows=5)
    assert "at least 48 rows" in refused(capsys, "--data", str(file), "--label", "label")


def test_missing_values_are_named(tmp_path, capsys):
    file = write_table(tmp_path / "holes.csv")
    lines = file.read_text().split("\n")
    lines[7] = ",red,1.0,yes"
    file.write_text("\n".join(lines))
    said = refused(capsys, "--data", str(file), "--label", "label")
    assert "'size'" in said
    assert "line 8" in said


def test_text_columns_with_too_many_words_are_refused(tmp_path, capsys):
    file = tmp_path / "names.csv"
    file.write_text("name,x,y\n" + "".join(f"person{i},{i},{i % 2}\n" for i in range(1500)))
    assert "'name'" in refused(capsys, "--data", str(file), "--label", "y")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--data", "nowhere.csv", "--label", "y"], "--data"),
        (["--data", "digits", "--label", "y"], "--label"),
        (["--data", "mnist"], "--data-dir"),
        (["--data", "digits", "--minutes", "0"], "--minutes"),
        (["--data", "digits", "--seeds", "0"], "--seeds"),
        (["--data", "digits", "--workers", "0"], "--workers"),
        (["--data", "digits", "--worth", "2"], "--worth"),
        (["--data", "digits", "--target-loss", "-1"], "--target-loss"),
        (["--data", "digits", "--price-per-hour", "-1"], "--price-per-hour"),
        (["--data", "digits", "--price-per-sample", "nan"], "--price-per-sample"),
        (["--data", "digits", "--num-samples", "5"], "--num-samples"),
        (["--data", "digits", "--num-samples", "1797"], "--num-samples"),
        (["--data", "digits", "--heldout-samples", "2"], "--heldout-samples"),
        (["--data", "digits", "--config", "nowhere.toml"], "--config"),
        (["--template", "music"], "--template"),
        ([], "--data"),
    ],
)
def test_refusals_name_the_option(capsys, options, part):
    assert part in refused(capsys, *options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_can_be_used_as_they_are(tmp_path, name, capsys):
    assert main(["compare", "--template", name]) == 0
    file = tmp_path / "designs.toml"
    file.write_text(capsys.readouterr().out)
    assert file.read_text() == template(name)
    assert len(read_designs(file)) >= 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("design = 3", "at least two"),
        ('[[design]]\nname = "a"', "at least two"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "a"', "twice"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "b"\nmodel.depth = 3', "'depth'"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "b"\ntraining.steps = 3', "'steps'"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "b"\ntraining.learning_rate = -1', "learning_rate"),
        ('[[design]]\nname = "a"\n[[design]]\nname = "b"\nwidths = [3]', "'widths'"),
        ('[[design]]\n[[design]]\nname = "b"', "name"),
        ('seeds = 3\n[[design]]\nname = "a"\n[[design]]\nname = "b"', "'seeds'"),
        ("[[design", "TOML"),
    ],
)
def test_wrong_designs_are_refused(tmp_path, text, part):
    file = tmp_path / "designs.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="Expected") as error:
        read_designs(file)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_batches_fit_half_of_the_samples():
    design = Design("a", ModelSpec(widths=()), {"batch_size": 512})
    assert design.train_spec(steps=1, seed=0, most=40).batch_size == 40
    assert Design("b", ModelSpec(), {"optimizer": "gd"}).train_spec(steps=1, seed=0, most=40).batch_size is None


def test_equal_time_becomes_steps(table):
    facts = look_at(str(table), label="label")
    costs = {"a": Cost(0.01, 1, 0.5, 5), "b": Cost(0.014, 1, 0.5, 5), "c": Cost(0.1, 1, 0.5, 5)}
    steps = num_steps(costs, facts, minutes=5, seeds=5, workers=1)
    # (0.9 (300 - 15) - 22.5) / 30 runs are 7.8 s a run; steps of nearly the same price count as equal.
    assert steps["a"] == steps["b"] == math.floor(7.8 / 0.014)
    assert steps["c"] == math.floor(7.8 / 0.1)
    # With time to spare, a run ends when the slowest design has made 1,000 steps; the time stays the same for all.
    assert num_steps(costs, facts, minutes=500, seeds=5, workers=1) == {"a": 7142, "b": 7142, "c": 1000}
    with pytest.raises(ValueError, match="Expected --minutes ") as error:
        num_steps(costs, facts, minutes=1, seeds=5, workers=1)
    needed = int(str(error.value).split("--minutes ")[1].split()[0])
    assert min(num_steps(costs, facts, minutes=needed, seeds=5, workers=1).values()) >= 50


def test_a_budget_that_is_left_over_buys_seeds(table):
    facts = look_at(str(table), label="label")
    costs = {"a": Cost(0.001, 1, 0.5, 5), "b": Cost(0.001, 1, 0.5, 5)}
    # A seed takes 2 (1 + 1/2) + 4 seconds with all 1,000 steps.
    assert num_seeds(costs, facts, minutes=5, workers=1) == 10
    assert num_seeds(costs, facts, minutes=(10 + 7 * 7.5 / 0.9) / 60, workers=1) == 7
    assert num_seeds(costs, facts, minutes=0.1, workers=1) == 5


def test_points_are_paired(table):
    facts = look_at(str(table), label="label")
    designs = default_designs(images=False)
    found = points(designs, facts, dict.fromkeys([design.name for design in designs], 100), seeds=2)
    assert len(found) == len({point.id for point in found}) == 12
    for seed in range(2):
        data = [p.settings["config"]["data"] for p in found if p.settings["seed"] == seed]
        assert all(one == data[0] for one in data)
        assert data[0]["seed"] == seed


def test_the_trivial_predictor_by_hand():
    sample, heldout = {"y": np.array([0, 0, 0, 1], np.int32)}, {"y": np.array([1, 0, 2], np.int32)}
    found = trivial(sample, heldout, 3)
    assert found["trivial_loss"] == pytest.approx(-np.log([2 / 7, 4 / 7, 1 / 7]).mean())
    assert found["trivial_accuracy"] == pytest.approx(1 / 3)
    numbers = trivial({"y": np.array([0.0, 2.0])}, {"y": np.array([1.0, 3.0])}, 1)
    assert numbers == {"trivial_loss": 1.0, "trivial_accuracy": None}


@pytest.mark.slow
def test_half_of_the_samples_share_the_held_out_ones_and_columns_of_any_size_train(table):
    facts = look_at(str(table), label="label")
    design = default_designs(images=False)[0]
    whole, half = (measure(run_point(design, facts, seed=1, steps=300, half=h).settings) for h in (False, True))
    assert "diverged" not in whole
    assert whole["best_loss"] < 0.7 * whole["trivial_loss"]
    assert whole["heldout_losses"][0] == pytest.approx(half["heldout_losses"][0])
    assert "records" not in half
    assert len(whole["records"]) == len(whole["steps"]) == 12


@pytest.mark.slow
def test_a_comparison_from_a_table_to_its_page(table, tmp_path, capsys):
    out = tmp_path / "comparison"
    arguments = ["compare", "--data", str(table), "--label", "label", "--seeds", "3", "--minutes", "20"]
    assert main([*arguments, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Next:" in said
    assert (out / "report.html").is_file()
    study = load_study(out)
    assert study.num_missing == 0
    assert not study.failed
    found = compared(study)
    assert found.num_seeds == 3
    assert set(found.ranked) == {"linear model", "network", "narrow sparse network"}
    assert all(math.isfinite(found.mean(name, "lggw_over_rms").value) for name in found.ranked)
    before = {file.name: file.read_bytes() for file in (out / "points").glob("*.json")}
    # Asked again with a price: nothing is run anew, and the plan is the one that was timed before.
    assert main([*arguments, "--out", str(out), "--resume", "--price-per-sample", "2"]) == 0
    assert {file.name: file.read_bytes() for file in (out / "points").glob("*.json")} == before
    assert json.loads((out / "study.json").read_text())["question"]["price_per_sample"] == 2
    assert study_document(out).title.en == "Which design for my (label)?"
    assert main([*arguments, "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    # Other rows are another comparison.
    table.write_text(table.read_text() + "300000.0,red,1.0,yes\n")
    assert main([*arguments, "--out", str(out), "--resume"]) == 2


@pytest.mark.slow
def test_a_design_that_diverges_is_refused_before_anything_is_run(table, tmp_path):
    file = tmp_path / "designs.toml"
    file.write_text(
        '[[design]]\nname = "mild"\nmodel.widths = []\n'
        '[[design]]\nname = "wild"\nmodel.widths = [8]\ntraining.optimizer = "sgd"\ntraining.learning_rate = 1e30\n'
    )
    with pytest.raises(ValueError, match="'wild' to train"):
        compare(str(table), label="label", config=file, seeds=1, out=tmp_path / "c", question=Question())
    assert not (tmp_path / "c" / "study.json").exists()
