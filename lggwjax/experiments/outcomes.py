"""What a design came to: one run in numbers that designs are compared by."""

from __future__ import annotations

import dataclasses

import numpy as np

from lggwjax.experiments.measures import path_rms
from lggwjax.experiments.trained import Trained, compact, train_path
from lggwjax.training.config import RunConfig
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainingDiverged
from lggwjax.training.run import prepare_run, states

SPIKE = 1.5
"""A step spikes when it multiplies the lowest loss so far by this much, and adds a hundredth of the first loss."""


def outcomes(config: RunConfig, *, target_loss: float | None = None, twin: bool = False) -> Json:
    """Train and measure a design.

    Args:
        config: The design, seed included.
        target_loss: Held-out loss whose first step is looked for.
        twin: Train a second network on the same samples from another seed, for the spread of predictions.

    Returns:
        ``numbers``: one a quantity, None for what is not known; ``records``: the run's. A run that diverged has
        ``diverged`` (the step, where it is known) and no records.
    """
    try:
        trained = train_path(config, watch_losses=True)
    except FloatingPointError as error:  # training diverged, or a gradient is infinite where the loss was not yet
        return {"diverged": getattr(error, "step", None), "numbers": {"diverged": 1.0}, "records": []}
    numbers = _numbers(trained, target_loss)
    if twin:
        numbers["prediction_spread"] = _spread(trained, config)
    return {"numbers": numbers, "records": compact(trained.records)}


def _numbers(trained: Trained, target_loss: float | None) -> dict[str, float | None]:
    records = trained.records
    first, last = records[0], records[-1]
    heldout = [record["heldout_loss"] for record in records]
    rms, features = path_rms(records), last["features"] or {}
    reached = [r["step"] for r in records if target_loss is not None and r["heldout_loss"] <= target_loss]
    losses = np.asarray(trained.train_losses)
    lowest = np.minimum.accumulate(losses)
    spikes = losses[1:] > np.maximum(SPIKE * lowest[:-1], lowest[:-1] + 0.01 * losses[0])
    return {
        "lggw": last["lggw"]["value"],
        "gradient_rms": rms,
        "lggw_over_rms": last["lggw"]["value"] / rms,
        "nerc_over_rms": last["nerc"]["value"] / rms,
        "union_over_rms": None if last["union_width"] is None else last["union_width"]["value"] / rms,
        "feature_width": last["feature_width"]["value"] if last["feature_width"] else None,
        "active_share": features.get("active_share"),
        "deviation": last["deviation"]["value"],
        "deviation_over_rms": float(
            np.mean([r["deviation"]["value"] / max(r["gradient_rms"], 1e-30) for r in records])
        ),
        "last_descent": last["population_descent"]["value"],
        "train_loss": last["train_loss"],
        "heldout_loss": last["heldout_loss"],
        "best_heldout_loss": min(heldout),
        "gap": last["heldout_loss"] - last["train_loss"],
        "heldout_accuracy": last["heldout_accuracy"],
        "accuracy_gap": None if last["heldout_accuracy"] is None else last["train_accuracy"] - last["heldout_accuracy"],
        "steps_to_target": reached[0] if reached else None,
        "loss_spikes": float(spikes.sum()),
        "first_gradient_rms": first["gradient_rms"],
        "diverged": 0.0,
    }


def _spread(trained: Trained, config: RunConfig) -> float | None:
    """Share of held-out samples on which a second network, from another seed on the same samples, decides otherwise."""
    if trained.prepared.split.task != "classification":
        return None
    other = dataclasses.replace(config.training, seed=config.training.seed + 1000)
    twin = prepare_run(dataclasses.replace(config, training=other))
    try:
        *_, last = states(twin)
    except TrainingDiverged:
        return None
    ours, theirs = trained.scores(trained.path[-1], trained.heldout), trained.scores(last.params, trained.heldout)
    return float(np.mean(ours.argmax(1) != theirs.argmax(1)))
