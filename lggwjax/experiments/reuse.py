"""Sample reuse: deviation and population descent over hundreds of passes, against fresh samples and early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from lggwjax.data import DataSpec, LinearPopulation
from lggwjax.experiments import Preset
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import Trained, compact, data_folder, judged, run_config, run_settings, train_path
from lggwjax.gradients.selection import as_partial, select
from lggwjax.models.spec import ModelSpec
from lggwjax.training.claims import claims
from lggwjax.training.config import MeasureSpec, RunConfig
from lggwjax.training.files import Json
from lggwjax.training.heldout import sample_descents
from lggwjax.training.loop import TrainSpec

NUM_WATCHED = 256
"""Held-out samples that both rules look at, the monitor's and early stopping's; the rest tell what was true."""


class _Case(NamedTuple):
    data: str
    sizes: tuple[int, ...]
    pool: int  # samples that the fresh run goes through once, where no population gives them
    dimension: int = 20


_CASES: dict[Preset, tuple[_Case, ...]] = {
    "quick": (_Case("digits", (64,), 1024), _Case("linear", (64,), 0, 100)),
    "full": (
        _Case("linear", (64, 256, 1024, 4096), 0, 100),
        _Case("teacher", (64, 256, 1024, 4096), 0, 20),
        _Case("digits", (64, 256), 1024),
        _Case("mnist", (64, 256, 1024, 4096), 50_000),
    ),
    "gpu": (
        _Case("linear", (64, 256, 1024, 4096), 0, 1000),
        _Case("teacher", (64, 256, 1024, 4096), 0, 50),
        _Case("mnist", (64, 256, 1024, 4096), 50_000),
    ),
}
_STEPS: dict[Preset, int] = {"quick": 80, "full": 300, "gpu": 1000}
_SEEDS: dict[Preset, int] = {"quick": 2, "full": 3, "gpu": 10}
_FRESH_BATCH = 64


def points(preset: Preset, data_dir: Path | None) -> Sequence[Point]:
    """Every sample size reused, and one stream of fresh samples, on every data set and seed."""
    found = []
    for case in _CASES[preset]:
        for seed in range(_SEEDS[preset]):
            for num in case.sizes:
                config = _config(preset, case, data_dir, seed, num)
                settings = run_settings(config) | {"data": case.data, "n": num, "seed": seed, "mode": "reused"}
                found.append(Point(f"{case.data}-n{num}-s{seed}", settings | {"claims": seed == 0}))
            config = _config(preset, case, data_dir, seed, case.pool or 512, fresh=True)
            settings = run_settings(config) | {"data": case.data, "n": None, "seed": seed, "mode": "fresh"}
            found.append(Point(f"{case.data}-fresh-s{seed}", settings | {"claims": False}))
    return found


def _config(
    preset: Preset, case: _Case, data_dir: Path | None, seed: int, num_samples: int, *, fresh: bool = False
) -> RunConfig:
    linear = case.data == "linear"
    heldout = {"digits": 600, "mnist": 4000}.get(case.data, 4000)
    data = DataSpec(
        case.data,
        data_folder(case.data, data_dir),
        num_samples=num_samples,
        probe_size=min(64, num_samples),
        heldout_samples=heldout if preset != "quick" else min(heldout, 1000),
        seed=seed,
        dimension=case.dimension,
        noise_scale=1.0 if linear else 0.5,
    )
    width = {"quick": 64, "full": 128, "gpu": 1024}[preset]
    model = ModelSpec(widths=(), bias=False) if linear else ModelSpec(widths=(width, width))
    # A fresh stream is gone through once: as many steps as its samples allow, of batches much smaller than a sample.
    steps = min(_STEPS[preset] * 4, case.pool // _FRESH_BATCH if case.pool else 10**9) if fresh else _STEPS[preset]
    training = TrainSpec(
        optimizer="gd" if linear and not fresh else "sgd" if linear else "adam",
        learning_rate=0.1 if linear else 0.002,
        batch_size=_FRESH_BATCH if fresh else None,
        steps=steps,
        seed=seed,
        fresh=fresh and not case.pool,
    )
    return RunConfig(data, model, training, MeasureSpec(measurements=32, directions=128))


def measure(settings: Json) -> Json:
    """Records along the run, what both rules see at each, what was true, and what is certified."""
    # Of fresh streams only the loss is compared; gradients on a sample of 50,000 would take longer than all the rest.
    trained = train_path(run_config(settings), measured=settings["mode"] == "reused")
    result: Json = {"records": compact(trained.records), "looks": list(_looks(trained)), "num_watched": NUM_WATCHED}
    if settings["claims"]:
        result["claims"] = claims(trained.evidence).as_records()
    return result


def _looks(trained: Trained):
    """What the two rules see on the watched samples, and the loss on those that neither sees."""
    model, population = trained.prepared.model, trained.prepared.split.population
    watched = jax.tree.map(lambda x: x[:NUM_WATCHED], trained.heldout)
    unseen = jax.tree.map(lambda x: x[NUM_WATCHED:], trained.heldout)
    loss: Partial = as_partial(model.loss_fn)
    number = 0
    for step, params, previous in zip(trained.steps, trained.path, trained.previous, strict=True):
        look: Json = {"step": step, "watched_loss": trained.losses(params, watched)[0]}
        if isinstance(population, LinearPopulation):
            look["true_loss"] = population.loss(params["params"])
        else:
            look["true_loss"] = trained.losses(params, unseen)[0]
        if step:
            number += 1
            values = sample_descents(loss, previous, params, watched, select(params, model.wrt))
            look |= judged(values, number)
        yield look


def num_fresh(settings: Json, step: int) -> int:
    """Fresh samples that a fresh run has used up to a step."""
    return int(np.int64(step) * settings["config"]["training"]["batch_size"])
