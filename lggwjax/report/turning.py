"""When reusing the samples stopped helping, and how sure that is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lggwjax.report.language import EMPTY, Text
from lggwjax.report.phrases import UNSEEN
from lggwjax.report.records import unseen_word
from lggwjax.report.table import number_text

if TYPE_CHECKING:
    from lggwjax.report.verdict import Verdict

Judged = Sequence[tuple[int, str]]  # measured steps with their words, where there is an interval
_AGREES = Text(", which agrees", "、これと整合します")
_CLOSE = Text(", one measured step away", "、測定1回分だけずれています")
_DISAGREES = Text(", which does not agree: read the figures", "、これと整合しません。図を確認してください")
_HALF = Text(", which does not fully agree: read the figures", "、これと完全には整合しません。図を確認してください")


def turn_sentence(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict, judged: Judged) -> Text:
    """Say when it stopped helping, and how sure that is."""
    sure = [_share_sentence(found, judged), _corroboration(records, found, unseen_word(config)), _looks_sentence(found)]
    told = [part for part in sure if part is not None]
    return Text(
        f"{_turned(judged, found, unseen_word(config)).en}; how sure: {'; '.join(part.en for part in told)}.",
        f"{_turned(judged, found, unseen_word(config)).ja}。確からしさ：{'。'.join(part.ja for part in told)}。",
    )


def _turned(judged: Judged, found: Verdict, unseen: str) -> Text:
    turn = found.turn
    helped = [step for step, word in judged if word == "helps"]
    stray = [step for step, word in judged if word == "hurts" and (turn is None or step < turn[1])]
    aside = EMPTY
    if stray:
        aside = Text(
            f" ({_count(len(stray), 'earlier step')} hurt, with clear help measured after)",
            f"（それ以前に{len(stray)}回の悪化がありましたが、その後に明確な改善が測定されています）",
        )
    if turn is not None:
        after = [step for step in helped if step > turn[1]]
        back = EMPTY
        if after:
            back = Text(
                f", though {_count(len(after), 'later step')} clearly helped again, first step {after[0]:,}",
                f"。ただし、その後も{len(after)}回は再び明確に改善しています（最初はステップ{after[0]:,}）",
            )
        if turn[0] is None:
            return Text(
                f"No step measured before clearly helped, and step {turn[1]:,} was the first that clearly "
                f"hurt{back.en}",
                f"それまでに明確に改善した測定はなく、ステップ{turn[1]:,}で初めて明確に悪化しました{back.ja}",
            )
        return Text(
            f"It {'first ' if after else ''}stopped helping between the measured steps {turn[0]:,} (the last before "
            f"that clearly helped) and {turn[1]:,} (the first that clearly hurt){aside.en}{back.en}",
            f"改善が{'最初に' if after else ''}止まったのは、測定したステップ{turn[0]:,}（明確に改善した最後）"
            f"とステップ{turn[1]:,}（明確に悪化した最初）の間です{aside.ja}{back.ja}",
        )
    if not helped:
        return Text(
            "No measured step clearly helped and none clearly hurt, so no turn can be placed",
            "明確に改善した測定も明確に悪化した測定もなく、転換点は特定できません",
        )
    if judged[-1][1] == "helps":
        return Text(
            f"No turn was seen: {len(helped)} of {_count(len(judged), 'measured step')} clearly helped, the last "
            f"included{aside.en}",
            f"転換点は見られませんでした。{len(judged)}回の測定のうち、"
            f"最後を含む{len(helped)}回で明確に改善しています{aside.ja}",
        )
    return Text(
        f"The last measured step that clearly helped is {helped[-1]:,}, and after it the {UNSEEN[unseen].en} descent "
        f"is too close to zero to tell, so a stop cannot be placed{aside.en}",
        f"明確に改善した最後の測定はステップ{helped[-1]:,}で、その後の{UNSEEN[unseen].ja}降下量は0に近すぎるため、"
        f"いつ止まったかは特定できません{aside.ja}",
    )


def _share_sentence(found: Verdict, judged: Judged) -> Text | None:
    if found.turn is None:
        return None
    if found.negatives == 1:
        return Text(
            f"a single negative interval out of {found.num_looks} carries the turn, which is weak",
            f"転換点の根拠は{found.num_looks}回のうち1回の負の区間だけで、弱いものです",
        )
    later = sum(step >= found.turn[1] for step, _ in judged)
    return Text(
        f"{found.negatives} of the {later} from the turn on are negative, which a single miss cannot explain, though "
        f"they "
        "share the same held-out samples",
        f"転換点以降の{later}回のうち{found.negatives}回が負で、1回の外れでは説明できませんが、"
        "同じホールドアウトを共有しています",
    )


def _looks_sentence(found: Verdict) -> Text:
    looks, missed = found.num_looks, f"{0.05 * found.num_looks:.2g}"
    return Text(
        f"each of the {_count(looks, 'measured step')} has its own 95% interval, with no correction for looking "
        f"{'once' if looks == 1 else f'{looks} times'} (on average {missed} of them miss the truth)",
        f"{looks}回の測定それぞれに95%信頼区間があり、{looks}回見たことの補正はしていません（"
        f"平均して{missed}回は真の値を外します）",
    )


def _corroboration(records: pd.DataFrame, found: Verdict, unseen: str) -> Text:
    word = UNSEEN[unseen]
    if found.lowest_step is None:
        return Text(
            f"no {word.en} loss was recorded that could support or contradict it",
            f"これを裏づける、または否定する{word.ja}損失は記録されていません",
        )
    losses = records.dropna(subset=["heldout_loss"])
    steps = [int(step) for step in losses["step"]]
    values = [float(loss) for loss in losses["heldout_loss"]]
    lowest, low = steps.index(found.lowest_step), number_text(min(values))
    later = EMPTY
    if lowest < len(steps) - 1:
        later = Text(f", {number_text(values[-1])} at the end", f"、最後は{number_text(values[-1])}")
    fact = Text(
        f"the {word.en} loss was lowest at step {found.lowest_step:,} ({low}{later.en})",
        f"{word.ja}損失が最小だったのはステップ{found.lowest_step:,}（{low}{later.ja}）で",
    )
    if found.turn is not None:
        before = max((i for i, step in enumerate(steps) if step <= (found.turn[0] or 0)), default=0)
        behind = min((i for i, step in enumerate(steps) if step >= found.turn[1]), default=len(steps) - 1)
        if before <= lowest <= behind:
            return fact + _AGREES
        return fact + (_CLOSE if before - 1 <= lowest <= behind + 1 else _DISAGREES)
    if found.word == "helps":
        # A plateau wobbles: the end counts as lowest within a hundredth of what the loss moved.
        agrees = values[-1] - min(values) <= 0.01 * (max(values) - min(values))
        return fact + (_AGREES if agrees else _HALF)
    return fact + Text("", "した")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
