"""The benchmarks run, say what they measured, and measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_tiny_case_from_end_to_end(tmp_path):
    file = tmp_path / "out.json"
    done = run("ffn-gram", "--sizes", "tiny", "--rounds", "2", "--rivals", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "plain JAX / ours" in done.stdout
    record = json.loads(file.read_text())
    assert {"commit", "date", "cpu", "cores", "memory_bytes", "jax_device", "versions"} <= set(record["machine"])
    case = record["cases"]["ffn-gram"]
    rows = {row["name"]: row for row in case["rows"]}
    assert len(rows["lggwjax"]["samples"]) == 2
    assert rows["lggwjax"]["rates"]["matrix products"][0] > 0
    assert rows["lggwjax"]["found"]["facts"]["plan_bytes"] > 0
    assert rows["plain JAX vmap(grad)"]["disagreement"] <= 1e-4
    for row in rows.values():  # a rival that is not there is no error
        assert row["samples"] or row["note"].startswith("not installed"), row
    assert {bar["verdict"] for bar in case["bars"]} <= {"met", "missed", "open"}


@pytest.mark.slow
def test_the_largest_model_is_looked_for_by_each_kind(tmp_path):
    file = tmp_path / "out.json"
    sizes = ("--width", "128", "--length", "16", "--num-samples", "2", "--layers", "1", "2")
    command = [sys.executable, "-m", "benchmarks.large", *sizes, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["layers"], row["kind"]) for row in rows] == [(1, "stacked"), (1, "gram"), (2, "stacked"), (2, "gram")]
    for row in rows:
        assert "error" not in row, row
        assert row["planned_bytes"] > 4 * row["num_parameters"]
        assert row["value"] > 0


def test_an_unknown_case_is_one_clear_line():
    done = run("ffn-grams")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "ffn-gram" in done.stderr


def test_every_case_can_be_loaded():
    from benchmarks.cases import CASES, load

    assert all(callable(load(name).run) for name in CASES)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory comes from Linux")
def test_memory_is_the_peak_on_top_of_what_was_there():
    from benchmarks.worker import Memory

    kept, memory = np.ones(2**24), Memory()
    for megabytes in (64, 16):  # the second, smaller peak is not hidden by the first
        with memory.watch() as peak:
            block = np.ones(megabytes * 2**17)
            del block
        if peak.bytes is None:
            pytest.skip("the kernel does not let peaks be reset")
        assert abs(peak.bytes / 2**20 - megabytes) < 8
    assert kept.size == 2**24


def test_ratios_are_taken_sample_by_sample():
    from benchmarks.results import Bar, Row, ratio_bar, times

    ours, other = (Row(name, [{"": k * s, "limit": s} for s in (1.0, 2.0, 8.0)]) for name, k in (("a", 2), ("b", 6)))
    assert times(other, ours) == (3.0, 3.0, 3.0)
    assert times(ours, ours, ("", "limit")) == (2.0, 2.0, 2.0)
    assert times(None, ours) is None
    assert ratio_bar("x", times(other, ours), 3, ">=").verdict == "met"
    assert ratio_bar("x", times(other, ours), 2.9, "<=").verdict == "missed"
    assert Bar("x", None, 1, "<=").verdict == "open"


def test_slopes_are_found_with_their_intervals():
    from benchmarks.figures import fit

    x = np.geomspace(1, 1000, 20)
    exact = fit(x, 3 * x**1.5)
    assert abs(exact.value - 1.5) < 1e-9
    noisy = fit(x, 3 * x**1.5 * np.exp(np.random.default_rng(0).normal(0, 0.1, 20)))
    assert noisy.low < 1.5 < noisy.high
    assert fit(x[:2], x[:2]).value != fit(x[:2], x[:2]).value  # two points are no fit


@pytest.mark.slow
def test_the_torch_models_of_the_rivals_are_the_zoo_s():
    pytest.importorskip("torch")
    from benchmarks.cases.resnet_gram import PROBLEMS

    assert PROBLEMS["tiny"].model == "resnet18"
    done = run("resnet-gram", "--sizes", "tiny", "--rounds", "1", "--rivals")
    assert "not timed" not in done.stdout
    assert "failed" not in done.stdout
