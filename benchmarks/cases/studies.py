"""studies: how long a quick study takes, from the command to its page, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import ROOT, THREADS, Bench
from benchmarks.results import Bar, Report, Row
from lggwjax.experiments import STUDIES

LIMIT = 90.0  # seconds
CHOICES = {"tiny": ("domination",), "full": tuple(STUDIES)}


def run(bench: Bench) -> Report:
    """Run each study once; compiling, drawing and writing included."""
    rows = [_run(name) for name in bench.pick(CHOICES)]
    bars = [
        Bar(f"{row.name}: wall time", row.seconds() if row.samples else None, LIMIT, "<=", "s", row.note)
        for row in rows
    ]
    return Report("studies", f"--preset quick, {THREADS} workers", rows, bars)


def _run(name: str) -> Row:
    row = Row(name)
    with tempfile.TemporaryDirectory(prefix="lggwjax-studies-") as folder:
        out = Path(folder) / name
        command = [sys.executable, "-m", "lggwjax", "experiment", name, "--workers", str(THREADS), "--out", str(out)]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode or not (out / "report.html").is_file():
            row.note = f"failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}"
        else:
            row.samples.append({"": seconds})
    return row
