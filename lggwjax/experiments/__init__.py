"""Theory against experiment: studies that are one command each, grids of one's own, and comparisons of designs."""

from __future__ import annotations

from typing import Literal, get_args

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
"""The studies, and what each asks; each is a module here with ``points`` and ``measure``."""
