"""Data larger than memory: a folder of shards, of which only the rows asked for are read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lggwjax.data import records
from lggwjax.data.archives import Archive, inspect
from lggwjax.data.archives import num_classes as count_classes
from lggwjax.data.files import BadFileError, Source, check_request
from lggwjax.data.order import Order
from lggwjax.data.records import RecordFile, inspect_records, read_num_classes, write_records
from lggwjax.data.spec import Batch, Task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shards:
    """Rows of many files, numbered through in the order of their names; a random-access source for Grain as well.

    Nothing is kept in memory but the files' headers: one row costs a read of its bytes.

    Attributes:
        folder: Where the files lie.
        parts: The files, checked.
        num_classes: 0 for a regression.

    Example:
        >>> import tempfile
        >>> rng = np.random.default_rng(0)
        >>> batches = [{"x": rng.random((5, 3), np.float32), "y": np.arange(5) % 2} for _ in range(4)]
        >>> shards = open_shards(write_shards(tempfile.mkdtemp(), batches))
        >>> len(shards), shards[7]["x"].shape, shards.rows(np.array([19, 0, 7]))["y"].tolist()
        (20, (3,), [0, 0, 0])
    """

    folder: Path
    parts: tuple[Archive | RecordFile, ...]
    num_classes: int

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> Batch:
        """One example, without a leading axis."""
        if not 0 <= row < len(self):
            raise IndexError(f"Expected a row from 0 to {len(self) - 1}, got {row}.")
        return {name: array[0] for name, array in self.rows(np.array([row])).items()}

    def __repr__(self) -> str:
        # Grain compares this with that of the source whose position it restores: no address may be in it.
        return f"Shards({len(self)} rows in {len(self.parts)} files of {self.folder.name})"

    @property
    def task(self) -> Task:
        """``classification`` or ``regression``."""
        return self.parts[0].form.task

    def rows(self, indices: np.ndarray) -> Batch:
        """Read rows, in the order asked for; ``x`` is float32, ``y`` int32 or float32.

        Args:
            indices: From 0 to len - 1; any order, also repeated. Shape (b,).

        Returns:
            The batch; each value of it is checked.

        Raises:
            FileNotFoundError: If a file is gone.
            ValueError: If a file was cut off or changed, a value is NaN, infinite or beyond float32, or a label is out
                of range; one line that names the file. Or if the rows asked for would take half of the memory.
        """
        indices = np.asarray(indices)
        check_request(len(indices), self.parts[0].form.input_shape, self.folder)
        labels = np.int32 if self.task == "classification" else np.float32
        x, y = np.empty((len(indices), *self.parts[0].form.input_shape), np.float32), np.empty(len(indices), labels)
        owners = np.searchsorted(self._ends, indices, side="right")
        for owner in np.unique(owners):
            part, mine = self.parts[owner], owners == owner
            found = part.rows(indices[mine] - (self._ends[owner] - part.num_rows))
            x[mine], y[mine] = found["x"], found["y"]
            if self.num_classes and not (found["y"].min() >= 0 and found["y"].max() < self.num_classes):
                raise BadFileError(
                    f"Expected labels 0 to {self.num_classes - 1}, got {found['y'].min()} to {found['y'].max()} in "
                    f"{part.path}. Number the classes from 0."
                )
        return {"x": x, "y": y}

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([part.num_rows for part in self.parts])


@dataclass(frozen=True, eq=False)
class StreamedSample:
    """The sample S as rows of shards, in random order, none of which is in memory.

    Attributes:
        shards: Where the rows are read.
        order: Which rows; entry i of S is row ``order[i]``.
        num_samples: Size of S.
        left_out: Entries of the order that S is without, rising.
    """

    shards: Shards
    order: np.ndarray | Order
    num_samples: int
    left_out: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.num_samples

    def rows(self, indices: np.ndarray) -> Batch:
        """Read samples; see :meth:`Shards.rows`."""
        indices = np.asarray(indices)
        if self.left_out:
            # Entry i of what is left lies as many entries further on as are left out before it.
            gaps = np.asarray(self.left_out) - np.arange(len(self.left_out))
            indices = indices + np.searchsorted(gaps, indices, side="right")
        return self.shards.rows(self.order[indices])

    def without(self, entries: Collection[int]) -> StreamedSample:
        """The same without some entries."""
        left_out = tuple(sorted(set(entries)))
        return replace(self, num_samples=self.num_samples - len(left_out), left_out=left_out)


def open_shards(folder: str | Path) -> Shards:
    """Check the headers of all files of a folder; of the values, only the labels of npz files are read.

    The files are ``*.npz``, each with arrays ``x`` and ``y`` as one npz file of data has them, or ``*.array_record``,
    whose records are examples, ``x`` and then ``y`` as ``numpy.save`` writes them, beside an ``info.json`` with
    ``{"num_classes": k}`` (null for a regression). Written by :func:`write_shards`, or by ``numpy.savez``: a row of a
    compressed file costs reading all of that file.

    Args:
        folder: The folder; files below it are not looked at.

    Returns:
        The rows of all files.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If a file is corrupt, lies about its size or does not fit the others, or is an array-record file and
            that package is not installed; one line that names it.
    """
    folder = Path(folder)
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    archives = [path for path in found if path.suffix == ".npz"]
    record_files = [path for path in found if path.suffix in records.SUFFIXES]
    if not archives and not record_files:
        raise FileNotFoundError(
            f"Expected .npz or .array_record files in the folder {folder}, got none. Check the path."
        )
    if archives and record_files:
        raise BadFileError(
            f"Expected shards of one kind in {folder}, got {archives[0].name} and {record_files[0].name}."
        )
    if record_files:
        parts = [inspect_records(path) for path in record_files]
        _check_alike(parts)
        classes = read_num_classes(folder)
        if bool(classes) != (parts[0].form.task == "classification"):
            raise BadFileError(
                f"Expected num_classes in {folder / records.INFO} for integer labels and null for floats, got "
                f"{classes or 'null'} for {parts[0].form}. Correct it."
            )
        return Shards(folder, tuple(parts), classes)
    parts = [inspect(path) for path in archives]
    _check_alike(parts)
    if slow := [part.path for part in parts if not part.seekable]:
        _LOG.warning("%d compressed files in %s, which are read whole for each batch: write them with numpy.savez.",
                     len(slow), folder)  # fmt: skip
    return Shards(folder, tuple(parts), count_classes(parts))


def _check_alike(parts: Sequence[Archive | RecordFile]) -> None:
    for part in parts:
        if part.form != parts[0].form:
            raise BadFileError(
                f"Expected {parts[0].form} in {part.path}, as in {parts[0].path.name}, got {part.form}. "
                "Write all shards in the same way."
            )


def shards_source(place: Path) -> Source:
    """The shards of a folder, or of its folders ``train`` and ``test``, as a source that a sample is drawn from."""
    parts = (place / "train", place / "test")
    train, test = map(open_shards, parts) if all(map(Path.is_dir, parts)) else (open_shards(place), None)
    if test is not None:
        _check_alike([train.parts[0], test.parts[0]])
        if test.num_classes > train.num_classes:
            raise BadFileError(
                f"Expected the labels of {test.folder} to occur in {train.folder}, got {test.num_classes} and "
                f"{train.num_classes} classes. Label both parts in the same way."
            )

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        return train.rows(rows), (test or train).rows(heldout)

    return Source(
        f"the {len(train.parts)} shards in {place.name}",
        len(train),
        0 if test is None else len(test),
        train.task,
        train.num_classes or 1,
        read,
        in_unit_box=train.parts[0].form.in_unit_box,
        shards=train,
    )


def write_shards(
    folder: str | Path, batches: Iterable[Batch], kind: Literal["npz", "array_record"] = "npz", *, num_classes: int = 0
) -> Path:
    """Write batches as shards, a file a batch, each complete or not there.

    Args:
        folder: A folder without shards; made if absent.
        batches: ``{"x": (n, ...), "y": (n,)}`` of NumPy arrays, all of one form; one is held at a time.
        kind: ``npz`` needs no further package, ``array_record`` does.
        num_classes: Number of classes; by default what the labels make. Only array-record files state it.

    Returns:
        The folder.

    Raises:
        ValueError: If there are shards already, or the kind is another word.
        OSError: If the disk refuses.
    """
    folder = Path(folder)
    if kind not in ("npz", "array_record"):
        raise ValueError(f"Expected kind npz or array_record, got {kind!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    if held := [path.name for path in folder.iterdir() if path.suffix in (".npz", *records.SUFFIXES)]:
        raise ValueError(f"Expected a folder without shards, got {folder} with {min(held)}. Choose another.")
    classes: int | None = None
    for number, batch in enumerate(batches):
        path = folder / f"shard-{number:06d}.{kind}"
        partial = path.with_suffix(".partial")
        try:
            if kind == "npz":
                with partial.open("wb") as file:
                    np.savez(file, x=batch["x"], y=batch["y"])
            else:
                write_records(partial, batch)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        if batch["y"].dtype.kind != "f":
            classes = max(classes or 2, int(batch["y"].max()) + 1, num_classes)
    if kind == "array_record":
        (folder / records.INFO).write_text(json.dumps({"num_classes": classes}))
    return folder
