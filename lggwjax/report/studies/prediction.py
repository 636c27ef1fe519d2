"""The page of the prediction study: which measure ranks models as their generalization gap does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lggwjax.report.document import Document, Finding, Outcome, SavedFigure, Table, save_figure
from lggwjax.report.drawing import Line, draw_points
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.studies.common import (
    STUDY,
    UNDECIDED,
    asked_for,
    environment,
    kept,
    missing_points,
    outcome_of,
    slug,
    tau_text,
    write_table,
)
from lggwjax.report.studies.forest import Row, draw_forest
from lggwjax.report.studies.prediction_words import (
    MIN_MODELS,
    answer_of,
    may_not,
    meaning,
    method,
    sentence_to_say,
    sentences_not_to_say,
    tone_of,
)
from lggwjax.report.studies.ranked_models import (
    MEASURES,
    RATIO,
    WIDTH,
    DataSet,
    Measure,
    Ranking,
    best_usual,
    data_sets,
    model_table,
    ranking_table,
)
from lggwjax.report.study import StudyRecords

_BY_NAME = {one.name: one for one in MEASURES}


def document(study: StudyRecords) -> Document:
    """Write how the measures rank the models of each data set, whatever comes out.

    Args:
        study: The records of a study named ``prediction``; points may be missing.

    Returns:
        The page; its figures and tables lie in the study's folder.
    """
    sets = data_sets(study)
    rivals = {one.name: best_usual([other for other in sets if other is not one]) for one in sets}
    missing = missing_points(study)
    if sets:
        write_table(study, "models", model_table(sets))
        write_table(study, "rankings", pd.concat([ranking_table(one) for one in sets]))
    num_models = sum(len(one.results) for one in sets)
    few = Text(" Fewer than {k} models: this decides little.", "モデルが{k}個未満のため、判定できることは限られます。")
    return Document(
        kind=STUDY,
        title=Text("Which measure ranks models as their gap does?", "どの指標がモデルを汎化ギャップの順に並べるか"),
        done=Text(
            "{n} networks were trained with different hyperparameters and seeds ({sets}), and ranked by each measure and by "
            "the gap between held-out and train loss.",
            "ハイパーパラメータとシードを変えて{n}個のネットワークを学習し（{sets}）、各指標による順位と、ホールドアウト損失"
            "と訓練損失の差（汎化ギャップ）による順位を比べました。",
        ).format(n=num_models, sets=", ".join(f"{one.name}: {len(one.results)}" for one in sets) or "–")
        + (few.format(k=MIN_MODELS) if num_models < MIN_MODELS else EMPTY)
        + missing,
        question=Text(
            "Does LGGW rank models as their generalization gap does?",
            "LGGWによるモデルの順位は汎化ギャップの順位と一致しますか。",
        ),
        answer=answer_of(sets, rivals, missing),
        tone=tone_of(sets),
        figures=_figures(study, sets),
        findings=[claim for one in sets for claim in _claims(one, rivals[one.name])],
        tables=[table for one in sets for table in (_rankings(one), _axes(one))],
        meaning=meaning(),
        may=[
            Text(
                "That a measure orders the models trained here as their gap does, or does not, as far as its interval says.",
                "ここで学習したモデルについて、区間が示す範囲で、指標の順位が汎化ギャップの順位と一致する、またはしないということ。",
            )
        ],
        may_not=kept([missing, *may_not()]),
        method=method(sets),
        say=sentence_to_say(sets, rivals),
        do_not_say=sentences_not_to_say(sets, rivals),
        config=asked_for(study),
        environment=environment(study),
    )


def _claims(found: DataSet, rival: Measure | None) -> list[Finding]:
    claims = []
    for measure in (_BY_NAME[WIDTH], _BY_NAME[RATIO]):
        one = found.rankings[measure.name]
        words = {"data": found.name, "measure": measure.title}
        claims.append(
            Finding(
                Text(
                    "On {data}: {measure} ranks models as their gap does.",
                    "{data}：{measure}によるモデルの順位は汎化ギャップの順位と一致する。",
                ).format(**words),
                _decided(one),
                Text(
                    "Kendall's tau {tau} over {n} models; within hyperparameters {within}; among models with a low train "
                    "loss {low} (95% intervals; decided after Holm over the measures).",
                    "{n}個のモデルについてケンドールのτは{tau}。ハイパーパラメータ内では{within}、訓練損失の低いモデルでは{low}"
                    "（95%信頼区間。判定は全指標に対するHolm補正後）。",
                ).format(
                    tau=tau_text(one.tau), n=one.num, within=tau_text(one.within), low=tau_text(one.fitted), **words
                ),
            )
        )
        claims.append(
            Finding(
                Text(
                    "On {data}: {measure} says more about the gap than how far training got.",
                    "{data}：{measure}は、学習の進み具合だけでは分からないことを汎化ギャップについて示す。",
                ).format(**words),
                one.says_more,
                Text(
                    "Among models with nearly equal train losses {measure} agrees with the gap {alike} (1 always, −1 never), "
                    "the train loss itself {loss}, and the first is {beyond} above the second (95% intervals).",
                    "訓練損失がほぼ等しいモデル同士では、{measure}と汎化ギャップの一致度は{alike}（1は常に一致、−1は常に逆）、訓練損失"
                    "そのものでは{loss}、その差は{beyond}です（95%信頼区間）。",
                ).format(
                    alike=tau_text(one.alike),
                    beyond=tau_text(one.beyond),
                    loss=tau_text(found.rankings["train_loss"].alike),
                    **words,
                ),
            )
        )
        claims.append(_contest(found, measure, rival))
    return claims


def _contest(found: DataSet, measure: Measure, rival: Measure | None) -> Finding:
    claim = Text(
        "On {data}: {measure} beats the usual measures.", "{data}：{measure}は従来の指標より優れている。"
    ).format(data=found.name, measure=measure.title)
    if rival is None:
        none = Text(
            "There is no second data set on which the best usual measure could be chosen fairly.",
            "最良の従来指標を公平に選ぶための、別のデータセットがありません。",
        )
        return Finding(claim, "not decided", none)
    difference = found.difference(measure, rival)
    numbers = Text(
        "Its tau less that of {rival}, the best usual measure on the other data: {difference} (paired 95% interval).",
        "他のデータで最良の従来指標は{rival}で、τの差は{difference}です（対応のある95%信頼区間）。",
    )
    return Finding(claim, outcome_of(difference), numbers.format(difference=tau_text(difference), rival=rival.title))


def _decided(one: Ranking) -> Outcome:
    if not one.decided:
        return "not decided"
    return "confirmed" if one.tau.value > 0 else "not confirmed"


def _rankings(found: DataSet) -> Table:
    rows = []
    for measure in sorted(MEASURES, key=lambda one: -np.nan_to_num(found.rankings[one.name].tau.value, nan=-2)):
        one = found.rankings[measure.name]
        mark = {True: Text("yes", "有意"), False: UNDECIDED}[one.decided]
        values = [tau_text(interval) for interval in (one.tau, one.within, one.fitted, one.alike)]
        decided = Text.same("–") if measure.kind == "progress" else mark
        rows.append([measure.title, str(one.num), values[0], decided, *values[1:]])
    return Table(
        Text("Rank correlation with the gap: {data}", "汎化ギャップとの順位相関：{data}").format(data=found.name),
        [
            Text("measure", "指標"),
            Text("models", "モデル数"),
            Text("tau, all models", "τ（全モデル）"),
            Text("differs from 0", "0との差"),
            Text("within hyperparameters", "ハイパーパラメータ内"),
            Text("tau, low train loss", "τ（低訓練損失）"),
            Text("nearly equal train loss", "ほぼ等しい訓練損失"),
        ],
        rows,
        Text(
            "95% intervals in brackets: bootstrap over combinations of hyperparameters. Low train loss: at most {threshold}, "
            "the 60th percentile ({k} of {n} models); the others had not fitted the sample as far. Nearly equal train loss: pairs at "
            "most a tenth of the models apart in its order. {d} models diverged and "
            "are left out.",
            "角括弧は95%信頼区間（ハイパーパラメータの組み合わせに関するブートストラップ）。低訓練損失とは60パーセンタイルで"
            "ある{threshold}以下のこと（{n}個中{k}個）で、残りのモデルはサンプルへの当てはまりがそこまで進んでいません。ほぼ等しい訓練損失とは、その順位の差がモデル数の1割以内の対です。発散した"
            "モデル{d}個は除いています。",
        ).format(
            threshold=f"{found.threshold:.3g}", k=int(found.low.sum()), n=len(found.results), d=found.num_diverged
        ),
    )


def _axes(found: DataSet) -> Table:
    return Table(
        Text("Within hyperparameters: {data}", "ハイパーパラメータ内の一致：{data}").format(data=found.name),
        [Text("measure", "指標"), *(Text.same(axis.replace("_", " ")) for axis in found.axes), Text("mean", "平均")],
        [
            [one.title, *(tau_text(ranked.axes[axis]) for axis in found.axes), tau_text(ranked.within)]
            for one in MEASURES
            for ranked in [found.rankings[one.name]]
        ],
        Text(
            "Models that differ in this one hyperparameter only, same seed: how often the measure and the gap agree on "
            "which is larger (1 always, −1 never), as in Jiang et al. (2020).",
            "その一つのハイパーパラメータだけが異なり、シードが同じモデル同士について、指標と汎化ギャップの大小が一致する度合い"
            "（1は常に一致、−1は常に逆）。Jiang et al. (2020) によります。",
        ),
    )


def _figures(study: StudyRecords, sets: Sequence[DataSet]) -> list[SavedFigure]:
    known = [one for one in sets if any(math.isfinite(r.tau.value) for r in one.rankings.values())]
    if not known:
        return []
    best = best_usual(known)
    shown = [_BY_NAME[RATIO], *([best] if best is not None else [])]
    return [_forest(study, known), *(_scatter(study, known, one) for one in shown)]


def _forest(study: StudyRecords, sets: Sequence[DataSet]) -> SavedFigure:
    def mean_tau(measure: Measure) -> float:
        taus = [one.rankings[measure.name].tau.value for one in sets]
        return float(np.mean(np.nan_to_num(taus, nan=-2)))

    order = sorted(MEASURES, key=mean_tau, reverse=True)
    ranked = [[one.rankings[measure.name] for measure in order] for one in sets]
    panels = [(one.name, [Row(r.tau, r.decided) for r in rankings]) for one, rankings in zip(sets, ranked, strict=True)]
    fig, _ = draw_forest([one.title.en for one in order], panels, "Kendall's tau with the generalization gap")
    best = {one.name: tau_text(one.rankings[RATIO].tau) for one in sets}
    words = {
        "sets": ", ".join(best),
        "n": len(MEASURES) - 1,
        "first": order[0].title,
        "taus": ", ".join(f"{name} {tau}" for name, tau in best.items()),
    }
    return save_figure(
        study.folder / "figures",
        "prediction-taus",
        fig,
        pd.concat([ranking_table(one) for one in sets]),
        title=Text(
            "Which measure orders models as their gap does?", "どの指標が汎化ギャップと同じ順にモデルを並べるか"
        ),
        caption=Text(
            "Kendall's tau-b of each measure with the gap over all models, with 95% bootstrap intervals over combinations "
            "of hyperparameters; filled where it differs from 0 after Holm over the {n} measures. The train loss is a "
            "control: how far training got.",
            "全モデルについての各指標と汎化ギャップのケンドールのτ-b。区間はハイパーパラメータの組み合わせに関する95%ブート"
            "ストラップ区間で、{n}個の指標に対するHolm補正後も0と異なるものを塗りつぶしています。訓練損失は、学習の進み具合を"
            "表す対照です。",
        ).format(**words),
        alt=Text(
            "Rank correlations of {n} measures and a control with the gap on {sets}; {first} stands first on average; "
            "LGGW/rms: {taus}.",
            "{sets}における{n}個の指標と対照の、汎化ギャップとの順位相関。平均で最も高いのは{first}。LGGW/rms：{taus}。",
        ).format(**words),
    )


def _scatter(study: StudyRecords, sets: Sequence[DataSet], measure: Measure) -> SavedFigure:
    groups = [Line(one.name, one.values(measure), one.gap) for one in sets]
    x = np.concatenate([one.values(measure) for one in sets])
    x = x[np.isfinite(x)]
    wide = bool(len(x) and x.min() > 0 and x.max() > 10 * x.min())
    fig, _ = draw_points(groups, measure.title.en, "generalization gap (nats)", xlog=wide)
    taus = ", ".join(f"{one.name} {tau_text(one.rankings[measure.name].tau)}" for one in sets)
    words = {"measure": measure.title, "taus": taus}
    data = [pd.DataFrame({"data": one.name, measure.name: one.values(measure), "gap": one.gap}) for one in sets]
    return save_figure(
        study.folder / "figures",
        f"prediction-gap-{slug(measure.name.replace('_', ' '))}",
        fig,
        pd.concat(data),
        title=Text("The gap against {measure}", "汎化ギャップと{measure}").format(**words),
        caption=Text("A point a model. Kendall's tau: {taus}.", "点は各モデル。ケンドールのτ：{taus}。").format(
            **words
        ),
        alt=Text(
            "Scatter of the generalization gap against {measure}; Kendall's tau {taus}.",
            "汎化ギャップと{measure}の散布図。ケンドールのτ：{taus}。",
        ).format(**words),
    )
