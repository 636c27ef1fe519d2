"""The run folder: refusals that change nothing, a kernel lock, and records that survive kills and full disks."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lggwjax.training import folder as folder_module
from lggwjax.training.folder import RunFolder, read_records

ASKED = {"data": {"name": "digits", "num_samples": 200}, "training": {"learning_rate": 0.1, "batch_size": None}}


def contents(path: Path) -> dict[str, bytes | None]:
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None
        for entry in path.rglob("*")
        if entry.name != ".lock"
    }


def make_run(path: Path, num_records: int = 3) -> Path:
    with RunFolder.open(path, ASKED, extra={"environment": {"jax": "1"}}) as folder:
        for step in range(num_records):
            (folder.checkpoints_dir / str(step)).mkdir(parents=True)
            folder.append({"step": step, "train_loss": 1 / (step + 3), "lggw": {"value": 0.1, "ci95": [0.0, None]}})
    return path


def resume(path: Path, asked: dict[str, Any] | None = None) -> RunFolder:
    return RunFolder.open(path, ASKED if asked is None else asked, resume=True)


def test_a_new_folder_holds_what_was_asked_and_the_rest(tmp_path: Path) -> None:
    path = make_run(tmp_path / "runs" / "first")
    config = json.loads((path / "config.json").read_text())
    assert config == ASKED | {"environment": {"jax": "1"}}
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "checkpoints", "config.json", "metrics.jsonl"]
    assert [record["step"] for record in read_records(path / "metrics.jsonl")] == [0, 1, 2]


def test_records_come_back_exactly(tmp_path: Path) -> None:
    record = {"step": 0, "train_loss": 0.1 + 0.2, "peak_memory": 2**60, "heldout_loss": None, "word": "ø"}
    with RunFolder.open(tmp_path / "run", ASKED) as folder:
        folder.append(record)
        assert folder.records == [record]
    with resume(tmp_path / "run") as folder:
        assert folder.records == [record]


@pytest.mark.parametrize("prepare", ["absent", "empty", "lock", "half_config"])
def test_resume_starts_what_has_not_begun(tmp_path: Path, prepare: str) -> None:
    path = tmp_path / "run"
    if prepare != "absent":
        path.mkdir()
    if prepare == "lock":
        (path / ".lock").touch()
    if prepare == "half_config":
        (path / "config.json.partial").write_text('{"data": {"na')
    with resume(path) as folder:
        assert folder.records == []
        assert not folder.finished
        assert folder.config == ASKED
    assert not (path / "config.json.partial").exists()


def test_an_existing_folder_is_refused_without_resume(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    before = contents(path)
    with pytest.raises(ValueError, match=r"got .*run, which exists\. Add --resume or choose another --out\.$"):
        RunFolder.open(path, ASKED)
    assert contents(path) == before


def test_an_empty_folder_too_is_refused_without_resume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which exists\. Add --resume or choose another --out\.$"):
        RunFolder.open(tmp_path, ASKED)
    assert contents(tmp_path) == {}


def test_what_is_no_run_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "3").mkdir()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"Expected a run folder with config\.json"):
        resume(tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / ".lock").exists()
    with pytest.raises(ValueError, match=r"got the file .*thesis\.tex"):
        resume(tmp_path / "thesis.tex")


def test_refused_input_creates_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got NaN or infinity at training\.learning_rate"):
        RunFolder.open(tmp_path / "run", {"training": {"learning_rate": float("nan")}})
    with pytest.raises(ValueError, match=r"got NaN or infinity at versions\[1\]"):
        RunFolder.open(tmp_path / "run", ASKED, extra={"versions": [1.0, float("inf")]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"training": {"learning_rate": 0.2}}, r"training\.learning_rate 0\.1 as in .*config\.json, got 0\.2\."),
        ({"training": {"batch_size": 0}}, r"training\.batch_size null as in .*, got 0\."),
        ({"data": {"name": "mnist"}}, r'data\.name "digits" as in .*, got "mnist"\.'),
        ({"data": {"num_samples": 200.0}}, r"data\.num_samples 200 as in .*, got 200\.0\."),
        ({"data": {"noise": 1}}, r"data\.noise nothing as in .*, got 1\."),
        ({"data": 5}, r"data \{.* as in .*, got 5\."),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_option_is_refused_by_name(tmp_path: Path, asked: Any, words: str, finished: bool) -> None:
    path = make_run(tmp_path / "run")
    if finished:
        (path / "report.html").touch()
    before = contents(path)
    with pytest.raises(ValueError, match=words) as caught:
        resume(path, asked)
    assert "\n" not in str(caught.value)
    assert contents(path) == before
    with resume(path, {"training": {"learning_rate": 0.1}}) as folder:
        assert folder.config["data"]["num_samples"] == 200


def test_a_finished_folder_is_not_changed(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    (path / "report.html").write_text("done")
    (path / ".lock").unlink()
    (path / "checkpoints" / "99").mkdir()
    before = contents(path)
    with resume(path) as folder:
        assert folder.finished
        assert [record["step"] for record in folder.records] == [0, 1, 2]
        with pytest.raises(ValueError, match="open unfinished run folder"):
            folder.append({"step": 3})
    assert contents(path) == before
    assert not (path / ".lock").exists()


@pytest.mark.parametrize("torn", [b'{"step": 3, "train', b'{"step": 3, "train_loss": 0.5}', b"\x00\x00", b"\xc3"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    path = make_run(tmp_path / "run")
    whole = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(whole + torn)
    assert len(read_records(path / "metrics.jsonl")) == 3
    with resume(path) as folder:
        assert (path / "metrics.jsonl").read_bytes() == whole
        folder.append({"step": 3})
    assert [record["step"] for record in read_records(path / "metrics.jsonl")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "line", [b"{oops}\n", b'{"step": 7, "loss": NaN}\n', b"[1]\n", b'{"loss": 1}\n', b'{"step": 1}\n']
)
def test_a_damaged_line_is_told_and_nothing_is_lost(tmp_path: Path, line: bytes) -> None:
    path = make_run(tmp_path / "run")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(line)
    before = contents(path)
    with pytest.raises(ValueError, match=r"(line 4|in line 4).*") as caught:
        resume(path)
    assert "\n" not in str(caught.value)
    assert contents(path) == before


def test_goes_on_after_the_last_record_with_a_checkpoint(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", num_records=4)
    whole = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "checkpoints" / "3").rmdir()
    (path / "checkpoints" / "3.partial" / "checkpoint").mkdir(parents=True)
    (path / "checkpoints" / "5").mkdir()
    (path / "checkpoints" / "5" / "array").write_text("1")
    with resume(path) as folder:
        assert [record["step"] for record in folder.records] == [0, 1, 2]
    assert sorted(entry.name for entry in (path / "checkpoints").iterdir()) == ["0", "1", "2"]
    assert (path / "metrics.jsonl").read_bytes() == b"".join(whole[:3])


def test_a_checkpoint_without_any_record_is_removed(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", num_records=0)
    (path / "checkpoints" / "0").mkdir(parents=True)
    with resume(path) as folder:
        assert folder.records == []
    assert list((path / "checkpoints").iterdir()) == []


def test_records_without_any_checkpoints_stay(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", ASKED) as folder:
        folder.append({"step": 10})
    with resume(tmp_path / "run") as folder:
        assert folder.records == [{"step": 10}]


def test_a_record_is_strict_and_rises(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", ASKED) as folder:
        folder.append({"step": 4})
        for record, words in [
            ({"step": 5, "lggw": {"ci95": [0.0, float("nan")]}}, r"NaN or infinity at lggw\.ci95\[1\]"),
            ({"step": 4}, "a step beyond 4, got 4"),
            ({"train_loss": 1.0}, "a step beyond 4, got None"),
        ]:
            with pytest.raises(ValueError, match=words):
                folder.append(record)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 4}\n'
    folder.close()
    with pytest.raises(ValueError, match="open unfinished run folder"):
        folder.append({"step": 6})


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: Any, failing: str) -> None:
    path = make_run(tmp_path / "run")
    before, real_write = contents(path), os.write

    def full(file: int, *data: Any) -> int:
        if data:
            real_write(file, bytes(data[0])[:7])
        raise OSError(28, "No space left on device")

    with resume(path) as folder:
        with monkeypatch.context() as patch:
            patch.setattr(folder_module.os, failing, full)
            with pytest.raises(OSError, match="No space left"):
                folder.append({"step": 3, "train_loss": 0.25})
        assert contents(path) == before
        folder.append({"step": 3})
    assert [record["step"] for record in read_records(path / "metrics.jsonl")] == [0, 1, 2, 3]


def test_a_disk_full_at_the_start_leaves_what_can_be_started_again(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            RunFolder.open(tmp_path / "run", ASKED)
    assert not (tmp_path / "run").exists()
    with RunFolder.open(tmp_path / "run", ASKED) as folder:
        assert folder.records == []


def test_the_lock_is_let_go_of(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    with resume(path):
        with pytest.raises(ValueError, match=r"for this process alone, got one in use\."):
            resume(path)
        with pytest.raises(ValueError, match=r"Expected training\.learning_rate"):
            # The refusal of an option does not depend on the lock, nor take it.
            folder_module._checked_config(path, {"training": {"learning_rate": 9}})
    with pytest.raises(ValueError, match=r"training\.learning_rate"):
        resume(path, {"training": {"learning_rate": 9}})
    with resume(path) as folder:
        assert len(folder.records) == 3


HOLD = """
import sys
from lggwjax.training.folder import RunFolder
folder = RunFolder.open(sys.argv[1], {"seed": 0}, resume=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_holds_across_processes_and_dies_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "run"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="one in use"):
            resume(path, {"seed": 0})
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with resume(path, {"seed": 0}) as folder:
        assert folder.records == []


