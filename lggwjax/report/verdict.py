"""Did reusing the samples still help, when did it stop, and how sure is that: read off the records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from lggwjax.report.answer import end_sentence, next_sentence, silent_sentences
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.records import unseen_word
from lggwjax.report.turning import turn_sentence

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
        sentences: The answer for a reader: what was looked at and how it ended; when it turned, how sure that is; what
            to do next.
    """

    word: Word
    num_looks: int
    turn: tuple[int | None, int] | None
    negatives: int
    lowest_step: int | None
    sentences: tuple[Text, Text, Text]


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
    found = Verdict(last, len(judged), turn, negatives, lowest, (EMPTY, EMPTY, EMPTY))
    if not judged:
        return replace(found, sentences=silent_sentences(records, lowest, unseen_word(config)))
    sentences = (
        end_sentence(records, config, found),
        turn_sentence(records, config, found, judged),
        next_sentence(records, config, found),
    )
    return replace(found, sentences=sentences)


def _turn(judged: list[tuple[int, Word]]) -> tuple[int | None, int] | None:
    decided = [(step, word) for step, word in judged if word != "undecided"]
    for i, (step, word) in enumerate(decided):
        # One negative interval followed by a positive one is what chance and a noisy step produce: not a turn.
        if word == "hurts" and (i + 1 == len(decided) or decided[i + 1][1] == "hurts"):
            return (decided[i - 1][0] if i else None), step
    return None
