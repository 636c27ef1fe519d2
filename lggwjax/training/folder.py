"""The run folder: one writer, a fixed configuration, and records that survive a kill."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from lggwjax.strict import strict_object, within
from lggwjax.training.checkpoints import steps, sync
from lggwjax.training.files import LOCK, Json, lock_folder, partial_name, strict_json, write_all, write_json

_LOG = logging.getLogger(__name__)
_CONFIG, _METRICS, _CHECKPOINTS, _REPORT = "config.json", "metrics.jsonl", "checkpoints", "report.html"


class RunFolder:
    """A run folder that this process alone writes to. Made by `open`; close it, or use it in a ``with``.

    A record goes to the disk before `append` returns, and its checkpoint is to be saved before it. So at any moment the
    folder holds the records of the first measurements, each with its checkpoint, and perhaps leftovers, which the next
    `open` clears away.

    Attributes:
        path: The folder.
        config: What ``config.json`` holds.
        finished: Whether ``report.html`` was there already: nothing is locked or touched then, nor can be added.
    """

    def __init__(self, path: Path, config: Json, last: int, *, finished: bool, lock: int | None):
        self.path, self.config, self.finished = path, config, finished
        self._last, self._lock = last, lock

    @classmethod
    def open(cls, path: str | Path, asked: Json, *, resume: bool = False, extra: Json | None = None) -> Self:
        """Create a run folder, or go on with one.

        Going on means: after the last record whose checkpoint is there; later checkpoints, later records and a torn
        last line are removed. Where there are no checkpoints at all (they may be kept elsewhere), every record counts.

        Args:
            path: The folder; its parents are made too.
            asked: What was asked for, as JSON objects; on going on, every entry must equal the one in ``config.json``,
                and entries left out are not looked at.
            resume: Go on with what is there; an absent, empty or half-created folder is started.
            extra: Further entries of ``config.json``, such as versions, which may differ later.

        Returns:
            The folder, locked by the kernel until it is closed or the process ends, however it ends.

        Raises:
            ValueError: If the folder exists and ``resume`` is not set, is written to by another process, is no
                run folder, is damaged, or was made with another configuration. Nothing in it is changed then.
            OSError: If the disk refuses.

        Example:
            >>> import tempfile
            >>> place = Path(tempfile.mkdtemp()) / "run"
            >>> with RunFolder.open(place, {"seed": 0}) as folder:
            ...     folder.append({"step": 0, "train_loss": 2.5})
            >>> with RunFolder.open(place, {"seed": 0}, resume=True) as folder:
            ...     folder.records
            [{'step': 0, 'train_loss': 2.5}]
        """
        path = Path(path)
        asked, further = json.loads(strict_json(asked)), json.loads(strict_json(extra or {}))
        if path.is_dir() and not resume:
            raise ValueError(f"Expected a new folder, got {path}, which exists. Add --resume or choose another --out.")
        _refuse_unsuitable(path, resume)
        if (path / _CONFIG).exists() and (path / _REPORT).exists():
            config = _checked_config(path, asked)
            return cls(path, config, _last_step(read_records(path / _METRICS)), finished=True, lock=None)
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path)
        try:
            # Again, now that nobody else can write: another process may have made this folder a moment ago.
            _refuse_unsuitable(path, resume)
            if (path / _CONFIG).exists():
                config = _checked_config(path, asked)
            else:
                config = asked | further
                write_json(path / _CONFIG, config)
            return cls(path, config, _rewind(path), finished=False, lock=lock)
        except BaseException:
            os.close(lock)
            if new and not (path / _CONFIG).exists():
                shutil.rmtree(path, ignore_errors=True)  # nothing half-made is left to be refused the next time
            raise

    @property
    def checkpoints_dir(self) -> Path:
        """Where the checkpoints of the run lie."""
        return self.path / _CHECKPOINTS

    @property
    def records(self) -> list[Json]:
        """All records on disk, oldest first: read at each use, since ten thousand kept in memory take 100 MB."""
        return read_records(self.path / _METRICS)

    def append(self, record: Json) -> None:
        """Add one record to ``metrics.jsonl``, on the disk before this returns.

        Args:
            record: Strict JSON with an integer ``step`` beyond the last.

        Raises:
            ValueError: If the record holds NaN or infinity, its step does not rise, or the folder is closed.
            OSError: If the disk refuses; the file is then as it was.
        """
        if self._lock is None:
            raise ValueError(f"Expected an open unfinished run folder, got {self.path}. Open it first.")
        if not isinstance(record.get("step"), int) or record["step"] <= self._last:
            raise ValueError(f"Expected a record with a step beyond {self._last}, got {record.get('step')!r}.")
        line = strict_json(record) + b"\n"
        file = os.open(self.path / _METRICS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        size = os.fstat(file).st_size
        try:
            write_all(file, line)
            if size == 0:
                sync(self.path)  # the name of the new file
        except BaseException:
            # Half a line must not stay behind a full disk or Ctrl-C; a kill leaves one, which the next reader drops.
            os.ftruncate(file, size)
            raise
        finally:
            os.close(file)
        self._last = record["step"]

    def rewind(self, step: int) -> None:
        """Remove the records from a step on and their checkpoints: what cannot be gone on from is to be made again.

        Args:
            step: The first that goes.

        Raises:
            ValueError: If the folder is closed or finished.
            OSError: If the disk refuses.
        """
        if self._lock is None:
            raise ValueError(f"Expected an open unfinished run folder, got {self.path}. Open it first.")
        self._last = _rewind(self.path, step)

    def close(self) -> None:
        """Let go of the lock; closing twice does no harm."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(file: str | Path) -> list[Json]:
    """Read ``metrics.jsonl``; a last line torn off by a kill is left out.

    Args:
        file: The file; an absent one holds no records.

    Returns:
        One object a line.

    Raises:
        ValueError: If another line is no strict JSON object, or the steps do not rise.
    """
    return [record for record, _ in _lines(Path(file))]


