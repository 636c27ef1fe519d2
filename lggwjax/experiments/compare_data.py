"""What a comparison finds out about the data by itself: their kind, how many to train on, how many to hold out."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lggwjax.data import DataSpec, load
from lggwjax.data.files import locate_one
from lggwjax.data.loading import open_source
from lggwjax.data.spec import FROM_FILES, NAMES, POPULATIONS
from lggwjax.experiments.trained import data_folder
from lggwjax.training.files import Json

MIN_ROWS = 48
MOST_SAMPLES = 2000
_PROBE = 64
_POPULATION_SAMPLES = 400


@dataclass(frozen=True)
class Facts:
    """The data of a comparison.

    Attributes:
        spec: The data with the sizes chosen, at seed 0.
        num_rows: Rows there are in all; None where a population can be drawn from without end.
        num_heldout: Rows held out by each seed.
        overlap: Correlation that two seeds' results have for sharing rows: the held-out share of the rows used, times
            the share of rows that two seeds have in common.
        task: ``classification`` or ``regression``.
        num_outputs: Number of classes; 1 for a regression.
        images: Whether inputs are images.
        title: What to call the data.
        fingerprint: Of the file, so that a comparison is not resumed on other data; None where there is no single file.
    """

    spec: DataSpec
    num_rows: int | None
    num_heldout: int
    overlap: float
    task: str
    num_outputs: int
    images: bool
    title: str
    fingerprint: str | None

    def as_dict(self) -> Json:
        """Return what the page needs, as strict JSON types."""
        left_out = ("spec", "images")
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        return fields | {"num_samples": self.spec.num_samples, "name": self.spec.name, "label": self.spec.label}


def look_at(
    data: str,
    *,
    label: str | None = None,
    data_dir: Path | None = None,
    num_samples: int | None = None,
    num_heldout: int | None = None,
) -> Facts:
    """Find out what the data are and choose the sizes.

    Args:
        data: A file or folder (csv, npz), or the name of a data set.
        label: Column to predict, of a csv.
        data_dir: Where the files of a named data set lie.
        num_samples: Samples trained on; by default two thirds of the rows, or all of a training part, 2,000 at most.
        num_heldout: Samples held out; by default the rest, or all of a test part, 2,000 at most.

    Returns:
        The facts.

    Raises:
        FileNotFoundError: If there are no such data.
        ValueError: If the data cannot be compared on; one line that says what to do.
    """
    name, place = _locate(data, data_dir)
    if name == "csv" and label is None and place is not None:
        raise ValueError(f"Expected --label COLUMN, the column to predict, got none. {_columns(place)}")
    if name != "csv" and label is not None:
        raise ValueError(f"Expected --label for a csv only, got {label!r} for {name}. Leave it out.")
    asked = DataSpec(name, place, num_samples=1, probe_size=1, heldout_samples=0, label=label)
    spec, num_rows, overlap = _sized(asked, num_samples, num_heldout)
    split = load(spec)
    held = len(split.heldout_probe["y"]) + len(split.heldout_rest["y"])
    labels = np.concatenate([split.sample["y"], split.heldout_probe["y"], split.heldout_rest["y"]])
    if np.ptp(labels) == 0:
        raise ValueError(
            f"Expected labels that differ, got the same one in all of {len(labels)} rows of {data}. Name another "
            "column with --label."
        )
    return Facts(
        spec=spec,
        num_rows=num_rows,
        num_heldout=held,
        overlap=overlap,
        task=split.task,
        num_outputs=split.num_outputs,
        images=len(split.input_shape) == 3,
        title=name if place is None or name not in ("csv", "npz") else place.stem,
        fingerprint=_fingerprint(place, name),
    )


def _locate(data: str, data_dir: Path | None) -> tuple[str, Path | None]:
    if data in NAMES and data not in ("csv", "npz"):
        folder = data_folder(data, data_dir) if data in FROM_FILES else None
        if folder is None and data_dir is not None:
            raise ValueError(f"Expected no --data-dir for {data}, which needs no file, got {data_dir}. Leave it out.")
        return data, folder
    path = Path(data).absolute()
    if not path.exists():
        known = ", ".join(name for name in NAMES if name not in ("csv", "npz"))
        raise FileNotFoundError(
            f"Expected --data to be a csv or npz file, a folder with one, or one of {known}, got {data!r}. "
            "Check the path."
        )
    suffixes = [path.suffix] if path.is_file() else [s for s in (".csv", ".npz") if any(path.glob(f"*{s}"))]
    if len(suffixes) != 1 or suffixes[0] not in (".csv", ".npz"):
        raise ValueError(f"Expected --data to be a .csv or .npz file, or a folder with one, got {data}. Convert it.")
    return suffixes[0][1:], locate_one(path, suffixes[0])


def _columns(file: Path) -> str:
    with open(file, encoding="utf-8-sig", newline="", errors="replace") as stream:
        header = [cell.strip() for cell in next(csv.reader([stream.readline(1 << 16)]), [])]
    shown = ", ".join(header[:30]) + (f" and {len(header) - 30} more" if len(header) > 30 else "")
    return f"Its columns are: {shown or 'none, the file is empty'}."


def _sized(spec: DataSpec, num_samples: int | None, num_heldout: int | None) -> tuple[DataSpec, int | None, float]:
    """Choose the sizes; also say how many rows there are, and how much seeds depend on each other."""
    if spec.name in POPULATIONS:
        n = num_samples or _POPULATION_SAMPLES
        return _with_sizes(spec, n, num_heldout or MOST_SAMPLES), None, 0.0
    source = open_source(spec)
    total = source.num_train + source.num_test
    if total < MIN_ROWS:
        raise ValueError(
            f"Expected at least {MIN_ROWS} rows to train on and hold out, got {total} in {source.title}. Collect more: "
            "on so few no comparison can be decided."
        )
    most = source.num_train if source.num_test else max(1, source.num_train - MIN_ROWS // 3)
    n = min(MOST_SAMPLES, most, source.num_train if source.num_test else 2 * source.num_train // 3)
    n = n if num_samples is None else num_samples
    if not MIN_ROWS // 3 <= n <= most:
        raise ValueError(
            f"Expected --num-samples from {MIN_ROWS // 3} to {most:,} with {source.num_train:,} rows, got {n:,}. "
            "Choose another number; some rows have to be held out."
        )
    rest = source.num_test or source.num_train - n
    h = min(rest, MOST_SAMPLES if num_heldout is None else num_heldout)
    if h < MIN_ROWS // 3:
        raise ValueError(f"Expected at least {MIN_ROWS // 3} samples held out, got {h}. Raise --heldout-samples.")
    common = max(n / source.num_train, h / source.num_test) if source.num_test else (n + h) / source.num_train
    return _with_sizes(spec, n, h), total, h / (n + h) * common


def _with_sizes(spec: DataSpec, n: int, h: int) -> DataSpec:
    return dataclasses.replace(spec, num_samples=n, heldout_samples=h, probe_size=min(_PROBE, n))


def _fingerprint(place: Path | None, name: str) -> str | None:
    if place is None or name not in ("csv", "npz"):
        return None
    with open(place, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
