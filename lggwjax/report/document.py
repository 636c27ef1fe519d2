"""What a page says, whatever it is about: a run, a study or a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from lggwjax.report.language import EMPTY, Text
from lggwjax.report.style import style
from lggwjax.strict import room_for

Tone = Literal["helps", "undecided", "hurts"]
Outcome = Literal["confirmed", "not confirmed", "not decided"]


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk, with the words beside it.

    Attributes:
        name: Of its files: ``name.png``, ``name.svg`` and the numbers in ``name.csv``.
        title: What question it answers.
        caption: What is drawn, and what the bands and lines are worth.
        alt: What a person who cannot see it has to know.
        svg: Where the drawing lies.
        size: Width and height, for the page's layout; any unit.
    """

    name: str
    title: Text
    caption: Text
    alt: Text
    svg: Path
    size: tuple[int, int]


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: Its heading.
        headings: One a column; the first column names the row.
        rows: Cells as they are shown, as many a row as there are headings.
        note: What error bars, signs and marks in it mean; empty for nothing.
        numbers: Whether the cells are numbers, to be set right-aligned.
    """

    title: Text
    headings: Sequence[Text]
    rows: Sequence[Sequence[Text | str]]
    note: Text = EMPTY
    numbers: bool = True

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"Expected {len(self.headings)} cells in a row of {self.title.en!r}, got {len(row)}.")


@dataclass(frozen=True)
class Finding:
    """What became of a claim.

    Attributes:
        claim: The claim, in one sentence.
        outcome: Whether the numbers confirm it; ``not confirmed`` says that they speak against it.
        numbers: The numbers, with their error bars.
    """

    claim: Text
    outcome: Outcome
    numbers: Text


@dataclass(frozen=True)
class Document:
    """One page.

    Attributes:
        kind: What it is about: a training run, a study, a comparison.
        title: Its name.
        done: What was done, in a sentence or two.
        question: The heading of the answer.
        answer: Three sentences: what was compared, which is better and how sure, what to do next.
        tone: Colours the answer.
        figures: In the order of the page.
        findings: Claims and what became of them.
        tables: In the order of the page.
        meaning: Paragraphs that explain what is shown.
        may: What may be concluded.
        may_not: What may not.
        method: Paragraphs: what was run, how numbers and error bars came about.
        say: One sentence for a meeting, with the measured numbers.
        do_not_say: Sentences that the numbers do not support.
        config: What was asked for, printed as it is.
        environment: Versions and hardware.
    """

    kind: Text
    title: Text
    done: Text
    question: Text
    answer: tuple[Text, Text, Text]
    tone: Tone
    say: Text
    do_not_say: Sequence[Text]
    figures: Sequence[SavedFigure] = ()
    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    meaning: Sequence[Text] = ()
    may: Sequence[Text] = ()
    may_not: Sequence[Text] = ()
    method: Sequence[Text] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def save_figure(
    folder: Path, name: str, fig: Figure, data: pd.DataFrame, *, title: Text, caption: Text, alt: Text
) -> SavedFigure:
    """Write a figure as PNG and SVG, with the CSV behind it.

    Args:
        folder: Where to; made if it is not there.
        name: Of the files.
        fig: The figure.
        data: The numbers drawn.
        title: See :class:`SavedFigure`.
        caption: The same.
        alt: The same.

    Returns:
        The figure on disk.
    """
    csv, png, svg = (room_for(folder / f"{name}.{suffix}") for suffix in ("csv", "png", "svg"))
    data.to_csv(csv, index=False)
    with style():
        # The layout is settled once; otherwise each format solves it again, which doubles the time.
        fig.draw_without_rendering()
        fig.set_layout_engine("none")
        fig.savefig(png)
        fig.savefig(svg, metadata={"Date": None})
    width, height = (round(100 * inches) for inches in fig.get_size_inches())
    return SavedFigure(name, title, caption, alt, svg, (width, height))
