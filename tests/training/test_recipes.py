"""Loops as people write them, each with the monitor in three lines: they run, and say that early steps help."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "notebooks" / "recipes"
# What is a gradient coordinate, by the names of the leaves.
COORDINATES = {
    "nnx": ("0/", 5),
    "linen_batch_stats": ("params/", 5),
    "equinox_loop": ("layers/", 4),
    "dropout": ("params/", 4),
    "augmentation": ("", 3),
    "lora": ("lora/", 4),
}


def test_there_is_a_recipe_for_each_kind_of_loop_and_each_is_short():
    assert {file.stem for file in RECIPES.glob("*.py")} == set(COORDINATES)
    for file in RECIPES.glob("*.py"):
        text = file.read_text(encoding="utf8")
        assert len(text.splitlines()) <= 75, file.name
        after = text.split("# The monitor, in three lines")[1]
        # Made, started, observed; the rest of the loop is as it was.
        assert [after.count(part) for part in ("= Monitor(", "monitor.init(", "monitor.observe(")] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", COORDINATES)
def test_recipe(name, capsys):
    names = runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    report, printed = names["report"], capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [f"Step {step}" for step in (1, 10, 20, 30, 40, 50, 60)]
    assert printed[-1] == str(report)
    assert report.require_verdict() == "helps"
    assert report.move == 1
    prefix, count = COORDINATES[name]
    assert len(report.layers) == count
    assert all(layer.name.startswith(prefix) for layer in report.layers)
