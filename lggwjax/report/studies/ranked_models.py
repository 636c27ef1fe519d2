"""Trained models of one data set, ranked by measures and by their gap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from lggwjax.report.document import Outcome
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, holm
from lggwjax.report.studies.common import ALPHA, number
from lggwjax.report.studies.ranks import Resamples
from lggwjax.report.study import StudyRecords

MIN_CLUSTERS = 8
"""With fewer combinations of hyperparameters a bootstrap over them says nothing."""
LOW_LOSS_SHARE = 0.6
NEAR_SHARE = 0.1
WIDTH, RATIO = "lggw", "lggw_over_rms"


class Measure(NamedTuple):
    """What models are ranked by.

    Attributes:
        name: In the records.
        title: As it is shown; more of it should mean a larger gap.
        sign: -1 where the record's number is turned round for that.
        kind: ``ours``, ``usual``, or ``progress``, which is a control and no measure of complexity.
    """

    name: str
    title: Text
    sign: int = 1
    kind: str = "usual"


MEASURES = (
    Measure(RATIO, Text.same("LGGW/rms"), kind="ours"),
    Measure(WIDTH, Text.same("LGGW"), kind="ours"),
    Measure("nerc", Text.same("NERC"), kind="ours"),
    Measure("nerc_over_rms", Text.same("NERC/rms"), kind="ours"),
    Measure("union_width", Text("union width", "和集合の幅"), kind="ours"),
    Measure("feature_width", Text("featurizer width", "特徴写像の幅"), kind="ours"),
    Measure("deviation", Text("deviation", "乖離"), kind="ours"),
    Measure("parameter_norm", Text("parameter norm", "パラメータノルム")),
    Measure("distance_from_start", Text("distance from start", "初期値からの距離")),
    Measure("product_of_norms", Text("product of spectral norms", "スペクトルノルムの積")),
    Measure("spectral_complexity", Text("spectral complexity", "スペクトル複雑度")),
    Measure("sharpness", Text("sharpness", "鋭さ")),
    Measure("margin", Text("small margin (−margin)", "小さいマージン（−マージン）"), sign=-1),
    Measure("gradient_variance", Text("gradient variance", "勾配の分散")),
    Measure("train_loss", Text("low train loss (control)", "低い訓練損失（対照）"), sign=-1, kind="progress"),
)


class Ranking(NamedTuple):
    """How a measure orders the models of a data set, beside their gap; all between -1 and 1.

    Attributes:
        num: Models with this number.
        tau: Kendall's tau-b over all models.
        p: Of tau, by the bootstrap.
        adjusted: The same for all measures of the data set, after Holm.
        within: Mean agreement of models that differ in one hyperparameter only, over the hyperparameters.
        axes: The same of each hyperparameter.
        fitted: Kendall's tau-b over the models with a low train loss.
        alike: Mean agreement of models with nearly equal train losses.
        beyond: How far ``alike`` is above that of the train loss itself, which is not quite 0 among such models.
    """

    num: int
    tau: Interval
    p: float
    adjusted: float
    within: Interval
    axes: Mapping[str, Interval]
    fitted: Interval
    alike: Interval
    beyond: Interval

    @property
    def decided(self) -> bool:
        """Whether tau differs from zero, all measures counted."""
        return self.adjusted <= ALPHA

    @property
    def says_more(self) -> Outcome:
        """Whether the measure agrees with the gap beyond how far training got."""
        if self.alike.low > 0 and self.beyond.low > 0:
            return "confirmed"
        return "not confirmed" if self.alike.high < 0 else "not decided"


@dataclass(frozen=True)
class DataSet:
    """The models of one data set.

    Attributes:
        name: Of the data.
        settings: Of each model that ended.
        results: Its numbers.
        num_diverged: Models that became NaN or infinite.
    """

    name: str
    settings: Sequence[Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]
    num_diverged: int

    @cached_property
    def gap(self) -> Float[np.ndarray, " n"]:
        """Held-out loss less train loss."""
        return np.array([number(one, "gap") for one in self.results])

    def values(self, measure: Measure) -> Float[np.ndarray, " n"]:
        """A measure of each model, turned so that more should mean a larger gap; NaN for what is not known."""
        where = [one if measure.kind == "progress" else one.get("measures") or {} for one in self.results]
        return measure.sign * np.array([number(one, measure.name) for one in where])

    @cached_property
    def clusters(self) -> list[tuple]:
        """The combination of hyperparameters of each model: its seeds do not count as different models."""
        return [tuple(sorted(_text(one["hyperparameters"]).items())) for one in self.settings]

    @cached_property
    def axes(self) -> list[str]:
        """Hyperparameters with several values."""
        names = dict.fromkeys(name for one in self.settings for name in one["hyperparameters"])
        return [k for k in names if len({str(one["hyperparameters"].get(k)) for one in self.settings}) > 1]

    @cached_property
    def threshold(self) -> float:
        """The 60th percentile of the train losses, chosen by rule."""
        losses = np.array([number(one, "train_loss") for one in self.results])
        losses = losses[np.isfinite(losses)]
        return float(np.quantile(losses, LOW_LOSS_SHARE)) if len(losses) else math.nan

    @cached_property
    def low(self) -> np.ndarray:
        """Which models have a train loss of at most the threshold."""
        return np.array([number(one, "train_loss") <= self.threshold for one in self.results], dtype=bool)

    @cached_property
    def drawn(self) -> Resamples:
        """Resamples of combinations, shared by all measures."""
        return Resamples(self.clusters)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Every measure's ranking."""
        found = {one.name: self._ranking(one) for one in MEASURES}
        tested = [one.name for one in MEASURES if one.kind != "progress"]
        for name, p in zip(tested, holm([found[name].p for name in tested]), strict=True):
            found[name] = found[name]._replace(adjusted=float(p))
        return found

    def _ranking(self, measure: Measure) -> Ranking:
        x, known = self.values(measure), np.isfinite(self.values(measure)) & np.isfinite(self.gap)
        tau = self.drawn.tau_b(x, self.gap)
        inside = {axis: self.drawn.agreement(x, self.gap, self._pairs(axis)) for axis in self.axes}
        within = np.mean(list(inside.values()), axis=0) if inside else np.full(len(tau), np.nan)
        low = Resamples([one for one, kept in zip(self.clusters, self.low, strict=True) if kept])
        fitted = low.tau_b(x[self.low], self.gap[self.low])
        sure = self._interval(tau, known)
        alike, control = (self.drawn.agreement(one, self.gap, self._near) for one in (x, self.values(MEASURES[-1])))
        return Ranking(
            int(known.sum()),
            sure,
            math.nan if math.isnan(sure.low) else self.drawn.p_value(tau),
            math.nan,
            self._interval(within, known),
            {axis: self._interval(values, known) for axis, values in inside.items()},
            self._interval(fitted, known & self.low, low),
            self._interval(alike, known),
            self._interval(alike - control, known),
        )

    @cached_property
    def _near(self) -> Float[np.ndarray, "n n"]:
        """Pairs of models whose train losses are at most a tenth of the models apart in rank.

        A partial tau would not do: it stays positive where measure and gap both follow the train loss and nothing else.
        """
        losses = np.array([number(one, "train_loss") for one in self.results])
        ranks = rankdata(np.where(np.isfinite(losses), losses, np.inf))
        near = np.abs(ranks[:, None] - ranks[None, :]) <= NEAR_SHARE * len(losses)
        return (near & np.isfinite(losses)[:, None] & np.isfinite(losses)[None, :]).astype(float) * ~np.eye(
            len(losses), dtype=bool
        )

    def _interval(self, values: np.ndarray, known: np.ndarray, drawn: Resamples | None = None) -> Interval:
        num = len({one for one, kept in zip(self.clusters, known, strict=True) if kept})
        if not len(values) or num < MIN_CLUSTERS:
            return Interval(float(values[0]) if len(values) else math.nan, math.nan, math.nan, math.nan, num)
        return (drawn or self.drawn).interval(values)._replace(num=num)

    def _pairs(self, axis: str) -> Float[np.ndarray, "n n"]:
        """Weights of pairs that differ in this hyperparameter only: each group of such models counts once."""
        groups: dict[tuple, list[int]] = {}
        for i, one in enumerate(self.settings):
            others = {k: v for k, v in _text(one["hyperparameters"]).items() if k != axis}
            groups.setdefault((*sorted(others.items()), one.get("seed")), []).append(i)
        weights = np.zeros((len(self.settings), len(self.settings)))
        for group in groups.values():
            pairs = list(itertools.permutations(group, 2))
            for i, j in pairs:
                weights[i, j] = 1 / len(pairs)
        return weights

    def difference(self, first: Measure, second: Measure) -> Interval:
        """Tau of one measure less that of another, on the models that have both and on the same resamples."""
        x, y = self.values(first), self.values(second)
        known = np.isfinite(x) & np.isfinite(y)
        gap = np.where(known, self.gap, np.nan)
        return self._interval(self.drawn.tau_b(x, gap) - self.drawn.tau_b(y, gap), known & np.isfinite(self.gap))


