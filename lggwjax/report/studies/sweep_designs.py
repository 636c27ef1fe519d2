"""The designs of a grid of one's own: their numbers, which is best, and whether that is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from lggwjax.report.language import Text
from lggwjax.report.statistics import Interval, kendall
from lggwjax.report.studies.common import ALPHA, MIN_SEEDS
from lggwjax.report.studies.effects import Effect, Quantity, Runs, adjusted, diverged, effect, summary
from lggwjax.report.studies.ranks import Resamples
from lggwjax.report.study import StudyRecords

MIN_DESIGNS = 6
LOSS = Quantity("heldout_loss", Text("held-out loss", "ホールドアウト損失"), better=-1)
COLUMNS = {
    "heldout_loss": LOSS.title,
    "train_loss": Text("train loss", "訓練損失"),
    "gap": Text("gap", "汎化ギャップ"),
    "lggw_over_rms": Text.same("LGGW/rms"),
    "deviation_over_rms": Text("deviation / rms", "乖離 / rms"),
    "heldout_accuracy": Text("accuracy", "正解率"),
    "steps_to_target": Text("steps to target", "到達ステップ"),
}
POWER = 0.8
MOST_SEEDS = 100


@dataclass(frozen=True)
class Contest:
    """Designs in order of their mean held-out loss, the best first.

    Attributes:
        designs: Runs by seed of each design.
    """

    designs: Mapping[str, Runs]

    @cached_property
    def means(self) -> dict[str, dict[str, Interval]]:
        """Of each design and number, over seeds."""
        return {design: {name: summary(runs, name) for name in COLUMNS} for design, runs in self.designs.items()}

    @cached_property
    def best(self) -> str | None:
        """The design with the lowest mean held-out loss among those that never diverged."""
        return next((design for design in self.designs if self.takes_part(design)), None)

    def takes_part(self, design: str) -> bool:
        """Whether a design has a held-out loss and no run that diverged."""
        return diverged(self.designs[design]) == 0 and math.isfinite(self.means[design]["heldout_loss"].value)

    @cached_property
    def against(self) -> dict[str, Effect]:
        """How much higher the held-out loss of each other design is than the best one's, adjusted after Holm."""
        if self.best is None:
            return {}
        others = [design for design in self.designs if design != self.best and self.takes_part(design)]
        base = self.designs[self.best]
        found = adjusted([effect(LOSS, base, self.designs[design]) for design in others])
        return dict(zip(others, found, strict=True))

    @property
    def winner(self) -> str | None:
        """The best design, where it is decided against every other one that takes part."""
        beaten = [one.decided and one.change.value > 0 for one in self.against.values()]
        return self.best if beaten and all(beaten) else None

    @property
    def undecided(self) -> list[str]:
        """Designs that the best one is not decided against."""
        return [design for design, one in self.against.items() if not one.decided]

    @cached_property
    def tau(self) -> Interval:
        """Kendall's tau between the designs' mean LGGW / rms and their mean gap, with a bootstrap over designs."""
        x, y = (
            np.array([self.means[design][name].value for design in self.designs]) for name in ("lggw_over_rms", "gap")
        )
        kept = np.isfinite(x) & np.isfinite(y)
        if kept.sum() < MIN_DESIGNS:
            return Interval(kendall(x, y), math.nan, math.nan, math.nan, int(kept.sum()))
        drawn = Resamples(list(range(int(kept.sum()))))
        return drawn.interval(drawn.tau_b(x[kept], y[kept]))

    def seeds_needed(self) -> int | None:
        """Seeds that would separate the best from the closest undecided design, if what was seen is the truth.

        None where that cannot be said, or takes more than a hundred.
        """
        found = [self.against[design].change for design in self.undecided]
        found = [one for one in found if one.num >= MIN_SEEDS and one.value > 0 and one.stderr > 0]
        if not found:
            return None
        level = ALPHA / max(1, len(self.against))
        ratio = min(one.value / (one.stderr * math.sqrt(one.num)) for one in found)
        need = math.ceil(((stats.norm.isf(level / 2) + stats.norm.isf(1 - POWER)) / ratio) ** 2) + 2
        return need if need <= MOST_SEEDS else None


def contest_of(study: StudyRecords) -> Contest:
    """Gather the designs of a sweep.

    Args:
        study: The records.

    Returns:
        The designs, best first; those that diverged, or have no held-out loss, last.
    """
    designs: dict[str, dict[int, Mapping]] = {}
    for point in study.points:
        settings = point["settings"]
        runs = designs.setdefault(str(settings["design"]), {})
        runs[int(settings["seed"])] = point["result"].get("numbers") or {}
    found = Contest(designs)

    def place(design: str) -> tuple[bool, float]:
        loss = found.means[design]["heldout_loss"].value
        return not found.takes_part(design), math.inf if math.isnan(loss) else loss

    return replace(found, designs={design: designs[design] for design in sorted(designs, key=place)})


def design_table(found: Contest) -> pd.DataFrame:
    """Every design with its means, their intervals and its contest with the best."""
    rows = []
    for rank, (design, runs) in enumerate(found.designs.items(), 1):
        row = {"rank": rank, "design": design, "runs": len(runs), "diverged": diverged(runs)}
        for name, one in found.means[design].items():
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        if design in found.against:
            one = found.against[design]
            row |= {
                "above_best": one.change.value,
                "above_best_low": one.change.low,
                "above_best_high": one.change.high,
            }
            row |= {"pairs": one.change.num, "p": one.p, "p_holm": one.adjusted}
        rows.append(row)
    return pd.DataFrame(rows)
