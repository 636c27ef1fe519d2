"""The levers of one base design: their effects, in order of what they do to LGGW / rms, and the figures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lggwjax.report.document import SavedFigure, save_figure
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, kendall
from lggwjax.report.studies.common import number, ratio_of, slug, tau_text
from lggwjax.report.studies.crosses import draw_crosses
from lggwjax.report.studies.effects import Effect, Quantity, Runs, adjusted, diverged, effect
from lggwjax.report.studies.forest import Row, draw_forest
from lggwjax.report.studies.ranks import Resamples
from lggwjax.report.study import StudyRecords

BASE = "base"
MIN_LEVERS = 6
WIDTH = "lggw_over_rms"
QUANTITIES = (
    Quantity(WIDTH, Text.same("LGGW/rms"), ratio=True),
    Quantity("lggw", Text.same("LGGW"), ratio=True),
    Quantity("deviation_over_rms", Text("deviation / rms", "乖離 / rms"), ratio=True, better=-1),
    Quantity("steps_to_target", Text("steps to target", "到達ステップ"), better=-1, censored=True),
    Quantity("loss_spikes", Text("loss spikes", "スパイク"), better=-1),
    Quantity("prediction_spread", Text("spread over seeds", "予測のばらつき"), better=-1),
    Quantity("gap", Text("held-out gap", "汎化ギャップ"), better=-1),
    Quantity("heldout_accuracy", Text("accuracy", "正解率"), better=1),
)
NAMES = {
    "base": "基準設計",
    "feature bottleneck (8)": "特徴ボトルネック (8)",
    "top-k features (8)": "上位k個の特徴 (8)",
    "L1 on features": "特徴へのL1正則化",
    "weight decay": "重み減衰",
    "initialisation x 0.5": "初期値 ×0.5",
    "initialisation x 2": "初期値 ×2",
    "layer norm": "層正規化",
    "group norm": "グループ正規化",
    "batch norm": "バッチ正規化",
    "layer norm, initialisation x 2": "層正規化、初期値 ×2",
    "SGD with momentum": "モーメンタム付きSGD",
    "learning rate x 3": "学習率 ×3",
    "learning rate / 3": "学習率 ÷3",
    "batches of 16": "バッチサイズ 16",
    "all samples at each step": "毎ステップ全サンプル",
    "no residual": "残差接続なし",
    "no norm": "正規化なし",
}


def lever_name(lever: str) -> Text:
    """Name a lever in both languages; one of its own keeps its name."""
    return Text(lever, NAMES.get(lever, lever))


@dataclass(frozen=True)
class Family:
    """One base design and its levers.

    Attributes:
        name: Model and data.
        designs: Runs by seed of each design, the base included.
        settings: Settings of one run of each.
        quantities: What is compared; the gap is a ratio where every gap is positive.
        effects: Of each lever, in order of its change of LGGW / rms: the most lowered first.
    """

    name: str
    designs: Mapping[str, Runs]
    settings: Mapping[str, Mapping[str, Any]]
    quantities: tuple[Quantity, ...]
    effects: Mapping[str, Mapping[str, Effect]]

    @property
    def num_tests(self) -> int:
        """Tests that were counted in the family."""
        return sum(not math.isnan(one.p) for row in self.effects.values() for one in row.values())

    @property
    def num_seeds(self) -> int:
        """Seeds of the base design."""
        return len(self.designs.get(BASE, {}))

    @property
    def lowering(self) -> list[str]:
        """Levers that lower LGGW / rms beyond what the seeds explain, and not by scale alone; best first."""
        return [lever for lever, row in self.effects.items() if row[WIDTH].sign < 0 and not self.is_scale(lever)]

    @property
    def best(self) -> str | None:
        """The lever that lowers LGGW / rms most, as ``lowering`` has it."""
        return next(iter(self.lowering), None)

    def flag(self, lever: str) -> Text:
        """What to know of a lever's numbers: runs that diverged, and whether it is one of scale only."""
        parts = []
        if bad := diverged(self.designs[lever]):
            parts.append(Text("{n} of {k} diverged", "{k}回中{n}回発散").format(n=bad, k=len(self.designs[lever])))
        if self.is_scale(lever):
            parts.append(Text("scale only", "スケールのみ"))
        elif self.only_raw(lever):
            parts.append(Text("scale?", "スケール？"))
        return Text("; ".join(p.en for p in parts), "、".join(p.ja for p in parts)) if parts else Text.same("–")

    def only_raw(self, lever: str) -> bool:
        """Whether a lever moves LGGW decidedly and LGGW / rms neither decidedly nor half as far."""
        raw, ratio = self.effects[lever]["lggw"], self.effects[lever][WIDTH]
        return raw.decided and not ratio.decided and abs(ratio.change.value) < abs(raw.change.value) / 2

    def is_scale(self, lever: str) -> bool:
        """Whether a lever changes nothing but the scale of weights that a norm makes scale-invariant."""
        return bool(self.settings[lever].get("scale_only"))

    def rank_together(self) -> Interval:
        """Kendall's tau between the changes of LGGW / rms and of the gap over levers, with a bootstrap interval."""
        x, y = (np.array([row[name].change.value for row in self.effects.values()]) for name in (WIDTH, "gap"))
        kept = np.isfinite(x) & np.isfinite(y)
        if kept.sum() < MIN_LEVERS:
            return Interval(kendall(x, y), math.nan, math.nan, math.nan, int(kept.sum()))
        drawn = Resamples(list(range(int(kept.sum()))))
        return drawn.interval(drawn.tau_b(x[kept], y[kept]))

    def scale_pair(self) -> tuple[str, list[Effect]] | None:
        """A lever of scale only against the design that differs in the initial scale alone."""
        for lever in filter(self.is_scale, self.effects):
            for other in self.designs:
                if other != lever and _but_scale(self.settings[other]) == _but_scale(self.settings[lever]):
                    pair = self.designs[other], self.designs[lever]
                    return other, [effect(one, *pair) for one in self.quantities]
        return None


