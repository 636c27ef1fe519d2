"""The featurizer from initialisation to convergence: how sparse, how large, how wide; and the layers at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lggwjax.data import DataSpec
from lggwjax.experiments import Preset
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import Trained, data_folder, run_config, run_settings, train_path
from lggwjax.models.spec import ModelSpec
from lggwjax.theory import feature_width_bounds, layer_widths
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainSpec
from lggwjax.widths.closed_form import expected_chi
from lggwjax.widths.finite import gaussian_width

_LAYER_SAMPLES = 32

# model, data set, samples trained on, steps
_CASES: dict[Preset, list[tuple[ModelSpec, str, int, int]]] = {
    "quick": [
        (ModelSpec(widths=(128, 128)), "digits", 300, 150),
        (ModelSpec("cnn", widths=(64,), base_width=8), "digits", 300, 150),
    ],
    # Our approximation of the paper's setting: its data sets and kinds of model, at the size two cores allow.
    "full": [
        (ModelSpec(widths=(512, 512)), "cifar10", 2000, 600),
        (ModelSpec("cnn", widths=(256,)), "mnist", 2000, 400),
        (ModelSpec("resnet18", base_width=8), "cifar10", 500, 150),
    ],
    "gpu": [
        (ModelSpec(widths=(2048, 2048)), "cifar10", 10000, 10000),
        (ModelSpec("cnn", widths=(512,), base_width=32), "mnist", 50000, 10000),
        (ModelSpec("resnet18"), "cifar10", 10000, 10000),
    ],
}
_SEEDS: dict[Preset, int] = {"quick": 2, "full": 3, "gpu": 5}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Every model on its data, once a seed; in a quick look only the first seed's layers are taken apart."""
    found = []
    for model, data, num_samples, steps in _CASES[preset]:
        for seed in range(_SEEDS[preset]):
            spec = DataSpec(
                data,
                data_folder(data, data_dir),
                num_samples=num_samples,
                probe_size=64,
                heldout_samples=500,
                seed=seed,
            )
            config = RunConfig(
                spec,
                model,
                TrainSpec(steps=steps, batch_size=128, learning_rate=0.002, seed=seed),
                MeasureSpec(measurements=12, directions=256),
            )
            layers = preset != "quick" or seed == 0
            settings = run_settings(config) | {"model": model.name, "seed": seed, "layers": layers}
            found.append(Point(f"{model.name}-{data}-s{seed}", settings))
    return found


def measure(settings: Json) -> Json:
    """Features at every checkpoint with what bounds their width; the layer table at convergence."""
    trained = train_path(run_config(settings), measured=False)
    sample = trained.prepared.split.sample
    features = []
    for step, params in zip(trained.steps, trained.path, strict=True):
        losses = {
            "train_loss": trained.losses(params, sample)[0],
            "heldout_loss": trained.losses(params, trained.heldout)[0],
        }
        features.append({"step": step} | losses | _of_features(trained, params))
    result: Json = {"features": features}
    if settings["layers"]:
        few = jax.tree.map(lambda x: x[:_LAYER_SAMPLES], trained.probe)
        table = layer_widths(
            jax.random.key(1), trained.prepared.model.loss_fn, trained.path[-1:], few, num_draws=256, **trained.options
        )
        result["layers"] = table.as_records()
    return result


def _of_features(trained: Trained, params) -> Json:
    """Sizes of the features of the train probe, their width, and widths of the sets that hold them."""
    features = trained.features(params, trained.probe)
    norms = np.linalg.norm(features, axis=1)
    bounds = feature_width_bounds(jnp.asarray(features))
    with_zero = np.concatenate([features, np.zeros_like(features[:1])])
    width = gaussian_width(jax.random.key(0), jnp.asarray(with_zero), num_draws=512)
    return {
        "m": features.shape[1],
        "active_share": float(np.mean(features != 0)),
        "active_high": float(np.count_nonzero(features, axis=1).max()),
        "l1": float(np.abs(features).sum(1).mean()),
        "l2": float(norms.mean()),
        "l1_over_l2": float((np.abs(features).sum(1) / np.maximum(norms, 1e-30)).mean()),
        "width": {"value": float(width.value), "stderr": float(width.stderr), "ci95": list(width.interval(0.95))},
        "largest_l2": float(norms.max()),
        "unit_ball_width": expected_chi(features.shape[1]),
        "bounds": {name: float(bound.value) for name, bound in bounds.items()},
    }
