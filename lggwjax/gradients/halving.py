"""Fewer samples at a time where the device runs out of memory: what a plan foretells is not always what is free."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.core import Tracer

Found = TypeVar("Found")
_LOG = logging.getLogger(__name__)


def is_exhausted(error: BaseException) -> bool:
    """Whether jax says that the memory of a device does not suffice."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def halving(measure: Callable[[int], Found], chunk_size: int) -> Found:
    """Measure in chunks; where the device's memory is exhausted, in chunks of half the size, down to one sample.

    Each time a warning names both sizes. What is measured must not depend on the size, up to rounding. With several
    processes nothing is tried again: the others would wait for ever for a part that comes in other pieces.

    Args:
        measure: From a chunk size to what is measured.
        chunk_size: The first to try.

    Returns:
        What ``measure`` returns, computed and not only asked for; tracers inside a trace, as they are.

    Raises:
        MemoryError: If even one sample at a time does not fit.

    Example:
        >>> halving(lambda size: jax.numpy.zeros(size), 4).shape
        (4,)
    """
    size = chunk_size
    while True:
        try:
            found = measure(size)
            if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(found)):
                jax.block_until_ready(found)  # a device may say only now that its memory did not suffice
            return found
        except jax.errors.JaxRuntimeError as error:
            if not is_exhausted(error) or jax.process_count() > 1:
                raise
            said = str(error).splitlines()[0]
        # Only here are the arrays of the failed attempt let go, which the error held on to.
        if size == 1:
            raise MemoryError(
                f"Expected one sample at a time to fit the device's memory, got: {said} Measure fewer samples, "
                "checkpoints or parameters (wrt=), or take a device with more memory."
            )
        half = (size + 1) // 2
        _LOG.warning(
            "The device's memory does not suffice with chunk_size %d: trying %d. It said: %s", size, half, said
        )
        size = half
