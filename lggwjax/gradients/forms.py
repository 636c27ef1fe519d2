"""The algebra of one layer's per-sample gradients: sums of outer products, never formed until they must be.

A leaf whose gradient a product or a convolution makes has, for sample i, the gradient

    g_i[b, k, :, :] = sum_s  x_i[b, k, s, :] d_i[b, s, :]^T

with groups b, kernel offsets k, positions s (tokens, pixels), inputs x and cotangents d. A form reads x and d off the
two operands of the equation that makes the gradient. Shapes: n samples, B groups, K offsets, S positions, I inputs, O
outputs.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

HIGHEST = jax.lax.Precision.HIGHEST
Operands = tuple[Array, Array]


def working(array: Array) -> Array:
    """At least float32: products of half-precision factors would keep two digits."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


@dataclass(frozen=True)
class DotForm:
    """Gradient made by ``dot_general`` of operands of these shapes and dimension numbers, for one sample."""

    lhs_shape: tuple[int, ...]
    rhs_shape: tuple[int, ...]
    contract: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]

    def _free(self, side: int) -> tuple[int, ...]:
        taken = set(self.contract[side]) | set(self.batch[side])
        return tuple(axis for axis in range(len((self.lhs_shape, self.rhs_shape)[side])) if axis not in taken)

    @property
    def dims(self) -> tuple[int, int, int, int, int]:
        """B, K, S, I and O."""
        groups = math.prod(self.lhs_shape[a] for a in self.batch[0])
        positions = math.prod(self.lhs_shape[a] for a in self.contract[0])
        inputs = math.prod(self.lhs_shape[a] for a in self._free(0))
        outputs = math.prod(self.rhs_shape[a] for a in self._free(1))
        return groups, 1, positions, inputs, outputs

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the equation's result."""
        batch = tuple(self.lhs_shape[a] for a in self.batch[0])
        left = tuple(self.lhs_shape[a] for a in self._free(0))
        return batch + left + tuple(self.rhs_shape[a] for a in self._free(1))

    def inputs(self, lhs: Float[Array, "n ..."]) -> list[Float[Array, "n B S I"]]:
        """Rows x, one array a kernel offset."""
        groups, _, positions, inputs, _ = self.dims
        order = (*self.batch[0], *self.contract[0], *self._free(0))
        moved = working(lhs).transpose(0, *(axis + 1 for axis in order))
        return [moved.reshape(-1, groups, positions, inputs)]

    def cotangents(self, rhs: Float[Array, "n ..."]) -> Float[Array, "n B S O"]:
        """Columns d."""
        groups, _, positions, _, outputs = self.dims
        order = (*self.batch[1], *self.contract[1], *self._free(1))
        return working(rhs).transpose(0, *(axis + 1 for axis in order)).reshape(-1, groups, positions, outputs)

    def to_result(self, blocks: Float[Array, "n B K I O"]) -> Float[Array, "n ..."]:
        """Lay gradient blocks out as the equation does."""
        return blocks.reshape(-1, *self.result_shape)

    def from_result(self, result: Float[Array, "n ..."]) -> Float[Array, "n B K I O"]:
        """Undo :meth:`to_result`."""
        groups, offsets, _, inputs, outputs = self.dims
        return result.reshape(-1, groups, offsets, inputs, outputs)


