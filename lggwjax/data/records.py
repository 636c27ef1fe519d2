"""One array-record file of examples ``x`` and ``y``: read by the package ``array_record``, never unpickled."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lggwjax.data.archives import Form, as_batch, read_header
from lggwjax.data.files import BadFileError, one_line_errors
from lggwjax.data.spec import Batch

SUFFIXES = (".array_record", ".arrayrecord")
INFO = "info.json"
_MAX_INFO = 10_000


@dataclass(frozen=True, eq=False)
class RecordFile:
    """One file of records; each is an example, ``x`` and then ``y`` as ``numpy.save`` writes them.

    Attributes:
        path: The file.
        num_rows: Its records.
        form: Types and shape of its examples.
        heads: What stands before ``x`` and before ``y`` in its first record, and so in all of them.
    """

    path: Path
    num_rows: int
    form: Form
    heads: tuple[bytes, bytes]

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
        lengths = [len(self.heads[0]), self._x_bytes, len(self.heads[1]), self.form.y.itemsize]
        if {len(record) for record in records} != {sum(lengths)}:
            raise self._other_form()
        data = np.frombuffer(b"".join(records), np.uint8).reshape(len(rows), -1)
        first, x, second, y = np.split(data, np.cumsum(lengths)[:-1], axis=1)
        for head, wanted in ((first, self.heads[0]), (second, self.heads[1])):
            if not (head == np.frombuffer(wanted, np.uint8)).all():
                raise self._other_form()
        inputs = np.ascontiguousarray(x).view(self.form.x).reshape(len(rows), *self.form.shape)
        return as_batch(inputs, np.ascontiguousarray(y).view(self.form.y)[:, 0], self.form.task, self.path)

    @property
    def _x_bytes(self) -> int:
        return self.form.x.itemsize * math.prod(self.form.shape)

    def _other_form(self) -> BadFileError:
        return BadFileError(f"Expected all examples of {self.path} to be {self.form}, got another. Write it again.")


def inspect_records(path: Path) -> RecordFile:
    """Read the number of records and the first of them.

    Raises:
        ValueError: If the file is damaged or empty, its first record is no example, or array_record is not installed.
    """
    source = _open(path)
    if not len(source):
        raise BadFileError(f"Expected records in {path}, got none. Leave the file out.")
    with _errors(path):
        record = source[0]
        stream = io.BytesIO(record)
        x, length = read_header(stream, "x", path)
        size = x.dtype.itemsize * math.prod(x.shape)
        stream.seek(length + size)
        y, second = read_header(stream, "y", path, rows=False)
    # The same that is asked of an archive.
    if len(x.shape) not in (1, 2, 3) or 0 in x.shape or x.fortran or y.shape:
        raise BadFileError(
            "Expected examples with x of shape (features,), (height, width) or (height, width, channels) and one "
            f"number y, got shapes {x.shape} and {y.shape} in {path}. Write it with lggwjax.data.write_shards."
        )
    heads = record[:length], record[length + size : length + size + second]
    return RecordFile(path, len(source), Form(x.shape, x.dtype, y.dtype), heads)


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
            f"{' '.join(str(found).split())[:40]}. Write that file."
        )
    return found


def write_records(path: Path, batch: Batch) -> None:
    """Write a batch, a record an example."""
    from array_record.python.array_record_module import ArrayRecordWriter

    # Single records are read in random order, so none shares a compressed block with others.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for x, y in zip(batch["x"], batch["y"], strict=True):
            record = io.BytesIO()
            np.save(record, np.ascontiguousarray(x), allow_pickle=False)
            np.save(record, y, allow_pickle=False)
            writer.write(record.getvalue())
    finally:
        writer.close()


def _open(path: Path) -> Any:
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError:
        raise BadFileError(
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
