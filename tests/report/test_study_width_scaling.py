from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lggwjax.report.studies import width_scaling
from lggwjax.report.studies.featurizer_runs import expected_chi
from lggwjax.report.studies.width_scaling import document
from lggwjax.report.studies.width_scaling_labels import PANELS, QUANTITIES, USUAL
from lggwjax.report.studies.width_scaling_runs import bounds_of, by_init, draw_growth, feature_bounds_of, growths_of
from tests.report.overlaps import overlaps
from tests.report.study_folders import ERROR, check_files, check_page, outcomes, without_figures, write_study

WIDTHS = [10, 32, 100, 316, 1000]
FLAT = "{} initialisation: LGGW/rms does not grow with the model's width."
SLOWER = "{} initialisation: LGGW/rms grows more slowly than the number of parameters and the usual measures."
ROOT = "{} initialisation: the featurizer's width over its norm grows more slowly than √m."
POWERS = {
    **{"lggw_over_rms": 0.0, "single_width_over_rms": 0.05, "union_width_over_rms": 0.1, "nerc_over_rms": 0.02},
    **{"lggw": 0.4, "single_width": 0.45, "union_width": 0.5, "nerc": 0.42, "gradient_rms": 0.4, "deviation": 0.35},
    **{"feature_width": 0.7, "active_share": -0.05, "bound_seen": 0.4, "bound_certified": 0.8, "gap": 0.1},
    **{"parameter_norm": 0.5, "distance_from_start": 0.3, "product_of_norms": 0.6, "spectral_complexity": 1.0},
    **{"sharpness": 0.4, "gradient_variance": 0.8, "train_loss": -0.2, "heldout_loss": -0.15, "num_parameters": 1.5},
}


def result(width: int, seed: int, noise: float = 0.03, **powers: float) -> dict:
    """Numbers that grow like the planted powers of the width; the features' largest norm is the square root of m."""
    rng = np.random.default_rng([width, seed])
    numbers = {
        name: 2 * width**power * math.exp(noise * rng.standard_normal()) for name, power in (POWERS | powers).items()
    }
    ball = math.sqrt(width) * expected_chi(width)
    numbers |= {"feature_bound_l2": ball, "feature_bound_sparse": 0.8 * ball, "feature_bound_l1": 2 * ball}
    return {"numbers": numbers}


def settings(init: str, width: int, seed: int) -> dict:
    config = {
        "data": {"name": "mnist", "num_samples": 500, "probe_size": 64, "seed": seed},
        "model": {"name": "ffn", "widths": [width, width]},
        "training": {"optimizer": "gd", "steps": 200, "learning_rate": 0.05, "seed": seed},
        "measuring": {"measurements": 8},
    }
    return {"config": config, "init": init, "width": width, "seed": seed}


def study(folder, num_seeds=3, widths=WIDTHS, mean_field=None, standard=None, edit=None, **gone):
    powers = {"standard": standard or {}, "mean-field": mean_field or {}}
    points = [
        (f"{init}-{width}-{seed}", settings(init, width, seed), result(width, seed, **its))
        for init, its in powers.items()
        for width in widths
        for seed in range(num_seeds)
    ]
    for _, its, found in points if edit else ():
        edit(its, found["numbers"])
    return write_study(folder / "study", "width-scaling", points, **gone)


@pytest.fixture(autouse=True)
def _no_drawings(request, monkeypatch):
    if "files" in request.node.name:
        monkeypatch.setattr(width_scaling.labels, "FIGURES", dict(list(width_scaling.labels.FIGURES.items())[:1]))
    else:
        without_figures(monkeypatch, width_scaling)
        monkeypatch.setattr(width_scaling, "draw_growth", lambda *_, **__: None)


def test_every_figure_has_its_files(tmp_path):
    check_files(document(study(tmp_path)), at_least=100)


@pytest.mark.parametrize("name", ["lggw_over_rms", "bound_certified", "feature_width", "num_parameters", "train_loss"])
def test_the_slope_that_was_planted_is_found(tmp_path, name):
    growth = growths_of(study(tmp_path))[0]
    found = growth.slope(name)
    assert found.low < POWERS[name] < found.high
    assert found.high - found.low < 0.1
    assert found.num == 15
    assert growth.last_slope(name).value == pytest.approx(POWERS[name], abs=0.1)
    assert min(growth.seed_slopes(name)) < found.value < max(growth.seed_slopes(name))


def test_the_featurizer_is_divided_by_its_largest_norm(tmp_path):
    growth = growths_of(study(tmp_path))[0]
    assert growth.slope("feature_width_over_norm").value == pytest.approx(0.2, abs=0.03)
    assert growth.slope("feature_bound_l2_over_norm").value == pytest.approx(0.5, abs=0.01)


def test_claims_follow_the_slopes(tmp_path):
    page = document(study(tmp_path, mean_field={"lggw_over_rms": 0.35, "feature_width": 1.2}))
    found = outcomes(page)
    assert [found[claim.format("standard")] for claim in (FLAT, SLOWER, ROOT)] == ["confirmed"] * 3
    # Distance from start grows with slope 0.3 alone, more slowly than this LGGW/rms.
    assert [found[claim.format("mean-field")] for claim in (FLAT, SLOWER, ROOT)] == ["not confirmed"] * 3
    assert page.tone == "hurts"
    assert "prefer standard where you widen" in page.answer[2].en
    check_page(page)


@pytest.mark.parametrize(
    ("power", "outcome"), [(-0.3, "confirmed"), (0.0, "confirmed"), (0.06, "not confirmed"), (0.3, "not confirmed")]
)
def test_growth_is_judged_by_the_interval(tmp_path, power, outcome):
    page = document(study(tmp_path, standard={"lggw_over_rms": power, "noise": 0.03}))
    assert outcomes(page)[FLAT.format("standard")] == outcome


