"""Killed at random moments, does a run end with the same records? By hand: ``python tests/training/kills.py``.

Runs of the command line are killed with SIGKILL and gone on with until enough kills have been survived. Nine of ten
kills wait for a checkpoint and then for a moment, so that many fall into the writing of the next checkpoint or record;
the others fall anywhere, the start included. Every run must end with the records of a run that nobody killed, bit for
bit; only the seconds and the memory that a record states are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ["--widths", "8", "--num-samples", "40", "--heldout-samples", "80", "--probe-size", "8", "--directions", "16"]
OPTIONS += ["--steps", "60", "--measurements", "61", "--batch-size", "16", "--quiet"]


def start(folder: Path) -> subprocess.Popen:
    """Start a run, or go on with it."""
    command = [sys.executable, "-m", "lggwjax", "run", *OPTIONS, "--out", str(folder), "--resume"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder: Path) -> None:
    """Let a run end."""
    process = start(folder)
    error = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"A run ended with {process.returncode}: {error.strip()}")


def records(folder: Path) -> list[dict[str, Any]]:
    """What a run recorded, but for time and memory."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(one).items() if k not in ("seconds", "peak_memory")} for one in lines]


def num_checkpoints(folder: Path) -> int:
    """Whole checkpoints."""
    place = folder / "checkpoints"
    return sum(entry.name.isdecimal() for entry in place.iterdir()) if place.is_dir() else 0


def kill(folder: Path, rng: random.Random) -> str | None:
    """Go on with a run and kill it; what it left behind, or None if it ended before."""
    process, before = start(folder), num_checkpoints(folder)
    if rng.random() < 0.9:
        wanted = before + rng.randint(1, 8)
        while process.poll() is None and num_checkpoints(folder) < wanted:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.15))
    else:
        time.sleep(rng.uniform(0.0, 12.0))
    process.kill()
    process.communicate()
    return None if process.returncode == 0 else left_behind(folder)


def left_behind(folder: Path) -> str:
    """In which moment a kill fell."""
    held = folder / "metrics.jsonl"
    if not num_checkpoints(folder):
        return "before the first checkpoint"
    if any(entry.name.endswith(".partial") for entry in (folder / "checkpoints").iterdir()):
        return "while a checkpoint was written"
    if held.exists() and not held.read_bytes().endswith(b"\n"):
        return "while a record was written"
    num_records = held.read_bytes().count(b"\n") if held.exists() else 0
    return "between a checkpoint and its record" if num_checkpoints(folder) > num_records else "between two checkpoints"


def main() -> int:
    """Kill, compare, print how many kills fell when."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what came out")
    options = parser.parse_args()
    rng, moments, same, runs = random.Random(options.seed), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory(prefix="lggwjax-kills-") as place:
        whole = Path(place) / "whole"
        finish(whole)
        expected = records(whole)
        while moments.total() < options.kills:
            folder, runs = Path(place) / f"run{runs}", runs + 1
            # A run's kills: as many as it takes until it ends between two of them, or enough are done.
            while moments.total() < options.kills and (moment := kill(folder, rng)) is not None:
                moments[moment] += 1
                print(f"{moments.total():3} {moment}", flush=True)
            finish(folder)
            same += records(folder) == expected
    print(f"{moments.total()} kills in {runs} runs, {same} of which ended with the same records: {dict(moments)}")
    if options.json:
        sys.path.insert(0, str(ROOT))
        from benchmarks.machine import describe

        found = {
            "machine": describe(ROOT, "cpu", os.cpu_count() or 1),
            "kills": moments.total(),
            "moments": dict(moments),
        }
        options.json.write_text(json.dumps(found | {"runs": runs, "same_records": same}, indent=2) + "\n")
    return int(same != runs)


if __name__ == "__main__":
    sys.exit(main())
