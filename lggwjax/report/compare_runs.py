"""From several runs to what one page says about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lggwjax.report.compare_tables import design_tables, run_table
from lggwjax.report.compare_words import answer, limits, meeting
from lggwjax.report.designs import (
    Run,
    check_widths,
    column_of,
    compare_designs,
    design_names,
    load_runs,
    one_population,
    over_seeds,
)
from lggwjax.report.document import Document, SavedFigure, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_lines
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.records import loss_unit
from lggwjax.report.table import interval_text, number_text, p_text
from lggwjax.strict import usual_form

_MOST_LINES = 8


def comparison_document(folders: Sequence[str | Path], figures: str | Path = "comparison-figures") -> Document:
    """Read several runs, draw them over each other, and say which design has the lower held-out loss, and how sure.

    Runs that differ by their seed only are repetitions of one design. Designs with three seeds or more in common are
    compared by paired differences over these seeds; anything less is called not decided.

    Args:
        folders: Run folders, two or more.
        figures: Folder for the figures.

    Returns:
        What the page says.

    Raises:
        ValueError: If there are fewer than two, or one is no run folder or has no measurement.
    """
    with usual_form(", ".join(map(str, folders))):
        return _document(load_runs(folders), Path(figures))


def _document(runs: Sequence[Run], figures: Path) -> Document:
    names, pairs, comparable = design_names(runs), compare_designs(runs), one_population(runs)
    try:
        check_widths(runs)
        widths = None
    except ValueError as error:
        widths = str(error)
    told, tone = answer(runs, names, pairs)
    may, may_not = limits(
        pairs, widths, comparable=comparable, one_end=len({run.records["step"].iloc[-1] for run in runs}) == 1
    )
    say, do_not_say = meeting(runs, names, pairs)
    return Document(
        kind=Text("Comparison of runs", "実行の比較"),
        title=Text(
            f"{len(runs)} runs, {len(names)} design{'s' * (len(names) != 1)}",
            f"実行{len(runs)}件、設計{len(names)}種類",
        ),
        done=Text(
            "The runs below were read as they lie on disk. Runs that differ by their seed only count as repetitions "
            "of one design.",
            "以下の実行の記録をそのまま読み込みました。乱数シードだけが異なる実行は、"
            "同じ設計のくり返しとして扱います。",
        ),
        question=Text("Which one is better, and how sure is that?", "どれが良いか、どれだけ確かか"),
        answer=told,
        tone=tone,
        figures=_figures(runs, names, pairs, figures, widths),
        tables=[run_table(runs, widths), *design_tables(runs, names, pairs)],
        may=may,
        may_not=may_not,
        method=[
            Text(
                "Designs are compared by the held-out loss at the last measurement: differences on equal seeds, "
                "Student's t interval over the seeds, p-values corrected after Holm for the number of pairs. With "
                "fewer than three common seeds nothing is decided.",
                "設計の比較には最後の測定でのホールドアウト損失を用います。同じシードどうしの差をとり、"
                "シードについての t 区間と、組の数についてホルム法で補正した p 値を示します。"
                "共通のシードが3個未満の場合は判定しません。",
            )
        ],
        say=say,
        do_not_say=do_not_say,
        config={run.name: run.config for run in runs},
    )


def _figures(
    runs: Sequence[Run], names: dict[str, str], pairs: Sequence[Any], folder: Path, widths: str | None
) -> list[SavedFigure]:
    unit = loss_unit(pd.concat([run.records for run in runs]))
    drawn = [
        ("heldout_loss", "heldout_loss", f"held-out loss ({unit})", Text("Held-out loss", "ホールドアウト損失"), EMPTY),
        (
            *("population_descent", "population_descent.value", f"held-out descent ({unit})"),
            Text("Held-out descent of the step just taken", "直前のステップのホールドアウト降下量"),
            Text(
                " Above zero the step helped, below it hurt.",
                "0より上ならそのステップは役に立ち、下なら害になりました。",
            ),
        ),
        (
            *("lggw_over_rms", "lggw_over_rms.value", "LGGW over rms (no unit)"),
            Text("LGGW over the largest rms, samples trained on", "LGGW と最大の rms の比（訓練サンプル）"),
            EMPTY
            if widths is None
            else Text(
                " These curves may not be compared with each other: schedules or probes differ.",
                "測定計画またはプローブが異なるため、これらの曲線を互いに比べてはいけません。",
            ),
        ),
    ]
    saved = []
    for name, column, ylabel, title, more in drawn:
        lines, data, seeds = _lines(runs, names, column)
        if not lines:
            continue
        even = len(data) < 2 or all(run.records["step"].diff().dropna().nunique() <= 1 for run in runs)
        fig, _ = draw_lines(
            lines,
            "training step",
            ylabel,
            xlog=not even,
            ylog=name == "population_descent",
            zero_line="descent" in name,
        )
        last = "; ".join(f"{line.label} {number_text(float(pd.Series(line.y).iloc[-1]))}" for line in lines)
        words = {
            "title": title,
            "caption": (_BANDS if seeds else _LINES) + more,
            "alt": title
            + Text(
                f". Line chart against the training step; at the end: {last}.",
                f"。横軸が学習ステップの折れ線グラフ。最後の値：{last}。",
            ),
        }
        saved.append(save_figure(folder, name, fig, data, **words))
    if pairs:
        saved.append(_forest(names, pairs, folder, unit))
    return saved


_LINES = Text(
    "One line a run, with 95% intervals where the records have them.",
    "線1本が1回の実行です。記録にあれば95%信頼区間を帯で示します。",
)
_BANDS = Text(
    "One line a design: the mean over its seeds with its 95% interval, where there are two seeds or more.",
    "線1本が1つの設計です。シードについての平均と、シードが2個以上あるときはその95%信頼区間を示します。",
)


def _lines(runs: Sequence[Run], names: dict[str, str], column: str) -> tuple[list[Line], pd.DataFrame, bool]:
    """Make a line a run where these are few, else one a design."""
    lines, tables = [], []
    by_design = len(runs) > _MOST_LINES
    for name in list(names.values())[:_MOST_LINES] if by_design else [run.name for run in runs]:
        if by_design:
            table = over_seeds(runs, next(design for design, n in names.items() if n == name), column)
        else:
            run = next(run for run in runs if run.name == name)
            ends = (column.replace(".value", f".ci95_{end}") for end in ("low", "high"))
            low, high = (column_of(run, end) if end != column else math.nan for end in ends)
            table = pd.DataFrame({"value": column_of(run, column), "low": low, "high": high})
            table = table.dropna(subset="value").rename_axis("step").reset_index()
        if len(table):
            banded = bool(np.isfinite(table["low"].to_numpy(float)).any())
            low, high = (table["low"], table["high"]) if banded else (None, None)
            lines.append(Line(name, table["step"], table["value"], low, high))
            tables.append(table.assign(name=name))
    return lines, pd.concat(tables) if tables else pd.DataFrame(), by_design


def _forest(names: dict[str, str], pairs: Sequence[Any], folder: Path, unit: str) -> SavedFigure:
    labels = [f"{names[pair.first]} − {names[pair.second]}" for pair in pairs]
    marks = [p_text(pair.adjusted) for pair in pairs]
    fig, _ = draw_intervals(labels, [p.difference for p in pairs], f"difference in held-out loss ({unit})", marks=marks)
    data = pd.DataFrame(
        [
            {"pair": label, **pair.difference._asdict(), "p_holm": pair.adjusted}
            for label, pair in zip(labels, pairs, strict=True)
        ]
    )
    told = "; ".join(f"{label}: {interval_text(pair.difference)}" for label, pair in zip(labels, pairs, strict=True))
    title = Text("Differences between the designs", "設計の間の差")
    return save_figure(
        folder,
        "differences",
        fig,
        data,
        title=title,
        caption=Text(
            "Final held-out loss of the first design minus that of the second, on equal seeds, with 95% intervals; "
            "left of zero the first is better. p is corrected for the number of pairs.",
            "同じシードでの、最終ホールドアウト損失の差（1番目の設計から2番目を引いたもの）と95%信頼区間です。"
            "0より左なら1番目のほうが良いことになります。p は組の数について補正済みです。",
        ),
        alt=title + Text(f". {told}.", f"。{told}。"),
    )
