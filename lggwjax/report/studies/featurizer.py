"""The page on the featurizer: how sparse, large and wide the features are from initialisation to the end of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from lggwjax.report.document import Document, Finding, Outcome, SavedFigure, Table, Tone, save_figure
from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, paired_difference
from lggwjax.report.studies import featurizer_labels as labels
from lggwjax.report.studies import featurizer_words as words
from lggwjax.report.studies.cases import Case, cases_of, decided, missing_table, with_seeds
from lggwjax.report.studies.common import (
    STUDY,
    asked_for,
    environment,
    interval_text,
    kept,
    missing_points,
    outcome_of,
    range_text,
    ratio_text,
    write_table,
)
from lggwjax.report.studies.featurizer_runs import (
    Features,
    Leaf,
    draw_bounds,
    draw_layers,
    draw_sizes,
    draw_sparsity,
    features_of,
    head_share,
    leaves_of,
)
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import NONE, number_text

MOST_ROWS = 12  # of a model's layers, on the page; the file has all
_OPPOSITE: dict[Outcome, Outcome] = {"confirmed": "not confirmed", "not confirmed": "confirmed"}
Found = list[tuple[Case, Features]]


def document(study: StudyRecords) -> Document:
    """Write the study's figures and tables, and say what they show.

    Args:
        study: Records of the study ``featurizer``.

    Returns:
        The page.
    """
    found: Found = [(case, features_of(case)) for case in cases_of(study)]
    layers = [(case, leaves_of(result["layers"])) for case, result in _first_layers(found)]
    claims = {name: [judge(*pair) for pair in found] for name, judge in _CLAIMS.items()}
    findings = [finding for its in claims.values() for finding in its]
    missing = missing_points(study)
    return Document(
        kind=STUDY,
        title=Text("The featurizer from initialisation to convergence", "初期化から収束までの特徴抽出器"),
        done=words.done(found) + missing,
        question=Text(
            "Do the features become sparse and narrow, and do they make the gradient's width?",
            "特徴は疎で狭くなるか、そして勾配の幅を決めているか",
        ),
        answer=(words.compared(found) + missing, words.came_out(found), words.next_step(found, claims, layers)),
        tone=_tone(findings),
        figures=_figures(study, found, layers),
        findings=findings,
        tables=[*missing_table(study), _ends_table(study, found), *_layer_tables(study, layers)],
        meaning=labels.MEANING,
        may=words.may(claims),
        may_not=kept([missing, *labels.MAY_NOT]),
        method=words.method(found, layers),
        say=words.say(found),
        do_not_say=labels.DO_NOT_SAY,
        config=asked_for(study),
        environment=environment(study),
    )


def _first_layers(found: Found) -> list[tuple[Case, dict]]:
    pairs = []
    for case, _ in found:
        looked_at = [dict(result) for result in case.results if result.get("layers")]
        pairs += [(case, looked_at[0])] if looked_at else []
    return pairs


def _tone(findings: Sequence[Finding]) -> Tone:
    for_them, against = (len(decided(findings, outcome)) for outcome in ("confirmed", "not confirmed"))
    if for_them and for_them == len(findings):
        return "helps"
    return "hurts" if against and not for_them else "undecided"


def _gets_sparser(case: Case, found: Features) -> Finding:
    start, end, change = found.ends("active_share")
    return with_seeds(
        Finding(
            labels.SPARSER.format(case=case.title),
            _OPPOSITE.get(outcome_of(change), "not decided"),
            labels.CHANGE.format(
                what=labels.ACTIVE,
                start=number_text(start.value),
                end=number_text(end.value),
                change=interval_text(change),
                seeds=case.counted,
            ),
        ),
        change.num,
    )


def _gets_narrower(case: Case, found: Features) -> Finding:
    start, end, _ = found.ends("relative")
    logs = found.table["relative"].map(lambda x: math.log(x) if x > 0 else math.nan).to_numpy(float)
    logs = logs.reshape(-1, max(1, len(found.steps)))
    change = paired_difference(logs[:, -1], logs[:, 0])
    return with_seeds(
        Finding(
            labels.NARROWER.format(case=case.title),
            _OPPOSITE.get(outcome_of(change), "not decided"),
            labels.CHANGE.format(
                what=labels.RELATIVE,
                start=number_text(start.value),
                end=number_text(end.value),
                change=ratio_text(change),
                seeds=case.counted,
            ),
        ),
        change.num,
    )


def _stays_narrow(case: Case, found: Features) -> Finding:
    end, most = found.ends("relative")[1], words.narrow_limit(found)
    outcome: Outcome = "not decided"
    if end.high < most:
        outcome = "confirmed"
    elif end.low > most:
        outcome = "not confirmed"
    numbers = labels.NARROW_NUMBERS.format(
        end=range_text(end),
        n=found.num_points,
        cap=number_text(found.cap),
        limit=number_text(most),
        seeds=case.counted,
    )
    return with_seeds(Finding(labels.NARROW.format(case=case.title), outcome, numbers), end.num)


def _head_makes_most(case: Case, _: Features) -> Finding:
    share = head_share(case)
    outcome: Outcome = "not decided"
    if share.low > 0.5:
        outcome = "confirmed"
    elif share.high < 0.5:
        outcome = "not confirmed"
    numbers = labels.HEAD_NUMBERS.format(share=range_text(share), n=share.num)
    return with_seeds(Finding(labels.HEAD.format(case=case.title), outcome, numbers), share.num)


_CLAIMS = {"sparser": _gets_sparser, "narrower": _gets_narrower, "narrow": _stays_narrow, "head": _head_makes_most}


def _figures(study: StudyRecords, found: Found, layers: Sequence[tuple[Case, list[Leaf]]]) -> list[SavedFigure]:
    folder, saved = study.folder / "figures", []
    drawn = [(case, its) for case, its in found if its.steps]
    if drawn:
        data = pd.concat([its.table for _, its in drawn], ignore_index=True)
        for name, draw in (("sparsity", draw_sparsity), ("sizes", draw_sizes), ("width_against_bounds", draw_bounds)):
            title, caption = labels.FIGURES[name]
            alt = words.alt(drawn, title, labels.QUANTITIES[name])
            saved.append(save_figure(folder, name, draw(drawn), data, title=title, caption=caption, alt=alt))
    if layers:
        title, caption = labels.FIGURES["layer_shares"]
        fig = draw_layers([(case.name, leaves) for case, leaves in layers])
        data = pd.concat([_layer_frame(case, leaves) for case, leaves in layers], ignore_index=True)
        alt = words.alt_layers(layers, title)
        saved.append(save_figure(folder, "layer_shares", fig, data, title=title, caption=caption, alt=alt))
    return saved


def _ends_table(study: StudyRecords, found: Found) -> Table:
    rows, numbers = [], []
    for case, features in found:
        for name, title in labels.ENDS.items():
            start, end, change = features.ends(name)
            rows.append((case.title + Text(": ", "：") + title, *map(interval_text, (start, end, change))))
            numbers.append({"case": case.name, "quantity": name} | _columns(start=start, end=end, change=change))
    write_table(study, "start_and_end", pd.DataFrame(numbers))
    return Table(labels.ENDS_TITLE, labels.ENDS_HEADINGS, rows, labels.ENDS_NOTE)


def _columns(**intervals: Interval) -> dict[str, float]:
    return {
        f"{name}_{field}": value
        for name, found in intervals.items()
        for field, value in (("mean", found.value), ("low", found.low), ("high", found.high))
    }


def _layer_frame(case: Case, leaves: Sequence[Leaf]) -> pd.DataFrame:
    rows = [
        {"case": case.name, "leaf": leaf.name, "kind": leaf.kind, "size": leaf.size, "width": leaf.width.value}
        | {"stderr": leaf.width.stderr, "share": leaf.share, "made_by": leaf.made_by}
        for leaf in leaves
    ]
    return pd.DataFrame(rows)


def _layer_tables(study: StudyRecords, layers: Sequence[tuple[Case, list[Leaf]]]) -> list[Table]:
    tables = []
    if layers:
        write_table(study, "layers", pd.concat([_layer_frame(*pair) for pair in layers], ignore_index=True))
    for case, leaves in layers:
        rows = [
            (
                leaf.name,
                f"{leaf.size:,}",
                interval_text(leaf.width),
                f"{100 * leaf.share:.1f}%",
                labels.MADE_BY.get(leaf.made_by, Text.same(NONE)),
            )
            for leaf in leaves[:MOST_ROWS]
        ]
        note = labels.LAYERS_NOTE
        if len(leaves) > MOST_ROWS:
            note += labels.LAYERS_MORE.format(n=len(leaves) - MOST_ROWS)
        tables.append(Table(labels.LAYERS_TITLE.format(case=case.title), labels.LAYERS_HEADINGS, rows, note))
    return tables
