"""The words of the levers' page."""

from __future__ import annotations

import math

from lggwjax.report.document import Tone
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.statistics import Interval
from lggwjax.report.studies.common import MIN_SEEDS, outcome_of, p_text, tau_text
from lggwjax.report.studies.effects import Effect, diverged
from lggwjax.report.studies.lever_families import WIDTH, Family, lever_name
from lggwjax.report.study import StudyRecords


def answer_of(found: list[Family], taus: dict[str, Interval], missing: Text) -> tuple[Text, Text, Text]:
    """Say what was compared, what lowers LGGW / rms most and what it bought, and what to do next."""
    if not found:
        none = Text("No run of this study is done.", "この実験には完了した実行がまだありません。")
        return (
            none + missing,
            Text("Nothing is decided.", "何も判定できません。"),
            Text("Next: run the study.", "次に行うこと：実験を実行してください。"),
        )
    compared = Text(
        "{levers} were compared with the base design of their family, one at a time, on the same seeds ({families}).",
        "{levers}を、一つずつ、同じシードの基準設計と比較しました（{families}）。",
    ).format(
        levers=Text("{n} changes of the design", "{n}個の設計変更").format(n=sum(len(f.effects) for f in found)),
        families=joined(
            [
                Text("{name}: {k} seeds, {n} tests", "{name}：シード{k}個、検定{n}個").format(
                    name=family.name, k=family.num_seeds, n=family.num_tests
                )
                for family in found
            ]
        ),
    )
    bad = sum(diverged(runs) for family in found for runs in family.designs.values())
    if bad:
        compared += Text(" {n} of the runs diverged.", "{n}回の実行が発散しました。").format(n=bad)
    return compared + missing, _best_sentence(found[0]) + _rank_sentence(taus[found[0].name]), _next(found[0])


def _best_sentence(family: Family) -> Text:
    best = family.best
    if best is None:
        nearest = next(
            (lever for lever in family.effects if not math.isnan(family.effects[lever][WIDTH].change.value)), None
        )
        if nearest is None:
            return Text(
                "Nothing is decided: no lever has a pair of runs.", "判定できません：比較できる実行の組がありません。"
            )
        one = family.effects[nearest][WIDTH]
        return Text(
            "On {family} no lever lowers LGGW/rms beyond what the seeds explain; the lowest is {lever} ({ratio}, {p}){up}.",
            "{family}では、シードの違いを超えてLGGW/rmsを下げる設計変更は見つかりませんでした。最も低いのは{lever}です"
            "（{ratio}、{p}）{up}。",
        ).format(up=_raising(family), family=family.name, lever=lever_name(nearest), ratio=one.long(), p=_how_sure(one))
    row = family.effects[best]
    return Text(
        "On {family}, {lever} lowers LGGW/rms most ({ratio}, {p}); with it the held-out gap {gap} and the held-out "
        "accuracy {accuracy}.",
        "{family}では、{lever}がLGGW/rmsを最も下げます（{ratio}、{p}）。このとき汎化ギャップは{gap}、ホールドアウト"
        "正解率は{accuracy}。",
    ).format(
        family=family.name,
        lever=lever_name(best),
        ratio=row[WIDTH].long(),
        p=_how_sure(row[WIDTH]),
        gap=_moved(row["gap"]),
        accuracy=_moved(row["heldout_accuracy"]),
    )


def _raising(family: Family) -> Text:
    raised = [lever for lever, row in family.effects.items() if row[WIDTH].sign > 0]
    if not raised:
        return EMPTY
    named = [lever_name(lever) + f" {family.effects[lever][WIDTH].long()}" for lever in raised]
    return Text("; decidedly raised by {names}", "。有意に上げるのは{names}").format(names=joined(named))


def _moved(one: Effect) -> Text:
    words = {
        -1: Text("falls ({x})", "下がり（{x}）"),
        1: Text("rises ({x})", "上がり（{x}）"),
        0: Text("is not decidedly changed ({x})", "変化したとは判定できません（{x}）"),
    }
    return words[one.sign].format(x=one.long())