@dataclass(frozen=True)
class ConvForm:
    """Gradient made by ``conv_general_dilated``: the positions of its result are the offsets of the kernel.

    Dimension specs are (batch, feature, *spatial), as in ``jax.lax.ConvDimensionNumbers``.
    """

    lhs_shape: tuple[int, ...]
    rhs_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    specs: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    feature_groups: int
    batch_groups: int

    @property
    def _offsets(self) -> tuple[int, ...]:
        return tuple(self.out_shape[axis] for axis in self.specs[2][2:])

    @property
    def _window(self) -> tuple[int, ...]:
        return tuple(self.rhs_shape[axis] for axis in self.specs[1][2:])

    @property
    def dims(self) -> tuple[int, int, int, int, int]:
        """B, K, S, I and O."""
        groups = self.feature_groups * self.batch_groups  # at most one of them differs from 1
        channels = self.lhs_shape[self.specs[0][1]] // self.feature_groups
        inputs = self.lhs_shape[self.specs[0][0]] // self.batch_groups
        outputs = self.rhs_shape[self.specs[1][0]] // groups
        return groups, math.prod(self._offsets), channels * math.prod(self._window), inputs, outputs

    def inputs(self, lhs: Float[Array, "n ..."]) -> list[Float[Array, "n B S I"]]:
        """Rows x, one array a kernel offset: the image moved by that offset, never all patches at once."""
        groups, _, positions, inputs, _ = self.dims
        batch, feature, *spatial = (axis + 1 for axis in self.specs[0])
        image = working(lhs).transpose(0, batch, feature, *spatial)
        config = [(0, 0, 0)] * 3 + [
            (low, high, dilation - 1) for (low, high), dilation in zip(self.padding, self.lhs_dilation, strict=True)
        ]
        image = jax.lax.pad(image, jnp.zeros((), image.dtype), config)
        num = image.shape[0]
        if self.feature_groups > 1:  # (n, I, B, C, ...) -> (n, B, I, C, ...)
            image = image.reshape(num, inputs, groups, -1, *image.shape[3:]).swapaxes(1, 2)
        else:
            image = image.reshape(num, groups, inputs, *image.shape[2:])
        rows = []
        for offset in itertools.product(*(range(size) for size in self._offsets)):
            starts = [at * stride for at, stride in zip(offset, self.strides, strict=True)]
            spans = [(size - 1) * dil + 1 for size, dil in zip(self._window, self.rhs_dilation, strict=True)]
            piece = jax.lax.slice(
                image,
                (0, 0, 0, 0, *starts),
                (*image.shape[:4], *(start + span for start, span in zip(starts, spans, strict=True))),
                (1, 1, 1, 1, *self.rhs_dilation),
            )
            rows.append(piece.reshape(num, groups, inputs, positions).swapaxes(2, 3))
        return rows

    def cotangents(self, rhs: Float[Array, "n ..."]) -> Float[Array, "n B S O"]:
        """Columns d."""
        groups, _, positions, _, outputs = self.dims
        order = tuple(axis + 1 for axis in self.specs[1])
        moved = working(rhs).transpose(0, *order).reshape(-1, groups, outputs, positions)
        return moved.swapaxes(2, 3)

    def to_result(self, blocks: Float[Array, "n B K I O"]) -> Float[Array, "n ..."]:
        """Lay gradient blocks out as the equation does."""
        num, groups, _, inputs, outputs = blocks.shape
        moved = blocks.transpose(0, 3, 1, 4, 2).reshape(num, inputs, groups * outputs, *self._offsets)
        where = {axis: position for position, axis in enumerate(self.specs[2])}
        return moved.transpose(0, *(where[axis] + 1 for axis in range(len(where))))

    def from_result(self, result: Float[Array, "n ..."]) -> Float[Array, "n B K I O"]:
        """Undo :meth:`to_result`."""
        groups, offsets, _, inputs, outputs = self.dims
        moved = result.transpose(0, *(axis + 1 for axis in self.specs[2]))
        return moved.reshape(-1, inputs, groups, outputs, offsets).transpose(0, 2, 4, 1, 3)


@dataclass(frozen=True)
class LookupForm:
    """Gradient made by ``scatter-add`` into zeros along one axis, as of an embedding: x is one-hot and never formed.

    The first operand holds row numbers, one a position (in one ``column`` where it holds starts along several axes); a
    number out of range is clipped or dropped.
    """

    table_shape: tuple[int, ...]
    axis: int
    num_positions: int
    updates_order: tuple[int, ...]
    clip: bool
    column: int = 0

    @property
    def dims(self) -> tuple[int, int, int, int, int]:
        """B, K, S, I and O."""
        rows = self.table_shape[self.axis]
        return 1, 1, self.num_positions, rows, math.prod(self.table_shape) // max(rows, 1)

    def rows(self, indices: Int[Array, "n ..."]) -> Int[Array, "n S"]:
        """Row numbers; -1 for what is dropped."""
        flat = indices.reshape(indices.shape[0], self.num_positions, -1)[..., self.column]
        last = self.table_shape[self.axis] - 1
        if self.clip:
            return jnp.clip(flat, 0, last)
        return jnp.where((flat >= 0) & (flat <= last), flat, -1)

    def cotangents(self, updates: Float[Array, "n ..."]) -> Float[Array, "n B S O"]:
        """Columns d."""
        moved = working(updates).transpose(0, *(axis + 1 for axis in self.updates_order))
        return moved.reshape(-1, 1, self.num_positions, self.dims[-1])

    def to_result(self, blocks: Float[Array, "n B K I O"]) -> Float[Array, "n ..."]:
        """Lay gradient blocks out as the equation does."""
        rows = self.table_shape[self.axis]
        others = self.table_shape[: self.axis] + self.table_shape[self.axis + 1 :]
        return jnp.moveaxis(blocks.reshape(-1, rows, *others), 1, self.axis + 1)

    def from_result(self, result: Float[Array, "n ..."]) -> Float[Array, "n B K I O"]:
        """Undo :meth:`to_result`."""
        _, _, _, rows, outputs = self.dims
        return jnp.moveaxis(result, self.axis + 1, 1).reshape(-1, 1, 1, rows, outputs)


