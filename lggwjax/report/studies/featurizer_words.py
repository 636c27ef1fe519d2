"""What the page on the featurizer says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lggwjax.report.document import Finding
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.statistics import Interval
from lggwjax.report.studies.cases import Case, decided
from lggwjax.report.studies.common import MIN_SEEDS, interval_text
from lggwjax.report.studies.featurizer_runs import Features, Leaf, head_share
from lggwjax.report.table import number_text

Found = Sequence[tuple[Case, Features]]
Claims = Mapping[str, Sequence[Finding]]
Layers = Sequence[tuple[Case, Sequence[Leaf]]]


def narrow_limit(features: Features) -> float:
    """Below which a width counts as far below both the l2 ball's and that of any so many points."""
    return 0.5 * min(1.0, features.cap)


def done(found: Found) -> Text:
    """Say what was trained and looked at."""
    if not found:
        return Text("No point of this study has a result yet.", "この実験にはまだ結果がありません。")
    return Text(
        "{cases} were trained; the features of train samples were looked at from initialisation to the last step, and the "
        "gradients layer by layer at the end. It is our approximation of the published setting.",
        "{cases}を学習させ、訓練サンプルの特徴を初期化から最後のステップまで調べ、最後に勾配を層ごとに調べました。"
        "論文の設定を私たちの規模で近似したものです。",
    ).format(cases=_named(found))


def compared(found: Found) -> Text:
    """Say what was compared with what."""
    if not found:
        return Text("Nothing could be compared: no point has a result.", "結果のある点がないため、何も比較できません。")
    sizes = sorted({features.num_points for _, features in found})
    return Text(
        "The featurizers of {cases} were compared at the end of training with those at initialisation, on {n} train "
        "samples each, and with what l2, k-sparse and l1 balls allow.",
        "{cases}の特徴抽出器を、訓練サンプル{n}個ずつについて、学習の終わりと初期化とで、またl2球・k-疎・l1球の幅と比較しました。",
    ).format(cases=_named(found), n="–".join(map(str, sizes)))


def came_out(found: Found) -> Text:
    """Say how sparse and narrow the features became, and what the last layer makes."""
    if not found:
        return Text("So nothing is decided.", "したがって、何も判定できません。")
    parts = []
    for case, features in found:
        start, end, change = features.ends("active_share")
        narrow, share = features.ends("relative")[1], head_share(case)
        text = Text(
            "{case}: {word} (active share {start} to {end}, change {change}), width {narrow} of the l2 ball's{head}",
            "{case}では{word}（活性な割合は{start}から{end}、変化{change}）、幅はl2球の{narrow}倍{head}",
        )
        head = EMPTY
        if share.num:
            head = Text(", last layer {share} of the gradient's width", "、最終層は勾配の幅の{share}")
            head = head.format(share=f"{100 * share.value:.0f}%")
        parts.append(
            text.format(
                case=case.title,
                word=_word(change),
                start=number_text(start.value),
                end=number_text(end.value),
                change=interval_text(change),
                narrow=number_text(narrow.value),
                head=head,
            )
        )
    return _semicolons(parts)


def next_step(found: Found, claims: Claims, layers: Layers) -> Text:
    """Say what to do."""
    if any(len(case.seeds) < MIN_SEEDS for case, _ in found) or not found:
        return Text(
            "Next: run {n} seeds at least (preset full), before anything is made of the direction of these changes.",
            "次に行うこと：変化の向きについて判断する前に、シードを{n}個以上にして（プリセット full）実行してください。",
        ).format(n=MIN_SEEDS)
    denser = [case for (case, _), f in zip(found, claims["sparser"], strict=True) if f.outcome == "not confirmed"]
    widest = [
        Text("{leaf} ({case})", "{case}の{leaf}").format(leaf=leaves[0].name, case=case.title)
        for case, leaves in layers
    ]
    look = Text(" look first at the layers that make most: {w}.", "幅を最も多く作る層（{w}）から調べてください。")
    look = look.format(w=joined(widest)) if widest else EMPTY
    if denser:
        return (
            Text(
                "Next: do not count on training to make features sparse for {cases}; if a smaller width is wanted, put an L1 "
                "penalty on the features or keep the largest ones only, and judge by LGGW/rms and held-out loss;",
                "次に行うこと：{cases}では、学習だけで特徴が疎になることを期待しないでください。幅を小さくしたい場合は、特徴にL1罰則を課すか"
                "大きい成分だけを残し、LGGW/rmsとホールドアウト損失で判断してください。",
            ).format(cases=joined([case.title for case in denser]))
            + look
        )
    return (
        Text(
            "Next: watch the featurizer's width beside LGGW/rms in your own runs;",
            "次に行うこと：実際の学習で、LGGW/rmsとあわせて特徴抽出器の幅を監視してください。",
        )
        + look
    )


