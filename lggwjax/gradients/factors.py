"""Layer factors read off the jaxpr of the gradient: per-sample gradients of any model without an n x p block.

The gradient of one sample's loss is traced and its calls are written out. From each leaf's gradient the jaxpr is
followed back through steps that only move entries (reshape, transpose, squeeze, convert, a constant scale) to the
equation that makes it. Where that is a product, a convolution or the scatter of an embedding, or a sum of several
alike, its operands are the leaf's factors: inputs and cotangents. All else keeps its own per-sample gradient. As the
jaxpr of the gradient itself is read, derivative rules of the user's own, rematerialisation and weights used again are
exact too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array, PyTree

from lggwjax.gradients.forms import ConvForm, DotForm, Form, LookupForm, Product, View
from lggwjax.jaxprs import inner_jaxprs, select_outputs, shape_of

# Kernel offsets that are written out one by one; a larger kernel (or a product that only looks like a convolution)
# keeps its own gradient, because the program would take minutes to compile.
MAX_OFFSETS = 400


@dataclass(frozen=True)
class Layer:
    """One leaf of the parameters and how its per-sample gradients are had.

    Attributes:
        name: Key path of the leaf.
        shape: Its shape.
        product: How factors make its gradient; None where its own gradient is taken.
        outputs: Where the factors, or the gradient, are among the outputs of the factor program.
        reason: Why there are no factors, in words; empty where none would help, as for a bias.
        unused: Whether the gradient is zero whatever the sample is.
    """

    name: str
    shape: tuple[int, ...]
    product: Product | None
    outputs: tuple[int, ...]
    reason: str = ""
    unused: bool = False

    @property
    def size(self) -> int:
        """Coordinates of the leaf."""
        return math.prod(self.shape)


@dataclass
class _Use:
    """One equation that makes (a part of) a leaf's gradient, on the way back from the leaf."""

    form: Form
    operands: tuple[Any, Any]
    views: tuple[View, ...]
    scales: tuple[Any, ...]


def _simplified(use: _Use) -> _Use:
    """The same gradient with transposes made one, and one that swaps inputs with outputs made into the form.

    So a weight used as it is and transposed has two uses alike.
    """
    views: list[View] = []
    for view in use.views:
        if views and view.kind == views[-1].kind == "transpose":
            first = views.pop()
            view = View("transpose", first.source, tuple(first.argument[axis] for axis in view.argument))
        if view.kind == "transpose" and view.argument == tuple(range(len(view.argument))):
            continue
        views.append(view)
    form, operands = use.form, use.operands
    if isinstance(form, DotForm) and not form.batch[0] and views and views[0].kind == "transpose":
        num_left = len(form.lhs_shape) - len(form.contract[0])
        swap = (*range(num_left, len(form.result_shape)), *range(num_left))
        if views[0].argument == swap:
            form = DotForm(form.rhs_shape, form.lhs_shape, _pair(*form.contract[::-1]), _pair(*form.batch[::-1]))
            operands, views = operands[::-1], views[1:]
    return _Use(form, operands, tuple(views), use.scales)


