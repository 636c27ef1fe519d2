"""Several processes of one run: the first one decides and writes, and what it did is known to all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lggwjax.sharding import place, to_host
from lggwjax.training import checkpoints
from lggwjax.training.files import Json
from lggwjax.training.folder import RunFolder
from lggwjax.training.loop import TrainState

HEARTBEAT = 20  # seconds without word from a process after which the others give it up
SURVIVORS_END = 60  # seconds after which the others have ended, at most
_PIECE = 2**26  # bytes of one broadcast
_ERRORS = {e.__name__: e for e in (ValueError, OSError, FloatingPointError, checkpoints.DamagedCheckpoint)}

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
            shutdown_timeout_seconds=HEARTBEAT,
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
            kind = next(name for name, known in reversed(_ERRORS.items()) if isinstance(caught, known))
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
    size = int(multihost_utils.broadcast_one_to_all(np.asarray([len(data) // _PIECE, len(data) % _PIECE]))[0]) * _PIECE
    size += int(multihost_utils.broadcast_one_to_all(np.asarray([len(data) % _PIECE]))[0])
    pieces = []
    for start in range(0, size, _PIECE):
        length = min(_PIECE, size - start)
        own = np.frombuffer(data[start : start + length], np.uint8) if is_first() else np.zeros(length, np.uint8)
        pieces.append(np.asarray(multihost_utils.broadcast_one_to_all(own), np.uint8).tobytes())
    return b"".join(pieces)


class SharedFolder:
    """A run folder with its checkpoints, written by the first process, known to all.

    Attributes:
        path: The folder.
        finished: Whether its page was there already.
    """

    def __init__(self, path: Path, folder: RunFolder | None, *, finished: bool):
        self.path, self.finished, self._folder = path, finished, folder

    @classmethod
    def open(cls, path: Path, asked: Json, *, resume: bool, extra: Json) -> Self:
        """Open it; see :meth:`lggwjax.training.folder.RunFolder.open`."""
        folder: RunFolder | None = None

        def opened() -> bool:
            nonlocal folder
            folder = RunFolder.open(path, asked, resume=resume, extra=extra)
            return folder.finished

        finished = on_first(opened)
        return cls(path, folder, finished=finished)

    @property
    def records(self) -> list[Json]:
        """All records on disk, oldest first."""
        return on_first(lambda: self._writer.records)

    def append(self, record: Json) -> None:
        """Add one record: that of the first process."""
        on_first(lambda: self._writer.append(record))

    def rewind(self, step: int) -> None:
        """Remove the records from a step on, and their checkpoints."""
        on_first(lambda: self._writer.rewind(step))

    def verify(self, step: int) -> None:
        """Look whether a checkpoint is as it was written."""
        on_first(lambda: checkpoints.verify(self._writer.checkpoints_dir, step))

    def save(self, state: TrainState) -> None:
        """Write a checkpoint."""
        if jax.process_count() > 1:
            state = state._replace(**{part: jax.tree.map(to_host, getattr(state, part)) for part in checkpoints.PARTS})
        on_first(lambda: checkpoints.save(self._writer.checkpoints_dir, state))

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Read a checkpoint, laid on the devices as ``like`` is."""
        if jax.process_count() == 1:
            return checkpoints.restore(self._writer.checkpoints_dir, step, like)
        whole = like._replace(step=step)
        leaves, treedef = jax.tree.flatten([getattr(like, part) for part in checkpoints.PARTS])
        held: list[bytes] = []

        def read() -> str | None:
            shapes = treedef.unflatten([jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves])
            named = dict(zip(checkpoints.PARTS, shapes, strict=True))
            found = checkpoints.restore(self._writer.checkpoints_dir, step, like._replace(**named))
            parts = [getattr(found, part) for part in checkpoints.PARTS]
            held.extend(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(parts))
            return found.position

        position, data = on_first(read), broadcast(b"".join(held))
        arrays, start = [], 0
        for leaf in leaves:
            size = leaf.size * leaf.dtype.itemsize
            array = np.frombuffer(data[start : start + size], leaf.dtype).reshape(leaf.shape)
            arrays.append(place(array, leaf.sharding))
            start += size
        return whole._replace(**dict(zip(checkpoints.PARTS, treedef.unflatten(arrays), strict=True)), position=position)

    def write_page(self) -> None:
        """Write ``report.html``."""

        def write() -> None:
            from lggwjax.report import write_page  # matplotlib is loaded when there is something to draw

            write_page(self.path)

        on_first(write)

    @property
    def _writer(self) -> RunFolder:
        if self._folder is None:
            raise RuntimeError("Only the first process writes.")
        return self._folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.close()


def give_up(error: BaseException) -> None:
    """End this process at once where another one is lost: to say goodbye to it would mean to wait for it."""
    text = " ".join(str(error).split())[:300]
    message = f"lggwjax: process {jax.process_index()} ends, as another one is lost or a device failed: {text} "
    message += "All records written are whole; start all processes again with --resume.\n"
    os.write(2, message.encode())
    os._exit(1)
