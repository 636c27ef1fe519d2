"""What commands print: a bar while they work, a table when they are done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def shown(text: str) -> str:
    r"""Write out what would steer a terminal (escapes, line ends, turned directions): files of others may hold it.

    Example:
        >>> shown("\x1b[2Ja name")
        '\\x1b[2Ja name'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def print_summary(page: Path) -> None:
    """Print a run's measurements and where its page lies."""
    from rich.console import Console

    from lggwjax.report import load_config, load_run, num_skipped, summary_table, unseen_word, words

    # Cut off at 80 columns, a table in a log file would lose its intervals.
    console, records = Console(width=None if sys.stdout.isatty() else 120), load_run(page.parent)
    if records.empty:
        raise ValueError(f"Expected records in {page.parent / 'metrics.jsonl'}, got none. Restore it, or run again.")
    console.print(summary_table(records, words(records), unseen_word(load_config(page.parent))))
    if any(left := num_skipped(records)):
        said = (
            f"left out: {left[0]} samples trained on and {left[1]} held out, whose loss or gradient was NaN or infinite"
        )
        console.print(said, highlight=False, soft_wrap=True)
    training, measuring = records["seconds.training"].iloc[-1], records["seconds.measuring"].iloc[-1]
    share = 100 * measuring / max(training + measuring, 1e-9)
    console.print(f"training {training:.1f} s, measuring {measuring:.1f} s ({share:.0f}%)", highlight=False)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)


def print_answer(page: Path, *, quiet: bool) -> int:
    """Print what the page of a study answers, where it lies, and which points failed.

    Returns:
        The exit status: 1 if points failed, as a run that did not finish has.
    """
    from rich.console import Console

    from lggwjax.report.studies import study_document
    from lggwjax.report.study import load_study

    if not quiet:
        console = Console(soft_wrap=True)
        for sentence in study_document(page.parent).answer:
            console.print(shown(sentence.en), highlight=False, markup=False)
        console.print(f"page: {page}", highlight=False, markup=False)
    study = load_study(page.parent)
    if not study.failed:
        return 0
    first = study.failed[0]
    why = " ".join(str(first.get("error", "no error was recorded")).split())
    said = f"{len(study.failed)} of {study.num_points} points failed and are left out; the first, {first['id']}: {why}"
    print(f"lggwjax: {shown(said)} Mend it, then --resume tries them again.", file=sys.stderr)
    return 1


@contextlib.contextmanager
def progress(total: int, *, quiet: bool) -> Iterator[Any]:
    """Show a bar with the latest LGGW and population descent, from the first step on: a refused run shows none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    task, started = bar.add_task("", total=total), False

    def show(step: int, record: dict[str, Any] | None) -> None:
        nonlocal started
        if not started:
            bar.start()
            started = True
        bar.update(task, completed=step)
        if record is not None:
            bar.update(task, description=_latest(record))

    try:
        yield show
    finally:
        if started:
            bar.stop()


def _latest(record: dict[str, Any]) -> str:
    text = f"LGGW {record['lggw']['value']:.3g}±{record['lggw']['stderr']:.1g}"
    descent = record["population_descent"]
    if descent is not None:
        low, high = descent["ci95"]
        text += f" descent {descent['value']:.2g} [{low:.2g}, {high:.2g}]"
    return text


@contextlib.contextmanager
def study_progress(*, quiet: bool) -> Iterator[Any]:
    """Show a bar with the latest point of a study, once it has begun; failed ones get a line of their own."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    task, started = bar.add_task("", total=None), False

    def show(record: dict[str, Any] | None, total: int) -> None:
        nonlocal started
        if not started:
            bar.start()
            started = True
        if record is None:
            bar.update(task, total=total)
            return
        bar.update(task, total=total, advance=1, description=escape(shown(str(record["id"]))))
        if record["status"] != "done":
            text = shown(f"{record['id']} failed: {record.get('error')}")
            bar.console.print(text, markup=False, highlight=False)

    try:
        yield show
    finally:
        if started:
            bar.stop()
