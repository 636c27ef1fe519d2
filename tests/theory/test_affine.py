"""Suprema of affine maps over balls against brute force and the conditions of a maximum."""

from __future__ import annotations

import numpy as np
import pytest

from lggwjax.theory.affine import affine_supremum


def _brute(matrix, offset, radius, num=200_000, seed=0):
    directions = np.random.default_rng(seed).normal(size=(num, matrix.shape[1]))
    points = radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return float(np.linalg.norm(offset + points @ matrix.T, axis=1).max())


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_largest_of_many_directions(dim, seed):
    rng = np.random.default_rng(seed)
    matrix, offset, radius = rng.normal(size=(4, dim)), rng.normal(size=4), rng.uniform(0.1, 3)
    exact, seen = affine_supremum(matrix, offset, radius), _brute(matrix, offset, radius)
    assert seen <= exact * (1 + 1e-12)
    assert seen >= exact * (1 - 1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_no_ascent_ends_higher(seed):
    """The iteration v <- the ball's end of the gradient only rises: from many starts it never gets above."""
    rng = np.random.default_rng(seed)
    matrix, offset, radius = rng.normal(size=(12, 8)), rng.normal(size=12), 10 ** rng.uniform(-2, 2)
    v = rng.normal(size=(500, 8))
    for _ in range(300):
        gradient = (offset + v @ matrix.T) @ matrix
        v = radius * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    best = np.linalg.norm(offset + v @ matrix.T, axis=1).max()
    exact = affine_supremum(matrix, offset, radius)
    assert best <= exact * (1 + 1e-9)
    assert best >= exact * (1 - 1e-9)


def test_hard_cases():
    matrix = np.diag([2.0, 1.0])
    # The offset pulls along the second axis only: the best point still leaves it.
    assert affine_supremum(matrix, np.array([0.0, 1.0]), 1.0) == pytest.approx(
        _brute(matrix, np.array([0.0, 1.0]), 1.0), rel=1e-4
    )
    # So strong a pull that it does not.
    assert affine_supremum(matrix, np.array([0.0, 9.0]), 1.0) == pytest.approx(10.0)
    assert affine_supremum(np.zeros((2, 3)), np.array([3.0, 4.0]), 5.0) == 5.0
    assert affine_supremum(matrix, np.zeros(2), 3.0) == pytest.approx(6.0)
    assert affine_supremum(np.eye(3), np.zeros(3), 2.0) == pytest.approx(2.0)
    assert affine_supremum(matrix, np.array([1.0, 2.0]), 0.0) == pytest.approx(np.sqrt(5))
    scaled = affine_supremum(1e-8 * matrix, 1e-8 * np.array([1.0, 2.0]), 0.5)
    assert scaled == pytest.approx(1e-8 * affine_supremum(matrix, np.array([1.0, 2.0]), 0.5))


@pytest.mark.parametrize(
    ("matrix", "offset", "radius"),
    [(np.eye(2), np.ones(3), 1.0), (np.eye(2), np.array([1.0, np.nan]), 1.0), (np.eye(2), np.ones(2), -1.0)],
)
def test_wrong_input_is_refused(matrix, offset, radius):
    with pytest.raises(ValueError, match="Expected"):
        affine_supremum(matrix, offset, radius)
