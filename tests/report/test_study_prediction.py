from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from lggwjax.report.language import Text
from lggwjax.report.statistics import bootstrap_interval, kendall
from lggwjax.report.studies import prediction, ranks
from lggwjax.report.studies.prediction import document
from lggwjax.report.studies.ranked_models import MEASURES, best_usual, data_sets
from lggwjax.report.studies.ranks import Resamples
from tests.report.study_folders import cell, check_page, first_left, texts, without_figures, write_study

GRID = {"width": [16, 64, 256], "learning_rate": [0.001, 0.004], "weight_decay": [0.0, 0.3], "batch_size": [16, 64]}
NAMES = [one.name for one in MEASURES if one.kind != "progress"]


@pytest.fixture(autouse=True)
def _quickly(request, monkeypatch):
    monkeypatch.setattr(ranks, "NUM_RESAMPLES", 700)  # with fewer, no p-value is small enough for 14 measures
    if "figures" not in request.node.name:
        without_figures(monkeypatch, prediction)


def models(
    follow: dict,
    *,
    data: Sequence[str] = ("digits", "mnist"),
    seeds: int = 2,
    grid: dict = GRID,
    noise: float = 0.1,
    result=lambda _, found: found,
) -> list:
    """Models whose gap grows along the grid; ``follow`` says by which power of the gap a measure goes."""
    rng, points = np.random.default_rng(0), []
    for name, values, seed in itertools.product(data, itertools.product(*grid.values()), range(seeds)):
        chosen = dict(zip(grid, values, strict=True))
        progress = sum(options.index(chosen[axis]) for axis, options in grid.items()) + 0.3 * rng.normal()
        gap = 0.2 * math.exp(0.3 * progress)
        loss = 0.5 * math.exp(-0.3 * rng.normal())
        measures = {one: gap ** follow.get(one, 0.0) * math.exp(noise * rng.normal()) for one in NAMES}
        measures["margin"] = 1.0 - measures["margin"]
        found = {"gap": gap, "train_loss": loss, "heldout_loss": gap + loss, "measures": measures}
        settings = {"data": name, "seed": seed, "hyperparameters": chosen | {"norm": "none"}}
        points.append((f"{name}-{len(points)}", settings, result(settings, found)))
    return points


def outcomes(page, claim: str) -> list[str]:
    found = [finding.outcome for finding in page.findings if claim in finding.claim.en]
    assert found
    return found


@pytest.mark.parametrize(
    ("power", "outcome", "tone"),
    [(1.0, "confirmed", "helps"), (-1.0, "not confirmed", "hurts"), (0.0, "not decided", "undecided")],
)
def test_the_planted_sign_is_recovered(tmp_path, power, outcome, tone):
    page = document(write_study(tmp_path / "s", "prediction", models({"lggw": power, "lggw_over_rms": power})))
    check_page(page)
    assert outcomes(page, "LGGW/rms ranks models") == [outcome] * 2
    assert outcomes(page, "LGGW/rms says more") == [outcome] * 2
    assert outcomes(page, ": LGGW ranks models") == [outcome] * 2
    assert page.tone == tone
    assert "96 trained networks" in page.answer[0].en
    assert "preset full" not in page.done.en


@pytest.mark.parametrize(
    ("width", "usual", "outcome"), [(1.0, 0.15, "confirmed"), (0.15, 1.0, "not confirmed"), (0.4, 0.4, "not decided")]
)
def test_the_contest_with_the_usual_measures(tmp_path, width, usual, outcome):
    points = models({"lggw_over_rms": width, "sharpness": usual}, noise=0.12)
    page = document(write_study(tmp_path / "s", "prediction", points))
    assert outcomes(page, "LGGW/rms beats") == [outcome] * 2
    assert "sharpness, the best usual measure on the other data" in page.answer[1].en
    said = any("beats the usual measures" in text.en for text in page.do_not_say)
    assert said == (outcome != "confirmed")


def test_a_margin_counts_the_other_way_round(tmp_path):
    page = document(write_study(tmp_path / "s", "prediction", models({"margin": 1.0})))
    table = page.tables[0]
    assert float(cell(table, "small margin (−margin)", "tau, all models").split()[0]) > 0.7
    assert cell(table, "small margin (−margin)", "differs from 0") == "yes"


