"""Tables with a header (csv): numbers standardised, categories one-hot, both fitted on the sample only."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lggwjax.data.files import BadFileError, Source, check_request, locate_one, one_line_errors
from lggwjax.data.spec import Batch

# An integer label with more values than this is a quantity, not a class.
MAX_INTEGER_CLASSES = 20
# Words with more values than this are names or identifiers, of which a one-hot code learns nothing.
MAX_CATEGORIES = 1000
_MAX_LINE = 1 << 22
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "-"})


@dataclass
class _Column:
    """What one pass over the table learns about a column, in memory bounded by MAX_CATEGORIES."""

    name: str
    num_numbers: int = 0
    num_words: int = 0
    first_word: tuple[int, str] | None = None
    integers: bool = True
    values: set[str] = field(default_factory=set)

    def add(self, line: int, cell: str) -> None:
        number = _number(cell)
        if number is None:
            self.num_words += 1
            if self.first_word is None:
                self.first_word = (line, cell)
        else:
            self.num_numbers += 1
            self.integers = self.integers and number.is_integer()
        if len(self.values) <= MAX_CATEGORIES:
            self.values.add(cell)

    @property
    def numeric(self) -> bool:
        """Whether most cells are numbers; then all must be."""
        return self.num_numbers > self.num_words


@dataclass(frozen=True)
class _Table:
    path: Path
    columns: tuple[_Column, ...]
    label: int
    num_rows: int
    classes: tuple[str, ...]


def open_csv(place: Path, label: str) -> Source:
    """Check every row of the table and learn the kind of each column; rows are encoded later, only those asked for.

    A column is numeric if most of its cells are numbers (then all must be), else a category. The label is a class if it
    is not numeric or takes at most 20 integer values; else it is a number and is standardised like the inputs.

    Args:
        place: The file, or a folder with exactly one ``.csv``: UTF-8, separated by commas, with a header.
        label: Name of the label column.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If rows have different lengths, the label column or a value is missing, or a number is not finite.
    """
    path = locate_one(place, ".csv")
    table = _inspect(path, label)
    task = "classification" if table.classes else "regression"

    def read(rows: np.ndarray, heldout: np.ndarray) -> tuple[Batch, Batch]:
        return _encode(table, _cells(table, np.concatenate([rows, heldout])), len(rows))

    num_outputs = max(1, len(table.classes))
    title = f"the table {path.name} (label {label}{'' if table.classes else ', standardised'})"
    return Source(title, table.num_rows, 0, task, num_outputs, read, table.classes)


def _number(cell: str) -> float | None:
    # Python also reads 1_000 and nan as numbers; neither is one in a table.
    if "_" in cell or cell.lower() in _MISSING:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _lines(stream: IO[str], path: Path) -> Iterator[str]:
    while line := stream.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise BadFileError(
                f"Expected lines shorter than {_MAX_LINE} characters, got a longer one in {path}. Use npz instead."
            )
        yield line


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """The header and then the rows, each with its line number; blank lines are left out."""
    with one_line_errors(path, "csv table"), open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(_lines(stream, path), skipinitialspace=True, strict=True)

        def rows() -> Iterator[tuple[int, list[str]]]:
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, [cell.strip() for cell in row]
            except csv.Error as error:
                raise BadFileError(
                    f"Expected a csv table, got {error} at line {reader.line_num} of {path}. Correct that line."
                ) from error

        yield rows()


def _inspect(path: Path, label: str) -> _Table:
    with _rows(path) as rows:
        _, header = next(rows, (0, []))
        if label not in header:
            shown = [name[:40] for name in header]
            shown = shown if len(shown) <= 8 else [*shown[:4], f"{len(shown) - 7} more", *shown[-3:]]
            near = difflib.get_close_matches(label[:40], [name[:40] for name in header[:1000]], 1)
            hint = f" Did you mean {near[0]!r}?" if near else " Name one of the columns."
            if len(header) == 1 and ";" in header[0]:
                hint = " Its columns are to be separated by commas, not by semicolons."
            got = f"the columns {', '.join(shown)}" if header else "no header"
            raise BadFileError(f"Expected a label column {label!r} in {path}, got {got}.{hint}")
        if len(set(header)) < len(header) or len(header) < 2:
            raise BadFileError(
                f"Expected a header of at least two different names, got {', '.join(header)[:200]} in {path}. "
                "Give each column its own name."
            )
        columns = tuple(_Column(name) for name in header)
        num_rows = 0
        for line, row in rows:
            if len(row) != len(columns):
                raise BadFileError(
                    f"Expected {len(columns)} cells in each row, got {len(row)} at line {line} of {path}. Correct it."
                )
            num_rows += 1
            for column, cell in zip(columns, row, strict=True):
                column.add(line, cell)
                number = _number(cell)
                if number is not None and not abs(number) <= 1e30:
                    raise BadFileError(
                        f"Expected finite numbers up to 1e30, got {cell[:40]} in column {column.name!r} at line {line} "
                        f"of {path}. Correct it or remove the row."
                    )
    if num_rows == 0:
        raise BadFileError(f"Expected rows below the header, got none in {path}. Give a table that holds data.")
    index = header.index(label)
    _check_columns(path, columns, index)
    return _Table(path, columns, index, num_rows, _classes(path, columns[index], num_rows))


def _check_columns(path: Path, columns: tuple[_Column, ...], label: int) -> None:
    for i, column in enumerate(columns):
        if column.numeric and column.first_word is not None:
            line, word = column.first_word
            raise BadFileError(
                f"Expected numbers in column {column.name!r}, as in most of its rows, got {word[:40]!r} at line {line} "
                f"of {path}. Fill in or remove such rows."
            )
        if not column.numeric and len(column.values) > MAX_CATEGORIES:
            raise BadFileError(
                f"Expected at most {MAX_CATEGORIES} different words in column {column.name!r}, got more in {path}. "
                "Remove the column, or group its values."
            )
        if i == label and any(value.lower() in _MISSING for value in column.values):
            raise BadFileError(
                f"Expected a label in every row, got none in some rows of column {column.name!r} of {path}. Drop them."
            )


def _classes(path: Path, column: _Column, num_rows: int) -> tuple[str, ...]:
    """Names of the classes in order; none for a regression."""
    if column.numeric:
        numbers = {float(value) for value in column.values}
        if not column.integers or len(numbers) > MAX_INTEGER_CLASSES:
            return ()
        names = tuple(str(int(number)) for number in sorted(numbers))
    else:
        names = tuple(sorted(column.values))
    if len(names) < 2 or len(names) == num_rows:
        raise BadFileError(
            f"Expected a label column with at least two classes, fewer than the {num_rows} rows, got {len(names)} in "
            f"column {column.name!r} of {path}. Name another column."
        )
    return names


def _cells(table: _Table, rows: np.ndarray) -> list[list[str]]:
    """The rows asked for, in the order asked for."""
    place = {row: i for i, row in enumerate(rows.tolist())}
    cells: list[list[str]] = [[] for _ in place]
    with _rows(table.path) as lines:
        next(lines)
        for number, (_, row) in enumerate(lines):
            if number in place:
                cells[place[number]] = row
    return cells


def _encode(table: _Table, cells: list[list[str]], n: int) -> tuple[Batch, Batch]:
    """Encode all rows with what the first n (the sample) say."""
    inputs = [i for i in range(len(table.columns)) if i != table.label]
    numeric = [i for i in inputs if table.columns[i].numeric]
    words = [i for i in inputs if not table.columns[i].numeric]
    blocks = []
    if numeric:
        numbers = np.array([[float(row[i]) for i in numeric] for row in cells], np.float64)
        blocks.append(StandardScaler().fit(numbers[:n]).transform(numbers))
    if words:
        names = np.array([[row[i] for i in words] for row in cells], dtype=object)
        width = sum(len(set(names[:n, j])) for j in range(len(words)))
        check_request(len(cells), (width + len(numeric),), table.path)
        # A category that the sample does not hold is coded as all zeros.
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        blocks.append(encoder.fit(names[:n]).transform(names))
    x = np.hstack([np.asarray(block, np.float32) for block in blocks])
    y = _targets(table, [row[table.label] for row in cells], n)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadFileError(
            f"Expected numbers that stay finite when standardised by the sample, got others in {table.path}. "
            "Remove extreme rows."
        )
    return {"x": x[:n], "y": y[:n]}, {"x": x[n:], "y": y[n:]}


def _targets(table: _Table, labels: list[str], n: int) -> np.ndarray:
    if not table.classes:
        numbers = np.array([[float(label)] for label in labels], np.float64)
        return np.asarray(StandardScaler().fit(numbers[:n]).transform(numbers), np.float32)[:, 0]
    number = {name: i for i, name in enumerate(table.classes)}
    if table.columns[table.label].numeric:
        return np.array([number[str(int(float(label)))] for label in labels], np.int32)
    return np.array([number[label] for label in labels], np.int32)
