"""When a monitor measures: a share of the wall time, compilation apart, exact by a clock of its own."""

from __future__ import annotations

import numpy as np
import pytest

from lggwjax.training.pace import Pace


def _loop(overhead, step_seconds, costs, steps):
    """A loop whose looks cost what is said; gives the steps measured and the shares after each look."""
    now, pace, costs = 0.0, Pace(start=0.0), iter(costs)
    looked, shares = [], []
    for step in range(steps):
        now += step_seconds
        if pace.first is None or pace.affords(now, overhead):
            cost = next(costs)
            now += cost
            pace = pace.looked(cost)
            looked.append(step)
            shares.append(pace.measuring_seconds / (now - pace.compile_seconds))
    return looked, shares, pace


def _costs(first, then):
    yield first
    while True:
        yield then


@pytest.mark.parametrize("overhead", [0.01, 0.05, 0.3])
def test_looking_keeps_to_its_share_at_every_look(overhead):
    looked, shares, pace = _loop(overhead, 0.1, _costs(20.0, 0.5), 5000)
    assert max(shares[2:]) <= overhead + 1e-12
    assert shares[-1] > 0.9 * overhead, "and uses it"
    assert pace.compile_seconds == pytest.approx(19.5)
    assert len(looked) > 3


def test_a_cost_that_varies_is_paid_back():
    rng = np.random.default_rng(0)
    costs = (float(c) for c in np.concatenate([[5.0], rng.uniform(0.5, 1.5, 10000)]))
    _, shares, _ = _loop(0.05, 0.1, costs, 20000)
    # A look may be dearer than foretold by at most the spread of the costs; the next one waits for it.
    assert shares[-1] <= 0.0505
    assert max(shares[20:]) <= 0.05 * (1 + 1 / 20)


def test_the_first_look_compiles_and_is_booked_apart():
    pace = Pace(start=3.0).looked(30.0)
    assert (pace.compile_seconds, pace.measuring_seconds) == (30.0, 0.0)
    pace = pace.looked(2.0)
    assert (pace.compile_seconds, pace.measuring_seconds) == (28.0, 4.0)


def test_a_later_recompilation_neither_foretells_nor_blocks_the_next_look():
    costs = [10.0, *[0.5] * 10, 60.0, *[0.5] * 1000]
    looked, _, pace = _loop(0.05, 0.1, costs, 6000)
    gaps = np.diff(looked)
    assert gaps[11] <= 1.2 * np.median(gaps), "the look after it comes as usual"
    assert pace.compile_seconds == pytest.approx(9.5 + 59.5)
    assert pace.typical == 0.5


def test_a_loop_that_becomes_dearer_for_good_is_believed_in_the_end():
    pace = Pace(start=0.0).looked(1.0).looked(1.0)
    for _ in range(20):
        pace = pace.looked(4.0)
    assert pace.typical == 4.0
    assert pace.measuring_seconds == pytest.approx(1.0 + 1.0 + 80.0)
    assert len(pace.costs) == 9


def test_copies_count():
    pace = Pace(start=0.0).looked(1.0).looked(1.0)
    assert pace.spent(0.25).measuring_seconds == pace.measuring_seconds + 0.25
    assert pace.spent(0.25).typical == pace.typical