def test_what_only_follows_training_is_told_apart(tmp_path):
    # The gap is how far training got, and so is the width: nothing is left when the train loss is held fixed.
    rng = np.random.default_rng(1)

    def result(_, found):
        progress = math.log(found["gap"])
        measures = found["measures"] | {"lggw_over_rms": math.exp(progress + 0.2 * rng.normal())}
        found["gap"] *= math.exp(0.2 * rng.normal())
        return found | {"train_loss": math.exp(-progress), "measures": measures}

    page = document(write_study(tmp_path / "s", "prediction", models({}, result=result)))
    assert outcomes(page, "LGGW/rms ranks models") == ["confirmed"] * 2
    assert "confirmed" not in outcomes(page, "LGGW/rms says more")
    assert "do not select models by LGGW/rms" in page.answer[2].en


def test_diverged_models_are_counted(tmp_path):
    def result(asked, found):
        return {"diverged": 3} if asked["hyperparameters"]["width"] == 16 and asked["seed"] else found

    page = document(write_study(tmp_path / "s", "prediction", models({}, result=result)))
    check_page(page)
    assert "16 more diverged" in page.answer[0].en
    assert "8 models diverged" in page.tables[0].note.en
    assert cell(page.tables[0], "LGGW/rms", "models") == "40"


def test_the_low_train_losses_are_three_fifths_of_them(tmp_path):
    (found, _) = data_sets(write_study(tmp_path / "s", "prediction", models({"lggw": 1.0})))
    losses = np.array([one["train_loss"] for one in found.results])
    assert found.low.sum() == math.ceil(0.6 * len(losses))
    assert losses[found.low].max() < losses[~found.low].min()
    lggw = np.array([one["measures"]["lggw"] for one in found.results])
    assert found.rankings["lggw"].fitted.value == pytest.approx(kendall(lggw[found.low], found.gap[found.low]))


def test_within_hyperparameters_is_the_mean_over_groups(tmp_path):
    (found,) = data_sets(write_study(tmp_path / "s", "prediction", models({"nerc": 0.3}, data=["digits"], noise=0.2)))
    nerc = np.array([one["measures"]["nerc"] for one in found.results])
    groups: dict = {}
    for i, asked in enumerate(found.settings):
        others = tuple(value for axis, value in asked["hyperparameters"].items() if axis != "width")
        groups.setdefault((*others, asked["seed"]), []).append(i)
    assert {len(group) for group in groups.values()} == {3}
    by_hand = np.mean([kendall(nerc[group], found.gap[group]) for group in groups.values()])
    ranked = found.rankings["nerc"]
    assert ranked.axes["width"].value == pytest.approx(by_hand)
    assert ranked.within.value == pytest.approx(np.mean([one.value for one in ranked.axes.values()]))
    assert set(ranked.axes) == set(GRID)


def test_the_rival_is_chosen_on_the_other_data(tmp_path):
    def result(asked, found):
        best = "sharpness" if asked["data"] == "digits" else "parameter_norm"
        return found | {"measures": found["measures"] | {best: found["gap"]}}

    sets = data_sets(write_study(tmp_path / "s", "prediction", models({}, result=result)))
    assert [getattr(best_usual([one]), "name", "") for one in sets] == ["sharpness", "parameter_norm"]
    page = document(write_study(tmp_path / "t", "prediction", models({}, result=result)))
    claims = [one for one in page.findings if "LGGW/rms beats" in one.claim.en]
    assert ["parameter norm" in one.numbers.en for one in claims] == [True, False]
    assert ["sharpness" in one.numbers.en for one in claims] == [False, True]


def test_one_data_set_has_no_contest(tmp_path):
    page = document(write_study(tmp_path / "s", "prediction", models({"lggw_over_rms": 1.0}, data=["digits"])))
    check_page(page)
    assert outcomes(page, "beats the usual") == ["not decided"] * 2
    assert "no second data set" in page.findings[2].numbers.en


