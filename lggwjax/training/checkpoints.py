"""Checkpoints on disk: a thin layer over orbax that is synchronous, atomic and exact to the bit."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree

from lggwjax.sharding import place
from lggwjax.strict import strict_object
from lggwjax.training.loop import TrainState

PARTS = ("params", "previous", "opt_state")
_POSITION = "position.json"  # of the iterator of batches, where it tells one
_MAX_JSON = 2**24  # bytes
_SMALL_CHUNK = 1 << 16  # numbers
_METADATA = ("_sharding", ".zarray", "zarr.json")  # JSON that tensorstore reads
_SUMS = "sha256.json"  # of every other file of a checkpoint, so that a damaged one is known before it is used


class DamagedCheckpoint(ValueError):  # noqa: N818, what was found
    """A checkpoint that is not, byte for byte, what was written."""


def save(directory: str | Path, state: TrainState) -> None:
    """Write one state to ``directory/<step>``, in full or not at all.

    It is written under another name, brought to the disk, and renamed: a process killed at any moment leaves no
    half checkpoint among the `steps`.

    Args:
        directory: The folder of all checkpoints of a run.
        state: What `lggwjax.training.loop.train` gave.

    Raises:
        ValueError: If that step is already there.
        OSError: If the disk refuses; nothing half-written is left.

    Example:
        >>> import tempfile
        >>> from lggwjax.training.loop import TrainSpec, initial_state
        >>> folder = Path(tempfile.mkdtemp())
        >>> state = initial_state({"params": jnp.arange(3.0), "state": {}}, None, TrainSpec())
        >>> save(folder, state)
        >>> steps(folder), restore(folder, 0, like=state).params["params"].tolist()
        ([0], [0.0, 1.0, 2.0])
    """
    final = Path(directory).absolute() / str(state.step)
    if final.exists():
        raise ValueError(f"Expected no checkpoint of step {state.step} yet, got {final}. Remove it first.")
    partial = final.with_name(f"{state.step}.partial")
    tree = jax.tree.map(_storable, {part: getattr(state, part) for part in PARTS})
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with _quiet(), _checkpointer() as writer:
            writer.save(partial / "checkpoint", args=ocp.args.PyTreeSave(tree))
        if state.position is not None:
            (partial / "checkpoint" / _POSITION).write_text(state.position, encoding="utf8")
        (partial / "checkpoint" / _SUMS).write_text(json.dumps(_sums(partial / "checkpoint"), indent=0))
        _to_disk(partial)
        os.rename(partial / "checkpoint", final)
        sync(final.parent)
    except (OSError, ValueError, RuntimeError) as error:
        # orbax passes on what tensorstore says of a full disk as a ValueError of many lines.
        raise OSError(f"Writing the checkpoint of step {state.step} to {final} failed: {_one_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def restore(directory: str | Path, step: int, like: TrainState) -> TrainState:
    """Read the state of one step.

    Args:
        directory: The folder given to `save`.
        step: One of `steps`.
        like: A state of the same structure, shapes and types, as `lggwjax.training.loop.initial_state` makes it.

    Returns:
        The state as it was saved, bit for bit.

    Raises:
        DamagedCheckpoint: If a file of it was cut short, changed or removed since it was written.
        ValueError: If there is no such checkpoint, it cannot be read, or a leaf is missing, left over or of another
            shape or type; the message names the first.
    """
    path = Path(directory).absolute() / str(step)
    _verify(path)
    stored = _stored(path)
    arrays = _read(path, stored, stored, {part: getattr(like, part) for part in PARTS})
    return TrainState(step, **arrays, position=_position(path))


def _position(path: Path) -> str | None:
    if not (path / _POSITION).is_file():
        return None
    with (path / _POSITION).open("rb") as file:
        text = file.read(_MAX_JSON)
    try:
        json.loads(text)
        return text.decode("utf8")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected JSON in {path / _POSITION}, got other data. Go on from another checkpoint."
        ) from error


def verify(directory: str | Path, step: int) -> None:
    """Compare a checkpoint with the sums that were written with it, without loading it.

    Args:
        directory: The folder given to `save`.
        step: One of `steps`.

    Raises:
        DamagedCheckpoint: As `restore`.
    """
    _verify(Path(directory).absolute() / str(step))


def steps(directory: str | Path) -> list[int]:
    """List the steps of which ``directory`` holds a complete checkpoint, rising; none if there is no such folder."""
    folder = Path(directory)
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def read_params(path: str | Path, like: PyTree) -> PyTree:
    """Read the parameters of any orbax checkpoint of arrays, also of one that was not written here.

    Args:
        path: One checkpoint: ``directory/<step>`` of `save`, or of orbax's checkpointers or manager. It may hold a
            `TrainState` of ours, ``{"params": ..., "state": ...}``, or what is under ``"params"`` alone. ``flax.nnx``
            states, whose leaves lie under ``value``, are read as well.
        like: ``{"params": ..., "state": ...}`` of the model, for structure, shapes and types.

    Returns:
        The parameters, of the structure of ``like``.

    Raises:
        DamagedCheckpoint: If it was written here and a file of it was cut short, changed or removed since then.
        ValueError: If there is no such checkpoint, it cannot be read, or a leaf is missing, left over or of another
            shape or type; the message names the first.
    """
    path = Path(path).absolute()
    if (path / "default").is_dir():
        path = path / "default"
    _verify(path)
    stored = _stored(path)
    if set(PARTS) <= set(stored):
        return _read(path, {"params": stored["params"]}, stored["params"], like)
    return _read(path, stored, stored if set(stored) <= set(like) else {"params": stored}, like)


def _sums(path: Path) -> dict[str, str]:
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file != path / _SUMS:
            with file.open("rb") as opened:
                found[file.relative_to(path).as_posix()] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def _verify(path: Path) -> None:
    """Compare a checkpoint with the sums written beside it; one that another program wrote has none."""
    if not (path / _SUMS).is_file():
        return
    try:
        written = json.loads((path / _SUMS).read_bytes())
        found = _sums(path)
        bad = [name for name, value in written.items() if found.get(name) != value]
    except (OSError, ValueError, AttributeError, RecursionError):
        bad = [_SUMS]
    if bad:
        raise DamagedCheckpoint(f"Expected the checkpoint {path} as it was written, got another {bad[0]!r:.100}.")


def _stored(path: Path) -> dict[str, Any]:
    """Shapes and types of what a checkpoint holds, without reading it."""
    if not path.is_dir():
        raise ValueError(f"Expected a checkpoint at {path}, got no such folder.")
    _check_json(path)
    with _quiet(), _checkpointer() as reader:
        try:
            metadata = reader.metadata(path).item_metadata
        except Exception as error:  # Whatever a foreign or broken folder provokes in orbax.
            raise ValueError(f"Expected an orbax checkpoint at {path}, got: {_one_line(error)}") from error
        tree = getattr(metadata, "tree", None)
        if not isinstance(tree, dict) or not jax.tree.leaves(tree):
            raise ValueError(f"Expected an orbax checkpoint of named arrays at {path}, got a folder without any.")
        return tree


def _check_json(path: Path) -> None:
    """Refuse odd JSON before tensorstore copies it, level by level on a thread's stack: many levels end the process."""
    for name, text in _metadata(path):
        where = f"{str(path / name)!r:.300}"
        if len(text) > _MAX_JSON:
            raise ValueError(
                f"Expected at most {_MAX_JSON} bytes of JSON at {where}, got more. Write the checkpoint again."
            )
        strict_object(text, where)


