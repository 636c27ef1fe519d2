"""Numbers with their error bars as text, and the table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lggwjax.report.statistics import Interval

NONE = "–"
_WORD_STYLES = {"helps": "green", "undecided": "yellow", "hurts": "red", "unknown": "dim"}


def number_text(value: float | None) -> str:
    """Write a number with three significant digits.

    Args:
        value: The number; None and NaN are numbers that were not measured.

    Returns:
        The text, with a true minus sign; a dash for what was not measured.

    Example:
        >>> number_text(0.123456), number_text(12345.0), number_text(None)
        ('0.123', '12,345', '–')
    """
    if value is None or math.isnan(value):
        return NONE
    if abs(value) < 1e6 and value == round(value):
        return _minus(f"{value:,.0f}")
    if 1e-3 <= abs(value) < 1e6:
        return _minus(f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}")
    return _minus(f"{value:.2e}").replace("e-0", "e−").replace("e-", "e−").replace("e+0", "e").replace("e+", "e")


def estimate_text(row: Mapping[Any, Any], name: str, digits: int = 2) -> str:
    """Write an estimate with its 95% interval, rounded to what the interval supports.

    Args:
        row: One row of the table from `load_run`.
        name: A quantity, such as ``lggw``.
        digits: Significant digits of the error.

    Returns:
        ``value ± half the interval``, or ``value [low, high]`` where the interval is lopsided; a dash if not measured.

    Example:
        >>> row = {"a.value": 0.2912, "a.ci95_low": 0.2712, "a.ci95_high": 0.3112}
        >>> estimate_text(row, "a")
        '0.291 ± 0.020'
    """
    value, low, high = (float(row[f"{name}.{field}"]) for field in ("value", "ci95_low", "ci95_high"))
    if math.isnan(value):
        return NONE
    error = max(high - value, value - low)
    if not error > 0:
        return number_text(value)
    if value != 0 and error < 1e-6 * abs(value):
        return f"{number_text(value)} ± {number_text(error)}"
    # One power of ten for value and error, so that the reader compares digits and not exponents.
    size = max(abs(value), error)
    power = 0 if 1e-3 <= size < 1e5 else math.floor(math.log10(size))
    places = max(0, digits - 1 - math.floor(math.log10(error) - power))
    mean, least, most, half = (_minus(f"{x / 10.0**power:.{places}f}") for x in (value, low, high, error))
    lopsided = abs((high - value) - (value - low)) > 0.1 * error
    text = f"{mean} [{least}, {most}]" if lopsided else f"{mean} ± {half}"
    if power == 0:
        return text
    return (f"{text} ×1e{power}" if lopsided else f"({text})e{power}").replace("e-", "e−")


def interval_text(found: Interval, digits: int = 2) -> str:
    """Write an interval, rounded to what it supports, as `estimate_text` does.

    Example:
        >>> interval_text(Interval(0.2912, 0.2712, 0.3112, 0.01, 5))
        '0.291 ± 0.020'
    """
    return estimate_text({"x.value": found.value, "x.ci95_low": found.low, "x.ci95_high": found.high}, "x", digits)


def p_text(p: float) -> str:
    """Write a p-value, and no more of it than matters.

    Example:
        >>> p_text(0.0312), p_text(1e-9)
        ('p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def summary_table(records: pd.DataFrame, words: Iterable[str], unseen: str = "held-out") -> Table:
    """Lay out the measurements for a terminal.

    Args:
        records: The table from `load_run`.
        words: The word of each row, from `lggwjax.report.words`.
        unseen: ``held-out``, or ``population`` where the population is exact.

    Returns:
        A rich table, one row per measurement, errors as half 95% intervals; what was never measured is left out.

    Example:
        >>> from lggwjax.report.records import columns
        >>> row = dict.fromkeys(columns()) | {"step": 0, "train_loss": 2.3}
        >>> summary_table(pd.DataFrame([row], dtype=float), ["unknown"]).row_count
        1
    """
    cells: dict[str, tuple[str, str]] = {
        "train_loss": ("train\nloss", "number"),
        "heldout_loss": (f"{unseen}\nloss", "number"),
        "lggw": ("LGGW", "estimate"),
        "single_width": ("single\nwidth", "estimate"),
        "cloud_width": ("cloud\nwidth", "estimate"),
        "deviation": ("deviation", "estimate"),
        "population_descent": (f"{unseen}\ndescent", "estimate"),
    }
    shown = {name: cell for name, cell in cells.items() if measured(records, name)}
    table = Table(
        caption="± is half of the 95% interval", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("step", justify="right", no_wrap=True)
    for heading, _ in shown.values():
        table.add_column(heading, justify="right")
    table.add_column("the step")
    for row, word in zip(records.to_dict("records"), words, strict=True):
        texts = [
            estimate_text(row, name, digits=1).replace(" ± ", "±") if kind == "estimate" else number_text(row[name])
            for name, (_, kind) in shown.items()
        ]
        style = _WORD_STYLES.get(word, "")
        table.add_row(f"{row['step']:,.0f}", *texts, f"[{style}]{NONE if word == 'unknown' else word}[/{style}]")
    return table


def measured(records: pd.DataFrame, name: str) -> bool:
    """Say whether a quantity was measured at any step.

    Args:
        records: The table from `load_run`.
        name: A plain column, or a quantity with a ``.value`` column.

    Returns:
        True if any row has a number.

    Example:
        >>> measured(pd.DataFrame({"train_loss": [1.0], "nerc.value": [None]}), "nerc")
        False
    """
    column: Any = records[name if name in records else f"{name}.value"]
    return bool(column.notna().any())


def _minus(text: str) -> str:
    return "−" + text[1:] if text.startswith("-") else text
