"""Study folders as a study writes them, with numbers whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lggwjax.report.document import Document, SavedFigure
from lggwjax.report.language import Text
from lggwjax.report.study import StudyRecords, load_study

ERROR = "TrainingDiverged: the loss became NaN at step 12 (loop.py, line 80)"


def settings(model: str, data: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "config": {
            "data": {"name": data, "num_samples": 300, "probe_size": 64, "heldout_samples": 1000, "seed": seed},
            "model": {"name": "ffn" if model == "linear model" else model, "widths": [128, 128]},
            "training": {"optimizer": "adam", "learning_rate": 0.002, "steps": 100, "seed": seed},
            "measuring": {"measurements": 8, "directions": 256},
        },
        "model": model,
        "seed": seed,
    } | more


def write_study(
    folder: Path,
    name: str,
    points: Sequence[tuple[str, dict[str, Any], dict[str, Any]]],
    *,
    failed: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> StudyRecords:
    """Write points (id, settings, result) and read the study back."""
    (folder / "points").mkdir(parents=True)
    asked = [{"id": point, "settings": its} for point, its, _ in points]
    study = {"name": name, "preset": "full", "points": asked, "environment": {"python": "3.11.2"}}
    (folder / "study.json").write_text(json.dumps(study))
    for point, its, result in points:
        if point in missing:
            continue
        record: dict[str, Any] = {"id": point, "settings": its, "attempts": 1}
        if point in failed:
            record |= {"status": "failed", "attempts": 2, "error": ERROR}
        else:
            record |= {"status": "done", "result": result, "seconds": 2.0}
        (folder / "points" / f"{point}.json").write_text(json.dumps(record, allow_nan=False))
    return load_study(folder)


def outcomes(page: Document) -> dict[str, str]:
    """Every claim's outcome."""
    return {finding.claim.en: finding.outcome for finding in page.findings}


def texts(page: Document) -> list[Text]:
    """Everything a page says."""
    found = [page.kind, page.title, page.done, page.question, *page.answer, page.say, *page.do_not_say]
    found += [*page.meaning, *page.may, *page.may_not, *page.method]
    found += [text for figure in page.figures for text in (figure.title, figure.caption, figure.alt)]
    found += [text for finding in page.findings for text in (finding.claim, finding.numbers)]
    for table in page.tables:
        cells = [cell for row in table.rows for cell in row]
        found += [table.title, table.note, *table.headings, *(cell for cell in cells if isinstance(cell, Text))]
    return found


def only_numbers(
    folder: Path, name: str, fig: Figure, data: pd.DataFrame, *, title: Text, caption: Text, alt: Text
) -> SavedFigure:
    """Stand in for `save_figure` where a test does not look at the drawing, which takes most of the time."""
    folder.mkdir(parents=True, exist_ok=True)
    data.to_csv(folder / f"{name}.csv", index=False)
    return SavedFigure(name, title, caption, alt, folder / f"{name}.svg", (1, 1))


def check_page(page: Document) -> None:
    """Both languages are there and nothing is left unfilled."""
    for text in texts(page):
        assert bool(text.en) == bool(text.ja), text
        for words in (text.en, text.ja):
            assert "{" not in words, text
            assert "nan" not in words.split(), text
            assert "None" not in words, text
    japanese = [text for text in (page.done, page.question, *page.answer, page.say, *page.method) if text.en != text.ja]
    assert all(any("぀" <= letter <= "ヿ" for letter in text.ja) for text in japanese)
    assert all(text.ja != text.en for text in (page.done, *page.answer, page.say))


def check_files(page: Document) -> None:
    """Every figure has its three files."""
    assert page.figures
    for figure in page.figures:
        for suffix in ("png", "svg", "csv"):
            assert (figure.svg.parent / f"{figure.name}.{suffix}").stat().st_size > 100
