"""Several devices and hosts: a mesh with named axes, and where the arrays of a measurement lie on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

SAMPLES, DIRECTIONS, PARAMETERS = "samples", "directions", "parameters"
AXES = (SAMPLES, DIRECTIONS, PARAMETERS)
_AUTOMATIC = (AxisType.Auto,)
SMALL_LEAF = 2**16  # numbers; a smaller leaf is kept whole on every device, where it costs less than its messages


def device_mesh(num_devices: int | None = None, *, directions: int = 1, parameters: int = 1) -> Mesh:
    """Lay the devices of all processes out on three axes.

    Samples are spread over ``samples`` and ``parameters`` together, so no device is idle in a pass; Gaussian directions
    of a streamed width over ``directions``; parameters, where they are sharded at all, over ``parameters``.

    Args:
        num_devices: How many, the first ones; by default all. With several processes it must be all of them.
        directions: Size of that axis.
        parameters: Size of that axis.

    Returns:
        The mesh, with axes ``samples``, ``directions`` and ``parameters``, which XLA fills in by itself (``Auto``).

    Raises:
        ValueError: If there are fewer devices, or the sizes do not divide their number.

    Example:
        >>> dict(device_mesh(1).shape)
        {'samples': 1, 'directions': 1, 'parameters': 1}
    """
    devices = jax.devices()
    num = len(devices) if num_devices is None else num_devices
    if not 1 <= num <= len(devices):
        raise ValueError(
            f"Expected num_devices from 1 to {len(devices)}, the devices there are, got {num}. For virtual ones on a "
            "CPU set JAX_NUM_CPU_DEVICES before jax starts."
        )
    if jax.process_count() > 1 and num != len(devices):
        raise ValueError(
            f"Expected all {len(devices)} devices of {jax.process_count()} processes, got {num}. Start fewer processes."
        )
    if directions < 1 or parameters < 1 or num % (directions * parameters):
        raise ValueError(
            f"Expected directions * parameters to divide {num} devices, got {directions} * {parameters}. Change them."
        )
    shape = (num // (directions * parameters), directions, parameters)
    return Mesh(np.asarray(devices[:num]).reshape(shape), AXES, axis_types=_AUTOMATIC * 3)


def parameter_shares(num_devices: int, parameter_bytes: int, memory: int) -> int:
    """Into how many parts parameters must be cut so that they take at most an eighth of a device's memory.

    Args:
        num_devices: Devices of the mesh.
        parameter_bytes: Bytes of all parameters.
        memory: Bytes of one device.

    Returns:
        The smallest divisor of ``num_devices`` that will do, or ``num_devices``.

    Example:
        >>> parameter_shares(64, 4 * 10**9, 80 * 10**9), parameter_shares(64, 30 * 10**9, 80 * 10**9)
        (1, 4)
    """
    divisors = [part for part in range(1, num_devices + 1) if num_devices % part == 0]
    return next((part for part in divisors if 8 * parameter_bytes <= part * memory), num_devices)


def shard_samples(batch: PyTree, mesh: Mesh) -> PyTree:
    """Spread the leading axis of a batch over the devices.

    Args:
        batch: n examples along the leading axis; the same on every process.
        mesh: From :func:`device_mesh`.

    Returns:
        The batch; each device holds n / D of its rows. Where D does not divide n, every device holds all of it.
    """
    divides = all(np.shape(leaf)[0] % num_shares(mesh) == 0 for leaf in jax.tree.leaves(batch))
    return jax.tree.map(lambda leaf: place(leaf, spread_over(mesh) if divides else whole_on(mesh)), batch)


def shard_rows(read: Callable[[np.ndarray], PyTree], rows: np.ndarray, mesh: Mesh) -> PyTree:
    """Read some samples and spread them over the devices; each process reads those of its own devices alone.

    Args:
        read: From row numbers to a batch.
        rows: Which rows; the same on every process.
        mesh: From :func:`device_mesh`.

    Returns:
        The batch, as :func:`shard_samples` gives it.
    """
    num, spread = len(rows), spread_over(mesh)
    if jax.process_count() == 1 or num % num_shares(mesh):
        return shard_samples(read(rows), mesh)
    held_here = spread.addressable_devices_indices_map((num,))
    parts = [index[0].indices(num)[:2] for index in held_here.values() if index is not None]
    first, last = min(start for start, _ in parts), max(stop for _, stop in parts)
    held = read(rows[first:last])

    def placed(leaf: Any) -> Array:
        local = np.asarray(leaf)
        shape = (num, *local.shape[1:])
        return jax.make_array_from_callback(
            shape, spread, lambda index: local[_moved_by((index or (slice(None),))[0], num, first)]
        )

    return jax.tree.map(placed, held)


def _moved_by(rows: slice, num: int, first: int) -> slice:
    start, stop, _ = rows.indices(num)
    return slice(start - first, stop - first)


def shard_parameters(params: PyTree, mesh: Mesh) -> PyTree:
    """Spread parameters over the axis ``parameters``: each leaf along its longest axis that divides.

    Args:
        params: Any pytree; the same on every process.
        mesh: From :func:`device_mesh`.

    Returns:
        The parameters. Leaves of less than 65,536 numbers, and all where that axis is 1, lie whole on every device.
    """
    return jax.tree.map(
        lambda leaf: place(leaf, parameter_layout(np.shape(leaf), mesh)) if _is_array(leaf) else leaf, params
    )


def parameter_layout(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How one leaf lies on a mesh; see :func:`shard_parameters`."""
    parts = mesh.shape.get(PARAMETERS, 1)
    fitting = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or math.prod(shape) < SMALL_LEAF or not fitting:
        return whole_on(mesh)
    longest = max(fitting, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, PARAMETERS))


