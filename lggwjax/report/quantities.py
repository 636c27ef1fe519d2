"""What each quantity of the records is called, and what it is, for a reader who never saw its name."""

from __future__ import annotations

from lggwjax.report.language import Text

# {unseen} is held-out or population, {move} is step or move.
NAMES = {
    "lggw": (
        Text("LGGW (stacked)", "LGGW（積み重ね）"),
        Text(
            "width of the path's gradients, all measured samples stacked into one long vector",
            "経路上の勾配の幅。測定した全サンプルの勾配を1本の長いベクトルに積み重ねたもの",
        ),
    ),
    "single_width": (
        Text("single width", "単一サンプル幅"),
        Text(
            "mean over the samples of the width of one sample's gradients along the path",
            "経路に沿った1サンプルの勾配の幅を、サンプルについて平均したもの",
        ),
    ),
    "union_width": (
        Text("union width", "和集合の幅"),
        Text(
            "width of all gradients: every measured sample at every checkpoint",
            "全勾配（測定した全サンプル、全チェックポイント）の幅",
        ),
    ),
    "cloud_width": (
        Text("cloud width", "点群の幅"),
        Text(
            "width of the per-sample gradients at the present checkpoint",
            "現在のチェックポイントでのサンプルごとの勾配の幅",
        ),
    ),
    "nerc": (
        Text("NERC", "NERC"),
        Text(
            "normed empirical Rademacher complexity: how far random signs move the path's gradients",
            "正規化経験ラデマッハ複雑度。ランダムな符号で経路上の勾配がどれだけ動くか",
        ),
    ),
    "feature_width": (
        Text("feature width", "特徴の幅"),
        Text(
            "width of the featurizer's outputs at the present checkpoint",
            "現在のチェックポイントでの特徴抽出器の出力の幅",
        ),
    ),
    "heldout_lggw": (
        Text("LGGW, held-out", "LGGW（ホールドアウト）"),
        Text("the LGGW of the same path on held-out samples", "同じ経路の LGGW をホールドアウトで測ったもの"),
    ),
    "heldout_cloud_width": (
        Text("cloud width, held-out", "点群の幅（ホールドアウト）"),
        Text("the cloud width on held-out samples", "点群の幅をホールドアウトで測ったもの"),
    ),
    "heldout_nerc": (
        Text("NERC, held-out", "NERC（ホールドアウト）"),
        Text("the NERC of the same path on held-out samples", "同じ経路の NERC をホールドアウトで測ったもの"),
    ),
    "deviation": (
        Text("deviation", "乖離"),
        Text(
            "distance between the gradient on the samples trained on and the {unseen} gradient",
            "訓練サンプル上の勾配と{unseen}勾配との距離",
        ),
    ),
    "heldout_grad_norm": (
        Text("{unseen} gradient", "{unseen}勾配"),
        Text("norm of the {unseen} gradient", "{unseen}勾配のノルム"),
    ),
    "population_descent": (
        Text("{unseen} descent", "{unseen}降下量"),
        Text(
            "first-order drop of the {unseen} loss by the last {move}",
            "直前の{move}による{unseen}損失の減少（一次近似）",
        ),
    ),
}
PLAIN = {
    "passes": Text("passes", "エポック"),
    "train_loss": Text("train loss", "訓練損失"),
    "heldout_loss": Text("{unseen} loss", "{unseen}損失"),
    "train_accuracy": Text("train accuracy", "訓練正解率"),
    "heldout_accuracy": Text("{unseen} accuracy", "{unseen}正解率"),
    "grad_norm": Text("train gradient", "訓練勾配"),
    "gradient_rms": Text("gradient rms", "勾配の rms"),
    "features.active_share": Text("active units", "活性ユニットの割合"),
    "features.l1": Text("features L1", "特徴の L1"),
    "features.l2": Text("features L2", "特徴の L2"),
    "lggw_over_rms": Text("LGGW over the largest rms", "LGGW／最大の rms"),
    "cloud_over_rms": Text("cloud width over the present rms", "点群の幅／現在の rms"),
    "nerc_over_width": Text("√n NERC over LGGW + rms", "√n NERC／(LGGW + rms)"),
}
STATUS = {
    "descriptive": Text(
        "descriptive: what was seen, no guarantee; the path was trained on these samples",
        "記述的（保証ではなく観測値）：経路はこのサンプルで訓練されたもの",
    ),
    "independent": Text(
        "independent: these samples took no part in making the path",
        "独立：このサンプルは経路の生成に使われていない",
    ),
}


def name_of(quantity: str) -> Text:
    """Return what a quantity is called; words for unseen data are still to be filled in.

    Example:
        >>> name_of("deviation").ja
        '乖離'
    """
    return NAMES[quantity][0] if quantity in NAMES else PLAIN[quantity]
