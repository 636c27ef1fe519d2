"""How quantities grow with the model's width, in the runs of the study on width scaling: slopes and figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from lggwjax.report.drawing import BLUE, GREY, ORANGE, VERMILLION, Line, draw_panels
from lggwjax.report.statistics import Interval, log_slope, mean_interval
from lggwjax.report.studies.cases import cases_of, seed_band
from lggwjax.report.studies.common import MIN_SEEDS, number
from lggwjax.report.studies.featurizer_runs import expected_chi
from lggwjax.report.study import StudyRecords
from lggwjax.report.style import CYCLE, MARKERS
from lggwjax.report.table import number_text

UNEVEN = 0.01
"""p-value of Bartlett's test below which the spread over seeds plainly differs between the widths."""
_LABEL_GAP, _HIGHEST = 0.14, 0.93  # of a panel's height; higher up the title is met
_BOUNDS = (("deviation", "measured deviation"), ("bound_seen", "bound (descriptive)"))


@dataclass(frozen=True)
class Growth:
    """All runs of one initialisation.

    Attributes:
        init: Its name.
        table: A row a run: ``width``, ``seed`` and every number; NaN for what is not known.
        settings: Of its first run.
    """

    init: str
    table: pd.DataFrame
    settings: Mapping[str, Any]

    @property
    def widths(self) -> list[int]:
        """Model widths, ascending."""
        return [int(width) for width in np.unique(self.column("width")).tolist()]

    @property
    def num_seeds(self) -> int:
        """Seeds that were run at two widths or more."""
        return int((np.isfinite(self.rows("width")).sum(1) > 1).sum())

    def column(self, name: str) -> np.ndarray:
        """A quantity, one number a run; NaN where it is not known at all."""
        if name not in self.table:
            return np.full(len(self.table), math.nan)
        return self.table[name].to_numpy(float)

    def rows(self, name: str) -> np.ndarray:
        """A quantity, a row a seed and a column a width."""
        widths, seeds = self.column("width"), self.column("seed")
        found = np.full((len(np.unique(seeds)), len(self.widths)), math.nan)
        found[np.searchsorted(np.unique(seeds), seeds), np.searchsorted(self.widths, widths)] = self.column(name)
        return found

    def slope(self, name: str, over: str | None = None) -> Interval:
        """Exponent with which a quantity, or its ratio to another one, grows with the width; all runs together."""
        values = self.column(name) / (
            1.0 if over is None else np.where(self.column(over) > 0, self.column(over), np.nan)
        )
        return log_slope(self.column("width"), values)

    def seed_slopes(self, name: str) -> list[float]:
        """The exponent in each seed by itself, where two widths are known."""
        found = [log_slope(self.widths, row).value for row in self.rows(name)]
        return [slope for slope in found if math.isfinite(slope)]

    def last_slope(self, name: str) -> Interval:
        """Exponent between the two largest widths, averaged over seeds."""
        if len(self.widths) < 2:
            return mean_interval([])
        ends, pair = self.rows(name)[:, -2:], self.widths[-2:]
        return mean_interval([log_slope(pair, row).value for row in ends])

    def uneven(self, name: str) -> bool:
        """Whether the spread over seeds plainly differs between widths, so that intervals of slopes are approximate."""
        values = self.rows(name)
        if values.shape[0] < MIN_SEEDS or values.shape[1] < 2 or not (np.isfinite(values) & (values > 0)).all():
            return False
        logs = np.log(values)
        if not (logs.std(0) > 1e-12).all():
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = stats.bartlett(*logs.T)
        return float(found.pvalue) < UNEVEN


class Series(NamedTuple):
    """A line of a panel: its name, whose it is, the quantity and the looks."""

    label: str
    growth: Growth
    name: str
    colour: str | None = None
    marker: str = "o"
    theory: bool = False
    dashes: str = "-"


def growths_of(study: StudyRecords) -> list[Growth]:
    """Read the runs, initialisation by initialisation."""
    found = []
    for case in cases_of(study, "init"):
        points = [p for p in study.points if str(p["settings"].get("init")) == case.name]
        rows = [_row(point) for point in points]
        found.append(Growth(case.name, pd.DataFrame(rows).sort_values(["width", "seed"]), case.settings))
    return found


def by_init(growths: Sequence[Growth], name: str) -> list[Series]:
    """One line an initialisation."""
    looks = zip(CYCLE, MARKERS, strict=True)
    return [Series(growth.init, growth, name, *look) for growth, look in zip(growths, looks, strict=False)]


