"""monitor: LGGW of a path as it grows, from a sketch of constant size, in a training loop."""

from __future__ import annotations

from typing import Any

import jax

import lggwjax
from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS
from benchmarks.problems import Problem, in_jax
from benchmarks.results import OURS, Report, times
from benchmarks.worker import Limit, Subject

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16), num_checkpoints=4),
    "full": Problem("ffn", 512, (784,), widths=(512, 512), num_checkpoints=50),
}


def subject(file: str) -> Subject:
    """A sketched meter that measures every checkpoint of the path; limit: one batched gradient for each."""
    given = in_jax(file)
    samples = lggwjax.training.meter.Samples(given.batch, given.batch)
    options: dict[str, Any] = {"max_checkpoints": len(given.path), "wrt": given.wrt, "route": "sketched"}
    meter = lggwjax.training.Meter(given.loss_fn, samples, **options)

    def call() -> Any:
        state, record = meter.init(given.path[0]), None
        for params in given.path:
            state, record = meter.measure(state, params)
        return state, record

    def facts(result: Any) -> dict[str, float]:
        state, record = result
        exact = lggwjax.lggw(jax.random.key(0), given.loss_fn, given.path, given.batch, wrt=given.wrt)
        kept = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(vars(state.train)))
        numbers = {"value": record["lggw"]["value"], "stderr": record["lggw"]["stderr"], "state_bytes": kept}
        numbers["sketch_stderr"] = record["lggw"]["sketch_stderr"]
        return numbers | {"exact_value": float(exact.value), "exact_stderr": float(exact.stderr)}

    limits = {GRADIENTS: Limit(lambda: [given.batch_gradient(params) for params in given.path])}
    return Subject(call, limits, facts)


def run(bench: Bench) -> Report:
    """Measure a meter that keeps sketches of constant size, beside the batched gradients of the same path."""
    problem = bench.problem(bench.pick(PROBLEMS))
    row = bench.start(f"{OURS}, sketched", "benchmarks.cases.monitor:subject", problem)
    bench.race(row)
    ratio, notes = times(row, row, ("", GRADIENTS)), []
    if ratio is not None:
        facts = row.found["facts"]
        notes = [
            f"{ratio[0]:.3g} times the batched gradients of the path; no bar is set",
            f"state of the training probe: {facts['state_bytes'] / 2**20:.3g} MiB, whatever the path's length",
            f"LGGW by sketches {facts['value']:.4g} (standard error {facts['stderr']:.2g}, of the sketch "
            f"{facts['sketch_stderr']:.2g}), exact {facts['exact_value']:.4g} ({facts['exact_stderr']:.2g})",
        ]
    return Report("monitor", str(problem), [row], [], notes)
