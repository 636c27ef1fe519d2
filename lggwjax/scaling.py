"""How a measurement divides over many devices: its programs are compiled for them, and nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from lggwjax.gradients.engine import Engine, pose
from lggwjax.gradients.products import compact, compact_held, cross_gram, pair_products
from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.programs import ProgramCosts, costs_of
from lggwjax.sharding import PARAMETERS, device_mesh, num_shares, parameter_layout, parameter_shares, spread_over


@dataclass(frozen=True)
class DevicePlan:
    """What each device does for one more checkpoint of a path, as XLA compiled it.

    Attributes:
        num_devices: D.
        parameter_shards: Parts into which parameters are cut; 1 leaves them whole on every device.
        samples_per_device: Of the batch, which is filled up to a multiple of D.
        gram: The pass and the Gram matrix of all samples: what NERC, unions and the gradient's norm need.
        products: Inner products with one earlier checkpoint, sample by sample: what the stacked width needs.
    """

    num_devices: int
    parameter_shards: int
    samples_per_device: int
    gram: ProgramCosts
    products: ProgramCosts

    @property
    def memory(self) -> int:
        """Bytes a device at most, parameters and samples included."""
        return max(self.gram.memory, self.products.memory)


def plan_devices(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    num_devices: int,
    *,
    parameter_shards: int | None = None,
    device_memory: int | None = None,
    wrt: Wrt = None,
) -> DevicePlan:
    """Compile the measurement of a batch for many devices, and read off what each of them does.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        params: Parameters, or their shapes (``jax.ShapeDtypeStruct``).
        batch: n examples along the leading axis, or their shapes; one chunk.
        num_devices: D; virtual ones will do, which ``JAX_NUM_CPU_DEVICES`` makes before jax starts.
        parameter_shards: Parts into which parameters are cut. By default the fewest that leave seven eighths of
            ``device_memory`` free, or 1.
        device_memory: Bytes of one device.
        wrt: Which leaves are gradient coordinates; by default all floating ones.

    Returns:
        The plan. Its bytes and operations are those of the compiled programs, not estimates; what a device does is the
        same on accelerators up to what their compilers fuse.

    Raises:
        ValueError: If there are fewer devices, or as :func:`lggwjax.lggw`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x): return jnp.sum(jnp.tanh(w @ x))
        >>> found = plan_devices(loss, jnp.zeros((30, 20)), jnp.ones((4, 20)), 1)
        >>> found.samples_per_device, found.gram.sent
        (4, 0)
    """
    params, batch = jax.tree.map(_shape, (params, batch))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if parameter_shards is None:
        parameter_shards = 1 if device_memory is None else parameter_shares(num_devices, size, device_memory)
    mesh = device_mesh(num_devices, parameters=parameter_shards)
    problem = pose(loss_fn, params, batch, wrt, self_check=False)
    shares = num_shares(mesh)
    rows = -(-problem.num_samples // shares)
    chunk = jax.tree.map(lambda x: _on(spread_over(mesh), (rows * shares, *x.shape[1:]), x.dtype), batch)
    laid = jax.tree.map(lambda x: _on(parameter_layout(x.shape, mesh), x.shape, x.dtype), params)
    gram, products = _compiled(problem.engine, problem.loss, laid, chunk, mesh)
    return DevicePlan(num_devices, mesh.shape[PARAMETERS], rows, gram, products)


def _compiled(
    engine: Engine, loss: Any, params: PyTree, chunk: PyTree, mesh: Mesh
) -> tuple[ProgramCosts, ProgramCosts]:
    def gram(params: PyTree, chunk: PyTree) -> Array:
        arrays = engine.factors(loss, params, chunk, mesh)
        return cross_gram(engine.held, arrays, arrays, mesh)

    def products(*steps: Sequence[Array]) -> Array:
        now, earlier, reference = (compact(engine.held, list(arrays)) for arrays in steps)
        return pair_products(compact_held(engine.held), now, reference, earlier, reference)

    arrays = jax.eval_shape(lambda p, c: engine.factors(loss, p, c, mesh), params, chunk)
    held = [_on(spread_over(mesh), x.shape, x.dtype) for x in arrays]
    found = jax.jit(gram).lower(params, chunk).compile()
    return costs_of(found), costs_of(jax.jit(products).lower(held, held, held).compile())


def _on(sharding: Any, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = getattr(leaf, "dtype", None)
    return jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype if dtype is None else dtype)
