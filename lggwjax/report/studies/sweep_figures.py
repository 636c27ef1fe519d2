"""The figures of a grid of one's own."""

from __future__ import annotations

import math

import pandas as pd

from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.language import Text
from lggwjax.report.studies.common import tau_text
from lggwjax.report.studies.crosses import draw_crosses
from lggwjax.report.studies.forest import Row, draw_forest
from lggwjax.report.studies.sweep_designs import Contest
from lggwjax.report.study import StudyRecords

_MOST_DRAWN = 25


def sweep_figures(study: StudyRecords, found: Contest, table: pd.DataFrame) -> list[SavedFigure]:
    """Draw the designs' held-out loss and LGGW / rms, and the gap against the latter; none without a loss."""
    drawn = [design for design in found.designs if math.isfinite(found.means[design]["heldout_loss"].value)]
    drawn = drawn[:_MOST_DRAWN]
    if not drawn:
        return []
    names = ("heldout_loss", "lggw_over_rms")
    panels = [("", [Row(found.means[d][name], d == found.winner) for d in drawn]) for name in names]
    labels = [f"{rank}  {design}" for rank, design in enumerate(found.designs, 1) if design in drawn]
    fig, _ = draw_forest(labels, panels, "held-out loss\nLGGW/rms", line=None, share=False)
    words = {"n": len(drawn), "all": len(found.designs), "best": found.best, "tau": tau_text(found.tau)}
    forest = save_figure(
        study.folder / "figures",
        "sweep-designs",
        fig,
        table,
        title=Text("Held-out loss and LGGW/rms of the designs", "各設計のホールドアウト損失とLGGW/rms"),
        caption=Text(
            "Means over seeds with 95% intervals, {n} of {all} designs; filled: a winner, if there is one. Intervals that "
            "overlap may still be told apart, since differences are paired.",
            "シード平均と95%信頼区間（{all}個中{n}個の設計）。勝者があれば塗りつぶしています。差は対応をとって検定するため、区間が"
            "重なっていても区別できることがあります。",
        ).format(**words),
        alt=Text(
            "Rows of intervals of {n} designs; the lowest mean held-out loss is that of {best}.",
            "{n}個の設計の区間の図。ホールドアウト損失の平均が最も低いのは{best}。",
        ).format(**words),
    )
    across, up = ([found.means[design][name] for design in drawn] for name in ("lggw_over_rms", "gap"))
    fig, _ = draw_crosses(across, up, "LGGW/rms", "held-out gap (unit of the loss)")
    scatter = save_figure(
        study.folder / "figures",
        "sweep-gap",
        fig,
        table,
        title=Text("The gap against LGGW/rms", "汎化ギャップとLGGW/rms"),
        caption=Text(
            "A point a design, numbered as in the table; bars are 95% intervals over seeds, cut at the edge where long. "
            "Kendall's tau: {tau}.",
            "点は各設計（番号は表と同じ）、棒はシードに関する95%信頼区間で、長いものは図の端で切れています。ケンドールのτ：{tau}。",
        ).format(**words),
        alt=Text(
            "Scatter of the gap against LGGW/rms for {n} designs; Kendall's tau {tau}.",
            "{n}個の設計の汎化ギャップとLGGW/rmsの散布図。ケンドールのτは{tau}。",
        ).format(**words),
    )
    return [forest, scatter]
