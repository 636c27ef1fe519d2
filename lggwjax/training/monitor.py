"""A monitor for any training loop: does one more step over the same samples still help on unseen data?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.engine import pose
from lggwjax.gradients.halving import halving
from lggwjax.gradients.layout import gram_layout
from lggwjax.gradients.projections import leaf_products
from lggwjax.gradients.selection import LossFn, Wrt, batch_size, select
from lggwjax.sharding import num_shares, place_whole, to_host
from lggwjax.training.hosts import is_first, on_first
from lggwjax.training.looks import Judgement
from lggwjax.training.meter import Meter, MeterState, Samples, example_form
from lggwjax.training.nonfinite import blame, leaf_names
from lggwjax.training.observation import Report, make_report
from lggwjax.training.pace import Pace
from lggwjax.training.recorder import peak_memory

OVERHEAD = 0.05  # of the wall time, unless asked for otherwise
WIDTH_SAMPLES = 256  # held-out samples whose widths are measured; a Gram matrix of thousands would be slow
MIN_HELDOUT = 16  # below, the unbiased norms of a record have no useful error bar

Writer = Callable[[Report], None]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MonitorState:
    """Where a monitor stands; made by :meth:`Monitor.init`, replaced by :meth:`Monitor.observe`, never changed.

    Attributes:
        path: Sketches of the path so far.
        judgement: What was seen of the held-out probe, or None without one.
        pace: What looking has cost.
        step: The last step observed, or None.
        measured: The last step measured, or None.
        stride: Steps between the last two observations.
        previous: A copy of the parameters at ``step``, only where the next observation will be measured.
        skipped: Looks left out so far, because something was NaN or infinite.
    """

    path: MeterState
    judgement: Judgement | None
    pace: Pace
    step: int | None = None
    measured: int | None = None
    stride: int = 1
    previous: PyTree | None = None
    skipped: int = 0


class Monitor:
    r"""Watches a training loop, and says whether the last step helped on unseen data, with an interval.

    .. math:: a_t = \langle -(\theta_{t+1} - \theta_t), \nabla L_D(\theta_t) \rangle

    Three lines: make it, ``state = monitor.init(params)``, and after each optimiser step
    ``state, report = monitor.observe(state, step, params)``; ``report`` is None where nothing was measured.

    Guarantees:
        * At all looks at once, however many, the chance that any ``report.word`` is wrong is at most ``1 - level``
          (:func:`lggwjax.training.looks.look_interval` says why, to what order, and what breaks it). The layers' words
          have the same guarantee among themselves.
        * ``report.verdict`` turns only when two decided looks in a row agree. It follows the population descent alone:
          LGGW, NERC and the rest are there to explain and never raise an alarm.
        * The parts of the layers sum to the whole descent, and the whole is the mean over the samples.
        * With ``overhead=`` a look begins only when, at its typical cost, looking will still have taken at most that
          share of the wall time, compilation apart; the first look is the start of this account. Writers count.
        * Memory is constant, whatever the number of looks: sketches between them, some twenty gradients during one;
          nothing is compiled after the first look.
        * Nothing reaches the training. ``params`` may be donated after the call: what is needed later is copied, one
          copy of the parameters, and only from the step before a look to the look.

    The descent is of the last step alone if every step is observed; otherwise of the move since the observation before
    (``report.move`` says how many steps). A small descent of one noisy step is seldom decided: that is said, as
    ``undecided``. Held-out samples are what decides: hold out 256 or more.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, z): return 0.5 * (w @ z["x"] - z["y"]) ** 2
        >>> probe = lambda key: {"x": jax.random.normal(key, (32, 3)), "y": jnp.ones(32)}
        >>> monitor = Monitor(loss, probe(jax.random.key(0)), probe(jax.random.key(1)), every=1)
        >>> state = monitor.init(jnp.zeros(3))
        >>> for step in range(4):
        ...     state, report = monitor.observe(state, step, jnp.full(3, 0.05 * step))
        >>> report.step, report.word, report.looks
        (3, 'undecided', 3)
    """

    def __init__(
        self,
        loss_fn: LossFn,
        train_probe: PyTree,
        heldout_probe: PyTree | None = None,
        *,
        every: int | None = None,
        overhead: float | None = None,
        level: float = 0.95,
        num_draws: int = 512,
        seed: int = 0,
        wrt: Wrt = None,
        predict_fn: Callable[[Any, Any], Array] | None = None,
        feature_fn: Callable[[Any, Any], Array] | None = None,
        writers: Sequence[Writer] = (),
        non_finite: Literal["stop", "skip"] = "stop",
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Set the monitor up; nothing is computed yet.

        Args:
            loss_fn: ``loss_fn(params, example) -> scalar``, the loss of one example as it is to be judged: without
                dropout or augmentation, norms with running averages.
            train_probe: Some training samples, for the widths; a pytree with a leading axis.
            heldout_probe: At least 16 samples that take no part in training, for the verdict; or None: then widths are
                reported and the verdict is ``unknown``. Widths are taken of as many of the first as there are training
                samples, 256 at most, so that the two compare: a width grows with the samples.
            every: Measure at steps that are multiples of it.
            overhead: Or: measure as often as keeps to this share of the wall time; 0.05 if neither is given.
            level: Coverage of the intervals of all looks at once.
            num_draws: Gaussian directions and sign vectors of each width.
            seed: Fixes the draws.
            wrt: Which leaves are gradient coordinates; by default all floating ones.
            predict_fn: ``predict_fn(params, example) -> (k,)``, for the accuracy against ``example["y"]``.
            feature_fn: ``feature_fn(params, example) -> (m,)``, the featurizer.
            writers: Called with each report, in order; see :mod:`lggwjax.training.writers`.
            non_finite: What a NaN or infinity in a loss or gradient does: ``stop`` raises; ``skip`` leaves that look
                out: a warning names the sample, the layers and the step, path and judgement stay as they were, and
                ``skipped_looks`` of the next records counts it.
            clock: Seconds, for ``overhead`` and the record.

        Raises:
            ValueError: If both ``every`` and ``overhead`` are given or one is out of range, the held-out probe is
                too small, of another form than the training probe, or mostly made of its samples, or ``overhead`` is
                asked for with several processes, whose clocks would not agree on when to measure.
        """
        if every is not None and overhead is not None:
            raise ValueError(f"Expected every or overhead, got both ({every} and {overhead}). Drop one.")
        if every is not None and every < 1:
            raise ValueError(f"Expected every >= 1, got {every}.")
        if overhead is not None and not 0 < overhead < 1:
            raise ValueError(f"Expected 0 < overhead < 1, got {overhead}. 0.05 is 5% of the wall time.")
        if not 0 < level < 1:
            raise ValueError(f"Expected 0 < level < 1, got {level}.")
        if non_finite not in ("stop", "skip"):
            raise ValueError(f'Expected non_finite "stop" or "skip", got {non_finite!r}.')
        num_widths = min(batch_size(train_probe), WIDTH_SAMPLES)
        if heldout_probe is not None:
            _check_heldout(train_probe, heldout_probe)
        few = jax.tree.map(lambda leaf: leaf[:num_widths], heldout_probe)  # as many: widths compare
        samples = Samples(train_probe, train_probe, heldout_probe, few)
        functions: dict[str, Any] = {"wrt": wrt, "predict_fn": predict_fn, "feature_fn": feature_fn}
        self._meter = Meter(loss_fn, samples, num_draws=num_draws, seed=seed, route="sketched", **functions)
        self._loss_fn, self._heldout, self._wrt, self._level = loss_fn, heldout_probe, wrt, level
        self._every, self._overhead = every, OVERHEAD if overhead is None else overhead
        self._writers, self._clock, self._skips = tuple(writers), clock, non_finite == "skip"

    def init(self, params: PyTree, *, looks: int = 0) -> MonitorState:
        """State before the first observation.

        Args:
            params: Parameters of the structure that will be observed.
            looks: Looks that an earlier process has already taken at this held-out probe
                (``report.looks`` of its last report): the guarantee then holds over both.

        Returns:
            The state.

        Raises:
            ValueError: If ``looks < 0``.
        """
        if looks < 0:
            raise ValueError(f"Expected looks >= 0, got {looks}.")
        path, pace = self._meter.init(params), Pace(start=self._clock())
        if self._heldout is None:
            return MonitorState(path, None, pace)
        num_leaves = sum(select(params, self._wrt).chosen)
        return MonitorState(path, Judgement.start(looks, num_leaves, batch_size(self._heldout)), pace)

    def observe(self, state: MonitorState, step: int, params: PyTree) -> tuple[MonitorState, Report | None]:
        """Look at the parameters after an optimiser step; measure if it is time.

        The first call measures the start and compiles. Call it at every step: a call that does not measure costs
        nothing but, at the step before a measurement, a copy of the parameters.

        Args:
            state: From :meth:`init` or the last call.
            step: Optimiser steps so far, rising from call to call.
            params: Parameters now; they may be donated afterwards.

        Returns:
            The new state, and a report where there was a measurement.

        Raises:
            ValueError: If ``step`` does not rise.
            FloatingPointError: If a loss or gradient at the measured parameters is NaN or infinite, unless such looks
                are skipped.
        """
        step = int(step)
        if step < 0 or (state.step is not None and step <= state.step):
            raise ValueError(f"Expected steps from 0 on that rise, got {step} after {state.step}.")
        report, stride = None, 1 if state.step is None else step - state.step
        if state.measured is None or state.previous is not None:
            before = self._clock()
            try:
                state, report = self._look(state, step, params)
            except FloatingPointError as error:
                if not self._skips:
                    raise
                _LOG.warning("%s This look is left out.", error)
                pace = state.pace.spent(self._clock() - before)
                state = replace(state, measured=step, pace=pace, skipped=state.skipped + 1)
        state = replace(state, step=step, stride=stride, previous=None)
        return (self._armed(state, params) if self._is_next(state) else state), report

    def _is_next(self, state: MonitorState) -> bool:
        """Whether the observation after this one is to be measured, so that this one must be remembered."""
        if self._every is None:
            # Clocks differ: with several processes the first one decides.
            return on_first(lambda: state.pace.affords(self._clock(), self._overhead))
        due = ((state.measured or 0) // self._every + 1) * self._every
        return (state.step or 0) + state.stride >= due

    def _armed(self, state: MonitorState, params: PyTree) -> MonitorState:
        jax.block_until_ready(params)  # else the wait for the training's queued work would be booked on the monitor
        before = self._clock()
        copy = jax.block_until_ready(jax.tree.map(_copied, params))
        return replace(state, previous=copy, pace=state.pace.spent(self._clock() - before))

    def _look(self, state: MonitorState, step: int, params: PyTree) -> tuple[MonitorState, Report]:
        jax.block_until_ready(params)
        pace = state.pace
        if pace.first is None:
            pace = self._warmed_up(state, step, params)
        before = self._clock()
        state, report = self._measured(replace(state, pace=pace), step, params, before)
        for writer in self._writers if is_first() else ():
            writer(report)
        return replace(state, measured=step, pace=pace.looked(self._clock() - before)), report

    def _warmed_up(self, state: MonitorState, step: int, params: PyTree) -> Pace:
        """Measure once for nothing, with a step of zero: all that later looks need is compiled, and booked apart."""
        before = self._clock()
        path = self._meter.extend(state.path, params)
        self._measured(replace(state, path=path, previous=params), step, params, before)
        return state.pace.looked(self._clock() - before)

    def _measured(self, state: MonitorState, step: int, params: PyTree, now: float) -> tuple[MonitorState, Report]:
        try:
            path, record = self._meter.measure(state.path, params)
            move, values = 0, None
            if state.previous is not None:
                move = step - (state.step or 0)
                values = None if state.judgement is None else self._descents(state.previous, params)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} It was met at step {step}.") from None
        judgement, look = state.judgement, None
        if judgement is not None and values is not None:
            judgement, look = judgement.judged(step, values, self._level)
        record |= {"seconds": _seconds(state.pace, now), "peak_memory": peak_memory(), "skipped_looks": state.skipped}
        names = leaf_names(select(params, self._wrt), params)
        return replace(state, path=path, judgement=judgement), make_report(step, move, names, judgement, look, record)

    def _descents(self, before: PyTree, after: PyTree) -> Float[np.ndarray, "m L"]:
        """Descent of the step on each held-out sample, by each leaf: one pass over the probe at ``before``."""
        problem = pose(self._loss_fn, before, self._heldout, self._wrt)
        split = problem.selection.split
        step = [a - b for a, b in zip(split(before)[0], split(after)[0], strict=True)]
        step, shares = place_whole(step, problem.mesh), num_shares(problem.mesh)
        chunk_size = gram_layout(problem.engine, problem.num_samples, None, None, shares).chunk_size

        def measure(size: int) -> Float[np.ndarray, "m L"]:
            parts = [
                to_host(leaf_products(problem, problem.factors(before, chunk), step))[:count].astype(np.float64)
                for _, count, chunk in problem.chunks(self._heldout, size)
            ]
            return np.concatenate(parts)

        values = halving(measure, chunk_size)
        if not np.isfinite(values).all():
            cause = blame(self._loss_fn, before, self._heldout, self._wrt)
            raise FloatingPointError(f"A gradient on the held-out probe is NaN or infinite: {cause or 'of the step'}.")
        return values


