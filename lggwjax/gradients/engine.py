"""One compiled plan a loss and shape: the loss is traced once, its factors found, and every pass reuses them."""

from __future__ import annotations

import functools
import logging
import math
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.costs import (
    MOVED_COPIES,
    WORKING_BYTES,
    Cost,
    Route,
    cheapest,
    contracted_scratch,
    pair_costs,
    path_costs,
    stays_factored,
)
from lggwjax.gradients.directions import directions_of_leaf
from lggwjax.gradients.factors import FactorProgram, Layer, find_factors, leaf_names
from lggwjax.gradients.forms import Operands, Product, working
from lggwjax.gradients.selection import LossFn, Selection, Wrt, as_partial, batch_size, check_loss, select
from lggwjax.jaxprs import count_flops, flat_jaxpr, holds, live_bytes
from lggwjax.sharding import mesh_of, num_shares, place_whole, spread_over, to_host

MAX_ENGINES = 64
# How much more than the least a compiled pass with convolutions keeps alive, because it runs side by side what need not
# wait for one another.
COMPILED_PEAK = {"cpu": 2.3}
_engines: OrderedDict[Hashable, Engine] = OrderedDict()
_seen_at: OrderedDict[Hashable, _Seen] = OrderedDict()
_log = logging.getLogger("lggwjax")


class Held(NamedTuple):
    """What a pass leaves behind for one leaf: factors, or its gradient as rows.

    Attributes:
        product: How the factors make the gradient; None for a gradient.
        places: Which of the pass's arrays; two a use for factors (inputs, cotangents), one for a gradient.
        size: Coordinates of the leaf.
        twin: For a gradient, the factor of another leaf that it equals, as a bias's equals its layer's cotangents.
    """

    product: Product | None
    places: tuple[int, ...]
    size: int
    twin: int | None = None

    def operands(self, arrays: list[Array]) -> list[Operands]:
        """Inputs and cotangents, a pair a use of the leaf."""
        picked = [arrays[place] for place in self.places]
        return list(zip(picked[::2], picked[1::2], strict=True))


class Sizes(NamedTuple):
    """Bytes a sample.

    Attributes:
        held: What one pass leaves behind.
        peak: The most that is alive during a pass, that included.
    """

    held: int
    peak: int


