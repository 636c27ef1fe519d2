"""Measure checkpoints that were trained elsewhere, and leave the same run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, PyTree

from lggwjax.gradients.selection import LossFn, Wrt, batch_size
from lggwjax.lggw import check_path
from lggwjax.training.checkpoints import read_params
from lggwjax.training.checkpoints import steps as checkpoint_steps
from lggwjax.training.config import environment
from lggwjax.training.folder import RunFolder
from lggwjax.training.left_out import LeftOut, check_enough
from lggwjax.training.meter import Meter, Record, Samples, example_form
from lggwjax.training.recorder import Recorder, Subject
from lggwjax.training.rows import reader

MIN_HELDOUT = 3  # below, the unbiased norms have no error bar


def measure(
    path: Iterable[PyTree],
    loss_fn: LossFn,
    batch: PyTree,
    heldout: PyTree | None = None,
    *,
    out: str | Path = "runs/measured",
    steps: Sequence[int] | None = None,
    probe_size: int = 64,
    num_draws: int = 512,
    seed: int = 0,
    wrt: Wrt = None,
    predict_fn: Callable[[Any, Any], Array] | None = None,
    feature_fn: Callable[[Any, Any], Array] | None = None,
    non_finite: Literal["stop", "skip"] = "stop",
    resume: bool = False,
) -> Path:
    """Measure a path of checkpoints and write a run folder with records, figures and a page.

    The population descent of a record speaks of the move since the checkpoint before it, to first order; between
    checkpoints that lie many steps apart it may differ from the change in loss.

    Args:
        path: Checkpoints of one structure, in order; a sequence, or a re-iterable that loads lazily.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        batch: The samples the checkpoints were trained on, leading axis n.
        heldout: Samples that took no part in training, or None: then nothing is said about unseen data.
        out: The run folder.
        steps: Optimiser steps of the checkpoints; 0, 1, 2, ... by default.
        probe_size: Samples of each side whose gradients are measured one by one, drawn from ``seed``.
        num_draws: Gaussian directions and sign vectors of each estimate.
        seed: Of the probes and the draws.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        predict_fn: ``predict_fn(params, example) -> (k,)``, for the accuracy against integer labels ``example["y"]``.
        feature_fn: ``feature_fn(params, example) -> (m,)``, the featurizer.
        non_finite: What becomes of a sample whose loss or gradient is NaN or infinite: ``stop`` ends there and names
            it, ``skip`` leaves it out of all that is measured from then on, says so and counts it in the records.
        resume: Go on with a folder that was interrupted.

    Returns:
        The page; its folder is read by :func:`lggwjax.load_run`.

    Raises:
        ValueError: If the path, the batch or the folder cannot be used; the message says what to do.
        FloatingPointError: If a loss or gradient is NaN or infinite and no sample is to be left out for that.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> def loss(w, z): return 0.5 * (w @ z["x"] - z["y"]) ** 2
        >>> data = {"x": jnp.eye(4), "y": jnp.ones(4)}
        >>> page = measure([jnp.zeros(4), jnp.ones(4)], loss, data, out=tempfile.mkdtemp() + "/run", num_draws=64)
        >>> page.name
        'report.html'
    """
    path = check_path(path)
    length = sum(1 for _ in path)
    steps = tuple(range(length)) if steps is None else tuple(int(step) for step in steps)
    if non_finite not in ("stop", "skip"):
        raise ValueError(f'Expected non_finite "stop" or "skip", got {non_finite!r}.')
    samples = _samples(batch, heldout, probe_size, seed)
    functions: dict[str, Any] = {"wrt": wrt, "predict_fn": predict_fn, "feature_fn": feature_fn}
    meter = Meter(loss_fn, samples, max_checkpoints=length, num_draws=num_draws, seed=seed, **functions)
    data = {
        "name": "given",
        "num_samples": batch_size(samples.train),
        "probe_size": batch_size(samples.train_probe),
        "num_heldout": 0 if heldout is None else batch_size(heldout),
        "description": "The samples were handed over together with the checkpoints.",
        "population": False,
        "fingerprint": _fingerprint(batch, heldout),
        "seed": seed,
    }
    given = _Given(loss_fn, batch, heldout, wrt, probe_size, seed, non_finite, meter)
    return measure_path(path, given, steps, {"data": data, "model": {"name": "given"}}, Path(out), resume=resume)


@dataclass(frozen=True)
class _Given:
    """Samples that were handed over together with the checkpoints."""

    loss_fn: LossFn
    batch: PyTree
    heldout: PyTree | None
    wrt: Wrt
    probe_size: int
    seed: int
    non_finite: str
    whole: Meter

    def left_out(self, records: Sequence[Record] = ()) -> LeftOut | None:
        if self.non_finite == "stop":
            return None
        return LeftOut(self.loss_fn, self.batch, self.heldout, self.wrt, records)

    def meter(self, left_out: LeftOut | None) -> Meter:
        if left_out is None or not (left_out.train or left_out.heldout):
            return self.whole
        samples = _samples(self.batch, self.heldout, self.probe_size, self.seed, left_out)
        probe, outside_probe, outside = (
            None if part is None else len(jax.tree.leaves(part)[0])
            for part in (samples.train_probe, samples.heldout_probe, samples.heldout)
        )
        check_enough(probe or 0, outside_probe, outside or 0, MIN_HELDOUT)
        return self.whole.of(samples)


def measure_path(
    path: Iterable[PyTree],
    subject: Subject,
    steps: Sequence[int],
    about: dict[str, dict[str, Any]],
    out: Path,
    *,
    resume: bool = False,
    progress: Callable[[int, Record | None], None] | None = None,
) -> Path:
    """Measure checkpoints of a subject at hand, and write a run folder.

    Args:
        path: T checkpoints.
        subject: Its meter is for at least T checkpoints.
        steps: T rising steps.
        about: The parts ``data`` and ``model`` of ``config.json``.
        out: The run folder.
        resume: Go on with a folder that was interrupted.
        progress: Called with each step and its record.

    Returns:
        The page.

    Raises:
        ValueError: If ``steps`` do not rise or do not match the path, or the folder cannot be used.
        FloatingPointError: If a loss or gradient is NaN or infinite and no sample is to be left out for that.
    """
    from lggwjax.report import write_page  # matplotlib is loaded when there is something to draw

    path = check_path(path)
    length, first = sum(1 for _ in path), next(iter(path))
    if len(steps) != length or list(steps) != sorted(set(steps)) or steps[0] < 0:
        raise ValueError(f"Expected {length} rising steps from 0 on, one for each checkpoint, got {list(steps)[:8]}.")
    plan = subject.meter(None).plan(first)
    skips = subject.left_out() is not None
    asked = about | {
        "training": {
            "steps": steps[-1],
            "fresh": False,
            "trained_here": False,
            "non_finite": "skip" if skips else "stop",
        },
        "measuring": {"measurements": length, "directions": plan["num_draws"], "steps": list(steps)} | plan,
    }
    with RunFolder.open(out, asked, resume=resume, extra={"environment": environment()}) as folder:
        if not folder.finished:
            recorder = Recorder(subject, folder, first, lambda: zip(steps, path, strict=True), progress)
            done = {record["step"] for record in folder.records}
            previous = None
            for step, params in zip(steps, path, strict=True):
                if step not in done:
                    record = recorder.measure(step, None, params, previous)
                    if progress is not None:
                        progress(step, record)
                previous = params
            write_page(folder.path)
        return folder.path / "report.html"


class CheckpointPath:
    """Checkpoints of a folder, one folder a step, read when they are needed.

    Attributes:
        steps: Steps found, rising.
    """

    def __init__(self, directory: str | Path, like: PyTree):
        """Look for checkpoints.

        Args:
            directory: Folder with one orbax checkpoint a step, named by the step.
            like: Parameters of the structure that each must have.

        Raises:
            ValueError: If there is no folder or no checkpoint in it.
        """
        self._directory, self._like = Path(directory), like
        self.steps = checkpoint_steps(directory)
        if not self.steps:
            raise ValueError(f"Expected orbax checkpoints in folders named by their step, got none in {directory}.")

    def __iter__(self) -> Iterator[PyTree]:
        for step in self.steps:
            yield read_params(self._directory / str(step), self._like)


def _fingerprint(*batches: PyTree) -> str:
    """Hash of the samples, so that a folder is not gone on with by other ones."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(batches):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _samples(
    batch: PyTree, heldout: PyTree | None, probe_size: int, seed: int, left_out: LeftOut | None = None
) -> Samples:
    if probe_size < 1:
        raise ValueError(f"Expected probe_size >= 1, got {probe_size}.")
    if heldout is not None and (got := example_form(heldout)) != example_form(batch):
        raise ValueError(
            f"Expected heldout samples of the form of batch, got {got} against {example_form(batch)}. "
            "Both are pytrees of one structure whose arrays differ in the leading axis only."
        )
    if heldout is not None and batch_size(heldout) < MIN_HELDOUT:
        raise ValueError(
            f"Expected at least {MIN_HELDOUT} held-out samples, got {batch_size(heldout)}. Pass more, or None."
        )
    train, outside = (set(), set()) if left_out is None else (left_out.train, left_out.heldout)
    sides = _parts(batch, probe_size, [seed, 0], train)
    return Samples(*sides, *((None, None) if heldout is None else _parts(heldout, probe_size, [seed, 1], outside)))


def _parts(data: PyTree, probe_size: int, seed: list[int], left_out: Set[int]) -> tuple[PyTree, PyTree]:
    """All samples but those left out, and those of the probe."""
    take, num = reader(data), batch_size(data)
    rows = np.arange(num), np.random.default_rng(seed).permutation(num)[:probe_size]
    whole, probe = (part[~np.isin(part, list(left_out))] for part in rows)
    return take(whole) if left_out else data, take(probe)
