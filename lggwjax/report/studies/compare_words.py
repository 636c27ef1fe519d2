"""What the page of a comparison says first: three sentences, one for a meeting, and what not to say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lggwjax.report.document import Finding, Outcome
from lggwjax.report.language import EMPTY, Text, joined
from lggwjax.report.studies.common import interval_text, outcome_of, p_text, range_text
from lggwjax.report.studies.compare_needs import Doubling, ToDecide
from lggwjax.report.studies.compare_tables import shown
from lggwjax.report.studies.comparison import Comparison
from lggwjax.report.table import number_text

IMPRACTICAL = 4
"""More rows than this many times those there are, and the advice is not to collect them for the decision's sake."""


@dataclass(frozen=True)
class Facts:
    """What the sentences need besides the comparison's numbers.

    Attributes:
        data: Name of the data.
        num_samples: Trained on.
        num_heldout: Held out.
        unit: Of the loss.
        need: What would decide what is open, or None.
        twice: What twice the samples did for the design recommended or ahead, or None.
    """

    data: str
    num_samples: int
    num_heldout: int
    unit: Text
    need: ToDecide | None
    twice: Doubling | None

    @property
    def impractical(self) -> bool:
        """Whether deciding takes far more rows than there are."""
        rows = self.num_samples + self.num_heldout
        return self.need is not None and self.need.more is not None and self.need.more > IMPRACTICAL * rows


def answer(found: Comparison, facts: Facts) -> tuple[Text, Text, Text]:
    """Say what was compared, which is better and how sure that is, and what to do next."""
    first = Text(
        "{designs} were compared on {data}, with the same training time: {n} samples trained on, {h} held out, {seeds} seeds.",
        "{designs}を、{data} のデータで同じ学習時間をかけて比較しました（学習 {n} サンプル、ホールドアウト {h} サンプル、シード {seeds} 個）。",
    ).format(
        designs=joined([shown(name) for name in found.names]),
        data=facts.data,
        n=f"{facts.num_samples:,}",
        h=f"{facts.num_heldout:,}",
        seeds=found.num_seeds,
    )
    return Text(first.en[:1].upper() + first.en[1:], first.ja), verdict(found, facts), _next(found, facts)


def verdict(found: Comparison, facts: Facts) -> Text:
    """Say which design is better, and how sure that is."""
    if not found.ranked:
        return Text(
            "No design can be judged: all of them diverged or failed.",
            "どの設計も発散または失敗したため、評価できません。",
        )
    ahead = found.ranked[0]
    values = {
        "ahead": shown(ahead),
        "loss": interval_text(found.mean(ahead, "best_loss")),
        "unit": facts.unit,
        "gain": range_text(found.beats[ahead][0]),
        "worth": number_text(found.worth),
    }
    if found.kind == "stop":
        return Text(
            "Stop: none of them predicts held-out samples better than the trivial predictor, which looks at no input; the best, {ahead}, is "
            "{gain} {unit} below it.",
            "中止：入力を一切見ない単純予測器を上回る設計はありません。最良の{ahead}でも、改善量は {gain} {unit} です。",
        ).format(**values)
    pairs = found.against_leader()
    near = min(pairs, key=lambda pair: pair.found.value) if pairs else None
    if near is not None:
        values |= {"other": shown(near.worse), "behind": range_text(near.found), "p": p_text(near.p)}
    if found.kind == "go" and near is not None:
        return Text(
            "Go with {ahead}: its held-out loss is {loss} {unit}, lower than that of every other design; the nearest, {other}, is {behind} higher "
            "(95% interval; {p} after Holm for all pairs).",
            "{ahead}の採用を推奨します。ホールドアウト損失は {loss} {unit} で、他のどの設計よりも低く、最も近い{other}との差は {behind} です（95%信頼区間、"
            "全ペアのHolm調整後 {p}）。",
        ).format(**values)
    if found.kind == "seeds" or near is None:
        return Text(
            "No winner: {seeds} seeds give no test. The held-out loss of {ahead} was the lowest, {loss} {unit}, which may be chance.",
            "勝者なし：シード {seeds} 個では検定できません。{ahead}のホールドアウト損失が {loss} {unit} で最小でしたが、偶然かもしれません。",
        ).format(seeds=found.num_seeds, **values)
    if found.beats[ahead][1] > 0.05 or math.isnan(found.beats[ahead][1]):
        return Text(
            "No winner, and not even the best design, {ahead}, is decided to beat the trivial predictor: it is {gain} {unit} below it (95% interval).",
            "勝者なし：最良の{ahead}でさえ、単純予測器を上回るとは判定できません（改善量 {gain} {unit}、95%信頼区間）。",
        ).format(**values)
    open_ones = joined([shown(name) for name in found.contenders[1:]])
    if found.kind == "equal":
        return Text(
            "No winner, and none is needed: {ahead} is ahead with {loss} {unit}, but {open} may be behind by less than {worth}, the smallest difference "
            "worth deciding, at 95% confidence.",
            "勝者なし（決める必要もありません）：{ahead}が {loss} {unit} で先行していますが、{open}との差は95%の信頼度で、判定に値する最小の差 {worth} に達しません。",
        ).format(open=open_ones, **values)
    return Text(
        "No winner: {ahead} is ahead with {loss} {unit}, but it is not decided against {open}; {other} is {behind} higher (95% interval; {p} after "
        "Holm for all pairs).",
        "勝者なし：{ahead}が {loss} {unit} で先行していますが、{open}との差は判定できません。{other}との差は {behind} です（95%信頼区間、全ペアのHolm調整後 {p}）。",
    ).format(open=open_ones, **values)


