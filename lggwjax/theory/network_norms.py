"""How large gradients and features of a network can be, read off its jaxpr: the spectral recursion (8.7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun
from jax.extend.core import Literal as Constant
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.factors import leaf_names
from lggwjax.gradients.selection import Wrt, select
from lggwjax.jaxprs import PLAIN_CALLS, REMAT_CALLS, apply_equation, called_jaxpr, shape_of
from lggwjax.theory.bound import Assumption, GradientBound, Source
from lggwjax.theory.complexity import comb
from lggwjax.theory.operator_norms import FAILURE, VIEWS, lipschitz_constant, operator_norms, overlap
from lggwjax.widths.closed_form import expected_chi, expected_max_normal

PerCheckpoint = Float[np.ndarray, " T"]


class LeafNorms(NamedTuple):
    """How large one leaf's gradients can be.

    Attributes:
        name: As :func:`lggwjax.plan` names it.
        input_radius: Largest norm of what the leaf is multiplied by; 1 for a bias.
        cotangent_radius: Largest norm of the loss's derivative by what the leaf makes.
        gradient_norm: Largest norm of a sample's gradient with respect to the leaf.
        width: Bound on the Gaussian width of the leaf's gradients, over all inputs and checkpoints in question.
    """

    name: str
    input_radius: float
    cotangent_radius: float
    gradient_norm: float
    width: float


class NetworkNorms(NamedTuple):
    """What the weights alone say about gradients, for every input that is small enough.

    Attributes:
        leaves: One entry a gradient coordinate's leaf.
        gradient_bound: On a sample's whole gradient, at every checkpoint.
        output_radius: Largest norm of the outputs.
    """

    leaves: tuple[LeafNorms, ...]
    gradient_bound: GradientBound
    output_radius: float


@dataclass(frozen=True)
class _Known:
    """A value that does not depend on the input: one a checkpoint, and the leaf that it is a view of."""

    values: Float[Array, "T ..."]
    leaf: int | None = None
    repeats: float = 1.0
    mixed: bool = False


@dataclass(eq=False)
class _Node:
    """A value that depends on the input: how large, how wide, and where it came from."""

    radii: PerCheckpoint
    width: float
    size: int
    sources: list[tuple[_Node, PerCheckpoint]] = field(default_factory=list)
    uses: list[_Use] = field(default_factory=list)
    cotangents: PerCheckpoint = field(default_factory=lambda: np.zeros(1))


class _Use(NamedTuple):
    """A leaf that helped to make a node."""

    leaf: int
    source: _Node | None
    factor: float  # largest norm of the gradient, over the cotangent's norm times the source's
    positions: bool


def network_norms(
    predict_fn: Callable[[PyTree, PyTree], Array],
    path: Iterable[PyTree],
    example: PyTree,
    *,
    input_radius: float,
    input_width: float | None = None,
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
    target_radius: float = 0.0,
    source: Source = "declared",
    wrt: Wrt = None,
) -> NetworkNorms:
    r"""Bound gradients and features of a network without normalisation from its weights, at every input of a ball.

    .. math:: |h_l| \le |W_l| |h_{l-1}|, \quad |\delta_{l-1}| \le |W_l| |\delta_l|, \quad
        |\nabla_{W_l}| \le |\delta_l| |h_{l-1}|

    and the widths of the feature sets by (8.7). The network is read off its jaxpr, whatever framework wrote it:
    products and convolutions with parameters, biases, skip connections, pooling, relu and tanh.

    Args:
        predict_fn: ``predict_fn(params, example) -> outputs``; the weights must come in through ``params``.
        path: T checkpoints.
        example: One example, for its shapes.
        input_radius: Largest norm of an input that may occur: :math:`\sqrt d` for d pixels in [0, 1].
        input_width: Gaussian width of the set of inputs; by default that of the whole ball.
        loss: What the outputs go into; the derivative of cross-entropy by the outputs has norm at most sqrt 2.
        target_radius: Largest norm of a target, for ``squared_error``.
        source: Who stands for ``input_radius``: ``declared`` by the caller, or ``checked``.
        wrt: Which leaves are gradient coordinates.

    Returns:
        Bounds by leaf, and on the whole gradient; they fail with the probability that ``gradient_bound`` names.

    Raises:
        ValueError: If the network does something that has no such bound, as normalisation; the message names it.

    Example:
        >>> predict_fn = lambda params, example: jax.nn.relu(params["w"] @ example["x"])
        >>> norms = network_norms(predict_fn, [{"w": 2 * jnp.eye(3)}], {"x": jnp.ones(3)}, input_radius=1.0)
        >>> 1.41 < norms.gradient_bound.value < 1.42, 2.0 <= norms.output_radius < 2.15
        (True, True)

    References:
        lggwjax/theory/README.md, (8.7) and section 4.
    """
    if not 0 <= input_radius < math.inf or not 0 <= target_radius < math.inf:
        raise ValueError(f"Expected radii of at least 0, got {input_radius} and {target_radius}.")
    checkpoints = list(path)
    selection = select(checkpoints[0], wrt)
    reader = _Reader(len(checkpoints))
    output = reader.read_network(predict_fn, checkpoints, selection, example, input_radius, input_width)
    derivative = np.full(reader.length, math.sqrt(2)) if loss == "cross_entropy" else output.radii + target_radius
    reader.send_back(output, derivative)
    names = leaf_names(selection, checkpoints[0])
    sizes = [int(np.size(leaf)) for leaf in selection.split(checkpoints[0])[0]]
    found = [reader.leaf_norms(index, name, size) for index, (name, size) in enumerate(zip(names, sizes, strict=True))]
    squares = sum((norms**2 for norms in reader.gradient_norms(len(names))), np.zeros(reader.length))
    text = f"inputs have norm at most {input_radius:.4g}"
    if loss != "cross_entropy":
        text += f" and targets at most {target_radius:.4g}"
    bound = GradientBound(
        float(np.sqrt(squares).max()),
        Assumption(f"{text}, from which the weights bound every gradient", source),
        FAILURE * reader.num_norms,
    )
    return NetworkNorms(tuple(found), bound, float(output.radii.max()))


class _Reader:
    """Walks a jaxpr forward for radii and widths, then backward for cotangents."""

    def __init__(self, length: int):
        self.length, self.num_norms = length, 0
        self.nodes: list[_Node] = []

    def read_network(self, predict_fn, checkpoints, selection, example, input_radius, input_width) -> _Node:
        coordinates, others = zip(*(selection.split(params) for params in checkpoints), strict=True)
        closed = jax.make_jaxpr(lambda c, o, e: predict_fn(selection.merge(c, o), e))(
            coordinates[0], others[0], example
        )
        stack = lambda leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])  # noqa: E731
        known = [_Known(stack(leaves), leaf) for leaf, leaves in enumerate(zip(*coordinates, strict=True))]
        known += [_Known(stack(leaves)) for leaves in zip(*map(jax.tree.leaves, others), strict=True)]
        inputs = jax.tree.leaves(example)
        if input_width is None:
            dimension = sum(np.size(leaf) for leaf in inputs if jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
            input_width = input_radius * expected_chi(dimension)
        whole = self._add(np.full(self.length, float(input_radius)), float(input_width), 0)
        nodes = [self._from(whole, np.ones(self.length), np.size(leaf)) for leaf in inputs]
        outputs = self._walk(closed.jaxpr, closed.consts, [*known, *nodes])
        if len(outputs) != 1 or not isinstance(outputs[0], _Node):
            raise ValueError("Expected predict_fn to return one array that depends on the example. Return the outputs.")
        return outputs[0]

    def send_back(self, output: _Node, derivative: PerCheckpoint) -> None:
        """Largest cotangent of every node: sums over what it went into."""
        for node in self.nodes:
            node.cotangents = np.zeros(self.length)
        output.cotangents = derivative
        for node in reversed(self.nodes):
            for origin, lipschitz in node.sources:
                origin.cotangents = origin.cotangents + node.cotangents * lipschitz

    def gradient_norms(self, num_leaves: int) -> list[PerCheckpoint]:
        """Largest gradient of each leaf, at each checkpoint."""
        found = [np.zeros(self.length) for _ in range(num_leaves)]
        for node in self.nodes:
            for use in node.uses:
                found[use.leaf] = found[use.leaf] + _gradient_norm(node, use)
        return found

    def leaf_norms(self, leaf: int, name: str, size: int) -> LeafNorms:
        """Sum up the uses of one leaf."""
        uses = [(node, use) for node in self.nodes for use in node.uses if use.leaf == leaf]
        return LeafNorms(
            name,
            max((1.0 if use.source is None else float(use.source.radii.max()) for _, use in uses), default=0.0),
            max((float(node.cotangents.max()) for node, _ in uses), default=0.0),
            float(sum((_gradient_norm(node, use) for node, use in uses), np.zeros(self.length)).max()),
            sum(_width_of_use(node, use, size) for node, use in uses),
        )

    def _add(self, radii: PerCheckpoint, width: float, size: int) -> _Node:
        self.nodes.append(_Node(radii, width, int(size)))
        return self.nodes[-1]

    def _from(self, node: _Node, lipschitz: PerCheckpoint | float, size: int, width: float | None = None) -> _Node:
        factors = np.broadcast_to(np.asarray(lipschitz, np.float64), (self.length,))
        made = self._add(node.radii * factors, node.width * float(factors.max()) if width is None else width, size)
        made.sources.append((node, factors))
        return made

    def _walk(self, jaxpr: Jaxpr, consts: list, arguments: list[Any]) -> list[Any]:
        constant = lambda value: _Known(jnp.broadcast_to(value, (self.length, *jnp.shape(value))))  # noqa: E731
        values = dict(zip(jaxpr.constvars, map(constant, consts), strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for eqn in jaxpr.eqns:
            operands = [constant(atom.val) if isinstance(atom, Constant) else values[atom] for atom in eqn.invars]
            values.update(zip(eqn.outvars, self._equation(jaxpr, eqn, operands), strict=True))
        return [constant(atom.val) if isinstance(atom, Constant) else values[atom] for atom in jaxpr.outvars]

    def _equation(self, jaxpr: Jaxpr, eqn: JaxprEqn, operands: list[Any]) -> list[Any]:
        name, nodes = eqn.primitive.name, [operand for operand in operands if isinstance(operand, _Node)]
        if not nodes:
            return self._known(jaxpr, eqn, operands)
        if name in PLAIN_CALLS | REMAT_CALLS or (name == "custom_jvp_call" and _rule_is_derivative(jaxpr, eqn)):
            return self._walk(*called_jaxpr(eqn), operands)
        size = math.prod(shape_of(eqn.outvars[0]))
        if made := self._data(eqn, operands, nodes, size):
            return [made]
        raise ValueError(
            f"Expected a network whose gradients its weights bound, got the operation '{name}' on what depends on the "
            "input. Normalisation, attention and activations other than relu and tanh have none: declare a gradient "
            "bound."
        )

    def _known(self, jaxpr: Jaxpr, eqn: JaxprEqn, operands: list[_Known]) -> list[_Known]:
        made = jax.vmap(lambda *values: apply_equation(jaxpr, eqn, list(values)))(*(o.values for o in operands))
        first = operands[0] if operands else _Known(jnp.zeros(self.length))
        is_view = eqn.primitive.name in VIEWS | {"broadcast_in_dim"} and len(operands) == 1
        from_leaf = any(o.leaf is not None or o.mixed for o in operands)
        if not is_view:
            return [_Known(values, mixed=from_leaf) for values in made]
        repeats = first.repeats * max(1.0, made[0].size / max(first.values.size, 1))
        return [_Known(values, first.leaf, repeats, first.mixed) for values in made]

    def _data(self, eqn: JaxprEqn, operands: list[Any], nodes: list[_Node], size: int) -> _Node | None:
        name = eqn.primitive.name
        if len(operands) == 1:
            lipschitz = lipschitz_constant(eqn, size / max(nodes[0].size, 1))
            return None if lipschitz is None else self._from(nodes[0], lipschitz, size)
        if name in ("add", "sub", "add_any", "concatenate"):
            return self._sum(operands, size)
        if len(nodes) != 1 or len(operands) != 2:
            return None
        side = int(isinstance(operands[1], _Node))
        node, known = operands[side], operands[1 - side]
        if name in ("dot_general", "conv_general_dilated"):
            return self._product(eqn, node, known, side, size)
        if name == "mul" or (name == "div" and side == 0):
            factors = np.asarray(known.values, np.float64).reshape(self.length, -1)
            with np.errstate(divide="ignore"):  # refused there
                return self._scaled(node, 1 / factors if name == "div" else factors, known, size)
        if name in ("max", "min"):
            zero = np.maximum if name == "max" else np.minimum
            made = self._from(node, 1.0, size)
            made.radii = made.radii + _norms(_spread(zero(np.asarray(known.values), 0), size))
            return made if known.leaf is None and not known.mixed else None
        if name == "pad":
            return self._from(node, 1.0, size) if side == 0 and not np.any(np.asarray(known.values)) else None
        return None

    def _sum(self, operands: list[Any], size: int) -> _Node | None:
        """Values added or put beside one another: radii and widths add up."""
        made = self._add(np.zeros(self.length), 0.0, size)
        for operand in operands:
            if isinstance(operand, _Node):
                made.radii, made.width = made.radii + operand.radii, made.width + operand.width
                made.sources.append((operand, np.ones(self.length)))
                continue
            if operand.mixed:
                return None
            spread = _spread(np.asarray(operand.values, np.float64), size)
            made.radii, made.width = made.radii + _norms(spread), made.width + _width_of_path(spread)
            if operand.leaf is not None:
                repeats = operand.repeats * spread[0].size / operand.values[0].size
                made.uses.append(_Use(operand.leaf, None, math.sqrt(repeats), False))
        return made

    def _scaled(self, node: _Node, factors: np.ndarray, known: _Known, size: int) -> _Node | None:
        if known.mixed or not np.isfinite(factors).all() or (known.leaf is not None and known.repeats != 1):
            return None
        largest, moved = np.abs(factors).max(1), np.abs(factors - factors[:1]).max()
        width = float(largest[0]) * node.width + float(moved * node.radii.max()) * expected_chi(size)
        made = self._from(node, largest, size, width)
        if known.leaf is not None:
            made.uses.append(_Use(known.leaf, node, 1.0, True))
        return made

    def _product(self, eqn: JaxprEqn, node: _Node, known: _Known, side: int, size: int) -> _Node | None:
        if known.mixed:
            return None
        shape = shape_of(eqn.invars[side])
        both = jnp.concatenate([known.values, known.values[1:] - known.values[:1]])
        norms = operator_norms(eqn.primitive, eqn.params, both.astype(jnp.float32), shape, side=side)
        self.num_norms += len(norms)
        weights, moves = norms[: self.length], norms[self.length :]
        # (8.7): the first weights contract, what they moved by since acts as a ball.
        width = float(weights[0]) * node.width
        width += float(moves.max(initial=0.0) * node.radii.max()) * expected_chi(size)
        made = self._from(node, weights, size, width)
        if known.leaf is not None:
            times, positions = overlap(eqn, side)
            made.uses.append(_Use(known.leaf, node, math.sqrt(times * known.repeats), positions))
        return made


def _rule_is_derivative(jaxpr: Jaxpr, eqn: JaxprEqn) -> bool:
    """Whether a derivative rule of its own agrees with what is computed, as relu's does, at many points."""
    inner, consts = called_jaxpr(eqn)
    rule = lambda *operands: apply_equation(jaxpr, eqn, list(operands))  # noqa: E731
    plain = jaxpr_as_fun(ClosedJaxpr(inner, consts))
    for seed in range(8):
        keys = jax.random.split(jax.random.key(seed), 2 * len(eqn.invars))
        points, moves = (
            [3.0 * jax.random.normal(k, shape_of(atom)) for k, atom in zip(some, eqn.invars, strict=True)]
            for some in (keys[::2], keys[1::2])
        )
        found, expected = (jax.jvp(fn, points, moves)[1] for fn in (rule, plain))
        if not all(bool(jnp.allclose(a, b, rtol=1e-4, atol=1e-5)) for a, b in zip(found, expected, strict=True)):
            return False
    return True


