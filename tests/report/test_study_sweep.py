from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lggwjax.report
from lggwjax.report.language import Text
from lggwjax.report.studies import sweep_figures
from lggwjax.report.studies.sweep import document
from lggwjax.report.studies.sweep_designs import contest_of
from tests.report.study_folders import DIVERGED, cell, check_page, first_left, run_numbers, without_figures, write_study

TEMPLATE = Path(lggwjax.report.__file__).parents[1] / "experiments" / "templates" / "sweep.toml"
LONG = "norm layer, learning_rate 0.0010000001, optimizer momentum, widths 1024x1024x1024"


@pytest.fixture(autouse=True)
def _few_figures(request, monkeypatch):
    if "figures" not in request.node.name:
        without_figures(monkeypatch, sweep_figures)


def points(designs: dict, num_seeds: int, *, noise=0.02, adjust=lambda design, seed, numbers: numbers) -> list:
    """Runs of designs whose numbers are those of a base times factors; each seed moves all designs alike."""
    rng, found = np.random.default_rng(0), []
    moved = np.exp(0.3 * rng.normal(size=num_seeds))
    for design, factors in designs.items():
        for seed in range(num_seeds):
            numbers = run_numbers(rng, noise, **factors)
            numbers["heldout_loss"] *= moved[seed]
            settings = {"config": {}, "design": design, "changed": {}, "seed": seed, "target_loss": 0.6}
            result = {"numbers": adjust(design, seed, numbers), "records": []}
            found.append((f"p-{len(found)}", settings, result))
    return found


def page_of(tmp_path, listed: list, **options):
    page = document(write_study(tmp_path / "s", "sweep", listed, title="My grid", **options))
    check_page(page)
    return page


def test_a_winner_is_named_where_it_beats_all(tmp_path):
    designs = {"norm none": {}, LONG: {"heldout_loss": 0.8}, "norm group": {"heldout_loss": 1.1}}
    page = page_of(tmp_path, points(designs, 5))
    assert page.title.en == "My grid"
    assert page.answer[1].en.startswith(f"{LONG} is best")
    assert f"{LONG}が最良です" in page.answer[1].ja
    assert "the closest, norm none, differs by +0." in page.answer[1].en
    assert page.tone == "helps"
    assert page.findings[0].outcome == "confirmed"
    assert [Text.same(row[0]).en[0] for row in page.tables[0].rows] == ["1", "2", "3"]
    assert {Text.same(row[-1]).en for row in page.tables[1].rows} == {"yes"}


def test_a_tie_has_no_winner_and_says_with_whom(tmp_path):
    designs = {"a": {"heldout_loss": 0.80}, "b": {"heldout_loss": 0.801}, "c": {"heldout_loss": 1.5}}
    page = page_of(tmp_path, points(designs, 5))
    assert page.answer[1].en.startswith("No winner")
    best = page.answer[1].en.split("No winner: ")[1][0]
    other = {"a": "b", "b": "a"}[best]
    assert f"not decided against {other} (" in page.answer[1].en
    assert "c (" not in page.answer[1].en
    assert page.tone == "undecided"
    assert "won.” It is decided against 1 of 2 others" in page.do_not_say[0].en


def test_no_effect_has_no_winner(tmp_path):
    page = page_of(tmp_path, points({name: {} for name in "abcdef"}, 5))
    assert page.answer[1].en.startswith("No winner")
    assert [finding.outcome for finding in page.findings] == ["not decided"] * 2


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_few_seeds_have_no_winner(tmp_path, num_seeds):
    page = page_of(tmp_path, points({"a": {}, "b": {"heldout_loss": 0.3}}, num_seeds))
    assert "No winner: b has the lowest" in page.answer[1].en
    assert "at least 3 seeds are needed" in page.answer[1].en


def test_differences_are_paired_over_seeds(tmp_path):
    # Seeds move the loss by 30%, the designs differ by 10%: only paired differences can tell.
    listed = points({"a": {}, "b": {"heldout_loss": 0.9}}, 6)
    found = contest_of(write_study(tmp_path / "s", "sweep", listed))
    low, high = found.means["b"]["heldout_loss"], found.means["a"]["heldout_loss"]
    assert low.high > high.low
    assert found.winner == "b"
    a, b = (np.array([r["numbers"]["heldout_loss"] for _, s, r in listed if s["design"] == d]) for d in "ab")
    assert found.against["a"].change.value == pytest.approx((a - b).mean())