# What a run does, in small: restore, train, save each checkpoint before its record.
WRITER = """
import sys
import jax.numpy as jnp
from lggwjax.training import checkpoints
from lggwjax.training.folder import RunFolder
from lggwjax.training.loop import TrainSpec, initial_state, train

def train_fn(params, batch):
    return (params["params"]["w"] @ batch["x"].T - batch["y"]) ** 2, batch["x"], {"mean": params["state"]["mean"] + 0.1}

wrt = lambda path, leaf: path[0].key == "params"
params = {"params": {"w": jnp.array([1.0, 2.0])}, "state": {"mean": jnp.zeros(3)}}
sample = {"x": jnp.arange(14.0).reshape(7, 2) / 10, "y": jnp.arange(7.0)}
spec = TrainSpec("adam", learning_rate=0.01, batch_size=3, steps=40, seed=4)
with RunFolder.open(sys.argv[1], {"seed": 4}, resume=True) as folder:
    print("open", flush=True)
    start = None
    if folder.records:
        like = initial_state(params, wrt, spec)
        start = checkpoints.restore(folder.checkpoints_dir, folder.records[-1]["step"], like)
    for state in train(train_fn, wrt, params, sample, spec, start=start):
        if start is not None and state.step == start.step:
            continue
        checkpoints.save(folder.checkpoints_dir, state)
        weights = [float(w) for w in state.params["params"]["w"]]
        folder.append({"step": state.step, "weights": weights, "mean": float(state.params["state"]["mean"][0])})
        print(state.step, flush=True)
"""


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_records(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITER]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    expected = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len(expected.splitlines()) == 41
    path, rng, lengths = tmp_path / "killed", random.Random(0), []
    # Killed a few milliseconds after a step is announced, so that a fast machine does not end before; once before any.
    for announced in ("open", "3", "11", "24"):
        with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert any(line.strip() == announced for line in writer.stdout)
            time.sleep(rng.uniform(0.0, 0.02))
            assert writer.poll() is None
            writer.kill()
        lengths.append(len(read_records(path / "metrics.jsonl")))
        whole_lines = (path / "metrics.jsonl").read_bytes() if (path / "metrics.jsonl").exists() else b""
        assert expected.startswith(whole_lines[: whole_lines.rfind(b"\n") + 1])
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    assert [0 < length < 41 for length in lengths] == [False, True, True, True]
    assert lengths == sorted(lengths)
    assert (path / "metrics.jsonl").read_bytes() == expected
    steps = sorted(int(entry.name) for entry in (path / "checkpoints").iterdir())
    assert steps == list(range(41))


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "config.json", "checkpoints", ".lock", "checkpoints/9", "config.json.partial"]
)
def test_a_link_out_of_the_folder_is_refused_and_nothing_is_changed(tmp_path: Path, name: str) -> None:
    path, outside = make_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text('{"step": 0')  # a torn line: it would be cut off
    place = path / name
    if place.is_dir():
        for entry in place.iterdir():
            entry.rmdir()
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(outside if "checkpoints" in name else outside / "kept")
    before = contents(outside)
    with contextlib.nullcontext() if name.endswith(".partial") else pytest.raises((ValueError, OSError)):
        resume(path)
    assert contents(outside) == before


@pytest.mark.parametrize("file", ["metrics.jsonl", "config.json"])
@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"step": 1e999}\n', '{"step": 1' + "0" * 5000 + "}\n", '{"step": -1}\n', "\x00\n"]
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, file: str, text: str) -> None:
    path = make_run(tmp_path / "run")
    (path / file).write_text(text)
    if file == "metrics.jsonl" and not text.endswith("\n"):
        assert read_records(path / file) == []  # torn off
        return
    with pytest.raises(ValueError, match="Expected") as caught:
        resume(path)
    assert "\n" not in str(caught.value)
    assert (path / file).read_text() == text


def test_a_pipe_in_the_place_of_records_does_not_hang(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    (path / "metrics.jsonl").unlink()
    os.mkfifo(path / "metrics.jsonl")
    with pytest.raises(ValueError, match="Expected a file"):
        resume(path)
