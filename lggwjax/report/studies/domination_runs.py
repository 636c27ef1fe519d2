"""Loss gap against gradient norm in the runs of the study on gradient domination: numbers and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lggwjax.report.drawing import GREY, INK, Line, draw_panels, style
from lggwjax.report.labels import wrapped
from lggwjax.report.scales import scale_axis
from lggwjax.report.statistics import Interval, log_slope, mean_interval
from lggwjax.report.studies.cases import Case, seed_band
from lggwjax.report.studies.common import number
from lggwjax.report.style import CYCLE, MARKERS

ALPHAS = (1.0, 1.5, 2.0)
NEGLIGIBLE = 0.05
"""Gaps below this share of the run's largest are left out of the fit, as in the gate: the least loss seen is no zero."""
_DASHES = ("--", ":", "-.")


@dataclass(frozen=True)
class Run:
    """One seed of a case: at each checkpoint the held-out loss and the held-out gradient's norm.

    Attributes:
        seed: Its seed.
        steps: Of the checkpoints.
        losses: Held-out losses.
        norms: Held-out gradient norms, unbiased.
        low: Lower ends of their 95% intervals.
        high: Upper ends.
        gate: The gate's answer.
        num_heldout: Samples behind them.
    """

    seed: int
    steps: np.ndarray
    losses: np.ndarray
    norms: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gate: Mapping[str, Any]
    num_heldout: int

    def gaps(self, from_zero: bool = False) -> np.ndarray:
        """Losses above the least one seen, or above 0: the least possible one lies between."""
        return self.losses - (0.0 if from_zero else self.losses.min(initial=math.inf))

    @property
    def known(self) -> np.ndarray:
        """Where the gradient can be told from 0."""
        return (self.low > 0) & np.isfinite(self.norms)

    def exponent(self, from_zero: bool = False) -> float:
        """Slope of the log gap on the log norm; NaN for fewer than three checkpoints that count."""
        gaps = self.gaps()
        used = self.known & (gaps > NEGLIGIBLE * gaps.max(initial=0.0))
        if used.sum() < 3:
            return math.nan
        return log_slope(self.norms[used], self.gaps(from_zero)[used]).value

    def constant(self, alpha: float, from_zero: bool = False) -> float:
        """Largest gap over the norm to the power of alpha; NaN where no gradient can be told from 0."""
        known = self.known
        return float((self.gaps(from_zero)[known] / self.norms[known] ** alpha).max()) if known.any() else math.nan

    def worst(self) -> Interval:
        """Ratio of the gate at the checkpoint that decided, with its interval."""
        places = np.flatnonzero(self.steps == self.gate.get("worst_step"))
        if not places.size:
            return Interval(math.nan, math.nan, math.nan, math.nan, 0)
        value, low, high = (number({"x": self.gate[name][places[0]]}, "x") for name in ("ratios", "low", "high"))
        # Records know no infinity: an upper end that is not there is one.
        return Interval(value, low, math.inf if math.isnan(high) else high, math.nan, self.num_heldout)


def runs_of(case: Case) -> list[Run]:
    """Read the runs of a case."""
    found = []
    for seed, result in zip(case.seeds, case.results, strict=True):
        records = [record for record in result["records"] if record.get("heldout_loss") is not None]
        norms = [record.get("heldout_grad_norm") or {} for record in records]
        ends = [norm.get("ci95") or (None, None) for norm in norms]
        column = lambda values: np.array([math.nan if x is None else float(x) for x in values])  # noqa: E731
        found.append(
            Run(
                seed,
                column(record["step"] for record in records),
                column(record["heldout_loss"] for record in records),
                column(norm.get("value") for norm in norms),
                column(end[0] for end in ends),
                column(end[1] for end in ends),
                result.get("gate") or {},
                int(result.get("num_heldout") or 0),
            )
        )
    return found


def exponent(runs: Sequence[Run], from_zero: bool = False) -> Interval:
    """Average the runs' exponents, each run a replicate."""
    return mean_interval([run.exponent(from_zero) for run in runs])


def constant(runs: Sequence[Run], alpha: float, from_zero: bool = False) -> float:
    """Smallest constant that all runs' checkpoints agree with; NaN for none."""
    known = [c for c in (run.constant(alpha, from_zero) for run in runs) if math.isfinite(c)]
    return max(known) if known else math.nan