def families(study: StudyRecords) -> list[Family]:
    """Gather the families of a study, in its order."""
    runs: dict[str, dict[str, dict[int, Mapping[str, Any]]]] = {}
    settings: dict[str, dict[str, Mapping[str, Any]]] = {}
    for point in study.points:
        asked, result = point["settings"], point["result"]
        name, lever, seed = str(asked["family"]), str(asked["lever"]), int(asked["seed"])
        runs.setdefault(name, {}).setdefault(lever, {})[seed] = result.get("numbers") or {}
        settings.setdefault(name, {})[lever] = asked
    return [_family(name, designs, settings[name]) for name, designs in runs.items()]


def _family(name: str, designs: Mapping[str, Runs], settings: Mapping[str, Mapping[str, Any]]) -> Family:
    gaps = np.array([number(numbers, "gap") for runs in designs.values() for numbers in runs.values()])
    positive = bool((gaps[np.isfinite(gaps)] > 0).all())
    quantities = tuple(one._replace(ratio=True) if one.name == "gap" and positive else one for one in QUANTITIES)
    base = designs.get(BASE, {})
    levers = [lever for lever in designs if lever != BASE]
    found = adjusted([effect(one, base, designs[lever]) for lever in levers for one in quantities])
    by_lever = {
        lever: {one.name: found[i * len(quantities) + j] for j, one in enumerate(quantities)}
        for i, lever in enumerate(levers)
    }
    order = sorted(levers, key=lambda lever: np.nan_to_num(by_lever[lever][WIDTH].change.value, nan=math.inf))
    return Family(name, designs, settings, quantities, {lever: by_lever[lever] for lever in order})


def _but_scale(settings: Mapping[str, Any]) -> Any:
    """A run's configuration without its seeds and its initial scale."""
    parts = {part: dict(fields) for part, fields in settings.get("config", {}).items()}
    for part, field in (("model", "init_scale"), ("data", "seed"), ("training", "seed")):
        parts.get(part, {}).pop(field, None)
    return parts


def lever_table(family: Family) -> pd.DataFrame:
    """Every effect of a family as a row: the numbers behind its tables and figures."""
    rows = []
    for rank, (lever, row) in enumerate(family.effects.items(), 1):
        for one in row.values():
            rows.append(
                {
                    **{"family": family.name, "rank": rank, "lever": lever, "quantity": one.quantity.name},
                    "change": "log ratio" if one.quantity.ratio else "difference",
                    **{"value": one.change.value, "ci95_low": one.change.low, "ci95_high": one.change.high},
                    **{"wide_low": one.wide.low, "wide_high": one.wide.high, "pairs": one.change.num},
                    **{"p": one.p, "p_holm": one.adjusted, "mark": one.mark, "flag": family.flag(lever).en},
                    **dict(zip(("reached", "runs"), one.reached or (None, len(family.designs[lever])), strict=True)),
                }
            )
    return pd.DataFrame(rows)


