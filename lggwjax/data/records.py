"""One array-record file of examples ``x`` and ``y``: read by the package ``array_record``, never unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lggwjax.data.archives import as_batch
from lggwjax.data.files import BadFileError, one_line_errors
from lggwjax.data.spec import Batch, Task

SUFFIXES = (".array_record", ".arrayrecord")
INFO = "info.json"
_MAX_INFO = 10_000


@dataclass(frozen=True, eq=False)
class RecordFile:
    """One file of records; each is an example ``{"x": array, "y": number}`` in flax's msgpack form.

    Attributes:
        path: The file.
        num_rows: Its records.
        first: Its first example, whose types and shapes all others share.
    """

    path: Path
    num_rows: int
    first: dict[str, np.ndarray]

    @property
    def task(self) -> Task:
        """Floats are to be regressed, integers are classes."""
        return "regression" if self.first["y"].dtype.kind == "f" else "classification"

    @property
    def form(self) -> str:
        """What files of one data set have in common."""
        return _form(self.first)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input as it is given out."""
        shape = self.first["x"].shape
        return (*shape, 1) if len(shape) == 2 else shape

    @property
    def in_unit_box(self) -> bool:
        """Whether inputs are stored as bytes, and so are given out between 0 and 1."""
        return self.first["x"].dtype == np.uint8

    @cached_property
    def _source(self) -> Any:
        return _open(self.path)

    def rows(self, rows: np.ndarray) -> Batch:
        """Read the records asked for, in that order.

        Raises:
            FileNotFoundError: If the file is gone.
            ValueError: If it is damaged, or an example is of another form, NaN, infinite or beyond float32.
        """
        with _errors(self.path):
            records = self._source.__getitems__(rows.tolist())
        examples = [_decode(record, self.path) for record in records]
        for example in examples:
            if (found := _form(example)) != self.form:
                raise BadFileError(f"Expected examples of {self.form} in {self.path}, got {found}. Write it again.")
        x, y = (np.stack([example[name] for example in examples]) for name in ("x", "y"))
        return as_batch(x, y, self.task, self.path)


def inspect_records(path: Path) -> RecordFile:
    """Read the number of records and the first of them.

    Raises:
        ValueError: If the file is damaged or empty, or its first record is no example.
        ModuleNotFoundError: If array_record is not installed.
    """
    source = _open(path)
    if not len(source):
        raise BadFileError(f"Expected records in {path}, got none. Leave the file out.")
    with _errors(path):
        first = _decode(source[0], path)
    x, y = first["x"], first["y"]
    # The same that is asked of an archive.
    if x.ndim not in (1, 2, 3) or 0 in x.shape or y.shape or x.dtype.kind not in "biuf" or y.dtype.kind not in "iuf":
        raise BadFileError(
            "Expected examples with x of shape (features,), (height, width) or (height, width, channels) and one "
            f"number y, got {_form(first)} in {path}. Write it with lggwjax.data.write_shards."
        )
    return RecordFile(path, len(source), first)


def read_num_classes(folder: Path) -> int:
    """Number of classes from ``info.json``, 0 for a regression: single records do not tell.

    Raises:
        ValueError: If there is no such file, or it says something else.
    """
    try:
        with (folder / INFO).open("rb") as file:
            found = json.loads(file.read(_MAX_INFO))["num_classes"]
    except FileNotFoundError:
        found = "no such file"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        found = type(error).__name__
    if found is None:
        return 0
    if not isinstance(found, int) or isinstance(found, bool) or not 2 <= found < 2**31:
        raise BadFileError(
            f'Expected {{"num_classes": k}} with k >= 2, or null for a regression, in {folder / INFO}, got '
            f"{str(found)[:40]}. Write that file."
        )
    return found


def write_records(path: Path, batch: Batch) -> None:
    """Write a batch, a record an example."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from flax.serialization import msgpack_serialize

    # Single records are read in random order, so none shares a compressed block with others.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for x, y in zip(batch["x"], batch["y"], strict=True):
            writer.write(msgpack_serialize({"x": np.asarray(x), "y": np.asarray(y)}))
    finally:
        writer.close()


def _open(path: Path) -> Any:
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"Expected the package array_record to read {path}, got none. Install it: pip install 'lggwjax[data]'."
        ) from None
    with _errors(path):
        return ArrayRecordDataSource(str(path))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise FileNotFoundError(f"Expected the file {path}, got no such file. Put it back, or start a new run.")
    with one_line_errors(path, "array-record file"):
        yield


def _decode(record: bytes, path: Path) -> dict[str, np.ndarray]:
    from flax.serialization import msgpack_restore

    try:
        example = msgpack_restore(record)
        return {name: np.asarray(_number(example[name])) for name in ("x", "y")}
    # The bytes of a hostile record can make the parser raise nearly anything.
    except Exception as error:
        raise BadFileError(
            f"Expected records with arrays x and y in {path}, got another ({type(error).__name__}). "
            "Write it with lggwjax.data.write_shards."
        ) from error


def _number(value: Any) -> np.ndarray | np.generic:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError
    return value


def _form(example: dict[str, np.ndarray]) -> str:
    x, y = example["x"], example["y"]
    return f"x {x.dtype}{list(x.shape)} and y {y.dtype}{list(y.shape) if y.shape else ''}"
