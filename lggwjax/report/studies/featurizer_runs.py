"""Features along training and layers at its end, in the runs of the study on the featurizer: numbers and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from lggwjax.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, Line, draw_panels, style
from lggwjax.report.scales import scale_axis
from lggwjax.report.statistics import Interval, mean_interval, paired_difference
from lggwjax.report.studies.cases import Case, seed_band
from lggwjax.report.studies.common import number

MOST_LEAVES = 7  # of a model, in the figure; the rest is drawn as one row
_COLUMNS = ("train_loss", "heldout_loss", "active_share", "l1", "l2", "l1_over_l2", "largest_l2", "m")


@dataclass(frozen=True)
class Features:
    """A case's featurizer along training, at the steps that all its seeds were measured at.

    Attributes:
        steps: Those steps.
        table: A row a seed and step: what was recorded, ``width``, ``bound_l1``, ``bound_sparse``, ``bound_l2``, and
            ``filled`` (L1 over L2 over the root of m, 1 for units that are all alike) and ``relative`` (the width over
            that of the l2 ball of the largest norm).
        num_points: Feature vectors looked at, 0 not counted.
    """

    steps: tuple[int, ...]
    table: pd.DataFrame
    num_points: int

    def rows(self, name: str) -> np.ndarray:
        """One quantity, a row a seed and a column a step."""
        return self.table[name].to_numpy(float).reshape(-1, max(1, len(self.steps)))

    def ends(self, name: str) -> tuple[Interval, Interval, Interval]:
        """Mean over seeds at the start, at the end, and of the change from start to end."""
        values = self.rows(name)
        start, end = (values[:, 0], values[:, -1]) if len(self.steps) else (np.empty(0), np.empty(0))
        return mean_interval(start), mean_interval(end), paired_difference(end, start)

    @property
    def dimension(self) -> float:
        """Features m; NaN where it is not known."""
        return float(self.table["m"].iloc[-1]) if len(self.table) else math.nan

    @property
    def cap(self) -> float:
        """Width that so many points, and 0, have at most, over that of the l2 ball that they lie in."""
        return math.sqrt(2) * expected_max(self.num_points + 1) / expected_chi(self.dimension)


class Leaf(NamedTuple):
    """A leaf of the parameters: its share of the layers' widths, and which factor makes more of it."""

    name: str
    kind: str
    size: int
    width: Interval
    share: float
    share_error: float
    made_by: str


def features_of(case: Case) -> Features:
    """Read a case's records."""
    found = [{record["step"]: record for record in result["features"]} for result in case.results]
    steps = tuple(sorted(set.intersection(*(set(records) for records in found)))) if found else ()
    rows = []
    for seed, records in zip(case.seeds, found, strict=True):
        for step in steps:
            record = records[step]
            row = {"case": case.name, "seed": seed, "step": step} | {name: number(record, name) for name in _COLUMNS}
            row |= {f"bound_{name}": number(record.get("bounds", {}), name) for name in ("l1", "sparse", "l2")}
            row["width"] = number(record.get("width") or {}, "value")
            rows.append(row)
    names = ["case", "seed", "step", *_COLUMNS, "bound_l1", "bound_sparse", "bound_l2", "width"]
    table = pd.DataFrame(rows, columns=pd.Index(names))
    table["filled"] = table["l1_over_l2"] / np.sqrt(table["m"])
    table["relative"] = table["width"] / table["bound_l2"].replace(0.0, math.nan)
    num_points = case.settings.get("config", {}).get("data", {}).get("probe_size") or 1
    return Features(steps, table, int(num_points))


def leaves_of(layers: Sequence[Mapping[str, Any]]) -> list[Leaf]:
    """Read a layer table's records, the largest share first."""
    total = sum(number(row, "measured") for row in layers)
    found = []
    for row in layers:
        inputs, cotangents = number(row, "from_inputs"), number(row, "from_cotangents")
        made_by = "" if math.isnan(inputs + cotangents) else "inputs" if inputs >= cotangents else "cotangents"
        width, error = number(row, "measured"), number(row, "stderr")
        interval = Interval(width, width - 1.96 * error, width + 1.96 * error, error, 1)
        share_error = error / total if total > 0 else math.nan
        parts = [part for part in re.findall(r"[\w-]+", str(row["name"])) if part not in ("params", "layers")]
        found.append(
            Leaf(
                ".".join(parts),
                str(row.get("kind", "")),
                int(row.get("size") or 0),
                interval,
                number(row, "share"),
                share_error,
                made_by,
            )
        )
    return sorted(found, key=lambda leaf: -leaf.share)


def is_head(leaf: Leaf) -> bool:
    """Whether it belongs to the last layer, which takes the features in."""
    return "head" in leaf.name.split(".")


def head_share(case: Case) -> Interval:
    """Share of the last layer, averaged over the seeds whose layers were looked at."""
    tables = [leaves_of(result["layers"]) for result in case.results if result.get("layers")]
    return mean_interval([sum(leaf.share for leaf in leaves if is_head(leaf)) for leaves in tables])


def expected_chi(dimension: float) -> float:
    """Width of the unit l2 ball of a dimension.

    Example:
        >>> round(expected_chi(10), 6)
        3.084328
    """
    return math.sqrt(2) * math.exp(math.lgamma((dimension + 1) / 2) - math.lgamma(dimension / 2))


