"""Several runs side by side: which are repetitions of one design, and which design has the lower held-out loss."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lggwjax.report.figures import ratio_columns
from lggwjax.report.records import load_config, load_run
from lggwjax.report.statistics import Interval, holm, mean_interval, p_value, paired_difference

MIN_SEEDS = 3  # common seeds below which two designs are not compared
# Not part of a design: what repeats it, what is only measured, what only describes it.
_NOT_DESIGN = {
    *("data.seed", "training.seed", "data.probe_size", "data.heldout_samples", "data.num_heldout", "data.description"),
    *("data.data_dir", "data.fingerprint"),
}
_NOT_POPULATION = _NOT_DESIGN | {"data.num_samples"}


@dataclass(frozen=True, eq=False)
class Run:
    """A run as it lies on disk.

    Attributes:
        name: What it is called among the others.
        records: The table from `load_run`.
        config: The object from `load_config`.
        design: Its settings without its seed and what is measured.
        seed: Of its samples and initial parameters; None where it was not recorded.
    """

    name: str
    records: pd.DataFrame
    config: Mapping[str, Any]
    design: str
    seed: int | None

    @property
    def final_loss(self) -> float:
        """Held-out loss at the last measurement."""
        return float(self.records["heldout_loss"].iloc[-1])


class Pair(NamedTuple):
    """Two designs, compared on their common seeds: the held-out loss of the first minus that of the second."""

    first: str
    second: str
    difference: Interval
    adjusted: float  # p-value, for being one of several


def load_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several runs.

    Args:
        folders: Run folders, two or more.

    Returns:
        The runs, each with a short name of its own.

    Raises:
        ValueError: If there are fewer than two, one is named twice, is no run folder, or has no measurement yet.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < max(2, len(paths)):
        raise ValueError(f"Expected two or more different runs, got {', '.join(map(str, folders))}. Name each once.")
    runs = []
    for path, name in zip(paths, _short(paths), strict=True):
        records, config = load_run(path), load_config(path)
        if records.empty:
            raise ValueError(f"Expected at least one measurement in {str(path)!r}, got none. Let the run reach one.")
        seeds = [_settings(config).get(f"{part}.seed") for part in ("data", "training")]
        seed = next((seed for seed in seeds if isinstance(seed, int)), None)
        runs.append(Run(name, records, config, _without(config, _NOT_DESIGN), seed))
    return runs


def design_names(runs: Sequence[Run]) -> dict[str, str]:
    """Name each design by the settings in which it differs from the others.

    Args:
        runs: From `load_runs`.

    Returns:
        A name for each ``run.design``, in the order of the runs; that of a single run is the run's.
    """
    designs = list(dict.fromkeys(run.design for run in runs))
    settings = {design: json.loads(design) for design in designs}
    keys = sorted({key for one in settings.values() for key in one})
    varied = [key for key in keys if len({json.dumps(one.get(key)) for one in settings.values()}) > 1]
    names = {}
    for design in designs:
        of_it = [run for run in runs if run.design == design]
        told = ", ".join(f"{key.split('.')[-1]}={_value(settings[design].get(key))}" for key in varied)
        names[design] = of_it[0].name if len(of_it) == 1 else (told or "all runs")
    return names


def check_widths(runs: Sequence[Run]) -> None:
    """Refuse runs whose widths may not be compared: a width grows with checkpoints, samples and nothing else.

    Args:
        runs: From `load_runs`.

    Raises:
        ValueError: If measured steps, probe sizes or numbers of directions differ, or were not recorded; it says which.
    """
    checked = {
        "measured steps": {tuple(run.records["step"]) for run in runs},
        "samples measured": {_last(run, "lggw.num_samples") for run in runs},
        "random directions": {_last(run, "lggw.num_draws") for run in runs},
    }
    differ = [name for name, found in checked.items() if len(found) > 1]
    if differ:
        raise ValueError(
            f"Expected equal schedules and probes, got different {' and '.join(differ)}. "
            "Measure the runs with the same options to compare their widths."
        )


def one_population(runs: Sequence[Run]) -> bool:
    """Say whether all held-out losses are of the same kind of data, so that lower means better."""
    data = [
        {k: v for k, v in json.loads(_without(run.config, _NOT_POPULATION)).items() if k.startswith("data.")}
        for run in runs
    ]
    return all(one == data[0] for one in data)


def losses_of(runs: Sequence[Run], design: str) -> dict[int | None, float]:
    """Gather the final held-out losses of a design by seed; runs of one seed are averaged."""
    of_it = [run for run in runs if run.design == design and np.isfinite(run.final_loss)]
    seeds = dict.fromkeys(run.seed for run in of_it)
    return {seed: float(np.mean([run.final_loss for run in of_it if run.seed == seed])) for seed in seeds}


def compare_designs(runs: Sequence[Run]) -> list[Pair]:
    """Compare all pairs of designs that have three seeds or more in common, with Holm's correction over the pairs.

    Args:
        runs: From `load_runs`.

    Returns:
        The pairs; none where no two designs share enough seeds, or the data differ.
    """
    if not one_population(runs):
        return []
    found = []
    for first, second in itertools.combinations(dict.fromkeys(run.design for run in runs), 2):
        a, b = losses_of(runs, first), losses_of(runs, second)
        common = [seed for seed in a if seed in b and seed is not None]
        if len(common) >= MIN_SEEDS:
            found.append((first, second, paired_difference([a[s] for s in common], [b[s] for s in common])))
    adjusted = holm([p_value(difference) for *_, difference in found])
    return [Pair(a, b, difference, float(p)) for (a, b, difference), p in zip(found, adjusted, strict=True)]


def over_seeds(runs: Sequence[Run], design: str, column: str) -> pd.DataFrame:
    """Average a quantity over the runs of a design, at the steps that all of them measured.

    Args:
        runs: From `load_runs`.
        design: One of theirs.
        column: Of the records, or ``lggw_over_rms.value``.

    Returns:
        Columns ``step``, ``value``, ``low`` and ``high``, the t interval over the runs; NaN ends for a single run.
    """
    columns = [column_of(run, column).dropna() for run in runs if run.design == design]
    columns = [one for one in columns if len(one)]
    steps = sorted(set.intersection(*(set(one.index) for one in columns))) if columns else []
    rows = [(step, *mean_interval([one[step] for one in columns])[:3]) for step in steps]
    return pd.DataFrame(rows, columns=["step", "value", "low", "high"], dtype=float)


def column_of(run: Run, column: str) -> pd.Series:
    """Pick a quantity by step."""
    table = run.records.join(ratio_columns(run.records))
    return pd.Series(table[column].to_numpy(float), index=run.records["step"].to_numpy())


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{part}.{key}": value
        for part in ("data", "model", "training")
        if isinstance(config.get(part), Mapping)
        for key, value in config[part].items()
    }


def _without(config: Mapping[str, Any], left_out: set[str]) -> str:
    return json.dumps({k: v for k, v in _settings(config).items() if k not in left_out}, sort_keys=True)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _last(run: Run, column: str) -> float:
    return float(run.records[column].fillna(-1).iloc[-1])


def _short(paths: Sequence[Path]) -> list[str]:
    """Name paths by as few of their last parts as tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