def test_a_slope_that_may_be_zero_or_large_is_left_open(tmp_path):
    records = study(
        tmp_path,
        standard={"noise": 0.8, "lggw_over_rms": -0.1, "feature_width": 0.9},
        mean_field={"noise": 0.8, "lggw_over_rms": 0.25, "feature_width": 1.1},
    )
    slopes = [
        growth.slope(name) for growth in growths_of(records) for name in ("lggw_over_rms", "feature_width_over_norm")
    ]
    # One estimate on either side of the limit each, with an interval across.
    assert slopes[0].value < 0.1 < slopes[0].high
    assert slopes[2].low < 0 < slopes[2].value
    assert slopes[1].value < 0.5 < slopes[1].high
    assert slopes[3].low < 0.5 < slopes[3].value
    page = document(records)
    found = outcomes(page)
    assert found[ROOT.format("standard")] == found[ROOT.format("mean-field")] == "not decided"
    assert found[FLAT.format("standard")] == found[FLAT.format("mean-field")] == "not decided"
    assert page.tone == "undecided"
    assert page.answer[2].en.startswith("Next: run 3 seeds at least")


def test_a_study_that_finds_no_growth_is_good_news(tmp_path):
    page = document(study(tmp_path))
    assert page.tone == "helps"
    assert "up to width 1,000" in page.answer[2].en


def test_one_seed_decides_nothing(tmp_path):
    page = document(study(tmp_path, num_seeds=1))
    assert set(outcomes(page).values()) == {"not decided"}
    assert "1 of the 3 seeds" in page.findings[0].numbers.en
    check_page(page)


def test_missing_points_are_said_and_the_rest_is_used(tmp_path):
    page = document(study(tmp_path, failed=["standard-10-1"], missing=["mean-field-32-0"]))
    for place in (page.done, page.answer[0], page.may_not[0]):
        assert "standard-10-1" in place.en
        assert ERROR in place.ja
        assert "not run yet" in place.en
    assert [row[0] for row in page.tables[0].rows] == ["standard-10-1", "mean-field-32-0"]
    assert page.tables[1].rows[0][-1] == "14"
    assert outcomes(page)[FLAT.format("standard")] == "confirmed"


@pytest.mark.parametrize("widths", [[], [10]])
def test_too_few_points_are_dashes(tmp_path, widths):
    records = study(
        tmp_path,
        widths=[10],
        missing=[] if widths else [f"{i}-10-{s}" for i in ("standard", "mean-field") for s in range(3)],
    )
    page = document(records)
    assert page.figures == []
    assert set(outcomes(page).values()) <= {"not decided"}
    for table in page.tables[len(records.failed) + (not widths) :]:
        assert table.rows[0][1] == "–"


def test_numbers_that_are_not_known_are_dashes(tmp_path):
    def edit(its, numbers):
        numbers |= {"spectral_complexity": None, "bound_certified": None}
        numbers.pop("sharpness")

    page = document(study(tmp_path, edit=edit))
    rows = {str(row[0]): row for row in page.tables[0].rows}
    assert rows["spectral complexity"][1:4] == ("–", "–", "–")
    numbers = next(f for f in page.findings if f.claim.en == SLOWER.format("standard")).numbers
    assert "Not known: spectral complexity and sharpness." in numbers.en
    assert outcomes(page)[SLOWER.format("standard")] == "confirmed"
    check_page(page)


def test_a_spread_that_differs_between_widths_is_marked(tmp_path):
    def edit(its, numbers):
        rng = np.random.default_rng([its["width"], its["seed"]])
        numbers["sharpness"] = its["width"] ** 0.4 * math.exp(
            (1.0 if its["width"] < 50 else 1e-3) * rng.standard_normal()
        )

    records = study(tmp_path, num_seeds=5, edit=edit)
    rows = {str(row[0]): str(row[1]) for row in document(records).tables[0].rows}
    assert rows["sharpness"].endswith("*")
    assert not rows["LGGW (stacked)"].endswith("*")
    table = pd.read_csv(records.folder / "tables" / "slopes.csv")
    marked = table[table["init"] == "standard"].set_index("quantity")["uneven_spread"]
    assert marked["sharpness"]
    assert marked.sum() <= 3


def test_growth_that_is_no_power_law_shows(tmp_path):
    def edit(its, numbers):
        numbers["lggw"] = 1 + 0.01 * its["width"]

    growth = growths_of(study(tmp_path, edit=edit))[0]
    found, last = growth.slope("lggw"), growth.last_slope("lggw")
    assert last.value > found.high + 0.1


def test_every_quantity_drawn_has_a_name_and_a_row():
    assert {name for panels in PANELS.values() for name in panels} | set(USUAL) <= set(QUANTITIES)
    assert set(POWERS) <= set(QUANTITIES)


def test_no_text_of_the_figures_is_hidden(tmp_path):
    growths = growths_of(study(tmp_path, mean_field={"lggw_over_rms": 0.01}))
    for name in ("widths_over_rms", "losses"):
        fig = draw_growth([(title, by_init(growths, its)) for its, title in PANELS[name].items()], "over rms (no unit)")
        assert overlaps(fig) == []
        slopes = [text.get_text() for ax in fig.axes for text in ax.texts]
        assert len(slopes) == 2 * len(PANELS[name])
        assert all("±" in slope for slope in slopes)
    for of in (bounds_of, feature_bounds_of):
        assert overlaps(draw_growth([(growth.init, of(growth)) for growth in growths], "no unit", sharey=True)) == []
