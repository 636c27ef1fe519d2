"""Where a monitor's reports go: JSON lines, CSV, TensorBoard, Weights & Biases. Any callable will do as well."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lggwjax.training.files import strict_json, write_all
from lggwjax.training.observation import Report

_SIGNS = {"helps": 1, "undecided": 0, "hurts": -1}


class _Closing:
    """A writer that is used in a ``with``, or closed by hand."""

    def close(self) -> None:
        """Let go of what is open; closing twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Lines(_Closing):
    """A text file that grows by whole lines, each on the disk before the call returns."""

    _BEGINS = b""  # how the first line begins, whole or torn off

    def __init__(self, path: str | Path, *, append: bool):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"Expected a file to write to, got {self.path}, which is none. Choose another path.")
        if not append and self.path.exists() and self.path.stat().st_size:
            raise ValueError(
                f"Expected a new file, got {self.path}, which holds records. Pass append=True or choose another path."
            )
        text = self.path.read_bytes() if self.path.exists() else b""
        try:
            if text and not text.startswith(self._BEGINS):
                raise ValueError
            self._last = self._last_step(text.split(b"\n")[:-1])
        except (ValueError, KeyError, IndexError, StopIteration, TypeError, OverflowError, RecursionError):
            raise ValueError(f"Expected records with a step in {self.path}, got others. Choose another path.") from None
        self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        # A line that was torn off by a kill would swallow the next one.
        os.ftruncate(self._file, text.rfind(b"\n") + 1)

    def _last_step(self, lines: list[bytes]) -> int:
        raise NotImplementedError

    def _is_new(self, report: Report) -> bool:
        """Whether a step is beyond those in the file; after a restart the loop may pass some steps once more."""
        if self._file is None:
            raise ValueError(f"Expected an open writer, got one that was closed: {self.path}. Make a new one.")
        is_new = report.step > self._last
        self._last = max(self._last, report.step)
        return is_new

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            write_all(self._file, line)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class JsonlWriter(_Lines):
    """Appends each report's record as one line of strict JSON, whole and readable at once.

    A file named ``metrics.jsonl`` makes its folder one that :func:`lggwjax.load_run` reads. Steps rise: what is in the
    file already is not written again.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> with JsonlWriter(folder / "metrics.jsonl") as writer:
        ...     writer.path.name
        'metrics.jsonl'
    """

    _BEGINS = b'{"step"'

    def __init__(self, path: str | Path, *, append: bool = False):
        """Open the file.

        Args:
            path: The file; its folder is made too.
            append: Go on with a file that holds records, after a restart; a torn last line is cut off.

        Raises:
            ValueError: If the file holds records and ``append`` is not set, or holds something else.
        """
        super().__init__(path, append=append)

    def _last_step(self, lines: list[bytes]) -> int:
        return int(json.loads(lines[-1])["step"]) if lines else -1

    def __call__(self, report: Report) -> None:
        """Write a report."""
        if self._is_new(report):
            self._write(strict_json(report.record) + b"\n")


class CsvWriter(_Lines):
    """Appends each report as one row; the columns are those of :meth:`lggwjax.training.Report.scalars`.

    Example:
        >>> import tempfile
        >>> with CsvWriter(tempfile.mkdtemp() + "/monitor.csv") as writer:
        ...     writer.path.name
        'monitor.csv'
    """

    _BEGINS = b"step,"

    def __init__(self, path: str | Path, *, append: bool = False):
        """Open the file.

        Args:
            path: The file; its folder is made too.
            append: Go on with a file that holds rows, after a restart; a torn last row is cut off.

        Raises:
            ValueError: If the file holds rows and ``append`` is not set, or holds something else.
        """
        self._columns: list[str] | None = None
        super().__init__(path, append=append)

    def _last_step(self, lines: list[bytes]) -> int:
        if not lines:
            return -1
        self._columns = next(csv.reader([lines[0].decode()]))
        place = self._columns.index("step")
        return int(next(csv.reader([lines[-1].decode()]))[place]) if len(lines) > 1 else -1

    def __call__(self, report: Report) -> None:
        """Write a report.

        Raises:
            ValueError: If the file has other columns: it was written by a monitor of another model.
        """
        if not self._is_new(report):
            return
        row = report.scalars()
        header = "" if self._columns is not None else _row(list(row))
        self._columns = self._columns or list(row)
        if list(row) != self._columns:
            odd = sorted(set(row) ^ set(self._columns))[:3]
            raise ValueError(f"Expected the columns of {self.path}, got others: {odd}. Choose another path.")
        self._write((header + _row(list(row.values()))).encode())


def _row(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class TensorBoardWriter(_Closing):
    """Writes every number of a report as a scalar of TensorBoard, and each sentence as a text.

    ``word`` and ``verdict`` are 1 where it helps, -1 where it hurts and 0 between; ``unknown`` is left out.
    """

    def __init__(self, folder: str | Path):
        """Open the folder; a new event file is added to those that are there.

        Args:
            folder: Where TensorBoard looks.

        Raises:
            ImportError: If tensorboardX is not installed.
        """
        self._writer = _load("tensorboardX", "tensorboard").SummaryWriter(str(folder))

    def __call__(self, report: Report) -> None:
        """Write a report."""
        for name, value in _numbers(report).items():
            self._writer.add_scalar(name, value, report.step)
        self._writer.add_text("sentence", str(report), report.step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbWriter(_Closing):
    """Logs every number of a report to a run of Weights & Biases, under ``lggwjax/``, over ``lggwjax/step``.

    The step of its own leaves that of the run alone, so that whatever else the loop logs stays as it is.
    """

    def __init__(self, run: Any = None):
        """Take a run.

        Args:
            run: What ``wandb.init`` gave; by default the run under way. It stays open: who started it finishes it.

        Raises:
            ImportError: If wandb is not installed.
            ValueError: If no run was given and none is under way.
        """
        self._run = _load("wandb", "wandb").run if run is None else run
        if self._run is None:
            raise ValueError("Expected a run of Weights & Biases, got none. Call wandb.init(...) first.")
        self._run.define_metric("lggwjax/step")
        self._run.define_metric("lggwjax/*", step_metric="lggwjax/step")

    def __call__(self, report: Report) -> None:
        """Log a report."""
        self._run.log({f"lggwjax/{name}": value for name, value in (_numbers(report) | {"step": report.step}).items()})


def _numbers(report: Report) -> dict[str, float]:
    """All that is a number, and the words as one."""
    flat = report.scalars()
    words = {
        name: _SIGNS.get(str(word)) for name, word in flat.items() if name.rsplit("/", 1)[-1] in ("word", "verdict")
    }
    return {name: value for name, value in (flat | words).items() if isinstance(value, int | float) and name != "step"}


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed. Run: pip install 'lggwjax[{extra}]'") from error
