"""Study folders with numbers whose truth is known."""

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

Points = Sequence[tuple[dict[str, Any], dict[str, Any]]]


def write_study(folder: Path, name: str, points: Points, *, failed: int = 0, missing: int = 0, **extra) -> StudyRecords:
    """Write points (settings and result) as a study folder; the last ones failed, or were not run."""
    (folder / "points").mkdir(parents=True)
    ids = [f"p-{i:04d}" for i in range(len(points))]
    listed = [{"id": key, "settings": settings} for key, (settings, _) in zip(ids, points, strict=True)]
    study = {"name": name, "preset": "quick", "points": listed, "environment": {"jax": "0.10.2"}} | extra
    (folder / "study.json").write_text(json.dumps(study))
    ran = len(points) - missing
    for i, (key, (settings, result)) in enumerate(zip(ids, points, strict=True)):
        record: dict[str, Any] = {"id": key, "settings": settings, "attempts": 1, "seconds": 1.0}
        if i >= ran:
            continue
        if i >= ran - failed:
            record |= {"status": "failed", "error": "ValueError: too large (somewhere.py, line 3)"}
        else:
            record |= {"status": "done", "result": result}
        (folder / "points" / f"{key}.json").write_text(json.dumps(record))
    return load_study(folder)


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
) -> Points:
    """Points of a study of levers, the base included; ``adjust`` has the last word on each run's numbers."""
    rng = np.random.default_rng(seed)
    found = []
    for lever, factors in {"base": {}, **levers}.items():
        for index in range(num_seeds):
            settings = {"config": config(lever), "family": family, "lever": lever, "seed": index, "target_loss": 0.6}
            settings |= {"scale_only": lever in scale_only}
            numbers = adjust(lever, index, run_numbers(rng, noise, **factors))
            found.append((settings, {"numbers": numbers, "records": []}))
    return found


DIVERGED = {"diverged": 1.0}


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
    """Hold a page to what every page keeps: both languages, no left-over placeholder, files that are there."""
    written = list(texts(page))
    for text in written:
        for one in (text.en, text.ja):
            assert "{" not in one, one
            assert re.search(r"\bnan\b", one.lower()) is None, one
        assert bool(text.en.strip()) == bool(text.ja.strip()), text
    assert all(sentence.en and sentence.ja for sentence in page.answer)
    assert page.say.en
    assert page.do_not_say
    assert any(any(ord(c) > 0x3000 for c in text.ja) for text in page.answer)
    for figure in page.figures:
        for suffix in ("png", "svg", "csv"):
            assert figure.svg.with_suffix(f".{suffix}").is_file(), figure.name


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