@pytest.mark.parametrize("num_left", [0, 1, 2, 4])
def test_few_models_decide_nothing_and_nothing_breaks(tmp_path, num_left):
    grid = {"width": [16, 64], "batch_size": [16, 64]}
    points = models({"lggw_over_rms": 1.0}, grid=grid, seeds=1)
    study = write_study(tmp_path / "s", "prediction", points, **first_left(points, num_left, num_failed=1))
    page = document(study)
    check_page(page)
    assert {one.outcome for one in page.findings} <= {"not decided"}
    assert page.tone == "undecided"
    for text in (page.done.en, page.answer[0].en, page.may_not[0].en):
        assert "1 of 8 points failed" in text
        assert "not run yet" in text
    assert "Fewer than 60 models" in page.done.en


def test_figures_are_written_with_their_numbers(tmp_path):
    page = document(write_study(tmp_path / "s", "prediction", models({"lggw_over_rms": 0.5, "sharpness": 1.0})))
    check_page(page)
    assert [one.name for one in page.figures] == [
        *("prediction-taus", "prediction-gap-lggw-over-rms", "prediction-gap-sharpness"),
    ]
    assert {file.name for file in (tmp_path / "s" / "tables").iterdir()} == {"models.csv", "rankings.csv"}


def test_every_measure_is_named_in_both_languages(tmp_path):
    page = document(write_study(tmp_path / "s", "prediction", models({})))
    for one in MEASURES:
        assert any(one.title == text for text in texts(page.tables[0]))
    assert all(Text.same(row[0]).ja for row in page.tables[0].rows)


class TestResamples:
    x = np.array([1.0, 3.0, 2.0, 5.0, 5.0, 4.0, 8.0, 7.0])
    y = np.array([1.0, 2.0, 2.0, 6.0, 3.0, math.nan, 5.0, 9.0])
    clusters = tuple("aabbccdd")

    def test_tau_is_that_of_the_things_drawn(self):
        drawn = Resamples(self.clusters, num=50)
        found = drawn.tau_b(self.x, self.y)
        assert found[0] == pytest.approx(kendall(self.x, self.y))
        for counts, tau in zip(drawn.counts, found, strict=True):
            rows = np.repeat(np.arange(8), (drawn.members @ counts).astype(int))
            assert tau == pytest.approx(kendall(self.x[rows], self.y[rows]), nan_ok=True)

    def test_the_interval_is_that_of_the_usual_bootstrap(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=60)
        y = x + rng.normal(size=60)
        clusters = [i // 2 for i in range(60)]
        drawn = Resamples(clusters)
        mine, usual = drawn.interval(drawn.tau_b(x, y)), bootstrap_interval(kendall, x, y, seed=1, clusters=clusters)
        assert mine.value == pytest.approx(usual.value)
        # Ends from 2,000 and from 1,000 resamples differ by their own Monte Carlo error.
        assert mine.stderr == pytest.approx(usual.stderr, rel=4 / math.sqrt(2 * 1000))
        assert abs(mine.low - usual.low) < 0.4 * usual.stderr
        assert abs(mine.high - usual.high) < 0.4 * usual.stderr

    def test_p_values_are_small_for_order_and_uniform_without(self):
        rng = np.random.default_rng(0)
        ps = []
        for _ in range(40):
            x, y = rng.normal(size=(2, 24))
            drawn = Resamples(list(range(24)), num=400)
            ps.append(drawn.p_value(drawn.tau_b(x, y)))
        assert sum(p <= 0.05 for p in ps) <= 7  # 2 on average
        assert 0.25 < float(np.mean(ps)) < 0.75
        drawn = Resamples(list(range(24)), num=400)
        assert drawn.p_value(drawn.tau_b(np.arange(24), np.arange(24))) == pytest.approx(2 / 401)


def test_a_measure_that_is_the_train_loss_in_disguise_says_no_more(tmp_path):
    def result(_, found):
        gap = found["gap"]
        return found | {"train_loss": 1 / gap, "measures": found["measures"] | {"lggw_over_rms": gap, "lggw": gap**2}}

    page = document(write_study(tmp_path / "s", "prediction", models({}, result=result)))
    assert outcomes(page, "LGGW/rms ranks models") == ["confirmed"] * 2
    assert outcomes(page, "says more") == ["not decided"] * 4
