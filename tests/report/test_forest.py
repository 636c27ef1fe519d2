from __future__ import annotations

import numpy as np
import pytest

from lggwjax.report.statistics import Interval
from lggwjax.report.studies.crosses import draw_crosses
from lggwjax.report.studies.forest import Row, draw_forest
from tests.report.overlaps import overlaps

NAN = float("nan")
LABELS = [f"{i}  norm layer, learning_rate 0.00{i}, optimizer momentum" for i in range(1, 6)]
FOUND = [Interval(v, v / 1.1, v * 1.1, 0.05, 5) for v in (0.5, 0.8, 1.0, 1.3, 2.0)]


def rows(decided=(0, 4), wide=1.5):
    return [
        Row(one, i in decided, one._replace(low=one.value / wide, high=one.value * wide)) for i, one in enumerate(FOUND)
    ]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: draw_forest(LABELS, [("", rows())], "LGGW/rms relative to the base design", line=1.0, log=True),
        lambda: draw_forest(LABELS, [("digits", rows()), ("mnist", rows())], "Kendall's tau"),
        lambda: draw_forest(LABELS, [("", rows()), ("", rows())], "held-out loss\nLGGW/rms", line=None, share=False),
        lambda: draw_crosses(FOUND, FOUND[::-1], "LGGW/rms", "gap", lines=(1.0, 1.0), log=(True, True)),
    ],
)
def test_nothing_overlaps(figure):
    assert overlaps(figure()[0]) == []


def test_a_setting_and_its_value_stay_on_one_line():
    _, axes = draw_forest(LABELS, [("", rows())], "x")
    first = axes[0].get_yticklabels()[0].get_text()
    assert first.split("\n") == ["1  norm layer,", "learning_rate 0.001,", "optimizer momentum"]


def test_filled_is_decided_and_long_intervals_do_not_stretch_the_axis():
    _, axes = draw_forest(LABELS, [("", rows(wide=1e6))], "x", line=1.0, log=True)
    points = [line for line in axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True, True, True, False]
    low, high = axes[0].get_xlim()
    assert 0.05 < low < 0.5 / 1.1
    assert 2.0 * 1.1 < high < 20


@pytest.mark.parametrize("value", [NAN, 0.7])
def test_what_has_no_interval_breaks_nothing(value):
    bare = Interval(value, NAN, NAN, NAN, 1)
    fig, _ = draw_forest(["a"], [("", [Row(bare, False)])], "x", line=None)
    fig.draw_without_rendering()
    fig, ax = draw_crosses([bare], [bare], "x", "y")
    fig.draw_without_rendering()
    assert len(ax.texts) == np.isfinite(value)


def test_a_number_stands_left_of_a_point_that_is_close():
    at = [Interval(v, v, v, 0.0, 3) for v in (1.0, 1.02, 2.0)]
    _, ax = draw_crosses(at, [at[0]] * 2 + [at[2]], "x", "y")
    assert [text.get_horizontalalignment() for text in ax.texts] == ["right", "left", "left"]