@dataclass
class _Reader:
    """Follows gradients back through a jaxpr."""

    producers: dict[Any, JaxprEqn]
    outvars: list[Any] = field(default_factory=list)

    def place(self, atom: Any) -> int:
        """Where an atom is among the outputs of the factor program."""
        for index, known in enumerate(self.outvars):
            if known is atom:
                return index
        self.outvars.append(atom)
        return len(self.outvars) - 1

    def in_order(self, atom: Any) -> Any:
        """The earliest atom that holds the same numbers in the same order: a bias's gradient is often cotangents."""
        eqn = self.producers.get(atom)
        while eqn is not None and (step := _view(eqn, atom)) is not None:
            source = _source(eqn, atom)
            if step.kind != "reshape" or isinstance(source, Literal) or source.aval.dtype != atom.aval.dtype:
                break
            atom, eqn = source, self.producers.get(source)
        return atom

    def is_zero(self, atom: Any) -> bool:
        """Whether an atom is known to be zero."""
        if isinstance(atom, Literal):
            return not np.any(np.asarray(atom.val))
        eqn = self.producers.get(atom)
        if eqn is None:
            return False
        moved = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose", "neg", "copy")
        return eqn.primitive.name in moved and self.is_zero(eqn.invars[0])

    def scalar(self, atom: Any) -> Any | None:
        """The scalar that an atom repeats, or None."""
        if isinstance(atom, Literal):
            return float(atom.val) if np.ndim(atom.val) == 0 else None
        if shape_of(atom) == ():
            return atom
        eqn = self.producers.get(atom)
        if eqn is not None and (eqn.primitive.name == "broadcast_in_dim" or _between_floats(eqn)):
            return self.scalar(eqn.invars[0])
        return None

    def uses(self, atom: Any) -> list[_Use] | str:
        """Equations whose results add up to an atom, or in words why they cannot be had."""
        views: list[View] = []
        scales: list[Any] = []
        while True:
            eqn = None if isinstance(atom, Literal) else self.producers.get(atom)
            if eqn is None:
                return "its gradient is an argument of the loss"
            name = eqn.primitive.name
            if name == "add_any" or (name == "add" and all(shape_of(a) == shape_of(atom) for a in eqn.invars)):
                parts = [self.uses(part) for part in eqn.invars if not self.is_zero(part)]
                found = [use for part in parts if not isinstance(part, str) for use in part]
                reasons = [part for part in parts if isinstance(part, str)]
                if reasons:
                    through = [reason for reason in reasons if reason.startswith("passes")]
                    return through[0] if through else "used in more ways than one"
                behind, factors = tuple(reversed(views)), tuple(scales)
                return [_simplified(_Use(u.form, u.operands, u.views + behind, u.scales + factors)) for u in found]
            step = _view(eqn, atom)
            if step is not None:
                views += [step] if step.argument != step.source or step.kind != "reshape" else []
                atom = _source(eqn, atom)
                continue
            if name == "neg":
                scales.append(-1.0)
                atom = eqn.invars[0]
                continue
            if name in ("mul", "div") and len(eqn.invars) == 2:
                scale = self._scaled(eqn)
                if scale is not None:
                    atom, factor = scale
                    scales.append(factor)
                    continue
            found = _form(eqn, self)
            if isinstance(found, str):
                return found
            return [_simplified(_Use(*found, tuple(reversed(views)), tuple(scales)))]

    def _scaled(self, eqn: JaxprEqn) -> tuple[Any, Any] | None:
        """The operand that a product with a scalar leaves, and the scalar (a pair for a quotient)."""
        first, second = eqn.invars
        scalar = self.scalar(second)
        if scalar is not None and not isinstance(first, Literal):
            return first, (("inverse", scalar) if eqn.primitive.name == "div" else scalar)
        scalar = self.scalar(first) if eqn.primitive.name == "mul" else None
        return None if scalar is None or isinstance(second, Literal) else (second, scalar)


def _source(eqn: JaxprEqn, atom: Any) -> Any:
    """The operand that a step which only moves entries makes an atom from."""
    place = next(index for index, var in enumerate(eqn.outvars) if var is atom)
    return eqn.invars[place]


def _view(eqn: JaxprEqn, atom: Any) -> View | None:
    """The step that only moves entries, or None."""
    name, params = eqn.primitive.name, eqn.params
    if name == "optimization_barrier":
        return View("reshape", shape_of(atom), shape_of(atom))
    source, target = shape_of(eqn.invars[0]), shape_of(atom)
    if name == "transpose":
        return View("transpose", source, tuple(params["permutation"]))
    if name == "rev":
        return View("rev", source, tuple(params["dimensions"]))
    same_size = math.prod(source) == math.prod(target)
    is_sum_of_one = name == "reduce_sum" and same_size
    is_unchanged = name in ("reshape", "squeeze", "broadcast_in_dim", "expand_dims", "copy", "copy_p") and same_size
    if name == "reshape" and params.get("dimensions") is not None:
        return None
    return View("reshape", source, target) if is_unchanged or is_sum_of_one or _between_floats(eqn) else None


def _between_floats(eqn: JaxprEqn) -> bool:
    """Whether an equation only changes the precision: a cut to whole numbers changes values."""
    types = [getattr(atom.aval, "dtype", None) for atom in (eqn.invars[0], eqn.outvars[0])]
    return eqn.primitive.name == "convert_element_type" and all(
        t is not None and jnp.issubdtype(t, jnp.floating) for t in types
    )


