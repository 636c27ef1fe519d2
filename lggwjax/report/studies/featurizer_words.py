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

SPARSER = Text("{case}: the features get sparser during training.", "{case}：学習中に特徴は疎になる。")
NARROWER = Text(
    "{case}: the featurizer's width falls during training, relative to its norm.",
    "{case}：ノルムに対する特徴抽出器の幅は、学習中に小さくなる。",
)
NARROW = Text(
    "{case}: the featurizer's width ends far below √m times its norm.",
    "{case}：学習の終わりの特徴抽出器の幅は、ノルムの√m倍よりはるかに小さい。",
)
NARROW_NUMBERS = Text(
    "{seeds}: {end} of the l2 ball's width at the end; any {n} points of those norms have at most {cap}, so confirmed only "
    "below half of both, {limit}.",
    "{seeds}：最後の幅はl2球の幅の{end}倍です。同じノルムの{n}点なら高々{cap}倍なので、両方の半分である{limit}を下回る場合だけ"
    "「確認された」とします。",
)
HEAD = Text(
    "{case}: the last layer, which takes the features in, makes most of the gradient's width.",
    "{case}：特徴を受け取る最終層が、勾配の幅の過半を占める。",
)
HEAD_NUMBERS = Text(
    "Share of the sum of the layers' widths at the end: {share} (layers looked at for seeds: {n}); most is more than 0.5.",
    "最後における各層の幅の和に占める割合：{share}（層を調べたシード：{n}個）。過半とは0.5を超えることです。",
)
CHANGE = Text(
    "{seeds}: {what} goes from {start} to {end}, change {change}, paired over seeds.",
    "{seeds}：{what}は{start}から{end}になり、変化は{change}です（シードごとの対応のある差）。",
)
ACTIVE = Text("the active share (L0)", "活性な割合（L0）")
RELATIVE = Text("the width over the l2 ball's", "l2球の幅に対する幅")
MADE_BY = {"inputs": Text("inputs", "入力"), "cotangents": Text("cotangents", "コタンジェント")}
QUANTITIES = {"sparsity": ("active_share", ACTIVE), "sizes": ("l2", Text("the L2 norm", "L2ノルム"))}
QUANTITIES["width_against_bounds"] = ("relative", RELATIVE)
FIGURES = {
    "sparsity": (
        Text("How sparse the features are", "特徴の疎さ"),
        Text(
            "Left: share of units that are not 0. Right: L1 over L2 norm, over its largest value √m, so that 1 means "
            "units that are all alike. Means over the seeds; bands from the lowest to the highest seed.",
            "左は0でないユニットの割合、右はL1ノルムとL2ノルムの比をその最大値√mで割ったもの（1なら全ユニットが同じ大きさ）です。"
            "シードの平均と、最小から最大までの帯を示します。",
        ),
    ),
    "sizes": (
        Text("How large and wide the features are", "特徴の大きさと幅"),
        Text(
            "Mean L1 and L2 norms, and the Gaussian width of the feature vectors looked at, with 0. Raw sizes grow with "
            "the features themselves. Means over the seeds; bands from the lowest to the highest seed.",
            "L1・L2ノルムの平均と、調べた特徴ベクトルに0を加えた集合のガウス幅です。これらの値は特徴そのものの大きさとともに増えます。"
            "シードの平均と、最小から最大までの帯を示します。",
        ),
    ),
    "width_against_bounds": (
        Text("The width against its bounds", "幅とその上界"),
        Text(
            "The measured width, and the width of the balls that hold the features, all over that of the l2 ball (about "
            "√m times the largest norm, drawn at 1). Grey and coloured lines are bounds, certified for the features looked "
            "at and for no others; the black dotted one holds for any so many points and knows nothing of the features.",
            "測定した幅と、特徴を含む球の幅を、いずれもl2球の幅（最大ノルムの約√m倍、図では1）で割ったものです。破線・点線は上界で、"
            "調べた特徴について保証付き（certified）ですが、他の特徴には何も言えません。黒い点線は、同じ個数の任意の点について"
            "成り立つもので、特徴の性質は使っていません。",
        ),
    ),
    "layer_shares": (
        Text("Which layer makes the gradient's width", "勾配の幅を作る層"),
        Text(
            "Share of each leaf of the parameters in the sum of all leaves' gradient widths at the end of training, first "
            "seed; lines: 95% intervals over random directions. Bold: the last layer. Colour: whether the width of the "
            "layer's inputs or of its cotangents makes more of the bound.",
            "学習の終わりにおける、各パラメータの勾配の幅が全体の和に占める割合です（最初のシード）。線は乱数方向についての95%信頼区間、"
            "太字は最終層です。色は、その層の入力の幅とコタンジェントの幅のどちらが上界の大きい方を作るかを示します。",
        ),
    ),
}
ENDS = {
    "active_share": ACTIVE,
    "l1": Text("L1 norm", "L1ノルム"),
    "l2": Text("L2 norm", "L2ノルム"),
    "filled": Text("L1 / (L2 √m)", "L1 /（L2 √m）"),
    "width": Text("width", "幅"),
    "relative": RELATIVE,
    "train_loss": Text("train loss", "訓練損失"),
    "heldout_loss": Text("held-out loss", "ホールドアウト損失"),
}
ENDS_TITLE = Text("Start and end of training", "学習の始めと終わり")
ENDS_HEADINGS = (
    Text("model, data, quantity", "モデル、データ、量"),
    Text("start", "始め"),
    Text("end", "終わり"),
    Text("change", "変化"),
)
ENDS_NOTE = Text(
    "Means over seeds with Student's t intervals (95%); the change is paired over seeds. How far training converged is to "
    "be read off the train loss.",
    "シードの平均とStudentのt区間（95%）で、変化はシードごとの対応のある差です。どこまで収束したかは訓練損失から読み取ってください。",
)
LAYERS_TITLE = Text("Layers at the end: {case}", "学習の終わりの各層：{case}")
LAYERS_HEADINGS = (
    Text("leaf", "パラメータ"),
    Text("parameters", "個数"),
    Text("gradient width", "勾配の幅"),
    Text("share", "割合"),
    Text("made by", "主因"),
)
LAYERS_NOTE = Text(
    "First seed; ±: 95% over random directions. Made by: the larger of the two terms that bound the layer's width, from "
    "the width of its inputs or of its cotangents; a dash for leaves without factors, such as biases.",
    "最初のシードの値で、±は乱数方向についての95%信頼区間です。主因は、層の幅の上界を作る2つの項（入力の幅、コタンジェントの幅）のうち"
    "大きい方で、バイアスなど因子に分かれないものは「–」です。",
)
LAYERS_MORE = Text(
    " {n} smaller leaves are in the table's file only.", "ほか{n}個の小さいパラメータは表のファイルにだけあります。"
)
MEANING = (
    Text(
        "The featurizer is the network up to its last layer. A set of features that are small in L1 norm, or have few "
        "entries that are not 0, has a small Gaussian width, and a small width bounds the gradient width of the last layer: "
        "of that layer alone, not of the network.",
        "特徴抽出器とは、ネットワークの最終層より手前の部分です。L1ノルムが小さい特徴や、0でない成分が少ない特徴の集合はガウス幅が小さく、"
        "それは最終層の勾配の幅を抑えます。ただし抑えるのは最終層だけで、ネットワーク全体ではありません。",
    ),
    Text(
        "A width is that of the vectors looked at. So few points are narrow whatever they are, which is why the figure "
        "has a line for any so many points, and why only what lies clearly below it says something about the features.",
        "幅は調べたベクトルの集合についてのものです。点が少なければ、どのような点でも幅は小さくなります。そのため図には任意の同数の点についての"
        "線があり、それを明らかに下回って初めて特徴について何かが言えます。",
    ),
)
MAY_NOT = (
    Text(
        "That features of other samples, or of all parameters near these, are as narrow.",
        "他のサンプルの特徴や、近くのすべてのパラメータでの特徴も同じように狭いこと。",
    ),
    Text(
        "That a narrow featurizer makes the whole gradient's width small: it bounds the last layer alone.",
        "特徴抽出器が狭ければ勾配全体の幅が小さいこと。抑えられるのは最終層だけです。",
    ),
    Text(
        "That sparsity causes what is seen beside it: nothing was changed here but the training step.",
        "疎であることが、同時に見られた変化の原因であること。ここで変えたのは学習ステップだけです。",
    ),
)
DO_NOT_SAY = (
    Text("“Training makes features sparse, so LGGW is small.”", "「学習で特徴が疎になるので、LGGWは小さい」"),
    Text(
        "“The featurizer's width bounds the generalization gap of the network.”",
        "「特徴抽出器の幅が、ネットワークの汎化ギャップを抑える」",
    ),
)


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
