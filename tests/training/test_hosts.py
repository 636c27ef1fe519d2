"""Several processes on one machine: the same numbers, one writer, and an end for all when one is lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lggwjax.training import hosts

pytestmark = pytest.mark.slow
HOST = Path(__file__).with_name("host.py")
OPTIONS = ["--widths", "8", "--num-samples", "48", "--heldout-samples", "64", "--probe-size", "16"]
OPTIONS += ["--directions", "16", "--batch-size", "16", "--quiet"]
SHORT = ("--steps", "12", "--measurements", "4", "--optimizer", "sgd")
LONG = ("--steps", "900", "--measurements", "8", "--spacing", "even")


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """Nearly all of the time would be compiling, the same programs in each of some twenty processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    _finished(_run(2, out, *LONG))
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """A short run of one process on one device."""
    out = tmp_path_factory.mktemp("one") / "run"
    _finished(_run(1, out, *SHORT))
    return out


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _start(commands: list[list[str]], devices: int = 1) -> list[subprocess.Popen]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    pipe = subprocess.PIPE
    return [
        subprocess.Popen([sys.executable, *c], env=environment, stdout=pipe, stderr=pipe, text=True) for c in commands
    ]


def _run(processes: int, out: Path, *options: str, devices: int = 1) -> list[subprocess.Popen]:
    """Start ``lggwjax run`` once a process."""
    command = ["-m", "lggwjax", "run", *OPTIONS, "--out", str(out), *options]
    if processes == 1:
        return _start([command], devices)
    joined = ["--distributed", "--coordinator", f"127.0.0.1:{_port()}", "--num-processes", str(processes)]
    return _start([[*command, *joined, "--process-id", str(index)] for index in range(processes)], devices)


def _finished(running: list[subprocess.Popen]) -> None:
    for process in running:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error


def _records(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "peak_memory")} for line in lines]


def _flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in _flat(part)]
    if isinstance(value, list):
        return [number for part in value for number in _flat(part)]
    return [float(value)] if isinstance(value, int | float) else []


def _assert_equal_but_for_rounding(found: Path, wanted: Path) -> None:
    """Gradients are about 1 long here, and each of a few steps rounds them in another order: some float32 epsilons."""
    few = 32 * float(np.finfo(np.float32).eps)
    records, expected = _records(found), _records(wanted)
    assert [record["step"] for record in records] == [record["step"] for record in expected]
    for record, other in zip(records, expected, strict=True):
        np.testing.assert_allclose(_flat(record), _flat(other), rtol=few, atol=few, err_msg=f"step {record['step']}")


@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 1), (4, 2)])
def test_processes_and_devices_record_what_one_does(tmp_path, one, processes, devices):
    _finished(_run(processes, tmp_path / "run", *SHORT, devices=devices))
    assert (tmp_path / "run" / "report.html").is_file()
    _assert_equal_but_for_rounding(tmp_path / "run", one)


def test_a_run_is_gone_on_with_on_other_devices(tmp_path, one):
    # From one device to 8, from these to two processes, from these back to one device; each time half is done anew.
    for processes, devices in ((1, 8), (2, 1), (1, 1)):
        place = tmp_path / f"{processes}x{devices}"
        shutil.copytree(one, place)
        (place / "report.html").unlink()
        lines = (place / "metrics.jsonl").read_text().splitlines(keepends=True)
        (place / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]))
        _finished(_run(processes, place, *SHORT, "--resume", devices=devices))
        _assert_equal_but_for_rounding(place, one)
        one = place


def test_every_process_reads_its_share_and_follows_the_first():
    alone, several = [], []
    for processes, found in ((1, alone), (2, several)):
        port = _port()
        running = _start([[str(HOST), port, str(processes), str(index)] for index in range(processes)])
        for process in running:
            said, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
            found.append(json.loads(said.splitlines()[-1]))
    assert [one["read"] for one in several] == [list(range(16, 24)), list(range(24, 32))]
    assert alone[0]["read"] == list(range(16, 32))
    for one in several:
        assert one["bytes"] == "said by 0"
        assert one["first"] == 0
        assert one["error"] == "disk full"
        assert one["looks"] == several[0]["looks"]
        np.testing.assert_allclose(one["batch"], alone[0]["batch"], rtol=1e-5)
        np.testing.assert_allclose(one["gram"], alone[0]["gram"], rtol=1e-4, atol=1e-5)
        for name in ("lggw", "union"):
            np.testing.assert_allclose(one[name], alone[0][name], rtol=1e-4, err_msg=name)
    assert several[0]["looks"].count(True) > 2


@pytest.mark.parametrize("lost", [0, 1])
def test_when_one_is_lost_the_others_end_and_the_run_can_be_gone_on_with(tmp_path, whole, lost):
    broken = tmp_path / "broken"
    running = _run(2, broken, *LONG)
    deadline = time.monotonic() + 200
    while not (broken / "metrics.jsonl").is_file() or len((broken / "metrics.jsonl").read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in running), running[0].communicate()
        time.sleep(0.02)
    running[lost].kill()
    start = time.monotonic()
    running[1 - lost].communicate(timeout=2 * hosts.SURVIVORS_END)
    assert running[1 - lost].returncode != 0
    assert time.monotonic() - start < hosts.SURVIVORS_END
    before = _records(broken)  # each line whole
    assert before == _records(whole)[: len(before)]
    assert len(before) < 8
    running[lost].communicate()
    _finished(_run(2, broken, *LONG, "--resume"))
    assert _records(broken) == _records(whole)


def test_what_the_first_refuses_all_refuse_in_one_line(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    for process in _run(2, out, "--steps", "3", "--measurements", "2"):
        _, error = process.communicate(timeout=200)
        assert process.returncode == 2
        assert "Expected a new folder" in error
        assert "Traceback" not in error
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]


def test_joining_needs_to_know_whom(tmp_path):
    for options, words in (
        (["--coordinator", "127.0.0.1:1"], "--distributed"),
        (["--distributed"], "--coordinator HOST:PORT"),
        (["--devices", "3"], "--devices from 1 to 1"),
        (["--devices", "0"], "--devices from 1 to 1"),
    ):
        process = _start([["-m", "lggwjax", "run", *OPTIONS, "--out", str(tmp_path / "x"), *options]])[0]
        _, error = process.communicate(timeout=200)
        assert process.returncode == 2
        assert words in error.splitlines()[-1]
    assert not (tmp_path / "x").exists()
