"""Reading files that may be broken or hostile, in memory bounded by the request."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from lggwjax.data.spec import Batch, Task

if TYPE_CHECKING:
    from lggwjax.data.shards import Shards

Stream = IO[bytes] | gzip.GzipFile
CHUNK_BYTES = 1 << 20
# No stream of deflate data expands further than this.
MAX_DEFLATE_RATIO = 1032


class BadFileError(ValueError):
    """A file that is not what it says; the message is one line and names the file."""


@dataclass(frozen=True)
class Source:
    """Data whose size and labels have been checked and whose rows have not been read yet.

    Args:
        title: What the data are, in words.
        num_train: Number of rows that the sample may be drawn from.
        num_test: Number of rows of the source's own test part; 0 if it has none.
        task: ``classification`` or ``regression``.
        num_outputs: Number of classes; 1 for regression.
        read: From the rows of the sample and of the held-out part (of the test part if there is one, else of the same
            rows as the sample) to the two batches.
        class_names: Names of the classes, where the data give them.
        in_unit_box: Whether the format keeps every input entry between 0 and 1, as it does bytes over 255.
        shards: Where single rows of the sample can be read when they are asked for; the sample then stays on disk.
    """

    title: str
    num_train: int
    num_test: int
    task: Task
    num_outputs: int
    read: Callable[[np.ndarray, np.ndarray], tuple[Batch, Batch]]
    class_names: tuple[str, ...] = ()
    in_unit_box: bool = False
    shards: Shards | None = None


@contextmanager
def one_line_errors(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a broken file makes a reader raise into one line that names the file."""
    try:
        yield
    except (BadFileError, FileNotFoundError):
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        ArithmeticError,
        RuntimeError,  # zipfile: encrypted member; NotImplementedError: unknown compression
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadFileError(f"Expected a sound {what}, got {path} ({reason}). Fetch or write the file again.") from error


def locate(folder: Path, names: tuple[str, ...], origin: str) -> Path:
    """The first of ``names`` that is a file in ``folder``.

    Raises:
        FileNotFoundError: If there is none; the message says where it was looked for, and ``origin``.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    missing = f"Expected the file {' or '.join(names)} in {folder}, got no such file. {origin}"
    raise FileNotFoundError(missing)


def locate_one(place: Path, suffix: str) -> Path:
    """``place`` itself if it is a file, else the only file of that suffix in the folder ``place``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there are several.
    """
    if place.is_file():
        return place
    found = sorted(path for path in place.glob(f"*{suffix}") if path.is_file()) if place.is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"Expected a {suffix} file, or a folder with one, at {place}, got none. Write one there, or give its path."
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise BadFileError(
            f"Expected exactly one {suffix} file in {place}, got {len(found)} ({names}). Give the path of one, or "
            "take shards for a data set of many npz files."
        )
    return found[0]


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[Stream, int]]:
    """Open a plain or gzipped file; also give the largest number of bytes that it can hold."""
    size = os.path.getsize(path)
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as stream:
            yield stream, size * MAX_DEFLATE_RATIO
    else:
        with open(path, "rb") as stream:
            yield stream, size


def check_request(num_rows: int, row_shape: tuple[int, ...], path: Path) -> None:
    """Refuse rows that, as float32, would take more than half of this machine's memory."""
    wanted = 4 * num_rows * math.prod(row_shape)
    limit = memory_limit()
    if wanted > limit:
        raise BadFileError(
            f"Expected a request of at most {limit / 2**30:.1f} GiB (half of the memory), got {num_rows} rows of shape "
            f"{row_shape} from {path}, {wanted / 2**30:.1f} GiB. Ask for fewer samples."
        )


def memory_limit() -> int:
    """Half of the physical memory, in bytes; 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 8 << 30


def row_chunks(
    stream: Stream, num_rows: int, row_shape: tuple[int, ...], dtype: np.dtype, path: Path
) -> Iterator[tuple[int, np.ndarray]]:
    """All rows in order, as (number of the first row, rows); checks that the stream ends where the last row does.

    Raises:
        BadFileError: If the stream holds less or more than ``num_rows`` rows; at most one chunk is in memory by then.
    """
    row_bytes = dtype.itemsize * math.prod(row_shape)
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, num_rows, step):
        count = min(step, num_rows - start)
        data = stream.read(count * row_bytes)
        if len(data) < count * row_bytes:
            raise BadFileError(
                f"Expected {num_rows} rows of {row_bytes} bytes in {path}, as its header says, got only "
                f"{start + len(data) // row_bytes}. It is cut off or its header is wrong; fetch or write it again."
            )
        yield start, np.frombuffer(data, dtype).reshape(count, *row_shape)
    if stream.read(1):
        raise BadFileError(
            f"Expected {path} to end after the {num_rows} rows that its header promises, got more bytes. "
            "The header is wrong; fetch or write the file again."
        )


def take_rows(
    chunks: Iterator[tuple[int, np.ndarray]], rows: np.ndarray, check: Callable[[np.ndarray], None] | None = None
) -> np.ndarray:
    """The rows asked for, in the order asked for; every chunk, asked for or not, passes ``check``."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    taken: np.ndarray | None = None
    for start, chunk in chunks:
        if check is not None:
            check(chunk)
        if taken is None:
            taken = np.empty((len(rows), *chunk.shape[1:]), chunk.dtype)
        first, last = np.searchsorted(ascending, [start, start + len(chunk)])
        taken[order[first:last]] = chunk[ascending[first:last] - start]
    if taken is None:
        raise BadFileError("Expected at least one row, got none. Give a file that holds data.")
    return taken


def scaled_bytes(pixels: np.ndarray) -> np.ndarray:
    """Bytes 0..255 to float32 in [0, 1]."""
    return np.divide(pixels, np.float32(255), dtype=np.float32)
