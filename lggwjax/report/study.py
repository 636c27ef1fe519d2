"""A study folder's records: what was asked for, and what came of each point."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lggwjax.strict import read_object, within

STUDY_FILE, POINTS_DIR = "study.json", "points"


@dataclass(frozen=True)
class StudyRecords:
    """A study as it lies on disk.

    Attributes:
        folder: Where.
        name: Of the study: ``reuse``, ``levers``, ...; ``sweep`` for a grid of one's own, ``compare`` for a comparison.
        preset: ``quick``, ``full``, ``gpu`` or ``own``.
        config: All of ``study.json``.
        points: Points that are done, in the order of the study: ``{"id", "settings", "result", "seconds"}``.
        failed: Points that failed for good: ``{"id", "settings", "error", "attempts"}``.
        num_points: Points of the study, those not run yet included.
    """

    folder: Path
    name: str
    preset: str
    config: Mapping[str, Any]
    points: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    num_points: int

    @property
    def num_missing(self) -> int:
        """Points that were not run yet."""
        return self.num_points - len(self.points) - len(self.failed)


def load_study(folder: str | Path) -> StudyRecords:
    """Read a study folder.

    Args:
        folder: As ``lggwjax experiment`` or ``lggwjax compare`` leaves it.

    Returns:
        Its records.

    Raises:
        ValueError: If it is no study folder, or a file in it is no strict JSON of its form.
    """
    folder = Path(folder)
    config = read_object(
        within(folder, STUDY_FILE), "Give the folder that `lggwjax experiment` or `lggwjax compare` wrote."
    )
    asked = config.get("points")
    named = isinstance(config.get("name"), str) and isinstance(config.get("preset"), str)
    listed = isinstance(asked, list) and all(isinstance(point, dict) and _is_name(point.get("id")) for point in asked)
    if not named or not listed:
        raise ValueError(f"Expected a study's name, preset and points in {folder / STUDY_FILE}. Restore the file.")
    done, failed = [], []
    for point in config["points"]:
        file = within(folder, POINTS_DIR, f"{point['id']}.json")
        if not file.is_file():
            continue
        record = read_object(file, "Delete it to have the point run again.")
        if record.get("status") == "done" and isinstance(record.get("result"), dict):
            done.append(record)
        elif record.get("status") == "failed":
            failed.append(record)
    return StudyRecords(folder, config["name"], config["preset"], config, done, failed, len(config["points"]))


def _is_name(name: object) -> bool:
    """Whether it is a plain file name: no path leaves the folder."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) is not None
