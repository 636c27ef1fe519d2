"""What the page on gradient domination says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lggwjax.report.document import Finding
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.studies.cases import Case, decided
from lggwjax.report.studies.common import MIN_SEEDS, range_text
from lggwjax.report.studies.domination_runs import Run, constant, exponent
from lggwjax.report.table import number_text

Runs = Sequence[tuple[Case, Sequence[Run]]]


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
    if found and all(word == "yes" for _, runs in found for word in verdicts(runs)):
        return Text(
            "Next: run the seeds that are missing, {n} at least for each model, before this is relied on: nothing spoke "
            "against it so far.",
            "次に行うこと：この結果を当てにする前に、モデルごとに少なくとも{n}個になるよう、足りないシードを実行してください。"
            "これまでのところ、反する結果はありません。",
        ).format(n=MIN_SEEDS)
    sizes = [run.num_heldout for _, runs in found for run in runs if run.num_heldout]
    more = Text("four times as many samples", "4倍のサンプル")
    if sizes:
        more += Text(" ({a} instead of {b})", "（{b}ではなく{a}）").format(a=f"{4 * max(sizes):,}", b=f"{max(sizes):,}")
    few = any(len(runs) < MIN_SEEDS for _, runs in found)
    seeds = Text(", and run three seeds at least", "シードは3個以上にしてください。") if few else Text.same("")
    return Text(
        "Next: hold out {more} where the data have them, which about halves the error of the gradient's norm{seeds}; "
        "until then rely on the population descent of single steps, which needs no gradient domination.",
        "次に行うこと：データに余裕があれば{more}をホールドアウトにしてください。そうすると勾配ノルムの誤差はおよそ半分になります。{seeds}"
        "それまでは、勾配支配を必要としない、1ステップごとの母集団での降下量で判断してください。",
    ).format(more=more, seeds=seeds)


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