def forest_figure(study: StudyRecords, family: Family) -> SavedFigure:
    """Draw the change of LGGW / rms by each lever."""
    effects = [row[WIDTH] for row in family.effects.values()]
    rows = [Row(ratio_of(one.change), one.decided, ratio_of(one.wide)) for one in effects]
    labels = [f"{rank}  {lever}" for rank, lever in enumerate(family.effects, 1)]
    fig, _ = draw_forest(labels, [("", rows)], "LGGW/rms relative to the base design", line=1.0, log=True)
    table = lever_table(family)
    lowered, raised = (sum(one.sign == sign for one in effects) for sign in (-1, 1))
    words = {"family": family.name, "n": len(effects), "down": lowered, "up": raised, "tests": family.num_tests}
    return save_figure(
        study.folder / "figures",
        f"levers-width-{slug(family.name)}",
        fig,
        table.loc[table["quantity"] == WIDTH, :],
        title=Text("What lowers LGGW/rms? ({family})", "何がLGGW/rmsを下げるか（{family}）").format(**words),
        caption=Text(
            "Each lever against the base design on the same seeds. Thick: 95% interval of the one lever. Thin: the "
            "interval at the level at which it is tested among {tests} tests (Holm); points are filled where it leaves "
            "out 1. Long thin lines are cut at the edge.",
            "各設計変更を、同じシードの基準設計と比較しています。太線は個々の95%信頼区間、細線は{tests}個の検定の中で"
            "（Holm補正により）判定に用いた水準の区間です。細線が1を含まない場合に点を塗りつぶしています。長い細線は図の端で"
            "切れています。",
        ).format(**words),
        alt=Text(
            "{n} levers in order of their change of LGGW/rms: {down} decidedly lower it, {up} raise it.",
            "{n}個の設計変更をLGGW/rmsの変化の順に並べた図。有意に下げるもの{down}個、上げるもの{up}個。",
        ).format(**words),
    )


def gap_figure(study: StudyRecords, family: Family, tau: Interval) -> SavedFigure:
    """Draw the change of the gap against the change of LGGW / rms, a point a lever."""
    pairs = [(row[WIDTH], row["gap"]) for row in family.effects.values()]
    ratio = bool(pairs) and pairs[0][1].quantity.ratio
    x = [ratio_of(one.change) for one, _ in pairs]
    y = [ratio_of(one.change) if ratio else one.change for _, one in pairs]
    label = "gap relative to the base design" if ratio else "change of the held-out gap (unit of the loss)"
    xlabel, lines = "LGGW/rms relative to the base design", (1.0, 1.0 if ratio else 0.0)
    fig, _ = draw_crosses(x, y, xlabel, label, lines=lines, log=(True, ratio))
    table = lever_table(family)
    words = {"family": family.name, "tau": tau_text(tau), "n": tau.num}
    return save_figure(
        study.folder / "figures",
        f"levers-gap-{slug(family.name)}",
        fig,
        table.loc[table["quantity"].isin([WIDTH, "gap"]), :],
        title=Text(
            "Does lowering LGGW/rms go with a smaller gap? ({family})",
            "LGGW/rmsが下がると汎化ギャップも縮むか（{family}）",
        ).format(**words),
        caption=Text(
            "A point a lever, numbered as in the table; bars are 95% intervals over seeds, cut at the edge where long. "
            "Kendall's tau over {n} levers: {tau}.",
            "点は各設計変更（番号は表と同じ）、棒はシードに関する95%信頼区間で、長いものは図の端で切れています。"
            "{n}個の設計変更についてのケンドールのτ：{tau}。",
        ).format(**words),
        alt=Text(
            "Scatter of the change of the gap against the change of LGGW/rms for {n} levers; Kendall's tau {tau}.",
            "{n}個の設計変更について、LGGW/rmsの変化と汎化ギャップの変化を示す散布図。ケンドールのτは{tau}。",
        ).format(**words),
    )
