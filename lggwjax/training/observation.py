"""What a monitor reports: the verdict, what turned first, and one flat record for the writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from lggwjax.training.looks import Judgement, Look, LookInterval, Word, word
from lggwjax.training.meter import Record

NO_HELDOUT = "no held-out probe: nothing can be said about unseen data; pass heldout_probe="
# Quantities of a record that have an error bar, and are null where they were not measured.
ESTIMATES = (
    *("heldout_grad_norm", "deviation", "population_descent"),
    *("lggw", "single_width", "union_width", "cloud_width", "feature_width", "nerc"),
    *("heldout_lggw", "heldout_cloud_width", "heldout_nerc"),
)
SHOWN = 5  # samples named in a report
_GROUPS = {"features": ("active_share", "l1", "l2")}


class Descent(NamedTuple):
    """A population descent with an interval that holds at all looks at once.

    Attributes:
        value: Mean over the held-out samples, in loss.
        stderr: Its standard error.
        low: Lower end of the interval.
        high: Upper end.
        level: Coverage of the intervals of all looks together.
    """

    value: float
    stderr: float
    low: float
    high: float
    level: float


class LayerDescent(NamedTuple):
    """The part of one leaf of the parameters in the population descent; the parts sum to the whole.

    Attributes:
        name: Path of the leaf.
        descent: Its part; the interval holds for all leaves at all looks at once. None where there was no step yet.
        word: What this look says.
        verdict: What is confirmed, by the same rule as for the whole.
        first_hurt: Step at which it first began to hurt, confirmed by the decided look after; or None.
    """

    name: str
    descent: Descent | None
    word: Word
    verdict: Word
    first_hurt: int | None


class SampleDescent(NamedTuple):
    """The descent on one held-out sample. Descriptive: one sample has no error bar.

    Attributes:
        index: Its place in the held-out probe.
        value: Its descent at this look, in loss.
        first_hurt: Step at which it first became negative and was so again at the look after; or None.
    """

    index: int
    value: float
    first_hurt: int | None


@dataclass(frozen=True)
class Report:
    """One look of a monitor.

    Attributes:
        step: Optimiser steps so far.
        word: What this look says by itself: ``helps`` if the interval of the descent lies above 0, ``hurts`` below,
            else ``undecided``; ``unknown`` without held-out probe. LGGW plays no part.
        verdict: What is confirmed: the last word that two decided looks in a row agreed on; undecided looks between
            are passed over. ``undecided`` until then.
        since: Step of the first of the looks that confirmed the verdict: when it turned; or None.
        decided: Step of the last look that was not undecided, or None: how old the verdict's evidence is.
        looks: Looks at the held-out probe so far that could say something; pass it on to
            :meth:`lggwjax.training.Monitor.init` after a restart.
        move: Optimiser steps between the two parameters that the descent speaks of; 0 where there was no step yet.
        descent: The population descent of that move, or None.
        layers: Its parts, one a leaf, in the order of the parameters.
        most_hurt: The five held-out samples on which it descends least.
        turned_first: The five held-out samples that turned first and stayed so for two looks.
        record: All numbers, in strict JSON types: the fields of a run's record and the above.
    """

    step: int
    word: Word
    verdict: Word
    since: int | None
    decided: int | None
    looks: int
    move: int
    descent: Descent | None
    layers: tuple[LayerDescent, ...]
    most_hurt: tuple[SampleDescent, ...]
    turned_first: tuple[SampleDescent, ...]
    record: Record

    @property
    def layers_turned_first(self) -> tuple[LayerDescent, ...]:
        """Leaves that have begun to hurt, the first one first."""
        turned = [layer for layer in self.layers if layer.first_hurt is not None]
        return tuple(sorted(turned, key=lambda layer: layer.first_hurt or 0))

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling for the monitor took so far."""
        return self.record["seconds"]["compiling"]

    @property
    def measuring_seconds(self) -> float:
        """Seconds that looking took so far, compilation apart."""
        return self.record["seconds"]["measuring"]

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, in one sentence."""
        if self.verdict == "unknown":
            return f"{NO_HELDOUT}."
        if self.descent is None:
            return "No step was seen before this look, so nothing can have helped or hurt yet."
        value, _, low, high, level = self.descent
        move = "step" if self.move == 1 else f"move of {self.move} steps"
        said = (
            f"The last {move} descends {value:.3g} on held-out samples, with an interval from {low:.3g} to {high:.3g} "
            f"that holds at all looks at once with probability {level:g}: {self.word}."
        )
        if self.verdict == "undecided":
            return f"{said} No two decided looks in a row have agreed yet."
        stale = "" if self.word == self.verdict else f", decided last at step {self.decided}"
        return f"{said} Two decided looks in a row agree that it {self.verdict} since step {self.since}{stale}."

    def require_verdict(self) -> Word:
        """Return the verdict where there can be one.

        Returns:
            ``helps``, ``undecided`` or ``hurts``.

        Raises:
            ValueError: If there is no held-out probe.
        """
        if self.verdict == "unknown":
            raise ValueError(f"Expected a monitor that can judge, got {NO_HELDOUT}.")
        return self.verdict

    def __str__(self) -> str:
        """One plain sentence or two."""
        said = f"Step {self.step}: {self.verdict}. {self.reason[0].upper()}{self.reason[1:]}"
        first = self.layers_turned_first
        if not first:
            return said
        names = ", ".join(f"{layer.name} (step {layer.first_hurt})" for layer in first[:3])
        return f"{said} First to hurt: {names}."

    def scalars(self) -> dict[str, float | int | str | None]:
        """Flatten the record: the same names at every look of one monitor, None for what is not known.

        Returns:
            Plain numbers and words by name, such as ``population_descent/value`` and ``layers/w/value``.
        """
        flat: dict[str, Any] = {}
        for name, value in self.record.items():
            if name in ESTIMATES:
                parts = value or {}
                low, high = parts.get("ci95") or (None, None)
                flat |= {f"{name}/value": parts.get("value"), f"{name}/stderr": parts.get("stderr")}
                flat |= {f"{name}/ci95_low": low, f"{name}/ci95_high": high}
            elif name in _GROUPS:
                flat |= {f"{name}/{part}": (value or {}).get(part) for part in _GROUPS[name]}
            elif name == "layers":
                for layer in value:
                    flat |= {f"layers/{layer['name']}/{part}": layer[part] for part in layer if part != "name"}
            elif name not in ("status", "samples"):
                flat |= {f"{name}/{part}": x for part, x in value.items()} if isinstance(value, dict) else {name: value}
        return flat


def make_report(
    step: int, move: int, names: list[str], judgement: Judgement | None, look: Look | None, record: Record
) -> Report:
    """Put a look into words.

    Args:
        step: The step of the look.
        move: Optimiser steps that the descent speaks of.
        names: The leaves.
        judgement: What is known after the look; None without held-out probe.
        look: What the look says by itself; None where there was no step yet.
        record: What a meter says of the parameters, with the seconds spent.

    Returns:
        The report, with a record completed by all of it.
    """
    if judgement is None:
        said: dict[str, Any] = {"word": "unknown", "verdict": "unknown", "since": None, "decided": None, "looks": 0}
        parts: tuple = (None, (), (), ())
    else:
        whole = judgement.whole
        said = {
            "word": word(0 if look is None else int(look.whole.signs[0])),
            "verdict": word(int(whole.verdict[0])),
            "since": _step(whole.since[0]),
            "decided": _step(whole.decided[0]),
            "looks": judgement.looks,
        }
        descent = None if look is None else _descent(look.whole, 0, look.level)
        parts = (descent, _layers(names, judgement, look), *_samples(judgement, look))
    descent, layers, most_hurt, turned_first = parts
    known = {"population_descent": _plain_field(look)} if look is not None else {}
    anytime = ("low", "high", "level")
    known |= {
        "move": move,
        "anytime": {end: None if descent is None else getattr(descent, end) for end in anytime},
        "layers": [_layer_field(layer) for layer in layers],
        "samples": {
            "most_hurt": [sample._asdict() for sample in most_hurt],
            "turned_first": [sample._asdict() for sample in turned_first],
        },
    }
    return Report(
        step=step,
        **said,
        move=move,
        descent=descent,
        layers=layers,
        most_hurt=most_hurt,
        turned_first=turned_first,
        record={"step": step, **said} | record | known,
    )


def _step(step: Any) -> int | None:
    return int(step) if step >= 0 else None


def _descent(intervals: LookInterval, index: int, level: float) -> Descent:
    return Descent(*(float(part[index]) for part in intervals), level=level)


def _plain_field(look: Look) -> Record:
    """The descent as a run's records have it: the 95% t interval of this look by itself."""
    value, stderr = float(look.whole.value[0]), float(look.whole.stderr[0])
    half = float(special.stdtrit(len(look.samples) - 1, 0.975)) * stderr
    return {"value": value, "stderr": stderr, "ci95": [value - half, value + half]}


