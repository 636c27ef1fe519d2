"""Samples that a run leaves out for good, because their loss or gradient was found NaN or infinite."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.training.batches import batch_rows
from lggwjax.training.nonfinite import find_non_finite
from lggwjax.training.rows import Rows, num_rows, reader

FIELD = "skipped"  # of a record
_SHOWN = 10  # samples named in one warning; the records have them all
_LOG = logging.getLogger(__name__)


class LeftOut:
    """Which samples are left out so far; it grows as more are found, and each finding is a warning.

    Attributes:
        train: Indices into the samples trained on.
        heldout: Indices into the held-out samples.

    Example:
        >>> import jax.numpy as jnp
        >>> root = lambda w, z: w * jnp.sqrt(z)
        >>> left_out = LeftOut(root, jnp.array([1.0, -1.0, 4.0]), None)
        >>> left_out.found(0, jnp.ones(())), left_out.found(0, jnp.ones(()))
        (True, False)
        >>> left_out.field()
        {'skipped': {'train': [1], 'heldout': []}}
        >>> left_out.remaining(np.arange(3)).tolist()
        [0, 2]
    """

    def __init__(
        self,
        loss_fn: LossFn,
        sample: PyTree | Rows,
        heldout: PyTree | None,
        wrt: Wrt = None,
        records: Sequence[Mapping[str, Any]] = (),
    ):
        """Leave out what the last record says, or nothing.

        Args:
            loss_fn: ``loss_fn(params, example) -> scalar``.
            sample: n samples trained on.
            heldout: m held-out samples, or None.
            wrt: Which leaves are gradient coordinates.
            records: Of the run so far.

        Raises:
            ValueError: If the last record does not say whom it leaves out, or names samples that there are not.
        """
        self._loss_fn, self._sample, self._heldout, self._wrt = loss_fn, sample, heldout, wrt
        before = records[-1].get(FIELD) if records else {"train": [], "heldout": []}
        most = {"train": num_rows(sample), "heldout": 0 if heldout is None else num_rows(heldout)}
        self.train, self.heldout = (set(_indices(before, side, most[side])) for side in ("train", "heldout"))

    def field(self) -> dict[str, dict[str, list[int]]]:
        """What a record says of it."""
        return {FIELD: {"train": sorted(self.train), "heldout": sorted(self.heldout)}}

    def remaining(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows of the samples trained on that are not left out."""
        return rows[~np.isin(rows, list(self.train))] if self.train else rows

    def found_in_batch(self, step: int, params: PyTree, size: int | None, seed: int) -> bool:
        """Look through the batch of a step; whether more are left out now."""
        num = num_rows(self._sample)
        return self._search("train", step, params, np.sort(batch_rows(seed, step, num, size or num)))

    def found(self, step: int, *points: PyTree) -> bool:
        """Look through all samples at some parameters; whether more are left out now."""
        found = False
        for side in ("train",) if self._heldout is None else ("train", "heldout"):
            for params in points:
                found |= self._search(side, step, params)
        return found

    def _search(self, side: str, step: int, params: PyTree, rows: np.ndarray | None = None) -> bool:
        held, batch = (self.train, self._sample) if side == "train" else (self.heldout, self._heldout)
        num = num_rows(batch)
        # Rows that are left out already stay in, so that every search has one shape and is compiled once.
        picked = batch if rows is None else reader(batch)(rows)
        bad = find_non_finite(self._loss_fn, params, picked, self._wrt)
        if bad is None:
            return False
        indices = bad.indices if rows is None else rows[list(bad.indices)].tolist()
        new = [index for index in indices if index not in held]
        if not new:
            return False
        held.update(new)
        what = bad.what if new[0] == indices[0] else "loss or gradient"
        more = f" (with {_named(new[1:])})" if len(new) > 1 else ""
        _LOG.warning(
            "Sample %d of %d %s%s has a NaN or infinite %s at step %d: left out from here on; in all %d trained on and "
            "%d held out are.",
            new[0],
            num,
            "trained on" if side == "train" else "held out",
            more,
            what,
            step,
            len(self.train),
            len(self.heldout),
        )
        return True


def check_enough(num_probe: int, num_heldout_probe: int | None, num_heldout: int, least: int) -> None:
    """Refuse to measure too few samples.

    Args:
        num_probe: Samples left of the probe of the samples trained on.
        num_heldout_probe: Samples left of the held-out probe, or None where nothing was ever held out.
        num_heldout: Samples left of all that are held out.
        least: Held-out samples that error bars need.

    Raises:
        FloatingPointError: If a probe is empty, or too few are left of what is held out.
    """
    if num_probe < 1 or (num_heldout_probe is not None and (num_heldout_probe < 1 or num_heldout < least)):
        raise FloatingPointError(
            f"Expected a finite loss and gradient of a sample of each probe and of {least} held out, got {num_probe} "
            f"and {num_heldout_probe or 0} of the probes and {num_heldout} held out. Look at the data, or lower the "
            "learning rate or the initialisation scale."
        )


def _named(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return shown if len(indices) <= _SHOWN else f"{shown} and {len(indices) - _SHOWN} more"


def _indices(before: Any, side: str, most: int) -> list[int]:
    found = before.get(side) if isinstance(before, Mapping) else None
    if not isinstance(found, list) or not all(type(index) is int and 0 <= index < most for index in found):
        raise ValueError(
            f"Expected {FIELD}.{side} with sample indices below {most} in the last record, got {found!r}. "
            "Restore the file, or start again in another folder."
        )
    return found
