"""From a DataSpec to a Split: who is in the sample, who is held out."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import numpy as np
from sklearn.datasets import load_digits

from lggwjax.data.arrays import open_npz
from lggwjax.data.cifar import open_cifar10
from lggwjax.data.files import Source
from lggwjax.data.idx import open_idx
from lggwjax.data.linear import LinearPopulation
from lggwjax.data.order import LARGEST_LIST, Order
from lggwjax.data.shards import StreamedSample, shards_source
from lggwjax.data.spec import POPULATIONS, Batch, DataSpec, Split
from lggwjax.data.tables import open_csv
from lggwjax.data.teacher import TeacherPopulation

# What the files of a data set usually lie in, where one folder holds several data sets.
FOLDERS = {"mnist": "mnist", "fashion-mnist": "fashion-mnist", "cifar10": "cifar-10-batches-bin"}


def load(spec: DataSpec) -> Split:
    """Draw the sample, its probe and the held-out part once from the seed.

    The held-out part comes from the source's own test part where it has one, else from what the sample leaves over.

    Guarantees:
        * No row is in two of ``sample``, ``heldout_probe``, ``heldout_rest``; ``train_probe`` is part of ``sample``.
        * Of ``shards`` the probes and the held-out part are read now; ``stored`` reads S batch by batch.
        * ``sample`` depends on neither ``probe_size`` nor ``heldout_samples``, and a larger sample starts
          with a smaller one of the same seed (for data of finite size).

    Args:
        spec: What to load.

    Returns:
        The split; ``x`` is float32, images are channel-last in [0, 1].

    Raises:
        FileNotFoundError: If a file is missing; the message says which, where it was looked for, where one gets it.
        ValueError: If a file is not what it says, or more samples are asked for than there are; one line.

    Example:
        >>> split = load(DataSpec("digits", num_samples=100, probe_size=10))
        >>> split.sample["x"].shape, split.heldout_probe["x"].shape, split.num_outputs
        ((100, 8, 8, 1), (10, 8, 8, 1), 10)
    """
    return _from_population(spec) if spec.name in POPULATIONS else _from_source(spec, open_source(spec))


def open_source(spec: DataSpec) -> Source:
    """Check the data named and say how many rows there are; none is read yet.

    Args:
        spec: What to open; not one of the populations, which have no rows.

    Returns:
        Sizes, task and classes, and how to read rows.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not what it says.
    """
    if spec.name == "digits":
        return _digits()
    folder = files_of(spec.name, spec.data_dir or Path())
    if not folder.exists():
        raise FileNotFoundError(
            f"Expected the data of {spec.name} at {folder}, got no such file or folder. Check the path; nothing is "
            "downloaded."
        )
    if spec.name == "npz":
        return open_npz(folder)
    if spec.name == "shards":
        return shards_source(folder)
    if spec.name == "csv":
        return open_csv(folder, spec.label or "")
    return open_cifar10(folder) if spec.name == "cifar10" else open_idx(spec.name, folder)


def files_of(name: str, folder: Path) -> Path:
    """Where the files of a data set lie: in the folder given, or in one below it that bears the data set's name."""
    below = folder / FOLDERS.get(name, "")
    return below if below.is_dir() else folder


def _digits() -> Source:
    data, targets = load_digits(return_X_y=True)
    images, labels = np.asarray(data).reshape(-1, 8, 8, 1), np.asarray(targets)

    def batch(rows: np.ndarray) -> Batch:
        return {"x": (images[rows] / 16).astype(np.float32), "y": labels[rows].astype(np.int32)}

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        return batch(rows), batch(heldout)

    return Source(
        "scikit-learn's digits", len(labels), 0, "classification", 10, read, tuple("0123456789"), in_unit_box=True
    )


def shuffled_rows(rng: np.random.Generator, num_rows: int, count: int) -> np.ndarray:
    """The first ``count`` entries of a uniformly random order of ``range(num_rows)``, in memory of order ``count``.

    The order does not depend on ``count``; memory does not depend on ``num_rows``, which a hostile header sets.
    """
    swaps = rng.integers(np.arange(count), num_rows)
    moved: dict[int, int] = {}
    rows = np.empty(count, np.int64)
    for i, j in enumerate(map(int, swaps)):
        rows[i] = moved.get(j, j)
        moved[j] = moved.get(i, i)
    return rows