def data_sets(study: StudyRecords) -> list[DataSet]:
    """Gather the models of a study by data set, in its order."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for point in study.points:
        points.setdefault(str(point["settings"]["data"]), []).append(point)
    found = []
    for name, all_ in points.items():
        ended = [one for one in all_ if "diverged" not in one["result"]]
        lists = [one["settings"] for one in ended], [one["result"] for one in ended]
        found.append(DataSet(name, *lists, len(all_) - len(ended)))
    return found


def best_usual(sets: Sequence[DataSet]) -> Measure | None:
    """The usual measure with the largest tau, on average over data sets; None where none has one."""

    def mean_tau(measure: Measure) -> float:
        taus = [one.rankings[measure.name].tau.value for one in sets]
        return float(np.mean(taus)) if taus and np.isfinite(taus).all() else -math.inf

    usual = [one for one in MEASURES if one.kind == "usual" and mean_tau(one) > -math.inf]
    return max(usual, key=mean_tau) if usual else None


def ranking_table(found: DataSet) -> pd.DataFrame:
    """Every number of the rankings of a data set."""
    rows = []
    for measure in MEASURES:
        one = found.rankings[measure.name]
        row = {"data": found.name, "measure": measure.name, "sign": measure.sign, "kind": measure.kind}
        row |= {"models": one.num, "p": one.p, "p_holm": one.adjusted}
        named = {
            "tau": one.tau,
            "within": one.within,
            "low_train_loss": one.fitted,
            "near_train_loss": one.alike,
            "beyond_train_loss": one.beyond,
        }
        for name, interval in (named | {f"within_{axis}": value for axis, value in one.axes.items()}).items():
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def model_table(sets: Sequence[DataSet]) -> pd.DataFrame:
    """Every model with its gap and its measures."""
    return pd.DataFrame(
        [
            {"data": found.name, "seed": asked.get("seed"), **_text(asked["hyperparameters"])}
            | {name: number(result, name) for name in ("gap", "train_loss", "heldout_loss", "accuracy_gap")}
            | {one.name: number(result.get("measures") or {}, one.name) for one in MEASURES[:-1]}
            for found in sets
            for asked, result in zip(found.settings, found.results, strict=True)
        ]
    )


def _text(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
