from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

import lggwjax.report
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, holm, p_value, paired_difference
from lggwjax.report.studies import lever_families
from lggwjax.report.studies.effects import Effect, Quantity, adjusted, effect
from lggwjax.report.studies.lever_families import lever_name
from lggwjax.report.studies.levers import document
from tests.report.study_folders import (
    DIVERGED,
    cell,
    check_page,
    first_left,
    lever_points,
    without_figures,
    write_study,
)

LOWERING = {"lggw": 0.5, "lggw_over_rms": 0.6, "gap": 0.7}
LONG = "a lever whose name goes on and on, initialisation x 2"


@pytest.fixture(autouse=True)
def _few_figures(request, monkeypatch):
    if "figures" not in request.node.name:
        without_figures(monkeypatch, lever_families)


def ranked(page):
    return next(table for table in page.tables if table.title.en.startswith("Ranked"))


def claims(page, start: str):
    return [finding for finding in page.findings if start in finding.claim.en]


def test_a_planted_effect_is_found_and_ranked_first(tmp_path):
    levers = {"weight decay": {}, "top-k features (8)": LOWERING, LONG: {"lggw_over_rms": 1.5}}
    page = document(write_study(tmp_path / "s", "levers", lever_points(levers, 5)))
    check_page(page)
    table = ranked(page)
    assert Text.same(table.rows[0][0]).en == "1 top-k features (8)"
    assert cell(table, "top-k features (8)", "LGGW/rms").startswith("↓ ×0.")
    written = pd.read_csv(tmp_path / "s" / "tables" / "levers-ffn-on-digits.csv")
    planted = written[(written["lever"] == "top-k features (8)") & (written["quantity"] == "lggw_over_rms")].iloc[0]
    assert planted["wide_low"] < math.log(0.6) < planted["wide_high"] < 0
    assert cell(table, "top-k features (8)", "held-out gap").startswith("↓")
    assert cell(table, "weight decay", "LGGW/rms").startswith("·")
    assert cell(table, LONG, "LGGW/rms").startswith("↑")
    assert "top-k features (8) lowers LGGW/rms most" in page.answer[1].en
    assert "上位k個の特徴 (8)がLGGW/rmsを最も下げます" in page.answer[1].ja
    assert page.tone == "helps"
    assert claims(page, "some lever lowers")[0].outcome == "confirmed"


def test_no_effect_is_not_decided(tmp_path):
    levers = {name: {} for name in ("a", "b", "c", "d", "e", "f", "g")}
    page = document(write_study(tmp_path / "s", "levers", lever_points(levers, 5)))
    check_page(page)
    assert all(Text.same(row[1]).en.startswith("·") for row in ranked(page).rows)
    assert "no lever lowers LGGW/rms beyond" in page.answer[1].en
    assert page.tone == "undecided"
    assert {finding.outcome for finding in page.findings} == {"not decided"}


@pytest.mark.parametrize(("power", "outcome"), [(1.0, "confirmed"), (-1.0, "not confirmed")])
def test_whether_the_gap_follows_the_width_is_recovered(tmp_path, power, outcome):
    levers = {f"lever {i}": {"lggw_over_rms": 0.5 + 0.15 * i, "gap": (0.5 + 0.15 * i) ** power} for i in range(10)}
    page = document(write_study(tmp_path / "s", "levers", lever_points(levers, 4)))
    (claim,) = claims(page, "have smaller held-out gaps")
    assert claim.outcome == outcome
    assert "over 10 levers" in claim.numbers.en


def test_a_lever_of_scale_is_flagged_and_compared_with_its_own_norm(tmp_path):
    name = "layer norm, initialisation x 2"
    levers = {"layer norm": {"lggw": 0.8, "lggw_over_rms": 0.8}, name: {"lggw": 0.4, "lggw_over_rms": 0.8}}
    config = lambda lever: {"model": {"init_scale": 2.0 if "x 2" in lever else 1.0, "norm": "layer" in lever}}  # noqa: E731
    points = lever_points(levers, 5, noise=0.01, config=config, scale_only=[name])
    page = document(write_study(tmp_path / "s", "levers", points))
    check_page(page)
    assert cell(ranked(page), name, "remark") == "scale only"
    (claim,) = claims(page, "scale-invariant")
    assert claim.outcome == "confirmed"
    assert "Against layer norm" in claim.numbers.en
    assert "layer norm lowers" in page.answer[1].en  # never the lever of scale only, whatever its ratio is
    assert any("changes the complexity" in text.en and name in text.en for text in page.do_not_say)


def test_only_raw_lggw_moves(tmp_path):
    page = document(write_study(tmp_path / "s", "levers", lever_points({"a": {"lggw": 0.3}, "b": {}}, 5)))
    assert cell(ranked(page), "a", "remark") == "scale?"
    assert cell(ranked(page), "b", "remark") == "–"


