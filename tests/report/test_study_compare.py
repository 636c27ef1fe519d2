"""A comparison's page says what was planted: a winner, none, none needed, too little to tell, or stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lggwjax.report.studies import study_document
from lggwjax.report.studies.compare_needs import beat_trivial, doubling, to_decide
from lggwjax.report.studies.comparison import compared, resampled_interval
from lggwjax.report.study import load_study
from tests.report.study_folders import Point, write_study

NAMES = ("linear model", "network", "narrow sparse network")
SIZES = {"linear model": 60, "network": 6000, "narrow sparse network": 3000}
TRIVIAL = 0.7


def result(loss: float, rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    steps = [0, 1, 10, 100]
    heldout = [1.2, 1.0, loss, loss + 0.02]
    found = {
        "num_parameters": 60,
        "trivial_loss": TRIVIAL + 1e-3 * float(rng.normal()),
        "trivial_accuracy": 0.5,
        "steps": steps,
        "train_losses": [1.2, 0.9, 0.5 * loss, 0.1 * loss],
        "heldout_losses": heldout,
        "best_loss": loss,
        "best_accuracy": 0.9,
        "best_steps": [10, 10],
        "final_loss": heldout[-1],
        "final_accuracy": 0.88,
        "lggw_over_rms": 1.0 + float(rng.normal()) / 10,
        "gap": 0.9 * loss,
        "records": [],
        "gate": {"verdict": "yes", "ratio": 0.5, "low": 0.1, "high": 1.0, "limit": 2.0},
        "seconds": {"training": 1.0, "measuring": 1.0, "gate": 0.5, "other": 0.5, "step": 0.01, "total": 3.0},
    }
    return found | changes


def comparison(
    folder: Path,
    means: dict[str, float],
    *,
    spread: float = 0.01,
    seeds: int = 5,
    drop: float = 0.03,
    question: dict[str, Any] | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
    task: str = "classification",
) -> Path:
    """Write a comparison whose losses are the means given, with normal noise of that spread on each run."""
    rng = np.random.default_rng(0)
    points: list[Point] = []
    for name, mean in means.items():
        for seed in range(seeds):
            for samples, loss in ((200, mean), (100, mean + drop)):
                settings = {"design": name, "seed": seed, "samples": samples}
                settings["config"] = {"training": {"batch_size": 50}}
                made = result(loss + spread * float(rng.normal()), rng, num_parameters=SIZES.get(name, 100))
                made |= (changes or {}).get(name, {})
                points.append((f"{name.replace(' ', '-')}-{samples}-s{seed}", settings, made))
    asked = {"worth": 0.1, "target_loss": None, "price_per_hour": None, "price_per_sample": None}
    study = {
        "preset": "own",
        "designs": [{"name": name} for name in means],
        "minutes": 5.0,
        "seeds": seeds,
        "data": {
            "title": "planted",
            "name": "csv",
            "label": "y",
            "task": task,
            "num_outputs": 2,
            "num_rows": 300,
            "num_samples": 200,
            "num_heldout": 100,
            "overlap": 1 / 3,
        },
        "plan": {
            "costs": {name: {"step": 0.01, "whole": 2.0, "half": 1.0, "pilot": 5.0} for name in means},
            "steps": dict.fromkeys(means, 100),
            "measurements": 4,
            "pilot_seconds": 15.0,
        },
        "question": asked | (question or {}),
        "environment": {},
    }
    write_study(folder, "compare", points, **study)
    return folder


def both(document) -> str:
    texts = [*document.answer, document.say, *document.do_not_say, document.done]
    texts += [cell for table in document.tables for row in table.rows for cell in row]
    return "\n".join(f"{t}\n{t.ja if hasattr(t, 'ja') else ''}" for t in texts)


def test_a_clear_winner_is_recommended(tmp_path):
    means = dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True))
    folder = comparison(tmp_path / "s", means)
    found, document = compared(load_study(folder)), study_document(folder)
    assert (found.kind, found.chosen) == ("go", "network")
    assert "Go with network" in document.answer[1].en
    assert "推奨" in document.answer[1].ja
    assert document.tone == "helps"
    assert document.findings[0].outcome == "confirmed"
    assert {figure.name for figure in document.figures} == {"differences", "loss_over_time", "lggw_and_gap"}
    assert all(figure.svg.is_file() for figure in document.figures)


def test_the_numbers_are_those_of_a_t_test_by_hand(tmp_path):
    folder = comparison(tmp_path / "s", dict(zip(NAMES[:2], (0.3, 0.4), strict=True)), spread=0.05)
    found = compared(load_study(folder))
    differences = found.whole["network"]["best_loss"] - found.whole["linear model"]["best_loss"]
    seen = found.pairs[0].found
    assert seen.value == pytest.approx(differences.mean())
    # Nadeau and Bengio: 1/J + n_test/n_train, here 1/5 + 1/2.
    assert seen.stderr == pytest.approx(differences.std(ddof=1) * math.sqrt(1 / 5 + 1 / 2))


def test_noise_alone_has_no_winner(tmp_path):
    folder = comparison(tmp_path / "s", dict.fromkeys(NAMES, 0.3), spread=0.1)
    found, document = compared(load_study(folder)), study_document(folder)
    assert found.kind == "collect"
    assert document.answer[1].en.startswith("No winner")
    assert document.answer[1].ja.startswith("勝者なし")
    assert document.tone == "undecided"
    assert any("won" in text.en for text in document.do_not_say)


def test_differences_not_worth_deciding_choose_the_simplest(tmp_path):
    means = dict(zip(NAMES, (0.3001, 0.3, 0.3002), strict=True))
    folder = comparison(tmp_path / "s", means, spread=0.001)
    found, document = compared(load_study(folder)), study_document(folder)
    assert (found.kind, found.chosen) == ("equal", "linear model")
    assert "none is needed" in document.answer[1].en


def test_all_worse_than_the_trivial_predictor_is_a_stop(tmp_path):
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.8, 0.9, 1.0), strict=True)))
    found, document = compared(load_study(folder)), study_document(folder)
    assert (found.kind, found.chosen) == ("stop", None)
    assert document.answer[1].en.startswith("Stop")
    assert document.tone == "hurts"


def test_a_winner_that_does_not_beat_the_trivial_predictor_is_none(tmp_path):
    means = dict(zip(NAMES, (0.69, 1.5, 1.6), strict=True))
    folder = comparison(tmp_path / "s", means, spread=0.05)
    found, document = compared(load_study(folder)), study_document(folder)
    assert found.pairs[0].decided
    assert found.kind == "collect"
    assert "not even the best" in document.answer[1].en
    assert beat_trivial(found, 300) is not None


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_winner(tmp_path, seeds):
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True)), seeds=seeds)
    found, document = compared(load_study(folder)), study_document(folder)
    assert found.kind == "seeds"
    assert document.answer[1].en.startswith("No winner")
    assert "--seeds" in document.answer[2].en


def test_a_design_that_diverged_is_not_ranked(tmp_path):
    gone = {"network": {"diverged": 3, "best_loss": None, "final_loss": None}}
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True)), changes=gone)
    found, document = compared(load_study(folder)), study_document(folder)
    assert found.ranked == ["narrow sparse network", "linear model"]
    assert found.chosen == "narrow sparse network"
    assert "diverged in 5 seeds" in both(document)


def test_nothing_to_judge_is_said(tmp_path):
    gone = {name: {"diverged": 3, "best_loss": None} for name in NAMES}
    folder = comparison(tmp_path / "s", dict.fromkeys(NAMES, 0.3), changes=gone)
    document = study_document(folder)
    assert "No design can be judged" in document.answer[1].en


def test_missing_points_are_said(tmp_path):
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True)))
    next((folder / "points").glob("network-200-s0.json")).unlink()
    assert "preliminary" in study_document(folder).done.en
    assert compared(load_study(folder)).chosen == "network"


def test_prices_become_costs(tmp_path):
    question = {"price_per_hour": 7200.0, "price_per_sample": 0.5}
    folder = comparison(tmp_path / "s", dict.fromkeys(NAMES, 0.3), spread=0.03, question=question)
    study = load_study(folder)
    need = to_decide(compared(study), 300)
    assert need is not None
    assert need.more is not None
    plan = next(table for table in study_document(folder).tables if "cost" in table.title.en)
    costs = {str(row[0]): row[3] for row in plan.rows}
    # The pilot's 15 s and 30 points of 2 s, at 2 a second.
    assert costs["this comparison, done"] == "150"
    assert costs["samples to decide"].startswith(f"{need.more * 0.5:,.0f}")


def test_more_samples_needed_grow_with_the_spread_squared(tmp_path):
    needs = []
    for spread in (0.1, 0.2):
        # The same noise, twice as large, and the same mean difference in proportion: a looser aim must not hide it.
        folder = comparison(tmp_path / f"{spread}", dict.fromkeys(NAMES, 0.3), spread=spread, question={"worth": 0.9})
        found = compared(load_study(folder))
        pair = max(found.against_leader(), key=lambda p: p.found.stderr)
        needs.append((pair.found.stderr, to_decide(found, 300)))
    assert needs[1][0] == pytest.approx(2 * needs[0][0])


def test_seeds_do_where_samples_are_always_new(tmp_path):
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.3, 0.32, 0.5), strict=True)), spread=0.02)
    file = folder / "study.json"
    held = json.loads(file.read_text())
    held["data"] |= {"overlap": 0.0, "num_rows": None}
    file.write_text(json.dumps(held))
    found = compared(load_study(folder))
    need = to_decide(found, 300)
    assert found.kind == "collect"
    assert need is not None
    assert need.seeds is not None
    assert need.seeds > 5


def test_a_doubling_that_helped_and_the_samples_a_wanted_loss_takes(tmp_path):
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True)), spread=0.001, drop=0.2)
    found = compared(load_study(folder))
    seen = doubling(found, "network", 200, 0.1)
    # 0.4 at 100 samples and 0.2 at 200: a power law with exponent -1 reaches 0.1 at 400.
    assert seen.drop.low > 0
    assert seen.least is not None
    assert 340 <= seen.least <= 400
    assert doubling(found, "network", 200, 0.3).reached
    flat = compared(load_study(comparison(tmp_path / "t", dict(zip(NAMES, (0.5, 0.2, 0.4), strict=True)), drop=0.0)))
    assert doubling(flat, "network", 200, 0.1).least is None


def test_intervals_over_shared_rows_cover_as_they_say():
    """Results that share a part of their noise: the corrected interval covers, the plain one does not."""
    rng, rho, covered = np.random.default_rng(0), 1 / 3, np.zeros(2)
    num = 4000
    for _ in range(num):
        values = math.sqrt(rho) * rng.normal() + math.sqrt(1 - rho) * rng.normal(size=5)
        for i, overlap in enumerate((rho, 0.0)):
            found = resampled_interval(values, overlap)
            covered[i] += found.low <= 0 <= found.high
    stderr = math.sqrt(0.95 * 0.05 / num)
    assert abs(covered[0] / num - 0.95) < 4 * stderr
    assert covered[1] / num < 0.95 - 20 * stderr


def test_three_designs_in_line_do_not_make_lggw_an_explanation(tmp_path):
    changes = {name: {"lggw_over_rms": i + 1.0, "gap": 0.1 * (i + 1)} for i, name in enumerate(NAMES)}
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.2, 0.4, 0.5), strict=True)), changes=changes)
    found, document = compared(load_study(folder)), study_document(folder)
    assert found.together.across == 1
    assert found.together.verdict == "undecided"
    assert "not used to explain" in "\n".join(text.en for text in document.meaning)
    assert any("LGGW" in text.en for text in document.do_not_say)


def test_six_designs_in_line_do(tmp_path):
    names = [f"design {i}" for i in range(6)]
    changes = {name: {"lggw_over_rms": i + 1.0, "gap": 0.1 * (i + 1)} for i, name in enumerate(names)}
    folder = comparison(tmp_path / "s", {name: 0.2 + 0.05 * i for i, name in enumerate(names)}, changes=changes)
    assert compared(load_study(folder)).together.verdict == "yes"
    assert "LGGW explains" in "\n".join(text.en for text in study_document(folder).meaning)
    reversed_changes = {name: {"lggw_over_rms": 6.0 - i, "gap": 0.1 * (i + 1)} for i, name in enumerate(names)}
    folder = comparison(
        tmp_path / "t", {name: 0.2 + 0.05 * i for i, name in enumerate(names)}, changes=reversed_changes
    )
    assert compared(load_study(folder)).together.verdict == "no"


def test_a_gate_that_says_no_is_said(tmp_path):
    changes = {name: {"gate": {"verdict": "no"}} for name in NAMES}
    folder = comparison(tmp_path / "s", dict(zip(NAMES, (0.2, 0.4, 0.5), strict=True)), changes=changes)
    assert study_document(folder).findings[1].outcome == "not confirmed"
    changes = {name: {"gate": None} for name in NAMES}
    folder = comparison(tmp_path / "t", dict(zip(NAMES, (0.2, 0.4, 0.5), strict=True)), changes=changes)
    assert study_document(folder).findings[1].outcome == "not decided"


def test_a_regression_has_no_accuracy_and_says_its_unit(tmp_path):
    changes = {name: {"best_accuracy": None, "final_accuracy": None, "trivial_accuracy": None} for name in NAMES}
    means = dict(zip(NAMES, (0.2, 0.4, 0.5), strict=True))
    folder = comparison(tmp_path / "s", means, changes=changes, task="regression")
    document = study_document(folder)
    assert "nats" not in both(document)
    assert document.tables[0].rows[0][3] == "–"


@pytest.mark.parametrize("means", [(0.5, 0.2, 0.4), (0.3, 0.3, 0.3), (0.8, 0.9, 1.0)])
def test_every_text_is_in_both_languages(tmp_path, means):
    document = study_document(comparison(tmp_path / "s", dict(zip(NAMES, means, strict=True)), spread=0.05))
    texts = [document.title, document.say, *document.answer, *document.meaning, *document.method, *document.may]
    texts += [*document.may_not, *document.do_not_say, *(finding.claim for finding in document.findings)]
    for text in texts:
        assert text.en.strip()
        assert any("\u3040" <= sign <= "\u30ff" or "\u4e00" <= sign <= "\u9fff" for sign in text.ja), text.ja
        assert "{" not in text.en + text.ja
        assert "nan" not in text.en
