"""Inner products of per-sample gradients from their factors, leaf by leaf, by the cheapest route."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from lggwjax.gradients.costs import (
    MOVED_COPIES,
    WORKING_BYTES,
    Route,
    cheapest,
    in_turn,
    pair_costs,
    path_costs,
    stays_factored,
)
from lggwjax.gradients.engine import Held
from lggwjax.gradients.forms import HIGHEST, Operands, Product
from lggwjax.sharding import num_shares, spread_columns, spread_over, whole_on


def cross_gram(
    held: tuple[Held, ...], left: list[Array], right: list[Array], mesh: Mesh | None = None
) -> Float[Array, "n m"]:
    """Inner products between the gradients of two chunks, each given by its factors.

    Args:
        held: What the factors are, from the engine.
        left: Arrays of one pass; n samples.
        right: Arrays of the same or another pass; m samples.
        mesh: Over whose devices the samples are divided, or None.

    Returns:
        The block of the Gram matrix.
    """
    num_left, num_right = left[0].shape[0], right[0].shape[0]
    costs_of = [None if h.product is None else pair_costs(h.product, num_left, num_right) for h in held]
    joined = _with_their_layer(held, [None if costs is None else cheapest(costs) for costs in costs_of])
    own = _own_rows(held, joined)
    total = _rows_gram([left[place] for place in own], [right[place] for place in own], mesh) if own else 0
    shares = num_shares(mesh)
    for index, (item, costs) in enumerate(zip(held, costs_of, strict=True)):
        if item.product is None or costs is None:
            continue
        pair, route = (item.operands(left), item.operands(right)), cheapest(costs)
        memory = costs[route].memory / shares
        if index in joined:
            block = _dense_with_bias(item.product, *pair, held[joined[index]].twin == item.places[1])
        elif route == "activations":
            block = _by_row_blocks(item.product, *pair, memory)
        else:
            cut = _pieces(memory, item.product), in_turn(item.product, memory)
            block = _contracted(item.product, *pair, *cut, left is right, mesh)
        total = total + block
    return total  # pyright: ignore[reportReturnType]


def _with_their_layer(held: tuple[Held, ...], routes: list[Route | None]) -> dict[int, int]:
    """Biases whose products a dense layer makes anyway: for the place of such a layer in ``held``, that of its bias."""
    biases = {h.twin: index for index, h in enumerate(held) if h.product is None and h.twin is not None}
    found = {}
    for index, (item, route) in enumerate(zip(held, routes, strict=True)):
        dense = item.product is not None and item.product.dims[:3] == (1, 1, 1) and not item.product.is_lookup
        twin = next((place for place in item.places if place in biases), None)
        if dense and route == "activations" and twin is not None:
            found[index] = biases.pop(twin)
    return found


def _own_rows(held: tuple[Held, ...], joined: dict[int, int]) -> list[int]:
    """Where the gradients are that no layer takes along."""
    taken = set(joined.values())
    return [h.places[0] for index, h in enumerate(held) if h.product is None and index not in taken]


@partial(jax.jit, static_argnames=("product", "of_columns"))
def _dense_with_bias(
    product: Product, left: list[Operands], right: list[Operands], of_columns: bool
) -> Float[Array, "n m"]:
    """A dense layer and its bias at once: a bias is one more input, equal to one."""
    overlaps = jnp.einsum("nbsi,mbsi->nm", product.inputs(left)[0], product.inputs(right)[0], precision=HIGHEST)
    products = jnp.einsum("nbso,mbso->nm", product.cotangents(left), product.cotangents(right), precision=HIGHEST)
    return (overlaps + 1) * products if of_columns else overlaps * (products + 1)


def _pieces(memory: float, product: Product) -> int:
    """Into how many parts the outputs are cut so that one part fits the scratch."""
    outputs = product.dims[-1]
    wanted = min(outputs, math.ceil(memory / WORKING_BYTES))
    return next(pieces for pieces in range(wanted, outputs + 1) if outputs % pieces == 0)


@partial(jax.jit, static_argnames="mesh")
def _rows_gram(
    left: list[Float[Array, "n q"]], right: list[Float[Array, "m q"]], mesh: Mesh | None
) -> Float[Array, "n m"]:
    pairs = [(spread_columns(a, mesh), spread_columns(b, mesh)) for a, b in zip(left, right, strict=True)]
    return sum(jnp.einsum("ip,jp->ij", a, b, precision=HIGHEST) for a, b in pairs)  # pyright: ignore[reportReturnType]


def _by_row_blocks(product: Product, left: list[Operands], right: list[Operands], memory: float) -> Array:
    num = left[0][0].shape[0]
    blocks = min(num, math.ceil(memory / WORKING_BYTES))
    if blocks == 1:
        return _activations(product, left, right)
    size = math.ceil(num / blocks)
    rows = [
        _activations(product, jax.tree.map(lambda x, s=start: x[s : s + size], left), right)
        for start in range(0, num, size)
    ]
    return jnp.concatenate(rows)


@partial(jax.jit, static_argnames="product")
def _activations(product: Product, left: list[Operands], right: list[Operands]) -> Float[Array, "n m"]:
    """Sum over positions of (inputs with inputs) times (cotangents with cotangents)."""
    columns = product.cotangents(left), product.cotangents(right)
    rows = zip(product.inputs(left), product.inputs(right), strict=True)
    if product.dims[2] == 1 and product.dims[0] == 1 and not product.is_lookup:
        overlaps = sum(jnp.einsum("ni,mi->nm", a[:, 0, 0], b[:, 0, 0], precision=HIGHEST) for a, b in rows)
        return overlaps * jnp.einsum("no,mo->nm", columns[0][:, 0, 0], columns[1][:, 0, 0], precision=HIGHEST)
    if product.is_lookup:
        (first, second), *_ = rows
        same = first[None, :, :, None, None] == second[None, None, None, :, :]
        overlaps = (same & (first >= 0)[None, :, :, None, None]).astype(columns[0].dtype)
    else:
        overlaps = sum(jnp.einsum("nbsi,mbti->bnsmt", a, b, precision=HIGHEST) for a, b in rows)
    products = jnp.einsum("nbso,mbto->bnsmt", *columns, precision=HIGHEST)
    return jnp.sum(overlaps * products, axis=(0, 2, 4))


@partial(jax.jit, static_argnames=("product", "pieces", "waits", "same", "mesh"))
def _contracted(
    product: Product,
    left: list[Operands],
    right: list[Operands],
    pieces: int,
    waits: bool,
    same: bool,
    mesh: Mesh | None,
) -> Float[Array, "n m"]:
    """Gradient blocks of one kernel offset and one part of the outputs at a time, multiplied and let go."""

    def multiplied(blocks: list[Array]) -> Float[Array, "n m"]:
        return jnp.einsum("nbio,mbio->nm", blocks[0], blocks[-1], precision=HIGHEST)

    return _summed(product, [left] if same else [left, right], pieces, waits, multiplied, mesh)


def _summed(
    product: Product,
    sides: list[list[Operands]],
    pieces: int,
    waits: bool,
    term: Callable[[list[Array]], Array],
    mesh: Mesh | None = None,
) -> Array:
    """Sum of a term over kernel offsets and parts of the outputs, of each of which the sides' gradient blocks are made.

    A loop keeps one block at a time; without one the compiler may make them side by side. On a mesh each device makes
    the blocks of its part of the outputs, for all samples: factors travel, not gradients.
    """
    rows = [product.inputs(operands) for operands in sides]
    whole = [product.cotangents(operands) for operands in sides]
    if mesh is not None and product.dims[-1] % (pieces * num_shares(mesh)) == 0:
        rows = [[_laid(r, whole_on(mesh)) for r in side] for side in rows]
        whole = [_laid(c, spread_over(mesh, c.ndim - 1)) for c in whole]
    columns = [_parts(side, pieces, mesh) for side in whole]
    num_offsets = len(rows[0])
    if waits:
        rows, columns = [jnp.stack(r) for r in rows], [jnp.stack(c) for c in columns]

    def one(index) -> Array:
        part, offset = index // num_offsets, index % num_offsets
        return term([product.contract(r[offset], c[part]) for r, c in zip(rows, columns, strict=True)])

    if not waits:
        return sum((one(index) for index in range(1, pieces * num_offsets)), one(0))
    return jax.lax.fori_loop(1, pieces * num_offsets, lambda index, total: total + one(index), one(0))


def _laid(array: Array, sharding: NamedSharding) -> Array:
    return jax.lax.with_sharding_constraint(array, sharding)


def _parts(columns: Array, pieces: int, mesh: Mesh | None) -> list[Array]:
    """The outputs in parts of one size; on a mesh every part has some of each device's outputs."""
    if pieces == 1:
        return [columns]
    if mesh is None or columns.shape[-1] % (pieces * num_shares(mesh)):
        return jnp.split(columns, pieces, axis=-1)
    cut = columns.reshape(*columns.shape[:-1], num_shares(mesh), pieces, -1)
    return [cut[..., part, :].reshape(*columns.shape[:-1], -1) for part in range(pieces)]


