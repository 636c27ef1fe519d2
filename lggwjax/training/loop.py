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

from lggwjax.data.order import LARGEST_LIST, Order
from lggwjax.gradients.selection import Selection, Wrt, batch_size, select
from lggwjax.training.feed import feed
from lggwjax.training.rows import Rows, num_rows, take_each

Optimizer = Literal["gd", "sgd", "momentum", "adam", "adamw"]
TrainFn = Callable[[PyTree, PyTree], tuple[Array, Array, PyTree]]
DrawFresh = Callable[[Array, int], PyTree]
_MOMENTUM = 0.9
# Streams of the one seed that must not meet: the order of the sample, and fresh samples.
_ORDER, _FRESH = 0, 1


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

    Raises:
        ValueError: If a value is out of its range, or ``gd`` is given a batch size.
    """

    optimizer: Optimizer = "adam"
    learning_rate: float = 0.003
    batch_size: int | None = None
    weight_decay: float = 0.0
    feature_l1: float = 0.0
    steps: int = 100
    seed: int = 0
    fresh: bool = False

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

    Yields:
        ``start`` or the state of step 0, then one state a step up to ``spec.steps``.

    Raises:
        ValueError: If the batch exceeds the sample, ``start`` lies beyond the last step, there is nothing to draw
            fresh samples from, an iterator ends early or its batches differ in form, or ``train_fn`` returns another
            kind of state.
        TrainingDiverged: At the first step whose loss, parameters or statistics are not finite.

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
    batches = _batches(sample, spec, draw_fresh, state)
    # Seeds, steps and batches do not enter the program of a step: runs that differ in these only compile it once.
    rule = dataclasses.replace(spec, seed=0, steps=0, batch_size=None, fresh=False)
    update = _make_update(train_fn, select(state.params, wrt), rule)
    # An inner generator, so that what is wrong above is said at the call and not at the first state.
    return _states(state, batches, update, spec)


def _states(
    state: TrainState, batches: Iterator[tuple[PyTree, str | None]], update: Callable, spec: TrainSpec
) -> Iterator[TrainState]:
    if not bool(jax.jit(_all_finite)(state.params)):
        raise TrainingDiverged(state.step, spec.learning_rate)
    yield state
    for batch, position in batches:
        params, opt_state, finite = update(state.params, state.opt_state, batch)
        step = state.step + 1
        if not bool(finite):
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


def _stream(seed: int, stream: int) -> Array:
    # np.uint32: a Python int of 2**31 or more does not fit jax's default integer.
    return jax.random.fold_in(jax.random.key(np.uint32(seed)), stream)


def _batches(
    sample: PyTree | Rows | Iterable[PyTree], spec: TrainSpec, draw_fresh: DrawFresh | None, start: TrainState
) -> Iterator[tuple[PyTree, str | None]]:
    """The batch of every step to come, each with the position of the iterator that gave it."""
    steps = range(start.step, spec.steps)
    if spec.fresh:
        batch_at = _fresh_batches(sample, spec, draw_fresh)
    elif isinstance(sample, Rows):
        rows_at = _rows_at(len(sample), spec)
        return ((batch, None) for batch in take_each(sample, map(rows_at, steps)))
    elif isinstance(sample, Iterator) or _gives_batches(sample):
        if spec.batch_size is not None:
            raise ValueError(f"Expected no batch_size with an iterator of batches, got {spec.batch_size}.")
        return feed(sample, start.step, spec.steps, start.position)
    else:
        batch_at = _reused_batches(sample, spec)
    return ((batch_at(step), None) for step in steps)


def _gives_batches(sample: PyTree) -> bool:
    """Whether it is no array and no container of arrays, but something that gives batches when iterated over."""
    is_leaf = jax.tree_util.all_leaves([sample])
    return is_leaf and isinstance(sample, Iterable) and not hasattr(sample, "shape")


def _reused_batches(sample: PyTree, spec: TrainSpec) -> Callable[[int], PyTree]:
    rows_at = _rows_at(batch_size(sample), spec)
    sample = jax.tree.map(jnp.asarray, sample)
    if spec.batch_size in (None, batch_size(sample)):
        return lambda _: sample
    # The sample is an argument: closed over, it would be compiled in as a constant, a second copy of all data.
    take = jax.jit(lambda sample, rows: jax.tree.map(lambda leaf: leaf[rows], sample))
    return lambda step: take(sample, rows_at(step))


def _rows_at(num_samples: int, spec: TrainSpec) -> Callable[[int], np.ndarray]:
    """Which samples make the batch of a step."""
    size = num_samples if spec.batch_size is None else spec.batch_size
    if size > num_samples:
        raise ValueError(f"Expected batch_size <= {num_samples}, the size of the sample, got {size}.")
    if size == num_samples:
        return lambda _: np.arange(num_samples)
    return lambda step: _batch_rows(spec.seed, step, num_samples, size)


def _fresh_batches(sample: PyTree | Rows, spec: TrainSpec, draw_fresh: DrawFresh | None) -> Callable[[int], PyTree]:
    if draw_fresh is None:
        raise ValueError("Expected a population to draw fresh samples from, got a fixed sample. Leave fresh out.")
    size = num_rows(sample) if spec.batch_size is None else spec.batch_size
    key = _stream(spec.seed, _FRESH)
    return lambda step: jax.tree.map(jnp.asarray, draw_fresh(jax.random.fold_in(key, step), size))


# Two orders are alive at a time, when a batch straddles them; a few more serve runs side by side.
@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, num_samples: int) -> np.ndarray | Order:
    if num_samples > LARGEST_LIST:
        return Order((seed, _ORDER, epoch), num_samples)
    key = jax.random.fold_in(_stream(seed, _ORDER), epoch)
    return np.asarray(jax.random.permutation(key, num_samples))


def _batch_rows(seed: int, step: int, num_samples: int, size: int) -> np.ndarray:
    epoch, offset = divmod(step * size, num_samples)
    here = min(size, num_samples - offset)
    rows = _order(seed, epoch, num_samples)[np.arange(offset, offset + here)]
    if here < size:
        rows = np.concatenate([rows, _order(seed, epoch + 1, num_samples)[np.arange(size - here)]])
    return rows


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