def _rank_sentence(tau: Interval) -> Text:
    if math.isnan(tau.low):
        return EMPTY
    tail = {
        "confirmed": Text(
            "levers that lower LGGW/rms more have smaller gaps", "LGGW/rmsを下げる変更ほどギャップが小さい"
        ),
        "not confirmed": Text(
            "levers that lower LGGW/rms more have larger gaps", "LGGW/rmsを下げる変更ほどギャップが大きい"
        ),
        "not decided": Text(
            "whether a lower LGGW/rms goes with a smaller gap is not decided",
            "LGGW/rmsの低下とギャップの縮小が対応するかは判定できない",
        ),
    }[outcome_of(tau)]
    return Text(
        " Over all levers: {tail} (tau {tau}).", "設計変更全体では、{tail}という結果です（τ = {tau}）。"
    ).format(tail=tail, tau=tau_text(tau))


def _next(family: Family) -> Text:
    best = family.best
    if best is None:
        return Text(
            "Next: run more seeds (at least 5 a design) before choosing any of these for its LGGW.",
            "次に行うこと：LGGWを理由に設計を選ぶ前に、シードを増やしてください（1設計あたり5個以上）。",
        )
    row, name = family.effects[best], lever_name(best)
    if row["heldout_accuracy"].sign < 0:
        return Text(
            "Next: do not adopt {lever} for its lower LGGW/rms, it costs accuracy; look at the table for what does not.",
            "次に行うこと：{lever}は正解率を下げるため、LGGW/rmsが低いという理由で採用しないでください。正解率を下げない"
            "変更を表で探してください。",
        ).format(lever=name)
    if row["heldout_accuracy"].sign > 0 or row["gap"].sign < 0:
        return Text(
            "Next: try {lever} on your own data with at least 5 seeds, and judge it by the held-out loss, not by LGGW.",
            "次に行うこと：自分のデータで{lever}を5個以上のシードで試し、LGGWではなくホールドアウト損失で判断してください。",
        ).format(lever=name)
    return Text(
        "Next: do not choose a design by LGGW/rms alone; run more seeds of {lever} if a smaller gap matters to you.",
        "次に行うこと：LGGW/rmsだけで設計を選ばないでください。ギャップの縮小が重要であれば、{lever}のシードを増やして"
        "確かめてください。",
    ).format(lever=name)


def tone_of(found: list[Family]) -> Tone:
    """Colour the answer: whether the best lever bought a smaller gap or accuracy, or cost some."""
    best = found[0].best if found else None
    if best is None:
        return "undecided"
    row = found[0].effects[best]
    if row["heldout_accuracy"].sign < 0 or row["gap"].sign > 0:
        return "hurts"
    return "helps" if row["gap"].sign < 0 or row["heldout_accuracy"].sign > 0 else "undecided"


def meaning() -> list[Text]:
    """Explain what the page shows."""
    return [
        Text(
            "LGGW grows with the gradients themselves, so designs are compared by LGGW/rms: the width over the root mean "
            "square of the per-sample gradients along the path. Where a norm makes weights scale-invariant, a larger "
            "initialisation shrinks gradients and LGGW with them, and the network computes the same.",
            "LGGWは勾配の大きさとともに増えるため、設計の比較にはLGGW/rms（経路上のサンプルごとの勾配の二乗平均平方根で"
            "割った幅）を用います。正規化によって重みがスケール不変になる場合、初期値を大きくすると勾配とLGGWは縮みますが、"
            "ネットワークが計算する関数は変わりません。",
        ),
        Text(
            "The gap is the held-out loss less the train loss after the same number of steps. A lever that slows training "
            "has a small gap because it has learned little: read the gap beside the train loss and the accuracy.",
            "汎化ギャップは、同じステップ数の後のホールドアウト損失と訓練損失の差です。学習を遅くする変更は、まだ学習が進んで"
            "いないためにギャップが小さく見えます。訓練損失と正解率を併せて読んでください。",
        ),
    ]


def may_not() -> list[Text]:
    """Say what may not be concluded."""
    return [
        Text(
            "That a lever works on other data, sizes or schedules; one base design was changed one thing at a time, and "
            "combinations may behave otherwise.",
            "他のデータ・規模・学習スケジュールでも効くということ。基準設計を一か所ずつ変えただけであり、組み合わせでは"
            "異なる結果になりえます。",
        ),
        Text(
            "That LGGW of the samples trained on certifies anything: it is descriptive.",
            "訓練に使ったサンプルのLGGWが何かを保証するということ。記述的（保証ではなく観測値）です。",
        ),
        Text(
            "That “not decided” means “no effect”: with few seeds only large effects are seen.",
            "「判定不能」を「効果がない」とみなすこと。シードが少ないと、大きな効果しか検出できません。",
        ),
    ]


