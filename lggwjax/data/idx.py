"""MNIST and Fashion-MNIST: IDX files, gzipped or plain."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from lggwjax.data.files import (
    BadFileError,
    Source,
    Stream,
    check_request,
    locate,
    one_line_errors,
    open_stream,
    row_chunks,
    scaled_bytes,
    take_rows,
)
from lggwjax.data.spec import Batch

_ORIGIN = {
    "mnist": "Get the four files of MNIST from https://ossci-datasets.s3.amazonaws.com/mnist/ and put them there.",
    "fashion-mnist": "Get the four files of Fashion-MNIST from https://github.com/zalandoresearch/fashion-mnist "
    "and put them there.",
}
_TITLE = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
_IMAGE = (28, 28)
_BYTE = np.dtype(np.uint8)


def open_idx(name: str, folder: Path) -> Source:
    """Check headers, sizes and all labels of the four files; images are read later, only those asked for.

    Args:
        name: ``mnist`` or ``fashion-mnist``.
        folder: Where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte`` are, each plain or with ``.gz``.

    Raises:
        FileNotFoundError: If one of the four is missing.
        ValueError: If one is cut off, corrupt, of another kind, or holds labels other than 0..9.
    """
    stems = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    paths = [locate(folder, (stem, f"{stem}.gz"), _ORIGIN[name]) for stem in stems]
    counts, labels = [], []
    for images, targets in (paths[:2], paths[2:]):
        counts.append(_count(images, _IMAGE))
        num_labels = _count(targets, ())
        if num_labels != counts[-1]:
            raise BadFileError(
                f"Expected as many labels as images, got {num_labels} in {targets} and {counts[-1]} in {images}. "
                "Put files of the same data together."
            )
        labels.append(_labels(targets))

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        return _batch(paths[0], labels[0], rows), _batch(paths[2], labels[1], heldout)

    return Source(_TITLE[name], counts[0], counts[1], "classification", 10, read, _CLASSES[name], in_unit_box=True)


def _header(stream: Stream, capacity: int, shape: tuple[int, ...], path: Path) -> int:
    """Number of items that the header promises, after checking that the file can hold them."""
    kind = "images" if shape else "labels"
    length = 4 * (2 + len(shape))
    head = stream.read(length)
    if len(head) < length:
        raise BadFileError(f"Expected an IDX header in {path}, got {len(head)} bytes. Fetch the file again.")
    if head[:4] != bytes((0, 0, 8, 1 + len(shape))):
        raise BadFileError(
            f"Expected an IDX file of {kind} (magic number 0000080{1 + len(shape)}), got {head[:4].hex()} in {path}. "
            "Check that the file has its right name, or fetch it again."
        )
    count, *dims = struct.unpack(f">{1 + len(shape)}I", head[4:])
    if tuple(dims) != shape:
        got = " x ".join(map(str, dims))
        raise BadFileError(f"Expected images of 28 x 28 pixels, got {got} in {path}. Give files of this data set.")
    if count < 1 or length + count * math.prod(shape) > capacity:
        raise BadFileError(
            f"Expected a header that fits the size of the file, got a promise of {count} {kind} in {path}. "
            "The file is cut off or its header is wrong; fetch it again."
        )
    return count


def _count(path: Path, shape: tuple[int, ...]) -> int:
    with one_line_errors(path, "IDX file"), open_stream(path) as (stream, capacity):
        return _header(stream, capacity, shape, path)


def _labels(path: Path) -> np.ndarray:
    with one_line_errors(path, "IDX file"), open_stream(path) as (stream, capacity):
        count = _header(stream, capacity, (), path)
        parts = []
        for start, chunk in row_chunks(stream, count, (), _BYTE, path):
            if chunk.max() > 9:
                row = int(np.argmax(chunk > 9))
                raise BadFileError(
                    f"Expected labels 0 to 9, got {chunk[row]} at row {start + row} of {path}. Fetch the file again."
                )
            parts.append(chunk)
    return np.concatenate(parts)


def _batch(path: Path, labels: np.ndarray, rows: np.ndarray) -> Batch:
    check_request(len(rows), _IMAGE, path)
    with one_line_errors(path, "IDX file"), open_stream(path) as (stream, capacity):
        count = _header(stream, capacity, _IMAGE, path)
        pixels = take_rows(row_chunks(stream, count, _IMAGE, _BYTE, path), rows)
    return {"x": scaled_bytes(pixels)[..., None], "y": labels[rows].astype(np.int32)}