def _metadata(path: Path) -> Iterator[tuple[str, bytes]]:
    """What tensorstore reads as JSON, in files and in a database of many small ones."""
    for file in path.rglob("*"):
        if file.name in _METADATA and file.is_file():
            with file.open("rb") as opened:
                yield str(file.relative_to(path)), opened.read(_MAX_JSON + 1)
    if (path / "manifest.ocdbt").is_file():
        base = {"driver": "file", "path": f"{path}/"}
        try:
            database = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
            for name in (name.decode() for name in database.list().result()):
                if name.rpartition("/")[2] in _METADATA:
                    yield name, database.read(name).result().value
        except Exception as error:  # Whatever a broken index provokes.
            raise ValueError(f"Expected an orbax checkpoint at {path}, got: {_one_line(error)}") from error


def _read(path: Path, item: PyTree, found: PyTree, like: PyTree) -> PyTree:
    """Read ``item``, the wanted part of a checkpoint, which lies as ``found`` against ``like``."""
    template = _named(jax.tree.map(_storable, like))
    names = _named(found)
    if all(name.endswith("/value") for name in names):
        names = {name.removesuffix("/value"): leaf for name, leaf in names.items()}
    _check(names, template, path)
    # As numpy: neither the devices nor the sharding of the writer matter.
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    with _quiet(), _checkpointer() as reader:
        try:
            restored = reader.restore(
                path, args=ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=True)
            )
        except Exception as error:  # A torn array is a ValueError of tensorstore, a torn index another error.
            raise ValueError(f"Expected a readable checkpoint at {path}, got: {_one_line(error)}") from error
    values = dict(zip(names, jax.tree.leaves(restored), strict=True))
    leaves, treedef = jax.tree.flatten(like)
    return treedef.unflatten([_like(leaf, values[name]) for leaf, name in zip(leaves, template, strict=True)])


