"""Starts workers, lets them take turns, and compares their results with ours."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.problems import Problem
from benchmarks.results import Row
from benchmarks.rivals import Rival

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
AGREEMENT = 1e-4  # largest difference of a rival's result from ours, relative to the largest entry

_Value = TypeVar("_Value")


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
        self._numbers = itertools.count()
        self._workers: dict[int, _Worker] = {}
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
        row = Row(name, check=self._folder / f"check{next(self._numbers)}.npy")
        task = {"function": function, "problem": problem.file, "options": options}
        task |= {"threads": THREADS, "check": str(row.check)}
        self._workers[id(row)] = _Worker(task, self._folder)
        row.found = self._answer(row) or {}
        row.limits = (self._answer(row) or {}).get("limits", {})
        self.device = self.device or row.found.get("device")
        if like is not None and not row.note:
            row.disagreement = _disagreement(row.check, like.check)
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
                if not row.note:
                    self._workers[id(row)].go()
                    sample = self._answer(row)
                    row.samples += [] if sample is None else [sample]
        for row in rows:
            if id(row) in self._workers:
                self._workers.pop(id(row)).end()

    def close(self) -> None:
        """End every worker that is still there."""
        for worker in self._workers.values():
            worker.kill()

    def _answer(self, row: Row) -> dict[str, Any] | None:
        if row.note:
            return None
        answer = self._workers[id(row)].answer()
        if isinstance(answer, str):
            row.note = f"failed: {answer}"
            row.samples.clear()
            return None
        return answer


class _Worker:
    """A process that measures one subject, see :mod:`benchmarks.worker`."""

    def __init__(self, task: dict[str, Any], folder: Path):
        self._errors = tempfile.TemporaryFile(mode="w+", dir=folder)  # noqa: SIM115 (read when the worker has ended)
        command = [sys.executable, "-m", "benchmarks.worker", json.dumps(task)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._process = subprocess.Popen(command, cwd=ROOT, env=_environment(), text=True, **pipes)

    def go(self) -> None:
        """Ask for one sample."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: the answer will say so
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any] | str:
        """Wait for the next answer; a text says why there will be none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = [text for text in self._errors.read().splitlines() if text.strip()] or ["no word"]
        print(*said[-15:], sep="\n", file=sys.stderr)
        return f"killed by signal {-code} (out of memory?)" if code < 0 else said[-1].strip()

    def end(self) -> None:
        """Let it finish."""
        self._process.communicate()
        self._errors.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def _environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Threads of torch's pool that spin while it waits would take the cores of whoever's turn it is.
    return {**os.environ, **dict.fromkeys(names, str(THREADS)), "OMP_WAIT_POLICY": "PASSIVE"}


def _disagreement(file: Path | None, other: Path | None) -> float | None:
    if file is None or other is None or not (file.exists() and other.exists()):
        return None
    found, ours = np.load(file).astype(float), np.load(other).astype(float)
    if found.shape != ours.shape:
        return float("inf")
    return float(np.abs(found - ours).max() / np.abs(ours).max())
