"""The words of the prediction study's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lggwjax.report.document import Tone
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.studies.common import outcome_of, p_text, tau_text
from lggwjax.report.studies.ranked_models import (
    LOW_LOSS_SHARE,
    MEASURES,
    MIN_CLUSTERS,
    RATIO,
    WIDTH,
    DataSet,
    Measure,
)
from lggwjax.report.studies.ranks import NUM_RESAMPLES

MIN_MODELS = 60
Rivals = Mapping[str, Measure | None]
_BY_NAME = {one.name: one for one in MEASURES}


def answer_of(sets: Sequence[DataSet], rivals: Rivals, missing: Text) -> tuple[Text, Text, Text]:
    """Say what was compared, what ranks the models, and what to do next."""
    if not sets:
        return (
            Text("No model of this study is trained yet.", "この実験には学習を終えたモデルがまだありません。")
            + missing,
            Text("Nothing is decided.", "何も判定できません。"),
            Text("Next: run the study.", "次に行うこと：実験を実行してください。"),
        )
    bad = sum(one.num_diverged for one in sets)
    compared = Text(
        "{k} measures of {n} trained networks were compared with their generalization gaps ({sets}){bad}.",
        "学習済みネットワーク{n}個について、{k}個の指標と汎化ギャップを比較しました（{sets}）{bad}。",
    ).format(
        k=len(MEASURES) - 1,
        n=sum(len(one.results) for one in sets),
        sets=", ".join(f"{one.name}: {len(one.results)}" for one in sets),
        bad=Text("; {n} more diverged", "。ほかに{n}個が発散しました").format(n=bad) if bad else EMPTY,
    )
    return compared + missing, sentence_to_say(sets, rivals), _next(sets, rivals)


def sentence_to_say(sets: Sequence[DataSet], rivals: Rivals) -> Text:
    """One sentence for a meeting: how LGGW ranks the models of each data set, beside the best usual measure."""
    if not sets:
        return Text("Nothing was measured yet.", "まだ何も測定されていません。")
    parts = [_set_sentence(one, rivals[one.name]) for one in sets]
    english = "; ".join(part.en for part in parts)
    return Text(
        english[0].upper() + english[1:] + " (Kendall's tau with the gap; all of it descriptive).",
        "。".join(part.ja for part in parts) + "（汎化ギャップとのケンドールのτ。いずれも記述的な観測値です）。",
    )


def _set_sentence(found: DataSet, rival: Measure | None) -> Text:
    beside = EMPTY
    if rival is not None:
        beside = Text(
            ", beside {tau} of {rival}, the best usual measure on the other data ({words})",
            "（他のデータで最良の従来指標である{rival}は{tau}、{words}）",
        ).format(
            tau=tau_text(found.rankings[rival.name].tau),
            rival=rival.title,
            words=_contest_words(found, rival),
        )
    return Text(
        "on {data} LGGW/rms has tau {ratio} ({sure}) and LGGW {width} ({also}){beside}",
        "{data}では、LGGW/rmsのτは{ratio}（{sure}）、LGGWのτは{width}（{also}）です{beside}",
    ).format(
        data=found.name,
        ratio=tau_text(found.rankings[RATIO].tau),
        width=tau_text(found.rankings[WIDTH].tau),
        sure=_sure(found, RATIO),
        also=_sure(found, WIDTH),
        beside=beside,
    )


def _sure(found: DataSet, name: str) -> Text:
    one = found.rankings[name]
    if one.adjusted != one.adjusted:
        return Text("not tested: too few models", "モデルが少なく検定なし")
    if not one.decided:
        return Text("not decided, Holm-adjusted {p}", "判定不能、Holm補正後 {p}").format(p=p_text(one.adjusted))
    alike = Text("as the gap", "ギャップと同順") if one.tau.value > 0 else Text("against the gap", "ギャップと逆順")
    return alike + Text(", Holm-adjusted {p}", "、Holm補正後 {p}").format(p=p_text(one.adjusted))


def _contest_words(found: DataSet, rival: Measure) -> Text:
    outcomes = [outcome_of(found.difference(_BY_NAME[name], rival)) for name in (RATIO, WIDTH)]
    both = {
        "confirmed": Text("both widths are better", "幅はどちらも優れる"),
        "not confirmed": Text("both widths are worse", "幅はどちらも劣る"),
        "not decided": Text("neither width is decidedly better or worse", "幅との優劣はどちらも判定不能"),
    }
    if outcomes[0] == outcomes[1]:
        return both[outcomes[0]]
    words = {
        "confirmed": Text("{name} is better", "{name}は優れる"),
        "not confirmed": Text("{name} is worse", "{name}は劣る"),
        "not decided": Text("{name} is neither decidedly", "{name}との優劣は判定不能"),
    }
    titles = (_BY_NAME[name].title for name in (RATIO, WIDTH))
    return joined([words[one].format(name=title) for one, title in zip(outcomes, titles, strict=True)])


def tone_of(sets: Sequence[DataSet]) -> Tone:
    """Colour the answer: whether LGGW / rms orders models as their gap does on all data sets, or against it on one."""
    signs = [one.rankings[RATIO].tau.value * one.rankings[RATIO].decided for one in sets]
    if any(sign < 0 for sign in signs):
        return "hurts"
    return "helps" if signs and all(sign > 0 for sign in signs) else "undecided"


def _next(sets: Sequence[DataSet], rivals: Rivals) -> Text:
    tone = tone_of(sets)
    beyond = all(one.rankings[RATIO].says_more == "confirmed" for one in sets)
    beaten = [
        rival is not None and outcome_of(one.difference(_BY_NAME[RATIO], rival)) == "not confirmed"
        for one in sets
        for rival in [rivals[one.name]]
    ]
    if tone == "helps" and beyond and not any(beaten):
        return Text(
            "Next: use LGGW/rms to sort models of one kind before measuring them, and decide by the held-out loss.",
            "次に行うこと：LGGW/rmsは同種のモデルをあらかじめ並べ替えるために使い、決定はホールドアウト損失で行ってください。",
        )
    if tone == "helps":
        return Text(
            "Next: do not select models by LGGW/rms; what it says of the gap, the train loss or a usual measure says too.",
            "次に行うこと：LGGW/rmsでモデルを選ばないでください。ギャップについて示すことは、訓練損失や従来の指標からも分かります。",
        )
    if tone == "hurts":
        return Text(
            "Next: do not select models by LGGW/rms, it orders some of them the wrong way round; use the held-out loss.",
            "次に行うこと：LGGW/rmsでモデルを選ばないでください。逆順に並べることがあります。ホールドアウト損失を使ってください。",
        )
    if beaten and all(beaten):
        return Text(
            "Next: select models by the held-out loss, not by LGGW/rms: a usual measure orders them better.",
            "次に行うこと：モデルは LGGW/rms ではなくホールドアウト損失で選んでください。従来の指標の方がよく並べます。",
        )
    return Text(
        "Next: select models by the held-out loss; to settle what LGGW/rms is worth, train more combinations of "
        "hyperparameters.",
        "次に行うこと：モデルはホールドアウト損失で選んでください。LGGW/rmsの価値を確かめるには、ハイパーパラメータの"
        "組み合わせを増やして学習してください。",
    )


def sentences_not_to_say(sets: Sequence[DataSet], rivals: Rivals) -> list[Text]:
    """Say what the numbers do not support, with the numbers."""
    if not sets:
        return [
            Text(
                "Anything about the measures: no model is trained.",
                "指標についての主張全般。学習を終えたモデルがありません。",
            )
        ]
    taus = ", ".join(f"{one.name} {tau_text(one.rankings[RATIO].tau)}" for one in sets)
    given = ", ".join(f"{one.name} {tau_text(one.rankings[RATIO].alike)}" for one in sets)
    found = [
        Text(
            "“LGGW predicts generalization.” The tau of LGGW/rms with the gap is {taus}, among models with nearly equal "
            "train losses {given}, and it describes these models.",
            "「LGGWは汎化を予測する」。LGGW/rmsと汎化ギャップのτは{taus}、訓練損失がほぼ等しいモデル同士では{given}であり、これらのモデルの"
            "記述にとどまります。",
        ).format(taus=taus, given=given)
    ]
    lost = [
        (one, rival, one.difference(_BY_NAME[RATIO], rival))
        for one in sets
        for rival in [rivals[one.name]]
        if rival is not None and outcome_of(one.difference(_BY_NAME[RATIO], rival)) != "confirmed"
    ]
    if lost:
        parts = [
            Text(
                "on {data} the tau of LGGW/rms less that of {rival} is {d}", "{data}ではLGGW/rmsと{rival}のτの差が{d}"
            ).format(data=one.name, d=tau_text(difference), rival=rival.title)
            for one, rival, difference in lost
        ]
        found.append(
            Text("“LGGW beats the usual measures”: ", "「LGGWは従来の指標より優れている」。")
            + joined(parts)
            + Text(".", "です。")
        )
    return found


def meaning() -> list[Text]:
    """Explain what the page shows."""
    return [
        Text(
            "Kendall's tau compares two orders: 1 if every pair of models is ordered alike, −1 if oppositely, 0 on average "
            "for unrelated ones. Over all models a measure can look good because a hyperparameter moves both; within "
            "hyperparameters, only models that differ in one of them are compared.",
            "ケンドールのτは二つの順序を比べる量で、すべてのモデル対で順序が一致すれば1、すべて逆なら−1、無関係なら平均して0"
            "です。全モデルで見ると、あるハイパーパラメータが両方を動かすために指標がよく見えることがあります。「ハイパー"
            "パラメータ内」では、一つだけが異なるモデル同士を比べます。",
        ),
        Text(
            "All models of a data set ran equally many steps, so the gap also tells how far training got: a network that "
            "has fitted little has a small gap. Hence the control, the models with a low train loss, and the pairs with "
            "nearly equal train losses.",
            "同じデータセットのモデルはすべて同じステップ数だけ学習したため、汎化ギャップには学習の進み具合も表れます。当てはまりの"
            "進んでいないネットワークはギャップが小さくなります。そこで、対照としての訓練損失、訓練損失の低いモデルだけのτ、訓練"
            "損失がほぼ等しい対での一致度も示しています。",
        ),
    ]


def may_not() -> list[Text]:
    """Say what may not be concluded."""
    return [
        Text(
            "That a measure causes the gap, or that making it small makes the gap small: these are orders of models.",
            "指標が汎化ギャップの原因である、あるいは指標を小さくすればギャップが縮まるということ。示しているのはモデルの順序です。",
        ),
        Text(
            "That the order holds for other architectures, data or ranges of hyperparameters.",
            "他の構造・データ・ハイパーパラメータの範囲でも同じ順序になるということ。",
        ),
        Text(
            "That LGGW of the samples trained on is a bound: it is descriptive.",
            "訓練に使ったサンプルのLGGWが上界であるということ。記述的（保証ではなく観測値）です。",
        ),
    ]


def method(sets: Sequence[DataSet]) -> list[Text]:
    """Say how the numbers came about."""
    limits = ", ".join(f"{one.name} {one.threshold:.3g}" for one in sets) or "–"
    return [
        Text(
            "Gap: held-out loss less train loss at the last step. Every measure is turned so that more should mean a larger "
            "gap: of the margin (10th percentile over the sample) its negative is used. Intervals: {b} bootstrap resamples "
            "of combinations of hyperparameters, all seeds of a combination together, percentiles; none with fewer than {k} "
            "combinations. p: twice the share of resamples beyond zero, Holm over the measures of a data set.",
            "汎化ギャップ：最終ステップのホールドアウト損失から訓練損失を引いたもの。どの指標も、大きいほどギャップが大きいはずの"
            "向きにそろえ、マージン（サンプルの10パーセンタイル）は符号を反転しています。区間：ハイパーパラメータの組み合わせ（同じ"
            "組み合わせの全シードをまとめて）を{b}回再抽出したブートストラップのパーセンタイル区間で、組み合わせが{k}個未満の場合は"
            "示しません。p値：0を越えた再抽出の割合の2倍で、データセット内の全指標についてHolm補正しています。",
        ).format(b=f"{NUM_RESAMPLES:,}", k=MIN_CLUSTERS),
        Text(
            "Low train loss: at most the {share}th percentile of the data set's train losses ({limits}), a rule fixed before "
            "any tau was looked at. The best usual measure is chosen by its tau on the other data and contested here; the "
            "contests are single 95% intervals, paired on the same resamples. LGGW/rms: divided by the root mean square of "
            "the per-sample gradients over the measured path.",
            "低訓練損失：データセットの訓練損失の{share}パーセンタイル以下（{limits}）。τを見る前に定めた規則です。最良の従来指標は"
            "他のデータでのτによって選び、ここで比較します。この比較は同じ再抽出で対応をとった個々の95%信頼区間です。LGGW/rms："
            "測定した経路上のサンプルごとの勾配の二乗平均平方根で割った値。",
        ).format(share=round(100 * LOW_LOSS_SHARE), limits=limits),
    ]
