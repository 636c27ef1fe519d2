"""A run folder's records: from ``metrics.jsonl`` and ``config.json`` to a table."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from lggwjax.strict import strict_object, within

SCALARS = (
    "passes",
    "train_loss",
    "heldout_loss",
    "train_accuracy",
    "heldout_accuracy",
    "grad_norm",
    "gradient_rms",
    "peak_memory",
)
SAMPLE_ESTIMATES = ("heldout_grad_norm", "deviation", "population_descent")
WIDTHS = (
    "lggw",
    "single_width",
    "union_width",
    "cloud_width",
    "feature_width",
    "heldout_lggw",
    "heldout_cloud_width",
)
NERCS = ("nerc", "heldout_nerc")
ESTIMATES = (*SAMPLE_ESTIMATES, *WIDTHS, *NERCS)
_GROUPS = {"features": ("active_share", "l1", "l2"), "seconds": ("training", "measuring")}
_ERROR_FIELDS = ("value", "stderr", "ci95_low", "ci95_high")
_DRAW_FIELDS = ("num_draws", "num_samples", "num_checkpoints")
_INTERVALS = ("ci95", "draws_bound95")
# Far beyond what is written here; a file of others that has more is refused before it becomes a table.
_MOST_COLUMNS = 1000


@functools.cache  # asked for at every field of every record
def columns() -> tuple[str, ...]:
    """Name the columns that every run's table has, in order.

    Returns:
        ``step``, the plain numbers, then ``<quantity>.<field>`` for every estimate, group by group. A column without a
        measured value is there and holds NaN only.

    Example:
        >>> "lggw.ci95_low" in columns()
        True
    """
    names = ["step", *SCALARS]
    names += [f"{name}.{field}" for name in ESTIMATES for field in _ERROR_FIELDS]
    names += [f"{name}.draws_bound95_{end}" for name in WIDTHS for end in ("low", "high")]
    names += [f"{name}.{field}" for name in (*WIDTHS, *NERCS) for field in _DRAW_FIELDS]
    names += [f"{group}.{field}" for group, fields in _GROUPS.items() for field in fields]
    return tuple(names)


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(columns())


def load_run(folder: str | Path) -> pd.DataFrame:
    r"""Read the measurements of a run as one flat table.

    Args:
        folder: A run folder, as ``lggwjax run`` or ``lggwjax measure`` leaves it.

    Returns:
        One row per measurement, in the order of the steps. Nested values become columns such as ``lggw.value``,
        ``lggw.ci95_low``, ``lggw.ci95_high``, ``features.l1``, ``seconds.training`` and ``status.lggw``; ``null``
        becomes NaN, and samples that were left out become their number, ``skipped.train`` and ``skipped.heldout``. All of `columns` are there, also where a run measured nothing for them. A last line that was torn
        off while being written is left out.

    Raises:
        ValueError: If the folder is no run folder, or a line is no strict JSON object with an increasing ``step``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "metrics.jsonl").write_text('{"step": 0, "train_loss": 2.5, "lggw": null}\n')
        >>> float(load_run(folder)["train_loss"][0])
        2.5
    """
    path = _existing(Path(folder), "metrics.jsonl")
    rows: list[dict[str, Any]] = []
    for place, record in _parsed_lines(path):
        row = _flat(record, place)
        if rows and row["step"] <= rows[-1]["step"]:
            raise ValueError(
                f"Expected steps that increase, got step {row['step']} after step {rows[-1]['step']} at {place}. "
                "Restore the file, or measure again into a new folder."
            )
        rows.append(row)
    extra = {name: None for row in rows for name in row if name not in _known()}
    if len(extra) > _MOST_COLUMNS:
        raise ValueError(
            f"Expected at most {_MOST_COLUMNS} quantities besides the usual ones in {path}, got {len(extra)}. "
            "Restore the file."
        )
    table = pd.DataFrame(rows, columns=[*columns(), *extra])
    numeric = list(columns()[1:])
    table[numeric] = table[numeric].astype(float)
    return table.astype({"step": int})


def load_config(folder: str | Path) -> dict[str, Any]:
    """Read what a run was asked to do.

    Args:
        folder: A run folder.

    Returns:
        The object in ``config.json``.

    Raises:
        ValueError: If the folder has no ``config.json``, or it is no strict JSON object.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text('{"data": {"name": "digits"}}')
        >>> load_config(folder)["data"]["name"]
        'digits'
    """
    path = _existing(Path(folder), "config.json")
    return strict_object(path.read_bytes(), str(path))


def unseen_word(config: Mapping[str, Any]) -> Literal["population", "held-out"]:
    """Name what the run's samples stand for: ``population`` only where it is known exactly.

    Args:
        config: The object from `load_config`.

    Returns:
        ``population`` if ``config["data"]["population"]`` says so, else ``held-out``.

    Example:
        >>> unseen_word({"data": {"name": "digits", "population": False}})
        'held-out'
    """
    data = config.get("data")
    return "population" if isinstance(data, Mapping) and data.get("population") else "held-out"


def loss_unit(records: pd.DataFrame) -> str:
    """Name the unit of the loss: nats for classes (cross-entropy), else plain units.

    Args:
        records: The table from `load_run`.

    Returns:
        ``nats`` where an accuracy was recorded, else ``units of loss``.

    Example:
        >>> loss_unit(pd.DataFrame({"train_accuracy": [0.5], "heldout_accuracy": [None]}))
        'nats'
    """
    known = records[["train_accuracy", "heldout_accuracy"]].notna()
    return "nats" if bool(known.to_numpy().any()) else "units of loss"


def is_fresh(config: Mapping[str, Any]) -> bool:
    """Say whether the run drew new samples at each step, and so reused none.

    Args:
        config: The object from `load_config`.

    Returns:
        The truth of ``config["training"]["fresh"]``; False if it is not there.

    Example:
        >>> is_fresh({"training": {"fresh": True}})
        True
    """
    training = config.get("training")
    return bool(isinstance(training, Mapping) and training.get("fresh"))


def move_word(config: Mapping[str, Any]) -> Literal["step", "move"]:
    """Name what a descent speaks of: the optimiser's ``step`` just taken, or the ``move`` from the checkpoint before.

    Args:
        config: The object from `load_config`.

    Returns:
        ``move`` where the checkpoints were made elsewhere and may lie many steps apart, else ``step``.

    Example:
        >>> move_word({"training": {"trained_here": False}})
        'move'
    """
    training = config.get("training")
    return "step" if isinstance(training, Mapping) and training.get("trained_here", True) else "move"


def num_skipped(records: pd.DataFrame) -> tuple[int, int]:
    """Count the samples that a run left out by its end, because their loss or gradient was NaN or infinite.

    Args:
        records: The table from `load_run`.

    Returns:
        How many of those trained on, and how many held out; 0 where nothing was recorded.

    Example:
        >>> num_skipped(pd.DataFrame({"skipped.train": [0, 2], "skipped.heldout": [1, 1]}))
        (2, 1)
    """
    train, heldout = (
        int(records[name].iloc[-1]) if name in records and len(records) and pd.notna(records[name].iloc[-1]) else 0
        for name in ("skipped.train", "skipped.heldout")
    )
    return train, heldout


def _existing(folder: Path, name: str) -> Path:
    path = within(folder, name)
    if not path.is_file():
        raise ValueError(
            f"Expected a run folder with {name}, got {str(folder)!r}, which has none. "
            "Give the folder that `lggwjax run` or `lggwjax measure` wrote."
        )
    return path


def _parsed_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    *lines, rest = path.read_bytes().split(b"\n")
    parsed = [(f"{path}, line {i}", strict_object(line, f"{path}, line {i}")) for i, line in enumerate(lines, 1)]
    if rest.strip():
        # A write that was cut off leaves a line without an end; an object cannot be complete before its last brace.
        place = f"{path}, line {len(lines) + 1}"
        with contextlib.suppress(ValueError):
            parsed.append((place, strict_object(rest, place)))
    return parsed


def _flat(record: dict[str, Any], place: str) -> dict[str, Any]:
    step = record.get("step")
    if type(step) is not int or step < 0:
        raise ValueError(f"Expected an integer step >= 0 at {place}, got {step!r:.80}. Restore the file, or run again.")
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name == "skipped":
            row |= _flat_skipped(value, place)
        elif name in ESTIMATES and value is not None:
            row |= _flat_estimate(name, value, place)
        elif isinstance(value, dict):
            row |= {f"{name}.{field}": part for field, part in value.items()}
        elif name not in ESTIMATES and not (name in (*_GROUPS, "status") and value is None):
            row[name] = value
    for column in _known() & row.keys():
        if not _is_number(row[column]):
            got = f"{row[column]!r:.80}"
            raise ValueError(f"Expected a number or null for {column} at {place}, got {got}. Restore the file.")
    return row


def _flat_skipped(value: Any, place: str) -> dict[str, int]:
    sides = value if isinstance(value, dict) else {"": value}
    for side, rows in sides.items():
        if side not in ("train", "heldout") or not isinstance(rows, list):
            got = f"{value!r:.80}"
            raise ValueError(
                f"Expected lists of samples, train and heldout, for skipped at {place}, got {got}. Restore the file."
            )
    return {f"skipped.{side}": len(rows) for side, rows in sides.items()}


def _flat_estimate(name: str, value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or "value" not in value:
        got = f"{value!r:.80}"
        raise ValueError(f"Expected an object with a value for {name} at {place}, got {got}. Restore the file.")
    row: dict[str, Any] = {}
    for field, part in value.items():
        if field not in _INTERVALS:
            row[f"{name}.{field}"] = part
        elif isinstance(part, list) and len(part) == 2:
            row |= {f"{name}.{field}_low": part[0], f"{name}.{field}_high": part[1]}
        elif part is not None:
            got = f"{part!r:.80}"
            raise ValueError(f"Expected [low, high] for {name}.{field} at {place}, got {got}. Restore the file.")
    return row


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
