"""The shift study's page on streams whose drift, and what sees it, is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lggwjax.report.studies.shift import document
from tests.report.study_folders import Point, write_study

NUM, HALF = 60, 30


def point(shift: str, seed: int, *, lggw: int | None, descent: int | None, loss: int | None) -> Point:
    """A stream in which a signal changes so many looks after the shift."""
    rng = np.random.default_rng([seed, len(shift)])
    looks = []
    for index in range(NUM):
        after = index - HALF

        def moved(delay: int | None, after=after) -> bool:
            return delay is not None and after >= delay

        noise = 0.01 * rng.standard_normal(8)
        rise = 0.05 * (after - loss) if loss is not None and after >= loss else 0.0
        looks.append(
            {
                "step": 2 * index + 2,
                "lggw": 1 + noise[0],
                "lggw_over_rms": 1 + noise[1] + moved(lggw),
                "cloud_over_rms": 1 + noise[2],
                "gradient_rms": 1 + noise[3],
                "deviation": 1 + noise[4],
                "stream_loss": 1 + noise[5],
                "heldout_loss": 1.0 - 0.01 * min(index, HALF + (loss or 1000)) + rise,
                "descent": -0.05 if moved(descent) else 0.05,
                "stderr": 0.001,
                "low": -0.06 if moved(descent) else 0.04,
                "high": -0.04 if moved(descent) else 0.06,
            }
        )
    settings = {"shift": shift, "seed": seed, "config": {"data": {"name": "digits", "heldout_samples": 900}}}
    result = {"looks": looks, "shift_step": 2 * HALF}
    return f"{shift.replace(' ', '-')}-{seed}", settings, result


def study(folder: Path, points: list[Point]):
    return document(write_study(folder, "shift", points))


def streams(num_seeds: int, **delays: int | None) -> list[dict[str, Any]]:
    still = [point("none", seed, lggw=None, descent=None, loss=None) for seed in range(num_seeds)]
    return still + [point("label noise", seed, **delays) for seed in range(num_seeds)]


def outcomes(found) -> dict[str, str]:
    return {finding.claim.en.split(" comes ")[0].split(" speaks ")[0]: finding.outcome for finding in found.findings}


LGGW = "A rise of LGGW / rms"
DESCENT = "The population descent says that steps hurt before the held-out loss rises."


def test_the_signal_that_is_earlier_is_found(tmp_path):
    found = study(tmp_path / "s", streams(5, lggw=2, descent=20, loss=8))
    assert outcomes(found)[LGGW] == "confirmed"
    assert outcomes(found)[DESCENT] == "not confirmed"
    assert "LGGW / rms was earliest" in found.answer[1].en


def test_a_rule_that_cries_wolf_takes_no_part_in_the_lead(tmp_path):
    """A held-out loss on a plateau brings no new lowest one: the patient rule speaks before anything has happened."""
    points = streams(5, lggw=2, descent=20, loss=8)
    for _, _, result in points:
        for look in result["looks"][10:20]:
            look["heldout_loss"] = 0.95
    found = study(tmp_path / "s", points)
    assert outcomes(found)["Early stopping on the held-out loss (patience of 3)"] == "not decided"
    assert outcomes(found)[LGGW] == "confirmed"


def test_a_signal_that_is_later_or_silent_is_reported_too(tmp_path):
    found = study(tmp_path / "s", streams(5, lggw=None, descent=2, loss=8))
    assert outcomes(found)[LGGW] == "not confirmed"
    assert outcomes(found)[DESCENT] == "confirmed"


def test_two_seeds_decide_nothing(tmp_path):
    found = study(tmp_path / "s", streams(2, lggw=2, descent=2, loss=8))
    assert set(outcomes(found).values()) == {"not decided"}
    assert "No signal was clearly earlier" in found.answer[1].en


def test_crying_wolf_is_counted(tmp_path):
    wolf = [point("none", 9, lggw=3, descent=None, loss=None)]
    found = study(tmp_path / "s", streams(4, lggw=2, descent=2, loss=8) + wolf)
    [lggw] = [finding for finding in found.findings if finding.claim.en.startswith(LGGW)]
    assert "false alarms in 1 of 5" in lggw.numbers.en
    [table] = found.tables
    assert [str(cell) for cell in table.rows[0]][2] == "1 / 5 false"


def test_delays_are_those_planted(tmp_path):
    """The shift lies before the look of its step: a change at once is seen at the second look after it."""
    found = study(tmp_path / "s", streams(4, lggw=0, descent=5, loss=8))
    row = next(row for row in found.tables[0].rows if str(row[0]) == "label noise")
    cells = dict(zip([h.en for h in found.tables[0].headings], map(str, row), strict=True))
    assert cells["LGGW / rms"] == "4 / 4 (2)"
    assert cells["population descent"] == "4 / 4 (7)"


def test_nothing_measured_is_no_error(tmp_path):
    assert "no answer" in study(tmp_path / "s", []).answer[0].en
