from __future__ import annotations

import io
import tracemalloc
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import files
from lggwjax.data.files import BadFileError, check_request, row_chunks, scaled_bytes, take_rows
from lggwjax.data.loading import shuffled_rows


def chunks_of(array: np.ndarray, num_rows: int | None = None):
    stream = io.BytesIO(array.tobytes())
    return row_chunks(stream, num_rows or len(array), array.shape[1:], array.dtype, Path("table"))


def test_rows_come_in_the_order_asked_for_across_chunks(monkeypatch):
    monkeypatch.setattr(files, "CHUNK_BYTES", 64)
    array = np.random.default_rng(0).normal(size=(101, 3))
    rows = np.random.default_rng(1).permutation(101)[:40]
    np.testing.assert_array_equal(take_rows(chunks_of(array), rows), array[rows])


def test_streams_that_are_shorter_or_longer_than_promised_are_refused():
    array = np.arange(10, dtype=np.uint8)
    with pytest.raises(BadFileError, match=r"Expected 11 rows of 1 bytes in table, .* got only 10"):
        take_rows(chunks_of(array, 11), np.array([0]))
    with pytest.raises(BadFileError, match="to end after the 9 rows"):
        take_rows(chunks_of(array, 9), np.array([0]))


def test_a_request_beyond_the_memory_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr(files, "memory_limit", lambda: 1 << 20)
    check_request(1024, (16, 16), Path("table"))
    with pytest.raises(ValueError, match=r"got 1025 rows of shape \(16, 16\) from table"):
        check_request(1025, (16, 16), Path("table"))


def test_bytes_are_scaled_to_the_unit_interval():
    scaled = scaled_bytes(np.array([0, 51, 255], np.uint8))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [0, 0.2, 1], rtol=1e-7)


def test_shuffled_rows_are_distinct_and_do_not_depend_on_the_count():
    long = shuffled_rows(np.random.default_rng(3), 1000, 1000)
    assert sorted(long) == list(range(1000))
    for count in (0, 1, 17, 500):
        np.testing.assert_array_equal(shuffled_rows(np.random.default_rng(3), 1000, count), long[:count])


def test_shuffled_rows_are_uniform_over_all_orders():
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(permutations(range(4), 3), 0)
    draws = 24_000
    for _ in range(draws):
        counts[tuple(shuffled_rows(rng, 4, 3).tolist())] += 1
    expected = draws / 24
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    # 23 degrees of freedom: mean 23, variance 46.
    assert abs(chi2 - 23) < 4 * 46**0.5


def test_shuffled_rows_take_no_memory_for_rows_not_asked_for():
    tracemalloc.start()
    rows = shuffled_rows(np.random.default_rng(0), 10**12, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(rows.tolist())) == 100
    assert peak < 1 << 20
