"""CIFAR-10 in its binary version, from whichever batches are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lggwjax.data.files import (
    BadFileError,
    Source,
    check_request,
    one_line_errors,
    open_stream,
    row_chunks,
    scaled_bytes,
    take_rows,
)
from lggwjax.data.spec import Batch

_ORIGIN = (
    "Get the binary version of CIFAR-10 from https://www.cs.toronto.edu/~kriz/cifar.html, "
    "unpack it, and give the folder cifar-10-batches-bin."
)
_RECORD = 1 + 3 * 32 * 32
_BYTE = np.dtype(np.uint8)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_cifar10(folder: Path) -> Source:
    """Check the sizes of the batches that are present; images are read later, only those asked for.

    Args:
        folder: Holds any of ``data_batch_1.bin`` .. ``data_batch_5.bin`` and ``test_batch.bin``. Without a
            data batch the test batch is what the sample is drawn from.

    Raises:
        FileNotFoundError: If no batch is present.
        ValueError: If a batch is cut off or is not of this format.
    """
    train = [path for i in range(1, 6) if (path := folder / f"data_batch_{i}.bin").is_file()]
    test = [path for path in (folder / "test_batch.bin",) if path.is_file()]
    if not train and not test:
        raise FileNotFoundError(
            f"Expected data_batch_1.bin to data_batch_5.bin or test_batch.bin in {folder}, got none of them. {_ORIGIN}"
        )
    if not train:
        train, test = test, []
    counts = {path: _count(path) for path in train + test}

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        check_request(len(rows) + len(heldout), (32, 32, 3), folder)
        if test:
            return _batch(train, counts, rows), _batch(test, counts, heldout)
        both = _batch(train, counts, np.concatenate([rows, heldout]))
        n = len(rows)
        return {name: array[:n] for name, array in both.items()}, {name: array[n:] for name, array in both.items()}

    num_train, num_test = sum(counts[path] for path in train), sum(counts[path] for path in test)
    return Source("CIFAR-10", num_train, num_test, "classification", 10, read, _class_names(folder), in_unit_box=True)


def _count(path: Path) -> int:
    size = path.stat().st_size
    if size == 0 or size % _RECORD:
        raise BadFileError(
            f"Expected {path} to hold records of {_RECORD} bytes, got {size} bytes, which is no multiple of that. "
            "The file is cut off or not the binary version; fetch it again."
        )
    return size // _RECORD


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "batches.meta.txt"
    if not path.is_file():
        return _CLASSES
    with one_line_errors(path, "list of class names"), open(path, "rb") as stream:
        names = tuple(stream.read(4096).decode("utf-8").split())
    if len(names) != 10:
        raise BadFileError(
            f"Expected 10 class names in {path}, got {len(names)}. Give the folder of CIFAR-10, or remove the file."
        )
    return names


def _batch(paths: list[Path], counts: dict[Path, int], rows: np.ndarray) -> Batch:
    records = np.empty((len(rows), _RECORD), np.uint8)
    offset = 0
    for path in paths:
        here = (rows >= offset) & (rows < offset + counts[path])

        def check(chunk: np.ndarray, path: Path = path) -> None:
            worst = int(chunk[:, 0].max())
            if worst > 9:
                raise BadFileError(
                    f"Expected labels 0 to 9, got {worst} in {path}. It is corrupt or not of CIFAR-10; fetch it again."
                )

        with one_line_errors(path, "CIFAR-10 batch"), open_stream(path) as (stream, _):
            records[here] = take_rows(
                row_chunks(stream, counts[path], (_RECORD,), _BYTE, path), rows[here] - offset, check
            )
        offset += counts[path]
    # A record is the label and then the three colour planes.
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return {"x": scaled_bytes(planes.transpose(0, 2, 3, 1)), "y": records[:, 0].astype(np.int32)}