def bounds_of(growth: Growth) -> list[Series]:
    """The measured deviation and the bounds on it."""
    measured, seen = (Series(title, growth, name) for name, title in _BOUNDS)
    certified = Series("bound (certified)", growth, "bound_certified", ORANGE, theory=True, dashes="--")
    return [
        measured._replace(colour=BLUE),
        seen._replace(colour=GREY, theory=True, dashes=":"),
        certified._replace(colour=VERMILLION),
    ]


def feature_bounds_of(growth: Growth) -> list[Series]:
    """The featurizer's width and what bounds it, over the largest norm of the features."""
    named = (("l1", "l1 ball, bound (certified)", "-."), ("sparse", "k-sparse, bound (certified)", ":"))
    balls = (*named, ("l2", "l2 ball, bound (certified)", "--"))
    colours = (ORANGE, VERMILLION, GREY)
    found = [Series("measured", growth, "feature_width_over_norm", BLUE)]
    return found + [
        Series(title, growth, f"feature_bound_{name}_over_norm", colour, theory=True, dashes=dashes)
        for (name, title, dashes), colour in zip(balls, colours, strict=True)
    ]


def draw_growth(panels: Sequence[tuple[str, Sequence[Series]]], ylabel: str, *, sharey: bool = False) -> Figure:
    """Draw quantities against the width, each line with its fitted slope at its end.

    Args:
        panels: Titles and lines.
        ylabel: What the vertical axes show.
        sharey: Whether all have one vertical scale.

    Returns:
        The figure.
    """
    lines = [(title, [_line(series) for series in its]) for title, its in panels]
    fig, axes = draw_panels(lines, "width of the model", ylabel, xlog=True, ylog=True, sharey=sharey)
    names = {series.label for _, its in panels for series in its}
    fig.set_size_inches(5.4, float(fig.get_figheight()) + 0.12 * len(names))
    for ax, (_, its) in zip(axes.flat, panels, strict=False):
        _label_slopes(ax, its)
    return fig


def _row(point: dict[str, Any]) -> dict[str, Any]:
    settings, numbers = point["settings"], point["result"].get("numbers", {})
    row: dict[str, Any] = {"width": float(settings["width"]), "seed": int(settings.get("seed", 0))}
    row |= {name: number(numbers, name) for name in numbers}
    # The l2 ball's width is the largest norm times the mean norm of a standard Gaussian vector of the features' number.
    sizes = settings.get("config", {}).get("model", {}).get("widths") or [settings["width"]]
    norm = number(numbers, "feature_bound_l2") / expected_chi(float(sizes[-1]))
    for name in ("feature_width", *(f"feature_bound_{ball}" for ball in ("l1", "sparse", "l2"))):
        row[f"{name}_over_norm"] = number(numbers, name) / norm if norm > 0 else math.nan
    return row


def _line(series: Series) -> Line:
    growth = series.growth
    mean, low, high = seed_band(growth.rows(series.name))
    ends = (None, None) if series.theory else (low, high)
    looks: dict[str, Any] = {"colour": series.colour, "theory": series.theory, "dashes": series.dashes}
    return Line(series.label, growth.widths, mean, *ends, marker=series.marker, **looks)


def _label_slopes(ax: Axes, lines: Sequence[Series]) -> None:
    """Write the slopes to the right of a panel, at the heights where the lines end, moved apart."""
    ends = []
    for series in lines:
        mean = seed_band(series.growth.rows(series.name))[0]
        known = np.flatnonzero(np.isfinite(mean))
        if known.size:
            point = (float(series.growth.widths[known[-1]]), float(mean[known[-1]]))
            height = float((ax.transScale + ax.transLimits).transform(point)[1])
            ends.append((height, _slope_text(series.growth.slope(series.name)), series.colour))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for height, *_ in ends:
        places.append(max(height, places[-1] + _LABEL_GAP) if places else height)
    for place in reversed(range(len(places))):
        ceiling = _HIGHEST if place == len(places) - 1 else places[place + 1] - _LABEL_GAP
        places[place] = min(places[place], ceiling)
    for place, (_, text, colour) in zip(places, ends, strict=True):
        ax.text(1.03, place, text, transform=ax.transAxes, va="center", fontsize=9, color=colour or GREY)


def _slope_text(slope: Interval) -> str:
    """Write a slope shortly, with as many digits in every panel."""
    if math.isnan(slope.low):
        return number_text(slope.value)
    half = slope.high - slope.value
    places = 2 if half >= 0.005 else 3
    return f"{slope.value:.{places}f} ± {half:.{places}f}".replace("-", "−")