class Engine:
    """Everything that is compiled for one loss, one shape of parameters and one shape of example.

    Attributes:
        layers: Every gradient coordinate's leaf and how its gradients are had.
        held: What :meth:`factors` returns for each leaf that is used.
    """

    def __init__(self, loss: Partial, params: PyTree, batch: PyTree, selection: Selection):
        """Trace the loss and find its factors; nothing is computed."""
        check_loss(loss, params, batch)
        self._selection = selection
        coordinates, others = selection.split(params)
        self._names = leaf_names(selection, params)
        self._shapes = [jnp.shape(leaf) for leaf in coordinates]
        example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), batch)
        arguments = (*jax.tree.map(_abstract, (loss, coordinates, others)), example)
        leaves, treedef = jax.tree.flatten(arguments)
        self._arguments = jax.tree.leaves(arguments[:-1]), jax.tree.leaves(example)
        self._num_own = len(self._arguments[1])
        self._num_loss_leaves = len(jax.tree.leaves(loss))
        # Leaves alone: what jax remembers of the structure of arguments would keep the loss alive.
        self.forward = jax.make_jaxpr(lambda *flat: self._loss(*treedef.unflatten(flat)))(*leaves)
        self.flat = flat_jaxpr(lambda *flat: self._gradient(*treedef.unflatten(flat)), *leaves)
        # A custom_vjp has no forward derivative.
        self.has_jvp = not holds(self.forward.jaxpr, "custom_vjp_call")
        self._build(find_factors(self.flat, self._names, self._shapes))
        # A loss that closes over values of a trace has nothing that could be looked at.
        self.checked = any(isinstance(const, Tracer) for const in self.flat.consts)

    def _loss(self, loss, coordinates, others, example):
        return loss(self._selection.merge(coordinates, others), example)

    def _gradient(self, loss, coordinates, others, example):
        return jax.grad(lambda c: self._loss(loss, c, others, example))(coordinates)

    def _build(self, program: FactorProgram) -> None:
        self.program, self.layers = program, program.layers
        outputs = [atom.aval for atom in program.jaxpr.jaxpr.outvars[: program.num_outputs]]
        self._raw, self._contracted, held = [], [], []
        for layer in self.layers:
            if layer.unused:
                continue
            sizes = sum(math.prod(outputs[place].shape) for place in layer.outputs)
            # Factors larger than the gradient they make are contracted within the pass: nothing is gained by holding
            # them, and their activation products would cost more than the gradient's.
            if layer.product is not None and sizes < layer.size:
                places = tuple(self._keep(place) for place in layer.outputs)
                held.append(Held(layer.product, places, layer.size))
            else:
                held.append(Held(None, (-1 - len(self._contracted),), layer.size))
                self._contracted.append(layer)
        count = len(self._raw)
        twins = [self._twin(layer) for layer in self._contracted]
        self.held = tuple(
            h if h.product else h._replace(places=(count - 1 - h.places[0],), twin=twins[-1 - h.places[0]])
            for h in held
        )
        # At least float32: factors of half precision are widened before they are multiplied.
        self.itemsize = max([4, *(output.dtype.itemsize for output in outputs)])
        size = lambda place: self.itemsize * math.prod(outputs[place].shape)  # noqa: E731
        rows = self.itemsize * sum(layer.size for layer in self._contracted)
        shared = len(self.flat.jaxpr.invars) - self._num_own
        self._sizes_of = [size(place) for place in self._raw]
        self.work = count_flops(program.jaxpr.jaxpr)
        peak = live_bytes(program.jaxpr, shared)
        if self.work[1]:
            peak *= COMPILED_PEAK.get(jax.default_backend(), 1.0)
        self.sizes = Sizes(rows + sum(map(size, self._raw)), rows + int(peak))
        self._jitted = jax.jit(self._gradients), jax.jit(self._derivative)
        self._passes: dict[Mesh | None, Any] = {}

    def _twin(self, layer: Layer) -> int | None:
        own = layer.product is None and layer.outputs[0] in self._raw
        return self._raw.index(layer.outputs[0]) if own else None

    def _keep(self, place: int) -> int:
        if place not in self._raw:
            self._raw.append(place)
        return self._raw.index(place)

    def _flatten(self, loss: Partial, params: PyTree, batch: PyTree) -> tuple[list[Array], list[Array]]:
        # Leaves alone: a compiled function that was given the loss itself would keep it alive.
        return jax.tree.leaves((loss, *self._selection.split(params))), jax.tree.leaves(batch)

    def factors(self, loss: Partial, params: PyTree, batch: PyTree, mesh: Mesh | None = None) -> list[Array]:
        """One pass over a chunk: what :attr:`held` says, each array with a leading axis n, divided over the mesh."""
        return self._pass(mesh)(*self._flatten(loss, params, batch))

    def _pass(self, mesh: Mesh | None) -> Any:
        if mesh not in self._passes:
            # Said outright: where parameters are divided too, the compiler might leave the rows together.
            rows = None if mesh is None else spread_over(mesh)
            self._passes[mesh] = jax.jit(self._factors, out_shardings=rows)
        return self._passes[mesh]

    @functools.cached_property
    def _whole_pass(self) -> Any:
        return jax.jit(self.program.run)

    def layer_outputs(self, loss: Partial, params: PyTree, batch: PyTree) -> list[list[Array]]:
        """One pass over a chunk with nothing contracted: for each of :attr:`layers` its factors, or its gradient."""
        outputs = self._whole_pass(*self._flatten(loss, params, batch))
        return [[outputs[place] for place in layer.outputs] for layer in self.layers]

    def gradients(self, loss: Partial, params: PyTree, batch: PyTree) -> list[Array]:
        """Per-sample gradients of a chunk, one array a leaf."""
        return self._jitted[0](*self._flatten(loss, params, batch))

    def pass_bytes(self, num_samples: int) -> int:
        """Bytes that one pass takes, results included: those of the compiled program, which the pass then uses.

        Args:
            num_samples: Samples of the chunk.

        Returns:
            Bytes beyond parameters and samples; an estimate where the compiler does not say.
        """
        shared, own = self._arguments
        own = [jax.ShapeDtypeStruct((num_samples, *x.shape), x.dtype) for x in own]
        found = self._pass(None).lower(shared, own).compile().memory_analysis()
        if found is None:
            return self.sizes.peak * num_samples
        return int(found.temp_size_in_bytes + found.output_size_in_bytes)

    def derivative(
        self, loss: Partial, params: PyTree, batch: PyTree, key: Key[Array, ""], draw: int
    ) -> Float[Array, " n"]:
        """Derivative of each sample's loss along one Gaussian direction, by one forward pass."""
        return self._jitted[1](*self._flatten(loss, params, batch), key, draw)

    def _derivative(self, shared: list[Array], own: list[Array], key, draw) -> Float[Array, " n"]:
        first = self._num_loss_leaves
        coordinates = shared[first : first + len(self.layers)]
        used = [index for index, layer in enumerate(self.layers) if not layer.unused]
        draws = jnp.asarray(draw)[None]
        direction = [jnp.zeros_like(leaf) for leaf in coordinates]
        for leaf, index in enumerate(used):
            normals = directions_of_leaf(key, draws, leaf, self._shapes[index], jnp.float32)[0]
            direction[index] = normals.astype(coordinates[index].dtype)

        def losses(*moved: Array) -> Float[Array, " n"]:
            inputs = [*shared[:first], *moved, *shared[first + len(moved) :]]
            axes = (*[None] * len(inputs), *[0] * len(own))
            return jax.vmap(lambda *leaves: jaxpr_as_fun(self.forward)(*leaves)[0], in_axes=axes)(*inputs, *own)

        return working(jax.jvp(losses, tuple(coordinates), tuple(direction))[1])

    def _factors(self, shared: list[Array], own: list[Array]) -> list[Array]:
        outputs = self.program.run(shared, own)
        rows = [own_gradient(layer, [outputs[place] for place in layer.outputs]) for layer in self._contracted]
        return [outputs[place] for place in self._raw] + rows

    def _gradients(self, shared: list[Array], own: list[Array]) -> list[Array]:
        axes = (*[None] * len(shared), *[0] * len(own))
        return jax.vmap(jaxpr_as_fun(self.flat), in_axes=axes)(*shared, *own)

    def factor_sizes(self, item: Held) -> int:
        """Numbers a sample that are held as a leaf's factors."""
        return sum(self._sizes_of[place] for place in item.places) // self.itemsize

    @property
    def largest_bytes(self) -> int:
        """Bytes a sample of the largest array that a pass leaves behind."""
        return max([*self._sizes_of, *(self.itemsize * layer.size for layer in self._contracted)], default=0)

    @functools.cached_property
    def compact_bytes(self) -> int:
        """Bytes a sample that one checkpoint of a growing path keeps, by :func:`lggwjax.gradients.products.compact`."""
        kept: dict[int, int] = {}
        rows = 0
        for item in self.held:
            if stays_factored(item.product):
                kept |= {place: self._sizes_of[place] for place in item.places}
            else:
                rows += self.itemsize * item.size
        return rows + sum(kept.values())

    def held_leaves(self) -> list[tuple[Held, tuple[int, ...]]]:
        """:attr:`held` with the shape of each leaf; leaves that are not used are left out."""
        used = [layer.shape for layer in self.layers if not layer.unused]
        return list(zip(self.held, used, strict=True))

    def pair_scratch(self, num: int, *, sides: int) -> int:
        """Bytes of scratch for the inner products of a chunk with itself (one side), or another of its size (two)."""

        def scratch(item: Held) -> float:
            if item.product is None:
                return 0
            return _scratch(item.product, pair_costs(item.product, num, num), sides * num, most=2 * WORKING_BYTES)

        return int(max(map(scratch, self.held), default=0)) * self.itemsize // 4  # costs are of single precision

    def path_scratch(self, num_samples: int, length: int) -> int:
        """Bytes of scratch for the inner products of a chunk along a path."""
        num = num_samples * length

        def scratch(item: Held) -> float:
            if item.product is None:
                return min(MOVED_COPIES * 4 * num * item.size, WORKING_BYTES)
            return _scratch(item.product, path_costs(item.product, num_samples, length + 1), num)

        return int(max(map(scratch, self.held), default=0)) * self.itemsize // 4  # costs are of single precision

    def flat_gradients(self, loss: Partial, params: PyTree, batch: PyTree) -> Float[Array, "n p"]:
        """Per-sample gradients of one chunk as rows, in float32 or better."""
        return _as_rows(self.gradients(loss, params, batch))

    def check(self, loss: Partial, params: PyTree, batch: PyTree, mesh: Mesh | None = None) -> None:
        """Compare the factors with ``vmap(grad)`` on two samples, once; leaves that differ keep their own gradient."""
        # Inside a trace even operations on known values are traced.
        known = [*jax.tree.leaves((loss, params, batch)), jnp.add(0, 0)]
        if self.checked or any(isinstance(x, Tracer) for x in known):
            return
        self.checked = True
        ends = np.array([0, -1])
        two = jax.tree.map(lambda x: x[ends] if isinstance(x, np.ndarray) else jnp.asarray(x)[ends], batch)
        loss, params, two = place_whole((loss, params, two), mesh)
        # Compiled without much trying: it runs once.
        quick = jax.jit(self._errors, compiler_options={"xla_backend_optimization_level": 0})
        errors = to_host(quick(*self._flatten(loss, params, two)))
        wrong = frozenset(int(index) for index in np.flatnonzero(errors > 1))
        if wrong:
            names = ", ".join(self._names[index] for index in wrong)
            warnings.warn(
                f"Factors of {names} differ from vmap(grad) on two samples. These leaves keep their own gradient: "
                "results are right, but slower. Please report the model.",
                stacklevel=3,
            )
            self._build(find_factors(self.flat, self._names, self._shapes, refuse=wrong))

    def _errors(self, shared: list[Array], own: list[Array]) -> Float[Array, " leaves"]:
        """Largest difference of each leaf, in units of what rounding allows; 0 where a gradient is not finite."""
        outputs = self.program.run(shared, own)
        errors = []
        for layer, gradient in zip(self.layers, self._gradients(shared, own), strict=True):
            if layer.unused or layer.product is None:
                errors.append(jnp.max(jnp.abs(working(gradient)), initial=0) * (jnp.inf if layer.unused else 0))
                continue
            picked = [outputs[place] for place in layer.outputs]
            eps = max(
                float(jnp.finfo(x.dtype).eps) for x in (*picked, gradient) if jnp.issubdtype(x.dtype, jnp.floating)
            )
            found = own_gradient(layer, picked)
            oracle = working(gradient).reshape(found.shape)
            # Sums of S terms in another order: sqrt(S) roundings of the largest term, with room for cancellation.
            allowed = 1e3 * eps * math.sqrt(layer.product.dims[2]) * jnp.max(jnp.abs(oracle), initial=0)
            error = jnp.max(jnp.abs(found - oracle), initial=0) / jnp.maximum(allowed, jnp.finfo(oracle.dtype).tiny)
            errors.append(jnp.where(jnp.isfinite(oracle).all() & jnp.isfinite(found).all(), error, 0))
        return jnp.stack([jnp.where(jnp.isnan(e), 0, e).astype(jnp.float32) for e in errors])