def _form(eqn: JaxprEqn, reader: _Reader) -> tuple[Form, tuple[Any, Any]] | str:
    """The form of the gradient that an equation makes and its two operands, or why it has none."""
    name = eqn.primitive.name
    if name == "dot_general":
        (contract, batch) = eqn.params["dimension_numbers"]
        shapes = [shape_of(atom) for atom in eqn.invars]
        form = DotForm(shapes[0], shapes[1], _pair(*contract), _pair(*batch))
        return form, (eqn.invars[0], eqn.invars[1])
    if name == "conv_general_dilated":
        return _conv_form(eqn)
    if name in ("scatter-add", "scatter_add"):
        return _scatter_form(eqn, reader)
    if name == "dynamic_update_slice":
        return _update_form(eqn, reader)
    if any(True for _ in inner_jaxprs(eqn)):
        return f"passes through '{name}'"
    return f"made by '{name}'"


def _pair(first: Any, second: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(first), tuple(second)


def _conv_form(eqn: JaxprEqn) -> tuple[Form, tuple[Any, Any]] | str:
    params = eqn.params
    numbers = params["dimension_numbers"]
    form = ConvForm(
        lhs_shape=shape_of(eqn.invars[0]),
        rhs_shape=shape_of(eqn.invars[1]),
        out_shape=shape_of(eqn.outvars[0]),
        specs=(tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)),
        strides=tuple(params["window_strides"]),
        padding=tuple(map(tuple, params["padding"])),
        lhs_dilation=tuple(params["lhs_dilation"]),
        rhs_dilation=tuple(params["rhs_dilation"]),
        feature_groups=params["feature_group_count"],
        batch_groups=params["batch_group_count"],
    )
    if form.feature_groups > 1 and form.batch_groups > 1:
        return "made by a convolution with groups of both features and batch"
    offsets = form.dims[1]
    if offsets > MAX_OFFSETS:
        return f"made by a convolution with a kernel of {offsets} offsets"
    return form, (eqn.invars[0], eqn.invars[1])


def _scatter_form(eqn: JaxprEqn, reader: _Reader) -> tuple[Form, tuple[Any, Any]] | str:
    table, indices, updates = (shape_of(atom) for atom in eqn.invars)
    numbers = eqn.params["dimension_numbers"]
    scattered = tuple(numbers.scatter_dims_to_operand_dims)
    mode = str(eqn.params["mode"]).upper()
    if getattr(numbers, "operand_batching_dims", ()) or not reader.is_zero(eqn.invars[0]):
        return "made by a scatter that is no lookup of rows"
    window = tuple(numbers.update_window_dims)
    sizes = [1] * len(table)
    for axis, place in zip(
        (a for a in range(len(table)) if a not in numbers.inserted_window_dims), window, strict=True
    ):
        sizes[axis] = updates[place]
    cut = [axis for axis in range(len(table)) if sizes[axis] != table[axis]]
    clip = "CLIP" in mode
    # Where a whole axis is written its start can only be 0, but only clipping says so without looking.
    known = clip or (scattered == tuple(cut) and ("FILL" in mode or "PROMISE" in mode))
    if len(cut) != 1 or cut[0] not in scattered or sizes[cut[0]] != 1 or not known:
        return "made by a scatter that is no lookup of rows"
    positions = tuple(axis for axis in range(len(updates)) if axis not in window)
    num_positions = math.prod(indices[:-1])
    column = scattered.index(cut[0])
    form = LookupForm(table, cut[0], num_positions, positions + window, clip, column)
    return form, (eqn.invars[1], eqn.invars[2])


def _update_form(eqn: JaxprEqn, reader: _Reader) -> tuple[Form, tuple[Any, Any]] | str:
    """One row written into zeros: an embedding of a single number."""
    table, update = shape_of(eqn.invars[0]), shape_of(eqn.invars[1])
    axes = [axis for axis, (whole, part) in enumerate(zip(table, update, strict=True)) if whole != part]
    if len(axes) != 1 or update[axes[0]] != 1 or len(table) < 2 or not reader.is_zero(eqn.invars[0]):
        return "made by 'dynamic_update_slice'"
    axis = axes[0]
    order = (axis, *(other for other in range(len(table)) if other != axis))
    # jax moves a slice that would stick out back inside: a row number out of range is clipped.
    return LookupForm(tuple(table), axis, 1, order, clip=True), (eqn.invars[2 + axis], eqn.invars[1])


