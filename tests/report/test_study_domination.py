from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lggwjax.report.studies import domination, domination_runs
from lggwjax.report.studies.cases import cases_of
from lggwjax.report.studies.domination import document
from lggwjax.report.studies.domination_runs import constant, draw_gaps, exponent, runs_of
from tests.report.overlaps import overlaps
from tests.report.study_folders import (
    ERROR,
    check_files,
    check_page,
    outcomes,
    settings,
    texts,
    without_figures,
    write_study,
)

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 100]
PLAUSIBLE = "{}: gradient domination is plausible along the path."
PL = "{}: PL (α = 2) fits the path."


def result(alpha: float, seed: int = 0, *, verdict: str = "yes", noise: float = 0.02, lost: int = 1) -> dict:
    """A run with gap = 3 norm^alpha, whose last gradients cannot be told from 0."""
    rng = np.random.default_rng(seed)
    gaps = 2.0 * np.exp(-np.linspace(0, 6, len(STEPS)))
    gaps[-1] = 0.0
    norms = (np.maximum(gaps, 1e-6) / 3) ** (1 / alpha) * np.exp(noise / alpha * rng.standard_normal(len(STEPS)))
    records = []
    for index, step in enumerate(STEPS):
        known = index < len(STEPS) - lost
        norm = {"value": norms[index] if known else 0.0, "stderr": 0.01}
        norm["ci95"] = [0.8 * norms[index] if known else 0.0, 1.2 * norms[index] if known else 0.05]
        loss = 1e-4 + gaps[index]
        records.append({"step": step, "train_loss": loss, "heldout_loss": loss, "heldout_grad_norm": norm})
    size = 3.0 if verdict == "no" else 0.4
    ratios = {name: [factor * size] * (len(STEPS) - 1) + [None] for name, factor in (("ratios", 1), ("low", 0.8))}
    high = [None if verdict == "undecided" else 1.2 * size] * (len(STEPS) - 1) + [None]
    gate = {"verdict": verdict, **ratios, "high": high, "best_step": 100, "worst_step": 16, "limit": 2.0}
    return {"records": records, "gate": gate, "num_heldout": 1000}


def study(folder, cases, num_seeds=3, **gone):
    points = [
        (f"{model}-{seed}", settings(model, "digits", seed), make(seed))
        for model, make in cases.items()
        for seed in range(num_seeds)
    ]
    return write_study(folder / "study", "domination", points, **gone)


CASES = {
    "ffn": lambda seed: result(2.0, seed),
    "cnn": lambda seed: result(1.3, seed, verdict="no" if seed == 1 else "yes"),
    "resnet8": lambda seed: result(2.0, seed, verdict="undecided" if seed == 2 else "yes"),
}


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_the_exponent_and_the_constant_that_were_planted_are_found(tmp_path, alpha):
    (case,) = cases_of(study(tmp_path, {"ffn": lambda seed: result(alpha, seed)}))
    found = exponent(runs_of(case))
    assert found.low < alpha < found.high
    assert found.high - found.low < 0.3
    assert not found.low < alpha + 0.5 < found.high
    assert constant(runs_of(case), alpha) == pytest.approx(3.0, rel=0.06 * alpha)
    assert constant(runs_of(case), alpha + 1) > 3.5


def test_gaps_that_are_nearly_none_take_no_part_in_the_fit(tmp_path):
    """Near the least loss seen a gap is small by the choice of its zero, whatever the gradient is."""

    def stuck(seed):
        its = result(2.0, seed)
        for record in its["records"][-3:-1]:
            record["heldout_grad_norm"] |= {"value": 0.5, "ci95": [0.4, 0.6]}
        return its

    (case,) = cases_of(study(tmp_path, {"ffn": stuck}))
    assert exponent(runs_of(case)).value == pytest.approx(2.0, abs=0.1)


@pytest.fixture(autouse=True)
def _no_drawings(request, monkeypatch):
    if "files" not in request.node.name:
        without_figures(monkeypatch, domination)


def test_every_figure_has_its_files(tmp_path):
    check_files(document(study(tmp_path, {"ffn": CASES["ffn"]})), at_least=100)


def test_claims_follow_the_gate_and_the_exponents(tmp_path):
    page = document(study(tmp_path, CASES))
    found = outcomes(page)
    assert found[PLAUSIBLE.format("FFN on digits")] == "confirmed"
    assert found[PLAUSIBLE.format("CNN on digits")] == "not confirmed"
    assert found[PLAUSIBLE.format("ResNet-8 on digits")] == "not decided"
    assert found[PL.format("FFN on digits")] == "confirmed"
    assert found[PL.format("CNN on digits")] == "not confirmed"
    assert page.tone == "hurts"
    assert page.answer[2].en.startswith("Next: use no bound that goes through gradient domination for CNN on digits;")
    assert "yes in 7, no in 1 and undecided in 1 of 9" in page.answer[1].en
    check_page(page)


