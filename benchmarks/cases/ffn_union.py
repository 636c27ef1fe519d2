"""ffn-union: the width of a cloud of per-sample gradients, at a standard error asked for.

The library forms the Gram matrix and draws in n dimensions. A rival that projects draws in p dimensions: it takes its
per-sample gradients, K Gaussian directions and the maximum over samples of each. How large K must be for the standard
error that the library reached is worked out from the spread of the rival's own draws, for the maximum, which is what
its user would take, and for the half-range, which has the same mean and a smaller spread; the bars hold against the
half-range. One block of K is measured, with the gradients and without; K draws then take the gradients' time and K
times that of a draw of the block.
"""

from __future__ import annotations

from benchmarks.harness import Bench, ProblemFile
from benchmarks.problems import Problem
from benchmarks.results import NO_RIVALS, OURS, Report, Row, ratio_bar, times
from benchmarks.rivals import NNGEOMETRY, WITH_PROJECTIONS
from benchmarks.rivals.draws import ALONE
from benchmarks.tables import seconds_text

PROBLEMS = {
    "tiny": Problem("ffn", 24, (20,), widths=(16, 16)),
    "full": Problem("ffn", 512, (784,), widths=(512, 512)),
}
BLOCK = {"tiny": 32, "full": 256}
PROJECTING = {0.01: 40, 0.002: 500}  # tolerance: how many times faster than the fastest rival that projects
BY_HAND = {0.01: 1, 0.001: 2}  # likewise, than a layerwise Gram matrix, eigh and sampling


def run(bench: Bench) -> Report:
    """Measure the library at each tolerance, and what the rivals need for the standard errors it reached."""
    problem, block = bench.problem(bench.pick(PROBLEMS)), bench.pick(BLOCK)
    ours = {tolerance: _start_ours(bench, problem, tolerance) for tolerance in sorted({*PROJECTING, *BY_HAND})[::-1]}
    first = ours[0.01]
    blocks = [
        row for rival in WITH_PROJECTIONS for row in bench.rival(rival, "project", problem, first, num_draws=block)
    ]
    by_hand = {tolerance: row for tolerance in BY_HAND for row in _start_by_hand(bench, problem, ours, tolerance)}
    bench.race(*ours.values(), *blocks, *by_hand.values())
    bars, notes, scaled = [], [], []
    for tolerance, limit in PROJECTING.items():
        found = [_scaled(row, ours[tolerance], tolerance, block, notes) for row in blocks if row.samples]
        fastest = min(found, key=lambda row: row.seconds() or 0, default=None)
        text = f"fastest rival that projects{f' ({fastest.name})' if fastest else ''} / ours"
        bars.append(ratio_bar(text, times(fastest, ours[tolerance]), limit, ">=", ours[tolerance].note or NO_RIVALS))
        scaled += found
    for tolerance, limit in BY_HAND.items():
        text = f"nngeometry's Gram, eigh and sampling / ours, {tolerance:.1%}"
        bars.append(ratio_bar(text, times(by_hand.get(tolerance), ours[tolerance]), limit, ">="))
    for row in blocks:
        row.name += f", block of {block}"
    return Report("ffn-union", str(problem), [*ours.values(), *blocks, *scaled, *by_hand.values()], bars, notes)


def _start_ours(bench: Bench, problem: ProblemFile, tolerance: float) -> Row:
    options = {"kind": "union", "tolerance": tolerance}
    if tolerance == 0.01:  # the row that the rivals are checked against
        options["check_samples"] = problem.problem.num_samples
    return bench.start(f"{OURS}, {tolerance:.1%}", "benchmarks.ours:width", problem, **options)


def _start_by_hand(bench: Bench, problem: ProblemFile, ours: dict[float, Row], tolerance: float) -> list[Row]:
    target = ours[tolerance].fact("stderr")
    if target is None:
        return []
    rows = bench.rival(NNGEOMETRY, "width", problem, ours[0.01], target_stderr=target)
    for row in rows:
        row.name, row.against = f"nngeometry by hand, {tolerance:.1%}", ours[tolerance]
    return rows


def _scaled(row: Row, ours: Row, tolerance: float, block: int, notes: list[str]) -> Row:
    """The rival at as many half-ranges as the library's standard error needs; a note says what the maximum needs."""
    target, value = ours.fact("stderr") or float("nan"), ours.fact("value") or float("nan")
    facts = row.found["facts"]
    draws = {name: max(2.0, (facts[f"{name}_std"] / target) ** 2) for name in ("half", "max")}
    made = {name: Row(f"{row.name}, {tolerance:.1%}", against=ours) for name in draws}
    for name, count in draws.items():
        for sample in row.samples:
            made[name].samples.append({"": sample[ALONE] + (sample[""] - sample[ALONE]) * count / block})
        made[name].note = f"{count:,.0f} half-ranges, from the block's time"
    notes.append(
        f"{made['max'].name}: with maxima instead of half-ranges {draws['max']:,.0f} draws, "
        f"{seconds_text(made['max'].seconds())}"
    )
    apart = abs(facts["half_mean"] - value) / (target**2 + facts["half_std"] ** 2 / facts["draws_seen"]) ** 0.5
    if apart > 5:
        notes.append(f"{row.name}: its mean differs from ours by {apart:.0f} standard errors; its time means nothing")
    return made["half"]
