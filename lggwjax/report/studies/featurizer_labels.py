"""Names, claims, captions and headings of the page on the featurizer."""

from __future__ import annotations

from lggwjax.report.language import Text

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
