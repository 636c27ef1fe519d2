"""The featurizer of any model, found in its jaxpr: the input of the last layer that has parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, Float, PyTree

from lggwjax.jaxprs import PLAIN_CALLS, REMAT_CALLS, apply_equation, called_jaxpr, holds, inner_jaxprs

_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
# Plain calls are read in place; a scan or a cond cannot be: what it holds runs many times, or never. Calls with a
# derivative of their own are opened only where they hold a product, since opening them loses that derivative.
_CALLS = PLAIN_CALLS | REMAT_CALLS | {"custom_jvp_call", "custom_vjp_call"}


class _Tagged(NamedTuple):
    value: Any
    from_params: bool
    from_data: bool


class _Found:
    """The data operand of the last product of parameters and data seen so far, or why it cannot be had."""

    operand: Array | None = None
    obstacle: str = "no product or convolution of a parameter with the data"


def last_layer_input(predict_fn: Callable[[PyTree, PyTree], Array]) -> Callable[[PyTree, PyTree], Float[Array, " m"]]:
    """Return the featurizer of any predictor: what enters its last layer that has parameters.

    The predictor is traced; its last product or convolution of an operand that depends on ``params`` alone with
    one that depends on the example is the last layer, and the latter operand, flattened, the features. Works for any
    framework, and under ``jit``, ``vmap`` and ``grad``. Under ``jit`` everything after the features is dropped.

    Guarantees:
        * Biases, norms and activations after the last layer change nothing, nor do products of data with data.

    Args:
        predict_fn: ``predict_fn(params, example) -> logits``; the weights must come in through ``params``.

    Returns:
        ``feature_fn(params, example) -> (m,)``, a new function: keep it, as ``jit`` caches by identity. It raises
        ``ValueError`` when the predictor has no such layer or hides it in a loop or a branch.

    Example:
        >>> import jax.numpy as jnp
        >>> predict_fn = lambda params, example: jnp.tanh(example["x"] @ params["hidden"]) @ params["head"]
        >>> params = {"hidden": jnp.eye(2), "head": jnp.ones((2, 3))}
        >>> last_layer_input(predict_fn)(params, {"x": jnp.zeros(2)}).tolist()
        [0.0, 0.0]
    """

    def feature_fn(params: PyTree, example: PyTree) -> Float[Array, " m"]:
        return find_last_layer_input(predict_fn, params, example).ravel()

    return feature_fn


def find_last_layer_input(fn: Callable[[PyTree, PyTree], PyTree], params: PyTree, data: PyTree) -> Array:
    """Evaluate ``fn`` and return the input of its last layer with parameters, in the shape in which it enters.

    Args:
        fn: Any traceable function whose weights come in through ``params``.
        params: Parameters, a pytree of arrays.
        data: One example or a batch, a pytree of arrays.

    Returns:
        The data operand of the last layer.

    Raises:
        ValueError: If ``fn`` has no such layer, or hides it in a loop or a branch.

    Example:
        >>> import jax.numpy as jnp
        >>> find_last_layer_input(lambda w, x: 2 * (x @ w), jnp.ones((2, 1)), jnp.ones((5, 2))).shape
        (5, 2)
    """
    closed = jax.make_jaxpr(fn)(params, data)
    arguments = [_Tagged(leaf, True, False) for leaf in jax.tree.leaves(params)]
    arguments += [_Tagged(leaf, False, True) for leaf in jax.tree.leaves(data)]
    found = _Found()
    _evaluate(closed.jaxpr, closed.consts, arguments, found)
    if found.operand is None:
        raise ValueError(
            f"Expected a last layer that multiplies its input by a parameter, got {found.obstacle}. "
            "Name the featurizer with feature_fn=, and pass the weights through params."
        )
    return found.operand


def _evaluate(jaxpr: Jaxpr, consts: list, arguments: list[_Tagged], found: _Found) -> list[_Tagged]:
    """Evaluate a jaxpr, tagging every value with what it depends on, and keep the last layer's input in ``found``."""
    values = dict(zip(jaxpr.constvars, (_Tagged(const, False, False) for const in consts), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> _Tagged:
        return _Tagged(atom.val, False, False) if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in _PRODUCTS:
            _note_product(operands, found)
        holds_product = any(holds(inner, *_PRODUCTS) for inner in inner_jaxprs(eqn))
        if eqn.primitive.name in PLAIN_CALLS or (holds_product and eqn.primitive.name in _CALLS):
            outputs = _evaluate(*called_jaxpr(eqn), operands, found)
        else:
            if holds_product and any(o.from_params for o in operands) and any(o.from_data for o in operands):
                found.operand, found.obstacle = None, f"one inside the jax primitive '{eqn.primitive.name}'"
            outputs = _apply(jaxpr, eqn, operands)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _note_product(operands: list[_Tagged], found: _Found) -> None:
    for data, weights in (operands, operands[::-1]):
        if data.from_data and weights.from_params and not weights.from_data:
            found.operand = data.value


def _apply(jaxpr: Jaxpr, eqn: JaxprEqn, operands: list[_Tagged]) -> list[_Tagged]:
    results = apply_equation(jaxpr, eqn, [operand.value for operand in operands])
    from_params, from_data = any(o.from_params for o in operands), any(o.from_data for o in operands)
    return [_Tagged(value, from_params, from_data) for value in results]
