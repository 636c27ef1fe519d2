"""A run folder that the first of several processes writes to, and that all of them know."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import numpy as np

from lggwjax.sharding import place, to_host
from lggwjax.training import checkpoints
from lggwjax.training.files import Json
from lggwjax.training.folder import RunFolder
from lggwjax.training.hosts import broadcast, on_first
from lggwjax.training.loop import TrainState


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
        """Raise :class:`lggwjax.training.checkpoints.DamagedCheckpoint` unless a checkpoint is as it was written."""

        def damage() -> str:
            try:
                checkpoints.verify(self._writer.checkpoints_dir, step)
            except checkpoints.DamagedCheckpoint as error:
                return str(error)
            return ""

        if found := on_first(damage):
            raise checkpoints.DamagedCheckpoint(found)

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
