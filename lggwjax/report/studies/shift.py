"""What the study of drifting data shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lggwjax.report.document import Document, Finding, SavedFigure, Table, save_figure
from lggwjax.report.drawing import Line, draw_intervals, draw_panels
from lggwjax.report.language import Text, joined
from lggwjax.report.statistics import Interval, mean_interval
from lggwjax.report.studies import shift_words as words
from lggwjax.report.studies.alarms import WINDOW, descent_alarm, loss_alarm, rise_alarm
from lggwjax.report.studies.cases import missing_table, with_seeds
from lggwjax.report.studies.common import (
    STUDY,
    asked_for,
    environment,
    interval_text,
    missing_points,
    outcome_of,
    write_table,
)
from lggwjax.report.studies.seeds import seed_line
from lggwjax.report.study import StudyRecords

_CONTROL = "none"


@dataclass(frozen=True)
class Run:
    """One stream.

    Attributes:
        shift: What happened half-way.
        seed: Of stream and start.
        steps: Of the looks, counted from the shift.
        columns: Signals by name.
        alarms: For each signal the looks after the shift at which it says so; negative before it, None for never.
        rise: The looks after the shift at which the held-out loss is, in hindsight, above all it was before; None if
            never.
    """

    shift: str
    seed: int
    steps: np.ndarray
    columns: dict[str, np.ndarray]
    alarms: dict[str, int | None]
    rise: int | None


def document(study: StudyRecords) -> Document:
    """Say which signal sees a drift first, and which ones cry wolf.

    Args:
        study: The records.

    Returns:
        The page; figures and tables are written to the study's folder.
    """
    runs = [_run(point) for point in study.points]
    drifting = [run for run in runs if run.shift != _CONTROL]
    return Document(
        kind=STUDY,
        title=Text("Drifting data", "データのドリフト"),
        done=_done(study, runs) + missing_points(study),
        question=Text(
            "What sees first that the data have changed?", "データが変わったことに最初に気づくのはどの量でしょうか。"
        ),
        answer=_answer(runs, drifting),
        tone="undecided",
        figures=_figures(study, runs) if runs else (),
        findings=_findings(runs, drifting),
        tables=[*missing_table(study), *_tables(study, runs)],
        meaning=words.MEANING,
        may=words.MAY,
        may_not=words.MAY_NOT,
        method=words.METHOD,
        say=_say(runs, drifting),
        do_not_say=words.DO_NOT_SAY,
        config=asked_for(study),
        environment=environment(study),
    )


def _run(point: dict[str, Any]) -> Run:
    settings, looks = point["settings"], point["result"]["looks"]
    steps = np.array([look["step"] for look in looks], float) - point["result"]["shift_step"]
    names = {name for look in looks for name in look} - {"step"}
    columns = {name: np.array([_number(look.get(name)) for look in looks]) for name in names}
    before = int((steps <= 0).sum())
    alarms = {}
    for name in words.SIGNALS:
        if name == "descent":
            look = descent_alarm([{"watched_loss": 0.0} | look for look in looks]).look
        elif name == "heldout_loss":
            # A slow rise is no surprise to a rule that follows what came before; what one does with a held-out loss is
            # to wait for a new lowest one.
            look = loss_alarm(columns[name].tolist()).look
        else:
            look = rise_alarm(columns[name])
        alarms[name] = None if look is None else look - before + 1
    rise = _rise(columns["heldout_loss"], before)
    return Run(settings["shift"], settings["seed"], steps, columns, alarms, rise)


def _rise(losses: np.ndarray, before: int) -> int | None:
    """Looks after the shift until the loss is, twice in a row, above all of the looks just before it."""
    above = losses[before:] > losses[max(0, before - WINDOW) : before].max(initial=-np.inf)
    both = np.flatnonzero(above[1:] & above[:-1])
    return int(both[0]) + 2 if both.size else None


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _seen(run: Run, signal: str) -> bool:
    """Whether a signal speaks up after the shift, not having done so before."""
    look = run.alarms[signal]
    return look is not None and look > 0


def _wrong(run: Run, signal: str) -> bool:
    """Whether it speaks up where nothing has changed."""
    look = run.alarms[signal]
    return look is not None and (look <= 0 or run.shift == _CONTROL)


def _lead(runs: Sequence[Run], signal: str) -> Interval:
    """Looks by which a signal is earlier than the held-out loss rises; who says nothing does so at the end.

    The mean over seeds of each seed's mean over shifts, as streams of one seed have their start in common.
    """
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        if run.rise is None or _wrong(run, signal):
            continue
        said = run.alarms[signal]
        first = int((run.steps > 0).sum()) + 1 if said is None else said
        by_seed.setdefault(run.seed, []).append(run.rise - first)
    return mean_interval([float(np.mean(leads)) for leads in by_seed.values()])


def _figures(study: StudyRecords, runs: list[Run]) -> list[SavedFigure]:
    folder, shifts = study.folder / "figures", list(dict.fromkeys(run.shift for run in runs))
    panels: list[tuple[str, list[Line]]] = []
    for name, label in words.AXES.items():
        lines = []
        for shift in shifts:
            group = [run for run in runs if run.shift == shift]
            looks = {"colour": "#707070", "dashes": ":", "marker": None} if shift == _CONTROL else {"marker": None}
            label_of = "no shift" if shift == _CONTROL else shift
            lines.append(seed_line(label_of, group[0].steps, [run.columns[name] for run in group], **looks))
        panels.append((label, lines))
    fig, axes = draw_panels(panels, "training step, counted from the shift", "", sharey=False)
    for ax in axes.flat:
        ax.axvline(0, color="#222222", linewidth=0.8)
    data = pd.concat(
        [
            pd.DataFrame(
                {"shift": run.shift, "seed": run.seed, "step": run.steps} | {n: run.columns[n] for n in words.AXES}
            )
            for run in runs
        ]
    )
    saved = [
        save_figure(
            folder,
            "signals",
            fig,
            data,
            title=words.SIGNALS_TITLE,
            caption=words.SIGNALS_CAPTION,
            alt=Text(
                f"{words.SIGNALS_TITLE.en} Panels: {', '.join(words.AXES.values())}.",
                "列が変わると何が動くか：各量の推移をドリフトの種類ごとに描いた図です。",
            ),
        )
    ]
    drifting = [run for run in runs if run.shift != _CONTROL]
    others = list(words.SIGNALS)
    leads = [_lead(drifting, name) for name in others]
    fig, _ = draw_intervals(
        [words.SIGNALS[name].en for name in others], leads, "looks earlier than a rise of the held-out loss"
    )
    rows = [{"signal": name} | lead._asdict() for name, lead in zip(others, leads, strict=True)]
    texts = [words.SIGNALS[name] + f" {interval_text(lead)}" for name, lead in zip(others, leads, strict=True)]
    saved.append(
        save_figure(
            folder,
            "lead",
            fig,
            pd.DataFrame(rows),
            title=words.LEAD_TITLE,
            caption=words.LEAD_CAPTION,
            alt=words.LEAD_TITLE + " " + joined(texts) + Text(".", "。"),
        )
    )
    return saved


def _tables(study: StudyRecords, runs: list[Run]) -> list[Table]:
    shifts = list(dict.fromkeys(run.shift for run in runs))
    headings = [
        Text("shift", "ドリフト"),
        Text("runs", "実行数"),
        *[words.SIGNALS[name] for name in words.SIGNALS],
        Text("held-out loss rises", "ホールドアウト損失の上昇"),
        Text("held-out loss at the end / before", "終了時 / 直前のホールドアウト損失"),
    ]
    rows = []
    for shift in shifts:
        group = [run for run in runs if run.shift == shift]
        cells: list[Text | str] = []
        for name in words.SIGNALS:
            if shift == _CONTROL:
                wrong = sum(_wrong(run, name) for run in group)
                cells.append(Text("{k} / {n} false", "誤警報 {k} / {n}").format(k=wrong, n=len(group)))
                continue
            cells.append(_count([run.alarms[name] if _seen(run, name) else None for run in group]))
        ratio = mean_interval([_growth(run) for run in group])
        cells += [_count([run.rise for run in group]), interval_text(ratio)]
        rows.append([words.SHIFTS.get(shift, Text.same(shift)), str(len(group)), *cells])
    if not rows:
        return []
    table = Table(words.TABLE_TITLE, headings, rows, words.TABLE_NOTE)
    frame = pd.DataFrame([[str(cell) for cell in row] for row in rows], columns=[heading.en for heading in headings])
    write_table(study, "alarms", frame)
    return [table]


def _count(looks: list[int | None]) -> Text:
    """In how many streams something happened, and after how many looks."""
    known = [look for look in looks if look is not None]
    count = f"{len(known)} / {len(looks)}"
    return Text.same(f"{count} ({interval_text(mean_interval(np.array(known, float)))})" if known else count)


def _growth(run: Run) -> float:
    losses = run.columns["heldout_loss"]
    return float(losses[-1] / losses[run.steps <= 0][-1])


def _findings(runs: list[Run], drifting: list[Run]) -> list[Finding]:
    found = []
    seeds = len({run.seed for run in drifting})
    control = [run for run in runs if run.shift == _CONTROL]
    for name, signal in words.SIGNALS.items():
        lead = _lead(drifting, name)
        wrong = sum(_wrong(run, name) for run in control)
        claim = Text(
            "A rise of {signal} comes before the held-out loss rises.",
            "{signal}の上昇は、ホールドアウト損失の上昇より先に来る。",
        )
        if name == "descent":
            claim = Text(
                "The population descent says that steps hurt before the held-out loss rises.",
                "母集団降下量は、ホールドアウト損失が上がるより先に、ステップが害になったと告げる。",
            )
        if name == "heldout_loss":
            claim = Text(
                "Early stopping on the held-out loss (patience of 3) speaks before the held-out loss rises.",
                "ホールドアウト損失による早期終了（patience 3）は、その損失が上がるより先に警報を出す。",
            )
        numbers = words.LEAD if lead.num else words.NO_LEAD
        numbers = numbers.format(lead=interval_text(lead), k=lead.num, wrong=wrong, n=len(control))
        found.append(with_seeds(Finding(claim.format(signal=signal), outcome_of(lead), numbers), seeds))
    return found


def _first(drifting: list[Run]) -> tuple[str | None, Interval]:
    """The signal with the largest lead, if its interval lies above 0 and no signal's above it."""
    leads = {name: _lead(drifting, name) for name in words.SIGNALS}
    known = {name: lead for name, lead in leads.items() if np.isfinite(lead.value)}
    if not known:
        return None, Interval(*[float("nan")] * 4, num=0)
    name = max(known, key=lambda n: known[n].value)
    return name, known[name]


