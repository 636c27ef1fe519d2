"""Tables of a comparison: the ranking, the stages, what more samples do, and the plan with its cost."""

from __future__ import annotations

import math

import numpy as np

from lggwjax.report.document import Table
from lggwjax.report.language import EMPTY, Text
from lggwjax.report.studies.common import interval_text, p_text
from lggwjax.report.studies.compare_needs import Doubling, ToDecide, doubling, seconds_of, seconds_spent
from lggwjax.report.studies.comparison import Comparison
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import NONE, number_text

_NAMES = {
    "linear model": Text("linear model", "線形モデル"),
    "network": Text("network", "ネットワーク"),
    "narrow sparse network": Text("narrow sparse network", "細く疎なネットワーク"),
}
_VERDICTS = {
    "yes": Text("yes", "はい"),
    "no": Text("no", "いいえ"),
    "undecided": Text("undecided", "判定不能"),
    "not asked": Text("not asked", "未実施"),
}


def shown(name: str) -> Text:
    """Name a design; figures have the English name."""
    return _NAMES.get(name, Text.same(name))


def labelled(name: str) -> Text:
    """Name a design as the tables do: with the figures' name where it differs."""
    found = shown(name)
    return found if found.ja == name else Text(found.en, f"{found.ja}（{name}）")


def ranking(study: StudyRecords, found: Comparison) -> Table:
    """All designs, the lowest held-out loss first."""
    steps, samples = study.config["plan"]["steps"], study.config["data"]["num_samples"]
    rows = []
    for name in found.names:
        gain, p = found.beats.get(name, (None, math.nan))
        accuracy = found.mean(name, "best_accuracy")
        batch = _batch(study, name) or samples
        note = Text("diverged in {n} seeds", "{n}シードで発散").format(n=found.diverged[name])
        rows.append(
            [
                labelled(name),
                note if found.diverged[name] else interval_text(found.mean(name, "best_loss")),
                interval_text(found.mean(name, "final_loss")),
                NONE if math.isnan(accuracy.value) else f"{100 * accuracy.value:.1f} %",
                NONE if gain is None else interval_text(gain) + (f" ({p_text(p)})" if not math.isnan(p) else ""),
                number_text(_largest(found, name, "num_parameters")),
                f"{int(steps[name]):,}",
                number_text(int(steps[name]) * batch / samples),
                number_text(int(steps[name]) * float(study.config["plan"]["costs"][name]["step"])),
            ]
        )
    return Table(
        title=Text("Ranking at equal training time", "等しい学習時間での順位"),
        headings=[
            Text("design", "設計"),
            Text("held-out loss, best step", "ホールドアウト損失（最良ステップ）"),
            Text("at the end", "終了時"),
            Text("accuracy", "正解率"),
            Text("below the trivial predictor", "単純予測器からの改善"),
            Text("parameters", "パラメータ数"),
            Text("steps", "ステップ数"),
            Text("passes", "パス数"),
            Text("training time (s)", "学習時間（秒）"),
        ],
        rows=rows,
        note=Text(
            "± is half of the 95% interval over seeds. Each half of the held-out samples chooses the best step for the other half, which judges it; ranked by "
            "that loss. Intervals of single designs overlap more than those of paired differences: judge by the differences.",
            "± はシードに関する95%信頼区間の半幅です。ホールドアウトの半分で最良ステップを選び、残りの半分で評価する操作を入れ替えて行い、その損失で順位を付けています。設計"
            "単独の区間は、対応のある差の区間より重なりやすいため、判断は差の区間で行ってください。",
        ),
    )


def _batch(study: StudyRecords, name: str) -> int | None:
    for point in study.config["points"]:
        if point["settings"]["design"] == name:
            return point["settings"]["config"]["training"]["batch_size"]
    return None


def _largest(found: Comparison, name: str, quantity: str) -> float:
    known = found.whole[name][quantity]
    return float(np.nanmax(known)) if np.isfinite(known).any() else math.nan


def stages(found: Comparison) -> Table:
    """What each design says at the gates."""
    rows = []
    for name in found.names:
        verdicts = found.gates[name]
        counts = [(word, verdicts.count(word)) for word in _VERDICTS if word in verdicts]
        gate = EMPTY
        for i, (word, count) in enumerate(counts):
            part = Text("{word}: {n}", "{word}：{n}").format(word=_VERDICTS[word], n=count)
            gate += (Text(", ", "、") if i else EMPTY) + part
        rows.append(
            [
                labelled(name),
                gate if counts else NONE,
                interval_text(found.mean(name, "lggw_over_rms")),
                interval_text(found.mean(name, "gap")),
            ]
        )
    return Table(
        title=Text("What explains it", "何が説明するか"),
        headings=[
            Text("design", "設計"),
            Text("gradient domination plausible? (seeds)", "勾配支配はもっともらしいか（シード数）"),
            Text("LGGW / rms", "LGGW / rms"),
            Text("held-out − train loss at the end", "終了時のホールドアウト損失 − 学習損失"),
        ],
        rows=rows,
        note=Text(
            "Stage 1 asks whether a small gradient meant a small loss along each path, stage 2 whether LGGW / rms and the gap move together. Only where both "
            "say yes does a smaller LGGW explain a smaller gap on these data. The ranking uses neither.",
            "第1段階では、各学習経路で勾配が小さいことが損失の小ささを意味したかを、第2段階では LGGW / rms とギャップが連動するかを調べます。両方が「はい」の"
            "場合に限り、このデータで小さい LGGW が小さいギャップを説明します。順位にはどちらも使っていません。",
        ),
    )


