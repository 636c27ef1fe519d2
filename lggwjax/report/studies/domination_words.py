"""What the page on gradient domination says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lggwjax.report.document import Finding
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.studies.cases import Case, decided
from lggwjax.report.studies.common import range_text
from lggwjax.report.studies.domination_runs import Run, constant, exponent
from lggwjax.report.table import number_text

Runs = Sequence[tuple[Case, Sequence[Run]]]

VERDICTS = {
    "yes": Text("yes, plausible", "はい（もっともらしい）"),
    "no": Text("no", "いいえ"),
    "undecided": Text("undecided", "判定不能"),
}
LEAST_SEEN = Text("least loss: the least seen", "損失の下限：観測した最小値")
LEAST_ZERO = Text("least loss: 0", "損失の下限：0")
FIGURES = {
    "gap_against_norm": (
        Text("Loss gap against the population gradient", "損失の差と母集団勾配"),
        Text(
            "Each point is a checkpoint: held-out loss above the least one seen in its run against the norm of the held-out "
            "gradient (unbiased; bars: 95% intervals). The line joins the checkpoints in the order of training, a ring "
            "marks the first; the best checkpoint has no gap and cannot be drawn. Hollow triangles: {lost} whose gradient "
            "may be 0, drawn at the upper end and left out of the envelopes. Grey: the smallest constant c with gap ≤ c "
            "norm^α at all points drawn, which describes these points and bounds no other.",
            "各点は1つのチェックポイントで、その実行で観測した最小値からのホールドアウト損失の差を、ホールドアウト勾配のノルム"
            "（不偏推定、横棒は95%信頼区間）に対して示します。線は学習の順に点を結び、輪は最初の点です。最良のチェックポイントは"
            "差が0のため描けません。白抜きの三角は勾配が0かもしれない点（{lost}）で、区間の上端に描き、包絡線から除いています。"
            "灰色は、描かれたすべての点で「差 ≤ c ノルム^α」を満たす最小の定数cによる包絡線で、これらの点の記述であって他の点の上界ではありません。",
        ),
    ),
    "loss_against_norm": (
        Text("The other extreme: the loss itself", "もう一方の極端：損失そのもの"),
        Text(
            "The same with 0 as the least possible loss. The least possible one is unknown and lies between 0 and the "
            "least seen, so the true gaps lie between those of the two figures: constants are too small there and too "
            "large here. Hollow triangles: {lost}, left out of the envelopes.",
            "損失の下限を0とした同じ図です。真の下限は分からず、0と観測した最小値の間にあるため、真の差は2つの図の間にあります。"
            "定数は前の図では小さすぎ、この図では大きすぎます。白抜きの三角（{lost}）は包絡線から除いています。",
        ),
    ),
    "along_training": (
        Text("Gap and gradient along training", "学習に沿った損失の差と勾配"),
        Text(
            "Means over the seeds; bands from the lowest to the highest seed. Under gradient domination the gradient may "
            "not go out while the gap is large.",
            "シードについての平均と、シードの最小から最大までの帯です。勾配支配のもとでは、差が大きいうちに勾配が消えることはありません。",
        ),
    ),
}
GATE_TITLE = Text("The gate's verdict, run by run", "各実行に対するゲートの判定")
GATE_HEADINGS = (
    Text("run", "実行"),
    Text("plausible?", "判定"),
    Text("ratio that decided", "判定を決めた比"),
    Text("limit", "上限"),
    Text("at step", "ステップ"),
    Text("best step", "最良ステップ"),
    Text("held-out samples", "ホールドアウト数"),
)
GATE_NOTE = Text(
    "Ratio: loss gap to the best checkpoint, over the gradient's norm times the distance to that checkpoint; at most 1 "
    "for a convex loss. Brackets: 95% over all checkpoints of the run together; ∞ where the gradient cannot be told "
    "from 0.",
    "比は、最良チェックポイントとの損失の差を「勾配のノルム×最良チェックポイントまでの距離」で割ったもので、凸な損失では1以下です。"
    "括弧内は、その実行の全チェックポイントについて同時に成り立つ95%区間で、勾配を0と区別できないところでは∞です。",
)
EXPONENT_TITLE = Text("Exponents and envelopes (descriptive)", "指数と包絡線（記述的）")
EXPONENT_HEADINGS = (
    Text("model, data, least loss", "モデル、データ、下限"),
    Text("fitted exponent α", "推定した指数α"),
    Text("c at α = 1", "α = 1 の c"),
    Text("c at α = 1.5", "α = 1.5 の c"),
    Text("c at α = 2", "α = 2 の c"),
    Text("runs", "実行数"),
)
EXPONENT_NOTE = Text(
    "Exponent: slope of the log gap on the log norm in each run, averaged over runs, with Student's t interval. Constants: "
    "the smallest that agrees with all checkpoints of all seeds, without those whose gradient may be 0 ({lost}). A "
    "regression is no bound: points lie above the fitted line by construction. An exponent at or below 0 says that the gradient did not "
    "shrink as the loss fell.",
    "指数は、各実行での「対数ノルムに対する対数の差」の傾きを実行について平均し、Studentのt区間を付けたものです。定数は、全シードの全"
    "チェックポイントと矛盾しない最小の値で、勾配が0かもしれない点（{lost}）を除きます。回帰は上界ではなく、当てはめた直線より上の点は必ず存在します。指数が0以下なら、"
    "損失が下がっても勾配は小さくならなかったことを意味します。",
)
MEANING = (
    Text(
        "Gradient domination says that the loss above its least value is at most c times a power α of the population "
        "gradient's norm. It carries every bound here from gradients to losses; for α = 2 it is the PL condition, under "
        "which gradient descent converges at a geometric rate.",
        "勾配支配とは、損失とその最小値との差が、母集団勾配のノルムのα乗のc倍以下であることです。勾配についての保証を損失についての保証に"
        "変えるのはこの条件であり、α = 2 の場合がPL条件で、勾配降下法は幾何級数的に収束します。",
    ),
    Text(
        "The gate asks less, and can fail: whether at any checkpoint the gradient was too small for the loss that was "
        "still gained later, as on a plateau or at a saddle.",
        "ゲートが問うのはより弱いことで、実際に否定されうるものです。すなわち、あとで実際に得られた損失の減少に比べて勾配が小さすぎる"
        "チェックポイント（平坦部や鞍点）があったかどうかです。",
    ),
)
MAY_NOT = (
    Text(
        "That the envelopes or the fitted exponents bound anything: they describe the points visited.",
        "包絡線や推定した指数が何かの上界であること。これらは訪れた点の記述です。",
    ),
    Text(
        "That the condition holds away from these paths, or with other data, steps or learning rates.",
        "これらの経路の外や、別のデータ・ステップ数・学習率でも条件が成り立つこと。",
    ),
    Text(
        "That the least possible loss is the least seen: where it is lower, all constants are larger.",
        "損失の下限が観測した最小値に等しいこと。下限がより低ければ、定数はすべて大きくなります。",
    ),
)


def verdicts(runs: Sequence[Run]) -> list[str]:
    """Return the gate's words, one a run."""
    return [str(run.gate.get("verdict")) for run in runs]


