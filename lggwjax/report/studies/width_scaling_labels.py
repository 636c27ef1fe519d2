"""Names, captions and headings of the page on width scaling."""

from __future__ import annotations

from lggwjax.report.language import Text

QUANTITIES = {
    "lggw_over_rms": Text("LGGW/rms (stacked)", "LGGW/rms（積み上げ）"),
    "single_width_over_rms": Text("single width/rms", "単一サンプルの幅/rms"),
    "union_width_over_rms": Text("union width/rms", "和集合の幅/rms"),
    "nerc_over_rms": Text("NERC/rms", "NERC/rms"),
    "lggw": Text("LGGW (stacked)", "LGGW（積み上げ）"),
    "single_width": Text("single width", "単一サンプルの幅"),
    "union_width": Text("union width", "和集合の幅"),
    "nerc": Text("NERC", "NERC"),
    "gradient_rms": Text("gradient rms", "勾配のrms"),
    "deviation": Text("deviation", "乖離"),
    "feature_width": Text("featurizer width", "特徴抽出器の幅"),
    "feature_width_over_norm": Text("featurizer width/norm", "特徴抽出器の幅/ノルム"),
    "active_share": Text("active share (L0)", "活性な割合（L0）"),
    "bound_certified": Text("bound on the deviation (certified)", "乖離の上界（保証付き）"),
    "bound_seen": Text("bound, B as seen (descriptive)", "観測したBによる上界（記述的）"),
    "num_parameters": Text("number of parameters", "パラメータ数"),
    "parameter_norm": Text("parameter norm", "パラメータのノルム"),
    "distance_from_start": Text("distance from start", "初期値からの距離"),
    "product_of_norms": Text("product of norms", "ノルムの積"),
    "spectral_complexity": Text("spectral complexity", "スペクトル複雑度"),
    "sharpness": Text("sharpness", "鋭さ"),
    "gradient_variance": Text("gradient variance", "勾配の分散"),
    "train_loss": Text("train loss", "訓練損失"),
    "heldout_loss": Text("held-out loss", "ホールドアウト損失"),
    "gap": Text("generalization gap", "汎化ギャップ"),
}
USUAL = (
    "num_parameters",
    "parameter_norm",
    "distance_from_start",
    "product_of_norms",
    "spectral_complexity",
    "sharpness",
    "gradient_variance",
)
PANELS: dict[str, dict[str, str]] = {
    "widths_over_rms": {
        "lggw_over_rms": "LGGW / rms",
        "single_width_over_rms": "single width / rms",
        "union_width_over_rms": "union width / rms",
        "nerc_over_rms": "NERC / rms",
    },
    "widths": {
        "lggw": "LGGW (stacked)",
        "single_width": "single width",
        "union_width": "union width",
        "nerc": "NERC",
        "gradient_rms": "gradient rms",
        "deviation": "deviation",
    },
    "featurizer": {
        "feature_width": "featurizer width",
        "feature_width_over_norm": "width / largest norm",
        "active_share": "active share (L0)",
    },
    "usual_measures": {
        "parameter_norm": "parameter norm",
        "distance_from_start": "distance from start",
        "product_of_norms": "product of norms",
        "spectral_complexity": "spectral complexity",
        "sharpness": "sharpness",
        "gradient_variance": "gradient variance",
    },
    "losses": {"train_loss": "train loss", "heldout_loss": "held-out loss", "gap": "generalization gap"},
}
# Title, caption, vertical axis.
FIGURES: dict[str, tuple[Text, Text, str]] = {
    "widths_over_rms": (
        Text("Widths, free of the gradients' scale", "勾配の大きさで割った幅"),
        Text(
            "Widths of the whole path and NERC over the root mean square of the gradients along it: only these may be "
            "compared between models.",
            "経路全体の幅とNERCを、経路に沿った勾配の二乗平均平方根（rms）で割ったものです。モデル間で比較してよいのはこれらだけです。",
        ),
        "over gradient rms (no unit)",
    ),
    "widths": (
        Text("Widths, NERC and deviation as they are", "そのままの幅・NERC・乖離"),
        Text(
            "The same without division, beside the gradients' scale itself: much of their growth is that of the gradients.",
            "割らずに示した値と、勾配の大きさそのものです。増加の多くは勾配自体の増加によります。",
        ),
        "nats per unit of parameter",
    ),
    "featurizer": (
        Text("The featurizer", "特徴抽出器"),
        Text(
            "Width of the features of the train samples looked at, with 0; the same over their largest norm; and the share "
            "of units that are not 0. The l2 ball's width over its norm grows with slope 1/2.",
            "調べた訓練サンプルの特徴に0を加えた集合の幅、それを最大ノルムで割ったもの、0でないユニットの割合です。l2球の幅とノルムの比は"
            "傾き1/2で増えます。",
        ),
        "no unit",
    ),
    "featurizer_bounds": (
        Text("The featurizer's width against its bounds", "特徴抽出器の幅とその上界"),
        Text(
            "Width over the largest norm, and the same of the balls that hold the features: bounds, certified for the "
            "features looked at and for no others.",
            "最大ノルムで割った幅と、特徴を含む球についての同じ比です。上界は調べた特徴について保証付き（certified）ですが、他の特徴には"
            "何も言えません。",
        ),
        "width / largest norm (no unit)",
    ),
    "bounds": (
        Text("Bounds on the gradient's deviation", "勾配の乖離の上界"),
        Text(
            "How far held-out gradients along the path can be from the population's: certified with a gradient bound from "
            "the weights, descriptive with the longest gradient seen. Beside them the measured deviation of the train "
            "gradient, which neither bounds.",
            "経路に沿ったホールドアウト勾配が母集団勾配からどれだけ離れうるかの上界です。重みから求めた勾配の上界によるものは保証付き、"
            "観測した最長の勾配によるものは記述的です。測定した訓練勾配の乖離も示しますが、これらの上界の対象ではありません。",
        ),
        "nats per unit of parameter",
    ),
    "usual_measures": (
        Text("The usual measures of complexity", "よく使われる複雑さの指標"),
        Text(
            "At the last checkpoint. Spectral complexity is known only where nine tenths of the sample are classified "
            "with a positive margin.",
            "最後のチェックポイントでの値です。スペクトル複雑度は、サンプルの9割が正のマージンで分類される場合にだけ求まります。",
        ),
        "value (own unit each)",
    ),
    "losses": (
        Text("Losses at the end", "学習の終わりの損失"),
        Text(
            "All widths were trained for as many steps at one learning rate, so wide models may simply have got further.",
            "すべての幅を同じ学習率・同じステップ数で学習させたため、広いモデルは単に学習がより進んだだけかもしれません。",
        ),
        "nats",
    ),
}
SLOPES_NOTE = Text(
    " Lines: means over seeds, bands from the lowest to the highest seed; at the right the fitted slope of the log on the "
    "log width, ± its 95% interval.",
    "線はシードの平均、帯は最小から最大まで、右の数字は対数‐対数での傾きとその95%信頼区間です。",
)
TABLE_TITLE = Text("Slopes, {init} initialisation", "傾き：{init}の初期化")
TABLE_HEADINGS = (
    Text("quantity", "量"),
    Text("slope [95%]", "傾き [95%]"),
    Text("single seeds", "各シード"),
    Text("two largest widths", "最大の2つの幅"),
    Text("runs", "実行数"),
)
TABLE_NOTE = Text(
    "Slope: exponent of the model's width, least squares through all runs, which counts every departure from a power law as "
    "error. Single seeds: lowest to highest. Two largest widths: the exponent there alone, averaged over seeds; where it "
    "differs, the growth is no power law. *: the spread over seeds differs plainly between widths (Bartlett's test, "
    "p < 0.01), so the interval is approximate.",
    "傾きはモデルの幅に対するべき指数で、全実行についての最小二乗によります。べき乗則からのずれはすべて誤差に数えます。各シードは最小から最大まで、"
    "最大の2つの幅はそこだけの指数をシードについて平均したもので、全体の傾きと違えば、べき乗則ではありません。*は、シード間のばらつきが幅によって"
    "明らかに異なり（Bartlett検定、p < 0.01）、区間が近似的であることを示します。",
)
FLAT = Text(
    "{init} initialisation: LGGW/rms does not grow with the model's width.",
    "{init}の初期化：LGGW/rmsはモデルの幅とともに増えない。",
)
FLAT_NUMBERS = Text(
    "Slope {slope} over {runs} runs; confirmed where the interval reaches 0 or below and ends under {margin}, so that ten "
    "times the width adds a quarter at most.",
    "傾きは{slope}（{runs}回の実行）です。区間が0以下にかかり、かつ{margin}未満で終わる場合（幅を10倍にしても増加は高々約25%）に"
    "「確認された」とします。",
)
SLOWER = Text(
    "{init} initialisation: LGGW/rms grows more slowly than the number of parameters and the usual measures.",
    "{init}の初期化：LGGW/rmsは、パラメータ数やよく使われる指標より増え方が遅い。",
)
ROOT = Text(
    "{init} initialisation: the featurizer's width over its norm grows more slowly than √m.",
    "{init}の初期化：ノルムで割った特徴抽出器の幅は、√mより増え方が遅い。",
)
ROOT_NUMBERS = Text(
    "It grows like m to the power of {slope} over {runs} runs, on {points} feature vectors a run; so few vectors grow "
    "slowly whatever they are.",
    "m のべき乗で変化し、指数は{slope}です（{runs}回の実行、各{points}個の特徴ベクトル）。この程度の個数では、どのようなベクトルでも増え方は遅くなります。",
)
DO_NOT_SAY = (
    Text("“LGGW is independent of the number of parameters.”", "「LGGWはパラメータ数に依存しない」"),
    Text(
        "“Wider models generalize better because their LGGW is smaller.”", "「広いモデルはLGGWが小さいので汎化が良い」"
    ),
    Text(
        "“The certified bound shows that these networks generalize.”",
        "「保証付きの上界により、これらのネットワークの汎化が示された」",
    ),
)
