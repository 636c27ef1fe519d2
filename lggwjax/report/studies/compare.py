"""The page of a comparison: a recommendation and how sure it is."""

from __future__ import annotations

from lggwjax.report.document import Document, Tone
from lggwjax.report.language import Text
from lggwjax.report.studies import compare_words as words
from lggwjax.report.studies.common import asked_for, environment, missing_points
from lggwjax.report.studies.compare_figures import figures
from lggwjax.report.studies.compare_needs import beat_trivial, doubling, to_decide
from lggwjax.report.studies.compare_tables import more_samples, plan_table, ranking, shown, stages
from lggwjax.report.studies.comparison import Comparison, compared
from lggwjax.report.study import StudyRecords
from lggwjax.report.table import number_text

_TONES: dict[str, Tone] = {"go": "helps", "equal": "helps", "stop": "hurts"}


def document(study: StudyRecords) -> Document:
    """Say which design to go on with, how sure that is, and what to do next.

    Args:
        study: The records of a comparison.

    Returns:
        The page; figures are written to the study's folder.
    """
    found, data = compared(study), study.config["data"]
    num_samples, num_heldout = int(data["num_samples"]), int(data["num_heldout"])
    rows = num_samples + num_heldout
    classes = data["task"] == "classification"
    unit = Text("nats", "nats") if classes else Text("(half squared errors)", "（二乗誤差の 1/2）")
    need = twice = None
    if found.ranked:
        need = beat_trivial(found, rows) or (to_decide(found, rows) if found.kind == "collect" else None)
    if found.chosen is not None:
        twice = doubling(found, found.chosen, num_samples, study.config["question"].get("target_loss"))
    facts = words.Facts(
        str(data["title"]), num_samples, num_heldout, unit, need if found.kind == "collect" else None, twice
    )
    answer = words.answer(found, facts)
    return Document(
        kind=Text("Comparison", "比較"),
        title=Text("Which design for {data}?", "{data} にはどの設計か").format(data=_title(study)),
        done=_done(study) + missing_points(study),
        question=Text("Which design, and how sure is that?", "どの設計を選ぶべきか、どれだけ確かか"),
        answer=answer,
        tone=_TONES.get(found.kind, "undecided"),
        figures=figures(study, found, "nats" if classes else "half squared errors"),
        findings=words.findings(found, facts),
        tables=[
            table
            for table in (
                ranking(study, found),
                plan_table(study, found, facts.need, twice),
                more_samples(study, found),
                stages(found),
            )
            if table is not None
        ],
        meaning=_meaning(found, classes),
        may=_MAY,
        may_not=_MAY_NOT,
        method=_method(study, found),
        say=_say(answer, found),
        do_not_say=words.do_not_say(found, facts),
        config=asked_for(study),
        environment=environment(study),
    )


def _title(study: StudyRecords) -> str:
    data = study.config["data"]
    return str(data["title"]) if data.get("label") is None else f"{data['title']} ({data['label']})"


def _done(study: StudyRecords) -> Text:
    data = study.config["data"]
    task = Text("{k} classes", "{k} クラスの分類").format(k=data["num_outputs"])
    if data["task"] != "classification":
        task = Text("a number to predict", "数値の予測")
    rows = Text("as many rows as are asked for", "行数の制限なし")
    if data["num_rows"] is not None:
        rows = Text("{n} rows", "{n} 行").format(n=f"{data['num_rows']:,}")
    return Text(
        "{rows}, {task}; each of {s} seeds trains on {n} samples and on half of them, and holds out {h}.",
        "{rows}、{task}。{s} 個のシードそれぞれで、{n} サンプルとその半分で学習し、{h} サンプルをホールドアウトとしました。",
    ).format(rows=rows, task=task, s=study.config["seeds"], n=f"{data['num_samples']:,}", h=f"{data['num_heldout']:,}")


def _say(answer: tuple[Text, Text, Text], found: Comparison) -> Text:
    """The verdict, with the size of the comparison before it."""
    start = Text("{k} designs, {s} seeds. ", "{k} 設計、シード {s} 個。").format(k=len(found.names), s=found.num_seeds)
    return start + answer[1]


def _meaning(found: Comparison, classes: bool) -> list[Text]:
    rows = [
        Text(
            "The loss is the cross-entropy on samples that were not trained on, in nats: 0 is perfect, and a uniform guess among k classes loses log k."
            if classes
            else "The loss is half the squared error on samples that were not trained on, in units of the label's standard deviation in the "
            "sample: the mean loses about 0.5, and 1 − loss / 0.5 is about the share of the variance that is explained.",
            "損失は、学習に使っていないサンプルでの交差エントロピー（単位 nats）です。0 が完全で、k クラスの一様な当て推量では log k になります。"
            if classes
            else "損失は、学習に使っていないサンプルでの二乗誤差の半分で、ラベルの標準偏差（学習サンプル内）を単位とします。平均値による予測の損失は約 0.5 で、"
            "1 − 損失 / 0.5 がおよその寄与率です。",
        ),
        _explained(found),
    ]
    return rows