@jax.jit
def inner_products(left: Float[Array, "n p"], right: Float[Array, "m p"]) -> Float[Array, "n m"]:
    """Products of rows in full precision: the default of accelerators would leave three digits."""
    return jnp.einsum("ip,jp->ij", left, right, precision=HIGHEST)


def path_products(
    held: tuple[Held, ...], steps: list[list[Array]], references: tuple[int, ...], devices: int = 1
) -> Float[Array, "n T T"]:
    r"""Per-sample inner products of differences along a path, the subtraction before the product.

    .. math:: G^{(i)}_{st} = \langle \xi_i(\theta_s) - \xi_i(\theta_{r_s}), \,
        \xi_i(\theta_t) - \xi_i(\theta_{r_t}) \rangle

    With factors :math:`d_t h_t^\top - d_r h_r^\top = (d_t - d_r) h_t^\top + d_r (h_t - h_r)^\top`.

    Args:
        held: What the factors are, from the engine.
        steps: Arrays of the pass at each of T checkpoints, over the same n samples.
        references: For each checkpoint the one it is taken relative to; the first is its own.
        devices: Among how many the samples are divided; each makes the products of its own.

    Returns:
        One matrix a sample.
    """
    index = jnp.asarray(references)
    slots = np.unique(references)
    slot_of = jnp.asarray(np.searchsorted(slots, references))
    num = steps[0][0].shape[0]
    length = len(steps) + len(slots)
    costs_of = [None if h.product is None else path_costs(h.product, num, length) for h in held]
    joined = _with_their_layer(held, [None if costs is None else cheapest(costs) for costs in costs_of])
    total = jnp.zeros((num, len(steps), len(steps)), _precision(steps))
    for places in _fitting(_own_rows(held, joined), steps):
        total = _add_rows_path(total, [[arrays[place] for arrays in steps] for place in places], index)
    for position, (item, costs) in enumerate(zip(held, costs_of, strict=True)):
        if item.product is None or costs is None:
            continue
        sequence = [item.operands(arrays) for arrays in steps]
        if cheapest(costs) == "activations":
            twin = held[joined[position]].twin if position in joined else None
            bias = None if twin is None else item.places.index(twin)
            block = _paired(item.product, sequence, index, jnp.asarray(slots), slot_of, bias)
        else:
            memory = costs["contracted"].memory / devices
            cut = _pieces(memory, item.product), in_turn(item.product, memory)
            block = _contracted_path(item.product, sequence, index, *cut)
        total = total + block
    return total  # pyright: ignore[reportReturnType]


