"""monitor: LGGW of a path as it grows, from a sketch of constant size, in a training loop."""

from __future__ import annotations

from typing import Any

import jax

import lggwjax
from benchmarks.harness import OURS, Bench, Report, times
from benchmarks.ours import GRADIENTS
from benchmarks.problems import Problem, in_jax
from benchmarks.worker import Limit, Subject

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16), num_checkpoints=4),
    "full": Problem("ffn", 512, (784,), widths=(512, 512), num_checkpoints=50),
}
ROUTES = ("sketched", "exact")


def subject(file: str, route: str) -> Subject:
    """A monitor that measures every checkpoint of the path; limit: one batched gradient for each."""
    given = in_jax(file)
    samples = lggwjax.training.monitor.Samples(given.batch, given.batch)
    options: dict[str, Any] = {"max_checkpoints": len(given.path), "wrt": given.wrt, "route": route}
    monitor = lggwjax.training.Monitor(given.loss_fn, samples, **options)

    def call() -> Any:
        state, record = monitor.init(given.path[0]), None
        for params in given.path:
            state, record = monitor.measure(state, params)
        return state, record

    def facts(result: Any) -> dict[str, float]:
        state, record = result
        kept = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(vars(state.train)))
        return {"value": record["lggw"]["value"], "stderr": record["lggw"]["stderr"], "state_bytes": kept}

    limits = {GRADIENTS: Limit(lambda: [given.batch_gradient(params) for params in given.path])}
    return Subject(call, limits, facts)


def run(bench: Bench) -> Report:
    """Measure a monitor with sketches of constant size, and one that keeps the factors of all checkpoints."""
    problem = bench.problem(bench.pick(PROBLEMS))
    rows = [
        bench.start(f"{OURS}, {route}", "benchmarks.cases.monitor:subject", problem, route=route) for route in ROUTES
    ]
    bench.race(*rows)
    notes = []
    for row in rows:
        ratio = times(row, row, ("", GRADIENTS))
        if ratio is not None:
            notes.append(
                f"{row.name}: {ratio[0]:.3g} times the batched gradients, LGGW {row.fact('value'):.4g} with standard "
                f"error {row.fact('stderr'):.2g}, state of {(row.fact('state_bytes') or 0) / 2**20:.3g} MiB"
            )
    return Report("monitor", str(problem), rows, [], notes)
