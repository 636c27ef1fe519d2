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
_LEAST_WIDTH = 180
REMARK = "remark"
_LOOKS = {"met": "green", "missed": "bold red", "open": "yellow"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print a case's tables, the limits beside them, its bars and its notes."""
    console = console or wide_console()
    console.print(f"\n[bold]{report.case}[/bold]  {report.problem}\n", highlight=False)
    ours = next((row for row in report.rows if row.name.startswith(OURS)), None)
    console.print(_table([_time_line(row, ours) for row in report.rows]))
    console.print()
    measured = [_memory_line(row) for row in report.rows if "process_bytes" in row.found]
    if measured:
        console.print(_table(measured))
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


def _table(lines: list[dict[str, str]]) -> Table:
    """Lines with the same titles; a column that nobody fills is left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    titles = [title for i, title in enumerate(lines[0]) if i == 0 or any(line[title] for line in lines)]
    for title in titles:
        is_text = title in (titles[0], REMARK)
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    for line in lines:
        table.add_row(*(line[title] for title in titles))
    return table


def _time_line(row: Row, ours: Row | None) -> dict[str, str]:
    least, most = row.spread() or (None, None)
    ratio = None if row.name.startswith(OURS) else times(row, row.against or ours)
    gradients = times(row, row, ("", GRADIENTS)) if GRADIENTS in row.limits else None
    value, stderr = row.fact("value"), row.fact("stderr")
    return {
        "time": row.name,
        "median": seconds_text(row.seconds()),
        "least": seconds_text(least),
        "most": seconds_text(most),
        "compile": seconds_text(row.compile_seconds),
        "times ours": f"{ratio[0]:.3g}" if ratio else "",
        "gradients": seconds_text(row.seconds(GRADIENTS)) if gradients else "",
        "times these": f"{gradients[0]:.3g}" if gradients else "",
        "std. error": f"{stderr / value:.2%}" if stderr is not None and value else "",
        "differs by": f"{row.disagreement:.0e}" if row.disagreement is not None else "",
        REMARK: row.note,
    }


def _memory_line(row: Row) -> dict[str, str]:
    peak, planned = row.found.get("bytes"), row.fact("plan_bytes")
    return {
        "peak memory, MiB": row.name,
        "compiled call": _mib(peak),
        "first call": _mib(row.found.get("first_bytes")),
        "whole process": _mib(row.found.get("process_bytes")),
        "plan": _mib(planned) if planned is not None else "",
        "compiled call / plan": f"{peak / planned:.2f}" if peak is not None and planned else "",
    }


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
