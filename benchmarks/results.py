"""What is found: rows of times and memory, ratios between them, and the bars they are held to."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_RIVALS = "not measured: add --rivals"
OURS = "lggwjax"

Ratio = tuple[float, float, float]
"""Median, least and largest over the samples."""


@dataclass
class Row:
    """One measured thing: a line of the table.

    Attributes:
        name: What it is called in the table.
        samples: Seconds of each sample; under ``""`` the call, under a name the limit of that name.
        found: What the worker said of its first two calls, see :mod:`benchmarks.worker`.
        limits: Work and unit of each limit.
        disagreement: Largest relative difference from ours, where both have a result to compare.
        note: Why there is no number, or what the number is.
        check: The file with the result that must agree with ours.
        against: Which of our rows it is compared with; by default the first.
    """

    name: str
    samples: list[dict[str, float]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, tuple[float, str]] = field(default_factory=dict)
    disagreement: float | None = None
    note: str = ""
    check: Path | None = None
    against: Row | None = None

    def seconds(self, of: str = "") -> float | None:
        """Median seconds of the call, or of a limit."""
        return statistics.median(sample[of] for sample in self.samples) if self.samples else None

    def spread(self, of: str = "") -> tuple[float, float] | None:
        """Shortest and longest sample."""
        values = [sample[of] for sample in self.samples]
        return (min(values), max(values)) if values else None

    @property
    def compile_seconds(self) -> float | None:
        """What the first call took longer than the median."""
        seconds, first = self.seconds(), self.found.get("first_seconds")
        return None if seconds is None or first is None else max(0.0, first - seconds)

    @property
    def peak(self) -> int | None:
        """The larger of the peaks of the first call and of the compiled call: what the bars judge, in bytes."""
        peaks = [self.found.get(name) for name in ("first_bytes", "bytes")]
        return max((p for p in peaks if p is not None), default=None)

    def fact(self, name: str) -> float | None:
        """A number that the worker found beside the time."""
        return self.found.get("facts", {}).get(name)

    def rate(self, limit: str) -> float | None:
        """Work a second of a limit that was timed beside the call."""
        seconds = self.seconds(limit)
        return None if seconds is None else self.limits[limit][0] / seconds

    def record(self) -> dict[str, Any]:
        """Everything, for the JSON file."""
        medians = {name or "call": self.seconds(name) for name in (self.samples[0] if self.samples else ())}
        rates = {name: (self.rate(name), unit) for name, (_, unit) in self.limits.items() if self.samples}
        names = ("name", "samples", "found", "limits", "disagreement", "note")
        return {name: getattr(self, name) for name in names} | {
            "median_seconds": medians,
            "rates": rates,
            "compile_seconds": self.compile_seconds,
        }


def times(
    numerator: Row | None, denominator: Row | None, of: tuple[str, str] = ("", ""), factor: float = 1.0
) -> Ratio | None:
    """Ratio of two times, taken sample by sample, as both were measured in turn: median, least, largest.

    Args:
        numerator: A row; with None or without samples there is no ratio.
        denominator: Likewise.
        of: The call (``""``) or which limit, of each.
        factor: Multiplies the result.

    Returns:
        Three numbers, or None.
    """
    if numerator is None or denominator is None:
        return None
    pairs = zip(numerator.samples, denominator.samples, strict=False)
    return summarise([factor * above[of[0]] / below[of[1]] for above, below in pairs])


def summarise(ratios: list[float]) -> Ratio | None:
    """Median, least and largest; None of nothing."""
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


@dataclass(frozen=True)
class Bar:
    """A number and what it is held to.

    Attributes:
        text: What was measured.
        measured: The number; None where it could not be had.
        limit: The bar.
        sense: ``<=`` or ``>=``.
        unit: Follows the number.
        missing: Why there is no number.
        spread: Least and largest sample, for ratios of times.
    """

    text: str
    measured: float | None
    limit: float
    sense: str
    unit: str = "x"
    missing: str = NO_RIVALS
    spread: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or ``open``."""
        if self.measured is None or self.measured != self.measured:
            return "open"
        return (
            "met" if (self.measured <= self.limit if self.sense == "<=" else self.measured >= self.limit) else "missed"
        )


def ratio_bar(text: str, ratio: Ratio | None, limit: float, sense: str, missing: str = NO_RIVALS) -> Bar:
    """A bar on what :func:`times` found."""
    value, *spread = ratio or (None,)
    return Bar(text, value, limit, sense, missing=missing, spread=tuple(spread) or None)


@dataclass(frozen=True)
class Report:
    """What a case found."""

    case: str
    problem: str
    rows: list[Row]
    bars: list[Bar]
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