def draw_gaps(panels: Sequence[tuple[str, Sequence[Run]]], *, from_zero: bool = False) -> Figure:
    """Draw gap against norm, a panel a case and a colour a seed, under the envelopes at each alpha."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    seeds = sorted({run.seed for _, runs in panels for run in runs})
    looks = {seed: (CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i, seed in enumerate(seeds)}
    with style():
        fig = Figure(figsize=(5.0, 2.2 * rows + 1.1), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        for ax, (title, runs) in zip(axes.flat, panels, strict=False):
            ax.set_title(wrapped(title, 60 // columns))
            _lay_out(ax, runs, from_zero, 3.4 if columns == 1 else 1.6)
            for run in runs:
                _draw_run(ax, run, looks[run.seed], from_zero)
            _draw_envelopes(ax, runs, from_zero)
        fig.supxlabel("norm of the held-out gradient (nats per unit of parameter)", fontsize=10)
        fig.supylabel("held-out loss (nats)" if from_zero else "held-out loss above the least seen (nats)", fontsize=10)
        left = [
            Line2D([], [], color=colour, marker=marker, linewidth=0.8, label=f"seed {seed}")
            for seed, (colour, marker) in looks.items()
        ]
        left.append(
            Line2D([], [], color=INK, marker="<", markerfacecolor="white", linestyle="", label="gradient may be 0")
        )
        right = [
            Line2D([], [], color=GREY, linestyle=dash, linewidth=1.3, label=f"envelope α = {alpha:g} (descriptive)")
            for alpha, dash in zip(ALPHAS, _DASHES, strict=True)
        ]
        if columns > 1:  # columns are filled in order: the first one gets as many entries as the second
            left += [Line2D([], [], linestyle="", label=" ")] * (len(right) - len(left))
        fig.legend(handles=[*left, *right], loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5)
    return fig


def draw_training(panels: Sequence[tuple[str, Sequence[Run]]]) -> Figure:
    """Draw gap and norm against the step, averaged over the seeds."""
    drawn = []
    for title, runs in panels:
        steps = sorted(set.intersection(*(set(run.steps.tolist()) for run in runs)))
        at = [np.searchsorted(run.steps, steps) for run in runs]
        # The best checkpoint's gap is 0 by its definition, which a logarithmic axis cannot show.
        gaps = [np.where(run.gaps() > 0, run.gaps(), np.nan)[i] for run, i in zip(runs, at, strict=True)]
        norms = [run.norms[i] for run, i in zip(runs, at, strict=True)]
        named = (("loss above the least seen (nats)", gaps), ("gradient norm (nats per unit)", norms))
        drawn.append((title, [Line(name, steps, *seed_band(rows)) for name, rows in named]))
    return draw_panels(drawn, "training step", "loss gap and gradient norm", xlog=True, ylog=True, sharey=False)[0]


def numbers_of(panels: Sequence[tuple[str, Sequence[Run]]]) -> pd.DataFrame:
    """Gather what the figures draw, a row a checkpoint."""
    return pd.DataFrame(
        [
            {
                "case": title,
                "seed": run.seed,
                "step": int(run.steps[i]),
                "heldout_loss": run.losses[i],
                "gap_above_least_seen": run.gaps()[i],
                "gradient_norm": run.norms[i],
                "ci95_low": run.low[i],
                "ci95_high": run.high[i],
                "in_envelope": bool(run.known[i]),
            }
            for title, runs in panels
            for run in runs
            for i in range(len(run.steps))
        ]
    )


def _lay_out(ax: Axes, runs: Sequence[Run], from_zero: bool, room: float) -> None:
    gaps = np.concatenate([run.gaps(from_zero) for run in runs])
    known = np.concatenate([run.known for run in runs]) & (gaps > 0)
    norms, low, high = (np.concatenate([getattr(run, name) for run in runs]) for name in ("norms", "low", "high"))
    shown = np.concatenate([norms[known], high[gaps > 0]])
    if not (shown.size and np.isfinite(shown).any()):
        return
    # Bars that come near 0 would stretch the axis over decades that say nothing.
    least = float(np.nanmin(shown)) / 3
    scale_axis(ax, "x", np.concatenate([shown, low[known & (low > least)]]), log=True, room=room)
    scale_axis(ax, "y", gaps[gaps > 0], log=True, room=1.6)


def _draw_run(ax: Axes, run: Run, look: tuple[str, str], from_zero: bool) -> None:
    colour, marker = look
    gaps, known = run.gaps(from_zero), run.known
    drawn = gaps > 0
    left = ax.get_xlim()[0]
    there = known & drawn
    ax.plot(run.norms[there], gaps[there], color=colour, linewidth=0.8, alpha=0.7, marker=marker, markersize=4.5)
    ax.hlines(gaps[there], np.maximum(run.low[there], left), run.high[there], color=colour, alpha=0.35, linewidth=1.2)
    lost = drawn & ~known & np.isfinite(run.high)
    ax.plot(run.high[lost], gaps[lost], linestyle="", marker="<", color=colour, markerfacecolor="white", markersize=6)
    ax.hlines(gaps[lost], left, run.high[lost], color=colour, alpha=0.35, linewidth=1.2)
    if there.any():
        first = int(np.flatnonzero(there)[0])
        ax.plot(run.norms[first], gaps[first], "o", color=colour, markerfacecolor="none", markersize=10)


def _draw_envelopes(ax: Axes, runs: Sequence[Run], from_zero: bool) -> None:
    if ax.get_xscale() != "log":
        return
    x = np.geomspace(*ax.get_xlim(), num=50)
    for alpha, dash in zip(ALPHAS, _DASHES, strict=True):
        c = constant(runs, alpha, from_zero)
        if math.isfinite(c):
            ax.plot(x, c * x**alpha, color=GREY, linestyle=dash, linewidth=1.3, zorder=1.8, scalex=False, scaley=False)
