from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lggwjax.report import Setting, load_config, load_run, save_all, unseen_word, verdict
from lggwjax.report.figures import ratio_columns
from lggwjax.report.gallery import PLOTS
from tests.report.overlaps import overlaps

STEPS = {
    "log": None,
    "even": list(range(0, 401, 40)),
    "late": [0, 50, 100, 1000, 50_000, 1_000_000],
    "first": [0],
}


@pytest.mark.parametrize(("kind", "steps"), [*(("regression", steps) for steps in STEPS), ("overfit", "log")])
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_no_text_overlaps_another_or_leaves_the_figure(run_of, plot, kind, steps):
    folder = run_of(kind, STEPS[steps])
    records, config = load_run(folder), load_config(folder)
    fig, _ = plot.draw(records, Setting(unseen_word(config), "move", verdict(records, config).turn))
    assert overlaps(fig) == []


def test_the_overlap_test_can_fail():
    fig = Figure()
    fig.text(0.5, 0.5, "one")
    fig.text(0.51, 0.5, "two")
    fig.text(0.99, 0.9, "leaves")
    assert len(overlaps(fig)) == 2


@pytest.mark.parametrize(("kind", "missing"), [("overfit", set()), ("no_heldout", {"descent", "heldout_widths"})])
def test_every_figure_has_png_svg_and_the_numbers_behind_it(run_of, kind, missing):
    folder = run_of(kind, [0, 1, 10, 24, 50, 400])
    records = load_run(folder)
    saved = save_all(folder)
    assert {figure.name for figure in saved} == {plot.name for plot in PLOTS} - missing
    for figure in saved:
        assert (folder / "figures" / f"{figure.name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in figure.svg.read_text()
        # As text: Python's own float() reads the exact number back, read_csv may round the last bit.
        table = pd.read_csv(folder / "figures" / f"{figure.name}.csv", dtype=str).fillna("nan")
        assert len(table) == len(records)
        for column in set(table) & set(records):
            np.testing.assert_array_equal([float(x) for x in table[column]], records[column].to_numpy(float))
        assert figure.name == "ratios" or set(table) <= set(records)
        assert figure.alt.en.startswith(figure.title.en)


def test_ratios_do_not_change_with_the_scale_of_the_loss(run_of):
    records = load_run(run_of("overfit", [0, 1, 10, 24]))
    scaled = records.copy()
    grow = [c for c in records if c == "gradient_rms" or c.startswith(("lggw.", "cloud_width.", "nerc."))]
    grow = [c for c in grow if not c.endswith(("num_samples", "num_draws", "num_checkpoints"))]
    scaled[grow] = 1000.0 * records[grow]
    np.testing.assert_allclose(ratio_columns(scaled), ratio_columns(records), rtol=1e-12)
    expected = 8.0 * records["nerc.value"] / (records["lggw.value"] + records["gradient_rms"].max())
    np.testing.assert_allclose(ratio_columns(records)["nerc_over_width.value"], expected, rtol=1e-12)


def test_drawing_leaves_the_users_settings_alone_and_does_not_depend_on_them(run_of):
    folder = run_of("overfit", [0, 1, 10])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "train_loss": 1.5}}\n' for i in range(len(lines))))
    matplotlib.rcParams["font.size"] = 31
    try:
        before = dict(matplotlib.rcParams.items())
        figures = save_all(folder)
        first = figures[0].svg.read_bytes()
        assert dict(matplotlib.rcParams.items()) == before
    finally:
        matplotlib.rcParams["font.size"] = matplotlib.rcParamsDefault["font.size"]
    assert save_all(folder)[0].svg.read_bytes() == first


def test_exact_zeros_and_single_values_are_drawn(run_of):
    records = load_run(run_of("overfit", [0, 1, 10, 24]))
    for name in records.columns.drop(["step"]):
        if not name.startswith("status"):
            records[name] = 0.0
    for plot in PLOTS:
        fig, _ = plot.draw(records, Setting())
        assert overlaps(fig) == []
