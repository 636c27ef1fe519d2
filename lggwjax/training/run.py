"""One run: train on a fixed sample, measure on the way, leave a folder that a person can read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from lggwjax.data import Batch, Split, load
from lggwjax.gradients.costs import device_memory
from lggwjax.models import Adapted, build_adapted
from lggwjax.sharding import device_mesh, parameter_shares, shard_parameters
from lggwjax.training.checkpoints import DamagedCheckpoint
from lggwjax.training.config import RunConfig, environment
from lggwjax.training.left_out import LeftOut, check_enough
from lggwjax.training.loop import TrainingDiverged, TrainState, initial_state, train
from lggwjax.training.meter import Meter, Record, Samples
from lggwjax.training.nonfinite import blame
from lggwjax.training.recorder import Recorder, peak_memory
from lggwjax.training.shared_folder import SharedFolder

MIN_HELDOUT = 16  # below one sample a block, the unbiased norms have no useful error bar

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, Record | None], None]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, loaded and checked; nothing is written yet.

    Attributes:
        config: What was asked for.
        split: The samples.
        model: The network as loss, prediction and featurizer.
        monitor: Measures it.
        start: State of step 0.
    """

    config: RunConfig
    split: Split
    model: Adapted
    monitor: Meter
    start: TrainState

    @property
    def heldout(self) -> Batch | None:
        """All samples that take no part in training; None where there are too few to say anything."""
        return _heldout(self.split)

    def left_out(self, records: Sequence[Record] = ()) -> LeftOut | None:
        """Samples left out after these records; None where a sample that is not finite ends the run.

        Args:
            records: Of the run so far.

        Raises:
            ValueError: If the last record does not say whom it leaves out.
        """
        if self.config.training.non_finite == "stop":
            return None
        return LeftOut(self.model.loss_fn, self.split.stored, self.heldout, self.model.wrt, records)

    def meter(self, left_out: LeftOut | None) -> Meter:
        """The monitor of the samples that are left.

        Raises:
            FloatingPointError: If too few are left to be measured.
        """
        if left_out is None or not (left_out.train or left_out.heldout):
            return self.monitor
        left = self.split.without(left_out.train, left_out.heldout)
        probes = [len(part["y"]) for part in (left.train_probe, left.heldout_probe)]
        outside = None if self.heldout is None else probes[1]
        check_enough(probes[0], outside, probes[1] + len(left.heldout_rest["y"]), MIN_HELDOUT)
        return self.monitor.of(_samples(left, self.config))

    def settings(self) -> dict[str, dict[str, Any]]:
        """What is saved as ``config.json``: what was asked for, and what it was resolved to."""
        asked, split = self.config.as_dict(), self.split
        asked["data"] |= {
            "description": split.description,
            "task": split.task,
            "num_heldout": len(split.heldout_probe["y"]) + len(split.heldout_rest["y"]),
            "population": split.population is not None,
        }
        asked["measuring"] |= self.monitor.plan(self.start.params) | {"steps": list(self.config.steps_measured)}
        return asked


def prepare_run(config: RunConfig, *, max_checkpoints: int | None = None, num_devices: int | None = None) -> Prepared:
    """Load the data and build the model; refuse what cannot work before anything is written.

    Args:
        config: What is asked for.
        max_checkpoints: Longest path the meter may meet; by default what ``config`` asks for.
        num_devices: On how many to train and measure, by default all there are. Results differ by rounding alone, and a
            run may be resumed on another number.

    Returns:
        A run that can start.

    Raises:
        ValueError: If data, model and options do not fit each other; the message says what to do.
        FileNotFoundError: If a data file is missing.
    """
    split = load(config.data)
    loss = "cross_entropy" if split.task == "classification" else "squared_error"
    model = build_adapted(config.model, split.input_shape, split.num_outputs, config.training.seed, loss)
    meter = Meter(
        model.loss_fn,
        _samples(split, config),
        max_checkpoints=max_checkpoints or len(config.steps_measured),
        num_draws=config.measuring.directions,
        seed=config.training.seed,
        wrt=model.wrt,
        predict_fn=model.predict_fn if split.task == "classification" else None,
        feature_fn=model.feature_fn,
    )
    start = initial_state(model.params, model.wrt, config.training)
    if jax.device_count() > 1 or num_devices is not None:
        mesh = _mesh(start.params, jax.device_count() if num_devices is None else num_devices)
        start = TrainState(start.step, *shard_parameters(start[1:4], mesh))
    return Prepared(config, split, model, meter, start)


