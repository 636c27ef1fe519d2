"""The numbers of a comparison: who is ahead, by how much, and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lggwjax.report.statistics import Interval, holm, mean_interval
from lggwjax.report.studies.common import ALPHA, number, p_over_seeds
from lggwjax.report.studies.compare_stages import Together, moved_together
from lggwjax.report.study import StudyRecords

Kind = Literal["go", "equal", "collect", "seeds", "stop"]


class Pair(NamedTuple):
    """Two designs, the one with the lower mean loss first.

    Attributes:
        better: Its name.
        worse: The other's.
        found: By how much the other's held-out loss is higher, over paired seeds.
        p: Adjusted for all pairs, after Holm; NaN where nothing was tested.
    """

    better: str
    worse: str
    found: Interval
    p: float

    @property
    def decided(self) -> bool:
        """Whether the difference is not zero, at 5% for all pairs together."""
        return self.p <= ALPHA


@dataclass(frozen=True)
class Comparison:
    """All that a page about a comparison says, in numbers.

    Attributes:
        names: Of the designs, lowest mean held-out loss first; designs that diverged or were not run come last.
        whole: ``{design: {quantity: one number a seed}}`` of the runs on all samples, NaN for what is not there.
        half: The same of those on half of them.
        records: The measured steps of the runs on all samples, by design: results of its points.
        overlap: See `resampled_interval`.
        worth: Smallest difference in loss worth deciding.
        pairs: All pairs of designs that can be compared.
        beats: By how much each design's held-out loss is below the trivial predictor's, with the adjusted p-value.
        diverged: Seeds in which a design diverged.
        gates: Verdicts of the gate on gradient domination, by design.
        together: LGGW/rms against the gap.
        kind: What to do: ``go`` with a winner; ``equal``: no winner, and the simplest of those ahead will do; ``collect``
            more samples; more ``seeds``; ``stop``.
        chosen: The design that is recommended, or that is ahead; None if there is none.
    """

    names: list[str]
    whole: dict[str, dict[str, np.ndarray]]
    half: dict[str, dict[str, np.ndarray]]
    records: dict[str, list[dict[str, Any]]]
    overlap: float
    worth: float
    pairs: list[Pair]
    beats: dict[str, tuple[Interval, float]]
    diverged: dict[str, int]
    gates: dict[str, list[str]]
    together: Together
    kind: Kind
    chosen: str | None

    @property
    def ranked(self) -> list[str]:
        """Designs that can be compared, lowest mean held-out loss first."""
        return [name for name in self.names if name in self.beats]

    @property
    def contenders(self) -> list[str]:
        """The design ahead and those that it is not decided to be better than."""
        return [*self.ranked[:1], *(pair.worse for pair in self.against_leader() if not pair.decided)]

    @property
    def simplest(self) -> str | None:
        """The contender with the fewest parameters, of those whose mean is not worth deciding from the lowest."""
        close = [pair.worse for pair in self.against_leader() if not pair.decided and pair.found.value <= self.worth]
        sizes = {name: float(np.nanmax(self.whole[name]["num_parameters"])) for name in [*self.ranked[:1], *close]}
        return min(sizes, key=lambda name: sizes[name]) if sizes else None

    @property
    def num_seeds(self) -> int:
        """Seeds of the comparison."""
        return len(next(iter(self.whole.values()))["best_loss"])

    def mean(self, name: str, quantity: str) -> Interval:
        """Return a design's mean over seeds."""
        return resampled_interval(self.whole[name][quantity], self.overlap)

    def against_leader(self) -> list[Pair]:
        """Return the pairs that the design ahead is in."""
        return [pair for pair in self.pairs if pair.better == self.ranked[0]] if self.ranked else []


def resampled_interval(values: ArrayLike, overlap: float, level: float = 0.95) -> Interval:
    r"""Estimate a mean over seeds that draw from the same rows again and again.

    .. math:: \bar x \pm t_{(1 + level) / 2,\, J - 1} \; s \sqrt{1/J + \rho / (1 - \rho)}

    Splits of one table share rows, so their results depend on each other and :math:`s / \sqrt J` is too short. With
    rho, the share of rows that is held out, this is the corrected resampled t-interval of Nadeau and Bengio (2003); where
    seeds use only a part of the rows, rho is smaller by the share of rows that two seeds have in common, and 0 where
    every seed draws new samples.

    Args:
        values: One number a seed; NaN is left out.
        overlap: rho, from 0 to below 1.
        level: Confidence.

    Returns:
        The mean; NaN ends for fewer than two seeds.

    Example:
        >>> plain, wider = (resampled_interval([1.0, 2.0, 3.0], rho) for rho in (0.0, 1 / 3))
        >>> round(wider.stderr / plain.stderr, 4)
        1.5811
    """
    plain = mean_interval(values, level)
    if plain.num < 2:
        return plain
    stderr = plain.stderr * math.sqrt(1 + plain.num * overlap / (1 - overlap))
    half = float(stats.t.ppf((1 + level) / 2, plain.num - 1)) * stderr
    return Interval(plain.value, plain.value - half, plain.value + half, stderr, plain.num)