def _precision(steps: list[list[Array]]) -> jnp.dtype:
    return jnp.result_type(jnp.float32, *(array for arrays in steps for array in arrays))


def _fitting(places: list[int], steps: list[list[Array]]) -> Iterator[list[int]]:
    """Leaves held as rows, as many at a time as fit the scratch: one program may work on all its leaves at once."""
    group, taken = [], 0
    for place in places:
        size = MOVED_COPIES * sum(arrays[place].nbytes for arrays in steps)
        if group and taken + size > WORKING_BYTES:
            yield group
            group, taken = [], 0
        group.append(place)
        taken += size
    if group:
        yield group


@jax.jit
def _add_rows_path(
    total: Float[Array, "n T T"], leaves: list[list[Float[Array, "n q"]]], references: Int[Array, " T"]
) -> Float[Array, "n T T"]:
    for steps in leaves:
        total = _add_leaf_path(total, steps, references)
    return total


def _add_leaf_path(
    total: Float[Array, "n T T"], steps: list[Float[Array, "n q"]], references: Int[Array, " T"]
) -> Float[Array, "n T T"]:
    size = steps[0].shape[1]
    blocks = min(size, math.ceil(MOVED_COPIES * sum(rows.nbytes for rows in steps) / WORKING_BYTES))
    width, rest = divmod(size, blocks)

    def added(start, width: int, total: Array) -> Array:
        cut = [jax.lax.dynamic_slice_in_dim(rows, start, width, axis=1) for rows in steps]
        return total + _gram_of_moved(jnp.stack(cut, axis=1), references)

    total = jax.lax.fori_loop(0, blocks, lambda index, total: added(index * width, width, total), total)
    return added(size - rest, rest, total) if rest else total


