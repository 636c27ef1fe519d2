"""Runs of the reuse study in numbers: when each rule stops, and what passes are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lggwjax.report.statistics import Interval, mean_interval
from lggwjax.report.studies.alarms import Alarm, descent_alarm, loss_alarm, truth

Column = np.ndarray


@dataclass(frozen=True)
class Run:
    """One reused sample, or one stream of fresh ones.

    Attributes:
        data: Name of the data.
        num: n, samples reused; None for a fresh stream.
        seed: Of samples, start and batches.
        samples: Samples taken up to each look, repetitions counted.
        passes: Passes over the sample.
        columns: Numbers of each look by name.
        rules: When each rule says stop: the monitor's, the same without its correction for looking often, and early
            stopping.
        bound: Certified bound on the deviation, and whether it is the sample's own; None without one.
    """

    data: str
    num: int | None
    seed: int
    samples: Column
    passes: Column
    columns: dict[str, Column]
    rules: dict[str, Alarm]
    bound: tuple[float, bool] | None

    @property
    def true_loss(self) -> Column:
        """Loss on samples that no rule saw, or of the population."""
        return self.columns["true_loss"]


def run_of(point: dict[str, Any]) -> Run:
    """Read a point's record."""
    settings, result = point["settings"], point["result"]
    records, looks = result["records"], result["looks"]
    num, size = settings["n"], settings["config"]["training"]["batch_size"] or settings["config"]["data"]["num_samples"]
    steps = np.array([look["step"] for look in looks], float)
    columns = {name: _column(looks, name) for name in ("watched_loss", "true_loss", "descent", "stderr")}
    for name in ("deviation", "lggw", "nerc"):
        columns[name] = np.array([r[name]["value"] if r.get(name) else np.nan for r in records], float)
    columns["gradient_rms"] = _column(records, "gradient_rms")
    return Run(
        data=settings["data"],
        num=num,
        seed=settings["seed"],
        samples=steps * size,
        passes=steps * size / (num or settings["config"]["data"]["num_samples"]),
        columns=columns,
        rules={
            "monitor": descent_alarm(looks),
            "uncorrected": descent_alarm(looks, result["num_watched"]),
            "stopping": loss_alarm(columns["watched_loss"].tolist()),
        },
        bound=_bound(result.get("claims") or [], num),
    )


def _column(rows: list[dict[str, Any]], name: str) -> Column:
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)


def _bound(claims: list[dict[str, Any]], num: int | None) -> tuple[float, bool] | None:
    """The smallest certified bound on a deviation: the sample's own, where the design allows one, else the split's."""
    found = [
        c for c in claims if c["status"] == "certified" and "deviation" in c["quantity"] and "population" in c["about"]
    ]
    own = [c["value"] for c in found if c["n"] == num]
    other = [c["value"] for c in found if c["n"] != num]
    return (min(own), True) if own else (min(other), False) if other else None


def by_size(runs: list[Run], data: str) -> dict[int, list[Run]]:
    """Runs of one data set by sample size."""
    sizes = sorted({run.num for run in runs if run.data == data and run.num is not None})
    return {num: [run for run in runs if run.data == data and run.num == num] for num in sizes}


def lead_of(runs: list[Run]) -> Interval:
    """Looks by which the monitor is earlier, over runs whose loss really rises; who never says stop does so at the end."""
    leads = []
    for run in runs:
        if truth(run.true_loss).rises:
            end = len(run.true_loss)
            first, second = (
                end if alarm.look is None else alarm.look for alarm in (run.rules["monitor"], run.rules["stopping"])
            )
            leads.append(second - first)
    return mean_interval(leads)


def worth_of(run: Run, fresh: Run | None) -> Column:
    """Fresh samples that bring the loss as low as each look's passes did, over n; NaN beyond what was streamed."""
    if fresh is None or run.num is None:
        return np.full(len(run.samples), np.nan)
    lowest = np.minimum.accumulate(fresh.true_loss)
    found = []
    for loss in np.minimum.accumulate(run.true_loss):
        reached = np.flatnonzero(lowest <= loss)
        index = int(reached[0]) if reached.size else -1
        if index <= 0:
            found.append(0.0 if index == 0 else np.nan)
            continue
        # Linear between the two looks of the stream around that loss.
        before, after = lowest[index - 1], lowest[index]
        share = (before - loss) / (before - after) if before > after else 1.0
        samples = fresh.samples[index - 1] + share * (fresh.samples[index] - fresh.samples[index - 1])
        found.append(samples / run.num)
    return np.array(found)
