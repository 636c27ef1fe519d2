"""Figures of a comparison: losses over time, differences with their intervals, LGGW/rms against the gap."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_lines, draw_points
from lggwjax.report.language import Text
from lggwjax.report.studies.common import p_text
from lggwjax.report.studies.comparison import Comparison
from lggwjax.report.study import StudyRecords


def figures(study: StudyRecords, found: Comparison, unit: str) -> list[SavedFigure]:
    """Draw the figures into the study's folder.

    Args:
        study: The records.
        found: Their numbers.
        unit: Of the loss.

    Returns:
        The figures, the one that answers first.
    """
    drawn = [_differences(study, found, unit), _over_time(study, found, unit), _explanation(study, found, unit)]
    return [figure for figure in drawn if figure is not None]


def _differences(study: StudyRecords, found: Comparison, unit: str) -> SavedFigure | None:
    rows = [(f"{p.worse} − {p.better}", p.found, p.p) for p in found.pairs]
    if not rows:
        return None
    labels, intervals, adjusted = zip(*rows, strict=True)
    marks = [p_text(p) for p in adjusted]
    fig, _ = draw_intervals(labels, intervals, f"difference in held-out loss ({unit})", marks=marks)
    data = pd.DataFrame([{"difference": n, **i._asdict(), "p_holm": p} for n, i, p in rows])
    return save_figure(
        study.folder / "figures",
        "differences",
        fig,
        data,
        title=Text("Which design is better, and how sure is that?", "どの設計が優れているか、どれだけ確かか"),
        caption=Text(
            "Differences in held-out loss, paired over seeds, with 95% intervals that allow for splits of the same rows. To the right of zero the "
            "second of the two is better. p-values are adjusted for all pairs (Holm); a difference counts where p is at most 0.05, which asks for more "
            "than an interval off zero.",
            "ホールドアウト損失の差です（シードごとに対応づけ、同じ行の分割を繰り返すことを考慮した95%信頼区間）。0より右なら、2つ目の設計のほうが"
            "優れています。p値は全ペアについてHolm法で調整しています。差があるとみなすのは p が 0.05 以下の場合で、区間が0を外れることより厳しい条件です。",
        ),
        alt=Text(
            "Rows of intervals, one a pair of designs.",
            "設計のペアごとの損失の差と、その信頼区間を並べた図です。",
        ),
    )


def _over_time(study: StudyRecords, found: Comparison, unit: str) -> SavedFigure | None:
    lines, rows = [], []
    for name in found.names:
        results = found.records[name]
        if not results:
            continue
        seconds = float(study.config["plan"]["costs"][name]["step"]) * np.array(results[0]["steps"], float)
        losses = np.array([result["heldout_losses"] for result in results], float)
        mean, low, high = losses.mean(0), losses.min(0), losses.max(0)
        lines.append(Line(name, seconds[1:], mean[1:], low=low[1:], high=high[1:]))
        columns = zip(results[0]["steps"], seconds, mean, low, high, strict=True)
        rows += [
            dict(zip(("design", "step", "seconds", "mean", "low", "high"), (name, *r), strict=True)) for r in columns
        ]
    if not lines:
        return None
    ends = np.concatenate([np.asarray(line.x, float) for line in lines])
    trivial = float(np.nanmean([found.whole[name]["trivial_loss"] for name in found.names]))
    lines.append(Line("trivial predictor", [ends.min(), ends.max()], [trivial, trivial], theory=True))
    fig, _ = draw_lines(lines, "training time of one run (s)", f"held-out loss ({unit})", xlog=True, ylog=True)
    return save_figure(
        study.folder / "figures",
        "loss_over_time",
        fig,
        pd.DataFrame(rows),
        title=Text("What does the training time buy?", "学習時間に見合う効果はあるか"),
        caption=Text(
            "Mean held-out loss over seeds; bands reach from the lowest seed to the highest. Time is steps times the time of a step in the pilot, "
            "without compiling and measuring. Where a line rises, the design overfits: it is judged at its best step, chosen on one half of the "
            "held-out samples and judged on the other. The trivial predictor looks at no input.",
            "ホールドアウト損失のシード平均です。帯は最小のシードから最大のシードまでを示します。時間はステップ数にパイロットでの1ステップの時間を掛けた"
            "もので、コンパイルと測定は含みません。線が上がるところでは過学習が起きています。各設計は最良のステップで評価し、そのステップはホールドアウトの半分で選び、"
            "残り半分で評価します。単純予測器は入力を一切見ません。",
        ),
        alt=Text(
            "Held-out loss of each design against training time, and the trivial predictor as a level line.",
            "学習時間に対する各設計のホールドアウト損失と、水平線で示した単純予測器です。",
        ),
    )


def _explanation(study: StudyRecords, found: Comparison, unit: str) -> SavedFigure | None:
    widths = {name: found.whole[name]["lggw_over_rms"] for name in found.ranked}
    groups = [Line(name, widths[name], found.whole[name]["gap"]) for name in found.ranked]
    if not any(group.known.any() for group in groups):
        return None
    fig, _ = draw_points(groups, "LGGW / rms of the path", f"held-out − train loss at the end ({unit})")
    rows = [
        {"design": name, "seed": seed, "lggw_over_rms": width, "gap": gap}
        for name in found.ranked
        for seed, (width, gap) in enumerate(zip(widths[name], found.whole[name]["gap"], strict=True))
    ]
    return save_figure(
        study.folder / "figures",
        "lggw_and_gap",
        fig,
        pd.DataFrame(rows),
        title=Text("Do LGGW and the gap move together on these data?", "このデータで LGGW とギャップは連動するか"),
        caption=Text(
            "One point a design and seed, at the end of the budget. All designs have the same number of checkpoints and of probe samples, so that their "
            "LGGW / rms can be compared; raw widths cannot. It describes the samples trained on and certifies nothing.",
            "設計とシードごとに1点で、予算終了時の値です。チェックポイント数とプローブのサンプル数は全設計で同じなので、LGGW / rms は比較できます（生の幅は"
            "比較できません）。学習に使ったサンプルについての記述であり、何かを保証するものではありません。",
        ),
        alt=Text(
            "A scatter of LGGW over rms against the gap, one colour a design.",
            "LGGW / rms とギャップの散布図です（設計ごとに色分け）。",
        ),
    )
