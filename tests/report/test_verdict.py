from __future__ import annotations

import math

import pandas as pd
import pytest

from lggwjax.report import load_config, load_run, unseen_word, verdict, words
from lggwjax.report.records import columns
from lggwjax.report.verdict import judge

SIGNS = {"+": (1.0, 0.5, 1.5), "-": (-1.0, -1.5, -0.5), "0": (0.1, -0.4, 0.6), ".": (None, None, None)}


def table(signs: str, lowest: int | None = None, **more: float) -> pd.DataFrame:
    """One row per sign at steps 0, 10, 20, ...; the held-out loss is lowest at row `lowest`."""
    rows = []
    for index, sign in enumerate(signs):
        value, low, high = SIGNS[sign]
        row = dict.fromkeys(columns()) | {"step": 10 * index, "passes": float(index), "train_loss": 1.0 / (index + 1)}
        if lowest is not None:
            row["heldout_loss"] = 1.0 + 0.1 * abs(index - lowest)
        row |= {
            f"population_descent.{f}": x
            for f, x in zip(("value", "ci95_low", "ci95_high"), (value, low, high), strict=True)
        }
        rows.append(row | more)
    return pd.DataFrame(rows).astype(float)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 0.2, "helps"),
        (0.0, 0.2, "undecided"),
        (-0.1, 0.2, "undecided"),
        (-0.1, 0.0, "undecided"),
        (0.0, 0.0, "undecided"),
        (-0.2, -0.1, "hurts"),
        (math.nan, 0.1, "unknown"),
    ],
)
def test_the_rule_on_one_interval(low, high, word):
    assert judge(low, high) == word


@pytest.mark.parametrize(
    ("signs", "word", "turn", "negatives"),
    [
        (".++++", "helps", None, 0),
        (".++0-", "hurts", (20, 40), 1),
        (".++--", "hurts", (20, 30), 2),
        (".++--0", "undecided", (20, 30), 2),
        (".++0-0-", "hurts", (20, 40), 2),
        (".+-++", "helps", None, 0),  # a single negative interval with clear help after it is no turn
        (".+-+--", "hurts", (30, 40), 2),
        (".+--++", "helps", (10, 20), 2),
        (".---", "hurts", (None, 10), 3),
        (".000", "undecided", None, 0),
        (".+00", "undecided", None, 0),
        ("....", "unknown", None, 0),
    ],
)
def test_where_helping_stopped(signs, word, turn, negatives):
    found = verdict(table(signs, lowest=2), {})
    assert (found.word, found.turn, found.negatives) == (word, turn, negatives)
    assert found.num_looks == len(signs.replace(".", ""))
    assert all(s.en.endswith(".") and s.ja.endswith("。") and len(s.ja) > 20 for s in found.sentences)


@pytest.mark.parametrize(
    ("signs", "opening"), [(".++", "Yes:"), (".+-", "No:"), (".00", "Undecided:"), (".+--0", "No longer clearly:")]
)
def test_the_first_sentence_answers(signs, opening):
    assert verdict(table(signs, lowest=1), {}).sentences[0].en.startswith(opening)


def test_the_width_takes_no_part():
    calm, wild = table(".++-"), table(".++-")
    wild["lggw.value"] = [0.0, 1e3, 1e6, 1e9]
    assert verdict(calm, {}) == verdict(wild, {})


def test_a_single_negative_interval_is_called_weak_and_a_row_of_them_is_not():
    single, row = verdict(table(".+++++-"), {}).sentences[1].en, verdict(table(".+++---"), {}).sentences[1].en
    assert "a single negative interval out of 6" in single
    assert "weak" in single
    assert "3 of the 3 from the turn on are negative" in row
    assert "weak" not in row
    assert "no correction for looking 6 times (on average 0.3 of them" in row


@pytest.mark.parametrize(
    ("lowest", "says"), [(2, "which agrees"), (3, "which agrees"), (4, "one measured step away"), (6, "does not agree")]
)
def test_the_held_out_loss_corroborates(lowest, says):
    found = verdict(table(".++----", lowest=lowest), {})
    assert found.lowest_step == 10 * lowest
    assert says in found.sentences[1].en