def limit(runs: Sequence[Run]) -> float | None:
    """Return the gate's limit."""
    return next((run.gate["limit"] for run in runs if run.gate.get("limit") is not None), None)


def lost(found: Runs) -> Text:
    """Count the checkpoints whose gradient cannot be told from 0."""
    every = [run for _, runs in found for run in runs]
    num = sum(int((~run.known).sum()) for run in every)
    return Text("{n} of {all} checkpoints", "{all}点中{n}点").format(n=num, all=sum(len(run.steps) for run in every))


def done(found: Runs) -> Text:
    """Say what was trained and measured."""
    if not found:
        return Text("No point of this study has a result yet.", "この実験にはまだ結果がありません。")
    sizes = sorted({len(run.steps) for _, runs in found for run in runs})
    return Text(
        "{cases} were trained, and the held-out loss and gradient measured at {t} checkpoints of each run.",
        "{cases}を学習させ、各実行の{t}個のチェックポイントでホールドアウト損失と勾配を測定しました。",
    ).format(cases=_named(found), t="–".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1]))))


def compared(found: Runs) -> Text:
    """Say what was compared with what."""
    if not found:
        return Text("Nothing could be compared: no point has a result.", "結果のある点がないため、何も比較できません。")
    every = [run for _, runs in found for run in runs]
    return Text(
        "Along {n} training {runs} ({cases}), the held-out loss above the least one seen was compared with the norm of "
        "the held-out gradient.",
        "{n}回の学習（{cases}）に沿って、観測した最小値からのホールドアウト損失の差を、ホールドアウト勾配のノルムと比較しました。",
    ).format(n=len(every), runs="run" if len(every) == 1 else "runs", cases=_named(found))


