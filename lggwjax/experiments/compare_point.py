"""One point of a comparison: a design trained on one draw of the samples, and all numbers that it is judged by."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from lggwjax.data import Batch
from lggwjax.experiments.measures import path_rms
from lggwjax.experiments.trained import compact, run_config
from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.selection import as_partial
from lggwjax.training.files import Json
from lggwjax.training.gate import MIN_HELDOUT, domination_gate
from lggwjax.training.loop import TrainingDiverged, TrainState
from lggwjax.training.run import Prepared, prepare_run, states

_LARGEST_CHUNK = 1024
_PARTS = ("training", "measuring", "gate", "other")
_LOG = logging.getLogger(__name__)


def measure(settings: Json) -> Json:
    """Train one design on one draw of the samples.

    Held-out losses are taken at every measured step. The two halves of the held-out part take turns: the step is chosen
    on one, and the loss there is taken on the other, so that no sample judges what it chose.

    Args:
        settings: ``config`` of the run, and ``samples``: how many of its samples are trained on, the first ones. With
            fewer than all, nothing but losses is measured.

    Returns:
        ``steps``, ``train_losses`` and ``heldout_losses`` of the measured steps; ``best_loss``, ``best_accuracy`` and
        ``best_steps`` by turns; ``final_loss`` and ``final_accuracy``; ``trivial_loss`` and ``trivial_accuracy`` of the
        mean or the class frequencies; with all samples ``lggw_over_rms``, ``gap``, ``records`` and ``gate``; and
        ``seconds`` by what they went to. A run that diverged has ``diverged`` and the trivial numbers.
    """
    watch = _Watch()
    prepared = prepare_run(run_config(settings))
    whole = settings["samples"] == prepared.config.data.num_samples
    if not whole:
        prepared = on_fewer(prepared, settings["samples"])
    heldout = prepared.heldout
    if heldout is None:
        raise ValueError("Expected held-out samples, got too few. Hold out more.")
    found = trivial(prepared.split.sample, heldout, prepared.split.num_outputs)
    found["num_parameters"] = sum(leaf.size for leaf in jax.tree.leaves(prepared.model.params["params"]))
    path, records, looks = [], [], []
    watched = prepared.monitor.init(prepared.start.params) if whole else None
    watch.lap("other")
    wanted = set(prepared.config.steps_measured)
    try:
        for state in states(prepared):
            watch.step(state.step)
            if state.step not in wanted:
                continue
            looks.append((state.step, _look(prepared, state.params, heldout)))
            watch.lap("other")
            if whole:
                path.append(state.params)
            if watched is not None:
                watched = _measured(prepared, watched, state, records)
                watch.lap("measuring")
    except TrainingDiverged as error:
        return found | {"diverged": error.step}
    found |= _outcome(looks)
    if whole:
        complete = len(records) == len(looks)
        found |= {
            "lggw_over_rms": records[-1]["lggw"]["value"] / max(path_rms(records), 1e-30) if complete else None,
            "gap": found["heldout_losses"][-1] - found["train_losses"][-1],
            "records": compact(records),
            "gate": _gate(prepared, path, heldout),
        }
        watch.lap("gate")
    return found | {"seconds": watch.as_dict()}


def _measured(prepared: Prepared, watched: Any, state: TrainState, records: list[Json]) -> Any:
    """Measure widths; where a number is not finite, go on without them: the losses decide, widths only explain."""
    try:
        watched, record = prepared.monitor.measure(watched, state.params, state.previous if state.step else None)
    except FloatingPointError as error:
        _LOG.info("widths end at step %d: %s", state.step, error)
        return None
    records.append({"step": state.step} | record)
    return watched


def on_fewer(prepared: Prepared, num: int) -> Prepared:
    """Train on the first samples only, in the scale that all of them fixed, so that losses have one unit."""
    split = prepared.split
    first = {name: array[:num] for name, array in split.sample.items()}
    probe = {name: array[:num] for name, array in split.train_probe.items()}
    return dataclasses.replace(prepared, split=dataclasses.replace(split, stored=first, train_probe=probe))


def trivial(sample: Batch, heldout: Batch, num_outputs: int) -> Json:
    """Judge the predictor that looks at no input: the classes' frequencies (one added to each count), or the mean.

    Args:
        sample: What it is fitted on.
        heldout: What it is judged on.
        num_outputs: Number of classes.

    Returns:
        ``trivial_loss``, and ``trivial_accuracy`` (None for a regression).

    Example:
        >>> y = np.array([0, 0, 1], np.int32)
        >>> round(trivial({"y": y}, {"y": y}, 2)["trivial_accuracy"], 3)
        0.667
    """
    y, unseen = sample["y"], heldout["y"]
    if not np.issubdtype(y.dtype, np.integer):
        return {"trivial_loss": float(0.5 * np.mean((unseen - y.mean()) ** 2)), "trivial_accuracy": None}
    shares = (np.bincount(y, minlength=num_outputs) + 1) / (len(y) + num_outputs)
    return {
        "trivial_loss": float(-np.mean(np.log(shares[unseen]))),
        "trivial_accuracy": float(np.mean(unseen == shares.argmax())),
    }


@dataclass
class _Watch:
    """Where the time goes."""

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))
    steps: list[float] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> float:
        now = time.perf_counter()
        passed, self.last = now - self.last, now
        self.spent[name] += passed
        return passed

    def step(self, number: int) -> None:
        passed = self.lap("training")
        if number > 1:  # the first step compiles
            self.steps.append(passed)

    def as_dict(self) -> Json:
        step = float(np.median(self.steps)) if self.steps else None
        return self.spent | {"step": step, "total": sum(self.spent.values())}


def _look(prepared: Prepared, params: PyTree, heldout: Batch) -> dict[str, Any]:
    """Losses, sample by sample; with classes, whether each held-out one is found."""
    model, classes = prepared.model, prepared.split.task == "classification"
    loss = as_partial(model.loss_fn)
    found = {
        "train": float(np.mean(_each(_losses, loss, params, prepared.split.sample))),
        "heldout": _each(_losses, loss, params, heldout),
    }
    if classes:
        found["correct"] = _each(_correct, jax.tree_util.Partial(model.predict_fn), params, heldout)
    return found


def _outcome(looks: list[tuple[int, dict[str, Any]]]) -> Json:
    steps = [step for step, _ in looks]
    losses = np.stack([look["heldout"] for _, look in looks])
    half = losses.shape[1] // 2
    first, second = losses[:, :half].mean(1), losses[:, half:].mean(1)
    chosen = int(first.argmin()), int(second.argmin())
    last = looks[-1][1]
    best_accuracy = final_accuracy = None
    if "correct" in last:
        final_accuracy = float(last["correct"].mean())
        judged = looks[chosen[0]][1]["correct"][half:], looks[chosen[1]][1]["correct"][:half]
        best_accuracy = float(np.concatenate(judged).mean())
    return {
        "steps": steps,
        "train_losses": [look["train"] for _, look in looks],
        "heldout_losses": losses.mean(1),
        "best_loss": float(np.concatenate([losses[chosen[0], half:], losses[chosen[1], :half]]).mean()),
        "best_accuracy": best_accuracy,
        "best_steps": [steps[place] for place in chosen],
        "final_loss": float(losses[-1].mean()),
        "final_accuracy": final_accuracy,
    }


def _gate(prepared: Prepared, path: list[PyTree], heldout: Batch) -> Json | None:
    if len(heldout["y"]) < MIN_HELDOUT:
        return None
    gate = domination_gate(prepared.model.loss_fn, path, heldout, wrt=prepared.model.wrt)
    return {
        "verdict": gate.verdict,
        "ratio": gate.ratios[gate.worst],
        "low": gate.low[gate.worst],
        "high": gate.high[gate.worst],
        "limit": gate.limit,
    }


def _each(function: Any, called: Any, params: PyTree, data: Batch) -> Float[np.ndarray, " n"]:
    num = len(data["y"])
    chunks = iter_chunks(data, num, min(num, _LARGEST_CHUNK))
    return np.concatenate([np.asarray(function(called, params, chunk), np.float64)[:n] for _, n, chunk in chunks])


@jax.jit
def _losses(loss, params, chunk):
    return jax.vmap(loss, (None, 0))(params, chunk)


@jax.jit
def _correct(predict, params, chunk):
    return jax.vmap(predict, (None, 0))(params, chunk).argmax(-1) == chunk["y"]
