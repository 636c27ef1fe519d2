"""The page of a grid of one's own: which design is best, and how sure that is."""

from __future__ import annotations

import math

from lggwjax.report.document import Document, Finding, Table, Tone
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.studies.common import (
    MIN_SEEDS,
    UNDECIDED,
    asked_for,
    environment,
    interval_text,
    kept,
    missing_points,
    outcome_of,
    p_text,
    tau_text,
    write_table,
)
from lggwjax.report.studies.effects import diverged
from lggwjax.report.studies.sweep_designs import COLUMNS, MIN_DESIGNS, Contest, contest_of, design_table
from lggwjax.report.studies.sweep_figures import sweep_figures
from lggwjax.report.study import StudyRecords

_MOST_ROWS, _MOST_NAMED = 100, 3


def document(study: StudyRecords) -> Document:
    """Write which design of a sweep is best, if one is.

    Args:
        study: The records of a study named ``sweep``; points may be missing.

    Returns:
        The page; its figures and tables lie in the study's folder.
    """
    found, missing = contest_of(study), missing_points(study)
    table = design_table(found)
    write_table(study, "designs", table)
    bad = sum(diverged(runs) for runs in found.designs.values())
    left_out = EMPTY
    if bad:
        left_out = Text(
            " {n} of the runs diverged; designs with such runs take no part in the contest.",
            "{n}回の実行が発散しました。発散した実行のある設計は比較の対象外です。",
        ).format(n=bad)
    return Document(
        kind=Text("Sweep", "スイープ"),
        title=Text.same(str(study.config.get("title") or "sweep")),
        done=Text(
            "{d} designs were trained on the same seeds and compared by their held-out loss at the last step.",
            "{d}個の設計を同じシードで学習し、最終ステップのホールドアウト損失で比較しました。",
        ).format(d=len(found.designs))
        + left_out
        + missing,
        question=Text("Which design is best?", "どの設計が最良ですか。"),
        answer=(_compared(found) + left_out + missing, _verdict(found), _next(found)),
        tone=_tone(found),
        figures=sweep_figures(study, found, table),
        findings=_findings(found),
        tables=[*_designs(found), *_contest(found)],
        meaning=[
            Text(
                "LGGW/rms is the width of the path's gradients over their root mean square; it describes how the samples were "
                "used and does not choose a design. The held-out loss does.",
                "LGGW/rmsは、経路上の勾配の幅をその二乗平均平方根で割ったものです。サンプルの使われ方を記述するものであり、設計を"
                "選ぶ基準ではありません。選ぶ基準はホールドアウト損失です。",
            )
        ],
        may=[
            Text(
                "Of the designs, data and schedule of this grid: a difference that is marked is one that the seeds cannot "
                "explain, all comparisons with the best counted.",
                "この格子の設計・データ・学習スケジュールに限り、有意とした差は、最良の設計との比較をすべて数えたうえでも、"
                "シードの違いだけでは説明できないものです。",
            )
        ],
        may_not=kept([missing, *_may_not()]),
        method=[
            Text(
                "Means over seeds with Student's t intervals; differences paired over the seeds that both designs have, "
                "adjusted after Holm over all comparisons with the best. Nothing is tested with fewer than {k} pairs.",
                "シード平均とスチューデントのt区間。差は両方の設計に共通するシードについて対応をとり、最良の設計とのすべての比較に"
                "ついてHolm法で補正しています。組が{k}個未満の場合は検定しません。",
            ).format(k=MIN_SEEDS)
        ],
        say=_verdict(found),
        do_not_say=_do_not_say(found),
        config=asked_for(study),
        environment=environment(study),
    )


def _compared(found: Contest) -> Text:
    if not found.designs:
        return Text("No run of this sweep is done.", "このスイープには完了した実行がまだありません。")
    seeds = sorted({len(runs) for runs in found.designs.values()})
    return Text(
        "{d} designs were compared by their held-out loss, {k} seeds each.",
        "{d}個の設計をホールドアウト損失で比較しました（シード各{k}個）。",
    ).format(d=len(found.designs), k=str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}")


