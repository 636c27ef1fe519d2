"""Width scaling: how widths, bounds and the usual measures grow with the model's width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import jax.numpy as jnp

from lggwjax.data import DataSpec
from lggwjax.experiments import Preset
from lggwjax.experiments.measures import path_rms, usual_measures
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import Trained, data_folder, run_config, run_settings, train_path
from lggwjax.models.spec import Init, ModelSpec
from lggwjax.theory import GradientBound, feature_width_bounds, points_bound
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainSpec

# Model widths: two decades, but for the quick look.
_WIDTHS: dict[Preset, tuple[int, ...]] = {
    "quick": (8, 32, 128),
    "full": (10, 32, 100, 316, 1000),
    "gpu": (32, 100, 316, 1000, 3162, 10000),
}
_SEEDS: dict[Preset, int] = {"quick": 1, "full": 3, "gpu": 5}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Two hidden layers of each width, in both initialisations, once a seed."""
    data = "digits" if preset == "quick" else "mnist"
    num_samples, steps = {"quick": (200, 60), "full": (500, 200), "gpu": (5000, 2000)}[preset]
    found = []
    for init in get_args(Init):
        for width in _WIDTHS[preset]:
            for seed in range(_SEEDS[preset]):
                spec = DataSpec(
                    data,
                    data_folder(data, data_dir),
                    num_samples=num_samples,
                    probe_size=64,
                    heldout_samples=1000,
                    seed=seed,
                )
                config = RunConfig(
                    spec,
                    ModelSpec(widths=(width, width), init=init),
                    # Plain gradient descent: with Adam a step moves every weight alike, whatever the width is.
                    TrainSpec(optimizer="gd", steps=steps, learning_rate=0.05, seed=seed),
                    MeasureSpec(measurements=8, directions=256),
                )
                settings = run_settings(config) | {"width": width, "init": init, "seed": seed}
                found.append(Point(f"{init}-{width}-s{seed}", settings))
    return found


def measure(settings: Json) -> Json:
    """Widths of the whole path, features at its end, bounds and usual measures."""
    trained = train_path(run_config(settings))
    last, rms = trained.records[-1], path_rms(trained.records)
    names = ("lggw", "single_width", "union_width", "feature_width", "nerc", "deviation")
    numbers = {name: last[name]["value"] for name in names if last[name] is not None}
    numbers |= {f"{name}_over_rms": numbers[name] / rms for name in ("lggw", "single_width", "union_width", "nerc")}
    features = jnp.asarray(trained.features(trained.path[-1], trained.probe))
    numbers |= {f"feature_bound_{name}": float(b.value) for name, b in feature_width_bounds(features).items()}
    numbers |= {
        "gradient_rms": rms,
        "train_loss": last["train_loss"],
        "heldout_loss": last["heldout_loss"],
        "gap": last["heldout_loss"] - last["train_loss"],
        "num_parameters": trained.prepared.monitor.plan(trained.path[0])["num_parameters"],
        "active_share": (last["features"] or {}).get("active_share"),
    }
    return {"numbers": numbers | _bounds(trained) | usual_measures(trained)}


def _bounds(trained: Trained) -> dict[str, float | None]:
    """How far held-out gradients along the path can be from the population's, (4.4), B from the weights and as seen."""
    num, count, evidence = len(trained.heldout["y"]), len(trained.path), trained.evidence
    longest = float(jnp.sqrt(jnp.diagonal(evidence.grams, axis1=1, axis2=2).max()))
    seen = points_bound(GradientBound.seen(longest), num, count, design="independent split")
    found: dict[str, float | None] = {"bound_seen": seen.value, "bound_certified": None}
    bound = points_bound(evidence.gradient_bound, num, count, design="independent split")
    if bound.status == "certified":
        found["bound_certified"] = bound.value
    return found
