"""What is asked of every input, and how one is tried: in process, under an alarm, with its memory counted."""

from __future__ import annotations

import contextlib
import io
import logging
import resource
import shutil
import signal
import time
import tracemalloc
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import LINK, Files
from tests.fuzz.targets import Case, Target

SECONDS = 60
"""An input that takes longer hangs."""
CONSTANT, FACTOR = 24 << 20, 64
"""Bytes that may be held at once: CONSTANT, and FACTOR a byte of the input; JSON takes some 30 a byte."""
LIMIT = 2 << 30
"""What the process may grow by while inputs of one target are tried; asking for more is refused by the system."""
EVERY = 20
"""Counting what is held makes an input three times as slow: it is done for one in so many; all are under the limit."""
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SECRET = "the-secret-outside"


class Hang(BaseException):
    """An input took too long; no ``except Exception`` stops it."""


class Failure(AssertionError):  # noqa: N818, what was found
    """An input for which the promise did not hold."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        kind: ``accepted``, or the type of the error that refused it.
        seconds: How long it took.
        allocated: Most bytes that were held at once, beyond those before; 0 where it was not counted.
    """

    kind: str
    seconds: float
    allocated: int


def write(place: Path, files: Files) -> None:
    """Write a folder of that content, and one beside it that nothing may reach."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "outside").mkdir(parents=True)
    (place / "outside" / "secret.json").write_text(f'{{"step": 0, "name": "{SECRET}"}}')
    for name, content in files.items():
        file = place / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith(LINK):
            file.symlink_to(content.removeprefix(LINK).decode())
        else:
            file.write_bytes(content)


def outside(place: Path) -> dict[str, bytes]:
    """All that lies beside the folder."""
    held = {
        str(file): file.read_bytes()
        for file in place.rglob("*")
        if file.is_file() and "in" not in file.relative_to(place).parts[:1]
    }
    return held | {"": b" ".join(sorted(entry.name.encode() for entry in place.iterdir()))}


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `Hang` inside the block when it takes too long."""

    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Limit memory, let a warning be an error and keep the library's log quiet as long as inputs are tried."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    logging.disable(logging.CRITICAL)
    if STATUS.exists():
        resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + LIMIT, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logging.disable(logging.NOTSET)
        resource.setrlimit(resource.RLIMIT_DATA, before)


class Count:
    """Most bytes held at once inside the block, beyond those before: by Python and numpy, or by the whole process.

    Python's count is finer. It must not end while a thread of compiled code is about to call Python: 3.11 dies of that.
    """

    def __init__(self, *, native: bool):
        self.native, self.most = native and PEAK.exists(), 0

    def __enter__(self) -> Count:
        if self.native:
            PEAK.write_text("5")  # the peak is what is held now
            self.before = _status("VmHWM")
        else:
            tracemalloc.start(1)
        return self

    def __exit__(self, *_: Any) -> None:
        if self.native:
            self.most = _status("VmHWM") - self.before
        else:
            self.most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


def _status(name: str) -> int:
    return int(STATUS.read_text().split(f"{name}:")[1].split()[0]) << 10


def attempt(target: Target, place: Path, case: Case, *, counted: bool = True) -> Outcome:
    """Try one input, inside `watching`; ``counted`` says whether what is held is counted.

    Raises:
        Failure: If the promise does not hold: another error, more than one line, too much time or memory, a file
            outside changed or told of, a control character on the terminal, markup from data.
    """
    if not target.in_memory:
        write(place, case.files)
    before = outside(place) if target.writes else {}
    size = sum(map(len, case.files.values())) + sum(map(len, case.words))
    said, start = io.StringIO(), time.perf_counter()
    count = Count(native=target.native) if counted else contextlib.nullcontext()
    try:
        with count, alarm(SECONDS), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            target.run(place / "in", case)
        kind = "accepted"
    except Hang:
        raise Failure(f"{target.name}: more than {SECONDS} s") from None
    except target.errors as error:
        kind = type(error).__name__
        if "\n" in str(error).strip():
            raise Failure(f"{target.name}: more than one line: {error}") from error
    except SystemExit as error:
        kind = f"exit {error.code}"
        if error.code not in (0, None):
            raise Failure(f"{target.name}: left by {error!r}") from error
    except Exception as error:
        raise Failure(f"{target.name}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        seconds, allocated = time.perf_counter() - start, getattr(count, "most", 0)
    if allocated > CONSTANT + FACTOR * size:
        raise Failure(f"{target.name}: {allocated} bytes held for an input of {size}")
    if target.writes and outside(place) != before:
        raise Failure(f"{target.name}: something outside the folder was changed")
    check_said(target.name, said.getvalue())
    return Outcome(kind, seconds, allocated)


def check_said(name: str, text: str) -> None:
    """Nothing that steers a terminal, and nothing of a file outside."""
    bad = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter not in "\n\t"}
    if bad:
        raise Failure(f"{name}: control characters on the terminal: {sorted(bad)!r} in {text[:300]!r}")
    if SECRET in text:
        raise Failure(f"{name}: told what a file outside holds: {text[:300]!r}")
    if "Traceback" in text:
        raise Failure(f"{name}: a traceback: {text[-500:]}")
