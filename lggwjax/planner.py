"""Which route a measurement takes, in what chunks, and what it will cost: decided before anything is computed."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree

from lggwjax.gradients.costs import cheapest, default_memory, pair_costs, path_costs
from lggwjax.gradients.engine import Engine, pose
from lggwjax.gradients.layout import (
    Layout,
    gram_flops,
    gram_layout,
    pass_flops,
    path_layout,
    stream_flops,
    stream_layout,
    width_flops,
)
from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.sharding import num_shares

Kind = Literal["stacked", "single", "union", "gram"]
_log = logging.getLogger("lggwjax")


def prefers_gram(
    engine: Engine,
    num_samples: int,
    length: int,
    num_draws: int,
    chunk_size: int | None,
    max_memory: int | None,
    devices: int = 1,
) -> bool:
    """Whether a union is measured from its Gram matrix or streamed: the least predicted time that fits.

    Args:
        engine: Knows what a pass and a product cost.
        num_samples: n.
        length: T checkpoints.
        num_draws: Directions.
        chunk_size: Samples at once, or None.
        max_memory: Bytes, or None.
        devices: Among how many the samples are divided.

    Returns:
        True for the Gram matrix.
    """
    num_points = num_samples * length
    stream = stream_layout(engine, num_samples, length, num_draws, chunk_size, max_memory, devices)
    gram = gram_layout(engine, num_points, chunk_size, max_memory, devices)
    budget = default_memory() if max_memory is None else max_memory
    if gram.memory > budget and stream.memory < gram.memory:
        return False
    # Streamed draws have no radial factor: it takes about three times as many for the same standard error.
    by_stream = stream_flops(engine, num_points, 3 * num_draws, stream.chunk_size)[stream.route]
    by_gram = gram_flops(engine, num_points, gram) + width_flops(num_points, num_draws)
    return by_gram <= by_stream


@dataclass(frozen=True)
class LeafPlan:
    """How one leaf of the parameters is measured.

    Attributes:
        name: Its key path.
        shape: Its shape.
        route: ``activations`` (inner products of inputs and of cotangents), ``contracted`` (factors multiplied out, a
            layer at a time), ``gradient`` (its own vmap(grad)) or ``unused``.
        reason: Why there are no factors; empty where none would help, as for a bias.
        flops: Operations of its products.
        memory: Bytes of what is held for it, and of scratch.
    """

    name: str
    shape: tuple[int, ...]
    route: str
    reason: str
    flops: float
    memory: float


@dataclass(frozen=True)
class Plan:
    """What a measurement will do and cost; made without computing anything.

    Attributes:
        kind: What is measured.
        route: ``gram`` or ``streamed``.
        leaves: One a leaf of the gradient coordinates.
        num_samples: n.
        num_checkpoints: T.
        num_parameters: p.
        num_draws: Directions counted in ``seconds``.
        chunk_size: Samples differentiated at once.
        flops: Operations in all.
        memory: Predicted peak in bytes of each device, on top of what is there before the call.
        seconds: Predicted time without compiling, at the rate of a matrix product measured just now.
        num_devices: Among how many the samples are divided; messages between them are not in ``seconds``, see
            :func:`lggwjax.scaling.plan_devices`.
    """

    kind: Kind
    route: Literal["gram", "streamed"]
    leaves: tuple[LeafPlan, ...]
    num_samples: int
    num_checkpoints: int
    num_parameters: int
    num_draws: int
    chunk_size: int
    flops: float
    memory: int
    seconds: float
    num_devices: int = 1

    def __str__(self) -> str:
        """A table, one line a leaf."""
        rows = []
        for leaf in self.leaves:
            shape = "x".join(map(str, leaf.shape)) or "scalar"
            amounts = _amount(leaf.flops, 1000, "flop"), _amount(leaf.memory, 1024, "B")
            rows.append((leaf.name, shape, leaf.route, *amounts, leaf.reason))
        rows = [("leaf", "shape", "route", "products", "memory", "why no factors"), *rows]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = (
            f"{self.kind}: {self.num_checkpoints} checkpoint(s), n = {self.num_samples}, p = {self.num_parameters:,}; "
            f"route {self.route}, {self.chunk_size} samples at once, {self.num_draws} draws\n"
            f"predicted: {_amount(self.flops, 1000, 'flop')}, {self.seconds:.3g} s without compiling, "
            f"{_amount(self.memory, 1024, 'B')} on top of what is there"
            f"{f', on each of {self.num_devices} devices' if self.num_devices > 1 else ''}"
        )
        return "\n".join([head, *lines])


def _amount(value: float, base: int, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < base:
            break
        if prefix != "P":
            value /= base
    between = "i" if base == 1024 and prefix else ""
    return f"{value:.3g} {prefix.upper() if base == 1024 else prefix}{between}{unit}"


class Forecast(NamedTuple):
    """A plan that was logged, and when the measurement began."""

    made: Plan
    started: float

    def log_outcome(self, result: PyTree) -> None:
        """Log how far the prediction was off, once the result is there."""
        jax.block_until_ready(result)
        took = time.perf_counter() - self.started
        _log.info(
            "%s took %.3g s; predicted without compiling: %.3g s (%.2gx)",
            self.made.kind,
            took,
            self.made.seconds,
            took / max(self.made.seconds, 1e-9),
        )


def forecast_if_logged(
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    kind: Kind,
    num_draws: Any,
    wrt: Wrt,
    chunk_size: int | None,
    max_memory: int | None,
) -> Forecast | None:
    """Log the plan where the logger ``lggwjax`` was itself set to level INFO, outside of traces; else cost nothing."""
    # Not where a root logger happens to be at INFO: other libraries set that, and waiting for results has a price.
    if _log.level == logging.NOTSET or not _log.isEnabledFor(logging.INFO):
        return None
    if any(isinstance(x, Tracer) for x in [*jax.tree.leaves((next(iter(path)), batch)), jnp.add(0, 0)]):
        return None
    draws = num_draws if isinstance(num_draws, int) else 1024
    made = plan(loss_fn, path, batch, kind, num_draws=draws, wrt=wrt, chunk_size=chunk_size, max_memory=max_memory)
    _log.info("%s", made)
    return Forecast(made, time.perf_counter())


def plan(
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    kind: Kind = "stacked",
    *,
    num_draws: int = 1024,
    wrt: Wrt = None,
    chunk_size: int | None = None,
    max_memory: int | None = None,
) -> Plan:
    """Say what :func:`lggwjax.lggw` or :func:`lggwjax.gradient_gram` will do and cost, before it is done.

    Nothing is computed. The loss is traced and its pass compiled, because only the compiler knows its memory; the
    measurement uses what was compiled.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: Checkpoints, see :func:`lggwjax.lggw`; to plan one checkpoint pass ``[params]``. Shapes alone
            (``jax.ShapeDtypeStruct``) are enough.
        batch: n examples along the leading axis, or their shapes.
        kind: ``"stacked"``, ``"single"``, ``"union"``, or ``"gram"`` for the Gram matrix of the first checkpoint.
        num_draws: Gaussian directions.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Samples differentiated at once, if you choose it.
        max_memory: Bytes that may be used.

    Returns:
        The plan; print it for a table.

    Raises:
        ValueError: As :func:`lggwjax.lggw`.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x): return jnp.sum(jnp.tanh(w @ x))
        >>> made = plan(loss, [jnp.zeros((30, 20))], jnp.ones((5, 20)), "gram")
        >>> made.route, made.leaves[0].route, made.num_parameters
        ('gram', 'activations', 600)
    """
    if kind not in ("stacked", "single", "union", "gram"):
        raise ValueError(f'Expected kind "stacked", "single", "union" or "gram", got {kind!r}.')
    first = next(iter(path))
    length = 1 if kind == "gram" else sum(1 for _ in path)
    problem = pose(loss_fn, first, batch, wrt, self_check=False)
    engine, num, shares = problem.engine, problem.num_samples, num_shares(problem.mesh)
    along_path = kind in ("stacked", "single")
    if along_path:
        layout: Layout = path_layout(engine, num, length, chunk_size, max_memory, shares)
        flops = num * length * pass_flops(engine) + sum(leaf.flops for leaf in _leaves(engine, num, length, True))
        flops += width_flops(length, num_draws) * (num if kind == "single" else 1)
    elif kind == "gram":
        layout = gram_layout(engine, num, chunk_size, max_memory, shares)
        flops = gram_flops(engine, num, layout)
    else:
        if prefers_gram(engine, num, length, num_draws, chunk_size, max_memory, shares):
            layout = gram_layout(engine, num * length, chunk_size, max_memory, shares)
            flops = gram_flops(engine, num * length, layout) + width_flops(num * length, num_draws)
        else:
            layout = stream_layout(engine, num, length, num_draws, chunk_size, max_memory, shares)
            flops = stream_flops(engine, num * length, num_draws, layout.chunk_size)[layout.route]
    return Plan(
        kind=kind,
        route="gram" if layout.route == "gram" else "streamed",
        leaves=tuple(_leaves(engine, num if along_path else num * length, length, along_path)),
        num_samples=num,
        num_checkpoints=length,
        num_parameters=sum(layer.size for layer in engine.layers),
        num_draws=num_draws,
        chunk_size=min(layout.chunk_size, num),
        flops=flops,
        memory=layout.compiled(engine, shares).memory,
        seconds=flops / _product_rate() / shares,
        num_devices=shares,
    )


def _leaves(engine: Engine, num: int, length: int, along_path: bool) -> list[LeafPlan]:
    held = iter(engine.held)
    found = []
    for layer in engine.layers:
        if layer.unused:
            found.append(LeafPlan(layer.name, layer.shape, "unused", layer.reason, 0.0, 0.0))
            continue
        item = next(held)
        count = num * (length if along_path else 1)
        if item.product is None:
            flops = 2.0 * item.size * (num * length**2 if along_path else num**2)
            route = "gradient" if layer.product is None else "contracted"
            memory = float(engine.itemsize) * count * item.size
            found.append(LeafPlan(layer.name, layer.shape, route, layer.reason, flops, memory))
            continue
        costs = path_costs(item.product, num, length + 1) if along_path else pair_costs(item.product, num, num)
        route = cheapest(costs)
        memory = float(engine.itemsize) * count * engine.factor_sizes(item) + costs[route].memory
        found.append(LeafPlan(layer.name, layer.shape, route, layer.reason, costs[route].flops, memory))
    return found


@functools.cache
def _product_rate() -> float:
    """Operations a second of a matrix product on this device, measured once."""
    matrix = jnp.ones((1024, 1024))
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * 1024**3 / min(times)
