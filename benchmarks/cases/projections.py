"""projections: the per-sample gradients of a fully connected network on Gaussian directions that are never stored.

The limits: the machine's own time for as many normals, and for matrix products of the same size. The slower of the two
cannot be beaten by any method that draws all normals and multiplies by them all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import lggwjax
from benchmarks.harness import Bench, ProblemFile
from benchmarks.machine import NORMALS, PRODUCTS, normal_limit, product_limit
from benchmarks.problems import InJax, Problem, in_jax
from benchmarks.results import OURS, Bar, Ratio, Report, Row, ratio_bar, summarise
from benchmarks.tables import seconds_text
from benchmarks.worker import Subject

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16)),
    "full": Problem("ffn", 512, (784,), widths=(512, 512)),
}
DRAWS = {"tiny": 64, "full": 256}
CHUNK = 64  # gradients, and directions: the two chunks that a script would hold at once


def ours(key: jax.Array, given: InJax, num_draws: int) -> jax.Array:
    """Project all samples' gradients on ``num_draws`` directions: the call that is measured."""
    options = {"num_draws": num_draws, "wrt": given.wrt}
    return lggwjax.random_projections(key, given.loss_fn, given.path[0], given.batch, **options)


def subject(file: str, num_draws: int, beside_rates: bool = True) -> Subject:
    """The measured call, beside the machine's normals and products."""
    given = in_jax(file)
    key, num_samples = jax.random.key(0), len(given.batch["y"])
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(given.path[0]["params"]))
    limits = {PRODUCTS: product_limit(num_samples, 16_384, num_draws), NORMALS: normal_limit()}

    def facts(projections: jax.Array) -> dict[str, float]:
        gram = lggwjax.gradient_gram(given.loss_fn, given.path[0], given.batch, wrt=given.wrt)
        # Mean over directions of |projections|^2 is the trace; its variance is 2 |Gram|^2 / K.
        error = float((projections**2).sum() / num_draws - jnp.trace(gram))
        apart = abs(error) / float(jnp.linalg.norm(gram) * np.sqrt(2 / num_draws))
        chunks = min(CHUNK, num_samples) + min(CHUNK, num_draws)
        return {"standard_errors_apart": apart, "chunk_bytes": 4 * chunks * num_parameters}

    return Subject(lambda: ours(key, given, num_draws), limits if beside_rates else {}, facts)


def run(bench: Bench) -> Report:
    """Measure the projections beside the two limits."""
    problem, num_draws = bench.problem(bench.pick(PROBLEMS)), bench.pick(DRAWS)
    row = bench.start(OURS, "benchmarks.cases.projections:subject", problem, num_draws=num_draws)
    apart = row.fact("standard_errors_apart")
    if apart is not None and not apart < 5:
        row.note = f"not timed: projections are {apart:.0f} standard errors from the gradients' norms"
    bench.race(row)
    notes: list[str] = []
    share = _shares(row, problem, num_draws, notes)
    memory, chunks = row.found.get("bytes"), row.fact("chunk_bytes")
    of_chunks = memory / chunks if memory is not None and chunks else None
    bars = [
        ratio_bar("speed / that of the slower limit", share, 0.7, ">=", row.note),
        Bar(
            f"peak memory / {CHUNK} gradients and {CHUNK} directions",
            of_chunks,
            1,
            "<=",
            missing=row.note or "no memory figures here",
        ),
    ]
    return Report("projections", f"{problem}, K = {num_draws}", [row], bars, notes)


def _shares(row: Row, problem: ProblemFile, num_draws: int, notes: list[str]) -> Ratio | None:
    """Time of the slower limit over that of the call, sample by sample: median, least, largest."""
    if not row.samples:
        return None
    count = float(num_draws * problem.num_parameters)
    work = {NORMALS: count, PRODUCTS: 2 * count * problem.problem.num_samples}
    scale = {name: work[name] / row.limits[name][0] for name in work}
    alone = {name: seconds_text(scale[name] * (row.seconds(name) or 0)) for name in work}
    notes.append(f"the same normals alone take {alone[NORMALS]}, the same matrix products alone {alone[PRODUCTS]}")
    return summarise([max(scale[name] * sample[name] for name in work) / sample[""] for sample in row.samples])
