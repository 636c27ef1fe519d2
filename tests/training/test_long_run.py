"""A small turn of the script that is run by hand with ten thousand looks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("long_run.py")
LOOKS = 200


@pytest.fixture(scope="module")
def long_run():
    spec = importlib.util.spec_from_file_location("long_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_slope_is_that_of_the_line_and_its_error_covers_noise(long_run):
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=1e4, size=5000)
    flat, rising = (long_run.slope(noise + slope * np.arange(5000)) for slope in (0.0, 50.0))
    assert abs(flat["bytes_per_look"]) <= 3 * flat["stderr"]
    assert abs(rising["bytes_per_look"] - 50) <= 3 * rising["stderr"]
    assert rising["bytes_per_look"] > 10 * rising["stderr"]


@pytest.mark.slow
def test_looks_leave_nothing_behind_and_compile_nothing(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc, which is Linux's")
    out = tmp_path / "out.json"
    command = [sys.executable, str(SCRIPT), "--measurements", str(LOOKS), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(out.read_text()) if out.exists() else pytest.fail(done.stderr)
    assert found["compilations_after_warm_up"] == 0
    assert found["state_bytes"][0] == found["state_bytes"][1]
    # Allocators settle in the first thousand looks; what grows by more than this keeps arrays or records.
    assert found["resident"]["bytes_per_look"] < 8192
    reader = found["reader"]
    assert (reader["failed"], reader["half_records"], reader["lost_records"]) == (0, 0, 0), reader["errors"]
    assert reader["records"] == LOOKS
    assert reader["tables"] > 1