def method(study: StudyRecords, found: list[Family]) -> list[Text]:
    """Say how the numbers came about."""
    targets = sorted({str(p["settings"].get("target_loss")) for p in study.points})
    return [
        Text(
            "Differences are paired over seeds that both designs have; positive quantities by logarithms, so that a change "
            "is a ratio. Nothing is tested with fewer than {k} pairs, where any run of the lever diverged, where the target "
            "was missed in a run, or where all differences are alike. Tests are Student's t, adjusted after Holm over all "
            "levers and quantities of a family ({tests}).",
            "差は、両方の設計に共通するシードについて対応をとって計算しています。正の量は対数をとり、変化を比で表します。組が"
            "{k}個未満の場合、その変更の実行が発散した場合、目標損失に達しない実行がある場合、差がすべて同じ場合は検定しません。"
            "検定はスチューデントのt検定で、系列内のすべての設計変更と量についてHolm法で補正しています（{tests}）。",
        ).format(k=MIN_SEEDS, tests="; ".join(f"{f.name}: {f.num_tests}" for f in found) or "–"),
        Text(
            "Steps to target: the first measured step with a held-out loss of at most {target}; steps are measured on a "
            "coarse grid. Spikes: steps whose train loss is 1.5 times the lowest so far and a hundredth of the first loss "
            "above it. Spread: share of held-out samples on which a second network, trained on the same samples from "
            "another seed, decides otherwise. Deviation/rms: mean over the measured steps.",
            "到達ステップ：ホールドアウト損失が{target}以下となった最初の測定ステップ（測定間隔は粗い）。スパイク：訓練損失がそれまでの最小値の1.5倍を超え、かつ初期損失の100分の1以上大きいステップの数。予測のばらつき："
            "同じサンプルで別のシードから学習したネットワークと判定が異なるホールドアウトサンプルの割合。乖離/rms：測定ステップ"
            "にわたる平均。",
        ).format(target=", ".join(targets) or "–"),
    ]


def sentence_to_say(found: list[Family], taus: dict[str, Interval]) -> Text:
    """One sentence for a meeting."""
    if not found:
        return Text("Nothing was measured yet.", "まだ何も測定されていません。")
    return _best_sentence(found[0]) + _rank_sentence(taus[found[0].name])


def sentences_not_to_say(found: list[Family], taus: dict[str, Interval]) -> list[Text]:
    """Say what the numbers do not support, with the numbers."""
    texts = []
    if not found:
        return [
            Text("Anything about the levers: no run is done.", "設計変更についての主張全般。完了した実行がありません。")
        ]
    for family in found:
        tau = taus[family.name]
        texts.append(
            Text(
                "“Lower LGGW means better generalization.” On {f}: tau {tau} over {n} levers, and that describes these runs.",
                "「LGGWが低ければ汎化がよい」。{f}では{n}個の設計変更についてτ = {tau}であり、これはこれらの実行の記述に"
                "すぎません。",
            ).format(f=family.name, tau=tau_text(tau), n=tau.num)
        )
        for lever in family.effects:
            row = family.effects[lever]
            if family.is_scale(lever) or family.only_raw(lever):
                texts.append(
                    Text(
                        "“{lever} changes the complexity.” Its LGGW changes by {raw}, its LGGW/rms by {ratio}.",
                        "「{lever}は複雑さを変える」。LGGWの変化は{raw}、LGGW/rmsの変化は{ratio}です。",
                    ).format(lever=lever_name(lever), raw=row["lggw"].long(), ratio=row[WIDTH].long())
                )
    return texts


def _how_sure(one: Effect) -> Text:
    if math.isnan(one.p):
        return Text("not tested, {n} pairs", "検定なし、{n}組").format(n=one.change.num)
    return Text("Holm-adjusted {p}", "Holm補正後 {p}").format(p=p_text(one.adjusted))
