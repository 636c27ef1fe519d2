"""What each way of multiplying costs: the choice of routes, and the sizes that keep work within a memory limit.

The constants are ratios of a common processor, not measurements of this one: a choice that followed the clock would
make the same call give other roundings from run to run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

import jax

from lggwjax.gradients.forms import Product

Route = Literal["activations", "contracted"]

FLOPS_PER_BYTE = 20.0  # multiply-adds in the time that it takes to move a byte
BATCHED = 4.0  # small products, one a sample, run at this fraction of the rate of one large product
WORKING_BYTES = 2**28  # scratch of one product; more would not make it faster
MOVED_COPIES = 3  # of rows along a path while they are multiplied: side by side, their references, what moved


class Cost(NamedTuple):
    """Work of one step.

    Attributes:
        flops: Floating-point operations, those of small products weighed by how much slower they are.
        memory: Bytes of scratch beyond operands and result.
    """

    flops: float
    memory: float

    def __add__(self, other: Cost) -> Cost:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Work of one after the other."""
        return Cost(self.flops + other.flops, max(self.memory, other.memory))


def pair_costs(product: Product, num_left: int, num_right: int) -> dict[Route, Cost]:
    """Cost of a leaf's inner products between two sets of samples, by each route.

    Args:
        product: The leaf's form.
        num_left: Samples on one side.
        num_right: Samples on the other.

    Returns:
        Cost by route; ``contracted`` counts the gradients of both sides.
    """
    groups, offsets, positions, inputs, outputs = product.dims
    pairs = num_left * num_right * groups * positions**2
    overlap = 0 if product.is_lookup else 2.0 * offsets * inputs
    size = groups * offsets * inputs * outputs
    itemsize = 4
    own = 2.0 * BATCHED * positions * (outputs if product.is_lookup else size)
    activations = pairs * (overlap + 2.0 * outputs) + 3 * itemsize * FLOPS_PER_BYTE * pairs * (positions > 1)
    contracted = (num_left + num_right) * (own + itemsize * FLOPS_PER_BYTE * size) + 2.0 * num_left * num_right * size
    return {
        "activations": Cost(activations, 2 * itemsize * pairs),
        "contracted": Cost(contracted, itemsize * (num_left + num_right) * size / offsets),
    }


def in_turn(product: Product, memory: float) -> bool:
    """Whether kernel offsets must wait for one another where gradient blocks are made.

    Written out, the compiler makes the blocks of all offsets at once; in a loop their inputs have to lie side by side.

    Args:
        product: The leaf's form.
        memory: Bytes of the blocks of one offset.

    Returns:
        Whether that is worth a loop.
    """
    _, offsets, positions, _, outputs = product.dims
    return memory > WORKING_BYTES or (memory * offsets > WORKING_BYTES and positions < outputs)


def contracted_scratch(product: Product, num: int, memory: float) -> float:
    """Bytes that the route ``contracted`` takes for the products of ``num`` gradients.

    Args:
        product: The leaf's form.
        num: Gradients whose blocks are made at once.
        memory: Bytes of the blocks of one offset, all of them.

    Returns:
        Bytes, as the compiler lays them out.
    """
    groups, offsets, positions, inputs, outputs = product.dims
    rows, columns = (4 * num * groups * positions * size for size in (inputs, outputs))
    if in_turn(product, memory):
        return min(memory, WORKING_BYTES) + (offsets + 4) * rows + columns
    return offsets * memory + 2 * rows


def path_costs(product: Product, num_samples: int, num_checkpoints: int) -> dict[Route, Cost]:
    """Cost of a leaf's inner products between checkpoints, sample by sample.

    Args:
        product: The leaf's form.
        num_samples: Samples at once.
        num_checkpoints: T, or T and the references.

    Returns:
        Cost by route.
    """
    groups, offsets, positions, inputs, outputs = product.dims
    pairs = num_samples * num_checkpoints**2 * groups
    overlap = 0 if product.is_lookup else 2.0 * offsets * inputs
    size = groups * offsets * inputs * outputs
    itemsize, num = 4, num_samples * num_checkpoints
    kept = itemsize * num * groups * positions * (offsets * (0 if product.is_lookup else inputs) + outputs)
    own = 2.0 * BATCHED * positions * (outputs if product.is_lookup else size)
    moved = itemsize * FLOPS_PER_BYTE
    activations = pairs * positions**2 * (BATCHED * (overlap + 2.0 * outputs) + 8 * moved) + 2 * moved * kept / itemsize
    contracted = num * (own + 2 * moved * size) + 2.0 * BATCHED * num_samples * num_checkpoints**2 * size
    return {
        "activations": Cost(activations, 2 * kept + 8 * itemsize * pairs * positions**2),
        "contracted": Cost(contracted, 2 * itemsize * num * size / offsets),
    }


def cheapest(costs: dict[Route, Cost]) -> Route:
    """The route with the least work."""
    return min(costs, key=lambda route: costs[route].flops)


def needs_contraction(product: Product | None) -> bool:
    """Whether a direction is multiplied by a layer's own gradients, because its factors have positions to sum over."""
    return product is not None and product.dims[2] > 1 and not product.is_lookup


def stays_factored(product: Product | None) -> bool:
    """Whether products along a growing path are made from factors rather than from the gradient as rows."""
    return product is not None and cheapest(path_costs(product, 1, 2)) == "activations"


def device_memory() -> int:
    """Bytes that one device may use in all; the devices of a processor share its memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    group = Path("/sys/fs/cgroup/memory.max")
    if group.is_file() and (text := group.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits) // jax.local_device_count()


def default_memory() -> int:
    """The share that a call may use when its caller does not say: half of an accelerator, a quarter of a host."""
    accelerator = jax.default_backend() != "cpu"
    return device_memory() // (2 if accelerator else 4)
