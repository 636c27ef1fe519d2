"""Design levers: what lowers LGGW / rms, and what that buys; one change at a time, paired over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lggwjax.data import DataSpec
from lggwjax.experiments import Preset
from lggwjax.experiments.outcomes import outcomes
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import data_folder, replaced, run_config, run_settings
from lggwjax.models.spec import ModelSpec
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainSpec

Change = dict[str, dict[str, Any]]

# The name of a lever, what it changes, and whether it may be a change of scale only.
_FFN: list[tuple[str, Change]] = [
    ("feature bottleneck (8)", {"model": {"widths": (128, 8)}}),
    ("top-k features (8)", {"model": {"top_k": 8}}),
    ("L1 on features", {"training": {"feature_l1": 1e-3}}),
    ("weight decay", {"training": {"optimizer": "adamw", "weight_decay": 0.1}}),
    ("initialisation x 0.5", {"model": {"init_scale": 0.5}}),
    ("initialisation x 2", {"model": {"init_scale": 2.0}}),
    ("layer norm", {"model": {"norm": "layer"}}),
    ("group norm", {"model": {"norm": "group"}}),
    ("batch norm", {"model": {"norm": "batch"}}),
    ("layer norm, initialisation x 2", {"model": {"norm": "layer", "init_scale": 2.0}}),
    ("SGD with momentum", {"training": {"optimizer": "momentum", "learning_rate": 0.05}}),
    ("learning rate x 3", {"training": {"learning_rate": 0.006}}),
    ("learning rate / 3", {"training": {"learning_rate": 0.00067}}),
    ("batches of 16", {"training": {"batch_size": 16}}),
    ("all samples at each step", {"training": {"batch_size": None}}),
]
_RESNET: list[tuple[str, Change]] = [
    ("no residual", {"model": {"residual": False}}),
    ("no norm", {"model": {"norm": "none"}}),
    ("batch norm", {"model": {"norm": "batch"}}),
]
_QUICK = ("top-k features (8)", "initialisation x 2", "layer norm")
_TARGET_LOSS = 0.6
_SEEDS: dict[Preset, int] = {"quick": 3, "full": 5, "gpu": 10}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """The base design and each lever alone, on the same seeds."""
    found = []
    for family, data, base, levers in _families(preset, data_dir):
        for name, change in [("base", {}), *levers]:
            for seed in range(_SEEDS[preset] if family == "ffn" else max(3, _SEEDS[preset] // 2)):
                seeded = replaced(base, data={"seed": seed}, training={"seed": seed})
                config = replaced(seeded, **change)
                settings = run_settings(config) | {
                    "family": f"{family} on {data}",
                    "lever": name,
                    "seed": seed,
                    "target_loss": _TARGET_LOSS,
                    "scale_only": "initialisation" in name and config.model.norm != "none",
                }
                slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
                found.append(Point(f"{family}-{slug}-s{seed}", settings))
    return found


def _families(preset: Preset, data_dir: Path | None):
    data = {"quick": "digits", "full": "mnist", "gpu": "cifar10"}[preset]
    sizes = {"quick": (200, 80, 500), "full": (500, 200, 2000), "gpu": (5000, 4000, 10000)}[preset]
    num_samples, steps, heldout = sizes
    spec = DataSpec(data, data_folder(data, data_dir), num_samples=num_samples, probe_size=64, heldout_samples=heldout)
    training = TrainSpec(steps=steps, batch_size=64, learning_rate=0.002)
    measuring = MeasureSpec(measurements=10, directions=128)
    ffn = RunConfig(spec, ModelSpec(widths=(128, 128)), training, measuring)
    levers = [lever for lever in _FFN if preset != "quick" or lever[0] in _QUICK]
    yield "ffn", data, ffn, levers
    if preset != "quick":
        resnet = ModelSpec("resnet8", base_width=8) if preset == "full" else ModelSpec("resnet18")
        few = {} if preset == "gpu" else {"num_samples": 300, "heldout_samples": 500, "probe_size": 32}
        shorter = {} if preset == "gpu" else {"steps": 60}
        small = replaced(ffn, data=few, training=shorter)
        yield "resnet", data, RunConfig(small.data, resnet, small.training, small.measuring), _RESNET


def measure(settings: Json) -> Json:
    """The numbers that the lever is judged by."""
    return outcomes(run_config(settings), target_loss=settings["target_loss"], twin=True)