Form = DotForm | ConvForm | LookupForm


@dataclass(frozen=True)
class View:
    """A step that moves the entries of an array without changing them: ``reshape``, ``transpose`` or ``rev``."""

    kind: str
    source: tuple[int, ...]
    argument: tuple[int, ...]

    def forward(self, array: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Apply it behind a leading axis."""
        if self.kind == "reshape":
            return array.reshape(array.shape[0], *self.argument)
        shifted = tuple(axis + 1 for axis in self.argument)
        return array.transpose(0, *shifted) if self.kind == "transpose" else jnp.flip(array, shifted)

    def backward(self, array: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Undo :meth:`forward`."""
        if self.kind == "reshape":
            return array.reshape(array.shape[0], *self.source)
        if self.kind == "rev":
            return self.forward(array)
        inverse = sorted(range(len(self.argument)), key=self.argument.__getitem__)
        return array.transpose(0, *(axis + 1 for axis in inverse))


@dataclass(frozen=True)
class Product:
    """The gradient of one leaf as a sum of forms that share everything but their positions. Hashable, for ``jit``.

    Attributes:
        forms: One a use of the leaf.
        views: From the result of the equation to the leaf.
    """

    forms: tuple[Form, ...]
    views: tuple[View, ...]

    @property
    def dims(self) -> tuple[int, int, int, int, int]:
        """B, K, S, I and O, the positions of all uses taken together."""
        groups, offsets, _, inputs, outputs = self.forms[0].dims
        return groups, offsets, sum(form.dims[2] for form in self.forms), inputs, outputs

    @property
    def is_lookup(self) -> bool:
        """Whether the inputs are row numbers."""
        return isinstance(self.forms[0], LookupForm)

    def inputs(self, operands: list[Operands]) -> list[Array]:
        """Rows of all uses, one array a kernel offset; of a lookup the row numbers."""
        if self.is_lookup:
            return [jnp.concatenate([f.rows(a) for f, (a, _) in zip(self.forms, operands, strict=True)], 1)]  # pyright: ignore[reportAttributeAccessIssue]
        rows = [form.inputs(a) for form, (a, _) in zip(self.forms, operands, strict=True)]  # pyright: ignore[reportAttributeAccessIssue]
        if len(rows) == 1:
            return rows[0]
        return [jnp.concatenate(uses, 2) for uses in zip(*rows, strict=True)]

    def cotangents(self, operands: list[Operands]) -> Float[Array, "n B S O"]:
        """Columns of all uses."""
        columns = [form.cotangents(b) for form, (_, b) in zip(self.forms, operands, strict=True)]
        return columns[0] if len(columns) == 1 else jnp.concatenate(columns, 2)

    def contract(self, rows: Array, columns: Float[Array, "n B S O"]) -> Float[Array, "n B I O"]:
        """Gradient blocks of one kernel offset."""
        if self.is_lookup:
            empty = jnp.zeros((rows.shape[0], self.dims[3], columns.shape[-1]), columns.dtype)
            # Row -1 is a dropped one; jax would read it as the last row, so it is sent past the end.
            rows = jnp.where(rows < 0, self.dims[3], rows)
            return jax.vmap(lambda z, r, d: z.at[r].add(d, mode="drop"))(empty, rows, columns[:, 0])[:, None]
        return jnp.einsum("nbsi,nbso->nbio", rows, columns, precision=HIGHEST)

    def gradients(self, operands: list[Operands]) -> Float[Array, "n B K I O"]:
        """All gradient blocks: the n x p block of this leaf."""
        columns = self.cotangents(operands)
        return jnp.stack([self.contract(rows, columns) for rows in self.inputs(operands)], 2)

    def to_leaf(self, blocks: Float[Array, "n B K I O"]) -> Float[Array, "n ..."]:
        """Lay gradient blocks out as the leaf is."""
        array = self.forms[0].to_result(blocks)
        for view in self.views:
            array = view.forward(array)
        return array

    def from_leaf(self, array: Float[Array, "n ..."]) -> Float[Array, "n B K I O"]:
        """Undo :meth:`to_leaf`."""
        for view in reversed(self.views):
            array = view.backward(array)
        return self.forms[0].from_result(array)