def test_diverged_runs_are_counted_and_decide_nothing(tmp_path):
    adjust = lambda lever, seed, numbers: DIVERGED if lever == "learning rate x 3" and seed < 2 else numbers  # noqa: E731
    levers = {"learning rate x 3": LOWERING, "weight decay": LOWERING}
    page = document(write_study(tmp_path / "s", "levers", lever_points(levers, 6, adjust=adjust)))
    check_page(page)
    table = ranked(page)
    assert cell(table, "learning rate x 3", "remark") == "2 of 6 diverged"
    assert cell(table, "learning rate x 3", "LGGW/rms").startswith("·")
    assert cell(table, "weight decay", "LGGW/rms").startswith("↓")
    assert "2 of the runs diverged" in page.answer[0].en
    designs = next(table for table in page.tables if table.title.en.startswith("The designs"))
    assert cell(designs, "learning rate x 3", "runs that ended") == "4 / 6"


def test_what_was_not_reached_is_censored_not_compared(tmp_path):
    def adjust(lever, seed, numbers):
        return numbers | {"steps_to_target": None} if lever == "a" and seed == 0 else numbers

    levers = {"a": {"steps_to_target": 0.1}, "b": {"steps_to_target": 0.1}, "c": {"steps_to_target": None}}
    page = document(write_study(tmp_path / "s", "levers", lever_points(levers, 5, adjust=adjust)))
    assert cell(ranked(page), "a", "steps to target") == "4 of 5"
    assert cell(ranked(page), "b", "steps to target").startswith("↓")
    assert cell(ranked(page), "c", "steps to target") == "0 of 5"


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_few_seeds_decide_nothing(tmp_path, num_seeds):
    page = document(write_study(tmp_path / "s", "levers", lever_points({"a": LOWERING, "b": {}}, num_seeds)))
    check_page(page)
    assert cell(ranked(page), "a", "LGGW/rms").startswith("·")
    assert {finding.outcome for finding in page.findings} == {"not decided"}
    assert "not tested" in page.answer[1].en


@pytest.mark.parametrize("num_left", [0, 1, 5])
def test_failed_and_missing_points_are_said_and_nothing_breaks(tmp_path, num_left):
    points = lever_points({"a": LOWERING, "b": {}}, 4)
    study = write_study(tmp_path / "s", "levers", points, **first_left(points, num_left, num_failed=2))
    page = document(study)
    check_page(page)
    for text in (page.done.en, page.answer[0].en, page.may_not[0].en):
        assert "2 of 12 points failed" in text
        assert "TrainingDiverged: the loss" in text
        assert f"{len(points) - 2 - num_left} of 12 points were not run yet" in text


def test_families_stand_apart_in_figures_and_tables(tmp_path):
    points = [
        *lever_points({"a": LOWERING}, 5, family="ffn on mnist"),
        *lever_points({"no norm": {}}, 2, family="resnet on mnist"),
    ]
    page = document(write_study(tmp_path / "s", "levers", points))
    check_page(page)
    assert {figure.name for figure in page.figures} == {
        *("levers-width-ffn-on-mnist", "levers-gap-ffn-on-mnist"),
        *("levers-width-resnet-on-mnist", "levers-gap-resnet-on-mnist"),
    }
    written = pd.read_csv(tmp_path / "s" / "tables" / "levers-ffn-on-mnist.csv")
    assert set(written["lever"]) == {"a"}
    assert set(written["pairs"]) == {5}


def test_a_gap_that_is_not_always_positive_is_a_difference(tmp_path):
    adjust = lambda lever, seed, numbers: numbers | {"gap": numbers["gap"] - 0.31}  # noqa: E731
    page = document(write_study(tmp_path / "s", "levers", lever_points({"a": {"gap": 3.0}}, 5, adjust=adjust)))
    assert cell(ranked(page), "a", "held-out gap").startswith("↑ +0.")


def test_effects_are_paired_over_common_seeds():
    base = {seed: {"lggw": 1.0 + seed} for seed in range(6)}
    other = {seed: {"lggw": 0.5 * (1.0 + seed) * (1.01 if seed % 2 else 0.99)} for seed in range(2, 8)}
    found = effect(Quantity("lggw", Text.same("LGGW"), ratio=True), base, other)
    logs = [math.log(0.5 * (1.01 if seed % 2 else 0.99)) for seed in range(2, 6)]
    assert found.change == pytest.approx(paired_difference(logs, [0.0] * 4))
    assert found.change.num == 4


def test_differences_that_are_all_alike_are_not_decided():
    base, other = {s: {"x": 2.0 + s} for s in range(3)}, {s: {"x": 12.0 + s} for s in range(3)}
    (found,) = adjusted([effect(Quantity("x", Text.same("x")), base, other)])
    assert not found.decided
    assert found.long() == "+10"


def test_wide_intervals_leave_out_zero_exactly_where_holm_rejects():
    changes = [Interval(value, value - 1, value + 1, 0.3, 6) for value in (0.1, 0.9, 1.2, 1.5, 3.0)]
    quantity = Quantity("x", Text.same("x"))
    found = adjusted([Effect(quantity, change, p=p_value(change)) for change in changes])
    assert [one.adjusted for one in found] == pytest.approx(list(holm([p_value(c) for c in changes])))
    assert [one.decided for one in found] == [one.wide.low > 0 for one in found]
    assert 0 < sum(one.decided for one in found) < len(found)


def test_names_are_known_in_both_languages():
    source = (Path(lggwjax.report.__file__).parents[1] / "experiments" / "levers.py").read_text()
    names = re.findall(r'^    \("(.+?)", {', source, re.MULTILINE)
    assert len(names) > 15
    for name in names:
        assert lever_name(name).ja != name, name
