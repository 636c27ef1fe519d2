"""The figures of a run's page: which records each needs, what is said beside it, and the files it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lggwjax.report import figures
from lggwjax.report.curves import Setting
from lggwjax.report.records import load_config, load_run, move_word, unseen_word
from lggwjax.report.style import style
from lggwjax.report.table import measured, number_text
from lggwjax.report.verdict import verdict


@dataclass(frozen=True)
class Plot:
    """A figure of the page: its file name, its function, the records behind it and what is said beside it."""

    name: str
    draw: Callable[..., tuple[Figure, Any]]
    quantities: tuple[str, ...]
    needs: str
    title: str
    caption: str

    def data(self, records: pd.DataFrame) -> pd.DataFrame:
        """Pick the numbers that the figure shows: the step and every column of its quantities."""
        if self.draw is figures.ratios:
            records = records.join(figures.ratio_columns(records))
        fields = [f"{q}.{f}" for q in self.quantities for f in ("value", "ci95_low", "ci95_high")]
        return records.filter(["step", *[c for c in records if c in fields or c in self.quantities]])


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk, with the words beside it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: Path


PLOTS = (
    Plot(
        "descent",
        figures.descent,
        ("population_descent",),
        "population_descent",
        "Does going on still help?",
        "The drop of the {unseen} loss that the {move} before each measurement promises to first order, with its "
        "95% interval: above zero it helps on unseen data, below zero it hurts, across zero is undecided. Where the "
        "values span decades, the scale is linear within the innermost ticks and logarithmic beyond.",
    ),
    Plot(
        "losses",
        figures.losses,
        ("train_loss", "heldout_loss"),
        "train_loss",
        "Loss",
        "Mean loss on samples that were trained on and, where there are any, on samples that were not. Without "
        "error bars.",
    ),
    Plot(
        "widths",
        figures.widths,
        ("lggw", "single_width", "union_width", "cloud_width"),
        "lggw",
        "Gaussian widths of the gradients, samples trained on",
        "LGGW, single and union are widths of gradient sets gathered along the whole path so far, so they hardly "
        "ever fall. The cloud holds the gradients of the present checkpoint only. Bands: 95% intervals over "
        "random directions.",
    ),
    Plot(
        "heldout_widths",
        figures.unseen_widths,
        ("lggw", "heldout_lggw", "cloud_width", "heldout_cloud_width"),
        "heldout_lggw",
        "Widths: samples trained on against held-out samples",
        "The same path measured on both probes. A gap says that gradients on the samples trained on no longer "
        "look like gradients on unseen samples. Bands: 95% intervals over random directions.",
    ),
    Plot(
        "gradients",
        figures.gradients,
        ("grad_norm", "heldout_grad_norm", "deviation"),
        "grad_norm",
        "Gradient norms and deviation",
        "The deviation is the distance between the gradient on the samples trained on and the {unseen} gradient. "
        "Where it exceeds the {unseen} gradient, the samples no longer show the way. Bands: 95% intervals over "
        "held-out samples; 0 means that the norm cannot be told from zero.",
    ),
    Plot(
        "ratios",
        figures.ratios,
        ("lggw_over_rms", "cloud_over_rms", "nerc_over_width"),
        "lggw",
        "Widths and NERC, free of scale",
        "Widths divided by the root mean square (rms) of the per-sample gradient norms, and the measured ratio "
        "between NERC and its two ingredients. These, and not the raw widths, may be compared between runs with "
        "equal schedules and probes.",
    ),
    Plot(
        "featurizer",
        figures.featurizer,
        ("features.active_share", "features.l1", "features.l2", "feature_width"),
        "features.l2",
        "Featurizer",
        "The output of the last-but-one layer on the train probe: which share of its units is active, how large "
        "it is, and how wide the set of its outputs. Small norms keep the last layer's part of the gradient width"
        " small, not the network's.",
    ),
)


def save_all(folder: str | Path) -> list[SavedFigure]:
    r"""Write every figure that a run's records allow as PNG and SVG, with the CSV behind it.

    Args:
        folder: A run folder; the files go to its ``figures/``.

    Returns:
        The figures, in the order of the page.

    Raises:
        ValueError: If the folder is no run folder or has no measurement yet.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> _ = (folder / "metrics.jsonl").write_text('{"step": 0, "train_loss": 2.5}\n')
        >>> [figure.name for figure in save_all(folder)]
        ['losses']
    """
    records, config = load_run(folder), load_config(folder)
    setting = Setting(unseen_word(config), move_word(config), verdict(records, config).turn)
    target = Path(folder) / "figures"
    target.mkdir(exist_ok=True)
    saved = []
    for plot in PLOTS:
        if not measured(records, plot.needs):
            continue
        data = plot.data(records)
        data.to_csv(target / f"{plot.name}.csv", index=False)
        fig, _ = plot.draw(records, setting)
        with style():
            # The layout is settled once; otherwise each format solves it again, which doubles the time.
            fig.draw_without_rendering()
            fig.set_layout_engine("none")
            fig.savefig(target / f"{plot.name}.png")
            fig.savefig(target / f"{plot.name}.svg", metadata={"Date": None})
        caption = plot.caption.format(unseen=setting.unseen, move=setting.move)
        saved.append(SavedFigure(plot.name, plot.title, caption, _alt(plot, data), target / f"{plot.name}.svg"))
    return saved


def _alt(plot: Plot, data: pd.DataFrame) -> str:
    parts = []
    for quantity in plot.quantities:
        column: Any = data[quantity if quantity in data else f"{quantity}.value"]
        known = column.notna()
        if known.any():
            ends = column[known].index[[0, -1]]
            first, last = (f"{number_text(column[i])} at step {data['step'][i]:,}" for i in ends)
            parts.append(f"{quantity} goes from {first} to {last}")
    return f"{plot.title}. Line chart against the training step: {'; '.join(parts)}."
