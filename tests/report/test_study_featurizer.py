from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lggwjax.report.studies import featurizer
from lggwjax.report.studies.cases import cases_of
from lggwjax.report.studies.featurizer import document
from lggwjax.report.studies.featurizer_runs import (
    draw_bounds,
    draw_layers,
    draw_sizes,
    draw_sparsity,
    expected_chi,
    features_of,
    head_share,
    is_head,
    leaves_of,
)
from tests.report.overlaps import overlaps
from tests.report.study_folders import ERROR, check_files, check_page, outcomes, settings, without_figures, write_study

STEPS = [0, 1, 3, 10, 30, 100]
SPARSER = "{} on digits: the features get sparser during training."
NARROWER = "{} on digits: the featurizer's width falls during training, relative to its norm."
NARROW = "{} on digits: the featurizer's width ends far below √m times its norm."
HEAD = "{} on digits: the last layer, which takes the features in, makes most of the gradient's width."


def layers(head: float, num: int = 3) -> list[dict]:
    """A layer table whose last layer has the given share."""
    sizes = {"['params']['head']['kernel']": 0.9 * head, "['params']['head']['bias']": 0.1 * head}
    sizes |= {f"['params']['hidden']['layers']['{i}']['kernel']": (1 - head) / num for i in range(num)}
    return [
        {"name": name, "kind": "dense" if "kernel" in name else "gradient", "size": 1280, "share": share}
        | {"measured": 4 * share, "stderr": 0.05 * share, "coupled": None, "centred": None, "spectral": None}
        | {"from_inputs": 1.0 if "kernel" in name else None, "from_cotangents": 2.0 if "kernel" in name else None}
        for name, share in sizes.items()
    ]


def result(seed: int, active: float, narrow: float, width: float = 0.05, head: float | None = None) -> dict:
    """Features whose active share moves by ``active``, and whose relative width goes by ``narrow`` to ``width``."""
    rng, m, found = np.random.default_rng(seed), 128, []
    for step in STEPS:
        time = math.log1p(step) / math.log(101)
        share = 0.5 + active * time + 0.01 * rng.standard_normal()
        norm = 5 * math.exp(time)
        ball = norm * expected_chi(m)
        relative = width * narrow ** (time - 1) * math.exp(0.02 * rng.standard_normal())
        found.append(
            {
                "step": step,
                "train_loss": 2 - time,
                "heldout_loss": 2.1 - time,
                "m": m,
                "active_share": share,
                "l2": norm,
            }
            | {"active_high": m * share, "l1": 8 * norm, "l1_over_l2": math.sqrt(m * share), "largest_l2": norm}
            | {"width": {"value": relative * ball, "stderr": 0.01}, "unit_ball_width": expected_chi(m)}
            | {"bounds": {"l1": 2 * ball, "sparse": 0.8 * ball, "l2": ball}}
        )
    return {"features": found} | ({} if head is None else {"layers": layers(head)})


CASES = {
    "ffn": lambda seed: result(seed, -0.2, 0.7, head=0.7 + 0.01 * seed),
    "cnn": lambda seed: result(seed, 0.2, 1.4, width=0.2, head=0.3 - 0.01 * seed),
    "resnet18": lambda seed: result(seed, 0.0, 1.0, width=0.147, head=0.52 + 0.1 * (seed - 1)),
}


def study(folder, cases, num_seeds=3, **gone):
    points = [
        (f"{model}-{seed}", settings(model, "digits", seed), make(seed))
        for model, make in cases.items()
        for seed in range(num_seeds)
    ]
    return write_study(folder / "study", "featurizer", points, **gone)


@pytest.fixture(autouse=True)
def _no_drawings(request, monkeypatch):
    if "files" not in request.node.name:
        without_figures(monkeypatch, featurizer)


def test_every_figure_has_its_files(tmp_path):
    check_files(document(study(tmp_path, {"ffn": CASES["ffn"]})), at_least=100)


def test_claims_follow_what_was_planted(tmp_path):
    page = document(study(tmp_path, CASES))
    found = outcomes(page)
    for claim in (SPARSER, NARROWER, NARROW, HEAD):
        assert found[claim.format("FFN")] == "confirmed", claim
        assert found[claim.format("CNN")] == "not confirmed", claim
        assert found[claim.format("ResNet-18")] == "not decided", claim
    assert page.tone == "undecided"
    assert "do not count on training to make features sparse for CNN on digits" in page.answer[2].en
    check_page(page)


@pytest.mark.parametrize(("case", "tone"), [("ffn", "helps"), ("cnn", "hurts"), ("resnet18", "undecided")])
def test_the_tone_is_that_of_the_claims(tmp_path, case, tone):
    assert document(study(tmp_path, {case: CASES[case]})).tone == tone