def test_a_design_that_diverged_takes_no_part(tmp_path):
    def adjust(design, seed, numbers):
        return DIVERGED if design == "fast" and seed == 1 else numbers

    designs = {"slow": {}, "slower": {"heldout_loss": 1.4}, "fast": {"heldout_loss": 0.5}}
    page = page_of(tmp_path, points(designs, 5, adjust=adjust))
    assert page.answer[1].en.startswith("slow is best")
    assert "1 of the runs diverged; designs with such runs take no part" in page.answer[0].en
    assert cell(page.tables[0], "fast", "ended") == "4 / 5"
    assert Text.same(page.tables[0].rows[-1][0]).en == "3 fast"


def test_one_design_has_nothing_to_beat(tmp_path):
    page = page_of(tmp_path, points({"base": {}}, 4))
    assert "nothing to compare base with" in page.answer[1].en


@pytest.mark.parametrize("num_left", [0, 1, 4])
def test_failed_and_missing_points_are_said_and_nothing_breaks(tmp_path, num_left):
    listed = points({"a": {}, "b": {}}, 4)
    page = page_of(tmp_path, listed, **first_left(listed, num_left, num_failed=1))
    assert page.answer[1].en.startswith("No winner")
    for text in (page.done.en, page.answer[0].en, page.may_not[0].en):
        assert "1 of 8 points failed" in text
        assert f"{7 - num_left} of 8 points were not run yet" in text


@pytest.mark.parametrize(("power", "outcome"), [(1.0, "confirmed"), (-1.0, "not confirmed")])
def test_whether_the_gap_follows_the_width_is_recovered(tmp_path, power, outcome):
    designs = {str(i): {"lggw_over_rms": 1 + 0.2 * i, "gap": (1 + 0.2 * i) ** power} for i in range(8)}
    assert page_of(tmp_path, points(designs, 3)).findings[1].outcome == outcome


def test_more_seeds_are_advised_for_what_they_could_tell(tmp_path):
    # Differences of half their standard deviation: (1.96 + 0.84)^2 / 0.5^2 = 31.4 pairs, and two for estimating it.
    loss = {"a": [1.0, 1.0, 1.0, 1.0], "b": [1.0, 1.0, 1.0, 1.0 + 4 * 0.5]}
    adjust = lambda design, seed, numbers: numbers | {"heldout_loss": loss[design][seed]}  # noqa: E731
    found = contest_of(write_study(tmp_path / "s", "sweep", points({"a": {}, "b": {}}, 4, adjust=adjust)))
    change = found.against["b"].change
    ratio = change.value / (change.stderr * 2)
    assert ratio == pytest.approx(0.5)
    assert found.seeds_needed() == math.ceil(2.8016**2 / ratio**2) + 2


def test_regressions_have_no_accuracy_and_no_column_of_dashes(tmp_path):
    adjust = lambda design, seed, numbers: numbers | {"heldout_accuracy": None, "steps_to_target": None}  # noqa: E731
    page = page_of(tmp_path, points({"a": {}, "b": {}}, 3, adjust=adjust))
    headings = [heading.en for heading in page.tables[0].headings]
    assert "held-out loss" in headings
    assert not {"accuracy", "steps to target"} & set(headings)


def test_figures_and_tables_of_many_designs_with_long_names(tmp_path):
    page = page_of(tmp_path, points({f"{LONG} {i}": {} for i in range(40)}, 3))
    assert [figure.name for figure in page.figures] == ["sweep-designs", "sweep-gap"]
    assert "25 of 40 designs" in page.figures[0].caption.en
    assert len(pd.read_csv(tmp_path / "s" / "tables" / "designs.csv")) == 40


def test_the_template_asks_for_runs_that_can_be_made():
    grid = pytest.importorskip("lggwjax.experiments.grid")
    listed, extra = grid.read(TEMPLATE)
    given = tomllib.loads(TEMPLATE.read_text())
    assert extra == {"title": given["title"]}
    assert len(listed) == 4 * len(given["seeds"])
    assert len({point.settings["design"] for point in listed}) == 4
