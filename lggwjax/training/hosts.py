"""Several processes of one run: what the first one decides or does is known to all, and a lost one ends the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT = 20  # seconds without word from a process after which the others give it up
SURVIVORS_END = 60  # seconds after which the others have ended, at most
_PIECE = 2**26  # bytes of one broadcast
_ERRORS = {e.__name__: e for e in (ValueError, OSError, FloatingPointError)}

Found = TypeVar("Found")


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Make this process one of several, before jax starts; each is given the same command.

    Args:
        coordinator: ``host:port`` of the first process; None where Slurm, Kubernetes, Open MPI or a TPU pod says it.
        num_processes: How many; None likewise.
        process_id: Which this is, from 0; None likewise.

    Raises:
        ValueError: If nothing says where the others are, or they do not come.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(
            f"Expected processes to join, got: {text} Give --coordinator HOST:PORT, --num-processes and --process-id "
            "where no cluster says them."
        ) from error


def is_first() -> bool:
    """Whether this process writes and prints."""
    return jax.process_index() == 0


def on_first(action: Callable[[], Found]) -> Found:
    """Do something in the first process alone; every process gets what came of it, or its error.

    Args:
        action: Gives what is strict JSON.

    Returns:
        What it gave, on every process.

    Example:
        >>> on_first(lambda: [1, 2])
        [1, 2]
    """
    if jax.process_count() == 1:
        return action()
    said, error = b"", None
    if is_first():
        try:
            said = json.dumps({"found": action()}).encode()
        except tuple(_ERRORS.values()) as caught:
            error = caught
            kind = next(name for name, known in _ERRORS.items() if isinstance(caught, known))
            said = json.dumps({"error": kind, "text": str(caught)}).encode()
    answer = json.loads(broadcast(said))
    if error is not None:
        raise error
    if "error" in answer:
        raise _ERRORS[answer["error"]](answer["text"])
    return answer["found"]


def broadcast(data: bytes) -> bytes:
    """Give every process the bytes of the first one."""
    if jax.process_count() == 1:
        return data
    whole, rest = map(int, multihost_utils.broadcast_one_to_all(np.asarray(divmod(len(data), _PIECE))))
    size = whole * _PIECE + rest
    pieces = []
    for start in range(0, size, _PIECE):
        length = min(_PIECE, size - start)
        own = np.frombuffer(data[start : start + length], np.uint8) if is_first() else np.zeros(length, np.uint8)
        pieces.append(np.asarray(multihost_utils.broadcast_one_to_all(own), np.uint8).tobytes())
    return b"".join(pieces)


def give_up(error: BaseException) -> None:
    """End this process at once where another one is lost: to say goodbye to it would mean to wait for it."""
    text = " ".join(str(error).split())[:300]
    message = f"lggwjax: process {jax.process_index()} ends, as another one is lost or a device failed: {text} "
    message += "All records written are whole; start all processes again with --resume.\n"
    os.write(2, message.encode())
    os._exit(1)
