"""resnet-gram: the Gram matrix of the per-sample gradients of a ResNet-18 on small images."""

from __future__ import annotations

from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS
from benchmarks.problems import Problem
from benchmarks.results import OURS, Report, ratio_bar, times
from benchmarks.rivals import TORCH_FUNC, WITH_GRAM

PROBLEMS = {
    "tiny": Problem("resnet18", 6, (8, 8, 3), base_width=4),
    "full": Problem("resnet18", 64, (32, 32, 3), base_width=16),
}


def run(bench: Bench) -> Report:
    """Measure the library's Gram matrix beside one batched gradient, and the rivals'."""
    problem = bench.problem(bench.pick(PROBLEMS))
    ours = bench.start(OURS, "benchmarks.ours:gram", problem)
    rivals = {rival: row for rival in WITH_GRAM for row in bench.rival(rival, "gram", problem, like=ours)}
    bench.race(ours, *rivals.values())
    bars = [
        ratio_bar("time / one batched gradient", times(ours, ours, ("", GRADIENTS)), 2, "<=", ours.note),
        ratio_bar("torch.func and a product / ours", times(rivals.get(TORCH_FUNC), ours), 1, ">="),
    ]
    return Report("resnet-gram", str(problem), [ours, *rivals.values()], bars)
