"""NumPy archives (npz) with arrays ``x`` and ``y``, streamed and never unpickled."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from lggwjax.data.files import (
    MAX_DEFLATE_RATIO,
    BadFileError,
    Source,
    check_request,
    locate_one,
    one_line_errors,
    row_chunks,
    scaled_bytes,
    take_rows,
)
from lggwjax.data.spec import Batch, Task

# What numpy itself allows for a header that is not trusted.
_MAX_HEADER = 10_000


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool


@dataclass(frozen=True)
class _Part:
    """One checked archive: the headers of x and y, and y's range of labels for classes."""

    path: Path
    x: _Header
    y: _Header
    task: Task
    num_classes: int


def open_npz(place: Path) -> Source:
    """Check the archive's directory, headers, sizes and labels; ``x`` is read later, only the rows asked for.

    ``y`` of integers means classes 0..k-1, ``y`` of floats a regression. ``x`` of bytes is taken for pixels and scaled
    to [0, 1]; arrays of shape (n, height, width) get a channel axis.

    Args:
        place: One file, a folder with exactly one, or a folder with ``train.npz`` and ``test.npz``.

    Raises:
        FileNotFoundError: If there is no archive.
        ValueError: If an archive is corrupt, lies about its size, holds objects, NaN or labels out of range, or the two
            parts do not fit together.
    """
    if (place / "train.npz").is_file() and (place / "test.npz").is_file():
        train, test = _inspect(place / "train.npz"), _inspect(place / "test.npz")
        _check_fit(train, test)
    else:
        train, test = _inspect(locate_one(place, ".npz")), None

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        check_request(len(rows) + len(heldout), train.x.shape[1:], train.path)
        if test is not None:
            return _batch(train, rows), _batch(test, heldout)
        both = _batch(train, np.concatenate([rows, heldout]))
        n = len(rows)
        return {name: array[:n] for name, array in both.items()}, {name: array[n:] for name, array in both.items()}

    num_outputs = train.num_classes if train.task == "classification" else 1
    title = f"the arrays of {train.path.name}"
    num_test, in_unit_box = test.x.shape[0] if test else 0, train.x.dtype == np.uint8
    return Source(title, train.x.shape[0], num_test, train.task, num_outputs, read, in_unit_box=in_unit_box)


def _check_fit(train: _Part, test: _Part) -> None:
    if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype or train.task != test.task:
        raise BadFileError(
            f"Expected train.npz and test.npz to hold arrays of one kind, got x {train.x.dtype} {train.x.shape} and "
            f"{test.x.dtype} {test.x.shape}, y {train.y.dtype} and {test.y.dtype}. Write both in the same way."
        )
    if test.num_classes > train.num_classes:
        raise BadFileError(
            f"Expected the labels of {test.path} to occur in {train.path}, got label {test.num_classes - 1} and "
            f"{train.num_classes} training classes. Label both parts in the same way."
        )


def _inspect(path: Path) -> _Part:
    headers = {}
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
    if y.dtype.kind == "f":
        return _Part(path, x, y, "regression", 0)
    low, high = _label_range(path)
    if low < 0 or high >= max(2, y.shape[0]):
        raise BadFileError(
            f"Expected integer labels 0 to k-1 for k classes, fewer than the {y.shape[0]} rows, got {low} to {high} in "
            f"{path}. Number the classes from 0; for a regression store y as floats."
        )
    return _Part(path, x, y, "classification", max(2, high + 1))


def _label_range(path: Path) -> tuple[int, int]:
    lows, highs = [], []
    with _member(path, "y") as (stream, header):
        for _, chunk in row_chunks(stream, header.shape[0], (), header.dtype, path):
            lows.append(int(chunk.min()))
            highs.append(int(chunk.max()))
    return min(lows), max(highs)


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], _Header]]:
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
            header, length = _read_header(stream, name, path)
            promised = length + header.dtype.itemsize * math.prod(header.shape)
            if promised != info.file_size:
                raise BadFileError(
                    f"Expected {name} of shape {header.shape} and type {header.dtype} to take {promised} bytes, got "
                    f"{info.file_size} in {path}. The header is wrong; write the archive again."
                )
            yield stream, header


def _read_header(stream: IO[bytes], name: str, path: Path) -> tuple[_Header, int]:
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
    if not shape or any(isinstance(size, bool) or size < 0 for size in shape):
        raise BadFileError(f"Expected {name} to have rows, got shape {shape} in {path}. Write the archive again.")
    return _Header(tuple(shape), dtype, bool(fortran)), len(head) + len(field) + length


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


def _batch(part: _Part, rows: np.ndarray) -> Batch:
    x, y = _take(part.path, "x", rows), _take(part.path, "y", rows)
    with np.errstate(over="ignore"):
        inputs = scaled_bytes(x) if x.dtype == np.uint8 else np.ascontiguousarray(x, np.float32)
        labels = y.astype(np.int32 if part.task == "classification" else np.float32)
    if not (np.isfinite(inputs).all() and np.isfinite(labels).all()):
        raise BadFileError(
            f"Expected numbers within the range of float32 in {part.path}, got larger ones. Rescale them."
        )
    return {"x": inputs[..., None] if inputs.ndim == 3 else inputs, "y": labels}
