"""resnet-wide: widths of a ResNet-18 of full width, whose per-sample gradients would fill eleven gigabytes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS, PRODUCTS
from benchmarks.problems import Problem
from benchmarks.results import OURS, Bar, Report, Row, ratio_bar, times
from benchmarks.tables import seconds_text

PROBLEMS = {
    "tiny": Problem("resnet18", 6, (8, 8, 3), base_width=4, num_checkpoints=5),
    "full": Problem("resnet18", 256, (32, 32, 3), base_width=64, num_checkpoints=5),
}
GIB = 2**30


def run(bench: Bench) -> Report:
    """Measure the union width of one checkpoint and the stacked width of five."""
    stacked = bench.pick(PROBLEMS)
    rows, bars, notes = [], [], []
    for kind, problem in (("union", replace(stacked, num_checkpoints=1)), ("stacked", stacked)):
        row = bench.start(f"{OURS}, {kind}", "benchmarks.ours:width", bench.problem(problem), kind=kind)
        bench.race(row)
        rows.append(row)
        bars += _bars(kind, row, notes)
    return Report("resnet-wide", str(bench.problem(stacked)), rows, bars, notes)


def _bars(kind: str, row: Row, notes: list[str]) -> list[Bar]:
    peak = None if row.peak is None else row.peak / GIB
    memory = Bar(f"{kind}: peak memory", peak, 6, "<=", "GiB", missing=row.note or "no memory figures here")
    flops, rate = row.fact("plan_flops"), row.rate(PRODUCTS)
    seconds, gradients = row.seconds(), row.seconds(GRADIENTS)
    if flops is None or rate is None or seconds is None or gradients is None:
        if row.samples:
            notes.append(f"{kind}: no rate, so its matrix products' own time is not known")
        ratio = times(row, row, ("", GRADIENTS))
        return [memory, ratio_bar(f"{kind}: time / the batched gradients it needs", ratio, 4, "<=", row.note)]
    own = flops / rate
    notes.append(
        f"{kind}: {seconds / gradients:.3g} times the batched gradients it needs ({seconds_text(gradients)}), "
        f"{seconds / own:.3g} times its matrix products' own time ({seconds_text(own)} at the rate measured beside it)"
    )
    if own > gradients:  # the products dominate
        ratio = times(row, row, ("", PRODUCTS), row.limits[PRODUCTS][0] / flops)
        return [memory, ratio_bar(f"{kind}: time / its matrix products' own time", ratio, 1.5, "<=", row.note)]
    ratio = times(row, row, ("", GRADIENTS))
    return [memory, ratio_bar(f"{kind}: time / the batched gradients it needs", ratio, 4, "<=", row.note)]