def _explained(found: Comparison) -> Text:
    asked = [word for verdicts in found.gates.values() for word in verdicts if word != "not asked"]
    plausible = bool(asked) and "no" not in asked and 2 * asked.count("yes") > len(asked)
    if found.together.verdict == "yes" and plausible and found.ranked:
        ahead = found.ranked[0]
        return Text(
            "LGGW explains: gradient domination is plausible and LGGW / rms and the gap move together on these data; {ahead} has LGGW / rms {x} and a gap of {y}.",
            "LGGW による説明：勾配支配はもっともらしく、このデータで LGGW / rms とギャップは連動しています。{ahead}の LGGW / rms は {x}、ギャップは {y} です。",
        ).format(
            ahead=shown(ahead),
            x=number_text(found.mean(ahead, "lggw_over_rms").value),
            y=number_text(found.mean(ahead, "gap").value),
        )
    return Text(
        "LGGW is not used to explain the ranking here: the stages that would allow it are not both passed. Along a path both LGGW and the gap usually rise, which alone "
        "says nothing; what counts is whether designs, or seeds of one design, are ordered alike. Across designs that takes five of them: three that line up perfectly do so by "
        "chance in one case out of three, in either order.",
        "ここでは、順位の説明に LGGW を使いません。それを許す2つの段階がそろって満たされていないためです。学習の進行につれて LGGW もギャップもふつう増えるので、それだけでは何も"
        "言えません。設計どうし、または同じ設計のシードどうしで順序が一致するかどうかが重要です。設計間での判定には5つ以上の設計が必要です。3つが完全に並ぶことは、"
        "正逆合わせて3回に1回は偶然に起こります。",
    )


_MAY = (
    Text(
        "Which of these designs had the lower held-out loss on samples like these, at this training time and this number of samples, where a difference is decided.",
        "差が判定された場合に限り、このようなサンプル、この学習時間、このサンプル数で、どの設計のホールドアウト損失が低かったか。",
    ),
    Text(
        "That a design beats the trivial predictor, where that is decided.",
        "単純予測器を上回ると判定された設計については、そのこと。",
    ),
)
_MAY_NOT = (
    Text(
        "Anything about designs that were not compared, other learning rates, longer training, or samples from elsewhere.",
        "比較していない設計、別の学習率、より長い学習、別の出所のサンプルについては何も言えません。",
    ),
    Text(
        "That two designs are equal because no winner was found; only where the page says that none is needed.",
        "勝者がいないことを理由に、2つの設計が同等だと言うこと（「決める必要もない」と書かれている場合を除きます）。",
    ),
    Text(
        "That a smaller LGGW certifies anything: it is measured on the samples trained on.",
        "小さい LGGW が何かを保証すると言うこと。LGGW は学習に使ったサンプルで測っています。",
    ),
)


def _method(study: StudyRecords, found: Comparison) -> list[Text]:
    plan, config = study.config["plan"], study.config
    alike = len(set(plan["steps"].values())) == 1
    return [
        Text(
            "Equal budget: a pilot timed a step of each design on this machine, and every run then got the number of steps that fits the same training time, "
            "fixed before the first run, so that a comparison can be repeated and resumed. Designs whose steps cost up to 1.5 times the cheapest count "
            "as equally fast, and a run ends once the slowest design has made 100 passes or 1,000 steps, whichever is more. {alike} Equal time is what a team pays for; "
            "on another machine a large design may get more steps. The budget was {minutes} minutes in all.",
            "等しい予算：まずパイロットで各設計の1ステップの時間をこの計算機で測り、同じ学習時間に収まるステップ数を最初の学習の前に固定しました。これにより比較を再現・再開できます。"
            "最も速い設計の1.5倍までは同じ速さとみなし、最も遅い設計が 100 パスまたは 1,000 ステップの多いほうに達したところで学習を終えます。{alike}チームが支払うのは時間なので、時間をそろえています。"
            "別の計算機では、大きな設計のステップ数が増えるかもしれません。予算は全体で {minutes} 分でした。",
        ).format(
            alike=Text("Here all designs made the same number of steps.", "今回は全設計のステップ数が同じでした。")
            if alike
            else Text("Here the numbers of steps differ.", "今回は設計によってステップ数が異なります。"),
            minutes=number_text(float(config["minutes"])),
        ),
        Text(
            "Seeds and intervals: each seed draws the samples trained on, the held-out samples and the initial parameters anew, the same for all designs, so that differences "
            "are paired. Splits of the same rows depend on each other; the intervals allow for that (Nadeau and Bengio, 2003; correlation {rho}). "
            "A design is the winner only if it is decided against every other one, at 5% for all pairs together (Holm).",
            "シードと区間：シードごとに学習サンプル、ホールドアウト、初期パラメータを引き直し、全設計に共通とするので、差は対応づけて評価できます。同じ行の分割は互いに独立ではないため、"
            "区間はその分広くしています（Nadeau・Bengio 2003、相関 {rho}）。他のすべての設計との差が、全ペア合わせて5%の水準で判定された（Holm法）場合だけ勝者とします。",
        ).format(rho=number_text(found.overlap)),
        Text(
            "Inputs: columns of numbers are standardised and words become indicators, both by what the samples trained on say; images lie between 0 and 1. The "
            "trivial predictor knows the frequencies of the classes (one added to each count) or the mean. The smallest difference worth deciding is "
            "{share} of the lowest mean loss.",
            "入力：数値の列は標準化し、単語は指示変数に変換します。どちらも学習サンプルだけから決めます。画像は 0～1 です。単純予測器はクラスの頻度（各度数に1を加算）または平均値だけを"
            "使います。判定に値する最小の差は、最小の平均損失の {share} です。",
        ).format(share=f"{100 * float(config['question']['worth']):g}%"),
        Text(
            "Samples to decide: the spread over seeds is taken to fall as one over the rows; it is known badly from few seeds, which the 80% range shows. It is advice, "
            "no guarantee. LGGW is measured at {k} checkpoints and at most 64 samples of each run.",
            "判定に必要なサンプル数：シード間の分散は行数に反比例すると仮定しています。少ないシードでは分散自体が不確かで、それを80%の範囲で示しています。これは目安であり、保証ではありません。"
            "LGGW は各学習の {k} 個のチェックポイントと、最大 64 サンプルで測りました。",
        ).format(k=int(plan["measurements"])),
    ]
