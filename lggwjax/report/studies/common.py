"""What the pages of studies share: points that are missing, numbers with intervals, what was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lggwjax.report.document import Outcome
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.statistics import Interval, p_value
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import NONE, estimate_text, number_text
from lggwjax.strict import room_for

MIN_SEEDS = 3
"""With fewer seeds nothing is decided: a standard error from two numbers is hardly one."""
ALPHA = 0.05
STUDY = Text("Study", "実験")
UNDECIDED = Text("not decided", "判定不能")
_MOST_NAMED = 5


def number(values: Mapping[str, Any], name: str) -> float:
    """Look a number up; what is not there, or None, is NaN.

    Example:
        >>> number({"gap": 1}, "gap"), number({"gap": None}, "gap")
        (1.0, nan)
    """
    found = values.get(name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else math.nan


def p_over_seeds(found: Interval) -> float:
    """Test whether a mean over seeds is zero, where the seeds can tell.

    Args:
        found: From `mean_interval` or `paired_difference`.

    Returns:
        The p-value of Student's t; NaN for fewer than three seeds, and where all differences are alike but not zero:
        counts and measured steps are coarse, and no spread among them is no certainty.

    Example:
        >>> p_over_seeds(Interval(2.0, 2.0, 2.0, 0.0, 3)), p_over_seeds(Interval(0.0, 0.0, 0.0, 0.0, 3))
        (nan, 1.0)
    """
    if found.num < MIN_SEEDS or 0 <= found.stderr < 1e-12 * abs(found.value):
        return math.nan
    return p_value(found)


def interval_text(found: Interval) -> str:
    """Write an estimate with its interval; a dash for none.

    Example:
        >>> interval_text(Interval(0.291, 0.271, 0.311, 0.01, 5)), interval_text(Interval(0.5, *[float("nan")] * 3, 1))
        ('0.291 ± 0.020', '0.500')
    """
    row = {"x.value": found.value, "x.ci95_low": found.low, "x.ci95_high": found.high}
    return estimate_text(row, "x")


def range_text(found: Interval) -> str:
    """Write an estimate and the two ends of its interval.

    Example:
        >>> range_text(Interval(0.5, 0.25, 0.75, 0.1, 9))
        '0.500 [0.250, 0.750]'
    """
    if math.isnan(found.low) or math.isnan(found.high):
        return number_text(found.value)
    return f"{number_text(found.value)} [{number_text(found.low)}, {number_text(found.high)}]"


def ratio_of(found: Interval) -> Interval:
    """Turn the logarithm of a ratio into the ratio.

    Example:
        >>> ratio_of(Interval(0.0, 0.0, 0.0, 0.0, 3)).value
        1.0
    """
    low, value, high = (math.exp(min(x, 700.0)) for x in (found.low, found.value, found.high))
    return Interval(value, low, high, found.stderr, found.num)


def ratio_text(found: Interval) -> str:
    """Write the logarithm of a ratio as the ratio.

    Example:
        >>> ratio_text(Interval(math.log(0.5), math.log(0.4), math.log(0.625), 0.05, 5))
        '×0.500 [0.400, 0.625]'
    """
    return NONE if math.isnan(found.value) else "×" + range_text(ratio_of(found))


def tau_text(tau: Interval) -> str:
    """Write a rank correlation with its interval.

    Example:
        >>> tau_text(Interval(-0.25, -0.5, 0.0, 0.1, 9))
        '−0.25 [−0.50, 0.00]'
    """
    value = NONE if math.isnan(tau.value) else f"{tau.value:.2f}"
    ends = "" if math.isnan(tau.low) else f" [{tau.low:.2f}, {tau.high:.2f}]"
    return (value + ends).replace("-0.00", "0.00").replace("-", "−")


def p_text(p: float) -> str:
    """Write a p-value.

    Example:
        >>> p_text(0.0301), p_text(1e-9), p_text(float("nan"))
        ('p = 0.03', 'p < 0.001', '–')
    """
    if math.isnan(p):
        return NONE
    return "p < 0.001" if p < 0.001 else f"p = {p:.1g}" if p < 0.1 else f"p = {p:.2g}"


def outcome_of(found: Interval) -> Outcome:
    """Judge a claim that a number is positive by its interval.

    Example:
        >>> outcome_of(Interval(1, 0.5, 1.5, 0.2, 9)), outcome_of(Interval(1, -0.5, 1.5, 0.2, 9))
        ('confirmed', 'not decided')
    """
    if found.low > 0:
        return "confirmed"
    return "not confirmed" if found.high < 0 else "not decided"


def write_table(study: StudyRecords, name: str, table: pd.DataFrame) -> Path:
    """Write the numbers of a table to ``tables/name.csv`` in the study's folder."""
    file = room_for(study.folder / "tables" / f"{name}.csv")
    table.to_csv(file, index=False)
    return file


def missing_points(study: StudyRecords) -> Text:
    """Say which points failed or were not run, and why; empty if none.

    Returns:
        A sentence or two, with a space before them in English.
    """
    found = EMPTY
    if study.failed:
        named = [f"{point['id']}: {point.get('error', '?')}" for point in study.failed[:_MOST_NAMED]]
        more = len(study.failed) - len(named)
        rest = Text("; and {n} more", "ほか{n}点").format(n=more) if more else EMPTY
        found += Text(
            " {n} of {all} points failed and are left out ({which}{rest}).",
            "{all}点中{n}点は失敗し、集計から除いています（{which}{rest}）。",
        ).format(n=len(study.failed), all=study.num_points, which="; ".join(named), rest=rest)
    if study.num_missing:
        found += Text(
            " {n} of {all} points were not run yet: what follows is preliminary.",
            "{all}点中{n}点は未実行のため、以下は暫定的な結果です。",
        ).format(n=study.num_missing, all=study.num_points)
    return found


def asked_for(study: StudyRecords) -> dict[str, Any]:
    """What a page prints of ``study.json``: all but the list of points, of which the first is shown."""
    left_out = ("points", "environment")
    points = study.config.get("points") or [{}]
    first = {"num_points": study.num_points, "first_point": points[0].get("settings", {})}
    return {name: value for name, value in study.config.items() if name not in left_out} | first


def environment(study: StudyRecords) -> dict[str, Any]:
    """Versions and hardware, as ``study.json`` has them."""
    found = study.config.get("environment")
    return dict(found) if isinstance(found, Mapping) else {}


def slug(name: str) -> str:
    """Make a file name of a name.

    Example:
        >>> slug("ffn on mnist")
        'ffn-on-mnist'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def kept(texts: Sequence[Text]) -> list[Text]:
    """Leave out what is empty, and spaces around the rest."""
    return [Text(text.en.strip(), text.ja.strip()) for text in texts if text.en.strip()]
