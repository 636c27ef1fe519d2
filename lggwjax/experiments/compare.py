"""A proof of concept for a team: which of a few designs is better on these data, how sure that is, and what next."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lggwjax.experiments.compare_data import Facts, look_at
from lggwjax.experiments.compare_plan import as_dict, num_seeds, num_steps, pilot, points
from lggwjax.experiments.compare_point import measure
from lggwjax.experiments.designs import Design, default_designs, read_designs
from lggwjax.experiments.points import COMPILED, PILOT, forget_programs, open_study, run_points
from lggwjax.report.study import STUDY_FILE
from lggwjax.strict import read_object
from lggwjax.training.files import Json, lock, write_json

MOST_SEEDS, MOST_DESIGNS = 100, 12


@dataclass(frozen=True)
class Question:
    """What a comparison is asked, which may be asked anew of one that has been run.

    Attributes:
        worth: Smallest difference in held-out loss worth deciding, as a share of the lowest mean loss.
        target_loss: Held-out loss that is wanted, or None.
        price_per_hour: Of this machine, in a currency of the reader's own, or None.
        price_per_sample: Of one labelled sample, in the same currency, or None.

    Raises:
        ValueError: If a number is out of its range.
    """

    worth: float = 0.1
    target_loss: float | None = None
    price_per_hour: float | None = None
    price_per_sample: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.worth < 1:
            raise ValueError(f"Expected --worth between 0 and 1, got {self.worth}. 0.1 is ten percent.")
        if self.target_loss is not None and not (math.isfinite(self.target_loss) and self.target_loss > 0):
            raise ValueError(f"Expected --target-loss > 0, got {self.target_loss}.")
        for name in ("price_per_hour", "price_per_sample"):
            price = getattr(self, name)
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise ValueError(f"Expected --{name.replace('_', '-')} >= 0, got {price}. Leave it out for none.")


def compare(
    data: str,
    *,
    label: str | None = None,
    data_dir: Path | None = None,
    config: Path | None = None,
    minutes: float = 5.0,
    seeds: int | None = None,
    num_samples: int | None = None,
    num_heldout: int | None = None,
    question: Question | None = None,
    out: Path | None = None,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[Json | None, int], None] | None = None,
) -> Path:
    """Compare designs by held-out loss at equal training time, and write a page with a recommendation.

    Args:
        data: A csv or npz file, a folder with one, or the name of a data set.
        label: Column to predict, of a csv.
        data_dir: Where the files of a named data set lie.
        config: A TOML file with designs of one's own; by default three that suit the data.
        minutes: Time for everything. It is turned into steps by a pilot, once; a comparison that is resumed keeps them.
        seeds: Draws of sample, held-out part and initial parameters; by default 5 to 10, as the budget allows. With one
            there is no winner.
        num_samples: Samples trained on; by default two thirds of the rows.
        num_heldout: Samples held out; by default the rest.
        question: What is worth deciding, what is wanted, and prices.
        out: The folder; by default ``comparisons/DATA``.
        workers: Processes side by side.
        resume: Go on with what is there.
        progress: Called with each finished point's record and the number of points; with None when the pilot is done.

    Returns:
        The page.

    Raises:
        ValueError: If data, designs, budget or folder cannot be used as asked; one line that says what to do.
        FileNotFoundError: If a file is missing.
    """
    from lggwjax.report import write_study_page  # matplotlib is loaded when there is something to draw

    _check_numbers(minutes, seeds, workers)
    facts = look_at(data, label=label, data_dir=data_dir, num_samples=num_samples, num_heldout=num_heldout)
    designs = default_designs(images=facts.images) if config is None else read_designs(config)
    if len(designs) > MOST_DESIGNS:
        raise ValueError(f"Expected at most {MOST_DESIGNS} designs, got {len(designs)}. Each makes the others harder.")
    folder = out or Path("comparisons") / Path(data).stem
    request = {
        "data": facts.as_dict(),
        "designs": [design.as_dict() for design in designs],
        "minutes": minutes,
    }
    plan, seeds = _plan(folder, designs, facts, minutes, seeds, workers, resume)
    request["seeds"] = seeds
    if resume and (folder / STUDY_FILE).is_file():
        # The budget was turned into steps once: only more seeds, prices or another aim can be asked for later.
        request["minutes"] = read_object(folder / STUDY_FILE, "").get("minutes", minutes)
    todo = points(designs, facts, plan["steps"], seeds)
    tell = progress or (lambda *_: None)
    with open_study(folder, "compare", "own", todo, resume=resume, extra=request | {"plan": plan}):
        file = folder / STUDY_FILE
        write_json(file, read_object(file, "") | {"question": asdict(question or Question())})
        tell(None, len(todo))
        run_points(folder, measure, workers=workers, progress=lambda record: tell(record, len(todo)))
        return write_study_page(folder)


def _check_numbers(minutes: float, seeds: int | None, workers: int) -> None:
    if not (math.isfinite(minutes) and minutes > 0):
        raise ValueError(f"Expected --minutes > 0, got {minutes}.")
    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"Expected --seeds from 1 to {MOST_SEEDS}, got {seeds}. Five are usual; one has no winner.")
    if workers < 1:
        raise ValueError(f"Expected --workers >= 1, got {workers}.")


def _plan(
    folder: Path,
    designs: Sequence[Design],
    facts: Facts,
    minutes: float,
    seeds: int | None,
    workers: int,
    resume: bool,
) -> tuple[Json, int]:
    """Take plan and seeds of the comparison that is gone on with, or time a pilot."""
    file = folder / STUDY_FILE
    if resume and file.is_file():
        held = read_object(file, "Choose another --out.")
        plan, before = held.get("plan"), held.get("seeds")
        steps = plan.get("steps") if isinstance(plan, dict) else None
        same = isinstance(steps, dict) and set(steps) == {design.name for design in designs}
        if not isinstance(plan, dict) or not same or not isinstance(before, int):
            raise ValueError(f"Expected the comparison in {file}, got another study. Choose another --out.")
        return plan, before if seeds is None else seeds
    if folder.exists() and not (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {COMPILED, PILOT}):
        raise ValueError(f"Expected a new folder, got {folder}, which exists. Add --resume or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder / PILOT)
    if held is None:
        raise ValueError(f"Expected {folder} for this process alone, got one in use. Wait, or choose another --out.")
    try:
        forget_programs(folder)
        start = time.perf_counter()
        costs = pilot(designs, facts, folder)
    finally:
        os.close(held)
    seeds = num_seeds(costs, facts, minutes=minutes, workers=workers) if seeds is None else seeds
    steps = num_steps(costs, facts, minutes=minutes, seeds=seeds, workers=workers)
    return as_dict(costs, steps) | {"pilot_seconds": round(time.perf_counter() - start, 3)}, seeds
