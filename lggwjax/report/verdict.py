"""Did reusing the samples still help, when did it stop, and how sure is that: three sentences from the records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from lggwjax.report.records import is_fresh, loss_unit, move_word, unseen_word
from lggwjax.report.table import estimate_text, number_text

Word = Literal["helps", "undecided", "hurts", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What the records say about using the same samples further.

    Attributes:
        word: The word at the last step with a measured descent: ``helps``, ``undecided``, ``hurts``; ``unknown`` where
            the records cannot say.
        num_looks: At how many measured steps the descent has an interval.
        turn: The measured steps ``(last that clearly helped, first that clearly hurt)`` between which helping stopped;
            the first is None if no measured step before clearly helped. None if it did not turn.
        negatives: How many measured steps from the turn on clearly hurt; 0 without a turn.
        lowest_step: The measured step with the lowest held-out loss, None without held-out losses.
        sentences: The answer for a reader: the end, the turn, how sure.
    """

    word: Word
    num_looks: int
    turn: tuple[int | None, int] | None
    negatives: int
    lowest_step: int | None
    sentences: tuple[str, str, str]


def judge(low: float, high: float) -> Word:
    """Judge one population descent by its 95% interval.

    The width takes no part: a large LGGW is no alarm.

    Args:
        low: Lower end, in units of the loss; NaN where nothing was measured.
        high: Upper end.

    Returns:
        ``helps`` if the interval lies above 0, ``hurts`` below, ``undecided`` if 0 is in it, ``unknown`` without one.

    Example:
        >>> judge(0.27, 0.31), judge(-0.0001, 0.004), judge(-0.004, -0.0015)
        ('helps', 'undecided', 'hurts')
    """
    if math.isnan(low) or math.isnan(high):
        return "unknown"
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "undecided"


