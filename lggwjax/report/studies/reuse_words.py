"""What the page of the reuse study says, whatever came out."""

from __future__ import annotations

from lggwjax.report.language import Text
from lggwjax.report.studies.alarms import CLEAR, PATIENCE

FALL = Text(
    "{data}: the largest deviation along the path falls about as fast as 1/√n, or faster.",
    "{data}: 経路上の最大の乖離は、ほぼ 1/√n の速さか、それより速く小さくなる。",
)
FALL_NUMBERS = Text(
    "exponent {slope} (−0.5 is 1/√n, up to {slowest} counts) over n = {sizes}",
    "指数 {slope}（1/√n は −0.5、{slowest} までを認めます。n = {sizes}）",
)
STAYS = Text(
    "{data}: hundreds of passes do not pull the empirical gradient away from the population's.",
    "{data}: 何百回のパスを重ねても、経験勾配は母集団勾配から離れていかない。",
)
STAYS_NUMBERS = Text(
    "deviation at the end over that after one pass: {factor} (mean over sizes and seeds)",
    "1パス後に対する終了時の乖離の比: {factor}（サンプル数とシードに関する平均）",
)
LEADS = Text(
    "The population descent says stop before early stopping on the held-out loss does.",
    "母集団降下量は、ホールドアウト損失による早期終了よりも先に停止を指示する。",
)
LEADS_NUMBERS = Text(
    "lead {lead} looks over the {n} runs in which the loss really rises",
    "損失が実際に上昇した {n} 回の実行で、先行は測定 {lead} 回分",
)
HOLD = Text("The certified bounds on the deviation hold.", "乖離の保証付き上界は成り立つ。")
HOLD_NUMBERS = Text(
    "held in {kept} of {own} runs where it speaks of the sample itself; the tightest bound is {ratio} times the largest deviation",
    "サンプル自身に関する上界は {own} 回中 {kept} 回成立。最も厳しい上界でも最大の乖離の {ratio} 倍",
)
SAID = {
    "confirmed": Text("said stop earlier than", "より早く停止を指示しました"),
    "not confirmed": Text("said stop later than", "より遅く停止を指示しました"),
    "not decided": Text("said stop neither clearly earlier nor later than", "と比べて早いとも遅いとも言えませんでした"),
}
SECOND = Text(
    "The monitor's rule on the population descent {said} early stopping on the held-out loss (lead {lead} looks, 95% interval; false alarms {a} against {b} of {num}); meanwhile the deviation ended, on average, at {low} to {high} times what it was after one pass.",
    "母集団降下量によるモニターの規則は、ホールドアウト損失による早期終了{said}（先行は測定 {lead} 回分、95% 信頼区間。誤警報は {num} 回中 {a} 回、早期終了は {b} 回）。その間に乖離は、データごとの平均で、1パス後の {low}〜{high} 倍になりました。",
)
NEXT = {
    "confirmed": Text(
        "What to do: reuse samples while the held-out descent clearly helps, and stop at two looks in a row that clearly hurt.{passes}",
        "次の一手: ホールドアウトでの降下量が明らかに正である間はサンプルを再利用し、明らかに負の測定が2回続いたら止めてください。{passes}",
    ),
    "not confirmed": Text(
        "What to do: if all you want is to stop, watch the held-out loss, which was earlier here; ask the population descent whether the step just taken helped, with an error you can state, and which layers turned first.{passes}",
        "次の一手: 止め時だけを知りたいなら、ここではより早かったホールドアウト損失を見てください。母集団降下量は、いまのステップが役立ったかを誤りの確率つきで示し、どの層が先に反転したかを知るために使います。{passes}",
    ),
    "not decided": Text(
        "What to do: watch the held-out loss and the population descent together; which of them is earlier was not decided here.{passes}",
        "次の一手: ホールドアウト損失と母集団降下量を併せて見てください。どちらが早いかはここでは決まりませんでした。{passes}",
    ),
}
PASSES = Text(
    " The lowest loss came after {low} to {high} passes, so no fixed number of passes is safe.",
    "損失が最小となるパス数は {low}〜{high} とばらついており、決まったパス数なら安全とは言えません。",
)
GO_ON = Text(
    "What to do: go on reusing and keep looking; no turn was seen in these runs.",
    "次の一手: 再利用を続け、観測も続けてください。これらの実行では反転は見られませんでした。",
)
RULES = {
    "monitor": Text("monitor (all looks hold together)", "モニター（全測定で同時に成立）"),
    "uncorrected": Text("population descent, each look at 95%", "母集団降下量（各測定で 95%）"),
    "stopping": Text("early stopping on held-out loss", "ホールドアウト損失による早期終了"),
}

