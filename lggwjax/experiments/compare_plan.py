"""How a budget of time becomes a number of steps: a short pilot of each design, and the points that follow from it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lggwjax.experiments.compare_data import Facts
from lggwjax.experiments.compare_point import measure
from lggwjax.experiments.designs import Design
from lggwjax.experiments.points import Point, shared_programs
from lggwjax.experiments.trained import run_settings
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json

MEASURING = MeasureSpec(measurements=12, directions=128)
"""The same for every design: a width only grows with more checkpoints or samples."""

ALIKE = 1.5
"""Designs whose steps cost up to this much more than the cheapest get as many: a stopwatch tells no less apart."""

DEFAULT_SEEDS = 5, 10
MOST_PASSES, LEAST_STEPS, MOST_STEPS = 100, 50, 1000
_PILOT_STEPS = 60
_USED = 0.9  # of the budget; the rest is for the page and for what varies


class Cost(NamedTuple):
    """What one design costs, in seconds.

    Attributes:
        step: One optimiser step, the median of the pilot's.
        whole: All else of a run on all samples: loading, compiling, measuring.
        half: All else of a run on half of them, which is not measured.
        pilot: The pilot itself.
    """

    step: float
    whole: float
    half: float
    pilot: float


def run_point(design: Design, facts: Facts, *, seed: int, steps: int, half: bool = False) -> Point:
    """Return one point: a design, a seed, and all samples or the first half of them."""
    n = facts.spec.num_samples
    data = facts.spec.__class__(**{**_fields(facts), "seed": seed})
    training = design.train_spec(steps=steps, seed=seed, most=max(1, n // 2))
    settings = run_settings(RunConfig(data, design.model, training, MEASURING))
    slug = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in design.name.lower()).split()) or "design"
    used = n // 2 if half else n
    settings |= {"design": design.name, "seed": seed, "samples": used}
    return Point(f"{slug}-{'half' if half else 'whole'}-s{seed}", settings)


def _fields(facts: Facts) -> dict:
    return {name: getattr(facts.spec, name) for name in facts.spec.__dataclass_fields__}


def pilot(designs: Sequence[Design], facts: Facts, folder: Path) -> dict[str, Cost]:
    """Run each design twice for a few steps: once to compile, once to see what a later run costs.

    Args:
        designs: The designs.
        facts: The data.
        folder: Where compiled programs are kept for the runs that follow.

    Returns:
        The costs by name.

    Raises:
        ValueError: If a design cannot be run on these data.
    """
    found = {}
    with shared_programs(folder):
        for design in designs:
            spent = []
            for seed in range(2):
                result = measure(run_point(design, facts, seed=seed, steps=_PILOT_STEPS).settings)
                if "diverged" in result:
                    raise ValueError(
                        f"Expected design {design.name!r} to train, got NaN or infinity at step {result['diverged']}. "
                        "Lower its training.learning_rate."
                    )
                spent.append(result["seconds"])
            last = spent[-1]
            other = last["total"] - last["training"]
            found[design.name] = Cost(
                step=last["step"],
                whole=other,
                half=other - last["measuring"] - last["gate"],
                pilot=sum(seconds["total"] for seconds in spent),
            )
    return found


def num_steps(costs: Mapping[str, Cost], facts: Facts, *, minutes: float, seeds: int, workers: int) -> dict[str, int]:
    """Give every design the same training time, as a number of steps that is fixed from here on.

    Args:
        costs: From :func:`pilot`.
        facts: The data.
        minutes: For everything, the pilot included.
        seeds: Runs of each design on all samples, and as many on half of them.
        workers: Runs side by side.

    Returns:
        Steps by name: as many as fit the time of a run, which ends when the slowest design has made 100 passes over the
        samples, or 1,000 steps where these are more.

    Raises:
        ValueError: If the time does not suffice for 50 steps of each run; the message says what would.
    """
    cheapest = min(cost.step for cost in costs.values())
    alike = max(cost.step for cost in costs.values() if cost.step <= ALIKE * cheapest)
    step = {name: alike if cost.step <= ALIKE * cheapest else cost.step for name, cost in costs.items()}
    begun = sum(cost.pilot for cost in costs.values())
    fixed = seeds * sum(cost.whole + cost.half for cost in costs.values())
    each = (_USED * (60 * minutes - begun) * workers - fixed) / (2 * seeds * len(costs))
    least = LEAST_STEPS * max(step.values())
    if each < least:
        needed = (fixed + 2 * seeds * len(costs) * least) / workers / _USED + begun
        raise ValueError(
            f"Expected --minutes {math.ceil(1.2 * needed / 60)} or more for {len(costs)} designs and {seeds} seeds on "
            f"this machine, got {minutes:g}. Give them (what was compiled is kept), or take fewer --seeds or "
            "--num-samples."
        )
    each = min(each, _most_steps(facts) * max(step.values()))
    return {name: int(each / seconds + 1e-9) for name, seconds in step.items()}


def num_seeds(costs: Mapping[str, Cost], facts: Facts, *, minutes: float, workers: int) -> int:
    """Spend the budget on seeds: as many, from 5 to 10, as leave the slowest design all the steps that it may make.

    Args:
        costs: From :func:`pilot`.
        facts: The data.
        minutes: See :func:`num_steps`.
        workers: The same.

    Returns:
        Seeds; 5 where the budget is short.
    """
    for seeds in range(DEFAULT_SEEDS[1], DEFAULT_SEEDS[0], -1):
        with contextlib.suppress(ValueError):
            steps = num_steps(costs, facts, minutes=minutes, seeds=seeds, workers=workers)
            if min(steps.values()) >= _most_steps(facts):
                return seeds
    return DEFAULT_SEEDS[0]


def _most_steps(facts: Facts) -> int:
    n = facts.spec.num_samples
    return max(MOST_STEPS, round(MOST_PASSES * n / min(64, n)))


def points(designs: Sequence[Design], facts: Facts, steps: Mapping[str, int], seeds: int) -> list[Point]:
    """Return all points, seed by seed, so that a comparison that is cut short has whole pairs."""
    return [
        run_point(design, facts, seed=seed, steps=steps[design.name], half=half)
        for seed in range(seeds)
        for half in (False, True)
        for design in designs
    ]


def as_dict(costs: Mapping[str, Cost], steps: Mapping[str, int]) -> Json:
    """Return the plan as strict JSON types."""
    rounded = {name: {key: round(value, 6) for key, value in cost._asdict().items()} for name, cost in costs.items()}
    return {"costs": rounded, "steps": dict(steps), "measurements": MEASURING.measurements}
