"""ffn-path: the stacked LGGW of fifty checkpoints of a fully connected network."""

from __future__ import annotations

from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS
from benchmarks.problems import Problem
from benchmarks.results import OURS, Bar, Report, Row, ratio_bar, times
from benchmarks.rivals import PLAIN_JAX

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16), num_checkpoints=4),
    "full": Problem("ffn", 512, (784,), widths=(512, 512), num_checkpoints=50),
}
PART = 16  # samples on which plain JAX is measured; it would take all of them one part after another
GIB = 2**30


def run(bench: Bench) -> Report:
    """Measure the library on the whole path, and plain JAX on a part of the samples."""
    problem = bench.problem(bench.pick(PROBLEMS))
    ours = bench.start(OURS, "benchmarks.ours:width", problem, kind="stacked", check_samples=PART)
    rivals = bench.rival(PLAIN_JAX, "stacked", problem, ours, num_samples=PART)
    bench.race(ours, *rivals)
    for row in rivals:
        _scale_up(row, problem.problem.num_samples / PART)
    peak = None if ours.peak is None else ours.peak / GIB
    bars = [
        ratio_bar("time / the batched gradients it needs", times(ours, ours, ("", GRADIENTS)), 2.5, "<=", ours.note),
        Bar("peak memory", peak, 1.5, "<=", "GiB", missing=ours.note or "no memory figures here"),
    ]
    return Report("ffn-path", str(problem), [ours, *rivals], bars)


def _scale_up(row: Row, factor: float) -> None:
    """Time for all samples from that for a part: the same work once for each part."""
    if row.samples:
        row.samples = [{"": sample[""] * factor} for sample in row.samples]
        row.note = f"Gram matrix alone, scaled from {PART} samples"