def _done(study: StudyRecords, runs: list[Run]) -> Text:
    shifts = [s for s in dict.fromkeys(run.shift for run in runs) if s != _CONTROL]
    first = study.config["points"][0]["settings"] if study.config["points"] else {}
    data = first.get("config", {}).get("data", {}).get("name", "–")
    names = joined([words.SHIFTS.get(s, Text.same(s)) for s in shifts]) if shifts else Text.same("–")
    return Text(
        "Networks were trained on streams from {data} that changed half-way ({names}) or not at all, while held-out data "
        "stayed as they were; {num} streams.",
        "{data} の列で学習し、その途中でデータを変えました（{names}）。変えない列も用意し、ホールドアウトデータは元のままです。列の数は {num} です。",
    ).format(data=data, names=names, num=len(runs))


def _answer(runs: list[Run], drifting: list[Run]) -> tuple[Text, Text, Text]:
    if not drifting:
        none = Text(
            "No drifting stream was measured, so there is no answer.",
            "ドリフトのある列を測定できておらず、答えはありません。",
        )
        return none, none, Text("Run the study again with --resume.", "--resume を付けて再実行してください。")
    control = [run for run in runs if run.shift == _CONTROL]
    harmful = sum(run.rise is not None for run in drifting)
    name, lead = _first(drifting)
    first = Text(
        "Compared were {k} signals on {n} drifting streams and {c} that did not drift; the held-out loss rose clearly in {h} "
        "of the drifting ones.",
        "ドリフトのある列 {n} 本と、ない列 {c} 本で、{k} 種の量を比較しました。ドリフトのある列のうち {h} 本でホールドアウト損失が明らかに上昇しました。",
    ).format(k=len(words.SIGNALS), n=len(drifting), c=len(control), h=harmful)
    if name is None or not lead.low > 0 or lead.num < 3:
        second = Text(
            "No signal was clearly earlier than the rise of the held-out loss (the earliest, {name}: lead {lead} looks, 95% interval).",
            "ホールドアウト損失の上昇より明らかに早い量はありませんでした（最も早い{name}で、先行は測定 {lead} 回分、95% 信頼区間）。",
        )
    else:
        second = Text(
            "{name} was earliest, {lead} looks before the held-out loss rose (95% interval), with {wrong} false alarms on {c} streams "
            "without a shift.",
            "最も早かったのは{name}で、ホールドアウト損失より測定 {lead} 回分先行しました（95% 信頼区間）。ドリフトのない列 {c} 本での誤警報は {wrong} 回です。",
        )
    wrong = 0 if name is None else sum(_wrong(run, name) for run in control)
    label = words.SIGNALS[name] if name else Text.same("–")
    second = second.format(name=label, lead=interval_text(lead), wrong=wrong, c=len(control))
    third = Text(
        "What to do: watch the held-out loss and the population descent, and treat a rise of a width as a hint where to look, "
        "not as an alarm.",
        "次の一手: ホールドアウト損失と母集団降下量を見てください。幅の上昇は、どこを調べるかの手がかりであって、警報ではありません。",
    )
    return first, second, third


def _say(runs: list[Run], drifting: list[Run]) -> Text:
    control = [run for run in runs if run.shift == _CONTROL]
    parts = []
    for name in ("lggw_over_rms", "deviation", "descent"):
        seen = sum(_seen(run, name) for run in drifting)
        wrong = sum(_wrong(run, name) for run in control)
        parts.append(
            Text(
                "{name} {seen} of {n} (false: {wrong} of {c})",
                "{name}は {n} 本中 {seen} 本（誤警報 {c} 本中 {wrong} 本）",
            ).format(name=words.SIGNALS[name], seen=seen, n=len(drifting), wrong=wrong, c=len(control))
        )
    return Text(
        "Of the drifts we made, this many were noticed: {parts}.",
        "こちらで起こしたドリフトに気づいた数は、{parts}です。",
    ).format(parts=joined(parts))