def _gradient_norm(node: _Node, use: _Use) -> PerCheckpoint:
    return node.cotangents * use.factor * (1.0 if use.source is None else use.source.radii)


def _width_of_use(node: _Node, use: _Use, size: int) -> float:
    """(8.1) or (8.8) for a product, with the ball of the cotangents; never more than the ball of the gradients."""
    ball = float(_gradient_norm(node, use).max()) * expected_chi(size)
    if use.source is None:
        return ball
    cotangent, radius = float(node.cotangents.max()), use.factor * float(use.source.radii.max())
    width, cotangents = use.factor * use.source.width, radius * cotangent * expected_chi(node.size)
    if use.positions:
        return min(ball, comb(cotangent * width, cotangents))
    return min(ball, cotangent * (width + radius / math.sqrt(2 * math.pi)) + cotangents)


def _spread(values: np.ndarray, size: int) -> np.ndarray:
    """The values of each checkpoint laid out over all entries that they are added to."""
    flat = values.reshape(len(values), -1)
    return flat if flat.shape[1] > 1 else np.broadcast_to(flat, (len(flat), size))


def _norms(rows: np.ndarray) -> PerCheckpoint:
    return np.linalg.norm(rows, axis=1)


def _width_of_path(rows: np.ndarray) -> float:
    """Upper bound on the width of T points: half-diameter times what T equally far points would have."""
    if len(rows) == 1:
        return 0.0
    radius = float(_norms(rows - rows[:1]).max())
    return math.sqrt(2) * radius * expected_max_normal(len(rows))
