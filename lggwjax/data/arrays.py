"""NumPy archives (npz) with arrays ``x`` and ``y``, read into memory: one file, or one to train and one to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lggwjax.data.archives import Archive, inspect, num_classes, stream_rows
from lggwjax.data.files import BadFileError, Source, check_request, locate_one
from lggwjax.data.spec import Batch


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
        train, test = inspect(place / "train.npz"), inspect(place / "test.npz")
    else:
        train, test = inspect(locate_one(place, ".npz")), None
    classes = num_classes([train])
    if test is not None:
        _check_fit(train, test, classes)

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        check_request(len(rows) + len(heldout), train.x.shape[1:], train.path)
        if test is not None:
            return stream_rows(train, rows), stream_rows(test, heldout)
        both = stream_rows(train, np.concatenate([rows, heldout]))
        n = len(rows)
        return {name: array[:n] for name, array in both.items()}, {name: array[n:] for name, array in both.items()}

    num_test, in_unit_box = test.num_rows if test else 0, train.form.in_unit_box
    title, num_outputs = f"the arrays of {train.path.name}", classes or 1
    return Source(title, train.num_rows, num_test, train.form.task, num_outputs, read, in_unit_box=in_unit_box)


def _check_fit(one: Archive, other: Archive, classes: int) -> None:
    if one.x.shape[1:] != other.x.shape[1:] or one.x.dtype != other.x.dtype or one.form.task != other.form.task:
        raise BadFileError(
            f"Expected train.npz and test.npz to hold arrays of one kind, got x {one.x.dtype} {one.x.shape} and "
            f"{other.x.dtype} {other.x.shape}, y {one.y.dtype} and {other.y.dtype}. Write both in the same way."
        )
    found = num_classes([other])
    if found > classes:
        raise BadFileError(
            f"Expected the labels of {other.path} to occur in {one.path}, got label {found - 1} and "
            f"{classes} training classes. Label both parts in the same way."
        )
