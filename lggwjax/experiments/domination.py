"""Gradient domination: loss gap against population gradient norm along training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lggwjax.data import DataSpec
from lggwjax.experiments import Preset
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import data_folder, run_config, run_settings, train_path
from lggwjax.models.spec import ModelSpec
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.gate import domination_gate
from lggwjax.training.loop import TrainSpec

# model, data set, samples trained on, samples held out, steps
_CASES: dict[Preset, list[tuple[ModelSpec, str, int, int, int]]] = {
    "quick": [
        (ModelSpec(widths=(64, 64)), "digits", 200, 1000, 120),
        (ModelSpec("cnn", widths=(32,), base_width=8), "digits", 200, 1000, 120),
        (ModelSpec("resnet8", base_width=8), "digits", 200, 600, 60),
    ],
    "full": [
        (ModelSpec(widths=()), "teacher", 200, 4000, 400),
        (ModelSpec(widths=(256, 256)), "mnist", 1000, 4000, 400),
        (ModelSpec("cnn"), "mnist", 1000, 2000, 300),
        (ModelSpec("resnet8", base_width=8), "cifar10", 500, 1000, 150),
    ],
    "gpu": [
        (ModelSpec(widths=(1024, 1024)), "mnist", 20000, 10000, 4000),
        (ModelSpec("cnn", base_width=32), "mnist", 20000, 10000, 4000),
        (ModelSpec("resnet18"), "cifar10", 9000, 10000, 4000),
    ],
}
_SEEDS: dict[Preset, int] = {"quick": 1, "full": 3, "gpu": 5}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Every model on its data, once a seed."""
    found = []
    for model, data, num_samples, num_heldout, steps in _CASES[preset]:
        for seed in range(_SEEDS[preset]):
            spec = DataSpec(
                data,
                data_folder(data, data_dir),
                num_samples=num_samples,
                probe_size=16,
                heldout_samples=num_heldout,
                seed=seed,
            )
            config = RunConfig(
                spec,
                model,
                TrainSpec(steps=steps, batch_size=min(128, num_samples), learning_rate=0.002, seed=seed),
                MeasureSpec(measurements=16, directions=64),
            )
            name = "linear model" if model.name == "ffn" and not model.widths else model.name
            found.append(Point(f"{model.name}-{data}-s{seed}", run_settings(config) | {"model": name, "seed": seed}))
    return found


def measure(settings: Json) -> Json:
    """Losses and gradient norms on the held-out part along the path, and the gate's answer."""
    trained = train_path(run_config(settings), measured=False)
    records = [
        {"step": step, "train_loss": trained.losses(params, trained.prepared.split.sample)[0]} | trained.unseen(params)
        for step, params in zip(trained.steps, trained.path, strict=True)
    ]
    gate = domination_gate(trained.prepared.model.loss_fn, trained.path, trained.heldout, **trained.options)
    return {
        "records": records,
        "gate": {
            "verdict": gate.verdict,
            "ratios": gate.ratios,
            "low": gate.low,
            "high": gate.high,
            "best_step": trained.steps[gate.best],
            "worst_step": trained.steps[gate.worst],
            "limit": gate.limit,
            "sentence": str(gate),
        },
        "num_heldout": len(trained.heldout["y"]),
    }
