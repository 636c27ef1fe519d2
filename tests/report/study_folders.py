"""Study folders as a study writes them, with numbers whose truth is known, and what every page of them keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lggwjax.report.document import Document, SavedFigure
from lggwjax.report.language import Text
from lggwjax.report.study import StudyRecords, load_study

ERROR = "TrainingDiverged: the loss became NaN at step 12 (loop.py, line 80)"
DIVERGED = {"diverged": 1.0}

Point = tuple[str, dict[str, Any], dict[str, Any]]  # its id, settings and result


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
    points: Sequence[Point],
    *,
    failed: Sequence[str] = (),
    missing: Sequence[str] = (),
    **extra: Any,
) -> StudyRecords:
    """Write a study, some of whose points failed or were not run, and read it back; ``extra`` goes into its file."""
    (folder / "points").mkdir(parents=True)
    asked = [{"id": point, "settings": its} for point, its, _ in points]
    study = {"name": name, "preset": "full", "points": asked, "environment": {"python": "3.11.2"}} | extra
    (folder / "study.json").write_text(json.dumps(study))
    for point, its, result in points:
        if point in missing:
            continue
        record: dict[str, Any] = {"id": point, "settings": its, "attempts": 1, "seconds": 2.0}
        if point in failed:
            record |= {"status": "failed", "attempts": 2, "error": ERROR}
        else:
            record |= {"status": "done", "result": result}
        (folder / "points" / f"{point}.json").write_text(json.dumps(record, allow_nan=False))
    return load_study(folder)


def first_left(points: Sequence[Point], num_left: int, *, num_failed: int) -> dict[str, list[str]]:
    """Let the first points be done, the next ones fail and the others be missing."""
    ids = [point for point, _, _ in points]
    return {"failed": ids[num_left : num_left + num_failed], "missing": ids[num_left + num_failed :]}


def run_numbers(rng: np.random.Generator, noise: float = 0.03, **factors: float | None) -> dict[str, float | None]:
    """One run's numbers around those of a base design, each times its factor; None for what was not reached."""
    base = {
        **{"lggw": 3.0, "gradient_rms": 3.3, "lggw_over_rms": 0.9, "nerc_over_rms": 0.2, "union_over_rms": 3.6},
        **{"feature_width": 5.0, "deviation": 0.4, "deviation_over_rms": 0.12, "train_loss": 0.2, "heldout_loss": 0.5},
        **{
            "gap": 0.3,
            "heldout_accuracy": 0.88,
            "steps_to_target": 60.0,
            "loss_spikes": 2.0,
            "prediction_spread": 0.09,
        },
    }
    found: dict[str, float | None] = {"diverged": 0.0}
    for name, value in base.items():
        factor = factors.get(name, 1.0)
        found[name] = None if factor is None else value * factor * float(np.exp(noise * rng.normal()))
    return found


def lever_points(
    levers: Mapping[str, Mapping[str, float | None]],
    num_seeds: int,
    *,
    family: str = "ffn on digits",
    adjust: Callable[[str, int, dict], dict] = lambda lever, seed, numbers: numbers,
    config: Callable[[str], dict] = lambda lever: {"model": {"init_scale": 1.0}},
    scale_only: Sequence[str] = (),
    seed: int = 0,
    noise: float = 0.03,
) -> list[Point]:
    """Points of a study of levers, the base included; ``adjust`` has the last word on each run's numbers."""
    rng = np.random.default_rng(seed)
    found = []
    for lever, factors in {"base": {}, **levers}.items():
        for index in range(num_seeds):
            settings = {"config": config(lever), "family": family, "lever": lever, "seed": index, "target_loss": 0.6}
            settings |= {"scale_only": lever in scale_only}
            numbers = adjust(lever, index, run_numbers(rng, noise, **factors))
            point = f"{family.replace(' ', '-')}-{len(found)}"
            found.append((point, settings, {"numbers": numbers, "records": []}))
    return found


def outcomes(page: Document) -> dict[str, str]:
    """Every claim's outcome."""
    return {finding.claim.en: finding.outcome for finding in page.findings}


def texts(value: Any) -> Iterator[Text]:
    """All texts of a page, wherever they stand."""
    if isinstance(value, Text):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            yield from texts(getattr(value, field))


def check_page(page: Document) -> None:
    """Hold a page to what every page keeps: both languages, nothing left unfilled, a caveat, files that are there."""
    for text in texts(page):
        assert bool(text.en.strip()) == bool(text.ja.strip()), text
        for words in (text.en, text.ja):
            assert "{" not in words, text
            assert re.search(r"\bnan\b|\bNone\b(?! is)", words) is None, text
    said = [page.done, page.question, *page.answer, page.say, *page.method]
    assert all(text.en for text in said)
    assert all(any("぀" <= letter <= "ヿ" for letter in text.ja) for text in said if text.en != text.ja)
    assert all(text.ja != text.en for text in (page.done, *page.answer, page.say))
    assert page.do_not_say
    check_files(page)


def check_files(page: Document, at_least: int = 0) -> None:
    """Every figure has its three files, each of so many bytes."""
    for figure in page.figures:
        for suffix in ("png", "svg", "csv"):
            assert figure.svg.with_suffix(f".{suffix}").stat().st_size >= at_least, figure.name


def cell(table, row: str, column: str) -> str:
    """A cell of a table, in English: the row whose name contains, under the heading that is."""
    index = [heading.en for heading in table.headings].index(column)
    (found,) = [cells for cells in table.rows if Text.same(cells[0]).en.endswith(row)]
    return Text.same(found[index]).en


def without_figures(monkeypatch, module) -> None:
    """Let a module draw its figures and write only the numbers: rendering them is most of a page's time."""

    def save(folder, name, _, data, *, title, caption, alt):
        folder.mkdir(parents=True, exist_ok=True)
        data.to_csv(folder / f"{name}.csv", index=False)
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").touch()
        return SavedFigure(name, title, caption, alt, folder / f"{name}.svg", (5, 5))

    monkeypatch.setattr(module, "save_figure", save)