@dataclass(frozen=True)
class FactorProgram:
    """A jaxpr that computes the factors of all leaves for one sample, and what they are.

    Attributes:
        jaxpr: From the flattened (loss, coordinates, other leaves, example) to the outputs.
        scales: For each output the scalars it is multiplied by: numbers, or places among the scalar outputs behind.
        layers: One a leaf.
        num_outputs: How many outputs are factors or gradients; the rest are scalars.
    """

    jaxpr: ClosedJaxpr
    scales: tuple[tuple[Any, ...], ...]
    layers: tuple[Layer, ...]
    num_outputs: int

    def run(self, shared: list[Array], own: list[Array]) -> list[Array]:
        """Factors of a chunk: every output with a leading axis n, that of the samples' ``own`` leaves."""
        axes = (*[None] * len(shared), *[0] * len(own))
        outputs = jax.vmap(jaxpr_as_fun(self.jaxpr), in_axes=axes)(*shared, *own)
        found = []
        for output, scales in zip(outputs[: self.num_outputs], self.scales, strict=True):
            for scale in scales:
                inverse = isinstance(scale, tuple)
                value = scale[1] if inverse else scale
                if isinstance(value, int):
                    value = outputs[value].reshape(-1, *[1] * (output.ndim - 1)).astype(output.dtype)
                output = output / value if inverse else output * value
            found.append(output)
        return found


def find_factors(
    flat: ClosedJaxpr, names: list[str], shapes: list[tuple[int, ...]], refuse: frozenset[int] = frozenset()
) -> FactorProgram:
    """Find the factors of every leaf in the jaxpr of a gradient.

    Args:
        flat: From :func:`lggwjax.jaxprs.flat_jaxpr` of the gradient; one output a leaf.
        names: Key path of each leaf.
        shapes: Shape of each leaf.
        refuse: Leaves whose own gradient is to be taken whatever is found.

    Returns:
        The factor program.
    """
    reader = _Reader({var: eqn for eqn in flat.jaxpr.eqns for var in eqn.outvars})
    layers, scaled = [], {}
    for index, (name, shape, outvar) in enumerate(zip(names, shapes, flat.jaxpr.outvars, strict=True)):
        if reader.is_zero(outvar) or math.prod(shape) == 0:
            layers.append(Layer(name, shape, None, (), "not used", unused=True))
            continue
        uses = "failed the self-check" if index in refuse else reader.uses(outvar)
        if isinstance(uses, list) and not _alike(uses):
            uses = "used in more ways than one"
        if isinstance(uses, str):
            if sum(size > 1 for size in shape) < 2 and not uses.startswith(("passes", "failed")):
                uses = ""  # a bias or a scale: its gradient is as small as factors would be
            layers.append(Layer(name, shape, None, (reader.place(reader.in_order(outvar)),), uses))
            continue
        product = Product(tuple(use.form for use in uses), uses[0].views)
        places = []
        for use in uses:
            # Each use has an output of its own for its cotangents, because its scales may differ.
            first, second = reader.place(use.operands[0]), reader.place(use.operands[1])
            if use.scales:
                reader.outvars.append(use.operands[1])
                second = len(reader.outvars) - 1
                scaled[second] = use.scales
            places += [first, second]
        layers.append(Layer(name, shape, product, tuple(places)))
    num_outputs = len(reader.outvars)
    scales = []
    for index in range(num_outputs):
        scales.append(tuple(_placed(scale, reader) for scale in scaled.get(index, ())))
    program = select_outputs(flat, reader.outvars)
    return FactorProgram(program, tuple(scales), tuple(layers), num_outputs)


def _placed(scale: Any, reader: _Reader) -> Any:
    """A number stays; a scalar of the jaxpr becomes one more output, an int."""
    if isinstance(scale, tuple):
        return (scale[0], _placed(scale[1], reader))
    if isinstance(scale, float):
        return scale
    reader.outvars.append(scale)
    return len(reader.outvars) - 1


def _alike(uses: list[_Use]) -> bool:
    """Whether uses differ in nothing but their positions, so that their sum is one form."""
    first = uses[0]

    def layout(use: _Use) -> tuple:
        groups, offsets, _, inputs, outputs = use.form.dims
        extra = (use.form.result_shape,) if isinstance(use.form, DotForm) else ()
        if isinstance(use.form, ConvForm):
            extra = (use.form.out_shape, use.form.specs[2], use.form.feature_groups, use.form.batch_groups)
        if isinstance(use.form, LookupForm):
            extra = (use.form.table_shape, use.form.axis, use.form.clip)
        return type(use.form), groups, offsets, inputs, outputs, extra, use.views

    return all(layout(use) == layout(first) for use in uses)


def leaf_names(selection: Any, params: PyTree) -> list[str]:
    """Key paths of the gradient coordinates, as a reader would write them."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return [name or "params" for name, chosen in zip(paths, selection.chosen, strict=True) if chosen]