def _mesh(params: PyTree, num_devices: int) -> Mesh:
    """Samples are divided among all devices; parameters only where they would fill much of each."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return device_mesh(num_devices, parameters=parameter_shares(num_devices, size, device_memory()))


def _heldout(split: Split) -> Batch | None:
    both = {name: np.concatenate([split.heldout_probe[name], split.heldout_rest[name]]) for name in ("x", "y")}
    return both if len(both["y"]) >= MIN_HELDOUT else None


def _samples(split: Split, config: RunConfig) -> Samples:
    heldout = _heldout(split)
    return Samples(
        train=split.stored,
        train_probe=split.train_probe,
        heldout=heldout,
        heldout_probe=split.heldout_probe if heldout is not None and len(split.heldout_probe["y"]) else None,
        trained_on=not config.training.fresh,
    )


def states(
    prepared: Prepared, start: TrainState | None = None, left_out: LeftOut | None = None
) -> Iterator[TrainState]:
    """Training states of a run, from ``start`` on, without the samples ``left_out``."""
    population = prepared.split.population
    return train(
        prepared.model.train_fn,
        prepared.model.wrt,
        prepared.model.params,
        prepared.split.stored,
        prepared.config.training,
        draw_fresh=population.sample if prepared.config.training.fresh and population is not None else None,
        start=prepared.start if start is None else start,
        left_out=prepared.left_out() if left_out is None else left_out,
    )


def run(prepared: Prepared, out: Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train, measure, and leave a run folder.

    Args:
        prepared: From :func:`prepare_run`.
        out: The run folder.
        resume: Go on with what is there; see :class:`lggwjax.training.folder.RunFolder`.
        progress: Called with each step and, where it was measured, its record.

    Returns:
        The page.

    Raises:
        ValueError: If the folder cannot be used as asked; the message says what to do.
        FloatingPointError: If training or a measurement became NaN or infinite and no sample is to be left out for
            that; all records before stay.
    """
    settings = prepared.settings()
    with SharedFolder.open(out, settings, resume=resume, extra={"environment": environment()}) as folder:
        if not folder.finished:
            _measure_along(prepared, folder, progress or _no_progress)
            folder.write_page()
        return folder.path / "report.html"


def _no_progress(step: int, record: Record | None) -> None:
    del step, record


def _measure_along(prepared: Prepared, folder: SharedFolder, progress: Progress) -> None:
    records, start = _taken_up(prepared, folder)

    def checkpoints() -> Iterator[tuple[int, PyTree]]:
        for record in folder.records:
            yield record["step"], folder.restore(record["step"], like=prepared.start).params

    recorder = Recorder(prepared, folder, prepared.start.params, checkpoints, progress)
    if start is not None:
        num = len(prepared.config.steps_measured)
        _LOG.info("resumed from step %d, measurement %d of %d", start.step, len(records), num)
    wanted = set(prepared.config.steps_measured) - {record["step"] for record in records}
    state = start or prepared.start
    try:
        for state in states(prepared, start, recorder.left_out):
            record = None
            if state.step in wanted:
                recorder.clock.lap("training")
                folder.save(state)
                passes = state.step * prepared.config.passes_per_step
                record = recorder.measure(state.step, passes, state.params, state.previous if state.step else None)
            progress(state.step, record)
    except TrainingDiverged as error:
        cause = blame(prepared.model.loss_fn, state.params, prepared.split.stored, prepared.model.wrt)
        raise TrainingDiverged(error.step, error.learning_rate, cause if recorder.left_out is None else "") from None


def _taken_up(prepared: Prepared, folder: SharedFolder) -> tuple[list[Record], TrainState | None]:
    """Records that can be gone on from, and the state of the last; what follows a damaged checkpoint is removed."""
    records = folder.records
    for index, record in enumerate(records):
        try:
            folder.verify(record["step"])
        except DamagedCheckpoint as error:
            before = f"step {records[index - 1]['step']}" if index else "the start"
            left = len(records) - index
            _LOG.warning("%s Going on from %s; the %d records from there on come out again.", error, before, left)
            folder.rewind(record["step"])
            records = records[:index]
            break
    last = [folder.restore(r["step"], like=prepared.start) for r in records[-1:]]
    return records, last[0] if last else None


@dataclass(frozen=True)
class Plan:
    """What a run would take, from one step and one measurement timed here.

    Attributes:
        settings: What would be saved as ``config.json``.
        step_seconds: One training step.
        measure_seconds: One measurement.
        compile_seconds: The first step and the first measurement, beyond that.
        peak_bytes: Memory of the whole process at the end.
    """

    settings: dict[str, dict[str, Any]]
    step_seconds: float
    measure_seconds: float
    compile_seconds: float
    peak_bytes: int

    @property
    def total_seconds(self) -> float:
        """Time of the whole run, without drawing the page."""
        steps, measured = self.settings["training"]["steps"], len(self.settings["measuring"]["steps"])
        return self.compile_seconds + steps * self.step_seconds + measured * self.measure_seconds


def plan_run(prepared: Prepared) -> Plan:
    """Time a few steps and two measurements; write nothing.

    Args:
        prepared: From :func:`prepare_run`.

    Returns:
        The prediction.
    """
    settings, times = prepared.settings(), []
    path = prepared.monitor.init(prepared.start.params)
    training = states(prepared)
    before = time.perf_counter()
    next(training)
    last = prepared.start
    for _ in range(min(4, prepared.config.training.steps)):
        last = jax.block_until_ready(next(training))
        times.append(time.perf_counter() - before)
        before = time.perf_counter()
    steps = times
    times = []
    for state in (prepared.start, last)[: len(prepared.config.steps_measured)]:
        before = time.perf_counter()
        path, _ = prepared.monitor.measure(path, state.params, prepared.start.params)
        times.append(time.perf_counter() - before)
    before = time.perf_counter()
    if len(prepared.config.steps_measured) > 2:
        prepared.monitor.measure(path, last.params, prepared.start.params)
        times.append(time.perf_counter() - before)
    kept = settings["measuring"]["kept_bytes"]
    still_to_come = kept * max(0, 1 - 3 / len(prepared.config.steps_measured))
    return Plan(
        settings=settings,
        step_seconds=min(steps),
        measure_seconds=times[-1],
        compile_seconds=steps[0] - min(steps) + sum(times) - len(times) * times[-1],
        peak_bytes=int(peak_memory() + still_to_come),
    )
