"""What it would take: samples or seeds to decide, what a doubling of the samples brings, and what that costs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lggwjax.report.statistics import Interval
from lggwjax.report.studies.common import ALPHA
from lggwjax.report.studies.comparison import Comparison, resampled_interval
from lggwjax.report.study import StudyRecords

_MOST_SEEDS = 50
_SHARE = 0.8  # of the range in which a spread from few seeds lies


class ToDecide(NamedTuple):
    """What would decide the pair that is hardest to decide.

    Attributes:
        worse: The design that the one ahead could not be told from.
        difference: The difference in loss that would be told: the one seen or, if that is not worth deciding, what
            shows that it is not.
        more: Further rows, as many of them held out as now; None where nothing can be computed.
        low: Lower end of an 80% range, for the spread over few seeds is known badly.
        high: Upper end.
        seeds: Seeds that would do on the same rows; None where no number of them does.
    """

    worse: str
    difference: float
    more: int | None
    low: int | None
    high: int | None
    seeds: int | None


def to_decide(found: Comparison, num_rows: int) -> ToDecide | None:
    """Find what would decide the pairs of the design ahead that are open.

    The spread over seeds is taken to fall as one over the number of rows; the test is that of one pair among all.

    Args:
        found: The comparison.
        num_rows: Rows used by each seed, trained on and held out.

    Returns:
        The needs of the hardest pair; None if no pair is open, or there are no intervals.
    """
    needs = []
    open_pairs = [pair for pair in found.against_leader() if not pair.decided and pair.found.stderr > 0]
    for pair in open_pairs:
        size = abs(pair.found.value)
        aim = size if size >= found.worth else max(size, found.worth - size)
        needs.append(_need(pair.found, aim, pair.worse, found, num_rows))
    return max(needs, key=lambda need: need.more or 0) if needs else None


def beat_trivial(found: Comparison, num_rows: int) -> ToDecide | None:
    """Find what would decide that the design ahead beats the trivial predictor; None if that is decided."""
    if not found.ranked:
        return None
    gain, p = found.beats[found.ranked[0]]
    if p <= ALPHA or not gain.stderr > 0:
        return None
    return _need(gain, max(abs(gain.value), found.worth), "", found, num_rows)


def _need(seen: Interval, aim: float, worse: str, found: Comparison, num_rows: int) -> ToDecide:
    level = 1 - ALPHA / max(1, len(found.pairs))
    kept = found.overlap / (1 - found.overlap)
    spread = seen.stderr / math.sqrt(1 / seen.num + kept)

    def half(num: int, size: float) -> float:
        return float(stats.t.ppf((1 + level) / 2, num - 1)) * size * math.sqrt(1 / num + kept)

    def more(size: float) -> int:
        return _rounded_up(max(0.0, ((half(seen.num, size) / aim) ** 2 - 1) * num_rows))

    seeds = next((j for j in range(seen.num + 1, _MOST_SEEDS + 1) if half(j, spread) <= aim), None)
    # The spread's own uncertainty: (J - 1) s^2 / sigma^2 has a chi-squared law.
    ends = stats.chi2.ppf([(1 + _SHARE) / 2, (1 - _SHARE) / 2], seen.num - 1)
    low, high = (spread * math.sqrt((seen.num - 1) / end) for end in ends)
    return ToDecide(worse, aim, more(spread), more(low), more(high), seeds)


def _rounded_up(number: float) -> int:
    """Round up to two significant digits: nobody knows more of them."""
    size = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return math.ceil(number / size) * size


class Doubling(NamedTuple):
    """What twice the samples did.

    Attributes:
        drop: How much the held-out loss fell from half of the samples to all of them.
        exponent: The same as the exponent of a power law that falls to zero: the fastest that the two sizes allow.
        wanted: The held-out loss asked for, or None.
        least: Samples to train on that the wanted loss takes at least, by that power law; None where more samples were
            not seen to help, or it is reached.
        reached: Whether the wanted loss is reached.
    """

    drop: Interval
    exponent: Interval
    wanted: float | None
    least: int | None
    reached: bool


def doubling(found: Comparison, name: str, num_samples: int, wanted: float | None) -> Doubling:
    """Judge what more samples bring a design, from half of them and all, on the same held-out samples.

    Args:
        found: The comparison.
        name: The design.
        num_samples: Samples trained on.
        wanted: A held-out loss, or None.

    Returns:
        What was seen; two sizes give no curve, so that only the least number of samples follows.
    """
    half, whole = found.half[name]["best_loss"], found.whole[name]["best_loss"]
    drop = resampled_interval(half - whole, found.overlap)
    with np.errstate(invalid="ignore", divide="ignore"):
        exponent = resampled_interval(np.log2(half / whole), found.overlap)
    loss = found.mean(name, "best_loss").value
    reached = wanted is not None and loss <= wanted
    least = None
    if wanted is not None and not reached and exponent.low > 0:
        factor = (loss / wanted) ** (1 / exponent.high)
        least = _rounded_up(num_samples * factor) if factor < 1e6 else None
    return Doubling(drop, exponent, wanted, least, reached)


def seconds_of(study: StudyRecords, name: str) -> float:
    """One run of a design on all samples, in seconds, as the pilot saw it."""
    plan = study.config["plan"]
    cost: dict[str, Any] = plan["costs"][name]
    return float(cost["step"]) * int(plan["steps"][name]) + float(cost["whole"])


def seconds_spent(study: StudyRecords) -> float:
    """The pilot and all points, in seconds of one process."""
    return float(study.config["plan"]["pilot_seconds"]) + sum(float(p.get("seconds", 0)) for p in study.points)