def own_gradient(layer: Layer, outputs: list[Array]) -> Float[Array, "n size"]:
    """A leaf's per-sample gradient as rows, contracted where its factors are given."""
    if layer.product is None:
        return working(outputs[0]).reshape(outputs[0].shape[0], layer.size)
    operands = list(zip(outputs[::2], outputs[1::2], strict=True))
    blocks = layer.product.gradients(operands)
    return layer.product.to_leaf(blocks).reshape(blocks.shape[0], layer.size)


@jax.jit
def _as_rows(leaves: list[Array]) -> Float[Array, "n p"]:
    return jnp.concatenate([working(leaf).reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf), weak_type=getattr(leaf, "weak_type", False))


class _Seen:
    """Functions from one place in the code; those that are no more stay counted."""

    def __init__(self):
        self.count, self.alive = 0, weakref.WeakSet()


class Problem(NamedTuple):
    """What every public function is given, checked once."""

    engine: Engine
    loss: Partial
    selection: Selection
    num_samples: int
    mesh: Mesh | None

    def chunks(self, batch: PyTree, chunk_size: int) -> Iterator[tuple[int, int, PyTree]]:
        """Chunks of the batch, each where it is to be computed with; see :func:`iter_chunks`."""
        return iter_chunks(batch, self.num_samples, chunk_size, self.mesh)

    def factors(self, params: PyTree, chunk: PyTree) -> list[Array]:
        """One pass over one chunk."""
        loss, params, chunk = place_whole((self.loss, params, chunk), self.mesh)
        divides = batch_size(chunk) % num_shares(self.mesh) == 0
        return self.engine.factors(loss, params, chunk, self.mesh if divides else None)


