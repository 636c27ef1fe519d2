"""A bound's status follows from what it rests on."""

from __future__ import annotations

import dataclasses

import pytest

from lggwjax.theory.bound import Assumption, Bound, assume_design

DESIGNS = ("independent split", "fresh samples", "data-free ball", "trained on these samples")


def _bound(**changes) -> Bound:
    given = {
        "value": 0.5,
        "quantity": "the deviation",
        "statement": "4.4",
        "about": "population",
        "gradient_set": "16 points",
        "num_samples": 1000,
        "confidence": 0.95,
        "assumptions": (Assumption("the samples are independent", "declared"),),
        "parts": {"mean": 0.1, "chance": 0.4},
    }
    return Bound(**(given | changes))


def test_status_follows_from_the_assumptions_and_cannot_be_set():
    assert _bound().status == "certified"
    assert _bound(assumptions=(Assumption("a", "checked"), Assumption("b", "missing"))).status == "descriptive"
    assert _bound(statement="3.5").status == "shape"
    with pytest.raises(TypeError, match="status"):
        _bound(status="certified")
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        _bound().status = "certified"
    with pytest.raises(dataclasses.FrozenInstanceError):
        _bound().assumptions = ()


@pytest.mark.parametrize("design", DESIGNS)
def test_only_a_path_trained_on_the_samples_lacks_its_design(design):
    assert (assume_design(design).source == "missing") == (design == "trained on these samples")


def test_a_statement_about_the_population_names_its_assumptions():
    with pytest.raises(ValueError, match="name its assumptions"):
        _bound(assumptions=())
    assert _bound(assumptions=(), about="measured set").status == "certified"


def test_numbers_that_bound_nothing_are_refused():
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            _bound(value=value)
    with pytest.raises(ValueError, match="confidence"):
        _bound(confidence=0)
    with pytest.raises(ValueError, match="one of"):
        assume_design("a guess")  # pyright: ignore[reportArgumentType]


def test_printing_says_status_first_then_the_number_and_what_it_rests_on():
    text = str(_bound())
    assert text == (
        "Certified for the population, with probability at least 0.95: the deviation is at most 0.5 over 16 points "
        "(n = 1,000, statement 4.4), provided that the samples are independent (declared)."
    )
    missing = str(_bound(assumptions=(assume_design("trained on these samples"),)))
    assert missing.startswith("Descriptive, not a guarantee:")
    assert "were trained on them" in missing
    assert str(_bound(statement="3.5")).startswith("Shape only")


def test_parts_say_what_dominates_and_cannot_be_changed():
    assert _bound().largest_part == "chance"
    assert _bound(parts={"all": 0.5}).largest_part is None
    with pytest.raises(TypeError):
        _bound().parts["chance"] = 0.0  # pyright: ignore[reportIndexIssue]
