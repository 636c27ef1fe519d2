from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from lggwjax.report import load_run, summary_table, words
from lggwjax.report.table import estimate_text, number_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (-0.5, "−0.500"),
        (12.0, "12"),
        (1234.56, "1,235"),
        (1.23456e-5, "1.23e−5"),
        (-3.0e12, "−3.00e12"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_number_text(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.2912, 0.2712, 0.3112, "0.291 ± 0.020"),
        (-0.0028, -0.0041, -0.0015, "−0.0028 ± 0.0013"),
        (1.2e-7, 0.9e-7, 1.5e-7, "(1.20 ± 0.30)e−7"),
        (0.1, 0.0, 0.12, "0.10 [0.00, 0.12]"),
        (2e-5, 0.0, 3e-5, "2.0 [0.0, 3.0] ×1e−5"),
        (0.0, 0.0, 0.0, "0"),
        (12.5, 12.5, 12.5, "12.5"),
        (0.0, -0.2, 0.2, "0.00 ± 0.20"),
        (123456.0, 122456.0, 124456.0, "(1.235 ± 0.010)e5"),
        (math.nan, math.nan, math.nan, "–"),
    ],
)
def test_estimate_text_rounds_to_its_error(value, low, high, text):
    row = pd.Series({"a.value": value, "a.ci95_low": low, "a.ci95_high": high})
    assert estimate_text(row, "a") == text


def shown(folder, width: int = 110) -> str:
    records = load_run(folder)
    console = Console(file=io.StringIO(), width=width)
    console.print(summary_table(records, words(records)))
    return console.file.getvalue()


def test_the_terminal_table_has_a_line_per_measurement(run_of):
    folder = run_of("overfit")
    lines = shown(folder).splitlines()
    assert sum("helps" in line or "hurts" in line or "undecided" in line for line in lines) == 17
    assert any("held-out" in line for line in lines)
    assert "0.25±0.02" in shown(folder)


def test_the_terminal_table_leaves_out_what_was_not_measured(run_of):
    text = shown(run_of("no_heldout"))
    assert "held-out" not in text
    assert "deviation" not in text
    assert "LGGW" in text
