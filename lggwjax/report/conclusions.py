"""What a run's numbers mean, what may be concluded from them, and what to say about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lggwjax.report.answer import descent_text, last_judged, subject
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.phrases import MOVES, UNSEEN
from lggwjax.report.records import is_fresh, move_word, unseen_word
from lggwjax.report.table import estimate_text, measured
from lggwjax.report.verdict import Verdict


def meaning(found: Verdict) -> list[Text]:
    """Explain LGGW to someone who never met it."""
    decides = Text(", and the descent above decides", "。判断するのは上の降下量です") if found.num_looks else EMPTY
    return [
        Text(
            "Every sample pulls the parameters in a direction of its own: its gradient, taken with respect to the "
            "parameters. The loss gradient Gaussian width (LGGW) says how large the set of these gradients is that "
            "training met on its path: draw a random direction, see how far the set reaches along it, and average "
            "over directions. It is a size, not a variance.",
            "どのサンプルも、パラメータをそれぞれの方向に引っ張ります。それがパラメータに関する勾配です。"
            "損失勾配ガウス幅（LGGW）は、学習がその経路で出会った勾配の集合の大きさを表します。ランダムな方向を引き、"
            "その方向に集合がどこまで届くかを見て、方向について平均したものです。分散ではなく、大きさです。",
        ),
        Text(
            "A small LGGW, compared with the size of the gradients, means that they stayed within a small set. For "
            "parameters fixed before the samples were seen, theory then keeps the gradient on the samples near the "
            "population gradient, however often they are used. A large LGGW takes that support away; it does not "
            "show that anything went wrong. The set only grows along the path, so LGGW hardly ever falls: it "
            "explains{decides}.",
            "勾配の大きさに比べて LGGW が小さければ、勾配は小さな集合にとどまっていたことになります。"
            "サンプルを見る前に固定されたパラメータについては、そのとき理論により、サンプルを何度使っても、"
            "サンプル上の勾配は母集団勾配の近くに保たれます。LGGW が大きければその裏づけがなくなりますが、"
            "何かが悪くなったことを示すわけではありません。集合は経路に沿って大きくなる一方なので、LGGW "
            "はほとんど減りません。LGGW は説明のための量です{decides}。",
        ).format(decides=decides),
    ]


def conclusions(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict) -> tuple[list[Text], list[Text]]:
    """List what may be concluded from a run, and what may not."""
    unseen, move = unseen_word(config), MOVES[move_word(config)]
    like = Text("on data like the held-out part", "ホールドアウトと同種のデータに対して")
    values = {
        "unseen": UNSEEN[unseen],
        "move": move,
        "where": Text("on the population", "母集団に対して") if unseen == "population" else like,
        "num": found.num_looks,
    }
    judged, exact = found.num_looks > 0, unseen == "population"
    may = [
        (
            judged,
            "At one measured step whose interval lies on one side of zero: that {move} helped, or hurt, {where}, to "
            "first order and with 95% confidence for this one look.",
            "信頼区間が0の片側にある1回の測定について：その{move}は{where}、一次近似で、"
            "その1回に限れば95%の信頼度で、役に立った（または害になった）。",
        ),
        (
            judged,
            "How far the gradient on the samples trained on was from the {unseen} gradient, within the bars.",
            "訓練サンプル上の勾配が{unseen}勾配からどれだけ離れていたか（誤差の範囲で）。",
        ),
        (
            True,
            "The widths of the gradients of the measured samples at the measured checkpoints, within the bars.",
            "測定したサンプルの、測定したチェックポイントでの勾配の幅（誤差の範囲で）。",
        ),
        (
            True,
            "Ratios of width to rms may be compared with other runs that have equal schedules, probes and checkpoints.",
            "幅と rms の比は、測定計画、プローブ、チェックポイントが等しいほかの実行と比較してよい。",
        ),
    ]
    may_not = [
        (
            not measured(records, "heldout_loss"),
            "Anything about unseen data: this run has no held-out part.",
            "未見データについての結論。この実行にはホールドアウトがありません。",
        ),
        (
            _any_status(records, "descriptive"),
            "That a width or NERC marked descriptive bounds anything: the path was trained on these very samples. A "
            "model that fits them perfectly has width 0 on them at the end, whatever it does elsewhere.",
            "「記述的」と記された幅や NERC が何かを上から抑えるということ。"
            "経路はまさにそのサンプルで訓練されています。サンプルに完全に適合したモデルの幅は、"
            "ほかの場所で何をしようと、最後には0になります。",
        ),
        (
            True,
            "That a large or growing LGGW is bad, or a small one good: alone it is no alarm.",
            "LGGW が大きい（増えている）から悪い、小さいから良いということ。それだけでは警報になりません。",
        ),
        (
            True,
            "That nothing happened between two measured steps, or that the width over all parameters, or all "
            "samples, is as small: a finite set gives a lower bound.",
            "2回の測定の間に何も起きなかったということや、"
            "全パラメータ・全サンプルにわたる幅も同じように小さいということ。有限集合から分かるのは下界です。",
        ),
        (
            judged,
            "That all {num} intervals hold at once: each speaks for its own step. They share the held-out samples, "
            "so neighbours err together.",
            "{num}個の信頼区間がすべて同時に成り立つということ。区間はそれぞれのステップだけについてのもので、"
            "ホールドアウトを共有しているため、隣どうしは一緒に外れます。",
        ),
        (
            judged,
            "That the held-out part stays untouched once it was used to choose where to stop: report the final loss "
            "on other data.",
            "どこで止めるかを選ぶのに使ったホールドアウトが、なお手つかずだということ。"
            "最終的な損失は別のデータで報告してください。",
        ),
        (
            not exact,
            "Anything about data that differ from these: the held-out samples come from the same source.",
            "これと異なるデータについての結論。ホールドアウトは同じ出どころのサンプルです。",
        ),
        (True, "Anything about other seeds: this is one run.", "ほかの乱数シードについての結論。これは1回の実行です。"),
    ]
    first, second = ([Text(en, ja).format(**values) for holds, en, ja in points if holds] for points in (may, may_not))
    return first, second


def method(config: Mapping[str, Any], found: Verdict) -> list[Text]:
    """Say how the numbers and their error bars came about."""
    told = [
        Text(
            "Widths use un-normalised Gaussian directions, so they scale with the gradients. In the records, ci95 is "
            "the asymptotic interval of the draws and draws_bound95 the guaranteed one; neither covers the choice of "
            "samples or checkpoints.",
            "幅には正規化しないガウス方向を使うため、勾配の大きさに比例します。記録の ci95 "
            "は方向の乱数に関する漸近的な区間、draws_bound95 は保証つきの区間です。"
            "どちらもサンプルやチェックポイントの選び方までは含みません。",
        )
    ]
    if found.num_looks:
        told.append(
            Text(
                "The deviation and the {unseen} gradient come from U-statistics over held-out blocks, which are "
                "unbiased for the squares; the descent is a mean over held-out samples with a t-interval, which is "
                "honest because they took no part in training.",
                "乖離と{unseen}勾配は、ホールドアウトのブロックに関するU統計量から求めています（"
                "二乗について不偏です）。降下量はホールドアウトについての平均で、t 区間を付けています。"
                "ホールドアウトは訓練に使われていないため、この区間は妥当です。",
            ).format(unseen=UNSEEN[unseen_word(config)])
        )
    return told


def meeting(records: pd.DataFrame, config: Mapping[str, Any], found: Verdict) -> tuple[Text, list[Text]]:
    """Write one sentence to say about a run, with its numbers, and those that must not be said."""
    row = last_judged(records) if found.num_looks else records.iloc[-1].to_dict()
    values: dict[str, Any] = {"subject": subject(config), "step": f"{row['step']:,.0f}", "num": found.num_looks}
    values["samples"] = (
        Text("new samples", "新しいサンプル") if is_fresh(config) else Text("the same samples", "同じサンプル")
    )
    if not found.num_looks:
        say = Text(
            "“The training of {subject} up to step {step} was measured without held-out samples, so we do not know "
            "yet whether reusing the samples helps on unseen data.”",
            "「{subject}の学習をステップ{step}まで測定しましたが、各ステップをホールドアウトで評価していないため、"
            "サンプル再利用が未見データに役立つかはまだ分かりません。」",
        )
        if found.lowest_step is not None:
            say = Text(say.en.replace("without held-out samples", "without the descent of its steps"), say.ja)
    else:
        say = _said(found)
        values |= {"descent": descent_text(records, config), "data": UNSEEN[unseen_word(config)]}
        if found.turn is not None:
            values |= {"last": f"{found.turn[0] or 0:,}", "first": f"{found.turn[1]:,}"}
    return say.format(**values), [text.format(**values) for text in _unsaid(records, found)]


def _said(found: Verdict) -> Text:
    if found.turn is not None and found.word != "helps":
        helped = Text("", "")
        if found.turn[0] is not None:
            helped = Text("clearly helped at step {last} and ", "ステップ{last}では明確に役立ち、")
        return Text(
            "“For {subject}, going on with {samples} "
            + helped.en
            + "clearly hurt at step {first}, measured on {data} samples (95% "
            "intervals, {num} looks, one run).”",
            "「{subject}では、{samples}での学習は"
            + helped.ja
            + "ステップ{first}では明確に害になりました（{data}での測定、95%信頼区間、"
            "測定{num}回、実行1回）。」",
        )
    if found.word == "helps":
        return Text(
            "“For {subject}, one more step over {samples} still helped at step {step}: {descent} (95%, to first "
            "order, {num} looks, one run).”",
            "「{subject}では、ステップ{step}の時点で{samples}によるもう1ステップはまだ役立っていました（{descent}、"
            "95%、一次近似、測定{num}回、実行1回）。」",
        )
    return Text(
        "“For {subject}, we cannot tell yet whether going on with {samples} at step {step} helps: {descent} (95%, to "
        "first order, {num} looks, one run).”",
        "「{subject}では、ステップ{step}の時点で{samples}での学習を続けることが役立つかどうかは、まだ判定できません（"
        "{descent}、95%、一次近似、測定{num}回、実行1回）。」",
    )


def _unsaid(records: pd.DataFrame, found: Verdict) -> list[Text]:
    unsaid = []
    if found.word == "helps":
        unsaid.append(
            Text(
                "“These samples can be reused for as long as we like.” The measurement ends at step {step}.",
                "「このサンプルはいくらでも再利用できる」：測定はステップ{step}までです。",
            )
        )
    if found.word == "undecided":
        unsaid.append(
            Text(
                "“Going on makes no difference.” An interval across zero says that these numbers cannot tell.",
                "「続けても変わらない」：0をまたぐ区間は、この数値では判定できないという意味です。",
            )
        )
    if found.turn is not None:
        unsaid.append(
            Text(
                "“It turned exactly at step {first}.” It was seen between two measurements, in one run.",
                "「ちょうどステップ{first}で転じた」：分かるのは2回の測定の間ということだけで、実行は1回です。",
            )
        )
    if measured(records, "lggw"):
        row: Any = records.dropna(subset=["lggw.value"]).iloc[-1].to_dict()
        lggw = estimate_text(row, "lggw")
        unsaid.append(
            Text(
                f"“LGGW is {lggw}, so the model generalizes.” Along the path trained on, it is an observation, no "
                f"guarantee.",
                f"「LGGW が {lggw} だから汎化する」：訓練した経路上の値は、保証ではなく観測値です。",
            )
        )
    if not found.num_looks:
        unsaid.append(
            Text(
                "“The train loss fell, so the samples can be used further.” It says nothing about unseen data.",
                "「訓練損失が下がったから、サンプルはまだ使える」：未見データについては何も分かりません。",
            )
        )
    unsaid.append(
        Text(
            "“Other seeds, models or data behave the same.” This is one run.",
            "「ほかのシード、モデル、データでも同じだ」：これは1回の実行です。",
        )
    )
    return unsaid


def _any_status(records: pd.DataFrame, status: str) -> bool:
    return any(bool((records[c] == status).any()) for c in records if str(c).startswith("status."))