def mesh_of(params: PyTree, batch: PyTree) -> Mesh | None:
    """Where a measurement is to be made: where its arrays already lie, else on all devices.

    Args:
        params: Parameters.
        batch: Samples.

    Returns:
        A mesh of several devices, or None for one: inside a trace, where an array is committed to one device
        (``jax.device_put(batch, device)``), or where there is but one.
    """
    leaves = jax.tree.leaves((params, batch))
    if any(isinstance(leaf, Tracer) for leaf in [*leaves, jnp.add(0, 0)]):
        return None
    found = lies_on((params, batch))
    if found is not None:
        return found
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    if any(array.committed and array.sharding.num_devices == 1 for array in arrays) and jax.process_count() == 1:
        return None
    return device_mesh() if jax.device_count() > 1 else None


def lies_on(tree: PyTree) -> Mesh | None:
    """The mesh of several devices on which arrays lie already; None where they lie on one, or are traced."""
    meshes = (leaf.sharding.mesh for leaf in jax.tree.leaves(tree) if _lies_on_several(leaf))
    found = next(meshes, None)
    return None if found is None else Mesh(found.devices, found.axis_names, axis_types=_AUTOMATIC * len(found.shape))


def for_directions(mesh: Mesh | None, num_samples: int) -> Mesh | None:
    """Where there are fewer samples than devices, divide Gaussian directions among those that would have none.

    Example:
        >>> for_directions(None, 3) is None
        True
    """
    if mesh is None or mesh.axis_names != AXES or num_samples >= num_shares(mesh):
        return mesh
    samples, directions, parameters = mesh.devices.shape
    fewer = next(
        part for part in range(1, samples + 1) if samples % part == 0 and samples // part <= max(1, num_samples)
    )
    devices = mesh.devices.swapaxes(0, 1).reshape(directions, samples // fewer, fewer, parameters)
    devices = devices.transpose(1, 0, 2, 3).reshape(samples // fewer, directions * fewer, parameters)
    return Mesh(devices, AXES, axis_types=_AUTOMATIC * 3)


def num_shares(mesh: Mesh | None) -> int:
    """Among how many devices samples are divided; 1 without a mesh."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in _sample_axes(mesh))


def spread_over(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """One axis of an array, its rows by default, divided among all devices that share the samples."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _sample_axes(mesh)))


def whole_on(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(leaf: Any, sharding: NamedSharding) -> Array:
    """Put one array where it belongs; with several processes each of them holds the same array, or a part of it.

    Args:
        leaf: An array, on a host or on devices, or a value of a trace.
        sharding: Where it belongs.

    Returns:
        The array there.
    """
    if isinstance(leaf, Tracer) or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return leaf if getattr(leaf, "sharding", None) == sharding else _moved(leaf, sharding)
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(place(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    held = np.asarray(leaf)
    return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])


def place_whole(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Put the arrays of a tree on every device of a mesh, unless they are divided among them already."""
    if mesh is None:
        return tree
    tree = on_mesh(tree, mesh)
    return jax.tree.map(
        lambda leaf: place(leaf, whole_on(mesh)) if _is_array(leaf) and not _lies_on_several(leaf) else leaf, tree
    )


def on_mesh(tree: PyTree, mesh: Mesh) -> PyTree:
    """Leave arrays that lie on several devices where they are, but on a mesh whose axes XLA fills in by itself.

    A user's mesh may be one whose axes are part of types, which programs written for any mesh cannot follow.
    """
    return jax.tree.map(
        lambda leaf: (
            place(leaf, NamedSharding(mesh, leaf.sharding.spec))
            if _lies_on_several(leaf) and leaf.sharding.mesh != mesh
            else leaf
        ),
        tree,
    )


def _lies_on_several(leaf: Any) -> bool:
    held = None if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
    return isinstance(held, NamedSharding) and held.num_devices > 1


def to_host(array: Array) -> np.ndarray:
    """Fetch an array that may be divided among devices of several processes; all of them must ask for it."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        array = _moved(array, whole_on(array.sharding.mesh))  # pyright: ignore[reportAttributeAccessIssue]
    return np.asarray(array)


def gathered(array: Array, mesh: Mesh | None, num: int | None = None) -> Array:
    """Bring what is small, inner products and projections, to each process's default device.

    What follows from it, factorisations and draws, is then computed there, the same by every process.

    Args:
        array: Divided among the devices of a mesh.
        mesh: That mesh, or None for an array that stays where it is.
        num: Rows that count, the first ones; by default all.

    Returns:
        The array, committed to no device.
    """
    if mesh is not None and not isinstance(array, Tracer):
        array = jnp.asarray(to_host(array))
    return array if num is None or num == array.shape[0] else array[:num]


def spread_columns(array: Array, mesh: Mesh | None) -> Array:
    """Divide the last axis among the devices, filled up with zeros where it does not divide.

    Rows divided among devices would all have to travel to all of them to be multiplied; so each device multiplies its
    columns of all rows, and only the small products are added up.
    """
    if mesh is None:
        return array
    return _spread_columns(array, -array.shape[-1] % num_shares(mesh), spread_over(mesh, array.ndim - 1))


def _spread_columns(array: Array, missing: int, sharding: NamedSharding) -> Array:
    padded = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return jax.jit(lambda x: jnp.pad(x, padded) if missing else x, out_shardings=sharding)(array)


def _moved(array: Array, sharding: NamedSharding) -> Array:
    return jax.jit(lambda x: x, out_shardings=sharding)(array)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _sample_axes(mesh: Mesh) -> tuple[str, ...]:
    """All axes but that of the directions: parameters that are divided are gathered where they are used."""
    return tuple(axis for axis in mesh.axis_names if axis != DIRECTIONS)