def pose(loss_fn: LossFn, params: PyTree, batch: PyTree, wrt: Wrt, *, self_check: bool = True) -> Problem:
    """Check what every public function is given, and find or make the engine for it.

    Args:
        loss_fn: The loss of one example.
        params: Its parameters.
        batch: Examples along the leading axis.
        wrt: See :func:`lggwjax.gradients.selection.select`.
        self_check: Whether factors are compared with ``vmap(grad)`` on two samples, once an engine.

    Returns:
        The engine with the loss as a ``Partial``, the selection and n.

    Raises:
        ValueError: See :func:`lggwjax.per_sample_gradients`.
    """
    loss = as_partial(loss_fn)
    selection, num_samples = select(params, wrt), batch_size(batch)
    engine, mesh = _engine(loss, params, batch, selection), mesh_of(params, batch)
    if self_check:
        engine.check(loss, params, batch, mesh)
    return Problem(engine, loss, selection, num_samples, mesh)


def _engine(loss: Partial, params: PyTree, batch: PyTree, selection: Selection) -> Engine:
    fn, fn_key = loss.func, _identity(loss.func)
    leaves, treedef = jax.tree.flatten((loss.args, loss.keywords, params, batch))
    own = len(jax.tree.leaves(batch))
    shared = len(leaves) - own
    shapes = [
        (jnp.shape(x)[index >= shared :], jnp.result_type(x), getattr(x, "weak_type", False))
        for index, x in enumerate(leaves)
    ]
    key = (fn_key, treedef, tuple(shapes), selection)
    engine = _engines.get(key)
    if engine is None:
        engine = Engine(loss, params, batch, selection)
        if any(isinstance(const, Tracer) for const in engine.flat.consts):
            return engine  # the loss closes over values of a trace that is under way: they end with it
        _hint(fn)
        _engines[key] = engine
        while len(_engines) > MAX_ENGINES:
            _engines.popitem(last=False)
    _engines.move_to_end(key)
    return engine


