"""The largest transformer that fits on one device, measured: ``python -m benchmarks.large [--json FILE]``.

Each size and kind runs in a process of its own: what is left of the one before would take memory. Two checkpoints, n
samples; the width of the stacked path, and the Gram matrix that NERC and unions need. Memory is what a call takes on
top of parameters and samples, beside what the plan foretold; without an accelerator it is what the process resides in.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.tables import write_record

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (2, 18, 54, 78, 102, 126, 150)
KINDS = ("stacked", "gram")


def main() -> int:
    """Measure larger and larger models until one does not fit, by each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to this file")
    parser.add_argument("--width", type=int, default=2048, help="of the transformer (default 2048)")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sample (default 1024)")
    parser.add_argument("--num-samples", type=int, default=4, help="n (default 4)")
    parser.add_argument("--layers", type=int, nargs="*", default=LAYERS, help="numbers of layers, rising")
    options = parser.parse_args()
    sizes = {"width": options.width, "length": options.length, "num_samples": options.num_samples}
    found: list[dict[str, Any]] = []
    too_large: set[str] = set()
    for layers, kind in itertools.product(options.layers, KINDS):
        if kind in too_large:
            continue
        row = _elsewhere(sizes | {"layers": layers, "kind": kind})
        found.append(row)
        print(json.dumps(row), flush=True)
        if "error" in row:
            too_large.add(kind)
        if options.json:
            record = {"machine": describe(ROOT, row.get("device"), os.cpu_count() or 1), "rows": found}
            write_record(options.json, record)
    return 0


def _elsewhere(task: dict[str, Any]) -> dict[str, Any]:
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"} | os.environ
    command = [
        sys.executable,
        "-c",
        "import sys; from benchmarks.large import child; child(sys.argv[1])",
        json.dumps(task),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return task | {"error": (done.stderr.strip().splitlines() or ["no word"])[-1][:500]}
    return (
        task
        | json.loads(lines[-1])
        | {"said": [line[:300] for line in done.stderr.splitlines() if "chunk_size" in line]}
    )


def child(text: str) -> None:
    """Measure one size and kind and print what was found as JSON."""
    import jax

    import lggwjax
    from benchmarks.transformer import Transformer
    from benchmarks.worker import Memory

    task = json.loads(text)
    num, kind = task.pop("num_samples"), task.pop("kind")
    model = Transformer(**task)
    key, data_key, width_key = jax.random.split(jax.random.key(0), 3)
    start = jax.jit(model.init)(key)
    # One step of gradient descent apart would hold a gradient too: a small move in a random direction does as well.
    path = [start, jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0.999, tree))(start)][: 2 - (kind == "gram")]
    batch = jax.random.randint(data_key, model.batch(num).shape, 0, model.vocabulary)
    made = lggwjax.plan(model.loss, path, batch, kind)

    def call() -> jax.Array:
        if kind == "gram":
            return lggwjax.gradient_gram(model.loss, start, batch, self_check=False).trace()
        return lggwjax.lggw(width_key, model.loss, path, batch, self_check=False).value

    memory, seconds, peaks, value = Memory(), [], [], None
    for _ in range(2):
        with memory.watch() as peak:
            before = time.perf_counter()
            value = jax.block_until_ready(call())
            seconds.append(round(time.perf_counter() - before, 3))
        peaks.append(peak.bytes)
    device = jax.devices()[0]
    found = {
        "num_parameters": model.num_parameters,
        "seconds_first_and_again": seconds,
        "bytes_first_and_again": peaks,
        "planned_bytes": made.memory,
        "used_of_planned": round(max(peaks) / made.memory, 3) if None not in peaks else None,
        "chunk_size": made.chunk_size,
        "peak_bytes_of_process": memory.whole,
        "limit_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "value": float(value),
        "device": f"{device.platform} {device.device_kind}",
    }
    print(json.dumps(found))


if __name__ == "__main__":
    raise SystemExit(main())