def _next(found: Comparison, facts: Facts) -> Text:
    chosen = shown(found.chosen) if found.chosen else EMPTY
    if found.kind == "stop":
        return Text(
            "Next: look at the label and the columns, or give more time; pay for no more samples before one design beats the trivial predictor.",
            "次に行うこと：ラベルと列を見直すか、時間を増やしてください。単純予測器を上回る設計が現れるまで、サンプルの追加に費用をかけないでください。",
        )
    if found.kind == "seeds":
        return Text(
            "Next: run again with --seeds 5 or more, in a new folder; nothing can be decided before.",
            "次に行うこと：新しいフォルダで --seeds 5 以上を指定して再実行してください。それまでは何も判定できません。",
        )
    if found.kind == "go":
        return Text("Next: go on with {chosen}{more}.", "次に行うこと：{chosen}で進めてください{more}。").format(
            chosen=chosen, more=_more(facts)
        )
    if found.kind == "equal":
        return Text(
            "Next: go on with {chosen}, the smallest of those in front{more}.",
            "次に行うこと：先行する設計のうち最小の{chosen}で進めてください{more}。",
        ).format(chosen=chosen, more=_more(facts))
    return _collect(found, facts)


def _collect(found: Comparison, facts: Facts) -> Text:
    need, simplest = facts.need, shown(found.simplest) if found.simplest else EMPTY
    beaten = found.beats[found.ranked[0]][1] <= 0.05
    meanwhile = Text(
        "; until then go on with {simplest}",
        "。それまでは{simplest}で進めてください",
    )
    meanwhile = meanwhile.format(simplest=simplest) if beaten else EMPTY
    if need is None or need.more is None:
        return Text(
            "Next: run more seeds{meanwhile}.", "次に行うこと：シードを増やして再実行してください{meanwhile}。"
        ).format(meanwhile=meanwhile)
    values = {
        "n": f"{need.more:,}",
        "low": f"{need.low:,}",
        "high": f"{need.high:,}",
        "aim": number_text(need.difference),
        "simplest": simplest,
        "meanwhile": meanwhile,
        "seeds": need.seeds,
    }
    if need.seeds is not None:
        return Text(
            "Next: run {seeds} seeds, which should make the interval ± {aim} on the same rows, narrow enough to decide; or collect about {n} more samples "
            "(80% range {low} to {high}){meanwhile}.",
            "次に行うこと：同じ行のまま --seeds {seeds} で再実行すれば、区間は判定に足りる ± {aim} になる見込みです。または、約 {n} サンプル（80%の範囲 {low}～{high}）を追加"
            "収集してください{meanwhile}。",
        ).format(**values)
    if facts.impractical and beaten:
        return Text(
            "Next: go on with {simplest}, the smallest design that is not told apart; an interval of ± {aim}, narrow enough to decide, would take about {n} more samples "
            "(80% range {low} to {high}), too many to collect for that alone.",
            "次に行うこと：{simplest}（差を判定できない設計の中で最小）で進めてください。判定に足りる ± {aim} の区間を得るには約 {n} サンプル（80%の範囲 {low}～{high}）の追加が必要で、"
            "それだけのために集めるには多すぎます。",
        ).format(**values)
    return Text(
        "Next: collect about {n} more samples (80% range {low} to {high}), a third or so of them held out, for an interval of ± {aim}, narrow enough to decide; more seeds on the "
        "same rows will not do{meanwhile}.",
        "次に行うこと：判定に足りる ± {aim} の区間を得るため、約 {n} サンプル（80%の範囲 {low}～{high}、うちホールドアウトは今回と同じ割合）を追加収集してください。同じ行でシードを"
        "増やすだけでは足りません{meanwhile}。",
    ).format(**values)


def _more(facts: Facts) -> Text:
    """What more samples bring the design that is recommended."""
    twice = facts.twice
    if twice is None or math.isnan(twice.drop.low):
        return EMPTY
    drop = range_text(twice.drop)
    if twice.reached:
        return Text("; the loss that was wanted is reached", "（目標の損失には達しています）")
    if twice.least is not None:
        return Text(
            "; the wanted loss {x} takes at least {n} samples to train on",
            "（目標の損失 {x} には、少なくとも {n} の学習サンプルが必要です）",
        ).format(x=number_text(twice.wanted), n=f"{twice.least:,}")
    if twice.drop.low > 0:
        return Text(
            "; more samples help: the last doubling lowered its loss by {drop}",
            "（サンプルの追加は有効です：直近の倍増で損失は {drop} 下がりました）",
        ).format(drop=drop)
    return Text(
        "; whether more samples would help is not decided (the last doubling lowered its loss by {drop})",
        "（サンプルの追加が有効かどうかは判定できません：直近の倍増による損失の減少は {drop}）",
    ).format(drop=drop)


