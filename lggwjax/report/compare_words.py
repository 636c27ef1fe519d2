"""What is said about several runs: which design is better and how sure, what to do, what must not be said."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lggwjax.report.designs import MIN_SEEDS, Pair, Run, losses_of, one_population
from lggwjax.report.document import Tone
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.phrases import UNITS
from lggwjax.report.records import loss_unit
from lggwjax.report.statistics import Interval
from lggwjax.report.table import interval_text, number_text, p_text

_LEVEL = 0.05
_MOST_NAMED = 4
_MOST_SEEDS = 200  # more seeds than that are no advice


def answer(runs: Sequence[Run], names: dict[str, str], pairs: Sequence[Pair]) -> tuple[tuple[Text, Text, Text], Tone]:
    """Say what was compared, which is better and how sure, and what to do next."""
    ranked = _ranked(runs, names)
    if not ranked or not one_population(runs):
        return _silent(runs, names, known=bool(ranked)), "undecided"
    values = {"num": len(runs), "designs": len(names), "s": "s" * (len(names) != 1), "unit": _unit(runs)}
    values |= {"best": names[ranked[0][0]], "low": number_text(ranked[0][1])}
    listed = [f"{names[design]} {number_text(loss)}" for design, loss in ranked[:_MOST_NAMED]]
    compared = Text(
        "{num} runs of {designs} design{s} were compared by the held-out loss at their last measurement: "
        "{list}{unit}{rest}.",
        "{designs}種類の設計による{num}件の実行を、最後の測定でのホールドアウト損失で比較しました（"
        "{list}{unit}{rest}）。",
    ).format(
        list=Text(", ".join(listed), "、".join(listed)),
        rest=Text(" and higher for the others", "、ほかはそれより高い値") if len(ranked) > _MOST_NAMED else EMPTY,
        **values,
    )
    if len(ranked) < 2:
        return (compared, *_single(runs, ranked[0][0])), "undecided"
    rivals = _rivals(ranked, pairs)
    values |= {"second": names[ranked[1][0]], "least": min(len(losses_of(runs, design)) for design, _ in ranked)}
    if rivals is None:
        how = Text(
            "{best} ended lowest ({low}{unit}), but that is not decided: {why}.",
            "最も低かったのは{best}（{low}{unit}）ですが、判定はできません。{why}。",
        ).format(why=_few(runs, names), **values)
        todo = Text(
            "Next: run each design with the same {need} seeds or more, and compare again.",
            "次に行うこと：各設計を同じ{need}個以上のシードで実行し、もう一度比較してください。",
        ).format(need=max(5, MIN_SEEDS))
        return (compared, how, todo), "undecided"
    closest = max(rivals, key=lambda pair: pair.adjusted)
    values |= {
        "rival": names[closest.second],
        "difference": interval_text(_negated(closest.difference)),
        "seeds": closest.difference.num,
        "p": p_text(closest.adjusted),
    }
    if closest.adjusted <= _LEVEL:
        how = Text(
            "{best} is better: even against {rival}, the least clear of the others, its held-out loss is lower by "
            "{difference}{unit} on equal seeds (95% interval, {seeds} seeds, {p} after Holm's correction).",
            "{best}のほうが優れています。差が最も不確かな{rival}と比べても、"
            "同じシードでのホールドアウト損失は{difference}{unit}低くなっています（95%信頼区間、シード{seeds}個、"
            "ホルム法による補正後{p}）。",
        ).format(**values)
        todo = Text(
            "Next: choose {best}, and report its loss on data that took no part in this choice.",
            "次に行うこと：{best}を採用し、この選択に使っていないデータでの損失を報告してください。",
        ).format(**values)
        return (compared, how, todo), "helps"
    how = Text(
        "{best} has the lowest mean ({low}{unit}), but it is not decided against {rival}: the difference on equal "
        "seeds is {difference}{unit} (95% interval, {seeds} seeds, {p} after Holm's correction).",
        "平均が最も低いのは{best}（{low}{unit}）ですが、{rival}との優劣は判定できません。"
        "同じシードでの差は{difference}{unit}にとどまります（95%信頼区間、シード{seeds}個、ホルム法による補正後{p}）"
        "。",
    ).format(**values)
    return (compared, how, _more_seeds(closest)), "undecided"


def limits(
    pairs: Sequence[Pair], widths: str | None, *, comparable: bool, one_end: bool
) -> tuple[list[Text], list[Text]]:
    """List what may be concluded from the comparison, and what may not."""
    may, may_not = [], []
    if pairs:
        may.append(
            Text(
                "For a pair whose corrected p is at most 0.05: which of the two designs has the lower held-out loss "
                "on average over seeds, on data of this source.",
                "補正後の p が0.05以下の組について：この出どころのデータで、"
                "シードについて平均したホールドアウト損失が低いのはどちらの設計か。",
            )
        )
    else:
        may_not.append(
            Text(
                "That one design is better than another: no two of them have three seeds in common.",
                "ある設計がほかより優れているということ。共通のシードが3個以上ある設計の組がありません。",
            )
        )
    if widths is None:
        may.append(
            Text(
                "LGGW over rms may be compared between these runs: schedules, probes and directions are equal.",
                "LGGW と rms の比は、これらの実行の間で比較してよい。測定計画、プローブ、方向の数が等しいからです。",
            )
        )
    else:
        may_not.append(
            Text(
                "Anything from differences in LGGW: schedules or probes differ, and a width only grows with more "
                "checkpoints or samples.",
                "LGGW の差からの結論。測定計画またはプローブが異なり、"
                "幅はチェックポイントやサンプルが増えると大きくなる一方です。",
            )
        )
    if not comparable:
        may_not.append(
            Text("Anything from differences in loss: the data differ.", "損失の差からの結論。データが異なります。")
        )
    if not one_end:
        may_not.append(
            Text(
                "That the settings alone make the difference: the runs ended at different steps.",
                "設定だけが差を生んだということ。最後に測定したステップが実行によって異なります。",
            )
        )
    may_not += [
        Text(
            "That a smaller LGGW makes a design the better one: it describes, the held-out loss decides.",
            "LGGW が小さい設計のほうが優れているということ。LGGW は記述であり、判断するのはホールドアウト損失です。",
        ),
        Text(
            "That the held-out loss of the chosen design is as low on new data: the lowest of several looks lower "
            "than it is.",
            "選んだ設計のホールドアウト損失が、新しいデータでも同じように低いということ。"
            "複数から選んだ最小値は実際より低く見えます。",
        ),
    ]
    return may, may_not


def meeting(runs: Sequence[Run], names: dict[str, str], pairs: Sequence[Pair]) -> tuple[Text, list[Text]]:
    """Write one sentence to say about the comparison, and those that must not be said."""
    (_, how, _), tone = answer(runs, names, pairs)
    ranked = _ranked(runs, names)
    best = names[ranked[0][0]] if ranked else runs[0].name
    unsaid = [
        Text(
            f"“{best} has the smaller LGGW, so it generalizes better.” Along the path trained on, LGGW is an "
            f"observation, no guarantee.",
            f"「{best}は LGGW が小さいから汎化する」：訓練した経路上の LGGW は、保証ではなく観測値です。",
        ),
        Text(
            f"“{best} is the best design there is.” Only {len(names)} were tried, on one kind of data.",
            f"「{best}が最良の設計だ」：試したのは1種類のデータでの{len(names)}種類だけです。",
        ),
    ]
    if tone == "undecided":
        unsaid.insert(
            0,
            Text(
                "“The designs are equally good.” Not decided is not equal.",
                "「どの設計も同じだ」：判定できないことは、等しいことではありません。",
            ),
        )
    return Text(f"“{how.en}”", f"「{how.ja}」"), unsaid


def _ranked(runs: Sequence[Run], names: dict[str, str]) -> list[tuple[str, float]]:
    """Order the designs by their mean final held-out loss; those without one are left out."""
    found = [(design, list(losses_of(runs, design).values())) for design in names]
    return sorted(((design, float(np.mean(losses))) for design, losses in found if losses), key=lambda pair: pair[1])


def _rivals(ranked: Sequence[tuple[str, float]], pairs: Sequence[Pair]) -> list[Pair] | None:
    """Turn the pairs of the best design so that it comes first; None where it lacks one."""
    best, turned = ranked[0][0], []
    for other, _ in ranked[1:]:
        pair = next((p for p in pairs if {p.first, p.second} == {best, other}), None)
        if pair is None:
            return None
        d = pair.difference
        same = d if pair.first == best else _negated(d)
        turned.append(Pair(best, other, same, pair.adjusted))
    return turned


def _negated(found: Interval) -> Interval:
    return Interval(-found.value, -found.high, -found.low, found.stderr, found.num)


def _few(runs: Sequence[Run], names: dict[str, str]) -> Text:
    most = max(len(losses_of(runs, design)) for design in names)
    if most <= 1:
        return Text("one seed each", "シードが1個ずつしかありません")
    return Text(
        f"a comparison needs {MIN_SEEDS} seeds that both designs have",
        f"比較には、両方の設計に共通のシードが{MIN_SEEDS}個必要です",
    )


def _single(runs: Sequence[Run], design: str) -> tuple[Text, Text]:
    losses = list(losses_of(runs, design).values())
    spread = float(np.std(losses, ddof=1)) if len(losses) > 1 else math.nan
    return (
        Text(
            f"All are repetitions of one design, so there is nothing to choose between; over the seeds the loss has "
            f"a standard deviation of {number_text(spread)}.",
            f"すべて同じ設計のくり返しなので、選ぶべきものはありません。"
            f"シードの間の損失の標準偏差は{number_text(spread)}です。",
        ),
        Text(
            "Next: add runs of another design with the same seeds.",
            "次に行うこと：同じシードで別の設計の実行を加えてください。",
        ),
    )


def _silent(runs: Sequence[Run], names: dict[str, str], *, known: bool) -> tuple[Text, Text, Text]:
    why = (
        Text("they were trained on different data", "訓練データが異なる")
        if known
        else Text("none has a held-out loss", "ホールドアウト損失がない")
    )
    return (
        Text(
            f"{len(runs)} runs of {len(names)} design{'s' * (len(names) != 1)} were put side by side.",
            f"{len(names)}種類の設計による{len(runs)}件の実行を並べました。",
        ),
        Text("Which is better is not decided: {why}.", "どれが良いかは判定できません。{why}ためです。").format(why=why),
        Text(
            "Next: run the designs on the same data with a held-out part and with the same seeds, five or more.",
            "次に行うこと：ホールドアウトを設け、同じデータ、同じ5個以上のシードで各設計を実行してください。",
        ),
    )


def _more_seeds(pair: Pair) -> Text:
    difference = pair.difference
    half = (difference.high - difference.low) / 2
    needed = difference.num * (half / difference.value) ** 2 if difference.value else math.inf
    if not needed <= _MOST_SEEDS:
        return Text(
            "Next: choose by cost, for the difference is too small to be settled by a reasonable number of seeds.",
            "次に行うこと：差は現実的な数のシードでは判定できないほど小さいので、コストで選んでください。",
        )
    return Text(
        "Next: run about {needed} seeds instead of {num} of each, which would decide if the difference is as measured.",
        "次に行うこと：シードを{num}個から約{needed}個に増やしてください。差が測定値どおりなら判定できます。",
    ).format(needed=max(difference.num + 1, math.ceil(1.2 * needed)), num=difference.num)


def _unit(runs: Sequence[Run]) -> Text:
    return UNITS[loss_unit(pd.concat([run.records for run in runs]))]