def more_samples(study: StudyRecords, found: Comparison) -> Table:
    """What twice the samples did to each design."""
    num = int(study.config["data"]["num_samples"])
    rows = []
    for name in found.ranked:
        seen = doubling(found, name, num, None)
        half = found.half[name]["best_loss"]
        loss = float(np.nanmean(half)) if np.isfinite(half).any() else math.nan
        rows.append(
            [
                labelled(name),
                number_text(loss),
                number_text(found.mean(name, "best_loss").value),
                interval_text(seen.drop),
            ]
        )
    return Table(
        title=Text("What did twice the samples do?", "サンプルを2倍にすると何が変わったか"),
        headings=[
            Text("design", "設計"),
            Text("loss with {n} samples", "{n} サンプルでの損失").format(n=f"{num // 2:,}"),
            Text("loss with {n} samples", "{n} サンプルでの損失").format(n=f"{num:,}"),
            Text("fell by", "減少量"),
        ],
        rows=rows,
        note=Text(
            "The half is part of the whole, with the same held-out samples, the same steps and the same scale of the inputs. Two sizes make no curve: the next doubling "
            "usually brings less than the last.",
            "半分のサンプルは全体の一部で、ホールドアウト、ステップ数、入力の尺度は同じです。2点では曲線は決まりません。次の倍増の効果は、通常、前回より小さくなります。",
        ),
    )


def plan_table(study: StudyRecords, found: Comparison, need: ToDecide | None, twice: Doubling | None) -> Table | None:
    """The plan in hours and samples, and what it costs where prices are given."""
    question = study.config["question"]
    hour, sample = question.get("price_per_hour"), question.get("price_per_sample")
    rows: list[list[Text | str]] = [
        _timed(Text("this comparison, done", "今回の比較（実施済み）"), seconds_spent(study), hour)
    ]
    if found.chosen is not None:
        title = Text("one more run of {name}, same size", "{name} をもう1回学習（同じ規模）")
        rows.append(_timed(title.format(name=shown(found.chosen)), seconds_of(study, found.chosen), hour))
    if need is not None and need.seeds is not None:
        more = need.seeds - found.num_seeds
        each = seconds_spent(study) / max(1, found.num_seeds)
        title = Text("{n} seeds instead of {m}, to decide", "判定のためシードを {m} から {n} に増やす")
        rows.append(_timed(title.format(n=need.seeds, m=found.num_seeds), more * each, hour))
    if need is not None and need.more is not None:
        rows.append(_counted(Text("samples to decide", "判定に必要な追加サンプル"), need.more, sample, need))
    if twice is not None and twice.least is not None:
        title = Text("samples to reach the loss {x}, at least", "損失 {x} に達するための追加サンプル（最低限）")
        more = max(0, twice.least - int(study.config["data"]["num_samples"]))
        rows.append(_counted(title.format(x=number_text(twice.wanted)), more, sample, None))
    return Table(
        title=Text("The plan and its cost", "計画と費用"),
        headings=[
            Text("what", "項目"),
            Text("machine (hours)", "計算機（時間）"),
            Text("further samples", "追加サンプル"),
            Text("cost", "費用"),
        ],
        rows=rows,
        note=Text(
            "Hours of one process on the machine of this comparison. Costs are in the currency of --price-per-hour and --price-per-sample; a dash where no price was given.",
            "時間は、今回の計算機で1プロセスを動かした場合です。費用は --price-per-hour と --price-per-sample に与えた通貨で、単価がない場合は – です。",
        ),
    )


def _timed(title: Text, seconds: float, price: float | None) -> list[Text | str]:
    hours = seconds / 3600
    return [title, number_text(hours), NONE, NONE if price is None else number_text(hours * price)]


def _counted(title: Text, num: int, price: float | None, need: ToDecide | None) -> list[Text | str]:
    text = f"{num:,}"
    cost = NONE if price is None else number_text(num * price)
    if need is not None and need.low is not None and need.high is not None:
        text += f" [{need.low:,}, {need.high:,}]"
        cost += "" if price is None else f" [{number_text(need.low * price)}, {number_text(need.high * price)}]"
    return [title, NONE, text, cost]
