"""Loss Gradient Gaussian Width in JAX: how complex the gradients are that training meets, with error bars.

Importing this package loads the core only. ``lggwjax.theory``, ``lggwjax.models``, ``lggwjax.data``,
``lggwjax.training`` and ``lggwjax.report`` are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lggwjax.gradients import gradient_gram, per_sample_gradients, random_projections
from lggwjax.lggw import SingleWidths, lggw, nerc, single_widths
from lggwjax.planner import Plan, plan
from lggwjax.widths import Estimate, WidthEstimate, closed_form, gaussian_width, width_from_gram

if TYPE_CHECKING:
    from lggwjax import data, models, report, theory, training
    from lggwjax.report.records import load_run
    from lggwjax.training.measure import measure

__version__ = "0.1.0"

__all__ = [
    "Estimate",
    "Plan",
    "SingleWidths",
    "WidthEstimate",
    "closed_form",
    "data",
    "gaussian_width",
    "gradient_gram",
    "lggw",
    "load_run",
    "measure",
    "models",
    "nerc",
    "per_sample_gradients",
    "plan",
    "random_projections",
    "report",
    "single_widths",
    "theory",
    "training",
    "width_from_gram",
]

_LAZY = {"load_run": "lggwjax.report.records", "measure": "lggwjax.training.measure"}


def __getattr__(name: str) -> Any:
    """Load the rooms that need flax, optax or matplotlib only when they are asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("data", "models", "report", "theory", "training"):
        return importlib.import_module(f"lggwjax.{name}")
    raise AttributeError(f"module 'lggwjax' has no attribute {name!r}")