def _verdict(found: Contest) -> Text:
    if found.best is None:
        return Text("No winner: no design has a held-out loss.", "勝者なし：ホールドアウト損失のある設計がありません。")
    loss = interval_text(found.means[found.best]["heldout_loss"])
    if found.winner is not None:
        closest, one = min(found.against.items(), key=lambda item: item[1].change.value)
        return Text(
            "{best} is best: its held-out loss ({loss}) is lower than that of every other design; the closest, {other}, "
            "differs by {difference} (Holm-adjusted {p}).",
            "{best}が最良です。ホールドアウト損失（{loss}）は他のどの設計よりも低く、最も近い{other}との差は{difference}です"
            "（Holm補正後 {p}）。",
        ).format(best=found.best, loss=loss, other=closest, difference=one.long(), p=p_text(one.adjusted))
    if not found.against:
        return Text(
            "No winner: there is nothing to compare {best} with (held-out loss {loss}).",
            "勝者なし：{best}（ホールドアウト損失 {loss}）と比較できる設計がありません。",
        ).format(best=found.best, loss=loss)
    named = [Text.same(f"{design} ({found.against[design].long()})") for design in found.undecided[:_MOST_NAMED]]
    more = len(found.undecided) - len(named)
    if more:
        named.append(Text("{n} more", "ほか{n}個").format(n=more))
    few = max(one.change.num for one in found.against.values()) < MIN_SEEDS
    return Text(
        "No winner: {best} has the lowest mean held-out loss ({loss}), but it is not decided against {others}{few}.",
        "勝者なし：ホールドアウト損失の平均が最も低いのは{best}（{loss}）ですが、{others}との差は判定できません{few}。",
    ).format(
        best=found.best,
        loss=loss,
        others=joined(named),
        few=Text("; at least {k} seeds are needed", "。シードは{k}個以上必要です").format(k=MIN_SEEDS)
        if few
        else EMPTY,
    )


def _next(found: Contest) -> Text:
    if found.best is None:
        return Text("Next: run the sweep.", "次に行うこと：スイープを実行してください。")
    if found.winner is not None:
        return Text(
            "Next: use {best}, and measure it once more on held-out samples that took no part in this choice.",
            "次に行うこと：{best}を採用し、この選択に使っていないホールドアウトサンプルであらためて測定してください。",
        ).format(best=found.best)
    need = found.seeds_needed()
    if need is None:
        return Text(
            "Next: run more seeds of the designs that are not told apart, or take the cheapest of them.",
            "次に行うこと：区別できない設計のシードを増やすか、その中で最も費用の低いものを選んでください。",
        )
    return Text(
        "Next: run about {n} seeds of the designs that are not told apart (enough if the differences seen are the true "
        "ones), or take the cheapest of them.",
        "次に行うこと：区別できない設計を約{n}個のシードで実行するか（観測された差が真の差であれば十分な数）、その中で最も費用の"
        "低いものを選んでください。",
    ).format(n=need)


def _tone(found: Contest) -> Tone:
    return "undecided" if found.winner is None else "helps"


def _findings(found: Contest) -> list[Finding]:
    if found.best is None:
        return []
    decided = sum(one.decided for one in found.against.values())
    return [
        Finding(
            Text(
                "{best} has a lower held-out loss than every other design.",
                "{best}のホールドアウト損失は他のどの設計よりも低い。",
            ).format(best=found.best),
            "not decided" if found.winner is None else "confirmed",
            Text("Decided against {a} of {b} others.", "他の{b}個のうち{a}個に対して有意です。").format(
                a=decided, b=len(found.against)
            ),
        ),
        Finding(
            Text("Designs with a lower LGGW/rms have a smaller gap.", "LGGW/rmsの低い設計ほど汎化ギャップが小さい。"),
            outcome_of(found.tau),
            Text(
                "Kendall's tau {tau} over {n} designs{few}.", "{n}個の設計についてのケンドールのτは{tau}{few}。"
            ).format(
                tau=tau_text(found.tau),
                n=found.tau.num,
                few=EMPTY
                if found.tau.num >= MIN_DESIGNS
                else Text("; fewer than {k} give no interval", "。{k}個未満では区間を示しません").format(k=MIN_DESIGNS),
            ),
        ),
    ]


