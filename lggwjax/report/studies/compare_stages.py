"""The stage that asks whether LGGW may explain a comparison: do it and the gap move together on these data?"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from lggwjax.report.statistics import holm, kendall
from lggwjax.report.studies.common import ALPHA

_MOST_ORDERS = 2000


class Together(NamedTuple):
    """Whether LGGW/rms and the gap between held-out and train loss move together on these data.

    Attributes:
        across: Kendall's tau over the designs' means.
        across_p: Two-sided, exact; three designs that line up perfectly have 1/3.
        within: Kendall's tau over the seeds of one design, averaged over designs.
        within_p: Two-sided, by exchanging seeds.
        verdict: ``yes``, ``no`` or ``undecided``; after Holm, for both.
    """

    across: float
    across_p: float
    within: float
    within_p: float
    verdict: Literal["yes", "no", "undecided"]


def moved_together(order: list[str], whole: dict[str, dict[str, np.ndarray]]) -> Together:
    """Ask it across designs and, within designs, across seeds; not along a path, where both usually rise.

    Args:
        order: Designs.
        whole: ``{design: {"lggw_over_rms": one number a seed, "gap": the same}}``.

    Returns:
        What was found.
    """
    nothing = Together(math.nan, math.nan, math.nan, math.nan, "undecided")
    if not order:
        return nothing
    widths = np.stack([whole[name]["lggw_over_rms"] for name in order])
    gaps = np.stack([whole[name]["gap"] for name in order])
    known = np.isfinite(widths).all(0) & np.isfinite(gaps).all(0)
    if not known.any():
        return nothing
    widths, gaps = widths[:, known], gaps[:, known]
    across, across_p = kendall(widths.mean(1), gaps.mean(1)), math.nan
    if math.isfinite(across) and len(order) > 2:
        tested: Any = stats.kendalltau(widths.mean(1), gaps.mean(1))
        across_p = float(tested.pvalue)
    within, within_p = _within(widths, gaps)
    adjusted = holm([across_p, within_p])
    signs = [np.sign(tau) for tau, p in zip((across, within), adjusted, strict=True) if p <= ALPHA]
    verdict = "undecided" if not signs or len(set(signs)) > 1 else "yes" if signs[0] > 0 else "no"
    return Together(across, across_p, within, within_p, verdict)


def _within(widths: np.ndarray, gaps: np.ndarray) -> tuple[float, float]:
    """Tau over seeds, averaged over designs; seeds are exchanged in all designs alike, since they share samples."""

    def tau(order) -> float:
        found = [kendall(w, g[list(order)]) for w, g in zip(widths, gaps, strict=True)]
        return float(np.mean([t for t in found if math.isfinite(t)] or [math.nan]))

    num = widths.shape[1]
    seen = tau(range(num))
    if num < 4 or math.isnan(seen):  # three seeds have six orders: nothing can be decided
        return seen, math.nan
    if math.factorial(num) <= _MOST_ORDERS:
        others = [tau(order) for order in itertools.permutations(range(num))]
    else:
        rng = np.random.default_rng(0)
        others = [seen, *(tau(rng.permutation(num)) for _ in range(_MOST_ORDERS - 1))]
    return seen, float(np.mean(np.abs(others) >= abs(seen) - 1e-12))