def _identity(fn: Any) -> Hashable:
    """A function as a key that does not keep it alive; what is made anew at every use is compared by value."""
    if type(fn).__hash__ is None:
        return _Same(fn)
    if isinstance(fn, types.MethodType) or type(fn).__eq__ is not object.__eq__:
        return fn
    try:
        return weakref.ref(fn, _forget)
    except TypeError:
        return fn


class _Same:
    """An object without a hash, compared by identity."""

    def __init__(self, kept: Any):
        self.kept = kept

    def __hash__(self) -> int:
        return id(self.kept)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.kept is self.kept


def _forget(reference: weakref.ref, engines: OrderedDict[Hashable, Engine] = _engines) -> None:
    """Drop the engines of a function that is no more."""
    # The default keeps the cache at hand while the interpreter shuts down and module names are gone.
    for key in [key for key in engines if isinstance(key, tuple) and key[0] is reference]:
        del engines[key]


def _hint(fn: Any) -> None:
    """Say once that functions made anew at every call compile at every call."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return
    seen = _seen_at.setdefault((code.co_filename, code.co_firstlineno), _Seen())
    if fn in seen.alive:
        return
    seen.alive.add(fn)
    seen.count += 1
    if seen.count == 3:
        _log.warning(
            "The third function defined at %s:%d is being compiled. A loss made anew for every call compiles at "
            "every call: define it once, or pass jax.tree_util.Partial(loss, values) for values that change.",
            code.co_filename,
            code.co_firstlineno,
        )
    while len(_seen_at) > MAX_ENGINES:
        _seen_at.popitem(last=False)


def _scratch(product: Product, costs: dict[Route, Cost], num: int, most: float = math.inf) -> float:
    """Bytes that a leaf's products take on their cheapest route: of ``num`` gradients, or ``most`` without them."""
    route = cheapest(costs)
    memory = costs[route].memory
    return contracted_scratch(product, num, memory) if route == "contracted" else min(memory, most)
