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
from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.language import Text
from lggwjax.report.phrases import MOVES, UNSEEN
from lggwjax.report.quantities import name_of
from lggwjax.report.records import load_config, load_run, move_word, unseen_word
from lggwjax.report.table import measured, number_text
from lggwjax.report.verdict import verdict


@dataclass(frozen=True)
class Plot:
    """A figure of the page: its file name, its function, the records behind it and what is said beside it."""

    name: str
    draw: Callable[..., tuple[Figure, Any]]
    quantities: tuple[str, ...]
    needs: str
    title: Text
    caption: Text

    def data(self, records: pd.DataFrame) -> pd.DataFrame:
        """Pick the numbers that the figure shows: the step and every column of its quantities."""
        if self.draw is figures.ratios:
            records = records.join(figures.ratio_columns(records))
        fields = [f"{q}.{f}" for q in self.quantities for f in ("value", "ci95_low", "ci95_high")]
        return records.filter(["step", *[c for c in records if c in fields or c in self.quantities]])


_SHADED = Text(
    " Shaded here and in the other figures: from the last measured step that clearly helped to the first that "
    "clearly hurt.",
    "この図とほかの図の網かけは、明確に改善した最後の測定から、明確に悪化した最初の測定までを示します。",
)
PLOTS = (
    Plot(
        "descent",
        figures.descent,
        ("population_descent",),
        "population_descent",
        Text("Does going on still help?", "続けることはまだ役に立つか"),
        Text(
            "The drop of the {unseen} loss that the {move} before each measurement promises to first order, with its "
            "95% interval: above zero it helps on unseen data, below zero it hurts, across zero is undecided. Where "
            "the values span decades, the scale is linear within the innermost ticks and logarithmic beyond.",
            "各測定の直前の{move}が一次近似で約束する{unseen}損失の減少と、その95%信頼区間です。"
            "0より上なら未見データに役立ち、0より下なら害になり、0をまたぐなら判定できません。"
            "値が何桁にもわたる場合、縦軸は最も内側の目盛の間が線形、その外が対数です。",
        ),
    ),
    Plot(
        "losses",
        figures.losses,
        ("train_loss", "heldout_loss"),
        "train_loss",
        Text("Loss", "損失"),
        Text(
            "Mean loss on samples that were trained on and, where there are any, on samples that were not. Without "
            "error bars.",
            "訓練に使ったサンプルと、（あれば）使っていないサンプルでの平均損失です。誤差の幅はありません。",
        ),
    ),
    Plot(
        "widths",
        figures.widths,
        ("lggw", "single_width", "union_width", "cloud_width"),
        "lggw",
        Text("Gaussian widths of the gradients, samples trained on", "勾配のガウス幅（訓練サンプル）"),
        Text(
            "LGGW, single and union are widths of gradient sets gathered along the whole path so far, so they hardly "
            "ever fall. The cloud holds the gradients of the present checkpoint only. Bands: 95% intervals over "
            "random directions.",
            "LGGW（stacked）、単一サンプル幅（single）、和集合の幅（union）は、"
            "それまでの経路全体で集めた勾配の集合の幅なので、ほとんど減ることがありません。点群（cloud）"
            "は現在のチェックポイントでの勾配だけを含みます。帯はランダムな方向に関する95%信頼区間です。",
        ),
    ),
    Plot(
        "heldout_widths",
        figures.unseen_widths,
        ("lggw", "heldout_lggw", "cloud_width", "heldout_cloud_width"),
        "heldout_lggw",
        Text("Widths: samples trained on against held-out samples", "幅の比較：訓練サンプルとホールドアウト"),
        Text(
            "The same path measured on both probes. A gap says that gradients on the samples trained on no longer "
            "look like gradients on unseen samples. Bands: 95% intervals over random directions.",
            "同じ経路を両方のプローブで測ったものです。差が開いていれば、"
            "訓練サンプルでの勾配が未見サンプルでの勾配とは似なくなったことを示します。"
            "帯はランダムな方向に関する95%信頼区間です。",
        ),
    ),
    Plot(
        "gradients",
        figures.gradients,
        ("grad_norm", "heldout_grad_norm", "deviation"),
        "grad_norm",
        Text("Gradient norms and deviation", "勾配のノルムと乖離"),
        Text(
            "The deviation is the distance between the gradient on the samples trained on and the {unseen} gradient. "
            "Where it exceeds the {unseen} gradient, the samples no longer show the way. Bands: 95% intervals over "
            "held-out samples; 0 means that the norm cannot be told from zero.",
            "乖離（deviation）は、訓練サンプル上の勾配と{unseen}勾配との距離です。"
            "乖離が{unseen}勾配を上回るところでは、サンプルはもはや進むべき方向を示していません。"
            "帯はホールドアウトに関する95%信頼区間で、0はノルムが0と区別できないことを意味します。",
        ),
    ),
    Plot(
        "ratios",
        figures.ratios,
        ("lggw_over_rms", "cloud_over_rms", "nerc_over_width"),
        "lggw",
        Text("Widths and NERC, free of scale", "幅と NERC（スケールによらない比）"),
        Text(
            "Widths divided by the root mean square (rms) of the per-sample gradient norms, and the measured ratio "
            "between NERC and its two ingredients. These, and not the raw widths, may be compared between runs with "
            "equal schedules and probes.",
            "幅を、サンプルごとの勾配ノルムの二乗平均平方根（rms）で割ったものと、NERC "
            "とその2つの構成要素との比の実測値です。測定計画とプローブが等しい実行どうしで比較してよいのは、"
            "幅そのものではなくこれらの比です。",
        ),
    ),
    Plot(
        "featurizer",
        figures.featurizer,
        ("features.active_share", "features.l1", "features.l2", "feature_width"),
        "features.l2",
        Text("Featurizer", "特徴抽出器（featurizer）"),
        Text(
            "The output of the last-but-one layer on the train probe: which share of its units is active, how large "
            "it is, and how wide the set of its outputs. Small norms keep the last layer's part of the gradient "
            "width small, not the network's.",
            "訓練プローブ上での、最後から2番目の層の出力です。活性ユニットの割合、大きさ、出力の集合の幅を示します。"
            "ノルムが小さければ勾配幅のうち最後の層の分は小さくなりますが、ネットワーク全体については言えません。",
        ),
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
    saved = []
    for plot in PLOTS:
        if not measured(records, plot.needs):
            continue
        data = plot.data(records)
        fig, _ = plot.draw(records, setting)
        caption = plot.caption.format(unseen=UNSEEN[setting.unseen], move=MOVES[setting.move])
        shaded = setting.turn is not None and not saved
        words = {"title": plot.title, "caption": caption + _SHADED if shaded else caption}
        alt = _alt(plot, data, UNSEEN[setting.unseen])
        saved.append(save_figure(Path(folder) / "figures", plot.name, fig, data, alt=alt, **words))
    return saved


def _alt(plot: Plot, data: pd.DataFrame, unseen: Text) -> Text:
    parts = []
    for quantity in plot.quantities:
        column: Any = data[quantity if quantity in data else f"{quantity}.value"]
        known = column.notna()
        if known.any():
            (i, first), (j, last) = (
                (f"{data['step'][k]:,}", number_text(column[k])) for k in column[known].index[[0, -1]]
            )
            told = Text(
                "{name} goes from {first} at step {i} to {last} at step {j}",
                "{name}はステップ{i}の{first}からステップ{j}の{last}へ",
            )
            name = name_of(quantity).format(unseen=unseen)
            parts.append(told.format(name=name, first=first, last=last, i=i, j=j))
    english, japanese = "; ".join(part.en for part in parts), "、".join(part.ja for part in parts)
    return plot.title + Text(
        f". Line chart against the training step: {english}.", f"。横軸が学習ステップの折れ線グラフ。{japanese}。"
    )
