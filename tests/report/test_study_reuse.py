"""The reuse study's page on studies whose truth is planted, and its rules on curves whose turn is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lggwjax.report.studies.alarms import (
    DEVIATIONS,
    WINDOW,
    Alarm,
    descent_alarm,
    excess,
    is_false,
    loss_alarm,
    rise_alarm,
    truth,
)
from lggwjax.report.studies.reuse import document
from tests.report.study_folders import Point, write_study

STEPS = [0, *sorted({round(x) for x in np.geomspace(1, 300, 24)})]


def look(step: int, descent: float, stderr: float, watched: float, true: float) -> dict[str, Any]:
    found = {"step": step, "watched_loss": watched, "true_loss": true}
    ends = {"low": descent - 4 * stderr, "high": descent + 4 * stderr}
    return found | ({"descent": descent, "stderr": stderr} | ends if step else {})


def point(data: str, num: int | None, seed: int, *, turn: int | None, growth: float = 0.0) -> Point:
    rng = np.random.default_rng([seed, num or 0])
    looks, records = [], []
    for index, step in enumerate(STEPS):
        after = turn is not None and index > turn
        loss = 1.0 / (1 + step) if not after else 1.0 / (1 + STEPS[turn or 0]) + 0.02 * (index - (turn or 0))
        descent = -0.02 if after else 0.02
        noisy = loss + 1e-4 * rng.standard_normal()
        looks.append(look(step, descent, 1e-3, noisy, loss))
        size = (num or 64) ** -0.5 * (1 + 0.02 * rng.standard_normal()) * (1 + step) ** growth
        field = {"value": size, "stderr": 0.01, "ci95": [0.9 * size, 1.1 * size]}
        records.append(
            {"step": step, "deviation": field, "lggw": field, "nerc": field, "gradient_rms": 1.0, "train_loss": loss}
        )
    training = {"batch_size": None if num else 64}
    settings = {"data": data, "n": num, "seed": seed, "mode": "reused" if num else "fresh"}
    settings["config"] = {"training": training, "data": {"num_samples": num or 10_000, "heldout_samples": 1000}}
    claim = {
        "statement": "4.2",
        "status": "certified",
        "quantity": "the deviation of the gradient",
        "about": "population",
    }
    claims = [claim | {"value": 5.0, "n": num}] if num else []
    result = {"records": records, "looks": looks, "num_watched": 256, "claims": claims}
    return f"{data}-{num}-{seed}", settings, result


def study(folder: Path, points: list[Point]):
    return document(write_study(folder, "reuse", points))


def findings(found) -> dict[str, str]:
    return {finding.claim.en: finding.outcome for finding in found.findings}


def reused(turn: int | None, growth: float = 0.0) -> list[dict[str, Any]]:
    sizes = (64, 256, 1024, None)
    return [point("linear", num, seed, turn=turn if num else None, growth=growth) for num in sizes for seed in range(4)]


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    return study(tmp_path_factory.mktemp("turning") / "s", reused(turn=10))


def test_the_planted_exponent_is_found(turning):
    assert (
        findings(turning)["linear: the largest deviation along the path falls about as fast as 1/√n, or faster."]
        == "confirmed"
    )


def test_the_certified_bound_is_held_against_the_deviation(turning):
    assert findings(turning)["The certified bounds on the deviation hold."] == "confirmed"


def test_a_deviation_that_grows_is_not_hidden(tmp_path):
    claim = "linear: hundreds of passes do not pull the empirical gradient away from the population's."
    assert findings(study(tmp_path / "a", reused(turn=10, growth=0.3)))[claim] == "not confirmed"
    assert findings(study(tmp_path / "b", reused(turn=10, growth=-0.3)))[claim] == "confirmed"


def test_who_says_stop_first_is_what_the_curves_say(turning):
    """Each look after the turn hurts clearly, so the monitor needs two of them; early stopping waits for three."""
    claim = "The population descent says stop before early stopping on the held-out loss does."
    assert findings(turning)[claim] == "confirmed"
    assert "12 of them" in turning.answer[0].en


def test_without_a_turn_nobody_is_first(tmp_path):
    found = study(tmp_path / "s", reused(turn=None))
    claim = "The population descent says stop before early stopping on the held-out loss does."
    assert findings(found)[claim] == "not decided"
    assert "no turn was seen" in found.answer[2].en


def test_what_passes_are_worth_is_read_off_the_fresh_stream(turning, tmp_path):
    """Both losses are 1 / (1 + steps), so t passes over n are worth 64 t fresh samples."""
    found = study(tmp_path / "s", reused(turn=None))
    [worth] = [figure for figure in found.figures if figure.name == "worth"]
    rows = pd.read_csv(worth.svg.with_suffix(".csv")).dropna()
    sizes = rows["line"].str.removeprefix("n = ").str.replace(",", "").astype(int)
    assert set(sizes) == {64, 256, 1024}
    np.testing.assert_allclose(rows["value"], 64 * rows["x"] / sizes, rtol=1e-6)


def test_missing_and_few_points_are_no_error(tmp_path):
    found = study(tmp_path / "s", [point("digits", 64, 0, turn=5)])
    assert set(findings(found).values()) <= {"not decided", "confirmed"}
    empty = study(tmp_path / "e", [])
    assert "no answer" in empty.answer[0].en


def test_the_monitor_goes_by_its_own_interval():
    """Descents of -2.5 standard errors: each look alone decides, the monitor's wider intervals do not."""
    looks = [look(step, -0.0025, 0.001, 1.0 - 0.01 * step, 1.0) for step in range(12)]
    assert descent_alarm(looks, 256).look == 2
    assert descent_alarm(looks).look is None
    strong = [look(step, -0.02, 0.001, 1.0, 1.0) for step in range(12)]
    assert descent_alarm(strong).look == 2


def test_one_look_that_hurts_is_no_alarm():
    descents = [0.1, -0.1, 0.1, -0.1, 0.0, -0.1]
    looks = [look(step, value, 0.001, 1.0, 1.0) for step, value in enumerate([0.0, *descents])]
    assert descent_alarm(looks[:4]).look is None
    assert descent_alarm(looks).look == 6


def test_false_alarms_and_excess_are_judged_by_what_came_after():
    losses = [1.0, 0.5, 0.6, 0.7, 0.8, 0.1]
    alarm = loss_alarm(losses)
    assert (alarm, is_false(alarm, losses)) == (Alarm(4, 1), True)
    assert excess(alarm, losses) == pytest.approx(0.4 / 0.9)
    assert not is_false(Alarm(None, 5), losses)
    assert truth([1.0, 0.5, 0.505]).rises is False
    assert truth([1.0, 0.5, 0.6]).rises is True


def test_a_rise_is_told_from_noise_trend_and_flattening():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((300, 60))
    wrong = np.mean([rise_alarm(row) is not None for row in noise])
    assert wrong < 0.05
    assert rise_alarm(np.arange(60.0) + 0.1 * noise[0]) is None
    assert rise_alarm(np.exp(-np.arange(60) / 10) + 1e-3 * noise[0]) is None
    jump = noise.copy()
    jump[:, 30:] += 3 * DEVIATIONS
    seen = [rise_alarm(row) for row in jump]
    assert np.mean([look == 31 for look in seen]) > 0.8
    assert rise_alarm(np.zeros(WINDOW)) is None
