"""Captions and headings of the page on gradient domination."""

from __future__ import annotations

from lggwjax.report.language import Text

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