def test_a_change_is_measured_within_each_seed(tmp_path):
    # Seeds far apart, changes alike: an unpaired comparison would find nothing.
    def apart(seed):
        its = result(seed, -0.1, 0.8)
        for record in its["features"]:
            record["active_share"] += 0.3 * (seed - 1)
        return its

    records = study(tmp_path, {"ffn": apart})
    assert outcomes(document(records))[SPARSER.format("FFN")] == "confirmed"
    table = pd.read_csv(records.folder / "tables" / "start_and_end.csv").set_index("quantity")
    assert table.loc["active_share", "change_mean"] == pytest.approx(-0.1, abs=0.02)
    assert table.loc["active_share", "end_high"] > 0.5


def test_so_few_points_are_narrow_whatever_they_are(tmp_path):
    """Half of the l2 ball's width is no news where any 64 points have less."""
    page = document(study(tmp_path, {"ffn": lambda seed: result(seed, -0.2, 0.7, width=0.25)}))
    assert outcomes(page)[NARROW.format("FFN")] == "not confirmed"
    cap = features_of(cases_of(study(tmp_path / "b", CASES))[0]).cap
    points = np.random.default_rng(0).standard_normal((64, 128))
    points = np.concatenate([points / np.linalg.norm(points, axis=1, keepdims=True), np.zeros((1, 128))])
    drawn = (np.random.default_rng(1).standard_normal((4000, 128)) @ points.T).max(1)
    width, error = drawn.mean(), drawn.std() / math.sqrt(4000)
    assert width + 4 * error < cap * expected_chi(128)
    # Opposite points at the ends of the ball come closest to the cap: it is no more than half as large again.
    assert cap * expected_chi(128) < 1.5 * width


def test_two_seeds_decide_nothing(tmp_path):
    page = document(study(tmp_path, CASES, num_seeds=2))
    assert set(outcomes(page).values()) == {"not decided"}
    assert "2 of the 3 seeds" in page.findings[0].numbers.en
    assert page.answer[2].en.startswith("Next: run 3 seeds at least")
    check_page(page)


def test_layers_of_one_seed_decide_nothing_about_the_last_layer(tmp_path):
    def make(seed):
        return result(seed, -0.2, 0.7, head=0.9 if seed == 0 else None)

    page = document(study(tmp_path, {"ffn": make}))
    found = outcomes(page)
    assert found[HEAD.format("FFN")] == "not decided"
    assert found[SPARSER.format("FFN")] == "confirmed"
    assert "layers looked at for seeds: 1" in page.findings[-1].numbers.en


def test_missing_points_are_said(tmp_path):
    page = document(study(tmp_path, CASES, failed=["ffn-1"], missing=["cnn-0"]))
    for place in (page.done, page.answer[0], page.may_not[0]):
        assert "ffn-1" in place.en
        assert ERROR in place.ja
        assert "not run yet" in place.en
    assert [row[0] for row in page.tables[0].rows] == ["ffn-1", "cnn-0"]
    assert outcomes(page)[SPARSER.format("FFN")] == "not decided"


def test_a_study_without_any_result_still_has_a_page(tmp_path):
    page = document(study(tmp_path, {"ffn": CASES["ffn"]}, missing=["ffn-0", "ffn-1", "ffn-2"]))
    assert page.figures == []
    assert page.findings == []


def test_numbers_that_are_not_there_are_dashes(tmp_path):
    def poor(seed):
        its = result(seed, -0.2, 0.7)
        for record in its["features"]:
            record |= {"width": None, "active_share": None, "bounds": {}}
        return its

    page = document(study(tmp_path, {"ffn": poor}))
    assert set(outcomes(page).values()) == {"not decided"}
    assert page.tables[0].rows[0][1:] == ("–", "–", "–")


def test_leaves_are_read_from_their_records():
    leaves = leaves_of(layers(0.7))
    assert [leaf.name for leaf in leaves] == [
        "head.kernel",
        "hidden.0.kernel",
        "hidden.1.kernel",
        "hidden.2.kernel",
        "head.bias",
    ]
    assert [leaf.made_by for leaf in leaves][::4] == ["cotangents", ""]
    assert sum(leaf.share for leaf in leaves if is_head(leaf)) == pytest.approx(0.7)


def test_the_share_of_the_last_layer_is_averaged_over_seeds(tmp_path):
    found = head_share(cases_of(study(tmp_path, CASES))[0])
    assert found.value == pytest.approx(0.71)
    assert found.num == 3


def test_no_text_of_the_figures_is_hidden(tmp_path):
    panels = [(case, features_of(case)) for case in cases_of(study(tmp_path, CASES))]
    for draw in (draw_sparsity, draw_sizes, draw_bounds):
        assert overlaps(draw(panels)) == []
    tables = [(case.name, leaves_of(layers(0.4, num))) for (case, _), num in zip(panels, (1, 5, 30), strict=True)]
    assert overlaps(draw_layers(tables)) == []
