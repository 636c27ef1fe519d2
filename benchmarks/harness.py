"""Starts workers, lets them take turns, compares what they found, and judges bars."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.problems import Problem
from benchmarks.rivals import Rival

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
AGREEMENT = 1e-4  # largest difference of a rival's result from ours, relative to the largest entry
NO_RIVALS = "not measured: add --rivals"
OURS = "lggwjax"

_Value = TypeVar("_Value")


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
    """

    name: str
    samples: list[dict[str, float]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, tuple[float, str]] = field(default_factory=dict)
    disagreement: float | None = None
    note: str = ""

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
        return asdict(self) | {"median_seconds": medians, "rates": rates, "compile_seconds": self.compile_seconds}


def times(numerator: Row | None, denominator: Row | None, of: tuple[str, str] = ("", ""), factor: float = 1.0):
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
    ratios = [factor * above[of[0]] / below[of[1]] for above, below in pairs]
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


def ratio_bar(text: str, ratio, limit: float, sense: str, missing: str = NO_RIVALS) -> Bar:
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


@dataclass(frozen=True)
class ProblemFile:
    """A problem's arrays on disk, and p."""

    file: str
    problem: Problem
    num_parameters: int

    def __str__(self) -> str:
        return f"{self.problem}, p = {self.num_parameters:,}"


class Bench:
    """What a case is given: problems, workers and turns.

    Attributes:
        sizes: ``tiny``, ``quick`` or ``full``.
        rounds: Samples of each measured thing.
        figures: Where figures go.
        device: What the workers ran on; known after the first.
    """

    def __init__(self, folder: Path, *, sizes: str = "quick", rivals: bool = False, rounds: int = 5, figures: Path):
        """Keep temporary files in ``folder``."""
        self.sizes, self.rounds, self.figures = sizes, rounds, figures
        self.device: str | None = None
        self._rivals, self._folder = rivals, folder
        self._workers: dict[int, subprocess.Popen] = {}
        self._problems: dict[Problem, ProblemFile] = {}

    def pick(self, choices: Mapping[str, _Value]) -> _Value:
        """The choice for the sizes asked for; ``full`` where they are not told apart."""
        return choices.get(self.sizes, choices["full"])

    def problem(self, problem: Problem) -> ProblemFile:
        """Make a problem's arrays, once."""
        if problem not in self._problems:
            file = self._folder / f"problem{len(self._problems)}.npz"
            command = [sys.executable, "-m", "benchmarks.problems", str(file), json.dumps(asdict(problem))]
            done = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True, check=True)
            self._problems[problem] = ProblemFile(str(file), problem, int(done.stdout.split()[-1]))
        return self._problems[problem]

    def start(self, name: str, function: str, problem: ProblemFile, like: Row | None = None, **options: Any) -> Row:
        """Start a worker and wait until it has called its subject twice.

        Args:
            name: For the table.
            function: ``module:function`` that makes the subject.
            problem: Its first argument.
            like: A row whose result this one must agree with, else it is not timed.
            **options: Its other arguments.

        Returns:
            The row, without samples as yet.
        """
        row = Row(name)
        check = self._folder / f"check{id(row)}.npy"
        task = {"function": function, "problem": problem.file, "options": options}
        task |= {"threads": THREADS, "check": str(check)}
        errors = tempfile.TemporaryFile(mode="w+", dir=self._folder)  # noqa: SIM115 (read when the worker has ended)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(task)]
        worker = subprocess.Popen(command, cwd=ROOT, env=_environment(), text=True, **pipes)
        self._workers[id(row)] = worker
        worker.errors, row.check = errors, check  # type: ignore[attr-defined]
        row.found = self._answer(row) or {}
        row.limits = (self._answer(row) or {}).get("limits", {})
        self.device = self.device or row.found.get("device")
        if like is not None and not row.note:
            row.disagreement = _disagreement(check, like.check)  # type: ignore[attr-defined]
            if row.disagreement is not None and not row.disagreement <= AGREEMENT:
                row.note = f"not timed: its result differs from ours by {row.disagreement:.1e}"
        return row

    def rival(
        self, rival: Rival, task: str, problem: ProblemFile, like: Row | None = None, **options: Any
    ) -> list[Row]:
        """Start a rival: one row, which says so where it is not installed; none unless rivals were asked for."""
        if not self._rivals:
            return []
        if not rival.is_installed():
            return [Row(rival.name, note="not installed: pip install '.[bench]'")]
        return [self.start(rival.name, rival.tasks[task], problem, like, **rival.options, **options)]

    def race(self, *rows: Row) -> None:
        """Let the workers take turns, then end them. One at a time runs; the others wait without a thread awake."""
        for _ in range(self.rounds):
            for row in rows:
                if row.note:
                    continue
                worker = self._workers[id(row)]
                worker.stdin.write("\n")  # type: ignore[union-attr]
                worker.stdin.flush()  # type: ignore[union-attr]
                sample = self._answer(row)
                if sample is not None:
                    row.samples.append(sample)
        for row in rows:
            self._end(row)

    def close(self) -> None:
        """End every worker that is still there."""
        for worker in self._workers.values():
            worker.kill()
            worker.wait()

    def _end(self, row: Row) -> None:
        worker = self._workers.pop(id(row), None)
        if worker is not None:
            worker.communicate()

    def _answer(self, row: Row) -> dict[str, Any] | None:
        if row.note:
            return None
        worker = self._workers[id(row)]
        line = worker.stdout.readline()  # type: ignore[union-attr]
        if line:
            return json.loads(line)
        code = worker.wait()
        worker.errors.seek(0)  # type: ignore[attr-defined]
        said = [text for text in worker.errors.read().splitlines() if text.strip()] or ["no word"]  # type: ignore[attr-defined]
        print(*said[-15:], sep="\n", file=sys.stderr)
        row.note = f"failed: {f'killed by signal {-code} (out of memory?)' if code < 0 else said[-1].strip()}"
        row.samples.clear()
        return None


def _environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Threads of torch's pool that spin while it waits would take the cores of whoever's turn it is.
    return {**os.environ, **dict.fromkeys(names, str(THREADS)), "OMP_WAIT_POLICY": "PASSIVE"}


def _disagreement(file: Path, other: Path) -> float | None:
    if not (file.exists() and other.exists()):
        return None
    found, ours = np.load(file).astype(float), np.load(other).astype(float)
    if found.shape != ours.shape:
        return float("inf")
    return float(np.abs(found - ours).max() / np.abs(ours).max())
