"""A disk that is full or read-only, by real means, under the command line: one line, nothing half-written, no loss."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from lggwjax.cli import main

pytestmark = pytest.mark.slow

OPTIONS = ["--widths", "4", "--num-samples", "20", "--heldout-samples", "40", "--probe-size", "6", "--directions", "8"]
OPTIONS += ["--steps", "12", "--measurements", "8", "--quiet"]


def start(folder: Path) -> int:
    """Start a run, or go on with it; by the same process, so that little is compiled."""
    return main(["run", *OPTIONS, "--out", str(folder), "--resume"])


def records(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    assert not text or text.endswith("\n"), "half a record was left"
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("seconds", "peak_memory")} for line in text.splitlines()
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(folder: Path, expected: list[dict]) -> None:
    """What was written before is there, in full, and nothing else."""
    found = records(folder)
    assert found == expected[: len(found)]
    saved = [entry.name for entry in (folder / "checkpoints").iterdir()] if (folder / "checkpoints").exists() else []
    assert all(name.isdecimal() for name in saved), saved
    assert {str(record["step"]) for record in found} <= set(saved)
    if (folder / "config.json").exists():
        assert json.loads((folder / "config.json").read_text())["training"]["steps"] == 12
    assert not [name for name in files(folder) if name.endswith(".partial")]
    assert not (folder / "report.html").exists()


def assert_one_line(capfd) -> str:
    error = capfd.readouterr().err
    said = [line for line in error.splitlines() if not line.startswith(("resumed from", "Plan"))]
    assert len(said) == 1, error
    assert said[0].startswith("lggwjax: ")
    return said[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[dict]:
    """The records of a run that nothing hindered."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert start(folder) == 0
    return records(folder)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, which can be made larger, or read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")

    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    mount.place = place
    yield mount
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("kibibytes", [4, 24, 100, 200, 260])
def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(disk, expected, capfd, kibibytes):
    """It fills up at once, in the first checkpoint, between checkpoints and records, or while the page is drawn."""
    disk(f"size={kibibytes}k")
    folder = disk.place / "run"
    assert start(folder) == 1
    assert "No space left" in assert_one_line(capfd)
    assert_whole(folder, expected)
    disk("remount", "size=64m")
    assert start(folder) == 0
    assert records(folder) == expected
    assert (folder / "report.html").exists()


@pytest.mark.parametrize("limit", [300, 3000, 12_000, 30_000])
def test_a_file_that_may_not_grow_loses_nothing(tmp_path, expected, capfd, limit):
    """The same by a limit of the size of each file, which needs no right to mount: records outgrow it, or the page."""
    folder, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert start(folder) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in assert_one_line(capfd)
    assert_whole(folder, expected)
    assert start(folder) == 0
    assert records(folder) == expected


def test_a_read_only_disk_is_said_and_the_run_goes_on_when_it_can_be_written_to(disk, expected, capfd):
    disk("size=64m")
    folder = disk.place / "run"
    disk("remount", "ro")
    assert start(folder) != 0
    assert "Read-only file system" in assert_one_line(capfd)
    assert not list(disk.place.iterdir())
    disk("remount", "rw", "size=200k")
    assert start(folder) == 1
    before = files(folder)
    assert records(folder)
    disk("remount", "ro")
    capfd.readouterr()
    assert start(folder) != 0
    assert "Read-only file system" in assert_one_line(capfd)
    assert files(folder) == before
    assert_whole(folder, expected)
    disk("remount", "rw", "size=64m")
    assert start(folder) == 0
    assert records(folder) == expected