ALARM_NOTE = Text(
    f"All rules see the same 256 held-out samples at the same looks. Monitor: two looks in a row that clearly hurt. Early stopping: {PATIENCE} looks without a new "
    f"lowest loss. False: the loss on other samples fell by another {CLEAR:.0%} of its range after the stop. Excess: true loss of the parameters with the lowest "
    "held-out loss up to the stop, above the lowest of the run, in percent of the range.",
    f"どの規則も、同じ 256 個のホールドアウトサンプルを同じ時点で見ます。モニターは、明らかに害となる測定が2回続くと停止します。早期終了は、{PATIENCE} 回続けて最小損失を"
    f"更新しないと停止します。誤警報とは、停止後に別のサンプルでの損失がさらに変動幅の {CLEAR:.0%} 以上下がった場合です。超過とは、停止までにホールドアウト損失が最小だった"
    "パラメータの真の損失と、その実行での最小値との差を、変動幅に対する百分率で表したものです。",
)

SIZE_NOTE = Text(
    "Means over seeds, ± half of the 95% t interval. Worth: fresh samples, each used once, that reach the same loss.",
    "シードに関する平均と 95% t 信頼区間の半幅です。価値とは、同じ損失に達するのに要する、1回ずつ使う新しいサンプルの数です。",
)

FIGURES = {
    "deviation": (
        Text("How far is the empirical gradient from the population's?", "経験勾配は母集団勾配からどれだけ離れるか"),
        Text(
            "Distance between the gradient on the samples used again and again and the gradient on held-out samples. "
            "Bands, from three seeds on: 95% t intervals.",
            "繰り返し使うサンプルでの勾配と、ホールドアウトサンプルでの勾配との距離です。帯はシードに関する 95% t 信頼区間です（シード 3 個以上）。",
        ),
    ),
    "bounds": (
        Text("What bounds the deviation, and what goes along with it", "乖離を抑える上界と、乖離に連れて動く量"),
        Text(
            "LGGW/√n and NERC of the samples trained on are descriptive, no guarantee. The certified bound holds with "
            "95% confidence: for the sample itself where the design allows it (linear), else for the held-out part.",
            "学習に使ったサンプルの LGGW/√n と NERC は記述的な量（保証ではなく観測値）です。保証付きの上界は信頼度 95% で"
            "成り立ちます。対象は、設計が許す場合（linear）はサンプル自身、それ以外はホールドアウト部分です。",
        ),
    ),
    "descent": (
        Text("Does the next pass still help?", "次のパスはまだ役に立つか"),
        Text(
            "First-order drop of the loss on unseen data by the step before each look: below zero, reuse hurts. "
            "Linear near zero, logarithmic beyond. Bands, from three seeds on: 95% t intervals.",
            "各測定の直前の1ステップが、未見データの損失をどれだけ下げるか（1次近似）です。0 を下回ると再利用は害になって"
            "います。0 の近くは線形、その外は対数目盛です。帯はシードに関する 95% t 信頼区間です（シード 3 個以上）。",
        ),
    ),
    "worth": (
        Text("What are k passes worth in fresh samples?", "k 回のパスは新しいサンプル何個分に当たるか"),
        Text(
            "Samples, each used once, that bring the loss on unseen data as low as k passes over n samples did; lowest "
            "loss so far on both sides. A line ends where the fresh stream was not long enough to compare.",
            "n 個のサンプルを k 回使って到達した未見データの損失に、1回ずつ使う新しいサンプル何個で到達するかを示します（どちらも"
            "それまでの最小損失）。新しいサンプルの列が足りず比較できないところで線は終わります。",
        ),
    ),
    "lead": (
        Text("Who says stop first?", "先に止めるのはどちらか"),
        Text(
            "Lead of the monitor (population descent) over early stopping on the held-out loss, both on the same "
            "held-out samples and looks, over runs whose loss on other samples really rises. 95% t intervals.",
            "同じホールドアウトサンプルと同じ測定時点を使い、モニター（母集団降下量）が損失による早期終了よりどれだけ早いかを、"
            "別のサンプルで損失が実際に上がった実行について示します。95% t 信頼区間です。",
        ),
    ),
}
"""Title and caption of each figure."""