def _check(names: dict[str, Any], template: dict[str, Any], path: Path) -> None:
    advice = "Give the model and the optimizer that it was written with."
    for name, leaf in template.items():
        want = f"{leaf.dtype}{list(leaf.shape)}"
        if name not in names:
            raise ValueError(f"Expected {name} of {want} in the checkpoint {path}, got no such leaf. {advice}")
        held = names[name]
        got = f"{getattr(held, 'dtype', '?')}{list(getattr(held, 'shape', ()))}"
        if got != want:
            raise ValueError(f"Expected {name} of {want} in the checkpoint {path}, got {got}. {advice}")
        _check_chunks(name, held, path)
    for name in names:
        if name not in template:
            raise ValueError(f"Expected no {name} in the checkpoint {path}, got one. {advice}")


def _check_chunks(name: str, held: Any, path: Path) -> None:
    """A chunk is expanded whole, whatever the array's shape: one that is larger than the array is no honest one."""
    storage = getattr(held, "storage", None)
    for part in ("chunk_shape", "write_shape"):
        chunk = getattr(storage, part, None) or ()
        counted = isinstance(chunk, list | tuple) and all(isinstance(number, int) for number in chunk)
        if not counted or math.prod(chunk) > 2 * math.prod(held.shape) + _SMALL_CHUNK:
            raise ValueError(
                f"Expected {name} in chunks of at most its {math.prod(held.shape)} numbers in the checkpoint {path}, "
                f"got chunks of {chunk!r:.100}. Write the checkpoint again."
            )


def _named(tree: PyTree) -> dict[str, Any]:
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _storable(leaf: Any) -> Any:
    """Typed random keys (of dropout, say) are stored as the integers they are made of."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf: Any, value: np.ndarray) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None and len(sharding.device_set) > 1:
        return place(value, sharding)
    return jnp.asarray(value)


def _checkpointer() -> ocp.Checkpointer:
    """Orbax's for a tree of arrays. Of several processes the one that calls works alone and waits for no other."""
    if jax.process_count() == 1:
        return ocp.PyTreeCheckpointer()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep orbax's log, tracebacks of its threads among it, off the screen: errors are raised here in one line."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    disabled, logger.disabled = logger.disabled, True
    if getattr(hook, "func", None) is not _tell:
        sys.unraisablehook = functools.partial(_tell, hook)
    try:
        yield
        sys.unraisablehook = hook  # after an error it stays: what was on its way may be late
    finally:
        logger.disabled = disabled


def _tell(hook: Callable[[Any], Any], told: Any) -> None:
    """Tell of an error, but not of leaves that nobody waits for any more because another one could not be read."""
    if not (told.exc_type is RuntimeError and str(told.exc_value) == "Event loop is closed"):
        hook(told)


def _to_disk(folder: Path) -> None:
    """Bring a folder and all below it to the disk: a record may speak of it only then."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Bring one file, or the names in one folder, to the disk: after that a power cut does not undo them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_line(error: BaseException) -> str:
    """The error without line breaks; tensorstore names long paths first and the cause last, so the end is kept."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"... {text[-200:]}"
