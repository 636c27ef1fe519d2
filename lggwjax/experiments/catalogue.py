"""Which studies there are, and what each asks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lggwjax.experiments.points import Measure, Point

Preset = Literal["quick", "full", "gpu"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

STUDIES: dict[str, str] = {
    "domination": "is a small population gradient a sign of a small loss, along training?",
    "reuse": "how long do the same samples help, how far do gradients drift, and what sees it first?",
    "featurizer": "how sparse, large and wide are the features, from the start to convergence?",
    "width-scaling": "how do widths, bounds and the usual measures grow with the model's width?",
    "levers": "what lowers LGGW, and what does that buy?",
    "shift": "what moves when the data drift: LGGW, deviation, descent or the held-out loss?",
    "prediction": "which measure ranks models as their generalization gap does?",
}


class Study(NamedTuple):
    """A study's two functions.

    Attributes:
        points: From a preset and the folder of data files (or None) to the points.
        measure: From a point's settings to its result.
    """

    points: Callable[[Preset, Path | None], Sequence[Point]]
    measure: Measure


def find_study(name: str) -> Study:
    """Load a study by its name.

    Args:
        name: One of ``STUDIES``.

    Returns:
        The study.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in STUDIES:
        raise ValueError(f"Expected a study, one of {', '.join(STUDIES)}, got {name!r}.")
    module: Any = importlib.import_module(f"lggwjax.experiments.{name.replace('-', '_')}")
    return Study(module.points, module.measure)
