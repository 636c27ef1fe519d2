"""The largest transformer that fits on one device, measured: ``python -m benchmarks.large [--json FILE]``.

Each size runs in a process of its own: what is left of the one before would take memory. Two checkpoints, n samples;
the width of the stacked path, and the Gram matrix that NERC and unions need.
"""

from __future__ import annotations

import argparse
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
LAYERS = (2, 18, 30, 42, 54, 66, 78)


def main() -> int:
    """Measure larger and larger models until one does not fit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to this file")
    parser.add_argument("--width", type=int, default=2048, help="of the transformer (default 2048)")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sample (default 1024)")
    parser.add_argument("--num-samples", type=int, default=4, help="n (default 4)")
    parser.add_argument("--layers", type=int, nargs="*", default=LAYERS, help="numbers of layers, rising")
    options = parser.parse_args()
    sizes = {"width": options.width, "length": options.length, "num_samples": options.num_samples}
    found: list[dict[str, Any]] = []
    for layers in options.layers:
        row = _elsewhere(sizes | {"layers": layers})
        found.append(row)
        print(json.dumps(row), flush=True)
        if options.json:
            record = {"machine": describe(ROOT, row.get("device"), os.cpu_count() or 1), "rows": found}
            write_record(options.json, record)
        if "error" in row:
            break
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
    """Measure one size and print what was found as JSON."""
    import jax

    import lggwjax
    from benchmarks.transformer import Transformer

    task = json.loads(text)
    num = task.pop("num_samples")
    model = Transformer(**task)
    key, data_key, width_key = jax.random.split(jax.random.key(0), 3)
    start = jax.jit(model.init)(key)
    # One step of gradient descent apart would hold a gradient too: a small move in a random direction does as well.
    moved = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0.999, tree))(start)
    batch = jax.random.randint(data_key, model.batch(num).shape, 0, model.vocabulary)
    plans = {kind: lggwjax.plan(model.loss, [start, moved], batch, kind) for kind in ("stacked", "gram")}
    seconds: dict[str, list[float]] = {}
    for name, call in {
        "stacked": lambda: lggwjax.lggw(width_key, model.loss, [start, moved], batch, self_check=False).value,
        "gram": lambda: lggwjax.gradient_gram(model.loss, start, batch, self_check=False),
    }.items():
        for _ in range(2):
            before = time.perf_counter()
            value = jax.block_until_ready(call())
            seconds.setdefault(name, []).append(round(time.perf_counter() - before, 3))
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    found = {
        "num_parameters": model.num_parameters,
        "seconds_first_and_again": seconds,
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "limit_bytes": stats.get("bytes_limit"),
        "planned_bytes": {kind: plan.memory for kind, plan in plans.items()},
        "planned_chunk": {kind: plan.chunk_size for kind, plan in plans.items()},
        "gram_trace": float(value.trace()),
        "device": f"{device.platform} {device.device_kind}",
    }
    print(json.dumps(found))


if __name__ == "__main__":
    raise SystemExit(main())
