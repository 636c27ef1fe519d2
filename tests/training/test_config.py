"""Configurations of others: what cannot be meant is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from lggwjax.training.config import MeasureSpec, RunConfig


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("training", "learning_rate", "fast"),
        ("training", "learning_rate", 10**400),
        ("training", "steps", None),
        ("training", "batch_size", {}),
        ("data", "condition", []),
        ("data", "noise_scale", "1"),
        ("data", "data_dir", "a\nb"),
        ("data", "data_dir", 3),
        ("measuring", "directions", "many"),
        ("measuring", "measurements", 10**9),
        ("model", "widths", [[]]),
        ("model", "name", {"a": 1}),
    ],
)
def test_odd_values_are_refused_in_one_line(part: str, field: str, value: Any) -> None:
    settings = RunConfig().as_dict()
    settings[part][field] = value
    with pytest.raises(ValueError, match="Expected") as caught:
        RunConfig.from_dict(settings)
    assert "\n" not in str(caught.value)


def test_ten_thousand_measurements_may_be_asked_for() -> None:
    assert MeasureSpec(measurements=10_000).measurements == 10_000
