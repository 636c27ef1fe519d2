"""What is read of files that may be anybody's: strict JSON, no links that lead elsewhere, one line for what is odd."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

# Far beyond what is written here; a file that has more is refused before it becomes a table or a page.
_MOST_LEVELS, _LARGEST = 64, 2**63


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Read a file that holds one strict JSON object.

    Args:
        path: The file.
        advice: What to do where it is missing.

    Returns:
        The object.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"Expected {path.name} in {str(path.parent)!r}, got no such file. {advice}")
    return strict_object(path.read_bytes(), str(path))


def within(folder: Path, *names: str) -> Path:
    """Name a path below a folder, and refuse a symbolic link that leads out of the folder.

    Args:
        folder: What was asked for; it may be a link itself.
        names: Of folders and a file below it.

    Returns:
        The path; it need not exist.

    Raises:
        ValueError: If a link on the way leads elsewhere.

    Example:
        >>> within(Path("run"), "metrics.jsonl").as_posix()
        'run/metrics.jsonl'
    """
    path = folder.joinpath(*names)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(
            f"Expected {str(path)!r} inside its folder, got a link that leads out of it. Put there what it points to."
        )
    return path


def room_for(file: Path) -> Path:
    """Make room for a file that is to be written beside records: its folder is made, and links there lead nowhere.

    Args:
        file: What is to be written.

    Returns:
        The same.

    Raises:
        ValueError: If its folder is a symbolic link.
    """
    if file.parent.is_symlink():
        raise ValueError(f"Expected a folder at {str(file.parent)!r}, got a link. Remove it.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        file.unlink()
    return file


@contextlib.contextmanager
def usual_form(folder: object) -> Iterator[None]:
    """Say in one line that records are not of their form, wherever that was noticed: they may be anybody's.

    Args:
        folder: Where they lie, for the message.

    Raises:
        ValueError: Instead of what a missing, odd or huge entry makes the code in the block raise.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(
            f"Expected records of the usual form in {str(folder)!r}, got others ({reason}). Restore the files, or run "
            "again."
        ) from error


def strict_object(text: bytes, place: str) -> dict[str, Any]:
    """Read one strict JSON object: finite numbers, whole ones of 64 bits, text that can be written, few levels.

    Args:
        text: In UTF-8.
        place: Where it stands, for the message.

    Returns:
        The object.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> strict_object(b'{"step": 1}', "here")
        {'step': 1}
    """

    def refuse(token: str) -> NoReturn:
        raise ValueError(f"the token {token[:40]}")

    def finite(token: str) -> float:
        return number if math.isfinite(number := float(token)) else refuse(token)

    def whole(token: str) -> int:
        return number if len(token) < 21 and -_LARGEST <= (number := int(token)) < _LARGEST else refuse(token)

    try:
        value = json.loads(text.decode(), parse_constant=refuse, parse_float=finite, parse_int=whole)
        if text.count(b"[") + text.count(b"{") > _MOST_LEVELS:
            _check_levels(value)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a pair of surrogates can be read, but not written
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected strict JSON at {place}, got {error}. Restore the file, or run again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"Expected a JSON object at {place}, got {type(value).__name__}. Restore the file.")
    return value


def _check_levels(value: Any) -> None:
    level = [value]
    for _ in range(_MOST_LEVELS):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise ValueError(f"more than {_MOST_LEVELS} levels")
