"""The fixed words of every page, in both languages."""

from __future__ import annotations

from lggwjax.report.language import Text

UNSEEN = {"held-out": Text("held-out", "ホールドアウト"), "population": Text("population", "母集団")}
MOVES = {"step": Text("step", "ステップ"), "move": Text("move", "更新")}
UNITS = {"nats": Text(" nats", " nat"), "units of loss": Text(" units of loss", "")}
# A symbol each, so that nothing is told by its colour alone.
WORDS = {
    "helps": Text("▲ helps", "▲ 改善"),
    "hurts": Text("▼ hurts", "▼ 悪化"),
    "undecided": Text("○ undecided", "○ 判定不能"),
    "unknown": Text.same("–"),
}
OUTCOMES = {
    "confirmed": Text("✓ confirmed", "✓ 確認"),
    "not confirmed": Text("✗ not confirmed", "✗ 確認されず"),
    "not decided": Text("○ not decided", "○ 判定できず"),
}

# What the template says itself, by the names it uses.
PAGE = {
    "figures": Text("What was seen", "観測されたこと"),
    "data": Text("Numbers", "数値（CSV）"),
    "findings": Text("Claims, and what became of them", "主張とその検証結果"),
    "claim": Text("claim", "主張"),
    "outcome": Text("outcome", "結果"),
    "numbers": Text("numbers", "数値"),
    "tables": Text("Tables", "表"),
    "meaning": Text("What LGGW means here", "ここでの LGGW の意味"),
    "conclude": Text("What may be concluded, and what may not", "結論してよいこと、してはならないこと"),
    "may": Text("May be concluded", "結論してよいこと"),
    "may_not": Text("May not be concluded", "結論してはならないこと"),
    "method": Text("Method", "方法"),
    "environment": Text("Environment", "実行環境"),
    "config": Text("Everything that was asked for", "指定した設定のすべて"),
    "glossary": Text("Glossary", "用語集"),
    "meeting": Text("For the meeting", "会議のために"),
    "say": Text("One sentence to say", "この一文を伝える"),
    "do_not_say": Text("What must not be said", "言ってはならないこと"),
    "paper": Text("On paper only the first columns are shown.", "印刷では最初の列だけを示します。"),
    "source": Text(
        "Source of the ideas: Banerjee, Li and Zhou, “Loss Gradient Gaussian Width based Generalization and "
        "Optimization Guarantees”, arXiv 2406.07712.",
        "考え方の出典：Banerjee, Li, Zhou, “Loss Gradient Gaussian Width based Generalization and Optimization "
        "Guarantees”, arXiv 2406.07712。",
    ),
}

# Terms and what they mean to someone who decides and does not compute.
GLOSSARY = (
    (
        Text("Gradient (with respect to the parameters)", "勾配（パラメータに関する）"),
        Text(
            "The direction in which the model's parameters would have to move to raise the loss fastest, and how "
            "fast. Every sample has its own: it says which way that sample pulls the model. It is not the gradient "
            "with respect to the input, which shows what the model looks at.",
            "モデルのパラメータをどの方向に動かすと損失が最も速く増えるか、そしてその速さを表します。"
            "サンプルごとに異なり、そのサンプルがモデルをどちらに引っ張るかを示します。入力に関する勾配（"
            "モデルが何を見ているか）ではありません。",
        ),
    ),
    (
        Text("Width (not variance)", "幅（分散ではない）"),
        Text(
            "The Gaussian width of a set: how far the set reaches along a random direction, on average over "
            "directions. It is a size of the whole set, ruled by its outermost points; a variance would speak of the "
            "typical spread around a mean.",
            "集合のガウス幅のことです。ランダムな方向に沿って集合がどこまで届くかを、方向について平均した値です。"
            "最も外側の点で決まる集合全体の大きさであり、平均のまわりの典型的なばらつきを表す分散とは別のものです。",
        ),
    ),
    (
        Text("LGGW", "LGGW（損失勾配ガウス幅）"),
        Text(
            "Loss gradient Gaussian width: the width of the set of gradients that training can meet or did meet, "
            "over all samples together. Small, compared with the size of the gradients, means a simple set. Measured "
            "along the training itself it is descriptive: an observation and no guarantee.",
            "Loss Gradient Gaussian Width の略で、学習が出会いうる、または実際に出会った勾配の集合の幅を、"
            "全サンプルをまとめて測ったものです。勾配の大きさに比べて小さければ、単純な集合だということです。"
            "学習の経路に沿って測った値は記述的なもの（保証ではなく観測値）です。",
        ),
    ),
    (
        Text("Sample reuse", "サンプル再利用"),
        Text(
            "Computing step after step on the same samples, as every training over several epochs does. It saves "
            "data; from some step on it may fit these samples only and no longer help on new ones.",
            "同じサンプルを使ってステップを何度も重ねることです。複数エポックの学習はすべてこれにあたります。"
            "データの節約になりますが、ある時点からはそのサンプルにだけ適合し、"
            "新しいデータには役立たなくなることがあります。",
        ),
    ),
    (
        Text("PL condition", "PL条件"),
        Text(
            "Polyak–Łojasiewicz: where the gradient is small, the loss is close to its lowest value. It is what lets "
            "a statement about gradients become one about the loss; whether a network satisfies it has to be checked.",
            "Polyak–Łojasiewicz 条件。「勾配が小さければ損失は最小値に近い」という条件です。"
            "勾配についての主張を損失についての主張に変えるために必要ですが、"
            "あるネットワークが満たすかどうかは確かめなければなりません。",
        ),
    ),
    (
        Text("Featurizer", "特徴抽出器（featurizer）"),
        Text(
            "All of the network up to its last layer: it turns an input into the features that the last layer "
            "weighs. Small features keep the last layer's part of the gradient width small, not the rest.",
            "ネットワークのうち最後の層の手前までの部分で、入力を特徴に変えます。最後の層はその特徴に重みをつけます。"
            "特徴が小さければ勾配幅のうち最後の層の分は小さくなりますが、ほかの層については何も言えません。",
        ),
    ),
    (
        Text("Held-out samples", "ホールドアウト"),
        Text(
            "Samples kept out of training, which therefore speak for unseen data.",
            "訓練に使わずに取り分けたサンプル。だからこそ、未見データの代わりになります。",
        ),
    ),
    (
        Text("95% interval", "95%信頼区間"),
        Text(
            "A range made by a rule that contains the true value in 95 of 100 repetitions. An interval across zero "
            "does not say “no effect”; it says that these numbers cannot tell.",
            "同じ手順を100回くり返せば95回は真の値を含むように作られた範囲です。"
            "0をまたぐ区間は「効果がない」ことではなく、「この数値では判定できない」ことを意味します。",
        ),
    ),
)
