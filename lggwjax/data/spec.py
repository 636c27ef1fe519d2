"""What data were asked for, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from lggwjax.data.linear import LinearPopulation
    from lggwjax.data.shards import StreamedSample
    from lggwjax.data.teacher import TeacherPopulation

Batch = dict[str, np.ndarray]
"""``{"x": float32 (n, ...), "y": int32 (n,) for classes or float32 (n,) for regression}``."""

Task = Literal["classification", "regression"]

FROM_FILES = ("mnist", "fashion-mnist", "cifar10", "npz", "shards", "csv")
POPULATIONS = ("linear", "teacher")
NAMES = ("digits", *FROM_FILES, *POPULATIONS)


@dataclass(frozen=True)
class DataSpec:
    """Which data to load, how many of them, and the seed of every draw.

    Args:
        name: One of ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, ``npz``, ``shards`` (a folder of files, of
            which only the rows in use are in memory), ``csv``, ``linear``, ``teacher``.
        data_dir: Folder of the files (for ``npz`` and ``csv`` also the file itself); None for data that need no file.
        num_samples: Size of the sample S that is trained on, again and again.
        probe_size: How many of S, and how many held-out samples, are measured; changing it leaves S as it is.
        heldout_samples: At most so many held-out samples, the held-out probe included.
        seed: Of the draws of S, the probes and the held-out part.
        label: Name of the label column (``csv`` only).
        dimension: Number of input coordinates (``linear`` and ``teacher``).
        condition: Ratio of the largest to the smallest eigenvalue of the second moment (``linear``).
        num_classes: Number of classes (``teacher``).
        noise: ``uniform`` (bounded), or ``gaussian``, for which no gradient bound exists (``linear``).
        noise_scale: Standard deviation of the noise (``linear``); softmax temperature of the labels, 0 for the most
            probable class (``teacher``).
        population_seed: Of the population itself, so that other seeds draw other samples of the same population.

    Raises:
        ValueError: If a field is out of its range, or given for data that do not use it.

    Example:
        >>> DataSpec(num_samples=500).name
        'digits'
    """

    name: str = "digits"
    data_dir: Path | None = None
    num_samples: int = 1000
    probe_size: int = 200
    heldout_samples: int = 2000
    seed: int = 0
    label: str | None = None
    dimension: int = 20
    condition: float = 10.0
    num_classes: int = 4
    noise: Literal["uniform", "gaussian"] = "uniform"
    noise_scale: float = 0.5
    population_seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"Expected data to be one of {', '.join(NAMES)}, got {self.name!r}. Choose one of these.")
        self._check_numbers()
        if self.probe_size > self.num_samples:
            raise ValueError(
                f"Expected probe_size <= num_samples, got probe_size={self.probe_size} and "
                f"num_samples={self.num_samples}. Train on more samples or measure fewer."
            )
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", Path(self.data_dir))
        self._check_file_fields()

    def _check_numbers(self) -> None:
        lowest = {"num_samples": 1, "probe_size": 1, "heldout_samples": 0, "dimension": 1, "num_classes": 2}
        lowest |= {"seed": 0, "population_seed": 0}
        for field, low in lowest.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**31:
                raise ValueError(
                    f"Expected {field} to be a whole number from {low} to 2147483647, got {value!r}. Change it."
                )
        if not (math.isfinite(self.condition) and self.condition >= 1):
            raise ValueError(f"Expected a finite condition >= 1, got {self.condition}. Give 1 for equal eigenvalues.")
        if not (math.isfinite(self.noise_scale) and self.noise_scale >= 0):
            raise ValueError(f"Expected a finite noise_scale >= 0, got {self.noise_scale}. Give 0 for no noise.")
        if self.noise not in ("uniform", "gaussian"):
            raise ValueError(f"Expected noise to be uniform or gaussian, got {self.noise!r}. Choose one of these.")

    def _check_file_fields(self) -> None:
        if self.name in FROM_FILES and self.data_dir is None:
            raise ValueError(
                f"Expected data_dir to say where the files of {self.name} are, got None. "
                "Give it; nothing is downloaded."
            )
        if self.name not in FROM_FILES and self.data_dir is not None:
            raise ValueError(
                f"Expected no data_dir for {self.name}, which needs no file, got {str(self.data_dir)!r}. "
                f"Leave it out, or name the data: {', '.join(FROM_FILES)}."
            )
        if self.name == "csv" and not self.label:
            raise ValueError(f"Expected label to name the column to predict, got {self.label!r}. Give its name.")
        if self.name != "csv" and self.label is not None:
            raise ValueError(f"Expected a label column only for csv, got {self.label!r} for {self.name}. Leave it out.")


@dataclass(frozen=True)
class Split:
    """The sample S, its probe, and the held-out part, drawn once and never mixed.

    Args:
        stored: S, the samples to train on: arrays, or where they are read batch by batch.
        train_probe: The first rows of S, which is in random order: a random subset of S.
        heldout_probe: Samples that are not in S, to be measured; may have no row.
        heldout_rest: Further samples that are neither in S nor in ``heldout_probe``; may have no row.
        task: ``classification`` or ``regression``.
        num_outputs: Number of classes; 1 for regression.
        input_shape: Shape of one input; images are (height, width, channels).
        population: Where the samples came from, when it is known exactly; else None.
        description: One plain sentence on what was loaded.
        class_names: Names of the classes in the order of their numbers, where the data give them.
        input_radius: Norm that no input of the population exceeds, where the format or the population says so.
    """

    stored: Batch | StreamedSample
    train_probe: Batch
    heldout_probe: Batch
    heldout_rest: Batch
    task: Task
    num_outputs: int
    input_shape: tuple[int, ...]
    population: LinearPopulation | TeacherPopulation | None
    description: str
    class_names: tuple[str, ...] = ()
    input_radius: float | None = None

    @cached_property
    def sample(self) -> Batch:
        """S in memory.

        Raises:
            ValueError: If S is read batch by batch and would take more than half of this machine's memory.
        """
        return self.stored if isinstance(self.stored, dict) else self.stored.rows(np.arange(len(self.stored)))

    def without(self, train: Collection[int], heldout: Collection[int]) -> Split:
        """Leave samples out.

        Args:
            train: Rows of ``stored``.
            heldout: Rows of ``heldout_probe``, and of ``heldout_rest`` counted on from there.

        Returns:
            The rest; a probe is smaller by those of its samples that are left out.
        """
        num = len(self.heldout_probe["y"])
        return replace(
            self,
            stored=_without(self.stored, train) if isinstance(self.stored, dict) else self.stored.without(train),
            train_probe=_without(self.train_probe, train),
            heldout_probe=_without(self.heldout_probe, heldout),
            heldout_rest=_without(self.heldout_rest, [row - num for row in heldout]),
        )


def _without(batch: Batch, rows: Collection[int]) -> Batch:
    kept = ~np.isin(np.arange(len(batch["y"])), list(rows))
    return {name: leaf[kept] for name, leaf in batch.items()}
