"""What a case found, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import GRADIENTS
from benchmarks.results import OURS, Bar, Report, Row, times

_MIB = 2**20
_LEAST_WIDTH = 132
_LOOKS = {"met": "green", "missed": "bold red", "open": "yellow"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print a case's tables, the limits beside them, its bars and its notes."""
    console = console or wide_console()
    console.print(f"\n[bold]{report.case}[/bold]  {report.problem}\n", highlight=False)
    console.print(_time_table(report.rows))
    console.print()
    console.print(_memory_table(report.rows))
    console.print()
    for row in report.rows:
        rates = "; ".join(_rate_text(row, name, unit) for name, (_, unit) in row.limits.items() if unit != "calls")
        if row.samples and rates:
            console.print(f"  beside {row.name}: {rates}", highlight=False)
    for bar in report.bars:
        console.print(_bar_text(bar), highlight=False)
    for note in report.notes:
        console.print(f"  {note}", highlight=False)


def wide_console() -> Console:
    """A console wide enough for the tables, also where the output is a file."""
    console = Console()
    console.width = max(console.width, _LEAST_WIDTH)
    return console


def _table(first: str, titles: tuple[str, ...], last: str = "") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    if last:
        table.add_column(last)
    return table


def _time_table(rows: list[Row]) -> Table:
    titles = (
        "median",
        "least",
        "most",
        "compile",
        "times ours",
        "gradients",
        "times these",
        "std. error",
        "differs by",
    )
    table = _table("time", titles, "remark")
    ours = next((row for row in rows if row.name.startswith(OURS)), None)
    for row in rows:
        spread, ratio = row.spread() or (None, None), times(row, ours)
        value, stderr = row.fact("value"), row.fact("stderr")
        table.add_row(
            row.name,
            seconds_text(row.seconds()),
            *map(seconds_text, spread),
            seconds_text(row.compile_seconds),
            f"{ratio[0]:.3g}" if ratio and row is not ours else "",
            *_gradient_cells(row),
            f"{stderr / value:.2%}" if stderr is not None and value else "",
            f"{row.disagreement:.0e}" if row.disagreement is not None else "",
            row.note,
        )
    return table


def _gradient_cells(row: Row) -> tuple[str, str]:
    """The batched gradients that the call needs, and how many times their time it takes."""
    ratio = times(row, row, ("", GRADIENTS)) if GRADIENTS in row.limits else None
    return (seconds_text(row.seconds(GRADIENTS)), f"{ratio[0]:.3g}") if ratio else ("", "")


def _memory_table(rows: list[Row]) -> Table:
    """Of those that were measured in a process of their own."""
    table = _table("peak memory, MiB", ("compiled call", "first call", "whole process", "plan", "compiled call / plan"))
    for row in rows:
        peak, planned = row.found.get("bytes"), row.fact("plan_bytes")
        if "process_bytes" not in row.found:
            continue
        table.add_row(
            row.name,
            *(_mib(row.found.get(name)) for name in ("bytes", "first_bytes", "process_bytes")),
            _mib(planned) if planned is not None or row.name.startswith(OURS) else "",
            f"{peak / planned:.2f}" if peak is not None and planned else "",
        )
    return table


def _rate_text(row: Row, name: str, unit: str) -> str:
    rate = row.rate(name) or 0.0
    return f"{name} at {rate / 1e9:.0f} GFLOP/s" if unit == "flops" else f"{name} at {rate / 1e6:.0f} million/s"


def _bar_text(bar: Bar) -> str:
    colour = _LOOKS[bar.verdict]
    if bar.verdict == "open":
        return f"  [{colour}]open  [/]  {bar.text} {bar.sense} {bar.limit:g} {bar.unit}: {bar.missing}"
    spread = f" ({bar.spread[0]:.3g} to {bar.spread[1]:.3g})" if bar.spread else ""
    return (
        f"  [{colour}]{bar.verdict:<6}[/]  {bar.text}: {bar.measured:.3g}{spread} {bar.sense} {bar.limit:g} {bar.unit}"
    )


def seconds_text(seconds: float | None) -> str:
    """Three digits in s or ms."""
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"


def _mib(count: float | None) -> str:
    return "n/a" if count is None else f"{count / _MIB:,.0f}"


def record(reports: list[Report], machine: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, in strict JSON types."""
    cases = {}
    for report in reports:
        bars = [{**bar.__dict__, "verdict": bar.verdict} for bar in report.bars]
        rows = [row.record() for row in report.rows]
        cases[report.case] = {"problem": report.problem, "rows": rows, "bars": bars, "notes": report.notes}
        cases[report.case] |= report.extra
    return {"machine": machine, "settings": settings, "cases": cases}


def write_record(file: Path, content: dict[str, Any]) -> None:
    """Write it down; the folder is made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf8")