def compared(study: StudyRecords) -> Comparison:
    """Turn the points of a comparison into numbers and a decision.

    Args:
        study: A study of the name ``compare``.

    Returns:
        The numbers.
    """
    config = study.config
    names = [design["name"] for design in config["designs"]]
    num_samples, overlap = config["data"]["num_samples"], float(config["data"]["overlap"])
    seeds = range(int(config["seeds"]))
    whole = {name: _column(study, name, seeds, num_samples) for name in names}
    half = {name: _column(study, name, seeds, num_samples // 2) for name in names}
    diverged = {name: int(np.nansum(~np.isnan(whole[name]["diverged"]))) for name in names}
    able = [name for name in names if not diverged[name] and np.isfinite(whole[name]["best_loss"]).any()]
    order = sorted(able, key=_ranked_by(whole, able))
    lowest = float(np.nanmean(whole[order[0]]["best_loss"])) if order else math.nan
    worth = float(config["question"]["worth"]) * lowest
    pairs = _pairs(order, whole, overlap)
    beats = _beats(order, whole, overlap)
    records = {
        name: [p["result"] for p in study.points if _is(p, name, num_samples) and "steps" in p["result"]]
        for name in names
    }
    gates = {name: [(r.get("gate") or {}).get("verdict", "not asked") for r in records[name]] for name in names}
    sizes = {name: float(np.nanmax(whole[name]["num_parameters"])) for name in order}
    kind, chosen = _decide(order, pairs, beats, sizes, worth)
    return Comparison(
        names=order + [name for name in names if name not in order],
        whole=whole,
        half=half,
        records=records,
        overlap=overlap,
        worth=worth,
        pairs=pairs,
        beats=beats,
        diverged=diverged,
        gates=gates,
        together=moved_together(order, whole),
        kind=kind,
        chosen=chosen,
    )


def _ranked_by(whole: dict[str, dict[str, np.ndarray]], able: list[str]) -> Callable[[str], float]:
    """Rank on the seeds that all designs have: a seed that one of them misses may be an easy or a hard one."""
    known = np.isfinite([whole[name]["best_loss"] for name in able]).all(0) if able else np.zeros(0, bool)

    def mean_loss(name: str) -> float:
        losses = whole[name]["best_loss"]
        return float(losses[known].mean() if known.any() else np.nanmean(losses))

    return mean_loss


_QUANTITIES = (
    "best_loss",
    "final_loss",
    "best_accuracy",
    "final_accuracy",
    "trivial_loss",
    "trivial_accuracy",
    "lggw_over_rms",
    "gap",
    "num_parameters",
    "diverged",
)


def _is(point: dict[str, Any], name: str, samples: int) -> bool:
    return point["settings"]["design"] == name and point["settings"]["samples"] == samples


def _column(study: StudyRecords, name: str, seeds: range, samples: int) -> dict[str, np.ndarray]:
    found = {quantity: np.full(len(seeds), np.nan) for quantity in _QUANTITIES}
    for point in study.points:
        if _is(point, name, samples) and point["settings"]["seed"] in seeds:
            for quantity, column in found.items():
                column[point["settings"]["seed"]] = number(point["result"], quantity)
    return found


def _pairs(order: list[str], whole: dict[str, dict[str, np.ndarray]], overlap: float) -> list[Pair]:
    both = list(itertools.combinations(order, 2))
    found = [resampled_interval(whole[b]["best_loss"] - whole[a]["best_loss"], overlap) for a, b in both]
    adjusted = holm([p_over_seeds(interval) for interval in found])
    return [Pair(a, b, interval, float(p)) for (a, b), interval, p in zip(both, found, adjusted, strict=True)]


def _beats(
    order: list[str], whole: dict[str, dict[str, np.ndarray]], overlap: float
) -> dict[str, tuple[Interval, float]]:
    found = [resampled_interval(whole[name]["trivial_loss"] - whole[name]["best_loss"], overlap) for name in order]
    adjusted = holm([p_over_seeds(interval) for interval in found])
    return {name: (interval, float(p)) for name, interval, p in zip(order, found, adjusted, strict=True)}


def _decide(
    order: list[str],
    pairs: list[Pair],
    beats: dict[str, tuple[Interval, float]],
    sizes: dict[str, float],
    worth: float,
) -> tuple[Kind, str | None]:
    if not order:
        return "stop", None
    ahead = order[0]
    gain, p = beats[ahead]
    if not any(gain.value > 0 for gain, _ in beats.values()):
        return "stop", None
    if math.isnan(p):
        return "seeds", ahead
    if not p <= ALPHA or gain.value <= 0:
        return "collect", ahead
    against = [pair for pair in pairs if pair.better == ahead]
    open_pairs = [pair for pair in against if not pair.decided]
    if not open_pairs:
        return "go", ahead
    if any(math.isnan(pair.p) for pair in open_pairs):
        return "seeds", ahead
    if all(pair.found.high <= worth for pair in open_pairs):
        return "equal", min([ahead, *(pair.worse for pair in open_pairs)], key=lambda name: sizes[name])
    return "collect", ahead
