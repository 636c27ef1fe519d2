"""Any iterator of batches as what a training is fed with: where it stands, and what it must not do."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lggwjax.gradients.selection import batch_size

_LOG = logging.getLogger(__name__)


def feed(batches: Iterable[PyTree], start: int, stop: int, position: str | None) -> Iterator[tuple[PyTree, str | None]]:
    """Give the batches of steps ``start`` to ``stop - 1``, each with the position after it.

    Args:
        batches: An iterator, or what gives one that starts anew, such as a Grain data set or loader.
        start: Batches taken before.
        stop: Where to end.
        position: Of an iterator that tells it; None skips the batches taken before.

    Yields:
        A batch, and the iterator's own state as JSON; None if it has no ``get_state`` and ``set_state``.

    Raises:
        ValueError: If the iterator ends early, gives batches of different forms, or takes or gives no such position;
            one line.
    """
    iterator = iter(batches)
    _go_to(iterator, start, position)
    form = None
    for step in range(start, stop):
        batch = _next(iterator, step, stop)
        form = form or _form(batch, step)
        if (found := _form(batch, step)) != form:
            raise ValueError(
                f"Expected batch {step} to be like the one before, {form}, got {found}. Drop or fill up what is left "
                "over at the end of a pass."
            )
        yield batch, _position(iterator)


def _next(iterator: Iterator[PyTree], step: int, stop: int) -> PyTree:
    try:
        return next(iterator)
    except StopIteration:
        raise ValueError(
            f"Expected {stop} batches for {stop} steps, got {step} and then the end. Ask for fewer steps, or repeat "
            "the data."
        ) from None


def _form(batch: PyTree, step: int) -> str:
    try:
        batch_size(batch)
        return str(jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", batch))
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"Expected batch {step} to be arrays with one leading axis, got another: {text}") from error


def _tells_position(iterator: Any) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")


def _position(iterator: Any) -> str | None:
    if not _tells_position(iterator):
        return None
    state = iterator.get_state()
    try:
        # Grain's data loaders give bytes, its data sets a dictionary.
        return json.dumps(state.decode() if isinstance(state, bytes) else state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected the iterator's get_state to give JSON or UTF-8 bytes, got {type(state).__name__} ({error})."
        ) from error


def _go_to(iterator: Any, start: int, position: str | None) -> None:
    if position is not None and _tells_position(iterator):
        try:
            state = json.loads(position)
            iterator.set_state(state.encode() if isinstance(state, str) else state)
        except Exception as error:  # whatever another iterator says to a position that is not its own
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"Expected the iterator whose position was stored, got another: {text}") from error
        return
    if start:
        _LOG.warning("The iterator of batches tells no position: skipping the %d batches taken before.", start)
    for step in range(start):
        _next(iterator, step, start)
