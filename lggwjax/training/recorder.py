"""From measurements to records on disk, whoever trained the checkpoints."""

from __future__ import annotations

import resource
import sys
import time

from jaxtyping import PyTree

from lggwjax.training.folder import RunFolder
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


class Recorder:
    """Measures one checkpoint after another and appends each record to the run folder.

    Attributes:
        clock: Seconds spent on training and on measuring.
        extra: Fields that every record gets.
    """

    def __init__(self, meter: Meter, folder: RunFolder | SharedFolder, params: PyTree, extra: Record | None = None):
        """Start an empty path; ``params`` give the shapes."""
        self._meter, self._folder, self._path = meter, folder, meter.init(params)
        self.extra: Record = extra or {}
        self.clock = Clock()

    def replay(self, record: Record, params: PyTree) -> None:
        """Take up a checkpoint whose record is already on disk: the same numbers come out, so none is written."""
        missing = [name for name in ("passes", "lggw", "population_descent", "seconds") if name not in record]
        if missing:
            raise ValueError(
                f"Expected whole records in {self._folder.path / 'metrics.jsonl'}, got step {record['step']} without "
                f"{missing[0]}. Restore the file, or start again in another folder."
            )
        self._path = self._meter.extend(self._path, params)
        self.clock = Clock(dict(record["seconds"]))

    def measure(self, step: int, passes: float | None, params: PyTree, previous: PyTree | None) -> Record:
        """Measure a checkpoint and write its record.

        Args:
            step: Optimiser steps so far.
            passes: Passes over the sample so far, or None where they are not known.
            params: The checkpoint.
            previous: Parameters before the step just taken, or None.

        Returns:
            The record as written.

        Raises:
            FloatingPointError: If a loss or gradient is NaN or infinite; nothing is written then.
        """
        try:
            self._path, record = self._meter.measure(self._path, params, previous)
        except FloatingPointError as error:
            hint = "Lower the learning rate or the initialisation scale, or look for that value in the data."
            raise FloatingPointError(f"{error} It was met at step {step}. {hint}") from None
        self.clock.lap("measuring")
        record = {"step": step, "passes": passes} | record | self.extra
        record |= {"seconds": dict(self.clock.seconds), "peak_memory": peak_memory()}
        self._folder.append(record)
        return record


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
