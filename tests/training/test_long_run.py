"""A small turn of the script that is run by hand with ten thousand looks."""

from __future__ import annotations

import gc
import importlib.util
import json
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from lggwjax.training import Monitor
from lggwjax.training.folder import RunFolder

SCRIPT = Path(__file__).with_name("long_run.py")
LOOKS, BLOCKS = 320, 8
# The least that can be kept of a look: a float and its place in a list.
LEAST = sys.getsizeof(1.0) + 8
NOT_JAX = [
    tracemalloc.Filter(False, file) for file in (tracemalloc.__file__, "*/jax/*", "*/jaxlib/*", "*/linecache.py")
]


@pytest.fixture(scope="module")
def long_run():
    spec = importlib.util.spec_from_file_location("long_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("doubling", [0.0, 2e4])
@pytest.mark.parametrize("taken", [0, 2**20])
def test_growth_is_what_every_block_takes_not_what_one_does(long_run, doubling, taken):
    rng, looks = np.random.default_rng(0), np.arange(10_000)
    pages = np.floor(doubling * np.log2(1 + looks) / 2**14) * 2**14
    memory = 5e8 + rng.normal(scale=1e3, size=len(looks)) + pages + taken * (looks > 4000)
    flat, rising = (long_run.growth(memory + slope * looks) for slope in (0.0, 8.0))
    assert flat["interval"][0] <= 0 <= flat["interval"][1]
    assert rising["interval"][0] > 0
    assert rising["interval"][0] <= 8 <= rising["interval"][1]


def kept(long_run: ModuleType, place: Path, looks: int, writer: Callable[[Any], Any]) -> tuple[float, float]:
    """Bytes outside of JAX, and arrays of JAX, that a look leaves behind, in the middle one of some blocks of looks.

    What the process holds of the system says little after so few looks: allocators settle in the first thousand. So do
    JAX's own caches, whose objects learn their hashes and texts when these are first asked for. What happens once, in
    one block, as when something that was built earlier is let go, does not move the middle one.
    """
    params, train, heldout = long_run.problem()
    block, found = looks // BLOCKS, []
    with RunFolder.open(place / "run", {"looks": looks}) as folder:
        writers = [lambda report: folder.append(report.record), writer]
        monitor = Monitor(long_run.loss, train, heldout, every=1, num_draws=64, writers=writers)
        state = monitor.init(params)
        tracemalloc.start()
        try:
            for step in range(looks):
                state, _ = monitor.observe(state, step, params)
                if (step + 1) % block == 0:
                    gc.collect()
                    found.append((tracemalloc.take_snapshot(), len(jax.live_arrays())))
        finally:
            tracemalloc.stop()
    held = [sum(trace.size for trace in taken.filter_traces(NOT_JAX).traces) for taken, _ in found]  # filters compile
    arrays = [number for _, number in found]
    return tuple(statistics.median(np.diff(values)) / block for values in (held, arrays))


@pytest.mark.slow
def test_looks_leave_nothing_behind(long_run, tmp_path):
    size, arrays = kept(long_run, tmp_path, LOOKS, lambda report: None)
    assert size < LEAST / 2
    assert arrays == 0


@pytest.mark.slow
def test_what_a_look_leaves_behind_is_found(long_run, tmp_path):
    floats, arrays = [], []
    size, none = kept(long_run, tmp_path / "floats", LOOKS, lambda report: floats.append(report.record["step"] * 1.0))
    assert size > LEAST / 2
    assert none == 0
    assert kept(long_run, tmp_path / "arrays", 4 * BLOCKS, lambda report: arrays.append(jax.numpy.ones(3) + 1))[1] == 1


@pytest.mark.slow
def test_looks_compile_nothing_and_their_records_are_read_meanwhile(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc, which is Linux's")
    out = tmp_path / "out.json"
    command = [sys.executable, str(SCRIPT), "--measurements", str(LOOKS), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(out.read_text()) if out.exists() else pytest.fail(done.stderr)
    assert found["compilations_after_warm_up"] == 0
    assert found["state_bytes"][0] == found["state_bytes"][1]
    reader = found["reader"]
    assert (reader["failed"], reader["half_records"], reader["lost_records"]) == (0, 0, 0), reader["errors"]
    assert reader["records"] == LOOKS
    assert reader["tables"] > 1
