"""From measurements to records on disk, whoever trained the checkpoints."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from jaxtyping import PyTree

from lggwjax.training.folder import RunFolder
from lggwjax.training.left_out import LeftOut
from lggwjax.training.meter import Meter, Record
from lggwjax.training.shared_folder import SharedFolder


class Clock:
    """Seconds spent so far, told apart by what they were spent on."""

    def __init__(self, seconds: dict[str, float] | None = None):
        """Start now, on top of ``seconds`` already spent."""
        self.seconds = {"training": 0.0, "measuring": 0.0} | (seconds or {})
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap on ``name``."""
        now = time.perf_counter()
        self.seconds[name] = round(self.seconds[name] + now - self._last, 3)
        self._last = now


class Subject(Protocol):
    """What is measured, of all samples or of those that are left."""

    def left_out(self, records: Sequence[Record] = ()) -> LeftOut | None:
        """Samples left out after these records; None where a sample that is not finite ends all."""
        ...

    def meter(self, left_out: LeftOut | None) -> Meter:
        """The meter of the samples that are left."""
        ...


class Recorder:
    """Measures one checkpoint after another and appends each record to the run folder.

    Attributes:
        clock: Seconds spent on training and on measuring.
        left_out: Samples left out so far; None where one that is not finite ends all.
    """

    def __init__(
        self,
        subject: Subject,
        folder: RunFolder | SharedFolder,
        like: PyTree,
        checkpoints: Callable[[], Iterable[tuple[int, PyTree]]],
        progress: Callable[[int, Record], None] | None = None,
    ):
        """Take up the path of the records in the folder.

        Args:
            subject: What is measured.
            folder: Where records are and go.
            like: Parameters; only their shapes matter.
            checkpoints: Steps and parameters in their order, at least those of the records; read again where samples
                are left out, as a path is about one set of samples.
            progress: Called with each step and record taken up.
        """
        self._subject, self._folder, self._like, self._checkpoints = subject, folder, like, checkpoints
        records = folder.records
        for record in records:
            self._check_whole(record)
        self.left_out = subject.left_out(records)
        self._take_up(progress)
        self.clock = Clock(dict(records[-1]["seconds"]) if records else None)

    def _take_up(self, progress: Callable[[int, Record], None] | None = None) -> None:
        """The same numbers come out as are on disk, so none is written."""
        self._meter = self._subject.meter(self.left_out)
        self._extra = {} if self.left_out is None else self.left_out.field()
        self._path = self._meter.init(self._like)
        records = {record["step"]: record for record in self._folder.records}
        if not records:
            return
        for step, params in self._checkpoints():
            if step in records:
                self._path = self._meter.extend(self._path, params)
                if progress is not None:
                    progress(step, records[step])
            if step >= max(records):
                break

    def _check_whole(self, record: Record) -> None:
        missing = [name for name in ("passes", "lggw", "population_descent", "seconds") if name not in record]
        if missing:
            raise ValueError(
                f"Expected whole records in {self._folder.path / 'metrics.jsonl'}, got step {record['step']} without "
                f"{missing[0]}. Restore the file, or start again in another folder."
            )

    def measure(self, step: int, passes: float | None, params: PyTree, previous: PyTree | None) -> Record:
        """Measure a checkpoint and write its record; where that leaves samples out, the path is made anew first.

        Args:
            step: Optimiser steps so far.
            passes: Passes over the sample so far, or None where they are not known.
            params: The checkpoint.
            previous: Parameters before the step just taken, or None.

        Returns:
            The record as written.

        Raises:
            FloatingPointError: If a loss or gradient is NaN or infinite and no sample is to be left out for that;
                nothing is written then.
        """
        record = self._measured(step, params, previous)
        self.clock.lap("measuring")
        record = {"step": step, "passes": passes} | record | self._extra
        record |= {"seconds": dict(self.clock.seconds), "peak_memory": peak_memory()}
        self._folder.append(record)
        return record

    def _measured(self, step: int, params: PyTree, previous: PyTree | None) -> Record:
        points = (params,) if previous is None else (params, previous)
        while True:
            if self.left_out is not None and self._extra != self.left_out.field():
                self._take_up()
            try:
                self._path, record = self._meter.measure(self._path, params, previous)
            except FloatingPointError as error:
                if self.left_out is None or not self.left_out.found(step, *points):
                    hint = "Lower the learning rate or the initialisation scale, or look for that value in the data."
                    raise FloatingPointError(f"{error} It was met at step {step}. {hint}") from None
            else:
                return record


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
