"""Ten thousand looks of a monitor: is memory flat, is nothing compiled, can the records be read meanwhile?

By hand: ``python tests/training/long_run.py --json benchmarks/results/long-run.json``. A monitor looks at every step of
a small training; each record goes through a run folder to the disk, and another process reads the growing file again
and again, by the library's reader and by the pages'. Exit status 1 if a read failed or met half a record, if anything
was compiled after the first looks, or if memory grew with the looks.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from lggwjax.report import load_run
from lggwjax.training import Monitor
from lggwjax.training.folder import RunFolder, read_records

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 5  # looks after which nothing may be compiled
SETTLED = 0.2  # share of the looks until allocators have what they need
BLOCKS = 20  # of readings of the memory, whose means are taken for independent
READS_TO_A_TABLE = 10  # which takes longer


def loss(params: dict[str, Any], example: dict[str, Any]) -> Any:
    """Squared error of a network with one hidden layer."""
    hidden = jnp.tanh(example["x"] @ params["in"])
    return 0.5 * (hidden @ params["out"] - example["y"]) ** 2


def problem() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Parameters, samples trained on, samples held out."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = {"in": jnp.asarray(draw(8, 16) / 3), "out": jnp.asarray(draw(16) / 4)}
    return params, {"x": draw(32, 8), "y": draw(32)}, {"x": draw(64, 8), "y": draw(64)}


def resident() -> int:
    """Bytes of this process in memory, without files: of these the system takes pages back when others need room."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))


def state_bytes(state: Any) -> int:
    """Bytes of all arrays that a state holds."""
    if isinstance(state, jax.Array | np.ndarray):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(state_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(state_bytes, state))
    return sum(map(state_bytes, vars(state).values())) if hasattr(state, "__dataclass_fields__") else 0


def growth(values: np.ndarray) -> dict[str, Any]:
    """Bytes a look once all has settled: the middle one of the growths from block to block, with its 95% interval.

    What leaks grows in every block. An allocator that takes a megabyte, and whatever keeps the largest size it met,
    grow in a few: they move a line through all readings, but not the middle. The interval is that of the sign test.
    """
    blocks = np.array_split(values[int(SETTLED * len(values)) :].astype(float), BLOCKS)
    means = np.array([block.mean() for block in blocks])
    steps = np.diff(means) / len(blocks[0])
    interval = scipy.stats.quantile_test(steps, q=0, p=0.5).confidence_interval(0.95)
    found = {"bytes_per_look": float(np.median(steps)), "interval": [float(interval.low), float(interval.high)]}
    return found | {"means_of_blocks": [round(mean) for mean in means]}


def look(folder: Path, num: int) -> dict[str, Any]:
    """Look so many times at a training; what it took."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    params, train, heldout = problem()
    update = jax.jit(
        lambda params: jax.tree.map(
            lambda p, g: p - 0.02 * g,
            params,
            jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, train).mean())(params),
        )
    )
    # A growing list, or zeros whose pages are only taken when they are written, would be found as growth.
    memory, early, warm = np.ones(num, np.int64), 0, 0
    start = time.perf_counter()
    with RunFolder.open(folder, {"looks": num}) as writer:
        monitor = Monitor(
            loss, train, heldout, every=1, num_draws=64, writers=[lambda report: writer.append(report.record)]
        )
        state = monitor.init(params)
        for step in range(num):
            state, _ = monitor.observe(state, step, params)
            params = update(params)
            memory[step] = resident()
            if step + 1 == min(WARM_UP, num - 1):
                early, warm = state_bytes(state), len(compiled)
    seconds = time.perf_counter() - start
    return {
        "looks": num,
        "seconds": round(seconds, 1),
        "compilations_after_warm_up": len(compiled) - warm,
        "compilations": len(compiled),
        "state_bytes": [early, state_bytes(state)],
        "resident": growth(memory) | {"first": int(memory[0]), "last": int(memory[-1]), "largest": int(memory.max())},
        "open_files": len(os.listdir("/proc/self/fd")),
        "live_arrays": len(jax.live_arrays()),
    }


def read(folder: Path) -> dict[str, Any]:
    """Read the records while they are written, until the folder holds a file ``done``; what came out."""
    done, file, known = folder.with_name("done"), folder / "metrics.jsonl", 0
    found: dict[str, Any] = {"reads": 0, "tables": 0, "failed": 0, "half_records": 0, "lost_records": 0, "errors": []}
    keys: set[str] = set()
    while True:
        last = done.exists()
        try:
            records = read_records(file)
            found["reads"] += bool(records)  # an absent file is soon read
            keys = keys or set(records[0] if records else ())
            found["half_records"] += sum(set(record) != keys for record in records)
            found["lost_records"] += len(records) < known
            known = max(known, len(records))
            if not records:
                time.sleep(0.01)
            elif last or found["reads"] % READS_TO_A_TABLE == 0:
                table = load_run(folder)
                found["tables"] += 1
                found["half_records"] += int(table["train_loss"].isna().sum())
                found["lost_records"] += len(table) < known
                known = max(known, len(table))
        except Exception as error:  # whatever a reader must never meet
            found["failed"] += 1
            found["errors"] = [*found["errors"], f"{type(error).__name__}: {error}"][:5]
        if last:
            return found | {"records": known}


def reopened(folder: Path) -> float:
    """Seconds to open the folder again."""
    gc.collect()
    start = time.perf_counter()
    with RunFolder.open(folder, {}, resume=True):
        return round(time.perf_counter() - start, 3)


def main() -> int:
    """Look and read at once, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measurements", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write what came out")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return 0
    with tempfile.TemporaryDirectory(prefix="lggwjax-long-") as place:
        folder = Path(place) / "run"
        command = [sys.executable, __file__, "--read", str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
            try:
                found = look(folder, options.measurements)
            finally:
                (Path(place) / "done").touch()
            found["reader"] = json.loads(reader.communicate()[0])
        found |= {"record_bytes": (folder / "metrics.jsonl").stat().st_size, "seconds_to_reopen": reopened(folder)}
    memory, reader = found["resident"], found["reader"]
    good = not (reader["failed"] or reader["half_records"] or reader["lost_records"])
    good &= reader["records"] == options.measurements and not found["compilations_after_warm_up"]
    good &= len(set(found["state_bytes"])) == 1 and memory["interval"][0] <= 0
    print(json.dumps(found | {"good": good}, indent=2))
    if options.json:
        sys.path.insert(0, str(ROOT))
        from benchmarks.machine import describe

        about = {"machine": describe(ROOT, jax.default_backend(), os.cpu_count() or 1)}
        options.json.write_text(json.dumps(about | found, indent=2) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