def may(claims: Claims) -> list[Text]:
    """Say what may be concluded: the claims that were decided."""
    found = [f.claim for its in claims.values() for f in decided(its, "confirmed")]
    against = Text("Not what the numbers say: {claim}", "測定結果に反する：{claim}")
    found += [against.format(claim=f.claim) for its in claims.values() for f in decided(its, "not confirmed")]
    only = Text(
        "How sparse and wide the features looked at were, at each step measured.",
        "調べた特徴が、測定した各ステップでどれだけ疎でどれだけ広かったか。",
    )
    return [only, *found]


def method(found: Found, layers: Layers) -> list[Text]:
    """Say how the numbers came about."""
    rows = []
    for case, features in found:
        config = case.settings.get("config", {})
        text = Text(
            "{case}: {n} samples trained on, {steps} steps of {optimizer}, m = {m} features, {k} samples looked at, {seeds}.",
            "{case}：訓練サンプル{n}個、{optimizer}で{steps}ステップ、特徴の次元 m = {m}、調べたサンプル{k}個、{seeds}。",
        )
        rows.append(
            text.format(
                case=case.title,
                n=config.get("data", {}).get("num_samples", "?"),
                steps=config.get("training", {}).get("steps", "?"),
                optimizer=config.get("training", {}).get("optimizer", "?"),
                m=number_text(features.dimension),
                k=features.num_points,
                seeds=case.counted,
            )
        )
    looked = Text("none", "なし")
    if layers:
        looked = joined([case.title for case, _ in layers])
    rows.append(
        Text(
            "A seed draws the sample, the initial weights and the batches. Changes are differences within a seed, with "
            "Student's t intervals over seeds; every claim is judged at 95% by itself, so of twenty such claims about one "
            "misses the truth, and with fewer than {least} seeds none is judged. The width has a Monte Carlo error of "
            "about one percent, which the spread over seeds contains. Layers were looked at for: {looked}.",
            "シードはサンプル、初期値、バッチを決めます。変化は同じシード内の差で、シードについてのStudentのt区間を付けています。各主張は個別に95%で"
            "判定しているため、20個に1個程度は誤りえます。シードが{least}個未満なら判定しません。幅にはモンテカルロ誤差が1%程度あり、"
            "シード間のばらつきに含まれます。層を調べたもの：{looked}。",
        ).format(least=MIN_SEEDS, looked=looked)
    )
    return rows


def say(found: Found) -> Text:
    """Give one sentence for a meeting."""
    if not found:
        return Text("We have no result on the featurizer yet.", "特徴抽出器についての結果はまだありません。")
    parts = []
    for case, features in found:
        start, end, _ = features.ends("active_share")
        text = Text("from {a} to {b} ({case})", "{case}で{a}から{b}")
        parts.append(text.format(a=number_text(start.value), b=number_text(end.value), case=case.title))
    return Text(
        "Over training the share of active features went {parts}; that is what we saw on the samples looked at.",
        "学習を通じて、活性な特徴の割合は{parts}へ変わりました。調べたサンプルでの観測です。",
    ).format(parts=joined(parts))


def alt(found: Found, title: Text, quantity: tuple[str, Text]) -> Text:
    """Describe a figure over steps for a person who cannot see it."""
    parts = []
    for case, features in found:
        start, end, _ = features.ends(quantity[0])
        text = Text("{case}: {what} goes from {a} to {b}", "{case}：{what}は{a}から{b}へ")
        parts.append(
            text.format(case=case.title, what=quantity[1], a=number_text(start.value), b=number_text(end.value))
        )
    return title + Text(". ", "。") + joined(parts) + Text(".", "。")


def alt_layers(layers: Layers, title: Text) -> Text:
    """Describe the figure of layers."""
    text = Text("{case}: the largest is {leaf} with {share}", "{case}：最大は{leaf}の{share}")
    parts = [
        text.format(case=case.title, leaf=leaves[0].name, share=f"{100 * leaves[0].share:.0f}%")
        for case, leaves in layers
    ]
    return title + Text(". ", "。") + joined(parts) + Text(".", "。")


def _word(change: Interval) -> Text:
    if change.num >= MIN_SEEDS and change.high < 0:
        return Text("features got sparser", "特徴は疎になり")
    if change.num >= MIN_SEEDS and change.low > 0:
        return Text("features got denser, not sparser", "特徴は疎にならず密になり")
    return Text("not decided whether features got sparser", "特徴が疎になったかは判定できず")


def _semicolons(parts: Sequence[Text]) -> Text:
    found = parts[0]
    for part in parts[1:]:
        found = found + Text("; ", "；") + part
    return found + Text(".", "です。")


def _named(found: Found) -> Text:
    return joined([Text("{case} with {n}", "{case} {n}").format(case=case.title, n=case.counted) for case, _ in found])