def _order(seed: list[int], num_rows: int, count: int) -> np.ndarray | Order:
    """The first ``count`` rows of a random order: a list, or from millions of rows on a formula."""
    if num_rows > LARGEST_LIST:
        return Order(seed, num_rows)
    return shuffled_rows(np.random.default_rng(seed), num_rows, count)


def _from_source(spec: DataSpec, source: Source) -> Split:
    n = spec.num_samples
    if n > source.num_train:
        where = f"at {spec.data_dir}" if spec.data_dir else "embedded"
        raise ValueError(
            f"Expected num_samples <= {source.num_train}, the number of samples of {source.title} {where}, got {n}. "
            "Ask for fewer samples."
        )
    if source.num_test:
        order = _order([spec.seed, 0], source.num_train, n)
        taken = min(spec.heldout_samples, source.num_test)
        heldout = _order([spec.seed, 1], source.num_test, taken)[np.arange(taken)]
        origin = f"from its test part of {source.num_test}"
    else:
        left = source.num_train - n
        taken = min(spec.heldout_samples, left)
        order = _order([spec.seed, 0], source.num_train, n + taken)
        heldout = order[np.arange(n, n + taken)]
        origin = f"from the {left} that the sample leaves over"
    in_memory = source.shards is None
    # Of a sample that stays on disk, only the probe is read now.
    sample, rest = source.read(order[np.arange(n if in_memory else spec.probe_size)], heldout)
    held = f"{len(heldout)} samples {origin} are held out" if len(heldout) else "nothing is held out"
    description = f"A sample of {n} of the {source.num_train} rows of {source.title}; {held}."
    return Split(
        sample if source.shards is None else StreamedSample(source.shards, order, n),
        *_probes(spec, sample, rest),
        task=source.task,
        num_outputs=source.num_outputs,
        input_shape=sample["x"].shape[1:],
        population=None,
        description=description,
        class_names=source.class_names,
        input_radius=math.sqrt(math.prod(sample["x"].shape[1:])) if source.in_unit_box else None,
    )


def _from_population(spec: DataSpec) -> Split:
    if spec.name == "linear":
        spectrum = np.geomspace(1, 1 / spec.condition, spec.dimension)
        population = LinearPopulation.draw(
            spec.population_seed, spectrum, noise=spec.noise, noise_scale=spec.noise_scale
        )
        what = f"linear regression in dimension {spec.dimension} with {spec.noise} noise of scale {spec.noise_scale:g}"
        task, num_outputs = "regression", 1
    else:
        population = TeacherPopulation.draw(
            spec.population_seed, spec.dimension, spec.num_classes, temperature=spec.noise_scale
        )
        what = f"a random network with {spec.num_classes} classes on inputs in a box of dimension {spec.dimension}"
        task, num_outputs = "classification", spec.num_classes
    key, heldout_key = jax.random.split(jax.random.key(spec.seed))
    sample = _host(population.sample(key, spec.num_samples))
    rest = _host(population.sample(heldout_key, spec.heldout_samples))
    description = (
        f"A sample of {spec.num_samples} from an exact population: {what}; {spec.heldout_samples} are held out."
    )
    return Split(
        sample,
        *_probes(spec, sample, rest),
        task=task,
        num_outputs=num_outputs,
        input_shape=(spec.dimension,),
        population=population,
        description=description,
        input_radius=population.input_radius,
    )


def _host(batch: dict[str, jax.Array]) -> Batch:
    return {name: np.asarray(array) for name, array in batch.items()}


def _probes(spec: DataSpec, sample: Batch, heldout: Batch) -> tuple[Batch, Batch, Batch]:
    """The other batches of a split: rows are in random order, so the first ones are a random subset."""
    m = spec.probe_size
    return _rows(sample, slice(m)), _rows(heldout, slice(m)), _rows(heldout, slice(m, None))


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: array[rows] for name, array in batch.items()}