def _seconds(pace: Pace, now: float) -> dict[str, float]:
    """What the time up to a look was spent on."""
    spent, compiling = pace.measuring_seconds, pace.compile_seconds
    training = now - pace.start - spent - compiling
    return {"training": round(training, 6), "measuring": round(spent, 6), "compiling": round(compiling, 6)}


def _copied(leaf: Any) -> Any:
    """The leaf in memory of its own: the loop may donate or overwrite the one it handed over."""
    return leaf.copy() if isinstance(leaf, jax.Array | np.ndarray) else leaf


def _check_heldout(train_probe: PyTree, heldout_probe: PyTree) -> None:
    if batch_size(heldout_probe) < MIN_HELDOUT:
        raise ValueError(
            f"Expected at least {MIN_HELDOUT} held-out samples, got {batch_size(heldout_probe)}. Hold out more, or "
            "none: then nothing is said about unseen data."
        )
    if example_form(train_probe) != example_form(heldout_probe):
        raise ValueError(
            "Expected a held-out probe of the form of the training probe, got "
            f"{example_form(heldout_probe)} against {example_form(train_probe)}."
        )
    rows, known = _rows(heldout_probe), set(_rows(train_probe))
    shared = sum(row in known for row in rows)
    if 2 * shared > len(rows):
        raise ValueError(
            f"Expected held-out samples that take no part in training, got {shared} of {len(rows)} that are in the "
            "training probe too. Split the data once, before training."
        )


def _rows(batch: PyTree) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    return [b"".join(leaf[index].tobytes() for leaf in leaves) for index in range(batch_size(batch))]
