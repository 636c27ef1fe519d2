"""Points of a study grouped by what was trained, and averages over their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lggwjax.report.document import Finding, Outcome, Table
from lggwjax.report.language import Text
from lggwjax.report.studies.common import MIN_SEEDS
from lggwjax.report.study import StudyRecords

_MODELS = {"ffn": "FFN", "cnn": "CNN", "resnet8": "ResNet-8", "resnet18": "ResNet-18"}
_DATA = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}


@dataclass(frozen=True)
class Case:
    """What was trained with several seeds.

    Attributes:
        name: As figures and tables name it.
        settings: Of its first point.
        seeds: Of the points that are done.
        results: Theirs.
        num_asked: Points of the study, those without a result included.
    """

    name: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]
    num_asked: int

    @property
    def title(self) -> Text:
        """Its name in a sentence."""
        model, on, data = self.name.partition(" on ")
        model = model.replace("linear model", "線形モデル")
        return Text(self.name, f"{model}（{data}）" if on else model)

    @property
    def counted(self) -> Text:
        """How many seeds there are, and of how many."""
        if len(self.seeds) == self.num_asked:
            return Text("{n} seed" if self.num_asked == 1 else "{n} seeds", "シード{n}個").format(n=self.num_asked)
        return Text("{n} of {all} seeds", "シード{all}個中{n}個").format(n=len(self.seeds), all=self.num_asked)


def cases_of(study: StudyRecords, name: str = "") -> list[Case]:
    """Group the points by model and data, or by one of their settings, in the order of the study.

    Args:
        study: The study; a case of which no point is done is left out.
        name: A setting to group by.

    Returns:
        The cases.
    """
    named = {point["id"]: _name(point.get("settings", {}), name) for point in study.config["points"]}
    done = {point["id"]: point for point in study.points}
    found = []
    for case in dict.fromkeys(named.values()):
        ids = [point for point, its in named.items() if its == case]
        points = [done[point] for point in ids if point in done]
        if points:
            seeds = tuple(int(point["settings"].get("seed", 0)) for point in points)
            results = tuple(point["result"] for point in points)
            found.append(Case(case, points[0]["settings"], seeds, results, len(ids)))
    return found


def name_case(settings: Mapping[str, Any]) -> str:
    """Name a point's model and data, as a figure does.

    Example:
        >>> name_case({"model": "cnn", "config": {"data": {"name": "mnist"}}})
        'CNN on MNIST'
    """
    config = settings.get("config", {})
    model = str(settings.get("model") or config.get("model", {}).get("name", "model"))
    data = config.get("data", {}).get("name")
    name = _MODELS.get(model, model)
    return name if data is None else f"{name} on {_DATA.get(data, data)}"


def missing_table(study: StudyRecords) -> list[Table]:
    """List the points without a result, and why; no table for a study that is whole."""
    there = {point["id"] for point in (*study.points, *study.failed)}
    failed = Text("failed, attempts: {n}", "失敗（試行{n}回）")
    rows: list[tuple[Text | str, ...]] = [
        (point["id"], failed.format(n=point.get("attempts", 1)), str(point.get("error", ""))) for point in study.failed
    ]
    asked = [point["id"] for point in study.config["points"]]
    rows += [(name, Text("not run yet", "未実行"), "") for name in asked if name not in there]
    if not rows:
        return []
    headings = (Text("point", "点"), Text("what happened", "状況"), Text("error", "エラー"))
    note = Text(
        "They take part in no number of this page. Run the study again with --resume to have them tried again.",
        "このページの数値には一切含まれていません。--resume を付けて実行すると再試行されます。",
    )
    return [Table(Text("Points without a result", "結果のない点"), headings, rows, note, numbers=False)]


def seed_band(rows: ArrayLike | Sequence[ArrayLike]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average over seeds what was measured at the same places, with the lowest and the highest seed.

    Args:
        rows: One a seed, of one length; NaN is left out.

    Returns:
        Mean, lowest and highest; NaN where no seed has a number.

    Example:
        >>> [column.tolist() for column in seed_band([[1.0, 2.0], [3.0, float("nan")]])]
        [[2.0, 2.0], [1.0, 2.0], [3.0, 2.0]]
    """
    values = np.asarray(rows, dtype=float)
    known = np.isfinite(values)
    count = np.where(known.any(0), known.sum(0), np.nan)
    mean = np.where(known, values, 0.0).sum(0) / count
    low, high = np.where(known, values, np.inf).min(0), np.where(known, values, -np.inf).max(0)
    return mean, np.where(known.any(0), low, np.nan), np.where(known.any(0), high, np.nan)


def decided(findings: Sequence[Finding], outcome: Outcome) -> list[Finding]:
    """Pick the findings of one outcome."""
    return [finding for finding in findings if finding.outcome == outcome]


def with_seeds(finding: Finding, num: int) -> Finding:
    """Leave a claim undecided where fewer seeds speak for it than a decision needs, and say so."""
    if num >= MIN_SEEDS:
        return finding
    why = Text(
        " Not decided: {n} of the {least} seeds that a decision needs.",
        "判定に必要な{least}個のシードのうち{n}個しかないため、判定しません。",
    )
    numbers = finding.numbers + why.format(n=num, least=MIN_SEEDS)
    return replace(finding, outcome="not decided", numbers=numbers)


def _name(settings: Mapping[str, Any], name: str) -> str:
    return str(settings.get(name)) if name else name_case(settings)