def _layers(names: list[str], judgement: Judgement, look: Look | None) -> tuple[LayerDescent, ...]:
    turns = judgement.layers
    return tuple(
        LayerDescent(
            name=name,
            descent=None if look is None else _descent(look.layers, index, look.level),
            word=word(0 if look is None else int(look.layers.signs[index])),
            verdict=word(int(turns.verdict[index])),
            first_hurt=_step(turns.first_hurt[index]),
        )
        for index, name in enumerate(names)
    )


def _layer_field(layer: LayerDescent) -> Record:
    ends = ("value", "stderr", "low", "high")
    parts = {end: None if layer.descent is None else getattr(layer.descent, end) for end in ends}
    return {"name": layer.name, **parts, "word": layer.word, "verdict": layer.verdict, "first_hurt": layer.first_hurt}


def _samples(judgement: Judgement, look: Look | None) -> tuple[tuple[SampleDescent, ...], tuple[SampleDescent, ...]]:
    """The samples that the step helps least, and those that turned first; ties by their place in the probe."""
    if look is None:
        return (), ()
    first = judgement.samples.first_hurt

    def named(order: np.ndarray) -> tuple[SampleDescent, ...]:
        return tuple(SampleDescent(int(i), float(look.samples[i]), _step(first[i])) for i in order[:SHOWN])

    turned = np.flatnonzero(first >= 0)
    return named(np.argsort(look.samples, kind="stable")), named(turned[np.argsort(first[turned], kind="stable")])