AXES = {
    "deviation": "deviation (loss per unit of parameter)",
    "bounds": "loss per unit of parameter",
    "descent": "population descent of a step (loss)",
    "worth": "fresh samples of the same worth / n",
}
PANELS_ALT = Text(
    "{title} Line charts against the passes, one panel for each of: {names}.",
    "{title} 横軸はパス数、パネルは{names}です。",
)
LEAD_ALT = Text("Lead by data set: {parts} looks.", "データごとの先行: {parts}（測定回数）。")

METHOD = [
    Text(
        "Reused samples are taken whole at each step, so a step is a pass; fresh ones in batches of 64. The deviation is "
        "unbiased for its square (U-statistic over held-out blocks). True loss: the population's where it is known "
        "(linear), else held-out samples that neither rule sees.",
        "再利用では毎ステップ全サンプルを使うため、1ステップが1パスです。新しいサンプルは 64 個ずつ使います。乖離はその2乗が不偏"
        "（ホールドアウトのブロックに関する U 統計量）です。真の損失は、母集団が既知の場合（linear）はその値、それ以外はどちらの規則も"
        "見ないホールドアウトサンプルでの値です。",
    ),
    Text(
        "Looks are spaced logarithmically, and both rules see the same ones; each is allowed only what it would know at "
        "that moment. Lead counts looks; a rule that never says stop counts as one look after the last.",
        "測定は対数間隔で、両規則は同じ時点を見ます。各規則が使うのは、その時点で知り得る情報だけです。先行は測定回数で数え、停止を指示しなかった"
        "規則は最後の測定の次とみなします。",
    ),
]

MEANING = (
    Text(
        "If reuse does no harm, the gradient on the samples stays near the population gradient however often they are used. "
        "Theory bounds this deviation through LGGW or NERC for parameters that do not depend on the samples; a path trained "
        "on them does, so along it both only describe.",
        "再利用に害がなければ、何度使ってもサンプルでの勾配は母集団勾配の近くに留まります。理論は、サンプルに依存しないパラメータについて、"
        "LGGW や NERC を通じてこの乖離を抑えます。学習した経路はサンプルに依存するため、経路上では両者とも記述的（保証ではなく観測値）です。",
    ),
)
MAY = (
    Text(
        "How the two rules compare on these data, models and optimisers, within the intervals.",
        "これらのデータ、モデル、最適化法での両規則の比較（区間の範囲内で）。",
    ),
    Text(
        "That the certified bounds hold with their confidence for what they name.",
        "保証付きの上界が、その対象について、示された信頼度で成り立つこと。",
    ),
)
MAY_NOT = (
    Text("That the same lead is met on other data.", "他のデータでも同じだけ先行すること。"),
    Text(
        "That a small or flat LGGW shows that reuse is safe: it froze in runs that overfit.",
        "LGGW が小さい、または横ばいなら再利用は安全であること（過学習した実行でも横ばいになりました）。",
    ),
    Text(
        "That fresh samples can be replaced without end: what passes are worth stops growing.",
        "新しいサンプルを際限なく置き換えられること（パスの価値の伸びは止まります）。",
    ),
)
DO_NOT_SAY = (
    Text(
        "“Theory guarantees that we can reuse our samples”: the path was trained on them, so it guarantees nothing here.",
        "「サンプルを再利用してよいと理論が保証している」— 経路はそのサンプルで学習したため、ここでは何も保証されません。",
    ),
    Text(
        "“LGGW went up, so we must stop”: it never falls along a path and is no alarm.",
        "「LGGW が上がったので止めるべきだ」— 経路上の LGGW は下がることがなく、警報にはなりません。",
    ),
)
