"""Prediction: which measure of a trained network ranks networks as their generalization gap does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from lggwjax.data import DataSpec
from lggwjax.experiments import Preset
from lggwjax.experiments.measures import path_rms, usual_measures
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import data_folder, replaced, run_config, run_settings, train_path
from lggwjax.models.spec import ModelSpec
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainSpec

_AXES: dict[Preset, dict[str, list]] = {
    "quick": {
        "width": [64],  # models of one architecture share what is compiled, which is most of a quick look's time
        "learning_rate": [0.001, 0.004],
        "weight_decay": [0.0],
        "batch_size": [16, 64],
        "norm": ["none"],
    },
    "full": {
        "width": [16, 64, 256],
        "learning_rate": [0.001, 0.004],
        "weight_decay": [0.0, 0.3],
        "batch_size": [16, 64],
        "norm": ["none"],
    },
    "gpu": {
        "width": [64, 256, 1024],
        "learning_rate": [0.0005, 0.001, 0.004],
        "weight_decay": [0.0, 0.1, 0.3],
        "batch_size": [16, 128],
        "norm": ["none", "layer"],
    },
}
_DATA: dict[Preset, tuple[tuple[str, int, int], ...]] = {
    "quick": (("digits", 200, 80), ("teacher", 200, 80)),
    "full": (("digits", 300, 250), ("mnist", 300, 250)),
    "gpu": (("mnist", 5000, 4000), ("cifar10", 5000, 4000)),
}
_SEEDS: dict[Preset, int] = {"quick": 1, "full": 2, "gpu": 3}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Every combination of the hyperparameters, on every data set and seed."""
    axes, found = _AXES[preset], []
    for (data, num_samples, steps), seed in itertools.product(_DATA[preset], range(_SEEDS[preset])):
        spec = DataSpec(
            data,
            data_folder(data, data_dir),
            num_samples=num_samples,
            probe_size=64,
            heldout_samples=1000,
            seed=seed,
        )
        base = RunConfig(spec, measuring=MeasureSpec(measurements=10, directions=128))
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            width, norm = chosen["width"], chosen["norm"]
            training = TrainSpec(
                optimizer="adamw",
                learning_rate=chosen["learning_rate"],
                weight_decay=chosen["weight_decay"],
                batch_size=chosen["batch_size"],
                steps=steps,
                seed=seed,
            )
            config = replaced(base, training=vars(training), model=vars(ModelSpec(widths=(width, width), norm=norm)))
            settings = run_settings(config) | {"data": data, "hyperparameters": chosen, "seed": seed}
            found.append(Point(f"{data}-s{seed}-{len(found):04d}", settings))
    return found


def measure(settings: Json) -> Json:
    """The gap of one network, and everything it could be ranked by."""
    try:
        trained = train_path(run_config(settings))
    except FloatingPointError as error:
        return {"diverged": getattr(error, "step", None)}
    last, rms = trained.records[-1], path_rms(trained.records)
    lggw, features = last["lggw"]["value"], last["feature_width"]
    return {
        "gap": last["heldout_loss"] - last["train_loss"],
        "train_loss": last["train_loss"],
        "heldout_loss": last["heldout_loss"],
        "accuracy_gap": last["train_accuracy"] - last["heldout_accuracy"],
        "measures": {
            "lggw": lggw,
            "lggw_over_rms": lggw / rms,
            "nerc": last["nerc"]["value"],
            "nerc_over_rms": last["nerc"]["value"] / rms,
            "union_width": None if last["union_width"] is None else last["union_width"]["value"],
            "feature_width": None if features is None else features["value"],
            "deviation": last["deviation"]["value"],
        }
        | usual_measures(trained),
    }
