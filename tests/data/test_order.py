"""Orders by formula: permutations that look random."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lggwjax.data import loading
from lggwjax.data.order import Order


@pytest.mark.parametrize("num", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_every_row_comes_once(num):
    order = Order((3, 1), num)
    rows = order[np.arange(num)]
    assert sorted(rows) == list(range(num))
    some = np.array([num - 1, 0, num // 2])
    np.testing.assert_array_equal(order[some], rows[some])


def test_places_and_neighbours_are_uniform():
    num, seeds = 12, 3000
    orders = np.stack([Order((9, seed), num)[np.arange(num)] for seed in range(seeds)])
    places, pairs = np.zeros((num, num)), np.zeros((num, num))
    for column in range(num):
        np.add.at(places[column], orders[:, column], 1)
    np.add.at(pairs, (orders[:, 0], orders[:, 1]), 1)
    assert stats.chisquare(places.ravel()).pvalue > 1e-3
    assert stats.chisquare(pairs[~np.eye(num, dtype=bool)]).pvalue > 1e-3
    assert stats.chisquare((places * np.linspace(0.9, 1.1, num)).ravel(), sum_check=False).pvalue < 1e-3


def test_seeds_differ_and_no_memory_grows():
    first, second = (Order((seed,), 10**12)[np.arange(500)] for seed in (0, 1))
    assert len(set(first) | set(second)) > 990
    assert first.max() < 10**12


def test_a_sample_of_many_rows_is_drawn_by_formula(monkeypatch):
    short = loading._order([0, 0], 10**4, 100)
    np.testing.assert_array_equal(short, loading.shuffled_rows(np.random.default_rng([0, 0]), 10**4, 100))
    assert isinstance(loading._order([0, 0], 10**9, 100), Order)
