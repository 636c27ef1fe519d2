"""Drifting data: what moves first when a stream changes half-way, and what cries wolf when it does not."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import lggwjax
from lggwjax.data import Batch, DataSpec
from lggwjax.data.shifts import SHIFTS, Shift, shifted
from lggwjax.experiments import Preset
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import data_folder, judged, run_config, run_settings
from lggwjax.gradients.selection import as_partial, select
from lggwjax.models.spec import ModelSpec
from lggwjax.training.config import RunConfig
from lggwjax.training.files import Json
from lggwjax.training.heldout import NUM_BLOCKS, gradient_norm, pass_over, sample_descents
from lggwjax.training.loop import TrainSpec, TrainState, train
from lggwjax.training.run import Prepared, prepare_run

_WINDOW = 64  # latest samples of the stream whose gradients are measured
_DRAWN = 8  # rows drawn for each row of a batch
_PATH = 4  # latest checkpoints that LGGW is taken over
_STRENGTHS: dict[Shift, float] = {
    "none": 0.0,
    "label noise": 0.6,
    "corruption": 1.0,
    "class imbalance": 0.9,
    "covariate shift": 0.8,
    "new labels": 1.0,
}
_SEEDS: dict[Preset, int] = {"quick": 2, "full": 5, "gpu": 10}


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Every shift and none, once a seed."""
    data = "digits" if preset == "quick" else "mnist"
    pool, steps = {"quick": (800, 160), "full": (20_000, 480), "gpu": (50_000, 4000)}[preset]
    width = {"quick": 64, "full": 128, "gpu": 1024}[preset]
    found = []
    for shift in SHIFTS if preset != "quick" else ("none", "label noise", "new labels"):
        for seed in range(_SEEDS[preset]):
            spec = DataSpec(
                data, data_folder(data, data_dir), num_samples=pool, probe_size=64, heldout_samples=900, seed=seed
            )
            training = TrainSpec(steps=steps, batch_size=32, learning_rate=0.001, seed=seed)
            config = RunConfig(spec, ModelSpec(widths=(width, width)), training)
            settings = run_settings(config) | {
                "shift": shift,
                "strength": _STRENGTHS[shift],
                "shift_step": steps // 2,
                "every": steps // 80,
                "seed": seed,
            }
            found.append(Point(f"{shift.replace(' ', '-')}-s{seed}", settings))
    return found


def measure(settings: Json) -> Json:
    """Every signal at every look, before and after the shift."""
    prepared = prepare_run(run_config(settings))
    stream = _Stream(prepared.split.sample, settings, prepared.split.num_outputs)
    path: deque[PyTree] = deque(maxlen=_PATH)
    looks = []
    for state in _states(prepared, stream, settings["shift_step"]):
        if state.step % settings["every"]:
            continue
        path.append(state.params)
        if state.step and len(path) == _PATH:
            looks.append({"step": state.step} | _look(prepared, state, list(path), stream.window(), len(looks) + 1))
    return {"looks": looks, "shift_step": settings["shift_step"]}


class _Stream:
    """Batches drawn from a pool, shifted from a step on; the latest samples are kept."""

    def __init__(self, pool: Batch, settings: Json, num_classes: int):
        self._pool, self._settings, self._num_classes = pool, settings, num_classes
        self._latest: deque[Batch] = deque(maxlen=_WINDOW)
        self.drifted = False

    def draw(self, key: Any, size: int) -> Batch:
        seed = int(jax.random.bits(key, dtype=jnp.uint32))
        # More than are needed: a small batch may hold no row of the class that an imbalance repeats.
        rows = np.random.default_rng(seed).integers(len(self._pool["y"]), size=_DRAWN * size)
        batch = {name: array[rows] for name, array in self._pool.items()}
        if self.drifted:
            shift, strength = self._settings["shift"], self._settings["strength"]
            batch = shifted(batch, shift, strength, self._num_classes, seed)
        batch = {name: array[:size] for name, array in batch.items()}
        self._latest.extend({name: array[i] for name, array in batch.items()} for i in range(size))
        return batch

    def window(self) -> Batch:
        return {name: np.stack([one[name] for one in self._latest]) for name in ("x", "y")}


def _states(prepared: Prepared, stream: _Stream, shift_step: int) -> Iterator[TrainState]:
    """States of a training that takes new samples at every step, from a stream that drifts at one of them."""
    spec, model = dataclasses.replace(prepared.config.training, fresh=True), prepared.model
    legs = ((dataclasses.replace(spec, steps=shift_step), False), (spec, True))
    start: TrainState | None = None
    for leg, drifted in legs:
        stream.drifted = drifted
        states = train(
            model.train_fn,
            model.wrt,
            model.params,
            prepared.split.sample,
            leg,
            draw_fresh=stream.draw,
            start=start,
        )
        if start is not None:
            next(states)  # where the leg before ended
        for start in states:
            yield start


def _look(prepared: Prepared, state: TrainState, path: list[PyTree], window: Batch, number: int) -> Json:
    """Widths of the latest gradients, their mean against the held-out one, and what the step did on held-out data."""
    model, heldout, key = prepared.model, prepared.heldout, jax.random.key(0)
    loss, selection = as_partial(model.loss_fn), select(state.params, model.wrt)
    options = {"wrt": model.wrt, "num_draws": 128}
    here = pass_over(loss, None, state.params, window, selection)
    outside = pass_over(loss, model.predict_fn, state.params, heldout, selection, NUM_BLOCKS)
    gram = np.asarray(lggwjax.gradient_gram(model.loss_fn, state.params, window, wrt=model.wrt))
    descents = sample_descents(loss, state.previous, state.params, heldout, selection)
    lggw = float(lggwjax.lggw(key, model.loss_fn, path, window, **options).value)
    cloud = float(lggwjax.lggw(key, model.loss_fn, path[-1:], window, "union", **options).value)
    rms = float(np.sqrt(np.trace(gram) / len(gram)))
    deviation = gradient_norm(here.gradient - outside.gradients)
    return {
        "lggw": lggw,
        "lggw_over_rms": lggw / max(rms, 1e-30),
        "cloud_width": cloud,
        "cloud_over_rms": cloud / max(rms, 1e-30),
        "gradient_rms": rms,
        "deviation": deviation.value,
        "stream_loss": here.loss,
        "heldout_loss": outside.loss,
        "heldout_accuracy": outside.accuracy,
    } | judged(descents, number)
