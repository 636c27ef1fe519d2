"""Training over a fixed sample that is used again and again: a short generator of states."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from lggwjax.gradients.selection import Selection, Wrt, select
from lggwjax.training.batches import BatchAt, DrawFresh, batches_of
from lggwjax.training.left_out import LeftOut
from lggwjax.training.rows import Rows

Optimizer = Literal["gd", "sgd", "momentum", "adam", "adamw"]
TrainFn = Callable[[PyTree, PyTree], tuple[Array, Array, PyTree]]
_MOMENTUM = 0.9


class TrainingDiverged(FloatingPointError):  # noqa: N818, what happened, as in StopIteration
    """A loss, parameter or running statistic became NaN or infinite.

    Attributes:
        step: The step whose result is not finite; every state before it was.
        learning_rate: Of the training.
    """

    def __init__(self, step: int, learning_rate: float, cause: str = ""):
        """Say what to do; ``cause`` names a sample that is to blame, where one is known."""
        self.step, self.learning_rate = step, learning_rate
        advice = f"Lower the learning rate (now {learning_rate:g}) or the scale of the initial parameters or inputs."
        if cause:
            advice = f"Already before that step {cause}. Look at that sample, or take it out."
        super().__init__(f"Expected a finite loss and finite parameters, got NaN or infinity at step {step}. {advice}")


@dataclass(frozen=True)
class TrainSpec:
    """How to train.

    Attributes:
        optimizer: ``gd`` on the full sample, ``sgd`` on batches, ``momentum`` (0.9), ``adam`` or ``adamw``.
        learning_rate: Step size, the same at every step.
        batch_size: Examples a step; ``None`` takes the whole sample, as ``gd`` always does.
        weight_decay: Decoupled for ``adamw``; for the others its product with the parameters is added to the gradient.
        feature_l1: Coefficient of the mean over examples of the L1 norm of the features, added to the loss.
        steps: Optimiser steps in all, counted from the initial parameters.
        seed: Fixes the order of the sample, or the fresh samples.
        fresh: Draw new samples at every step instead of reusing the sample.
        non_finite: What becomes of a sample whose loss or gradient is NaN or infinite: ``stop`` ends the run there,
            ``skip`` leaves the sample out for good, in training and in measuring; not with ``fresh``.

    Raises:
        ValueError: If a value is out of its range, or two do not fit.
    """

    optimizer: Optimizer = "adam"
    learning_rate: float = 0.003
    batch_size: int | None = None
    weight_decay: float = 0.0
    feature_l1: float = 0.0
    steps: int = 100
    seed: int = 0
    fresh: bool = False
    non_finite: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"Expected optimizer one of {', '.join(get_args(Optimizer))}, got {self.optimizer!r}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"Expected learning_rate > 0, got {self.learning_rate}.")
        for name in ("weight_decay", "feature_l1"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Expected {name} >= 0, got {value}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"Expected batch_size >= 1, got {self.batch_size}.")
        if self.optimizer == "gd" and self.batch_size is not None:
            raise ValueError(f"Expected no batch_size with optimizer gd, got {self.batch_size}. Take sgd for batches.")
        if self.steps < 0:
            raise ValueError(f"Expected steps >= 0, got {self.steps}.")
        if self.non_finite not in ("stop", "skip"):
            raise ValueError(f'Expected non_finite "stop" or "skip", got {self.non_finite!r}.')
        if self.fresh and self.non_finite == "skip":
            raise ValueError("Expected non_finite stop with fresh samples, which do not come again, got skip.")
        # Keys are made from 32 bits of the seed: a larger one would silently train as another seed.
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"Expected 0 <= seed < 2**32, got {self.seed}.")


class TrainState(NamedTuple):
    """Where training stands; with the specification and the sample, all that is needed to go on.

    Attributes:
        step: Optimiser steps taken.
        params: ``{"params": ..., "state": ...}`` after them.
        previous: The same before the last step; equal to ``params`` at step 0.
        opt_state: The state of the optax optimiser.
        position: Where the iterator of batches stands, as JSON; None where the step says it, or nothing does.
    """

    step: int
    params: PyTree
    previous: PyTree
    opt_state: PyTree
    position: str | None = None


def initial_state(params: PyTree, wrt: Wrt, spec: TrainSpec) -> TrainState:
    """State of step 0: also the template a stored state is restored into.

    Args:
        params: ``{"params": ..., "state": ...}``, initial parameters and running statistics.
        wrt: Mask or predicate on (path, leaf) of ``params``: which leaves are optimised.
        spec: Names the optimiser.

    Returns:
        The state before the first step.

    Raises:
        ValueError: If ``params`` has other keys, or no leaf is optimised.

    Example:
        >>> params = {"params": {"w": jnp.ones(3)}, "state": {}}
        >>> initial_state(params, lambda path, leaf: True, TrainSpec()).step
        0
    """
    if not isinstance(params, dict) or set(params) != {"params", "state"}:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(f"Expected params with the keys 'params' and 'state', got {got}. Put {{}} for no state.")
    # Strong types from the start: a restored leaf has one, and a weak one could promote otherwise.
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), params)
    selection = select(params, wrt)
    opt_state = _optimizer(spec).init(selection.tree(selection.split(params)[0]))
    return TrainState(0, params, params, opt_state)


def train(
    train_fn: TrainFn,
    wrt: Wrt,
    params: PyTree,
    sample: PyTree | Rows | Iterable[PyTree],
    spec: TrainSpec,
    *,
    draw_fresh: DrawFresh | None = None,
    start: TrainState | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[TrainState]:
    r"""Train, and give the state before the first step and after every step.

    .. math:: \frac1b \sum_{i \in B_t} \ell(\theta, z_i) + \lambda \frac1b \sum_{i \in B_t} |h_\theta(z_i)|_1

    Batches follow one endless list: the sample in one random order, then in the next, and so on; order e comes from
    the seed and e alone. Step t takes entries b t to b (t + 1) - 1. So a batch has b examples, every pass holds each
    example exactly once, and t steps are b t / n passes; a batch may straddle two orders. The full sample (b = n) is
    taken as it lies.

    Guarantees:
        * Started from any state it gave, training goes on bit for bit as if it had not stopped.
        * A sample that is read when it is asked for gives the same states as one in memory, bit for bit.
        * Every state given is finite; it is held by nobody else, so keeping it or taking long over it changes nothing.

    Args:
        train_fn: ``(params, batch) -> (losses (b,), features (b, ...), new state)``, hashable; compiled once for each
            optimiser and shape.
        wrt: Mask or predicate on (path, leaf) of ``params``: which leaves are optimised. Of the others, those under
            ``state`` are replaced by what ``train_fn`` returns, and the rest stay.
        params: ``{"params": ..., "state": ...}`` at step 0.
        sample: A dict or other pytree of arrays with a common leading axis n; or samples that are read when they are
            asked for, such as :class:`lggwjax.data.StreamedSample`; or any iterator of batches, a Grain loader or data
            set of batches, say, taken in the order it gives. Where its iterator has ``get_state`` and ``set_state``,
            the position travels with the states; else going on skips the batches taken before, and says so.
        spec: Optimiser, batch size, steps, seed.
        draw_fresh: ``(key, b) -> batch``, new samples; called with ``spec.fresh`` only.
        start: A state to go on from; ``params`` are then not looked at.
        left_out: Samples that no batch takes, looked at before each step. Where a step is not finite, those of its
            batch that are to blame are added, and the step is made again, on a batch smaller by them.

    Yields:
        ``start`` or the state of step 0, then one state a step up to ``spec.steps``.

    Raises:
        ValueError: If the batch exceeds the sample, ``start`` lies beyond the last step, there is nothing to draw
            fresh samples from, an iterator ends early or its batches differ in form, or ``train_fn`` returns another
            kind of state.
        TrainingDiverged: At the first step whose loss, parameters or statistics are not finite, with no sample to
            leave out.
        FloatingPointError: If all samples of a batch are left out.

    Example:
        >>> def train_fn(params, batch):
        ...     return 0.5 * (params["params"] - batch) ** 2, jnp.zeros_like(batch), params["state"]
        >>> params = {"params": jnp.zeros(()), "state": {}}
        >>> spec = TrainSpec(optimizer="gd", learning_rate=0.5, steps=3)
        >>> path = train(train_fn, lambda path, leaf: True, params, jnp.array([1.0, 3.0]), spec)
        >>> [float(state.params["params"]) for state in path]
        [0.0, 1.0, 1.5, 1.75]
    """
    state = initial_state(params, wrt, spec) if start is None else start
    if state.step > spec.steps:
        raise ValueError(f"Expected a start before step {spec.steps}, got step {state.step}. Ask for more steps.")
    batch_at = batches_of(sample, spec, (state.step, state.params, state.position), draw_fresh, left_out)
    # Seeds, steps and batches do not enter the program of a step: runs that differ in these only compile it once.
    rule = dataclasses.replace(spec, seed=0, steps=0, batch_size=None, fresh=False, non_finite="stop")
    update = _make_update(train_fn, select(state.params, wrt), rule)
    # An inner generator, so that what is wrong above is said at the call and not at the first state.
    return _states(state, batch_at, update, spec, left_out)


def _states(
    state: TrainState, batch_at: BatchAt, update: Callable, spec: TrainSpec, left_out: LeftOut | None
) -> Iterator[TrainState]:
    if not bool(jax.jit(_all_finite)(state.params)):
        raise TrainingDiverged(state.step, spec.learning_rate)
    yield state
    while state.step < spec.steps:
        batch, position = batch_at(state.step)
        params, opt_state, finite = update(state.params, state.opt_state, batch)
        step = state.step + 1
        if not bool(finite):
            if left_out is not None and left_out.found_in_batch(state.step, state.params, spec.batch_size, spec.seed):
                continue
            raise TrainingDiverged(step, spec.learning_rate)
        state = TrainState(step, params, state.params, opt_state, position)
        yield state


@lru_cache(maxsize=8)
def _make_update(train_fn: TrainFn, selection: Selection, spec: TrainSpec) -> Callable:
    optimizer = _optimizer(spec)

    @jax.jit
    def update(params: PyTree, opt_state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree, Array]:
        coordinates, others = selection.split(params)

        def objective(tree: PyTree) -> tuple[Array, PyTree]:
            losses, features, new = train_fn(selection.merge(jax.tree.leaves(tree), others), batch)
            loss = jnp.mean(losses)
            if spec.feature_l1:
                loss += spec.feature_l1 * jnp.sum(jnp.abs(features)) / features.shape[0]
            return loss, new

        tree = selection.tree(coordinates)
        (loss, new), gradient = jax.value_and_grad(objective, has_aux=True)(tree)
        if _layout(new) != _layout(params["state"]):
            old = _layout(params["state"])
            raise ValueError(f"Expected train_fn to return a new state like the old one, {old}, got {_layout(new)}.")
        changes, opt_state = optimizer.update(gradient, opt_state, tree)
        tree = optax.apply_updates(tree, changes)
        after = selection.merge(jax.tree.leaves(tree), others) | {"state": new}
        # The parameters tell of the gradient too: a step of learning rate times NaN or infinity is never finite.
        return after, opt_state, jnp.isfinite(loss) & _all_finite(after)

    return update


def _optimizer(spec: TrainSpec) -> optax.GradientTransformation:
    if spec.optimizer == "adamw":
        return optax.adamw(spec.learning_rate, weight_decay=spec.weight_decay)
    rule = {
        "gd": optax.sgd,
        "sgd": optax.sgd,
        "momentum": partial(optax.sgd, momentum=_MOMENTUM),
        "adam": optax.adam,
    }[spec.optimizer](spec.learning_rate)
    return optax.chain(optax.add_decayed_weights(spec.weight_decay), rule) if spec.weight_decay else rule


def _layout(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)


def _all_finite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def measurement_steps(total_steps: int, num: int, spacing: Literal["log", "even"] = "log") -> tuple[int, ...]:
    """Steps at which to measure: the first (0), the last, and others between.

    Args:
        total_steps: Steps of the whole training.
        num: How many measurements, at least 2.
        spacing: ``even``, or ``log`` for ever longer gaps after step 1.

    Returns:
        Rising steps from 0 to ``total_steps``: ``num`` of them, or all ``total_steps + 1`` where there are no more.

    Raises:
        ValueError: If ``total_steps < 0``, ``num < 2`` or the spacing is another word.

    Example:
        >>> measurement_steps(100, 5), measurement_steps(100, 5, "even"), measurement_steps(2, 5)
        ((0, 1, 5, 22, 100), (0, 25, 50, 75, 100), (0, 1, 2))
    """
    if total_steps < 0:
        raise ValueError(f"Expected total_steps >= 0, got {total_steps}.")
    if num < 2:
        raise ValueError(f"Expected num >= 2 measurements, got {num}. The first and last step are always measured.")
    if spacing not in ("log", "even"):
        raise ValueError(f"Expected spacing log or even, got {spacing!r}.")
    if num > total_steps:
        return tuple(range(total_steps + 1))
    if spacing == "even":
        return tuple(round(step) for step in np.linspace(0, total_steps, num))
    steps = [0]
    for step in np.geomspace(total_steps, 1, num - 1)[::-1]:
        # The first steps of the series lie less than 1 apart: they are moved on, and never onto the ones that follow.
        steps.append(max(round(step), steps[-1] + 1))
    return tuple(steps)