def test_without_held_out_part_it_does_not_speak_of_unseen_data():
    found = verdict(table("..."), {})
    assert found.word == "unknown"
    assert "no held-out part, so it cannot say" in found.sentences[0].en
    assert not any(word in " ".join(s.en for s in found.sentences) for word in ("hurt", "95%", "Yes", "population"))


def test_with_losses_but_no_descent_it_gives_a_hint_only():
    found = verdict(table("...", lowest=1), {})
    assert found.word == "unknown"
    assert "lowest at measured step 10" in found.sentences[1].en
    assert "no test" in found.sentences[1].en


def test_population_is_a_word_for_exact_populations():
    records = table(".++-", lowest=2)
    finite = " ".join(s.en for s in verdict(records, {"data": {"population": False}}).sentences)
    exact = " ".join(s.en for s in verdict(records, {"data": {"population": True}}).sentences)
    assert "population" not in finite
    assert "population descent" in exact
    assert {unseen_word(config) for config in ({}, {"data": None}, {"data": {"population": {}}})} == {"held-out"}


def test_fresh_samples_are_no_reuse(run_of):
    folder = run_of("fresh")
    first = verdict(load_run(folder), load_config(folder)).sentences[0].en
    assert "no sample was used twice" in first
    assert "same samples" not in first


def test_one_pass_is_no_reuse():
    assert "reuse had not begun" in verdict(table(".+", passes=1.0), {}).sentences[0].en


def test_on_an_overfitting_run(run_of):
    folder = run_of("overfit")
    records = load_run(folder)
    found = verdict(records, load_config(folder))
    assert found.turn == (24, 33)
    assert words(records)[:2] == ["unknown", "helps"]
    assert "nats" in found.sentences[0].en


def test_no_record_is_refused():
    with pytest.raises(ValueError, match="at least one measurement"):
        verdict(table(""), {})


@pytest.mark.parametrize(
    ("signs", "advice"),
    [
        (".++", "go on with these samples, and measure again at about step 40"),
        (".+--", "go back to the checkpoint of step 10, the last that clearly helped, stop reusing these samples"),
        (".--", "go back to before step 10, the first that clearly hurt"),
        (".+--0", "go back to the checkpoint of step 10"),
        (".+0", "until then, one step gains at most 0.600 units of loss"),
    ],
)
def test_the_last_sentence_says_what_to_do(signs, advice):
    sentence = verdict(table(signs), {"data": {"num_heldout": 100}}).sentences[2]
    assert sentence.en.startswith("Next: ")
    assert sentence.ja.startswith("次に行うこと：")
    assert advice in sentence.en


def test_an_undecided_step_asks_for_the_samples_that_would_decide_it():
    # The interval reaches 0.5 to both sides of 0.1: 25 times the samples make it a fifth as long.
    sentence = verdict(table(".+0"), {"data": {"num_heldout": 100}}).sentences[2]
    assert "about 2,500 held-out samples instead of 100" in sentence.en
    assert "ホールドアウトを100個から約2,500個に" in sentence.ja
    for config in ({}, {"data": {"num_heldout": 0}}, {"data": {"num_heldout": 100, "population": True}}):
        assert "held-out samples instead" not in verdict(table(".+0"), config).sentences[2].en


def test_a_run_that_ended_early_is_told_to_go_on_first():
    """Whatever its last step says: a run that diverged looks at its best at its last record."""
    asked = {"measuring": {"steps": [0, 10, 20, 30]}}
    cut = verdict(table(".++", lowest=0), asked).sentences[2]
    assert "ended early: it is at step 20 of 30, with 3 of 4 measurements" in cut.en
    assert "--resume" in cut.en
    assert "途中で終わっています" in cut.ja
    assert "ended early" not in verdict(table(".+++", lowest=0), asked).sentences[2].en


def test_the_way_back_leads_to_the_lowest_loss_after_the_last_clear_help():
    told = verdict(table(".++0--", lowest=3), {}).sentences[2].en
    assert "checkpoint of step 30, which has the lowest held-out loss (step 20 is the last that clearly helped)" in told
    assert (
        "checkpoint of step 20, the last that clearly helped" in verdict(table(".++0--", lowest=1), {}).sentences[2].en
    )
