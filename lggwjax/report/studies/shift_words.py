"""What the page of the shift study says, whatever came out."""

from __future__ import annotations

from lggwjax.report.language import Text
from lggwjax.report.studies.alarms import DEVIATIONS, PATIENCE, WINDOW

SIGNALS = {
    "lggw_over_rms": Text("LGGW / rms", "LGGW / rms"),
    "lggw": Text("LGGW", "LGGW"),
    "cloud_over_rms": Text("cloud width / rms", "点群の幅 / rms"),
    "deviation": Text("deviation", "乖離"),
    "descent": Text("population descent", "母集団降下量"),
    "stream_loss": Text("loss on the latest samples", "最新サンプルでの損失"),
    "heldout_loss": Text("held-out loss, patience of 3", "ホールドアウト損失（patience 3）"),
}
AXES = {
    "lggw_over_rms": "LGGW / rms (last 4 checkpoints)",
    "deviation": "deviation (loss / parameter)",
    "descent": "population descent (nats)",
    "heldout_loss": "held-out loss (nats)",
}
SHIFTS = {
    "none": Text("no shift", "ドリフトなし"),
    "label noise": Text("label noise", "ラベルノイズ"),
    "corruption": Text("corruption", "入力の劣化"),
    "class imbalance": Text("class imbalance", "クラス不均衡"),
    "covariate shift": Text("covariate shift", "共変量シフト"),
    "new labels": Text("new labels", "ラベルの付け替え"),
}

SIGNALS_TITLE = Text("What moves when the stream changes?", "列が変わると何が動くか")
SIGNALS_CAPTION = Text(
    "The stream changes at step 0; held-out data stay as they were. Means over seeds, with 95% t intervals from three seeds on. LGGW is taken over the last four checkpoints on the latest 64 samples.",
    "列はステップ 0 で変わり、ホールドアウトデータは元のままです。シードに関する平均です（シード 3 個以上では 95% t 信頼区間も）。LGGW は直近 4 つのチェックポイントと最新の 64 サンプルで測ります。",
)
LEAD_TITLE = Text("Who notices first?", "最初に気づくのはどれか")
LEAD_CAPTION = Text(
    "Looks by which each signal is earlier than the held-out loss is, in hindsight, above all it was before: above zero it leads. Streams whose loss does not rise, or in which the signal cried wolf before, are left out. Means over seeds, 95% t intervals.",
    "ホールドアウト損失が、後から見てそれまでのどの値よりも高くなった時点より、各量が測定何回分早いかを示します。0 より上なら先行です。損失が上がらなかった列と、その量が先に誤警報を出した列は除きます。シードに関する平均と 95% t 信頼区間です。",
)
LEAD = Text(
    "lead {lead} looks ({k} seeds); false alarms in {wrong} of {n} streams without a shift.",
    "先行は測定 {lead} 回分（シード {k} 個）、ドリフトのない列での誤警報は {n} 本中 {wrong} 本。",
)
NO_LEAD = Text(
    "no stream to judge a lead by: the loss never rose, or the signal spoke before the shift; false alarms in {wrong} of {n} streams without a shift.",
    "先行を判定できる列はありません（損失が上がらなかったか、変化の前に警報が出ました）。ドリフトのない列での誤警報は {n} 本中 {wrong} 本。",
)
TABLE_TITLE = Text("Alarms by kind of drift", "ドリフトの種類ごとの警報")
TABLE_NOTE = Text(
    f"How many streams a signal noticed after the shift and, in brackets, after how many looks (mean ± half of the 95% t interval). A signal rises when two looks in a row exceed the mean of the {WINDOW} looks before them, and the line through these, by {DEVIATIONS:g} standard deviations; the population descent speaks when two looks in a row clearly hurt, the held-out loss when {PATIENCE} looks in a row bring no new lowest one. It rises, in hindsight, when two looks in a row are above the {WINDOW} before the shift.",
    f"ドリフト後にその量が気づいた列の数と、括弧内に気づくまでの測定回数（平均と 95% t 信頼区間の半幅）です。直前の {WINDOW} 回の測定の平均と、それに当てはめた直線の延長の両方を、2回続けて標準偏差の {DEVIATIONS:g} 倍以上上回ると上昇とみなします。母集団降下量は、明らかに害となる測定が2回続くと、ホールドアウト損失は {PATIENCE} 回続けて最小値を更新しないと警報を出します。損失の上昇は、後から見て、2回続けて変化前の {WINDOW} 回のどれよりも高くなった時点とします。",
)
MEANING = (
    Text(
        "When data drift, the gradients of new samples point elsewhere. LGGW measures how far the set of these gradients reaches, the deviation how far their mean is from the gradient on the old data, and the population descent whether the steps still help on the old data.",
        "データがドリフトすると、新しいサンプルの勾配は別の方向を向きます。LGGW はその勾配の集合の広がりを、乖離はその平均と元のデータでの勾配との距離を、母集団降下量はステップが元のデータでまだ役立つかを測ります。",
    ),
)
METHOD = (
    Text(
        "Each stream draws batches from a pool; from the middle on they are shifted. Signals are looked at 80 times, and no rule knows when the shift comes. Held-out data come from the pool's source and do not drift.",
        "各列はプールからバッチを取り出し、中間点から先でデータを変えます。測定は 80 回で、どの規則も変化の時点を知りません。ホールドアウトデータはプールと同じ出所で、ドリフトしません。",
    ),
    Text(
        "Lead is the mean over seeds of each seed's mean over shifts. A signal that says nothing counts as one look after the last.",
        "先行は、各シードでのドリフトに関する平均を、さらにシードで平均したものです。警報を出さない量は最後の測定の次に出したとみなします。",
    ),
)
MAY = (
    Text(
        "Which signal noticed these drifts, of these strengths, on these data, and how often it cried wolf.",
        "これらのデータで、これらの強さのドリフトにどの量が気づき、どれだけ誤警報を出したか。",
    ),
)
MAY_NOT = (
    Text(
        "That the same order holds for other drifts or weaker ones.",
        "他のドリフトや、より弱いドリフトでも同じ順になること。",
    ),
    Text(
        "That no alarm means no drift: a drift that leaves gradients alone is seen by none of these.",
        "警報がなければドリフトもないこと（勾配を変えないドリフトは、どの量にも見えません）。",
    ),
)
DO_NOT_SAY = (
    Text("“A rising LGGW shows that the data drift.”", "「LGGW の上昇はデータのドリフトを示す」"),
    Text("“LGGW is flat, so the data are the same.”", "「LGGW が横ばいなのでデータは同じだ」"),
)
