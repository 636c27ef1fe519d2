"""Does the memory of a run grow with the data set? By hand: ``python tests/data/streaming.py --json FILE``.

For each size a data set of shards is written, a run of the command line is trained on all of it in a process of its
own, and the largest resident memory of that process is read; then the data set is deleted. Every measurement passes
over all samples, so each row is read. As a control the smallest two sizes are also run from one npz file, which is
read into memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SIDE = 64  # inputs of 64 x 64 floats, 16 KiB a row
SHARD_ROWS = 2048
HELDOUT = 512


def parts(num: int) -> Iterator[dict[str, np.ndarray]]:
    """Noise with a class in its mean, a shard at a time."""
    for number, start in enumerate(range(0, num, SHARD_ROWS)):
        rng = np.random.default_rng(number)
        y = rng.integers(0, 2, min(SHARD_ROWS, num - start))
        x = rng.standard_normal((len(y), SIDE, SIDE), np.float32)
        yield {"x": x + 0.1 * y[:, None, None].astype(np.float32), "y": y}


def measure(kind: str, num: int, steps: int) -> dict[str, Any]:
    """Write the data, train on them, and delete them."""
    from lggwjax.data import write_shards

    folder = Path(tempfile.mkdtemp(prefix="streaming-"))
    try:
        if kind == "memory":
            name, place = "npz", folder / "all.npz"
            whole = list(parts(num))
            np.savez(place, **{name: np.concatenate([part[name] for part in whole]) for name in ("x", "y")})
            del whole
        else:
            name, place = "shards", write_shards(folder / "data", parts(num), kind)  # type: ignore[arg-type]
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        options = ["--data", name, "--data-dir", str(place), "--num-samples", str(num - HELDOUT)]
        options += ["--heldout-samples", str(HELDOUT), "--widths", "8", "--steps", str(steps), "--batch-size", "256"]
        options += ["--measurements", "3", "--directions", "64", "--quiet", "--out", str(folder / "run")]
        seconds, peak = peak_of([sys.executable, "-m", "lggwjax", "run", *options])
        records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        losses = [record["train_loss"] for record in records]
        return {"kind": kind, "samples": num, "bytes": size, "peak_bytes": peak, "seconds": seconds, "losses": losses}
    finally:
        shutil.rmtree(folder)


def peak_of(command: list[str]) -> tuple[float, int]:
    """Run a command; its seconds and its largest resident memory."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"The run ended with {process.returncode}.")
    return round(time.perf_counter() - start, 1), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def slope(points: list[dict[str, Any]]) -> float:
    """Bytes of memory a byte of data."""
    return float(np.polyfit([p["bytes"] for p in points], [p["peak_bytes"] for p in points], 1)[0])


def main() -> None:
    from benchmarks.machine import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[0.25, 0.5, 1, 2], help="sizes of the data sets")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine, points = describe(ROOT, None, os.cpu_count() or 1), []
    counts = [round(gib * 2**30 / (4 * SIDE**2)) for gib in sorted(options.gib)]
    for kind, sizes in (("npz", counts), ("array_record", counts), ("memory", counts[:2])):
        for num in sizes:
            point = measure(kind, num, options.steps)
            points.append(point)
            print(
                f"{kind}: {point['bytes'] / 2**30:.2f} GiB of data, {point['peak_bytes'] / 2**30:.2f} GiB of memory, "
                f"{point['seconds']} s",
                flush=True,
            )
    slopes = {kind: slope([p for p in points if p["kind"] == kind]) for kind in ("npz", "array_record", "memory")}
    print("bytes of memory a byte of data:", {kind: round(value, 4) for kind, value in slopes.items()})
    if options.json:
        found = {"machine": machine, "settings": {"steps": options.steps}, "points": points, "slopes": slopes}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