def _gram_of_moved(stacked: Float[Array, "n T q"], references: Int[Array, " T"]) -> Float[Array, "n T T"]:
    moved = stacked - stacked[:, references]
    return jnp.einsum("isp,itp->ist", moved, moved, precision=HIGHEST)


@partial(jax.jit, static_argnames=("product", "pieces", "waits"))
def _contracted_path(
    product: Product, sequence: list[list[Operands]], references: Int[Array, " T"], pieces: int, waits: bool
) -> Float[Array, "n T T"]:
    length = len(sequence)

    def multiplied(sides: list[Array]) -> Float[Array, "n T T"]:
        return _gram_of_moved(sides[0].reshape(sides[0].shape[0] // length, length, -1), references)

    return _summed(product, [_merged(sequence)], pieces, waits, multiplied)


def _merged(sequence: list[list[Operands]]) -> list[Operands]:
    """Checkpoints as more samples, n T of them, those of a sample together: one program for all instead of one each."""

    def merged(arrays: list[Array]) -> Array:
        return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])

    uses = zip(*sequence, strict=True)
    return [(merged([a for a, _ in use]), merged([b for _, b in use])) for use in uses]


@partial(jax.jit, static_argnames=("product", "bias"))
def _paired(
    product: Product,
    sequence: list[list[Operands]],
    references: Int[Array, " T"],
    slots: Int[Array, " m"],
    slot_of: Int[Array, " T"],
    bias: int | None = None,
) -> Float[Array, "n T T"]:
    """Products of differences from products of inputs and products of cotangents, both of differences.

    With ``bias`` those of a bias's gradient too, which equals the inputs (0) or the cotangents (1).
    """
    columns = jnp.stack([product.cotangents(operands) for operands in sequence], axis=2)
    if product.dims[1] > 1:
        merged = [rows.reshape(-1, len(sequence), *rows.shape[1:]) for rows in product.inputs(_merged(sequence))]
        rows = [jnp.moveaxis(steps, 1, 2) for steps in merged]
    else:
        rows = [jnp.stack(r, axis=2 - product.is_lookup) for r in zip(*map(product.inputs, sequence), strict=True)]
    if product.is_lookup:
        x = _lookup_overlaps(rows[0], references, columns.dtype)
    else:
        x = _overlaps(rows, references, slots, slot_of)
    d = _overlaps([columns], references, slots, slot_of)
    total = (x.mm + x.mr + x.rm + x.rr) * d.mm + (x.mm + x.rm) * d.mr + (x.mm + x.mr) * d.rm + x.mm * d.rr
    if bias is not None:
        total = total + (x, d)[bias].mm
    return jnp.sum(total, axis=(1, 3, 5))


class _Overlaps(NamedTuple):
    """Inner products between checkpoints of what moved (m) since the reference and of the reference (r)."""

    mm: Float[Array, "n B T S T S"]
    mr: Float[Array, "n B T S T S"]
    rm: Float[Array, "n B T S T S"]
    rr: Float[Array, "n B T S T S"]


def _overlaps(arrays: list[Float[Array, "n B T S I"]], references, slots, slot_of) -> _Overlaps:
    total, num = 0, arrays[0].shape[2]
    for array in arrays:
        basis = jnp.concatenate([array - array[:, :, references], array[:, :, slots]], axis=2)
        flat = basis.reshape(*basis.shape[:2], -1, basis.shape[-1])
        total = total + jnp.einsum("nbpi,nbqi->nbpq", flat, flat, precision=HIGHEST)
    size, positions = num + len(slots), arrays[0].shape[3]
    total = total.reshape(*total.shape[:2], size, positions, size, positions)  # pyright: ignore[reportAttributeAccessIssue]
    moved, fixed = total[:, :, :num], total[:, :, num:][:, :, slot_of]
    pick = lambda x: x[:, :, :, :, num:][:, :, :, :, slot_of]  # noqa: E731
    return _Overlaps(moved[:, :, :, :, :num], pick(moved), fixed[:, :, :, :, :num], pick(fixed))


