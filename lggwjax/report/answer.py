"""Did reusing the samples still help: how it ended and what to do next, in words, with the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from lggwjax.report.language import EMPTY, Text
from lggwjax.report.phrases import MOVES, UNITS, UNSEEN
from lggwjax.report.records import is_fresh, loss_unit, move_word, unseen_word
from lggwjax.report.table import estimate_text, number_text

if TYPE_CHECKING:
    from lggwjax.report.verdict import Verdict

_MOST_HELDOUT = 10_000_000  # more held-out samples than that are no advice

_OPENINGS = {
    "helps": Text("Yes", "はい"),
    "hurts": Text("No", "いいえ"),
    "unclear": Text("No longer clearly", "もはや明確ではありません"),
    "undecided": Text("Undecided", "判定できません"),
}
_EFFECTS = {
    "helps": Text("still helped", "まだ改善をもたらしていました"),
    "hurts": Text("hurt", "悪化をもたらしていました"),
    "undecided": Text("neither clearly helped nor clearly hurt", "改善とも悪化とも言えませんでした"),
}
_PLACES = {
    "helps": Text("95% interval above zero", "95%信頼区間は0より上"),
    "hurts": Text("95% interval below zero", "95%信頼区間は0より下"),
    "undecided": Text("95% interval across zero", "95%信頼区間は0をまたぐ"),
}
_DATA = {
    "held-out": Text("held-out data", "ホールドアウトデータ"),
    "population": Text("the population", "母集団"),
}


def subject(config: Mapping[str, Any]) -> Text:
    """Name what was trained, and on what.

    Example:
        >>> subject({"model": {"name": "ffn"}, "data": {"name": "digits"}}).ja
        'ffn（データ：digits）'
    """
    parts = (config.get(part) for part in ("model", "data"))
    model, data = (part.get("name") if isinstance(part, Mapping) else None for part in parts)
    if not model:
        return Text("the model", "モデル")
    if not data:
        return Text.same(model)
    return Text("{model} on {data}", "{model}（データ：{data}）").format(model=model, data=data)


def silent_sentences(records: pd.DataFrame, lowest: int | None, unseen: str) -> tuple[Text, Text, Text]:
    """Answer for a run without a single measured descent: what it cannot say, what was seen, what to do."""
    first, last = records.iloc[0].to_dict(), records.iloc[-1].to_dict()
    if lowest is None:
        return (
            Text(
                "This run has no held-out part, so it cannot say whether using the samples again helped on unseen "
                "data.",
                "この実行にはホールドアウトがないため、"
                "サンプルの再利用が未見データで役に立ったかどうかは分かりません。",
            ),
            Text(
                "The train loss went from {a} at step {i} to {b} at step {j}, which says nothing about unseen data; "
                "the widths describe the samples trained on.",
                "訓練損失はステップ{i}の{a}からステップ{j}の{b}に変わりましたが、"
                "これは未見データについて何も語りません。幅も、訓練に使ったサンプルの記述にとどまります。",
            ).format(
                a=number_text(first["train_loss"]),
                b=number_text(last["train_loss"]),
                i=f"{first['step']:,.0f}",
                j=f"{last['step']:,.0f}",
            ),
            Text(
                "Next: keep samples out of training and run again.",
                "次に行うこと：一部のサンプルを訓練から外してホールドアウトとし、もう一度実行してください。",
            ),
        )
    values: dict[str, Any] = {"unseen": UNSEEN[unseen], "low": f"{lowest:,}", "last": f"{last['step']:,.0f}"}
    return (
        Text(
            "This run has {unseen} losses but no descent of single steps: it cannot say whether the last step helped.",
            "この実行には{unseen}損失はありますが、各ステップの降下量がないため、"
            "最後のステップが役に立ったかどうかは分かりません。",
        ).format(**values),
        Text(
            "The {unseen} loss was lowest at measured step {low} of those up to step {last}, which is a hint and no "
            "test: the losses have no error bars, and the lowest of several looks lower than it is.",
            "{unseen}損失は、ステップ{last}までの測定のうちステップ{low}で最小でしたが、"
            "これは手がかりであって検定ではありません。損失に誤差の幅はなく、"
            "複数の値の最小値は実際より低く見えるからです。",
        ).format(**values),
        Text(
            "Next: run again with a held-out part, so that the descent of the steps is measured.",
            "次に行うこと：ホールドアウトを設けて再実行し、ステップごとの降下量を測定してください。",
        ),
    )


def end_sentence(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict) -> Text:
    """Say what was looked at, and what the last measured step did."""
    row, unseen, move = last_judged(records), unseen_word(config), move_word(config)
    passes = float(row["passes"])
    uncounted = math.isnan(passes) or is_fresh(config)
    where = Text("step {s}", "ステップ{s}").format(s=f"{row['step']:,.0f}")
    if not uncounted:
        where += Text(", {p} passes", "、{p}エポック").format(p=number_text(passes))
    values: dict[str, Any] = {
        "subject": subject(config),
        "looks": f"{found.num_looks} step{'s' * (found.num_looks != 1)}",
        "num": found.num_looks,
        "where": where,
        "effect": _EFFECTS[found.word],
        "unseen": UNSEEN[unseen],
        "data": _DATA[unseen],
        "move": MOVES[move],
        "descent": descent_text(records, config) + Text(", ", "、") + _PLACES[found.word],
    }
    if is_fresh(config):
        return Text(
            "{subject} was measured at {looks}, and no sample was used twice: every step drew new ones, so this run "
            "does not speak of reuse; its last measured step ({where}) {effect} ({descent}).",
            "{subject}を{num}回測定しましたが、同じサンプルは二度使われていません。"
            "毎ステップ新しいサンプルを引いたので、この実行は再利用については何も語らず、最後に測定したステップ（"
            "{where}）は{effect}（{descent}）。",
        ).format(**values)
    if passes <= 1:
        return Text(
            "{subject} was measured at {looks}, and the samples were gone through at most once, so reuse had not "
            "begun; the last measured {move} ({where}) {effect} on {unseen} data ({descent}).",
            "{subject}を{num}回測定しましたが、サンプルは高々1巡しか使われておらず、再利用はまだ始まっていません。"
            "最後に測定した{move}（{where}）は、{unseen}データに対して{effect}（{descent}）。",
        ).format(**values)
    again = {
        "step": Text("a step over the same samples", "同じサンプルによる1ステップ"),
        "move": Text("the move from the checkpoint before", "直前のチェックポイントからの更新"),
    }
    unclear = "unclear" if found.turn else "undecided"
    return Text(
        "{opening}: {subject} was measured at {looks}, and at the end ({where}) {what} {effect} on {data} ({descent}).",
        "{opening}。{subject}を{num}回測定したところ、最後（{where}）の{what}は、{data}に対して{effect}（{descent}）。",
    ).format(opening=_OPENINGS[unclear if found.word == "undecided" else found.word], what=again[move], **values)


def next_sentence(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict) -> Text:
    """Say what to do next, which depends on what the last measured step did."""
    early = unfinished(records, config)
    if early is not EMPTY:
        return early + Text(
            " Next: go on with --resume before anything is concluded; if training became NaN or infinite, lower the "
            "learning rate first.",
            "次に行うこと：結論を出す前に --resume を付けて続けてください。学習が NaN や無限大になった場合は、先に学習率を下げてください。",
        )
    row = last_judged(records)
    if found.word == "helps":
        same = EMPTY if is_fresh(config) else Text(" with these samples", "このサンプルのまま")
        return Text(
            "Next: go on{same}, and measure again at about step {twice}: that it still helps holds for now only.",
            "次に行うこと：{same}学習を続け、ステップ{twice}ごろにもう一度測定してください。"
            "役に立つと言えるのは現時点までです。",
        ).format(same=same, twice=f"{2 * max(1, int(row['step'])):,}")
    if found.word == "hurts":
        then = _COLLECT if not is_fresh(config) else _SMALLER
        return Text("Next: {back}, {then}.", "次に行うこと：{back}、{then}。").format(back=_back(found), then=then)
    needed = _needed(row, config)
    if found.turn is not None and not is_fresh(config):
        settle = (
            EMPTY if needed is None else needed + Text(" would settle the last step", "最後のステップも判定できます")
        )
        return Text(
            "Next: {back}, and do not go on with these samples{settle}.",
            "次に行うこと：{back}、このサンプルでの学習はそこまでにしてください。{settle}",
        ).format(back=_back(found), settle=_ended(settle))
    high = number_text(float(row["population_descent.ci95_high"]))
    gain = Text("one step gains at most {high}{unit}", "1ステップで得られるのは高々{high}{unit}です")
    gain = gain.format(high=high, unit=UNITS[loss_unit(records)])
    if needed is None:
        return Text(
            "Next: measure at more steps, and stop if training for that gain is not worth its cost: to first order, "
            "{gain}.",
            "次に行うこと：測定するステップを増やしてください。一次近似では{gain}から、"
            "費用に見合わなければ止めてかまいません。",
        ).format(gain=gain)
    return Text(
        "Next: judge again with more held-out samples, for {needed} would decide; until then, {gain}, to first order.",
        "次に行うこと：ホールドアウトを増やして判定し直してください。{needed}判定できます。それまでは、"
        "一次近似で{gain}。",
    ).format(needed=needed, gain=gain)


def descent_text(records: pd.DataFrame, config: Mapping[str, Any]) -> Text:
    """Write the last measured descent with its interval and its unit."""
    return Text("{unseen} descent {number}{unit}", "{unseen}降下量 {number}{unit}").format(
        unseen=UNSEEN[unseen_word(config)],
        number=estimate_text(last_judged(records), "population_descent"),
        unit=UNITS[loss_unit(records)],
    )


def last_judged(records: pd.DataFrame) -> dict[Any, Any]:
    """Pick the last row whose descent has an interval."""
    return records.dropna(subset=["population_descent.ci95_low", "population_descent.ci95_high"]).iloc[-1].to_dict()


_COLLECT = Text(
    "stop reusing these samples there, and collect more if the loss at that point is not good enough",
    "このサンプルの再利用はそこで止めてください。その時点の損失で不十分なら、サンプルを追加してください",
)
_SMALLER = Text(
    "and go on from there with smaller or less noisy steps: as every sample is new, it is the step that is too long",
    "そこから更新の幅か雑音を小さくして続けてください。サンプルは毎回新しいので、長すぎるのはステップのほうです",
)


def unfinished(records: pd.DataFrame, config: Mapping[str, Any]) -> Text:
    """Say that a run was to be measured further; empty where it was not, or where nobody knows."""
    asked = (config.get("measuring") or {}).get("steps") if isinstance(config.get("measuring"), Mapping) else None
    last = int(records["step"].iloc[-1])
    if (
        not isinstance(asked, list)
        or not asked
        or not all(isinstance(step, int) for step in asked)
        or max(asked) <= last
    ):
        return EMPTY
    return Text(
        "The run ended early: it is at step {last} of {end}, with {k} of {n} measurements.",
        "この実行は途中で終わっています（ステップ{last}／{end}、測定{k}／{n}回）。",
    ).format(last=f"{last:,}", end=f"{max(asked):,}", k=len(records), n=len(asked))


def _back(found: Verdict) -> Text:
    last, first = found.turn or (None, 0)
    if last is not None and found.lowest_step is not None and last < found.lowest_step:
        return Text(
            "go back to the checkpoint of step {low}, which has the lowest held-out loss (step {s} is the last that "
            "clearly helped)",
            "ホールドアウト損失が最小のステップ{low}のチェックポイントに戻り（明確に改善した最後の測定はステップ{s}）",
        ).format(low=f"{found.lowest_step:,}", s=f"{last:,}")
    if last is None:
        return Text(
            "go back to before step {s}, the first that clearly hurt", "明確に悪化した最初のステップ{s}より前に戻り"
        ).format(s=f"{first:,}")
    return Text(
        "go back to the checkpoint of step {s}, the last that clearly helped",
        "明確に改善した最後の測定、ステップ{s}のチェックポイントに戻り",
    ).format(s=f"{last:,}")


def _ended(text: Text) -> Text:
    return text if text is EMPTY else Text(f"; {text.en}", f"{text.ja}。")


def _needed(row: Mapping[Any, Any], config: Mapping[str, Any]) -> Text | None:
    """Say how many held-out samples would decide the last step: the error falls as their root, the value stays."""
    number = held_out(config)
    value, low, high = (float(row[f"population_descent.{f}"]) for f in ("value", "ci95_low", "ci95_high"))
    if number is None or value == 0 or unseen_word(config) == "population":
        return None
    needed = number * ((high - low) / (2 * value)) ** 2
    if not needed < _MOST_HELDOUT:
        return None
    digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return Text(
        "about {needed} held-out samples instead of {n} (if the descent is as measured)",
        "降下量が測定値どおりなら、ホールドアウトを{n}個から約{needed}個に増やせば",
    ).format(needed=f"{math.ceil(needed / digits) * digits:,}", n=f"{number:,}")


def held_out(config: Mapping[str, Any]) -> int | None:
    """Find how many samples were held out; None where it was not recorded."""
    for name in ("num_heldout", "heldout_samples"):
        for part in ("data", "measuring"):
            number = (config.get(part) or {}).get(name) if isinstance(config.get(part), Mapping) else None
            if isinstance(number, int) and number > 0:
                return number
    return None
