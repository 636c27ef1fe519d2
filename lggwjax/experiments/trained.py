"""What every study does with a point: train a network on a fixed sample, keep checkpoints, measure them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lggwjax.data import Batch
from lggwjax.data.loading import FOLDERS, files_of
from lggwjax.gradients.selection import as_partial, select
from lggwjax.training.config import RunConfig
from lggwjax.training.evidence import Evidence
from lggwjax.training.files import Json
from lggwjax.training.heldout import NUM_BLOCKS, gradient_norm, pass_over
from lggwjax.training.looks import look_interval
from lggwjax.training.run import Prepared, prepare_run, states

_FIELDS = ("value", "stderr", "ci95")


@dataclass(frozen=True)
class Trained:
    """A run in memory: its samples, its measured checkpoints and their records.

    Attributes:
        prepared: Data, model and monitor.
        steps: Steps of the checkpoints.
        path: Their parameters.
        previous: Parameters one step before each.
        records: What the monitor says of each, as in ``metrics.jsonl``; empty where it was not asked.
        train_losses: Mean loss on all of the sample before each step, if asked for.
    """

    prepared: Prepared
    steps: list[int]
    path: list[PyTree]
    previous: list[PyTree]
    records: list[Json]
    train_losses: list[float]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that every measurement of this model takes."""
        return {"wrt": self.prepared.model.wrt}

    @cached_property
    def evidence(self) -> Evidence:
        """The run as the statements of theory take it."""
        return Evidence(self.prepared, self.records, self.path)

    @property
    def probe(self) -> Batch:
        """The samples whose gradients are measured."""
        return self.prepared.split.train_probe

    @cached_property
    def heldout(self) -> Batch:
        """All samples that took no part in training."""
        heldout = self.prepared.heldout
        if heldout is None:
            raise ValueError("Expected held-out samples, got too few. Raise heldout_samples.")
        return heldout

    def losses(self, params: PyTree, batch: Batch) -> tuple[float, float | None]:
        """Mean loss and, for classes, accuracy."""
        model, split = self.prepared.model, self.prepared.split
        predict = model.predict_fn if split.task == "classification" else None
        found = pass_over(as_partial(model.loss_fn), predict, params, batch, select(params, model.wrt))
        return found.loss, found.accuracy

    def unseen(self, params: PyTree) -> Json:
        """Held-out loss, accuracy and gradient norm, the last with its interval."""
        model, split = self.prepared.model, self.prepared.split
        predict = model.predict_fn if split.task == "classification" else None
        selection = select(params, model.wrt)
        found = pass_over(as_partial(model.loss_fn), predict, params, self.heldout, selection, NUM_BLOCKS)
        norm = gradient_norm(found.gradients)
        return {
            "heldout_loss": found.loss,
            "heldout_accuracy": found.accuracy,
            "heldout_grad_norm": {"value": norm.value, "stderr": norm.stderr, "ci95": [norm.low, norm.high]},
        }

    def scores(self, params: PyTree, batch: Batch) -> Float[np.ndarray, "n k"]:
        """Logits of a batch."""
        return np.asarray(_scores(jax.tree_util.Partial(self.prepared.model.predict_fn), params, batch["x"]))

    def features(self, params: PyTree, batch: Batch) -> Float[np.ndarray, "n m"]:
        """Outputs of the featurizer on a batch, as the head takes them in."""
        found = _features(jax.tree_util.Partial(self.prepared.model.feature_fn), params, batch)
        return np.asarray(found.reshape(len(found), -1))


def train_path(config: RunConfig, *, measured: bool = True, watch_losses: bool = False) -> Trained:
    """Train as a run does, and keep its measured checkpoints in memory.

    Args:
        config: What to run.
        measured: Whether the monitor measures each checkpoint.
        watch_losses: Whether the loss on the whole sample is taken at every step.

    Returns:
        The run.

    Raises:
        TrainingDiverged: If training became NaN or infinite.
        ValueError: As :func:`lggwjax.training.prepare_run`.
    """
    prepared = prepare_run(config)
    wanted, loss_of = set(config.steps_measured), jax.jit(_mean_loss)
    loss = as_partial(prepared.model.loss_fn)
    trained = Trained(prepared, [], [], [], [], [])
    watched = prepared.monitor.init(prepared.start.params) if measured else None
    for state in states(prepared):
        if watch_losses:
            trained.train_losses.append(float(loss_of(loss, state.params, prepared.split.sample)))
        if state.step not in wanted:
            continue
        trained.steps.append(state.step)
        trained.path.append(state.params)
        trained.previous.append(state.previous)
        if watched is not None:
            watched, record = prepared.monitor.measure(watched, state.params, state.previous if state.step else None)
            trained.records.append({"step": state.step, "passes": state.step * config.passes_per_step} | record)
    return trained


def _mean_loss(loss, params: PyTree, batch: Batch) -> Array:
    return jnp.mean(jax.vmap(loss, (None, 0))(params, batch))


@jax.jit
def _scores(predict, params, x):
    return jax.vmap(lambda one: predict(params, {"x": one}))(x)


@jax.jit
def _features(feature_fn, params, batch):
    return jax.vmap(feature_fn, (None, 0))(params, batch)


def judged(descents: Float[np.ndarray, " m"], look: int) -> Json:
    """What the monitor would say of the descents on m held-out samples at its look of that number, from 1 on."""
    found = look_interval(descents[:, None], look)
    names = {"descent": found.value, "stderr": found.stderr, "low": found.low, "high": found.high}
    return {name: float(numbers[0]) for name, numbers in names.items()}


def compact(records: list[Json]) -> list[Json]:
    """Keep of each record what a study draws: numbers, and of each estimate its value and interval."""

    def short(value: Any) -> Any:
        return {field: value[field] for field in _FIELDS if field in value} if isinstance(value, dict) else value

    left_out = ("status", "seconds", "peak_memory", "features")
    return [
        {name: short(value) for name, value in record.items() if name not in left_out} | (record.get("features") or {})
        for record in records
    ]


def run_settings(config: RunConfig) -> Json:
    """A point's settings that hold a whole run."""
    return {"config": config.as_dict()}


def run_config(settings: Json) -> RunConfig:
    """Undo :func:`run_settings`."""
    return RunConfig.from_dict(settings["config"])


def data_folder(name: str, data_dir: Path | None) -> Path | None:
    """Where the files of a data set lie below a folder that may hold several.

    Args:
        name: A data set that :class:`lggwjax.data.DataSpec` knows.
        data_dir: Folder of the files, or of the folders ``mnist`` and ``cifar-10-batches-bin``.

    Returns:
        The folder; None for data that need no file.

    Raises:
        ValueError: If files are needed and no folder is given.
        FileNotFoundError: If there is no such folder.
    """
    if name not in FOLDERS:
        return None
    if data_dir is None:
        raise ValueError(f"Expected --data-dir DIR with the files of {name} (in it or in {FOLDERS[name]}/), got none.")
    if not Path(data_dir).exists():
        raise FileNotFoundError(f"Expected the files of {name} in {data_dir}, got no such folder. Check --data-dir.")
    return files_of(name, Path(data_dir))


def replaced(config: RunConfig, **parts: dict[str, Any]) -> RunConfig:
    """Return the configuration with fields of its parts replaced: ``replaced(config, model={"norm": "layer"})``."""
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in parts.items()}
    )
