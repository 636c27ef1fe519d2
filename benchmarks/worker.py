"""One measured thing in a process of its own: its memory first, then its time, a sample at each word of the parent.

A case or a rival describes what is measured by a function ``(problem file, **options) -> Subject``. The child

1. sets up: imports, arrays in place, the backend started;
2. calls it once: first-call time and memory, compilation included;
3. calls it again: memory of the compiled call, and the warm-up of what follows;
4. answers every line on standard input with one sample: seconds of the call and of its limits, one after another.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SAMPLE_SECONDS = 0.2  # shorter calls are repeated until a sample takes about this long
MAX_CALLS = 100


class Limit(NamedTuple):
    """What cannot be beaten, timed beside the subject: a call, and how much work it does.

    Attributes:
        call: Returns arrays.
        work: Amount of work of one call, in ``unit``.
        unit: ``calls``, ``flops`` or ``normals``.
    """

    call: Callable[[], Any]
    work: float = 1.0
    unit: str = "calls"


def _nothing(result: Any) -> dict[str, Any]:  # noqa: ARG001 (the result is what others read)
    return {}


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        call: The measured call, with no arguments; its result is waited for.
        limits: Timed beside it.
        facts: From the result to numbers that go with it: value, standard error, predicted memory.
        check: From the result to an array that must agree with the other subjects'; None where there is none.
    """

    call: Callable[[], Any]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    facts: Callable[[Any], dict[str, Any]] = _nothing
    check: Callable[[Any], Any] | None = None


def main(task: dict[str, Any]) -> None:
    """Measure one subject as ``task`` says: ``function``, ``problem``, ``options``, ``threads``, ``check``."""
    _limit_threads(task["threads"])
    # Whatever a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, name = task["function"].split(":")
    subject: Subject = getattr(importlib.import_module(module), name)(task["problem"], **task["options"])
    found = _first_calls(subject, task["check"])
    print(json.dumps(found), file=answers)
    calls = {"": subject.call, **{name: limit.call for name, limit in subject.limits.items()}}
    repeats = {name: _repeats(call, found["second_seconds"] if not name else None) for name, call in calls.items()}
    print(json.dumps({"limits": {name: limit[1:] for name, limit in subject.limits.items()}}), file=answers)
    for _ in sys.stdin:
        sample = {name: _seconds(call, repeats[name]) for name, call in calls.items()}
        print(json.dumps(sample), file=answers)


def _limit_threads(threads: int) -> None:
    """Bind the process to so many cores: it holds for XLA and torch alike."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _first_calls(subject: Subject, check_file: str | None) -> dict[str, Any]:
    memory = Memory()
    with memory.watch() as first:
        start = time.perf_counter()
        result = _wait(subject.call())
        first_seconds = time.perf_counter() - start
    found = {"first_seconds": first_seconds, "first_bytes": first.bytes, "facts": subject.facts(result)}
    if subject.check is not None and check_file is not None:
        np.save(check_file, np.asarray(subject.check(result)))
    del result
    with memory.watch() as again:
        start = time.perf_counter()
        result = _wait(subject.call())
        found["second_seconds"] = time.perf_counter() - start
    del result
    return found | {"bytes": again.bytes, "process_bytes": memory.whole, "device": _device()}


def _repeats(call: Callable[[], Any], once: float | None) -> int:
    """How often a call is repeated for one sample; warms it up where it is not known how long it takes."""
    if once is None:
        _wait(call())
        once = _seconds(call, 1)
    return int(min(MAX_CALLS, max(1, round(SAMPLE_SECONDS / max(once, 1e-9)))))


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        _wait(call())
    return (time.perf_counter() - start) / repeats


def _wait(result: Any) -> Any:
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(result)
    return result


def _device() -> str:
    if "jax" not in sys.modules:
        return "cpu"
    device = sys.modules["jax"].devices()[0]
    return f"{device.platform} ({device.device_kind})"


class Peak:
    """Peak memory of one block of code, on top of what was there before it; None where it cannot be had."""

    bytes: int | None = None


class Memory:
    """Peak memory: resident on the host, or in use on an accelerator.

    Attributes:
        whole: The whole process's peak so far.
    """

    def __init__(self) -> None:
        self.whole: int | None = self._highest()

    @contextlib.contextmanager
    def watch(self) -> Iterator[Peak]:
        """Measure a block of code."""
        peak = Peak()
        gc.collect()
        _trim()
        self._remember()
        exact = _reset()
        before = self._now()
        yield peak
        highest = self._highest()
        self._remember()
        # Without a reset, an old peak may hide the new one.
        if before is not None and highest is not None and (exact or self._device_stats() or highest > before):
            peak.bytes = max(0, highest - before)

    def _remember(self) -> None:
        highest = self._highest()
        self.whole = highest if self.whole is None else max(self.whole, highest or 0)

    def _now(self) -> int | None:
        stats = self._device_stats()
        return int(stats["bytes_in_use"]) if stats else _status("VmRSS")

    def _highest(self) -> int | None:
        stats = self._device_stats()
        return int(stats["peak_bytes_in_use"]) if stats else _status("VmHWM")

    def _device_stats(self) -> dict[str, Any]:
        if "jax" not in sys.modules or sys.modules["jax"].default_backend() == "cpu":
            return {}
        return sys.modules["jax"].devices()[0].memory_stats() or {}


def _status(field_name: str) -> int | None:
    try:
        found = re.search(rf"{field_name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset() -> bool:
    """Make the kernel forget the peak of the resident set."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _trim() -> None:
    """Give freed memory back, else the next call would hide in what the last one left."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":  # python -m benchmarks.worker JSON
    main(json.loads(sys.argv[1]))
