"""How work is cut into chunks that fit a memory limit, and what it will cost."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax

from lggwjax.gradients.chunks import checked_chunk
from lggwjax.gradients.costs import (
    BATCHED,
    FLOPS_PER_BYTE,
    Cost,
    cheapest,
    default_memory,
    needs_contraction,
    pair_costs,
)
from lggwjax.gradients.engine import Engine, Held

AT_EASE = 2**30  # bytes of one chunk; a larger one would not be faster

# What else costs, in products' operations of a common processor: a normal number, an operation of a convolution.
FLOPS_PER_NORMAL = {"cpu": 1900.0}
FLOPS_PER_CONVOLUTION = {"cpu": 3.0}


class Layout(NamedTuple):
    """How work is cut into chunks, and the bytes it takes on top of what is there.

    Attributes:
        route: ``gram`` multiplies gradients with one another; ``factors`` contracts layer factors with directions,
            ``jvp`` differentiates forward along them.
        chunk_size: Samples differentiated at once.
        keep: Whether all factors are kept; if not, each block of a Gram matrix differentiates again.
        result: Bytes of the result.
        held: Bytes of the factors that are held at once.
        scratch: Bytes of products in the making.
        pass_memory: Bytes that one pass takes beyond what it leaves behind.
    """

    route: Literal["gram", "factors", "jvp"]
    chunk_size: int
    keep: bool
    result: int
    held: int
    scratch: int
    pass_memory: int

    @property
    def memory(self) -> int:
        """The most at once."""
        return self.result + self.held + max(self.pass_memory, self.scratch)

    def on(self, devices: int) -> Layout:
        """The same with all bytes divided among devices, rounded up."""
        parts = (-(-size // devices) for size in (self.result, self.held, self.scratch, self.pass_memory))
        return Layout(self.route, self.chunk_size, self.keep, *parts)

    def compiled(self, engine: Engine, devices: int = 1) -> Layout:
        """The same with the memory of the compiled pass of one device's samples, which only the compiler knows."""
        if not engine.held:
            return self
        rows = -(-self.chunk_size // devices)
        return self._replace(pass_memory=engine.pass_bytes(rows) - engine.sizes.held * rows)


def gram_layout(
    engine: Engine, num_points: int, chunk_size: int | None, max_memory: int | None, devices: int = 1
) -> Layout:
    """Cut a Gram matrix into blocks that fit.

    Args:
        engine: Gives bytes a sample.
        num_points: Gradients in all.
        chunk_size: What the caller asks for, or None.
        max_memory: Bytes, or None for the default share.
        devices: Among how many the samples are divided; all bytes are those of one device.

    Returns:
        The largest chunks that fit, with all factors kept if these fit too.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    budget = default_memory() if max_memory is None else max_memory
    result = 3 * engine.itemsize * num_points**2
    held, peak = engine.sizes
    left = (budget - result) * devices
    # Chunks that are kept are joined array by array.
    joining = engine.largest_bytes * num_points
    keep = held * num_points <= left - max(peak * devices, joining)
    fitting = (left - held * num_points) // (peak - held + 1) if keep else left // (peak + 2 * held)
    chunk = checked_chunk(chunk_size, num_points, max(devices, min(fitting, devices * (AT_EASE // peak + 1))))
    num, sides = (num_points, 1) if keep else (chunk, 2)
    kept, scratch = held * num * sides, engine.pair_scratch(num, sides=sides)
    if keep and chunk < num_points:
        scratch = max(scratch, joining)
    own = Layout("gram", chunk, keep, 0, kept, scratch, (peak - held) * chunk)
    return own.on(devices)._replace(result=result)


def path_layout(
    engine: Engine,
    num_samples: int,
    length: int,
    chunk_size: int | None,
    max_memory: int | None,
    devices: int = 1,
) -> Layout:
    """Cut the samples of a path into chunks that fit, all T checkpoints of a chunk at once.

    Args:
        engine: Gives bytes a sample.
        num_samples: n.
        length: T.
        chunk_size: What the caller asks for, or None.
        max_memory: Bytes, or None for the default share.
        devices: Among how many the samples are divided; all bytes are those of one device.

    Returns:
        The largest chunks that fit.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    budget = default_memory() if max_memory is None else max_memory
    held, peak = engine.sizes
    result = 2 * engine.itemsize * num_samples * length**2
    # A share of many samples' scratch: of one alone it would be too much, as large blocks are made in turn.
    one = held * length + max(peak, engine.path_scratch(64, length) // 64)
    chunk = checked_chunk(chunk_size, num_samples, max(devices, min(budget - result, AT_EASE) * devices // one))
    scratch = engine.path_scratch(chunk, length)
    own = Layout("gram", chunk, True, 0, held * length * chunk, scratch, (peak - held) * chunk)
    return own.on(devices)._replace(result=result)


def stream_layout(
    engine: Engine,
    num_samples: int,
    length: int,
    num_draws: int,
    chunk_size: int | None,
    max_memory: int | None,
    devices: int = 1,
) -> Layout:
    """Cut a streamed set into chunks: the largest that fit, since directions are drawn again for every chunk.

    Args:
        engine: Gives bytes a sample.
        num_samples: n.
        length: T checkpoints.
        num_draws: K.
        chunk_size: What the caller asks for, or None.
        max_memory: Bytes, or None for the default share.
        devices: Among how many the samples are divided; all bytes are those of one device.

    Returns:
        The layout, with the cheaper of the two routes.

    Raises:
        ValueError: If ``chunk_size < 1``.
    """
    budget = default_memory() if max_memory is None else max_memory
    held, peak = engine.sizes
    # A layer with positions is contracted to its own gradients; a direction of one leaf is drawn, moved and multiplied.
    contracted = 2 * engine.itemsize * max((h.size for h in engine.held if needs_contraction(h.product)), default=0)
    tile = 4 * engine.itemsize * max((h.size for h in engine.held), default=0)
    one = held + max(peak - held, contracted) + 2 * engine.itemsize * num_draws
    chunk = checked_chunk(chunk_size, num_samples, max(devices, (budget - tile) * devices // one))
    costs = stream_flops(engine, num_samples * length, num_draws, chunk)
    route: Literal["factors", "jvp"] = "jvp" if costs["jvp"] < costs["factors"] and engine.has_jvp else "factors"
    result = 2 * engine.itemsize * num_samples * num_draws
    own = Layout(route, chunk, True, 0, held * chunk, contracted * chunk, (peak - held) * chunk).on(devices)
    return own._replace(result=result, scratch=own.scratch + tile)


def pass_flops(engine: Engine) -> float:
    """Work of one sample's factors: a forward and a backward pass without the products that make the gradients."""
    products, convolutions = engine.work
    return products + convolutions * FLOPS_PER_CONVOLUTION.get(jax.default_backend(), 1.0)


def gram_flops(engine: Engine, num_points: int, layout: Layout) -> float:
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
    contraction = sum(2.0 * BATCHED * h.size * h.product.dims[2] for h in engine.held if needs_contraction(h.product))
    own = num_points * pass_flops(engine) + normals
    return {
        "factors": own + num_points * (contraction + 2.0 * num_draws * size),
        "jvp": own + num_points * num_draws * pass_flops(engine),
    }