def expected_max(num: int) -> float:
    """Mean of the largest of so many independent normal numbers.

    Example:
        >>> round(expected_max(10), 5)
        1.53875
    """
    x = np.linspace(0, 9, 20_001)
    return float(np.trapezoid(1 - stats.norm.cdf(x) ** num - stats.norm.cdf(-x) ** num, x))


def draw_sparsity(panels: Sequence[tuple[Case, Features]]) -> Figure:
    """Draw the active share and L1 over L2 against the step, a line a case."""
    named = (("active share (L0)", "active_share"), ("L1 / (L2 √m)", "filled"))
    drawn = [
        (title, [Line(case.name, found.steps, *seed_band(found.rows(name))) for case, found in panels])
        for title, name in named
    ]
    return _taller(draw_panels(drawn, "training step", "share (1 is dense)", xlog=True)[0], 0.4)


def draw_sizes(panels: Sequence[tuple[Case, Features]]) -> Figure:
    """Draw the norms and the width against the step, a panel a case."""
    named = (("L1 norm (mean)", "l1"), ("L2 norm (mean)", "l2"), ("width", "width"))
    drawn = [
        (case.name, [Line(title, found.steps, *seed_band(found.rows(name))) for title, name in named])
        for case, found in panels
    ]
    return _taller(draw_panels(drawn, "training step", "size (no unit)", xlog=True, ylog=True, sharey=False)[0], 0.4)


def draw_bounds(panels: Sequence[tuple[Case, Features]]) -> Figure:
    """Draw the width and what bounds it over the width of the l2 ball, a panel a case."""
    drawn = []
    for case, found in panels:
        balls = found.rows("bound_l2")
        lines = [Line("measured", found.steps, *seed_band(found.rows("relative")), colour=BLUE)]
        named = (("l1", "l1 ball, bound (certified)"), ("l2", "l2 ball, bound (certified)"))
        for (name, title), dashes in zip((*named, ("sparse", "k-sparse, bound (certified)")), _DASHES, strict=True):
            mean = seed_band(found.rows(f"bound_{name}") / np.where(balls > 0, balls, math.nan))[0]
            lines.append(Line(title, found.steps, mean, theory=True, colour=_COLOURS[name], dashes=dashes))
        cap = np.full(len(found.steps), found.cap)
        title = f"any {found.num_points} points (certified)"
        lines.append(Line(title, found.steps, cap, theory=True, colour=INK, dashes=":"))
        drawn.append((case.name, lines))
    label = "width over the l2 ball's"
    return _taller(draw_panels(drawn, "training step", label, xlog=True, ylog=True)[0], 1.0)


def draw_layers(panels: Sequence[tuple[str, Sequence[Leaf]]]) -> Figure:
    """Draw each leaf's share of the layers' widths, a panel a case, coloured by what makes it."""
    shown = [(title, _shown(leaves)) for title, leaves in panels]
    sizes = [len(leaves) + 0.8 for _, leaves in shown]
    with style():
        fig = Figure(figsize=(5.0, 0.24 * sum(sizes) + 0.35 * len(shown) + 0.9), layout="constrained")
        axes = fig.subplots(len(shown), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": sizes})[:, 0]
        highest = max([leaf.share + 2 * leaf.share_error for _, leaves in shown for leaf in leaves], default=1.0)
        for ax, (title, leaves) in zip(axes, shown, strict=True):
            for place, leaf in enumerate(leaves):
                ax.barh(-place, leaf.share, height=0.7, color=_MADE_BY[leaf.made_by], alpha=0.85)
                ends = [leaf.share - 1.96 * leaf.share_error, leaf.share + 1.96 * leaf.share_error]
                if leaf.made_by or leaf.kind:
                    ax.plot(ends, [-place, -place], color="black", linewidth=1.1)
            ax.set_yticks([-place for place in range(len(leaves))], [leaf.name for leaf in leaves])
            for label, leaf in zip(ax.get_yticklabels(), leaves, strict=True):
                label.set_fontweight("bold" if is_head(leaf) else "normal")
            ax.set_ylim(-len(leaves) + 0.4, 0.6)
            scale_axis(ax, "x", np.array([0.0, highest]), limits=(0.0, 1.05 * highest))
            ax.set_title(title)
            ax.tick_params(axis="y", length=0)
            ax.grid(visible=False, axis="y")
            ax.grid(visible=True, axis="x")
        axes[-1].set_xlabel("share of the sum of the layers' widths")
        names = {"inputs": "made by inputs", "cotangents": "made by cotangents", "": "no factors, or several leaves"}
        handles = [fig.axes[0].barh(0, 0, color=_MADE_BY[kind], alpha=0.85, label=name) for kind, name in names.items()]
        fig.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=9.5)
    return fig


_DASHES = ("-.", "--", ":")
_COLOURS = {"l1": ORANGE, "l2": GREY, "sparse": GREEN}
_MADE_BY = {"inputs": BLUE, "cotangents": VERMILLION, "": GREY}


def _taller(fig: Figure, inches: float) -> Figure:
    """Give panels back the height that names above them take."""
    fig.set_figheight(float(fig.get_figheight()) + inches)
    return fig


def _shown(leaves: Sequence[Leaf]) -> list[Leaf]:
    if len(leaves) <= MOST_LEAVES + 1:
        return list(leaves)
    rest = leaves[MOST_LEAVES:]
    none = Interval(math.nan, math.nan, math.nan, math.nan, 0)
    share = sum(leaf.share for leaf in rest)
    return [*leaves[:MOST_LEAVES], Leaf(f"{len(rest)} others", "", sum(x.size for x in rest), none, share, 0.0, "")]
