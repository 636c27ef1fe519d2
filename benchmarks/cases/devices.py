"""devices: what each of 8 to 512 devices does, and whether a transformer of 1 B parameters fits on 64 of them."""

from __future__ import annotations

from typing import Any

from benchmarks.compiled import compile_elsewhere
from benchmarks.harness import Bench
from benchmarks.results import Bar, Report, Row

COUNTS = {"tiny": (1, 8), "quick": (1, 8, 64, 512), "full": (1, 8, 16, 32, 64, 128, 256, 512)}
FFN = {"model": "ffn", "sizes": {"widths": [4096, 4096]}, "num_samples": 4096}
LARGE = {"layers": 18, "width": 2048, "length": 1024}
SMALL = {"layers": 2, "width": 256, "length": 64}
DEVICE = 80e9  # bytes


def run(bench: Bench) -> Report:
    """Compile; nothing is run."""
    counts = bench.pick(COUNTS)
    rows = [_row("FFN", FFN | {"num_devices": num, "parameter_shards": 1}) for num in counts]
    sizes = SMALL if bench.sizes == "tiny" else LARGE
    devices = 8 if bench.sizes == "tiny" else 64
    large = {"model": "transformer", "sizes": sizes, "num_samples": devices, "num_devices": devices}
    rows += [_row("transformer", large | {"parameter_shards": shards}) for shards in (1, devices)]
    first, last, whole = rows[0], rows[len(counts) - 1], rows[-2]
    share = _fact(first, "flops") / _fact(last, "flops") / counts[-1]
    bars = [
        Bar(f"FFN: share of the work on each of {counts[-1]} devices, of an even one", 1 / share, 1.05, "<=", ""),
        Bar("FFN: bytes received by a device, most against least", _most_against_least(rows, counts), 2.5, "<=", "x"),
        Bar("transformer: memory of a device", _fact(whole, "memory") / 1e9, DEVICE / 1e9, "<=", " GB"),
    ]
    size = whole.found["facts"]["num_parameters"]
    problem = (
        f"Gram matrix of 4,096 samples of an FFN, and of {devices} samples of a transformer of {size:,} parameters"
    )
    return Report("devices", problem, rows, bars)


def _fact(row: Row, name: str) -> float:
    return float(row.found["facts"]["gram"][name])


def _most_against_least(rows: list[Row], counts: tuple[int, ...]) -> float:
    """Over more than one device: what arrives at one must not grow with their number."""
    received = [_received(row.found["facts"]) for row in rows[: len(counts)] if row.found["facts"]["num_devices"] > 1]
    return max(received) / min(received)


def _received(plan: dict[str, Any]) -> float:
    return sum(plan["gram"]["collective_bytes"].values()) + sum(plan["products"]["collective_bytes"].values())


def _row(name: str, task: dict[str, Any]) -> Row:
    plan = compile_elsewhere(task)
    shards = f", parameters in {task['parameter_shards']}" if task["parameter_shards"] > 1 else ""
    row = Row(f"{name} on {task['num_devices']}{shards}", found={"facts": plan})
    sent = ", ".join(f"{kind} {size / 1e6:.4g} MB" for kind, size in plan["gram"]["collective_bytes"].items()) or "none"
    row.note = (
        f"{plan['gram']['flops'] / 1e9:.4g} Gflop, {sent}, {plan['gram']['memory'] / 1e9:.3g} GB a device "
        f"({plan['samples_per_device']} samples each, compiled in {plan['compile_seconds']:.0f} s)"
    )
    return row
