"""What the page on width scaling says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lggwjax.report.document import Finding
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.statistics import Interval
from lggwjax.report.studies.cases import decided, seed_band
from lggwjax.report.studies.common import MIN_SEEDS, range_text
from lggwjax.report.studies.width_scaling_labels import QUANTITIES
from lggwjax.report.studies.width_scaling_runs import Growth
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import NONE, number_text


def init_text(growth: Growth) -> Text:
    """Name an initialisation."""
    return {"standard": Text("standard", "標準"), "mean-field": Text("mean-field", "平均場（muP型）")}.get(
        growth.init, Text.same(growth.init)
    )


def num_points(growth: Growth) -> str:
    """Count the feature vectors that each run looked at."""
    known = growth.settings.get("config", {}).get("data", {}).get("probe_size")
    return str(known or "?")


def spread(slopes: Sequence[float]) -> str:
    """Write the lowest and the highest of some slopes."""
    if not slopes:
        return NONE
    ends = [number_text(round(slope, 6)) for slope in (min(slopes), max(slopes))]
    return ends[0] if len(slopes) == 1 else " … ".join(ends)


def slower_numbers(found: Mapping[str, Interval]) -> Text:
    """Write how much more slowly LGGW/rms grows than each measure."""
    parts = [
        QUANTITIES[name] + Text.same(" " + range_text(slope))
        for name, slope in found.items()
        if math.isfinite(slope.low)
    ]
    unknown = [QUANTITIES[name] for name, slope in found.items() if not math.isfinite(slope.low)]
    text = Text("No slope has an interval.", "区間を付けられる傾きがありません。")
    if parts:
        text = Text(
            "Difference of the slopes (below 0: LGGW/rms grows more slowly): {parts}.",
            "傾きの差（負ならLGGW/rmsの方が遅い）：{parts}。",
        ).format(parts=joined(parts))
    if unknown:
        text += Text(" Not known: {names}.", "求まらないもの：{names}。").format(names=joined(unknown))
    return text


def done(growths: Sequence[Growth]) -> Text:
    """Say what was trained and measured."""
    if not growths:
        return Text("No point of this study has a result yet.", "この実験にはまだ結果がありません。")
    return Text(
        "Networks with two hidden layers were trained at widths {widths}, each with {inits} initialisation, in {n} runs; "
        "widths, bounds and the usual measures were taken at the end of each.",
        "隠れ層2層のネットワークを幅{widths}のそれぞれについて{inits}の初期化で学習させ（計{n}回）、最後に幅、上界、よく使われる指標を"
        "求めました。",
    ).format(
        widths=_widths(growths),
        inits=joined([init_text(growth) for growth in growths]),
        n=sum(len(growth.table) for growth in growths),
    )


def compared(growths: Sequence[Growth]) -> Text:
    """Say what was compared with what."""
    if not growths:
        return Text("Nothing could be compared: no point has a result.", "結果のある点がないため、何も比較できません。")
    ends = sorted(width for growth in growths for width in growth.widths)
    return Text(
        "From width {a} to width {b}, LGGW/rms was compared with the number of parameters, the usual measures and the bounds "
        "by how they grow, with {inits} initialisation ({seeds}).",
        "幅{a}から幅{b}まで、LGGW/rmsの増え方を、パラメータ数、よく使われる指標、上界の増え方と、{inits}の初期化（{seeds}）で比較しました。",
    ).format(
        a=f"{ends[0]:,}",
        b=f"{ends[-1]:,}",
        inits=joined([init_text(growth) for growth in growths]),
        seeds=_seeds(growths),
    )


def came_out(growths: Sequence[Growth], flat: Sequence[Finding]) -> Text:
    """Say how LGGW/rms grows and how sure that is."""
    if not growths:
        return Text("So nothing is decided.", "したがって、何も判定できません。")
    parts = []
    for growth, finding in zip(growths, flat, strict=True):
        word = {
            "confirmed": Text("does not grow", "増えません"),
            "not confirmed": Text("grows", "増えます"),
            "not decided": Text("may or may not grow", "増えるかどうか判定できません"),
        }[finding.outcome]
        text = Text(
            "with {init} initialisation LGGW/rms {word} (slope {slope}, parameters {parameters}, certified bound {bound})",
            "{init}の初期化ではLGGW/rmsは{word}（傾き{slope}、パラメータ数{parameters}、保証付き上界{bound}）",
        )
        parts.append(
            text.format(
                init=init_text(growth),
                word=word,
                slope=range_text(growth.slope("lggw_over_rms")),
                parameters=number_text(growth.slope("num_parameters").value),
                bound=number_text(growth.slope("bound_certified").value),
            )
        )
    text = joined(parts) + Text(
        "; brackets are 95% intervals over the runs.", "。括弧内は実行についての95%信頼区間です。"
    )
    return Text(text.en[0].upper() + text.en[1:], text.ja)


def next_step(growths: Sequence[Growth], flat: Sequence[Finding]) -> Text:
    """Say what to do."""
    outcomes = {growth.init: finding.outcome for growth, finding in zip(growths, flat, strict=True)}
    grows = [init_text(growth) for growth in growths if outcomes[growth.init] == "not confirmed"]
    calm = [init_text(growth) for growth in growths if outcomes[growth.init] == "confirmed"]
    most = f"{max((width for growth in growths for width in growth.widths), default=0):,}"
    if grows:
        choice = (
            Text("prefer {calm} where you widen, and ", "広くするなら{calm}を選び、").format(calm=joined(calm))
            if calm
            else EMPTY
        )
        return Text(
            "Next: {choice}choose the width by held-out loss, and watch LGGW/rms when widening with {grows} initialisation, "
            "where it grew.",
            "次に行うこと：{choice}幅はホールドアウト損失で選んでください。LGGW/rmsが増えた{grows}の初期化では、広くするときにLGGW/rmsを"
            "監視してください。",
        ).format(choice=choice, grows=joined(grows))
    if growths and len(calm) == len(growths):
        return Text(
            "Next: choose the width by held-out loss and cost, for up to width {most} LGGW/rms is no argument against it; "
            "measure again before going further.",
            "次に行うこと：幅{most}まではLGGW/rmsは広いモデルを避ける理由になりません。幅はホールドアウト損失と費用で選び、"
            "それより広くする前にもう一度測定してください。",
        ).format(most=most)
    return Text(
        "Next: run {n} seeds at least over two decades of widths (preset full; twice the runs shorten the intervals by "
        "about a third) before LGGW is used to choose a width; until then choose it by held-out loss.",
        "次に行うこと：LGGWで幅を選ぶ前に、シード{n}個以上、幅2桁にわたって実行してください（プリセット full。実行数を2倍にすると区間は"
        "約3割短くなります）。それまではホールドアウト損失で幅を選んでください。",
    ).format(n=MIN_SEEDS)


def meaning(growths: Sequence[Growth]) -> list[Text]:
    """Explain slopes, the ceiling of a finite path and how far training went."""
    texts = [
        Text(
            "A slope b says that ten times the width multiplies a quantity by 10^b. The number of parameters grows with a "
            "slope between 1 and 2; a measure that grows so says little about wide models.",
            "傾きbは、幅を10倍にすると量が10^b倍になることを表します。パラメータ数の傾きは1と2の間で、これと同じように増える指標は広いモデルについて"
            "ほとんど何も語りません。",
        )
    ]
    for growth in growths:
        losses = seed_band(growth.rows("train_loss"))[0]
        if len(losses) > 1 and math.isfinite(losses[0]) and math.isfinite(losses[-1]):
            texts.append(
                Text(
                    "With {init} initialisation the train loss ended at {a} for width {v} and {b} for width {w}: how far "
                    "training went differs too, and the slopes contain it.",
                    "{init}の初期化では、訓練損失は幅{v}で{a}、幅{w}で{b}になりました。学習の進み方も異なり、傾きにはその影響も含まれます。",
                ).format(
                    init=init_text(growth),
                    a=number_text(losses[0]),
                    b=number_text(losses[-1]),
                    v=f"{growth.widths[0]:,}",
                    w=f"{growth.widths[-1]:,}",
                )
            )
    return texts


def may(findings: Sequence[Finding]) -> list[Text]:
    """Say what may be concluded: the claims that were decided."""
    first = Text(
        "How the quantities grew between the widths trained, at this learning rate and number of steps.",
        "学習させた幅の間で、この学習率とステップ数で、各量がどのように増えたか。",
    )
    against = Text("Not what the numbers say: {claim}", "測定結果に反する：{claim}")
    return [
        first,
        *(finding.claim for finding in decided(findings, "confirmed")),
        *(against.format(claim=finding.claim) for finding in decided(findings, "not confirmed")),
    ]


def may_not(growths: Sequence[Growth]) -> list[Text]:
    """Say what may not be concluded."""
    steps = {str(growth.settings.get("config", {}).get("measuring", {}).get("measurements", "?")) for growth in growths}
    return [
        Text(
            "That the width over a whole region of parameters grows as slowly: LGGW is measured on {t} checkpoints, and so "
            "few are never wider than √(2 ln {t}) times the largest rms of the gradients, whatever the model's width.",
            "パラメータの領域全体についての幅も同じように増え方が遅いこと。LGGWは{t}個のチェックポイントで測っており、その個数では、"
            "モデルの幅によらず、勾配のrmsの最大値の√(2 ln {t})倍を超えることがありません。",
        ).format(t="/".join(sorted(steps)) or "T"),
        Text(
            "That it goes on beyond the largest width, or with other data, depths, optimisers or tuned learning rates.",
            "最大の幅を超えても、または別のデータ・深さ・最適化手法・調整した学習率でも同じであること。",
        ),
        Text(
            "That a measure with a smaller slope predicts the generalization gap better.",
            "傾きの小さい指標ほど汎化ギャップをよく予測すること。",
        ),
        Text(
            "That the bound with B as seen holds: it is descriptive, and only the certified one is a guarantee.",
            "観測したBによる上界が成り立つこと。これは記述的で、保証があるのは「保証付き」の上界だけです。",
        ),
    ]


def method(growths: Sequence[Growth], study: StudyRecords) -> list[Text]:
    """Say how the numbers came about."""
    if not growths:
        return []
    config = growths[0].settings.get("config", {})
    data, training = config.get("data", {}), config.get("training", {})
    return [
        Text(
            "{n} samples of {data} were trained on with {optimizer}, {steps} steps at learning rate {rate}, the same for all "
            "widths; gradients were measured on {k} of them. {runs} of {all} runs have a result. A seed draws the sample, "
            "the initial weights and the batches. Mean-field initialisation makes the head's weights smaller by another "
            "root of the width, as in muP.",
            "{data}のサンプル{n}個を、{optimizer}、学習率{rate}、{steps}ステップ（すべての幅で共通）で学習させ、そのうち{k}個で勾配を測定しました。"
            "{all}回中{runs}回の実行に結果があります。シードはサンプル、初期値、バッチを決めます。平均場の初期化では、muPと同様に最終層の重みを"
            "さらに幅の平方根だけ小さくします。",
        ).format(
            n=data.get("num_samples", "?"),
            data=data.get("name", "?"),
            optimizer=training.get("optimizer", "?"),
            steps=training.get("steps", "?"),
            rate=training.get("learning_rate", "?"),
            k=data.get("probe_size", "?"),
            runs=len(study.points),
            all=study.num_points,
        ),
        Text(
            "Slopes are least squares of the logarithm on the logarithm of the width over all runs, with Student's t "
            "intervals; a difference of slopes is the slope of the ratio, so that runs are compared with themselves. Seeds "
            "share their sample between widths, which moves a seed's line up or down and hardly its slope. With fewer than "
            "{n} seeds nothing is decided. Each claim is judged at 95% by itself, so of twenty such claims about one "
            "misses the truth.",
            "傾きは全実行についての対数‐対数の最小二乗で、Studentのt区間を付けています。傾きの差は比の傾きとして求め、同じ実行どうしを比較しています。"
            "同じシードでは幅が違ってもサンプルが共通なので、直線は上下にずれますが傾きはほとんど変わりません。シードが{n}個未満なら何も判定しません。"
            "各主張は個別に95%で判定しているため、20個に1個程度は誤りえます。",
        ).format(n=MIN_SEEDS),
    ]


def say(growths: Sequence[Growth]) -> Text:
    """Give one sentence for a meeting."""
    if not growths:
        return Text("We have no result on width scaling yet.", "幅についての結果はまだありません。")
    parts = [
        Text("{slope} with {init} initialisation", "{init}の初期化で{slope}").format(
            slope=range_text(growth.slope("lggw_over_rms")), init=init_text(growth)
        )
        for growth in growths
    ]
    return Text(
        "In our runs LGGW/rms went like the model's width to the power of {parts}; the number of parameters to the power of "
        "{p}.",
        "私たちの実験では、LGGW/rmsはモデルの幅のべき乗で変化し、指数は{parts}でした。パラメータ数の指数は{p}です。",
    ).format(parts=joined(parts), p=number_text(growths[0].slope("num_parameters").value))


def alt(growths: Sequence[Growth], title: Text, shown: Sequence[str]) -> Text:
    """Describe a figure for a person who cannot see it: the slopes."""
    parts = [
        Text("{what} {slope} ({init})", "{what} {slope}（{init}）").format(
            what=QUANTITIES[name], slope=range_text(growth.slope(name)), init=init_text(growth)
        )
        for name in shown
        for growth in growths
        if name in QUANTITIES
    ]
    return (
        title + Text(" against the model's width. Slopes: ", "とモデルの幅。傾き：") + joined(parts) + Text(".", "。")
    )


def _widths(growths: Sequence[Growth]) -> str:
    return ", ".join(f"{width:,}" for width in sorted({width for growth in growths for width in growth.widths}))


def _seeds(growths: Sequence[Growth]) -> Text:
    counts = sorted({growth.num_seeds for growth in growths})
    num = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return Text("{n} seed" if num == "1" else "{n} seeds", "シード{n}個").format(n=num)
