"""Data that drift: each shift makes of a batch another one, as a stream would bring it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from lggwjax.data.spec import Batch

Shift = Literal["none", "label noise", "corruption", "class imbalance", "covariate shift", "new labels"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)


def shifted(batch: Batch, shift: Shift, strength: float, num_classes: int, seed: int) -> Batch:
    """Shift a batch of examples with class labels.

    =================== ===============================================================================================
    shift               what becomes of the batch
    =================== ===============================================================================================
    ``none``            nothing
    ``label noise``     a share ``strength`` of the labels are drawn anew, each class alike
    ``corruption``      Gaussian noise with standard deviation ``strength`` times that of all inputs is added
    ``class imbalance`` a share ``strength`` of the rows is replaced by rows of class 0
    ``covariate shift`` inputs x become x - 2 strength (x - mean): contrast goes down, and at strength 1 is inverted
    ``new labels``      class c becomes c + 1, the last one 0: another task
    =================== ===============================================================================================

    Args:
        batch: ``x`` of shape (n, ...), integer ``y``.
        shift: Which.
        strength: From 0 (nothing happens) to 1; ``new labels`` has none.
        num_classes: Classes of ``y``.
        seed: Of what is drawn.

    Returns:
        A batch of the same shape and types; the one given is left as it is.

    Raises:
        ValueError: If the shift is unknown, the strength out of range, or there is no row of class 0 to repeat.

    Example:
        >>> batch = {"x": np.zeros((4, 2), np.float32), "y": np.array([0, 1, 2, 2], np.int32)}
        >>> shifted(batch, "new labels", 1.0, 3, seed=0)["y"].tolist()
        [1, 2, 0, 0]
    """
    if shift not in SHIFTS:
        raise ValueError(f"Expected shift to be one of {', '.join(SHIFTS)}, got {shift!r}. Choose one of these.")
    if not 0 <= strength <= 1:
        raise ValueError(f"Expected a strength from 0 to 1, got {strength}.")
    return _SHIFTS[shift](batch, strength, num_classes, np.random.default_rng([seed, SHIFTS.index(shift)]))


def _noisy_labels(batch: Batch, strength: float, num_classes: int, rng: np.random.Generator) -> Batch:
    y = batch["y"].copy()
    drawn = rng.random(len(y)) < strength
    y[drawn] = rng.integers(num_classes, size=int(drawn.sum()))
    return batch | {"y": y}


def _corrupted(batch: Batch, strength: float, num_classes: int, rng: np.random.Generator) -> Batch:
    del num_classes
    x = batch["x"]
    noise = rng.standard_normal(x.shape).astype(x.dtype)
    return batch | {"x": x + np.asarray(strength * x.std(), x.dtype) * noise}


def _imbalanced(batch: Batch, strength: float, num_classes: int, rng: np.random.Generator) -> Batch:
    del num_classes
    of_first = np.flatnonzero(batch["y"] == 0)
    if not of_first.size:
        raise ValueError("Expected rows of class 0, got none. Draw a larger batch.")
    rows = np.arange(len(batch["y"]))
    replaced = rng.random(len(rows)) < strength
    rows[replaced] = rng.choice(of_first, size=int(replaced.sum()))
    return {name: array[rows] for name, array in batch.items()}


def _covariate(batch: Batch, strength: float, num_classes: int, rng: np.random.Generator) -> Batch:
    del num_classes, rng
    x = batch["x"]
    return batch | {"x": (x - np.asarray(2 * strength, x.dtype) * (x - x.mean())).astype(x.dtype)}


def _new_labels(batch: Batch, strength: float, num_classes: int, rng: np.random.Generator) -> Batch:
    del strength, rng
    return batch | {"y": ((batch["y"] + 1) % num_classes).astype(batch["y"].dtype)}


_SHIFTS: dict[Shift, Callable[[Batch, float, int, np.random.Generator], Batch]] = {
    "none": lambda batch, *_: batch,
    "label noise": _noisy_labels,
    "corruption": _corrupted,
    "class imbalance": _imbalanced,
    "covariate shift": _covariate,
    "new labels": _new_labels,
}
