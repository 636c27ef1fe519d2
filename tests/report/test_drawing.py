from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lggwjax.report.document import save_figure
from lggwjax.report.drawing import GREY, Line, draw_intervals, draw_lines, draw_panels, draw_points
from lggwjax.report.language import Text
from lggwjax.report.scales import log_ticks
from lggwjax.report.statistics import Interval
from tests.report.overlaps import overlaps

NAN = float("nan")
SIZES = np.array([16, 64, 256, 1024, 4096])
STEPS = np.arange(20)


def power(label: str, slope: float, factor: float = 1.0, **look) -> Line:
    y = factor * SIZES**slope
    return Line(label, SIZES, y, 0.8 * y, 1.2 * y, **look)


FIGURES = {
    "powers": lambda: draw_lines(
        [power("measured LGGW, digits", 0.5), power("theory (shape)", 0.45, theory=True), Line("one", [64], [9.0])],
        "samples n",
        "Gaussian width (nats per unit of parameter)",
        xlog=True,
        ylog=True,
    ),
    "many": lambda: draw_lines(
        [Line(f"design {i} with a long name", STEPS, np.sin(STEPS / 5 + i) / 100) for i in range(12)],
        "passes over the samples",
        "population descent (nats)",
        height=2.5,
        zero_line=True,
    ),
    "signed": lambda: draw_lines(
        [Line(f"{i}", STEPS, (-1) ** i * np.exp(-i * STEPS / 4)) for i in range(5)], "step", "descent (nats)", ylog=True
    ),
    "together": lambda: draw_lines([Line(f"line {i}", [1, 2], [1, 1]) for i in range(6)], "x", "y"),
    "panels": lambda: draw_panels(
        [
            (f"digits, FFN, width {w}", [power("train", 0.5), power("bound (certified)", 0, 9, theory=True)])
            for w in SIZES
        ],
        "samples n",
        "loss (nats)",
        xlog=True,
    ),
    "three columns": lambda: draw_panels(
        [(f"width {w}", [power("train", -0.5, w)]) for w in SIZES],
        "samples n",
        "loss (nats)",
        columns=3,
        sharey=False,
        xlog=True,
        ylog=True,
    ),
    "points": lambda: draw_points(
        [power("digits", 1), power("linear, with a long name", 0.9), power("another one", 0.8)],
        "LGGW / rms (no unit)",
        "gap (nats)",
        xlog=True,
        ylog=True,
        lines=[power("equal (shape)", 1, theory=True)],
    ),
    "intervals": lambda: draw_intervals(
        ["L1 on features", "dropout", "a very long name of a design that needs more than a line", "one seed"],
        [
            Interval(0.3, 0.1, 0.5, 0.1, 8),
            Interval(-0.1, -0.4, 0.2, 0.1, 8),
            Interval(-0.2, -0.3, -0.1, 0.1, 8),
            Interval(0.2, NAN, NAN, NAN, 1),
        ],
        "difference in held-out loss from the baseline (nats)",
        marks=["p = 0.01", "p = 0.4", "p = 0.03", "one seed"],
    ),
    "ratios": lambda: draw_intervals(
        ["a", "b"], [Interval(2, 1.5, 3, 0.1, 8), Interval(0.9, 0.01, 80, 0.1, 8)], "ratio", zero=1.0, xlog=True
    ),
    "nothing": lambda: draw_lines([Line("gone", [1, 2], [NAN, NAN])], "x", "y", xlog=True, ylog=True),
    "zeros": lambda: draw_lines([Line("none", STEPS, 0 * STEPS)], "x", "y", xlog=True, ylog=True),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_can_be_read(name):
    fig, _ = FIGURES[name]()
    assert overlaps(fig) == []


def test_lines_look_different_and_theory_is_grey():
    lines = [*(power(f"{i}", 0.5) for i in range(9)), power("bound (certified)", 1, theory=True)]
    _, ax = draw_lines(lines, "n", "width (nats)")
    drawn = {(to_hex(line.get_color()), line.get_marker(), line.get_linestyle()) for line in ax.lines[:10]}
    assert len(drawn) == 10
    bound = ax.lines[9]
    assert (to_hex(bound.get_color()), bound.get_marker()) == (GREY.lower(), "None")
    assert bound.get_linewidth() < ax.lines[0].get_linewidth()


def test_what_is_not_finite_is_left_out():
    _, ax = draw_lines([Line("a", [1, 2, NAN, 4], [1, NAN, 3, 4]), Line("gone", [1], [NAN])], "x", "y")
    assert ax.lines[0].get_xydata().tolist() == [[1, 1], [4, 4]]
    assert [text.get_text() for text in ax.texts] == ["a"]


def test_the_figure_is_in_english():
    _, ax = draw_lines([Line(Text("width", "幅"), [1, 2], [1, 2])], "x", "y")
    assert ax.texts[0].get_text() == "width"


def test_a_signed_quantity_has_a_linear_part_and_a_positive_one_has_none():
    signed, positive = (draw_lines([Line("", [1, 2], [y, 100.0])], "x", "y", ylog=True)[1] for y in (-1.0, 1.0))
    assert (signed.get_yscale(), positive.get_yscale()) == ("symlog", "log")


def test_an_interval_on_one_side_is_filled_and_one_across_is_not():
    _, ax = draw_intervals(["a", "b"], [Interval(1, 0.5, 1.5, 0.1, 3), Interval(1, -0.5, 2.5, 0.1, 3)], "x")
    points = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
    assert points[0] != "white"
    assert points[1] == "white"


def test_panels_show_one_name_in_one_colour():
    fig, axes = draw_panels([("a", [power("x", 1)]), ("b", [power("y", 1), power("x", 2)])], "n", "width")
    assert axes[0, 0].lines[0].get_color() == axes[0, 1].lines[1].get_color() != axes[0, 1].lines[0].get_color()
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["x", "y"]


@pytest.mark.parametrize("low", [1e-9, 0.3, 1.0, 17.0, 1e5])
@pytest.mark.parametrize("factor", [1.2, 2.0, 9.0, 1e3, 1e12])
@pytest.mark.parametrize("most", [3, 6])
def test_logarithmic_ticks_are_few_and_inside(low, factor, most):
    ticks = log_ticks(low, low * factor, most)
    assert 1 <= len(ticks) <= most + 1
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= low * factor * (1 + 1e-6) for tick in ticks)


def test_many_names_do_not_come_out_of_the_height_of_the_panels():
    def height(num: int) -> float:
        lines = [Line(f"a rather long name of a line {i}", [1, 2, 3], [1, 2, 3 + i]) for i in range(num)]
        fig, axes = draw_panels([("one", lines), ("two", lines)], "step", "loss")
        fig.draw_without_rendering()
        return axes[0, 0].get_window_extent().height

    assert height(6) > 0.9 * height(2)


def test_a_name_is_drawn_as_it_is_and_not_as_mathematics(tmp_path):
    name = "cost in $, \\frac{$ and \u8a9e"
    fig, _ = draw_lines([Line(name, [1, 2], [1, 2]), Line("other", [1, 2], [2, 1])], "step", name)
    word = Text("word", "\u8a9e")
    saved = save_figure(tmp_path, "x", fig, pd.DataFrame(), title=word, caption=word, alt=word)
    assert saved.svg.stat().st_size > 1000
