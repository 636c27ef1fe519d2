"""One NumPy archive (npz) with arrays ``x`` and ``y``: checked before it is believed, and never unpickled."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from lggwjax.data.files import (
    MAX_DEFLATE_RATIO,
    BadFileError,
    one_line_errors,
    row_chunks,
    scaled_bytes,
    take_rows,
)
from lggwjax.data.spec import Batch, Task

# What numpy itself allows for a header that is not trusted.
_MAX_HEADER = 10_000


@dataclass(frozen=True)
class Header:
    """What an array's header says; ``offset`` is where its values begin, if they lie there row by row."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int | None = None


@dataclass(frozen=True)
class Form:
    """What all examples of a data set have in common.

    Attributes:
        shape: Of one input as stored.
        x: Type of the inputs.
        y: Type of the labels.
    """

    shape: tuple[int, ...]
    x: np.dtype
    y: np.dtype

    @property
    def task(self) -> Task:
        """Floats are to be regressed, integers are classes."""
        return "regression" if self.y.kind == "f" else "classification"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input as it is given out: images have a channel axis."""
        return (*self.shape, 1) if len(self.shape) == 2 else self.shape

    @property
    def in_unit_box(self) -> bool:
        """Whether inputs are stored as bytes, and so are given out between 0 and 1."""
        return self.x == np.uint8

    def __str__(self) -> str:
        return f"x {self.x}{list(self.shape)} and y {self.y}"


@dataclass(frozen=True)
class Archive:
    """One archive whose headers have been checked; ``version`` tells whether the file was written anew since then."""

    path: Path
    x: Header
    y: Header
    version: tuple[int, int]

    @property
    def num_rows(self) -> int:
        """Rows of x and y."""
        return self.x.shape[0]

    @property
    def form(self) -> Form:
        """What archives of one data set have in common."""
        return Form(self.x.shape[1:], self.x.dtype, self.y.dtype)

    @property
    def seekable(self) -> bool:
        """Whether single rows can be read without reading what lies before them."""
        return self.x.offset is not None and self.y.offset is not None

    def rows(self, rows: np.ndarray) -> Batch:
        """Read the rows asked for, in that order, and nothing else where it is `seekable`; only these are checked.

        Raises:
            FileNotFoundError: If the file is gone.
            ValueError: If it was written anew since it was checked, or a value is NaN, infinite or beyond float32.
        """
        path = self.path
        with one_line_errors(path, "npz archive"), path.open("rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            if (state.st_size, state.st_mtime_ns) != self.version:
                raise BadFileError(
                    f"Expected {path} as it was at the start, got a file changed since. Start a new run."
                )
            if not self.seekable:
                return stream_rows(self, rows)
            x, y = (_seek(file, header, rows, path) for header in (self.x, self.y))
            return as_batch(x, y, self.form.task, path)


def inspect(path: Path) -> Archive:
    """Check an archive's directory, headers and sizes; no value is read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is corrupt, lies about its size, holds objects, or arrays of other shapes.
    """
    headers, state = {}, path.stat()
    for name in ("x", "y"):
        with _member(path, name) as (_, header):
            headers[name] = header
    x, y = headers["x"], headers["y"]
    if len(x.shape) not in (2, 3, 4) or 0 in x.shape:
        raise BadFileError(
            f"Expected x of shape (n, features), (n, height, width) or (n, height, width, channels), got {x.shape} in "
            f"{path}. Reshape it."
        )
    if y.shape != x.shape[:1]:
        raise BadFileError(
            f"Expected one label for each row of x, y of shape ({x.shape[0]},), got {y.shape} in {path}. Reshape y, or "
            "write the labels of these rows."
        )
    return Archive(path, x, y, (state.st_size, state.st_mtime_ns))


def num_classes(archives: Sequence[Archive]) -> int:
    """Classes that the labels of a data set make, 0 for a regression; all labels are read.

    Raises:
        ValueError: If a label is negative, or too large to be a number of a class.
    """
    if archives[0].form.task == "regression":
        return 0
    total, found = sum(archive.num_rows for archive in archives), 0
    for archive in archives:
        low, high = _label_range(archive.path)
        if low < 0 or high >= max(2, total):
            raise BadFileError(
                f"Expected integer labels 0 to k-1 for k classes, fewer than the {total} rows, got {low} to {high} in "
                f"{archive.path}. Number the classes from 0; for a regression store y as floats."
            )
        found = max(found, high + 1)
    return max(2, found)


def _label_range(path: Path) -> tuple[int, int]:
    lows, highs = [], []
    with _member(path, "y") as (stream, header):
        for _, chunk in row_chunks(stream, header.shape[0], (), header.dtype, path):
            lows.append(int(chunk.min()))
            highs.append(int(chunk.max()))
    return min(lows), max(highs)


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], Header]]:
    """The data of one array as a stream, after its directory entry and header have been checked against each other."""
    with one_line_errors(path, "npz archive"), zipfile.ZipFile(path) as archive:
        try:
            info = archive.getinfo(f"{name}.npy")
        except KeyError:
            names = ", ".join(archive.namelist()[:8]) or "nothing"
            raise BadFileError(
                f"Expected arrays x and y in {path}, got {names[:200]}. Write it with numpy.savez(path, x=..., y=...)."
            ) from None
        # Other compressions expand without bound; numpy writes none of them.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadFileError(
                f"Expected {name} stored or deflated, got compression {info.compress_type} in {path}. Use numpy.savez."
            )
        if info.compress_size > path.stat().st_size or info.file_size > MAX_DEFLATE_RATIO * (info.compress_size + 1):
            raise BadFileError(
                f"Expected sizes that the file can hold, got a promise of {info.file_size} bytes for {name} in {path}. "
                "The archive is cut off or its directory is wrong; write it again."
            )
        with archive.open(info) as stream:
            header, length = read_header(stream, name, path)
            promised = length + header.dtype.itemsize * math.prod(header.shape)
            if promised != info.file_size:
                raise BadFileError(
                    f"Expected {name} of shape {header.shape} and type {header.dtype} to take {promised} bytes, got "
                    f"{info.file_size} in {path}. The header is wrong; write the archive again."
                )
            yield stream, replace(header, offset=_offset(path, info, header, length))


def _offset(path: Path, info: zipfile.ZipInfo, header: Header, length: int) -> int | None:
    """Where the rows of a stored array begin in the file; None if they are compressed or lie column by column."""
    if info.compress_type != zipfile.ZIP_STORED or (header.fortran and len(header.shape) > 1):
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        # The local header, which zipfile has checked: 30 bytes that end with the lengths of a name and an extra field.
        name, extra = struct.unpack("<26xHH", file.read(30))
    start = info.header_offset + 30 + name + extra
    if info.file_size != info.compress_size or start + info.file_size > path.stat().st_size:
        raise BadFileError(f"Expected {path} to hold all of its arrays, got a file cut off. Write it again.")
    return start + length


def read_header(stream: IO[bytes], name: str, path: Path, *, rows: bool = True) -> tuple[Header, int]:
    """Read the header of an npy array without trusting it; its length too.

    Raises:
        ValueError: If it is none, is longer than numpy writes, or promises no numbers; or, with ``rows``, one number.
    """
    head = stream.read(8)
    # numpy reads a header of any promised length before it checks it, so the length is checked here.
    versions = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}
    if head not in versions:
        raise BadFileError(f"Expected {name} to be a plain numpy array, got other data in {path}. Use numpy.savez.")
    field = stream.read(struct.calcsize(versions[head]))
    (length,) = struct.unpack(versions[head], field)
    if length > _MAX_HEADER:
        raise BadFileError(
            f"Expected a header of at most {_MAX_HEADER} bytes for {name}, got {length} in {path}. Use numpy.savez."
        )
    body = io.BytesIO(field + stream.read(length))
    parse = np.lib.format.read_array_header_1_0 if len(field) == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(body, max_header_size=_MAX_HEADER)
    # The text of a hostile header can make its parser raise nearly anything, RecursionError and MemoryError included.
    except Exception as error:
        raise BadFileError(
            f"Expected a numpy header for {name}, got one that cannot be read in {path} ({type(error).__name__}). "
            "Write the archive again."
        ) from error
    if dtype.kind not in "biuf" or (name == "y" and dtype.kind == "b"):
        raise BadFileError(
            f"Expected numbers in {name}, got type {str(dtype)[:40]} in {path}. Objects and text are never read; store "
            "numbers."
        )
    if (rows and not shape) or any(isinstance(size, bool) or size < 0 for size in shape):
        raise BadFileError(f"Expected {name} to have rows, got shape {shape} in {path}. Write the archive again.")
    return Header(tuple(shape), dtype, bool(fortran)), len(head) + len(field) + length


def _take(path: Path, name: str, rows: np.ndarray) -> np.ndarray:
    """Rows of one array as stored; every value of the array is checked to be finite."""

    def check(chunk: np.ndarray) -> None:
        if chunk.dtype.kind == "f" and not np.isfinite(chunk).all():
            bad = chunk[~np.isfinite(chunk)].flat[0]
            raise BadFileError(f"Expected finite numbers in {name}, got {bad} in {path}. Remove or replace these rows.")

    with _member(path, name) as (stream, header):
        n, *rest = header.shape
        if not header.fortran:
            return take_rows(row_chunks(stream, n, tuple(rest), header.dtype, path), rows, check)
        # Column by column in the file: value (row, j) is number j * n + row.
        size = math.prod(rest)
        flat = (np.arange(size)[:, None] * n + rows[None, :]).ravel()
        values = take_rows(row_chunks(stream, n * size, (), header.dtype, path), flat, check)
        return values.reshape(*reversed(rest), len(rows)).transpose()


def _seek(file: io.FileIO, header: Header, rows: np.ndarray, path: Path) -> np.ndarray:
    size = header.dtype.itemsize * math.prod(header.shape[1:])
    data = bytearray(len(rows) * size)
    places = memoryview(data)
    for i in np.argsort(rows, kind="stable").tolist():
        file.seek((header.offset or 0) + int(rows[i]) * size)
        if file.readinto(places[i * size : (i + 1) * size]) != size:
            raise BadFileError(f"Expected row {rows[i]} in {path}, got the end of the file. Write it again.")
    return np.frombuffer(data, header.dtype).reshape(len(rows), *header.shape[1:])


def stream_rows(archive: Archive, rows: np.ndarray) -> Batch:
    """Read the whole archive in chunks and keep the rows asked for, in that order; every value is checked."""
    x, y = (_take(archive.path, name, rows) for name in ("x", "y"))
    return as_batch(x, y, archive.form.task, archive.path)


def as_batch(x: np.ndarray, y: np.ndarray, task: Task, path: Path) -> Batch:
    """Stored values as a batch: bytes to [0, 1], images with a channel axis, float32 and int32.

    Raises:
        ValueError: If a value is NaN, infinite or beyond float32.
    """
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = values[~np.isfinite(values)].flat[0]
            raise BadFileError(f"Expected finite numbers in {name}, got {bad} in {path}. Remove or replace these rows.")
    with np.errstate(over="ignore"):
        inputs = scaled_bytes(x) if x.dtype == np.uint8 else np.ascontiguousarray(x, np.float32)
        labels = y.astype(np.int32 if task == "classification" else np.float32)
    if not (np.isfinite(inputs).all() and np.isfinite(labels).all()):
        raise BadFileError(f"Expected numbers within the range of float32 in {path}, got larger ones. Rescale them.")
    return {"x": inputs[..., None] if inputs.ndim == 3 else inputs, "y": labels}