def test_the_page_of_runs_that_all_pass_is_good_news(tmp_path):
    page = document(study(tmp_path, {"ffn": CASES["ffn"]}))
    assert page.tone == "helps"
    assert page.answer[1].en.startswith("Plausible in every run")


def test_pl_is_left_open_where_the_least_loss_decides(tmp_path):
    def high_least(seed):
        its = result(2.0, seed)
        for record in its["records"]:
            record["heldout_loss"] += 1.0
        return its

    page = document(study(tmp_path, {"ffn": high_least}))
    assert outcomes(page)[PL.format("FFN on digits")] == "not decided"


def test_one_seed_decides_nothing_but_a_no(tmp_path):
    page = document(study(tmp_path, CASES | {"cnn": lambda seed: result(1.3, verdict="no")}, num_seeds=1))
    found = outcomes(page)
    assert found.pop(PLAUSIBLE.format("CNN on digits")) == "not confirmed"
    assert set(found.values()) == {"not decided"}
    assert "1 of the 3 seeds" in page.findings[0].numbers.en
    check_page(page)


def test_a_seed_without_a_result_keeps_all_from_being_confirmed_and_is_said(tmp_path):
    records = study(tmp_path, {"ffn": CASES["ffn"]}, num_seeds=5, failed=["ffn-1"], missing=["ffn-4"])
    page = document(records)
    assert outcomes(page)[PLAUSIBLE.format("FFN on digits")] == "not decided"
    for place in (page.done, page.answer[0], page.may_not[0]):
        assert "ffn-1" in place.en
        assert ERROR in place.ja
        assert "not run yet" in place.en
    assert [row[0] for row in page.tables[0].rows] == ["ffn-1", "ffn-4"]
    assert page.answer[2].en.startswith("Next: run the seeds that are missing")


@pytest.mark.parametrize("gone", ["failed", "missing"])
def test_a_study_without_any_result_still_has_a_page(tmp_path, gone):
    page = document(study(tmp_path, {"ffn": CASES["ffn"]}, **{gone: [f"ffn-{seed}" for seed in range(3)]}))
    assert page.figures == []
    assert page.tone == "undecided"
    assert not page.findings


def test_gradients_that_may_be_zero_are_counted_and_left_out(tmp_path):
    records = study(tmp_path, {"ffn": lambda seed: result(2.0, seed, lost=4)})
    page = document(records)
    caption = page.figures[0].caption
    assert "12 of 27 checkpoints" in caption.en
    assert "27点中12点" in caption.ja
    drawn = pd.read_csv(records.folder / "figures" / "gap_against_norm.csv")
    assert (~drawn["in_envelope"]).sum() == 12
    # Had they counted at their norm of 0, the constant would be infinite.
    table = pd.read_csv(records.folder / "tables" / "exponents.csv")
    assert table["c_2"].max() < 4


def test_runs_with_hardly_a_number_are_dashes(tmp_path):
    def poor(seed):
        its = result(2.0, seed, lost=len(STEPS) if seed else 8)
        its["records"][3]["heldout_grad_norm"] = None
        return its

    page = document(study(tmp_path, {"ffn": poor}))
    assert outcomes(page)[PL.format("FFN on digits")] == "not decided"
    assert page.tables[1].rows[0][1] == "–"
    check_page(page)


def test_the_limits_of_what_is_shown_are_on_the_page(tmp_path):
    page = document(study(tmp_path, {"ffn": CASES["ffn"]}))
    words = " ".join(text.en for text in texts(page))
    assert "lies between 0 and the least seen" in words
    assert "envelope α = 2 (descriptive)" in [
        text.get_text()
        for text in draw_gaps([("a", runs_of(cases_of(study(tmp_path / "b", CASES))[0]))]).legends[0].texts
    ]


@pytest.mark.parametrize("from_zero", [False, True])
def test_no_text_of_the_figures_is_hidden(tmp_path, from_zero):
    panels = [(case.name, runs_of(case)) for case in cases_of(study(tmp_path, CASES))]
    assert overlaps(draw_gaps(panels, from_zero=from_zero)) == []
    assert overlaps(domination_runs.draw_training(panels)) == []