def _designs(found: Contest) -> list[Table]:
    if not found.designs:
        return []
    shown = [name for name in COLUMNS if any(math.isfinite(one[name].value) for one in found.means.values())]
    listed = list(found.designs.items())[:_MOST_ROWS]
    rows = [
        [
            f"{rank} {design}",
            *(interval_text(found.means[design][name]) for name in shown),
            f"{len(runs) - diverged(runs)} / {len(runs)}",
        ]
        for rank, (design, runs) in enumerate(listed, 1)
    ]
    return [
        Table(
            Text("Designs, lowest held-out loss first", "設計（ホールドアウト損失の低い順）"),
            [Text("design", "設計"), *(COLUMNS[name] for name in shown), Text("ended", "完走")],
            rows,
            Text(
                "Means over seeds ± half of the 95% interval, at the last step. Ended: runs that did not diverge. Steps to target: of the runs that reached it. "
                "Designs with a run that diverged stand last. {n} designs in all; every one is in tables/designs.csv.",
                "最終ステップにおけるシード平均 ± 95%信頼区間の半幅。完走は発散しなかった実行の数。到達ステップは目標損失に達するまでのステップ数で、到達した実行のみの平均です。発散した"
                "実行のある設計は末尾に置いています。設計は全部で{n}個で、すべてtables/designs.csvにあります。",
            ).format(n=len(found.designs)),
        )
    ]


def _contest(found: Contest) -> list[Table]:
    if not found.against:
        return []
    rank = {design: i for i, design in enumerate(found.designs, 1)}
    return [
        Table(
            Text("The best against each other design: {best}", "最良の設計と他の設計の比較：{best}").format(
                best=found.best
            ),
            [
                Text("design", "設計"),
                Text("held-out loss above the best", "最良との損失の差"),
                Text("pairs", "組"),
                Text("p (Holm)", "p値（Holm補正）"),
                Text("decided", "判定"),
            ],
            [
                [
                    f"{rank[design]} {design}",
                    one.long(),
                    str(one.change.num),
                    p_text(one.adjusted),
                    Text("yes", "有意") if one.decided else UNDECIDED,
                ]
                for design, one in list(found.against.items())[:_MOST_ROWS]
            ],
            Text(
                "Paired over seeds, with single 95% intervals; decided after Holm over the comparisons of this table.",
                "シードについて対応をとった差と個々の95%信頼区間。判定はこの表の全比較に対するHolm補正後です。",
            ),
        )
    ]


def _may_not() -> list[Text]:
    return [
        Text(
            "That the best design's held-out loss is what new data will show: it was chosen for being low.",
            "最良の設計のホールドアウト損失が新しいデータでもそのまま得られるということ。低いものとして選ばれた値です。",
        ),
        Text(
            "That designs that are not told apart are equally good: more seeds may tell them apart.",
            "区別できない設計が同等であるということ。シードを増やせば区別できる可能性があります。",
        ),
    ]


def _do_not_say(found: Contest) -> list[Text]:
    tau = Text(
        "“The design with the lower LGGW is the better one.” Tau of LGGW/rms with the gap: {tau} over {n} designs.",
        "「LGGWの低い設計のほうがよい」。LGGW/rmsと汎化ギャップのτは{n}個の設計について{tau}です。",
    ).format(tau=tau_text(found.tau), n=found.tau.num)
    if found.best is None or found.winner is not None:
        return [tau]
    best = Text(
        "“{best} won.” It is decided against {a} of {b} others.",
        "「{best}が勝った」。有意なのは{b}個のうち{a}個に対してだけです。",
    ).format(best=found.best, a=len(found.against) - len(found.undecided), b=len(found.against))
    return [best, tau]
