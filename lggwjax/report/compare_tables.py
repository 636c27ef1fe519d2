"""The tables of a comparison: a row a run, a row a design, a row a pair of designs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lggwjax.report.designs import Pair, Run, column_of, losses_of
from lggwjax.report.document import Table
from lggwjax.report.language import Text
from lggwjax.report.phrases import WORDS
from lggwjax.report.statistics import mean_interval
from lggwjax.report.table import NONE, estimate_text, interval_text, number_text, p_text
from lggwjax.report.verdict import verdict

_ROW = Text("run", "実行")


def run_table(runs: Sequence[Run], widths: str | None) -> Table:
    """Lay out the runs, and say so where their widths may not be compared."""
    rows = []
    for run in runs:
        parts = [run.config.get(part) for part in ("model", "data")]
        model, data = (part if isinstance(part, dict) else {} for part in parts)
        last: dict[Any, Any] = run.records.iloc[-1].to_dict()
        ratio = column_of(run, "lggw_over_rms.value").dropna()
        found = verdict(run.records, run.config)
        samples = data.get("num_samples")
        turn = (
            NONE
            if found.turn is None
            else f"{'–' if found.turn[0] is None else f'{found.turn[0]:,}'} → {found.turn[1]:,}"
        )
        rows.append(
            [
                *(run.name, str(model.get("name") or NONE), str(data.get("name") or NONE)),
                NONE if run.seed is None else str(run.seed),
                f"{samples:,}" if isinstance(samples, int) else NONE,
                f"{last['step']:,.0f}",
                *(number_text(last["train_loss"]), number_text(last["heldout_loss"])),
                number_text(float(ratio.iloc[-1])) if len(ratio) else NONE,
                *(estimate_text(last, "deviation"), estimate_text(last, "population_descent")),
                WORDS[found.word],
                turn,
            ]
        )
    headings = [
        *(_ROW, Text("model", "モデル"), Text("data", "データ"), Text("seed", "シード"), Text("samples", "サンプル")),
        *(Text("steps", "ステップ"), Text("train loss", "訓練損失"), Text("held-out loss", "ホールドアウト損失")),
        *(Text("LGGW / rms", "LGGW／rms"), Text("deviation", "乖離"), Text("last descent", "最後の降下量")),
        *(Text("the last step", "最後のステップ"), Text("turn between", "転換点の間")),
    ]
    note = Text(
        "All numbers are those of the last measurement; ± is half of the 95% interval of one run. A turn lies "
        "between the last measured step that clearly helped and the first that clearly hurt.",
        "数値はすべて最後の測定のもので、± は1回の実行についての95%信頼区間の半分です。転換点は、"
        "明確に改善した最後の測定と、明確に悪化した最初の測定との間にあります。",
    )
    if widths is not None:
        note += Text(
            f" LGGW / rms may not be compared between these runs. {widths}",
            f"LGGW／rms はこれらの実行の間で比較できません（{_WIDTHS_JA}）。",
        )
    return Table(Text("The runs", "各実行"), headings, rows, note)


_WIDTHS_JA = "測定したステップ、測定サンプル数、ランダムな方向の数のいずれかが異なるため"


def design_tables(runs: Sequence[Run], names: dict[str, str], pairs: Sequence[Pair]) -> list[Table]:
    """Lay out the designs and their pairs, where any design has more than one run."""
    if len(runs) == len(names):
        return []
    rows = []
    for design, name in names.items():
        losses = losses_of(runs, design)
        ratios = [
            float(r.iloc[-1])
            for run in runs
            if run.design == design and len(r := column_of(run, "lggw_over_rms.value").dropna())
        ]
        means = [interval_text(mean_interval(values)) for values in (list(losses.values()), ratios)]
        rows.append([name, str(len(losses)), *means])
    design = Text("design", "設計")
    tables = [
        Table(
            Text("The designs", "各設計"),
            [
                design,
                Text("seeds", "シード数"),
                Text("held-out loss", "ホールドアウト損失"),
                Text("LGGW / rms", "LGGW／rms"),
            ],
            rows,
            Text(
                "Means over the seeds; ± is half of the 95% t interval.",
                "シードについての平均です。± は95% t 区間の半分です。",
            ),
        )
    ]
    if pairs:
        rows = [
            [
                f"{names[p.first]} − {names[p.second]}",
                str(p.difference.num),
                interval_text(p.difference),
                p_text(p.adjusted).removeprefix("p = ").removeprefix("p "),
            ]
            for p in pairs
        ]
        difference = Text("difference in held-out loss", "ホールドアウト損失の差")
        headings = [
            Text("pair", "組"),
            Text("common seeds", "共通のシード"),
            difference,
            Text("p (Holm)", "p（ホルム法）"),
        ]
        tables.append(Table(Text("Pairs of designs", "設計の組"), headings, rows))
    return tables
