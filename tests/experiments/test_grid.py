"""A grid of one's own: every combination on every seed, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lggwjax.experiments import grid
from lggwjax.experiments.trained import run_config

GOOD = """
title = "norms"
seeds = [0, 3]
target_loss = 0.5
[base.data]
num_samples = 50
[base.training]
steps = 7
[grid]
"model.norm" = ["none", "layer"]
"training.learning_rate" = [0.001, 0.01, 0.1]
"model.widths" = [[8], [16, 16]]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "grid.toml"
    file.write_text(text)
    return file


def test_every_combination_runs_on_every_seed(tmp_path):
    points, extra = grid.read(write(tmp_path, GOOD))
    assert len(points) == 2 * 3 * 2 * 2
    assert extra == {"title": "norms"}
    configs = [run_config(point.settings) for point in points]
    assert {
        (c.model.norm, c.training.learning_rate, c.model.widths, c.training.seed, c.data.seed) for c in configs
    } == {
        (norm, rate, widths, seed, seed)
        for norm in ("none", "layer")
        for rate in (0.001, 0.01, 0.1)
        for widths in ((8,), (16, 16))
        for seed in (0, 3)
    }
    assert {c.training.steps for c in configs} == {7}
    assert {c.data.num_samples for c in configs} == {50}
    assert len({point.settings["design"] for point in points}) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [0", "Expected TOML"),
        ("seeds = [" + "[" * 5000, "Expected TOML"),
        ("seeds = [" + "9" * 5000 + "]", "Expected TOML"),
        ("seeds = [1" + "0" * 400 + "]", "Expected runs that can be made"),
        ("[base.training]\nlearning_rate = 1" + "0" * 400, "Expected runs that can be made"),
        ("sedes = [0]", "got 'sedes'"),
        ("seeds = []", "Expected seeds"),
        ("seeds = 3", "Expected seeds"),
        ('[grid]\n"model.nrom" = ["none"]', "got 'nrom'"),
        ('[grid]\n"norm" = ["none"]', "Expected names such as"),
        ('[grid]\n"model.norm" = []', "Expected \\[grid\\]"),
        ('[grid]\n"model.norm" = ["big"]', "Expected norm"),
        ("[base.model]\nnorm = 3", "Expected model.norm .* to be a text, got 3"),
        ("[base.optimizer]\nname = 3", r"Expected tables .* got \[base.optimizer\]"),
        ("target_loss = true", "Expected target_loss"),
        ('[grid]\n"training.learning_rate" = ["fast"]', "Expected training.learning_rate .* a number, got 'fast'"),
        ('[base.training]\nsteps = "60"', "Expected training.steps .* a whole number, got '60'"),
        ("[base.training]\nfresh = 1", "Expected training.fresh .* true or false"),
        ("seeds = [0, 0]", "Expected different seeds"),
        ("seeds = [" + ", ".join(map(str, range(10_001))) + "]", "at most 10,000"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        grid.read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml"):
        grid.read(tmp_path / "nothing.toml")
