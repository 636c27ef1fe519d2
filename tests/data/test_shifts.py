"""Shifts do what they are called, and leave the batch they are given alone."""

from __future__ import annotations

import numpy as np
import pytest

from lggwjax.data.shifts import SHIFTS, shifted


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.random((4000, 3), dtype=np.float32),
        "y": rng.integers(5, size=4000).astype(np.int32),
    }


@pytest.mark.parametrize("shift", SHIFTS)
def test_shape_types_and_the_given_batch_stay(batch, shift):
    before = {name: array.copy() for name, array in batch.items()}
    found = shifted(batch, shift, 0.7, 5, seed=1)
    assert {n: (a.shape, a.dtype) for n, a in found.items()} == {n: (a.shape, a.dtype) for n, a in batch.items()}
    assert all(np.array_equal(batch[name], before[name]) for name in batch)
    again = shifted(batch, shift, 0.7, 5, seed=1)
    assert all(np.array_equal(found[name], again[name]) for name in batch)


@pytest.mark.parametrize("shift", [s for s in SHIFTS if s != "new labels"])
def test_strength_zero_changes_nothing(batch, shift):
    found = shifted(batch, shift, 0.0, 5, seed=1)
    assert all(np.array_equal(found[name], batch[name]) for name in batch)


def test_label_noise_draws_the_share_asked_for_anew(batch):
    changed = np.mean(shifted(batch, "label noise", 0.5, 5, seed=1)["y"] != batch["y"])
    assert changed == pytest.approx(0.5 * 4 / 5, abs=4 * np.sqrt(0.24 / 4000))


def test_corruption_adds_noise_of_the_size_of_the_inputs(batch):
    moved = shifted(batch, "corruption", 0.5, 5, seed=1)["x"] - batch["x"]
    assert moved.std() == pytest.approx(0.5 * batch["x"].std(), rel=0.05)
    assert moved.mean() == pytest.approx(0.0, abs=4 * moved.std() / np.sqrt(moved.size))


def test_imbalance_repeats_rows_of_the_first_class(batch):
    found = shifted(batch, "class imbalance", 0.9, 5, seed=1)
    assert np.mean(found["y"] == 0) == pytest.approx(0.9 + 0.1 / 5, abs=0.02)
    first = {tuple(row) for row in batch["x"][batch["y"] == 0]}
    assert all(tuple(row) in first for row in found["x"][found["y"] == 0])


def test_a_covariate_shift_of_one_half_leaves_no_contrast(batch):
    assert shifted(batch, "covariate shift", 0.5, 5, seed=1)["x"].std() < 1e-6
    inverted = shifted(batch, "covariate shift", 1.0, 5, seed=1)["x"]
    np.testing.assert_allclose(inverted + batch["x"], 2 * batch["x"].mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("shift", "strength", "said"), [("drift", 0.5, "Expected shift"), ("corruption", 1.5, "Expected a strength")]
)
def test_what_is_no_shift_is_refused(batch, shift, strength, said):
    with pytest.raises(ValueError, match=said):
        shifted(batch, shift, strength, 5, seed=0)


def test_imbalance_needs_a_row_to_repeat(batch):
    with pytest.raises(ValueError, match="class 0"):
        shifted(batch | {"y": batch["y"] + 1}, "class imbalance", 0.5, 6, seed=0)
