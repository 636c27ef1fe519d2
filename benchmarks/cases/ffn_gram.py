"""ffn-gram: the Gram matrix of the per-sample gradients of a fully connected network."""

from __future__ import annotations

from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS
from benchmarks.problems import Problem
from benchmarks.results import OURS, Report, ratio_bar, times
from benchmarks.rivals import NNGEOMETRY, PLAIN_JAX, WITH_GRAM

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16)),
    "full": Problem("ffn", 512, (784,), widths=(512, 512)),
}


def run(bench: Bench) -> Report:
    """Measure the library's Gram matrix beside one batched gradient, and the rivals'."""
    problem = bench.problem(bench.pick(PROBLEMS))
    ours = bench.start(OURS, "benchmarks.ours:gram", problem)
    rivals = {rival: row for rival in WITH_GRAM for row in bench.rival(rival, "gram", problem, like=ours)}
    bench.race(ours, *rivals.values())
    plain, layerwise = rivals.get(PLAIN_JAX), rivals.get(NNGEOMETRY)
    bars = [
        ratio_bar("time / one batched gradient", times(ours, ours, ("", GRADIENTS)), 2, "<=", ours.note),
        ratio_bar("plain JAX / ours", times(plain, ours), 100, ">="),
        ratio_bar("nngeometry's layerwise Gram / ours", times(layerwise, ours), 1, ">="),
    ]
    return Report("ffn-gram", str(problem), [ours, *rivals.values()], bars)