def words(records: pd.DataFrame) -> list[Word]:
    """Judge every measured step.

    Args:
        records: The table from `load_run`.

    Returns:
        One word per row.

    Example:
        >>> table = pd.DataFrame({"population_descent.ci95_low": [0.1], "population_descent.ci95_high": [0.2]})
        >>> words(table)
        ['helps']
    """
    low, high = records["population_descent.ci95_low"], records["population_descent.ci95_high"]
    return [judge(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def verdict(records: pd.DataFrame, config: Mapping[str, Any]) -> Verdict:
    """Say from the records whether reusing the samples still helped at the end, when it stopped, and how sure that is.

    Each measured step is judged by its own 95% interval (`judge`). Helping stopped at the first two decided steps in a
    row that hurt, or, failing such, at a last decided step that hurts; undecided steps between are passed over.

    Args:
        records: The table from `load_run`, with one row or more.
        config: The object from `load_config`.

    Returns:
        The verdict with its three sentences.

    Raises:
        ValueError: If there is no record.

    Example:
        >>> from lggwjax.report.records import columns
        >>> row = dict.fromkeys(columns()) | {"step": 0, "train_loss": 2.3}
        >>> verdict(pd.DataFrame([row], dtype=float), {}).word
        'unknown'
    """
    if records.empty:
        raise ValueError("Expected at least one measurement, got none. Let the run reach its first measurement.")
    judged: list[tuple[int, Word]] = [
        (int(s), w) for s, w in zip(records["step"], words(records), strict=True) if w != "unknown"
    ]
    turn = _turn(judged)
    negatives = sum(w == "hurts" and step >= turn[1] for step, w in judged) if turn else 0
    losses = records.dropna(subset=["heldout_loss"])
    lowest = None if losses.empty else int(losses.loc[losses["heldout_loss"].idxmin(), "step"])
    last: Word = judged[-1][1] if judged else "unknown"
    found = Verdict(last, len(judged), turn, negatives, lowest, ("", "", ""))
    unseen = unseen_word(config)
    if not judged:
        sentences = _silent_sentences(records, lowest, unseen)
    else:
        sentences = (
            _end_sentence(records, config, found, unseen),
            _turn_sentence(judged, turn, unseen),
            _sure_sentence(records, judged, found, unseen),
        )
    return Verdict(last, len(judged), turn, negatives, lowest, sentences)


def _turn(judged: list[tuple[int, Word]]) -> tuple[int | None, int] | None:
    decided = [(step, word) for step, word in judged if word != "undecided"]
    for i, (step, word) in enumerate(decided):
        # One negative interval followed by a positive one is what chance and a noisy step produce: not a turn.
        if word == "hurts" and (i + 1 == len(decided) or decided[i + 1][1] == "hurts"):
            return (decided[i - 1][0] if i else None), step
    return None


def _silent_sentences(records: pd.DataFrame, lowest: int | None, unseen: str) -> tuple[str, str, str]:
    first, last = records.iloc[0].to_dict(), records.iloc[-1].to_dict()
    if lowest is None:
        return (
            "This run has no held-out part, so it cannot say whether using the samples again helped on unseen data.",
            f"The train loss went from {number_text(first['train_loss'])} at step {first['step']:,.0f} to "
            f"{number_text(last['train_loss'])} at step {last['step']:,.0f}, which says nothing about unseen data.",
            "The widths describe the samples trained on; to get an answer, keep samples out of training and run again.",
        )
    return (
        f"This run has {unseen} losses but no descent of single steps: it cannot say whether the last step helped.",
        f"The {unseen} loss was lowest at measured step {lowest:,} of those up to step {last['step']:,.0f}.",
        "That is a hint and no test: the losses have no error bars, and the lowest of several looks lower than it is.",
    )


def _end_sentence(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict, unseen: str) -> str:
    row = records.dropna(subset=["population_descent.ci95_low", "population_descent.ci95_high"]).iloc[-1].to_dict()
    passes = float(row["passes"])
    move = move_word(config)
    uncounted = math.isnan(passes) or is_fresh(config)
    where = f"step {row['step']:,.0f}" + ("" if uncounted else f", {number_text(passes)} passes")
    place = {"helps": "above zero", "hurts": "below zero", "undecided": "across zero"}[found.word]
    descent = f"{unseen} descent {estimate_text(row, 'population_descent')} {loss_unit(records)}, 95% interval {place}"
    effect = {
        "helps": "still helped",
        "hurts": "hurt",
        "undecided": "neither clearly helped nor clearly hurt",
    }[found.word]
    if is_fresh(config):
        return (
            f"No sample was used twice: every step drew new ones, so this run does not speak of reuse; its last "
            f"measured step ({where}) {effect} ({descent})."
        )
    if passes <= 1:
        return (
            f"The samples were gone through at most once, so reuse had not begun; the last measured {move} ({where}) "
            f"{effect} on {unseen} data ({descent})."
        )
    unclear = "No longer clearly" if found.turn else "Undecided"
    what = "a step over the same samples" if move == "step" else "the move from the checkpoint before"
    opening = {"helps": "Yes", "hurts": "No", "undecided": unclear}[found.word]
    data = "the population" if unseen == "population" else "held-out data"
    return f"{opening}: at the end ({where}) {what} {effect} on {data} ({descent})."


def _turn_sentence(judged: list[tuple[int, Word]], turn: tuple[int | None, int] | None, unseen: str) -> str:
    helped = [step for step, word in judged if word == "helps"]
    stray = [step for step, word in judged if word == "hurts" and (turn is None or step < turn[1])]
    aside = f" ({_count(len(stray), 'earlier step')} hurt, with clear help measured after)" if stray else ""
    if turn is not None:
        after = [step for step in helped if step > turn[1]]
        back = f"; {_count(len(after), 'later step')} clearly helped again, first step {after[0]:,}" if after else ""
        if turn[0] is None:
            return f"No step measured before clearly helped; step {turn[1]:,} was the first that clearly hurt{back}."
        return (
            f"It {'first ' if after else ''}stopped helping between the measured steps {turn[0]:,} (the last before "
            f"that clearly helped) and {turn[1]:,} (the first that clearly hurt){aside}{back}."
        )
    if not helped:
        return "No measured step clearly helped and none clearly hurt, so no turn can be placed."
    if judged[-1][1] == "helps":
        looks = _count(len(judged), "measured step")
        return f"No turn was seen: {len(helped)} of {looks} clearly helped, the last included{aside}."
    return (
        f"The last measured step that clearly helped is {helped[-1]:,}; after it the {unseen} descent is too close to "
        f"zero to tell, so a stop cannot be placed{aside}."
    )


def _sure_sentence(records: pd.DataFrame, judged: list[tuple[int, Word]], found: Verdict, unseen: str) -> str:
    looks = found.num_looks
    parts = [
        f"How sure: {_count(looks, 'measured step')}, each with its own 95% interval and no correction for looking "
        f"{'once' if looks == 1 else f'{looks} times'} (on average {0.05 * looks:.2g} of them miss the truth)"
    ]
    if found.turn is not None:
        later = sum(step >= found.turn[1] for step, _ in judged)
        if found.negatives == 1:
            parts.append(f"a single negative interval out of {looks} carries the turn, which is weak")
        else:
            parts.append(
                f"{found.negatives} of the {later} from the turn on are negative, which a single miss cannot explain, "
                "though they share the same held-out samples"
            )
    parts.append(_corroboration(records, found, unseen))
    return "; ".join(parts) + "."


def _corroboration(records: pd.DataFrame, found: Verdict, unseen: str) -> str:
    if found.lowest_step is None:
        return f"no {unseen} loss was recorded that could support or contradict it"
    losses = records.dropna(subset=["heldout_loss"])
    steps = [int(step) for step in losses["step"]]
    values = [float(loss) for loss in losses["heldout_loss"]]
    lowest = steps.index(found.lowest_step)
    later = "" if lowest == len(steps) - 1 else f", {number_text(values[-1])} at the end"
    fact = f"the {unseen} loss was lowest at step {found.lowest_step:,} ({number_text(min(values))}{later})"
    if found.turn is not None:
        before = max((i for i, step in enumerate(steps) if step <= (found.turn[0] or 0)), default=0)
        behind = min((i for i, step in enumerate(steps) if step >= found.turn[1]), default=len(steps) - 1)
        if before <= lowest <= behind:
            return f"{fact}, which agrees"
        close = before - 1 <= lowest <= behind + 1
        return f"{fact}, {'one measured step away' if close else 'which does not agree: read the figures'}"
    if found.word == "helps":
        # A plateau wobbles: the end counts as lowest within a hundredth of what the loss moved.
        agrees = values[-1] - min(values) <= 0.01 * (max(values) - min(values))
        return f"{fact}, {'which agrees' if agrees else 'which does not fully agree: read the figures'}"
    return fact


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
