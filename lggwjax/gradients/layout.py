"""How work is cut into chunks that fit a memory limit, and what it will cost."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax

from lggwjax.gradients.costs import BATCHED, FLOPS_PER_BYTE, Cost, cheapest, default_memory, pair_costs
from lggwjax.gradients.engine import Engine, Held
from lggwjax.gradients.per_sample import checked_chunk

# What else costs, in products' operations of a common processor: a normal number, an operation of a convolution.
FLOPS_PER_NORMAL = {"cpu": 1900.0}
FLOPS_PER_CONVOLUTION = {"cpu": 3.0}


class GramLayout(NamedTuple):
    """How a Gram matrix is cut into blocks.

    Attributes:
        chunk_size: Samples differentiated at once.
        keep: Whether the factors of all samples are kept; if not, each block differentiates again.
        memory: Bytes predicted, result included.
    """

    chunk_size: int
    keep: bool
    memory: int


def gram_layout(engine: Engine, num_points: int, chunk_size: int | None, max_memory: int | None) -> GramLayout:
    """Cut a Gram matrix into blocks that fit.

    Args:
        engine: Gives bytes a sample.
        num_points: Gradients in all.
        chunk_size: What the caller asks for, or None.
        max_memory: Bytes, or None for the default share.

    Returns:
        The largest chunks that fit, with all factors kept if these fit too.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    budget = default_memory() if max_memory is None else max_memory
    result = 3 * 4 * num_points**2
    sizes = engine.sizes
    left = budget - result
    keep = sizes.held * num_points <= left - sizes.peak
    fitting = (left - (sizes.held * num_points if keep else 0)) // (sizes.peak + (0 if keep else 2 * sizes.held))
    chunk = checked_chunk(chunk_size, num_points, max(1, fitting))
    held = sizes.held * (num_points if keep else 2 * chunk)
    scratch = engine.pair_scratch(min(chunk, num_points), num_points if keep else chunk)
    return GramLayout(chunk, keep, result + held + max(sizes.peak * chunk, scratch))


def path_layout(
    engine: Engine, num_samples: int, length: int, chunk_size: int | None, max_memory: int | None
) -> GramLayout:
    """Cut the samples of a path into chunks that fit, all T checkpoints of a chunk at once.

    Args:
        engine: Gives bytes a sample.
        num_samples: n.
        length: T.
        chunk_size: What the caller asks for, or None.
        max_memory: Bytes, or None for the default share.

    Returns:
        The layout; ``keep`` is always true.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    budget = default_memory() if max_memory is None else max_memory
    sizes = engine.sizes
    result = 2 * 4 * num_samples * length**2
    one = sizes.held * length + max(sizes.peak, engine.path_scratch(1, length))
    chunk = checked_chunk(chunk_size, num_samples, max(1, (budget - result) // one))
    scratch = engine.path_scratch(chunk, length)
    return GramLayout(chunk, True, result + sizes.held * length * chunk + max(sizes.peak * chunk, scratch))


class StreamLayout(NamedTuple):
    """How a set is streamed past directions.

    Attributes:
        chunk_size: Samples at once.
        route: ``factors`` contracts layer factors with the directions; ``jvp`` differentiates forward.
        memory: Bytes predicted.
    """

    chunk_size: int
    route: Literal["factors", "jvp"]
    memory: int


def pass_flops(engine: Engine) -> float:
    """Work of one sample's factors: a forward and a backward pass without the products that make the gradients."""
    products, convolutions = engine.work
    return products + convolutions * FLOPS_PER_CONVOLUTION.get(jax.default_backend(), 1.0)


def gram_flops(engine: Engine, num_points: int, layout: GramLayout) -> float:
    """Work of a Gram matrix: the passes, and the products by their cheapest routes."""
    products = sum((_cheapest_pair(h, num_points).flops for h in engine.held), 0.0)
    blocks = math.ceil(num_points / layout.chunk_size)
    passes = num_points * (1 if layout.keep else (blocks + 1) / 2)
    return passes * pass_flops(engine) + products


def _cheapest_pair(item: Held, num_points: int) -> Cost:
    if item.product is None:
        return Cost(2.0 * num_points**2 * item.size, 0)
    costs = pair_costs(item.product, num_points, num_points)
    return costs[cheapest(costs)]


def width_flops(num_points: int, num_draws: int) -> float:
    """Work of a width from a Gram matrix: a factorisation, and draws with a maximum over all points each."""
    return num_points**3 / 3 * BATCHED + num_draws * num_points * (2.0 * num_points + 8 * FLOPS_PER_BYTE)


def stream_flops(engine: Engine, num_points: int, num_draws: int, chunk_size: int) -> dict[str, float]:
    """Work of streaming points past directions, by each route."""
    size = sum(h.size for h in engine.held)
    normals = FLOPS_PER_NORMAL.get(jax.default_backend(), 100.0) * size * num_draws * math.ceil(num_points / chunk_size)
    contraction = sum(
        2.0 * BATCHED * h.size * h.product.dims[2]
        for h in engine.held
        if h.product is not None and h.product.dims[2] > 1
    )
    own = num_points * pass_flops(engine) + normals
    return {
        "factors": own + num_points * (contraction + 2.0 * num_draws * size),
        "jvp": own + num_points * num_draws * pass_flops(engine),
    }


def stream_layout(
    engine: Engine, num_samples: int, length: int, num_draws: int, chunk_size: int | None, max_memory: int | None
) -> StreamLayout:
    """Cut a streamed set into chunks: the largest that fit, since directions are drawn again for every chunk."""
    budget = default_memory() if max_memory is None else max_memory
    contracted = [h.size for h in engine.held if h.product is not None and h.product.dims[2] > 1]
    one = engine.sizes.held + max(engine.sizes.peak, 2 * 4 * max(contracted, default=0)) + 2 * 4 * num_draws
    tile = 4 * 4 * max((h.size for h in engine.held), default=0)
    chunk = checked_chunk(chunk_size, num_samples, max(1, (budget - tile) // one))
    costs = stream_flops(engine, num_samples * length, num_draws, chunk)
    route: Literal["factors", "jvp"] = "jvp" if costs["jvp"] < costs["factors"] and engine.has_jvp else "factors"
    return StreamLayout(chunk, route, tile + one * chunk)