def _lookup_overlaps(rows: Int[Array, "n T S"], references, dtype) -> _Overlaps:
    same = rows[:, None, :, :, None, None] == rows[:, None, None, None, :, :]
    whole = (same & (rows >= 0)[:, None, :, :, None, None]).astype(dtype)
    left, right = whole[:, :, references], whole[:, :, :, :, references]
    rr = left[:, :, :, :, references]
    return _Overlaps(whole - left - right + rr, right - rr, left - rr, rr)


def pair_products(
    held: tuple[Held, ...],
    left: list[Array],
    left_reference: list[Array],
    right: list[Array],
    right_reference: list[Array],
) -> Float[Array, " n"]:
    """Per-sample inner products of two differences, each subtracted before it is multiplied.

    Args:
        held: What the arrays are.
        left: Arrays of one checkpoint; n samples.
        left_reference: Arrays of the checkpoint it is taken relative to.
        right: Arrays of another checkpoint.
        right_reference: Its reference.

    Returns:
        One product a sample.
    """
    return _pair_products(held, (left, left_reference), (right, right_reference))


@partial(jax.jit, static_argnames="held")
def _pair_products(held: tuple[Held, ...], left, right) -> Float[Array, " n"]:
    total = jnp.zeros(())
    for item in held:
        if item.product is None:
            moved = [a[item.places[0]] - b[item.places[0]] for a, b in (left, right)]
            total = total + jnp.einsum("np,np->n", *moved, precision=HIGHEST)
            continue
        sequence = [item.operands(arrays) for arrays in (*left, *right)]
        if cheapest(path_costs(item.product, 1, 4)) == "contracted":
            blocks = [item.product.gradients(operands) for operands in sequence]
            first, second = blocks[0] - blocks[1], blocks[2] - blocks[3]
            total = total + jnp.einsum("nbkio,nbkio->n", first, second, precision=HIGHEST)
        else:
            references = jnp.array([1, 1, 3, 3])
            slots, slot_of = jnp.array([1, 3]), jnp.array([0, 0, 1, 1])
            total = total + _paired(item.product, sequence, references, slots, slot_of)[:, 0, 2]
    return total


def compact_held(held: tuple[Held, ...]) -> tuple[Held, ...]:
    """What :func:`compact` leaves of each leaf: its factors, or its gradient as rows where that multiplies faster."""
    found, raw, num_rows = [], [], 0
    for item in held:
        if stays_factored(item.product):
            for place in item.places:
                if place not in raw:
                    raw.append(place)
            found.append(item)
        else:
            found.append(item._replace(product=None, places=(num_rows,)))
            num_rows += 1
    where = {place: index for index, place in enumerate(raw)}
    return tuple(
        item._replace(places=tuple(where[place] for place in item.places))
        if item.product is not None
        else item._replace(places=(len(raw) + item.places[0],))
        for item in found
    )


def compact(held: tuple[Held, ...], arrays: list[Array]) -> list[Array]:
    """Make factors ready to be multiplied again and again: as :func:`compact_held` describes."""
    raw: list[int] = []
    for item in held:
        if stays_factored(item.product):
            raw += [place for place in item.places if place not in raw]
    rows = [_leaf_rows(item, arrays) for item in held if not stays_factored(item.product)]
    return [arrays[place] for place in raw] + rows


def gradient_rows(held: tuple[Held, ...], arrays: list[Array]) -> Float[Array, "n p"]:
    """All coordinates of one chunk's gradients, where these are fewer than their inner products.

    Args:
        held: What the factors are, from the engine.
        arrays: Arrays of one pass; n samples.

    Returns:
        One gradient a row; no columns for leaves that the loss does not use.
    """
    return jnp.concatenate([_leaf_rows(item, arrays) for item in held], axis=1)


def _leaf_rows(item: Held, arrays: list[Array]) -> Float[Array, "n q"]:
    return arrays[item.places[0]] if item.product is None else _rows(item.product, item.operands(arrays))


@partial(jax.jit, static_argnames="product")
def _rows(product: Product, operands: list[Operands]) -> Float[Array, "n q"]:
    blocks = product.gradients(operands)
    return blocks.reshape(blocks.shape[0], -1)