def _lines(file: Path) -> list[tuple[Json, int]]:
    """Every record with the size of the file up to its end."""
    found: list[tuple[Json, int]] = []
    end = 0
    for number, line in enumerate(file.read_bytes().splitlines(keepends=True) if _is_file(file) else [], start=1):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        record = strict_object(line, f"{file}, line {number}")
        step = record.get("step")
        if type(step) is not int or step < 0 or (found and step <= found[-1][0]["step"]):
            raise ValueError(f"Expected rising whole steps in {file}, got {step!r:.80} in line {number}.")
        found.append((record, end))
    return found


def _last_step(records: list[Json]) -> int:
    return records[-1]["step"] if records else -1


def _rewind(path: Path, before: float = math.inf) -> int:
    """Cut the folder back to its last record with a checkpoint, before a step, and return that record's step."""
    lines, kept = _lines(path / _METRICS), set(steps(path / _CHECKPOINTS))
    while lines and (lines[-1][0]["step"] >= before or (kept and lines[-1][0]["step"] not in kept)):
        lines.pop()
    last = _last_step([record for record, _ in lines[-1:]])
    size = lines[-1][1] if lines else 0
    # Records first: a kill in between leaves checkpoints too many, never a record too many.
    if (path / _METRICS).exists() and (held := (path / _METRICS).stat().st_size) != size:
        _LOG.warning(
            "%s: dropped %d bytes after step %d: not whole, or no checkpoint.", path / _METRICS, held - size, last
        )
        with (path / _METRICS).open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    for entry in (path / _CHECKPOINTS).iterdir() if (path / _CHECKPOINTS).is_dir() else []:
        if not entry.name.isdecimal() or int(entry.name) > last:
            _remove(entry)
    return last


def _remove(checkpoint: Path) -> None:
    # Under a name that is no step first: a kill on the way leaves no half checkpoint.
    doomed = checkpoint.with_name(f"{checkpoint.name}.partial") if checkpoint.name.isdecimal() else checkpoint
    if doomed != checkpoint:
        shutil.rmtree(doomed, ignore_errors=True)
        checkpoint.rename(doomed)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def _refuse_unsuitable(path: Path, resume: bool) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"Expected a folder to write the run to, got the file {path}. Choose another --out.")
    names = (
        {entry.name for entry in path.iterdir()} - {LOCK, partial_name(path / _CONFIG).name} if path.exists() else set()
    )
    if names and not resume:
        raise ValueError(f"Expected a new folder, got {path}, which exists. Add --resume or choose another --out.")
    if names and _CONFIG not in names:
        first = min(names)
        raise ValueError(f"Expected a run folder with {_CONFIG}, got {path} with {first}. Choose another --out.")
    # What lies here is read, cut short and removed: none of it may be a file or folder of somebody's elsewhere.
    for name in names:
        within(path, name)
    saved = path / _CHECKPOINTS
    for entry in saved.iterdir() if saved.is_dir() else ():
        within(path, _CHECKPOINTS, entry.name)


def _checked_config(path: Path, asked: Json) -> Json:
    file = path / _CONFIG
    if not _is_file(file):
        raise ValueError(f"Expected a run folder with {_CONFIG}, got {path} without. Choose another --out.")
    config = strict_object(file.read_bytes(), str(file))
    _compare(config, asked, "", file)
    return config


def _compare(held: Json, asked: Json, prefix: str, file: Path) -> None:
    for name, value in asked.items():
        before = held.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            _compare(before, value, f"{prefix}{name}.", file)
        # Types too: to Python, true equals 1.
        elif name not in held or json.dumps(value, sort_keys=True) != json.dumps(before, sort_keys=True):
            was, now = (f"{json.dumps(before):.200}" if name in held else "nothing"), json.dumps(value)
            raise ValueError(
                f"Expected {prefix}{name} {was} as in {file}, got {now}. Leave it as it was, or choose another --out."
            )


def _is_file(file: Path) -> bool:
    """Whether it is a file; what is neither a file nor absent (a folder, a pipe) is refused."""
    if file.exists() and not file.is_file():
        raise ValueError(f"Expected a file at {file}, got something else. Remove it, or choose another --out.")
    return file.is_file()
