"""Files that are whole or absent, and locks that go with their process."""

from __future__ import annotations

import fcntl
import json
import math
import os
from pathlib import Path
from typing import Any

from lggwjax.training.checkpoints import sync

Json = dict[str, Any]
LOCK = ".lock"


def lock(file: Path) -> int | None:
    """Lock a file for this process, making it where it is absent.

    Args:
        file: In a folder that exists.

    Returns:
        A descriptor to close when done; the kernel lets go of the lock when the process ends, however it ends. None
        if another process holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_folder(path: Path) -> int:
    """Lock a folder for this process.

    Args:
        path: The folder.

    Returns:
        A descriptor to close when done.

    Raises:
        ValueError: If another process works in it.
    """
    descriptor = lock(path / LOCK)
    if descriptor is None:
        raise ValueError(f"Expected {path} for this process alone, got one in use. Wait, or choose another --out.")
    return descriptor


def partial_name(file: Path) -> Path:
    """Where `write_json` keeps a file until it is whole."""
    return file.with_name(f"{file.name}.partial")


def write_json(file: Path, value: Json) -> None:
    """Write strict JSON that is on the disk, whole, when this returns; a reader sees the old file or the new one.

    Args:
        file: Where to.
        value: Strict JSON types.

    Raises:
        ValueError: If a number is NaN or infinite.
        OSError: If the disk refuses; the file is then as it was.
    """
    partial = partial_name(file)
    try:
        partial.unlink(missing_ok=True)  # what a kill left; a link of that name would lead the writing elsewhere
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, strict_json(value, indent=2) + b"\n")
        finally:
            os.close(descriptor)
        partial.replace(file)
        sync(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of ``content`` and bring it to the disk."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def strict_json(value: Any, indent: int | None = None) -> bytes:
    """Return strict JSON in UTF-8.

    Args:
        value: Strict JSON types.
        indent: Spaces a level; None for one line.

    Returns:
        The text.

    Raises:
        ValueError: If a number is NaN or infinite; the message says where.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent).encode()
    except ValueError as error:
        name = next(iter(_not_finite(value)), "a value")
        raise ValueError(f"Expected finite numbers or null, got NaN or infinity at {name}.") from error


def _not_finite(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [bad for key, item in value.items() for bad in _not_finite(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [bad for index, item in enumerate(value) for bad in _not_finite(item, f"{name}[{index}]")]
    return [name] if isinstance(value, float) and not math.isfinite(value) else []