def came_out(found: Runs) -> Text:
    """Say what the gate found and how the gap goes with the norm."""
    words = [word for _, runs in found for word in verdicts(runs)]
    if not words:
        return Text("So gradient domination is not decided.", "したがって、勾配支配は判定できません。")
    yes, no = words.count("yes"), words.count("no")
    opening = Text("Not decided", "判定できません")
    if no:
        opening = Text("No, not everywhere", "少なくとも一部では「いいえ」です")
    elif yes == len(words):
        opening = Text("Plausible in every run", "すべての実行でもっともらしいと言えます")
    return Text(
        "{opening}: at 95% confidence in each run the gate says yes in {yes}, no in {no} and undecided in {open} of "
        "{n}; fitted exponents, between the two extremes of the least loss, are {exponents} (descriptive).",
        "{opening}。各実行で95%の信頼度のもと、{n}回中「はい」{yes}回、「いいえ」{no}回、「判定不能」{open}回でした。"
        "損失の下限の両極端の間で推定した指数は、{exponents}です（記述的：保証ではなく観測値）。",
    ).format(opening=opening, yes=yes, no=no, open=len(words) - yes - no, n=len(words), exponents=_exponents(found))


def next_step(found: Runs, plausible: Sequence[Finding]) -> Text:
    """Say what to do."""
    refused = [case.title for (case, _), f in zip(found, plausible, strict=True) if f.outcome == "not confirmed"]
    if refused:
        return Text(
            "Next: use no bound that goes through gradient domination for {cases}; look at the steps named in the gate's "
            "table, where training stood on a plateau, and judge reuse there by the population descent alone.",
            "次に行うこと：{cases}では、勾配支配を経由する保証を使わないでください。ゲートの表にあるステップ（学習が停滞した箇所）を調べ、"
            "再利用の是非は母集団での降下量だけで判断してください。",
        ).format(cases=joined(refused))
    if found and len(decided(plausible, "confirmed")) == len(plausible):
        return Text(
            "Next: a small held-out gradient may be read as little left to gain on such paths; run the gate again for "
            "each new model or data set, which needs two checkpoints and 64 held-out samples.",
            "次に行うこと：このような経路では、ホールドアウト勾配が小さければ改善の余地も小さいと読めます。モデルやデータを変えるたびに"
            "ゲートを再度実行してください（チェックポイント2個とホールドアウト64サンプルで足ります）。",
        )
    sizes = [run.num_heldout for _, runs in found for run in runs if run.num_heldout]
    more = Text("four times as many samples", "4倍のサンプル")
    if sizes:
        more += Text(" ({a} instead of {b})", "（{b}ではなく{a}）").format(a=f"{4 * max(sizes):,}", b=f"{max(sizes):,}")
    return Text(
        "Next: hold out {more} where the data have them, which about halves the error of the gradient's norm, and run "
        "three seeds at least; until then rely on the population descent of single steps, which needs no gradient domination.",
        "次に行うこと：データに余裕があれば{more}をホールドアウトにしてください。そうすると勾配ノルムの誤差はおよそ半分になります。シードは3個以上にしてください。"
        "それまでは、勾配支配を必要としない、1ステップごとの母集団での降下量で判断してください。",
    ).format(more=more)


def may(found: Runs) -> list[Text]:
    """Say what may be concluded."""
    clear = [case.title for case, runs in found if runs and set(verdicts(runs)) == {"yes"}]
    texts = [
        Text(
            "Which exponents and constants the visited points agree with, for either extreme of the least loss.",
            "訪れた点が、損失の下限の両極端のそれぞれで、どの指数と定数に矛盾しないか。",
        )
    ]
    if clear:
        text = Text(
            "That in the runs of {cases} no plateau stood between the checkpoints and the best one seen, at 95% a run.",
            "{cases}の実行では、各チェックポイントと最良の点との間に停滞がなかったこと（実行ごとに95%）。",
        )
        texts.append(text.format(cases=joined(clear)))
    return texts


