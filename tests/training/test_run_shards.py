"""Whole runs from shards: the records of a run in memory, bit for bit, also after going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lggwjax.cli import main
from lggwjax.data import write_shards
from lggwjax.training.folder import RunFolder

SMALL = ["--widths", "12", "--num-samples", "700", "--heldout-samples", "80", "--probe-size", "10", "--steps", "30"]
SMALL += ["--batch-size", "64", "--measurements", "5", "--directions", "32", "--quiet"]


def make(num: int = 900) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 6)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] * x[:, 1] > 0).astype(np.int64)}


def records(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(one).items() if k not in ("seconds", "peak_memory")} for one in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place, data = tmp_path_factory.mktemp("streamed"), make()
    np.savez(place / "all.npz", **data)
    for kind in ("npz", "array_record"):
        parts = ({name: array[start : start + 250] for name, array in data.items()} for start in range(0, 900, 250))
        write_shards(place / kind, parts, kind)  # type: ignore[arg-type]
    assert (
        main(["run", *SMALL, "--data", "npz", "--data-dir", str(place / "all.npz"), "--out", str(place / "one")]) == 0
    )
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "array_record"])
def test_shards_give_the_records_of_a_run_in_memory(place, kind):
    command = ["run", *SMALL, "--data", "shards", "--data-dir", str(place / kind), "--out", str(place / f"run-{kind}")]
    assert main(command) == 0
    found = records(place / f"run-{kind}")
    assert found == records(place / "one")
    # Going on from the middle.
    half = place / f"half-{kind}"
    shutil.copytree(place / f"run-{kind}", half)
    (half / "report.html").unlink()
    lines = (half / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text("".join(lines[:3]))
    assert main([*command[:-1], str(half), "--resume"]) == 0
    assert records(half) == found


@pytest.mark.slow
def test_a_shard_that_vanishes_while_training_ends_in_one_line(place, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "shards"
    shutil.copytree(place / "npz", folder)
    command = ["run", *SMALL, "--data", "shards", "--data-dir", str(folder), "--out", str(tmp_path / "run")]
    append = RunFolder.append

    def then_remove(self: RunFolder, record: dict) -> None:
        append(self, record)
        (folder / "shard-000002.npz").unlink(missing_ok=True)

    monkeypatch.setattr(RunFolder, "append", then_remove)
    assert main(command) == 2
    error = capsys.readouterr().err.strip()
    assert "shard-000002.npz" in error
    assert "\n" not in error
    assert len(records(tmp_path / "run")) == 1