def findings(found: Comparison, facts: Facts) -> list[Finding]:
    """What became of the claims that a comparison looks into, stage by stage."""
    gates = [word for verdicts in found.gates.values() for word in verdicts]
    asked = [word for word in gates if word != "not asked"]
    gate: Outcome = "not decided"
    if asked and 2 * asked.count("no") > len(asked):
        gate = "not confirmed"
    elif "no" not in asked and 2 * asked.count("yes") > len(asked):
        gate = "confirmed"
    together = found.together
    outcomes: dict[str, Outcome] = {"yes": "confirmed", "no": "not confirmed", "undecided": "not decided"}
    best: Outcome = {"go": "confirmed", "equal": "not confirmed"}.get(found.kind, "not decided")  # type: ignore[assignment]
    rows = [
        Finding(
            Text("One design is better than all others", "ある設計が他のすべてより優れている"),
            best,
            joined([_pair_text(pair.worse, pair.better, interval_text(pair.found), pair.p) for pair in found.pairs])
            if found.pairs
            else EMPTY,
        ),
        Finding(
            Text("Gradient domination is plausible (stage 1)", "勾配支配はもっともらしい（第1段階）"),
            gate,
            Text(
                "of {n} runs: yes {yes}, no {no}, undecided {undecided}, too few held-out samples to ask {rest}",
                "{n} 回の学習のうち、はい {yes}、いいえ {no}、判定不能 {undecided}、ホールドアウト不足で未実施 {rest}",
            ).format(
                n=len(gates),
                yes=gates.count("yes"),
                no=gates.count("no"),
                undecided=gates.count("undecided"),
                rest=gates.count("not asked"),
            ),
        ),
        Finding(
            Text(
                "LGGW / rms and the gap move together on these data (stage 2)",
                "このデータで LGGW / rms とギャップは連動する（第2段階）",
            ),
            outcomes[together.verdict],
            Text(
                "Kendall's tau across {k} designs {across} ({p}), over seeds within designs {within} ({q})",
                "Kendall の τ：{k} 設計の間で {across}（{p}）、設計内のシード間で {within}（{q}）",
            ).format(
                k=len(found.ranked),
                across=number_text(together.across),
                p=p_text(together.across_p),
                within=number_text(together.within),
                q=p_text(together.within_p),
            ),
        ),
    ]
    if facts.twice is not None and found.chosen is not None:
        rows.append(
            Finding(
                Text("More samples help {name}", "サンプルの追加は{name}に有効である").format(name=shown(found.chosen)),
                outcome_of(facts.twice.drop),
                Text("the last doubling lowered the loss by {x}", "直近の倍増による損失の減少 {x}").format(
                    x=range_text(facts.twice.drop)
                ),
            )
        )
    return rows


def _pair_text(worse: str, better: str, text: str, p: float) -> Text:
    return Text("{a} − {b}: {x} ({p})", "{a} − {b}：{x}（{p}）").format(
        a=shown(worse), b=shown(better), x=text, p=p_text(p)
    )


def do_not_say(found: Comparison, facts: Facts) -> list[Text]:
    """Sentences that the numbers do not support."""
    rows = []
    if found.ranked:
        ahead = shown(found.ranked[0])
        if found.kind == "go":
            rows.append(
                Text(
                    "“{ahead} is the best model for these data”: it is the best of {k}, at this training time and sample size.",
                    "「{ahead}はこのデータに最良のモデルである」：比べた {k} 設計の中で、この学習時間とサンプル数で最良というだけです。",
                ).format(ahead=ahead, k=len(found.names))
            )
        else:
            rows.append(
                Text(
                    "“{ahead} won”: its mean is the lowest, and the difference is not decided or not worth deciding.",
                    "「{ahead}が勝った」：平均は最小ですが、差は判定できないか、判定に値しません。",
                ).format(ahead=ahead)
            )
    if found.together.verdict != "yes":
        rows.append(
            Text(
                "“It generalizes better because its LGGW is smaller”: that the two move together is not shown on these data (Kendall's tau across designs {tau}, {p}).",
                "「LGGW が小さいから汎化が良い」：このデータでは両者の連動は示されていません（設計間の Kendall の τ は {tau}、{p}）。",
            ).format(tau=number_text(found.together.across), p=p_text(found.together.across_p))
        )
    if facts.twice is not None and facts.twice.drop.value > 0:
        rows.append(
            Text(
                "“The next doubling of the samples will lower the loss by {x} again”: two sizes make no curve.",
                "「サンプルをもう一度2倍にすれば損失はまた {x} 下がる」：2点では曲線は決まりません。",
            ).format(x=number_text(facts.twice.drop.value))
        )
    return rows