def method(found: Runs) -> list[Text]:
    """Say how the numbers came about."""
    rows = []
    for case, runs in found:
        config = case.settings.get("config", {})
        data, training = config.get("data", {}), config.get("training", {})
        rows.append(
            Text(
                "{case}: {n} samples trained on, {m} held out, {steps} steps of {optimizer}, {seeds}.",
                "{case}：訓練サンプル{n}個、ホールドアウト{m}個、{optimizer}で{steps}ステップ、{seeds}。",
            ).format(
                case=case.title,
                n=data.get("num_samples", "?"),
                m=max((run.num_heldout for run in runs), default=0),
                steps=training.get("steps", "?"),
                optimizer=training.get("optimizer", "?"),
                seeds=case.counted,
            )
        )
    rows.append(
        Text(
            "The squared gradient norm is a mean of inner products of gradients from different blocks of held-out samples, "
            "so noise does not raise it; its interval is a jackknife's over the blocks. Losses and gradients share the "
            "held-out samples, which took no part in training. The exponent of a run leaves out gaps below 5% of its "
            "largest, as the gate does, and points whose gradient may be 0; runs are the replicates, because checkpoints "
            "of one run depend on each other. Each claim is judged at 95% by itself, so of twenty such claims about one "
            "misses the truth.",
            "勾配ノルムの2乗は、ホールドアウトの異なるブロックの勾配どうしの内積の平均なので、ノイズで大きくなりません。区間はブロックについての"
            "ジャックナイフによります。損失と勾配は同じホールドアウト（訓練には未使用）から求めています。指数の推定では、ゲートと同じく最大の差の"
            "5%未満の点と、勾配が0かもしれない点を除きます。1回の学習のチェックポイントは互いに従属するため、実行を反復として扱います。"
            "各主張は個別に95%で判定しているため、20個に1個程度は誤りえます。",
        )
    )
    return rows


def say(found: Runs) -> Text:
    """Give one sentence for a meeting."""
    words = [word for _, runs in found for word in verdicts(runs)]
    if not words:
        return Text("We have no result on gradient domination yet.", "勾配支配についての結果はまだありません。")
    return Text(
        "Our gate found gradient domination plausible in {yes} of {n} runs and refuted in {no}; the gap went like the "
        "gradient's norm to the power of {exponents}, which describes these paths and guarantees nothing.",
        "ゲートによれば、{n}回の実行のうち{yes}回で勾配支配はもっともらしく、{no}回で否定されました。損失の差は勾配ノルムの"
        "べき乗のように振る舞い、指数は{exponents}でしたが、これは経路の記述であって保証ではありません。",
    ).format(yes=words.count("yes"), no=words.count("no"), n=len(words), exponents=_exponents(found))


def do_not_say(found: Runs) -> list[Text]:
    """Give sentences that the numbers do not support."""
    texts = [
        Text("“The network satisfies the PL condition.”", "「このネットワークはPL条件を満たす」"),
        Text(
            "“The train gradient is small, so the population loss is.”",
            "「訓練勾配が小さいので、母集団損失も小さい」",
        ),
    ]
    for case, runs in found[:1]:
        c = constant(runs, 2.0)
        if math.isfinite(c):
            text = Text(
                "“For {case} the gap is at most {c} times the squared norm”: {c} is only the smallest constant that the "
                "visited points agree with.",
                "「{case}では、差は高々ノルムの2乗の{c}倍である」。{c}は、訪れた点と矛盾しない最小の定数にすぎません。",
            )
            texts.append(text.format(case=case.title, c=number_text(c)))
    return texts


def alt(found: Runs, title: Text, from_zero: bool) -> Text:
    """Describe a figure of gaps for a person who cannot see it."""
    parts = [
        Text("{case}: exponent {a}", "{case}：指数{a}").format(case=case.title, a=range_text(exponent(runs, from_zero)))
        for case, runs in found
    ]
    return title + Text(". Points and envelopes. ", "。点と包絡線。") + joined(parts) + Text(".", "。")


def alt_training(found: Runs, title: Text) -> Text:
    """Describe the figure over steps."""
    parts = []
    for case, runs in found:
        ends = [np.mean([run.norms[i] for run in runs if len(run.norms)] or [math.nan]) for i in (0, -1)]
        text = Text("{case}: the gradient's norm goes from {a} to {b}", "{case}：勾配ノルムは{a}から{b}へ")
        parts.append(text.format(case=case.title, a=number_text(float(ends[0])), b=number_text(float(ends[1]))))
    return title + Text(". ", "。") + (joined(parts) if parts else EMPTY) + Text(".", "。")


def _exponents(found: Runs) -> Text:
    texts = []
    for case, runs in found:
        low, high = sorted((exponent(runs).value, exponent(runs, from_zero=True).value))
        text = Text("{a} to {b} for {case}", "{case}で{a}〜{b}")
        texts.append(text.format(a=number_text(low), b=number_text(high), case=case.title))
    return joined(texts)


def _named(found: Runs) -> Text:
    texts = [Text("{case} with {n}", "{case} {n}").format(case=case.title, n=case.counted) for case, _ in found]
    return joined(texts)
