"""Reading jaxprs with public means: one equation evaluated as it stands, calls written out in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

PLAIN_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"})
"""Equations that only call another jaxpr once, on exactly their own operands."""

REMAT_CALLS = frozenset({"checkpoint", "remat", "remat2"})
"""Likewise, with the promise to compute again what the backward pass needs."""


def shape_of(atom: Any) -> tuple[int, ...]:
    """Shape of a variable or literal; that of a token or a reference is ()."""
    return tuple(getattr(atom.aval, "shape", ()))


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """Jaxprs that an equation holds: of a call, a loop, the branches of a condition."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                yield item.jaxpr if isinstance(item, ClosedJaxpr) else item


def holds(jaxpr: Jaxpr, *names: str) -> bool:
    """Whether a jaxpr, or one inside it, has an equation of one of these names."""
    return any(
        eqn.primitive.name in names or any(holds(inner, *names) for inner in inner_jaxprs(eqn)) for eqn in jaxpr.eqns
    )


def called_jaxpr(eqn: JaxprEqn) -> tuple[Jaxpr, list]:
    """The one jaxpr that a call holds, and its constants."""
    inner = next(value for value in eqn.params.values() if isinstance(value, (ClosedJaxpr, Jaxpr)))
    return (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, [])


def apply_equation(jaxpr: Jaxpr, eqn: JaxprEqn, operands: list[Any]) -> list[Any]:
    """Evaluate one equation of a jaxpr as it stands, so that custom derivatives inside it stay what they are.

    By way of a jaxpr of this one equation: how an equation's parameters are bound differs between jax versions.

    Args:
        jaxpr: The jaxpr it belongs to.
        eqn: The equation.
        operands: Values of its ``invars``.

    Returns:
        Values of its ``outvars``.
    """
    variables = {a: value for a, value in zip(eqn.invars, operands, strict=True) if not isinstance(a, Literal)}
    alone = jaxpr.replace(
        constvars=[],
        invars=list(variables),
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*variables.values())


def flat_jaxpr(fn: Callable, *args: Any) -> ClosedJaxpr:
    """Trace a function and write out in place every call that is nothing but a call.

    Calls under ``jax.checkpoint`` are written out too: the values are the same, but nothing is computed again.

    Args:
        fn: Traceable.
        *args: Pytrees of arrays or of their shapes.

    Returns:
        A jaxpr on the flattened arguments in which only loops, branches and functions with derivatives of their own
        still hold another.
    """
    closed = jax.make_jaxpr(fn)(*args)
    return jax.make_jaxpr(lambda *leaves: _written_out(closed.jaxpr, closed.consts, list(leaves)))(*closed.in_avals)


def _written_out(jaxpr: Jaxpr, consts: list, arguments: list[Any]) -> list[Any]:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in PLAIN_CALLS | REMAT_CALLS:
            outputs = _written_out(*called_jaxpr(eqn), operands)
        else:
            outputs = apply_equation(jaxpr, eqn, operands)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def select_outputs(closed: ClosedJaxpr, outvars: list[Any]) -> ClosedJaxpr:
    """The jaxpr that returns other variables of it instead, without the equations that these do not need.

    Args:
        closed: A jaxpr.
        outvars: Any of its variables or literals.

    Returns:
        A jaxpr on the same arguments.
    """
    needed = {atom for atom in outvars if not isinstance(atom, Literal)}
    kept = []
    for eqn in reversed(closed.jaxpr.eqns):
        if needed.intersection(eqn.outvars) or eqn.effects:
            kept.append(eqn)
            needed.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    jaxpr = closed.jaxpr.replace(
        eqns=kept[::-1], outvars=outvars, debug_info=closed.jaxpr.debug_info.with_unknown_names()
    )
    return ClosedJaxpr(jaxpr, closed.consts)


# Entry by entry, or only moving entries: the compiler fuses these into what reads them and keeps no array for them.
_FUSED = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "and",
        "broadcast_in_dim",
        "clamp",
        "convert_element_type",
        "copy",
        "cos",
        "div",
        "eq",
        "erf",
        "exp",
        "exp2",
        "expand_dims",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "iota",
        "is_finite",
        "le",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "or",
        "pow",
        "rem",
        "reshape",
        "rev",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sqrt",
        "square",
        "squeeze",
        "stop_gradient",
        "sub",
        "tanh",
        "transpose",
        "pad",
        "slice",
        "optimization_barrier",
        "xor",
    ]
)


def live_bytes(closed: ClosedJaxpr, num_shared: int) -> int:
    """Predict the most bytes that are alive at once when a jaxpr runs, for one sample.

    What is computed entry by entry is taken to be fused and needs the arrays it is computed from; an operand of a
    product, a convolution or a reduction is taken to be an array in memory.

    Args:
        closed: A jaxpr without dead equations; see :func:`select_outputs`.
        num_shared: Leading arguments that belong to all samples; what depends on these alone is not counted.

    Returns:
        Bytes a sample, outputs included.
    """
    size = lambda var: int(np.prod(shape_of(var), dtype=np.int64)) * max(4, var.aval.dtype.itemsize)  # noqa: E731
    roots: dict[Any, frozenset] = {var: frozenset({var}) for var in closed.jaxpr.invars[num_shared:]}
    born: dict[Any, int] = dict.fromkeys(roots, 0)
    last: dict[Any, int] = dict.fromkeys(roots, 0)

    def need(atom: Any, when: int, *, as_array: bool) -> frozenset:
        found = roots.get(atom, frozenset()) if not isinstance(atom, Literal) else frozenset()
        for root in found:
            last[root] = when
        if as_array and found and found != {atom}:
            roots[atom], born[atom] = frozenset({atom}), when
            last[atom] = when
            return roots[atom]
        return found

    end = len(closed.jaxpr.eqns)
    for when, eqn in enumerate(closed.jaxpr.eqns):
        fused = eqn.primitive.name in _FUSED
        sources = [need(atom, when, as_array=not fused and eqn.primitive.name != "reduce_sum") for atom in eqn.invars]
        union = frozenset().union(*sources)
        if not union:
            continue
        for var in eqn.outvars:
            roots[var] = union if fused else frozenset({var})
            if not fused:
                born[var] = last[var] = when
    for atom in closed.jaxpr.outvars:
        need(atom, end, as_array=True)
    changes = np.zeros(end + 2, np.int64)
    for root, start in born.items():
        changes[start] += size(root)
        changes[last[root] + 1] -= size(root)
    return int(np.cumsum(changes).max())


def count_flops(jaxpr: Jaxpr) -> tuple[float, float]:
    """Count the work of a jaxpr: products and convolutions, two operations a multiply-add; a loop counts every turn.

    Returns:
        Operations of products, and of convolutions. A ``while`` loop counts one turn, a branch its dearest.
    """
    products = convolutions = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (lhs_contract, _), _ = eqn.params["dimension_numbers"]
            depth = np.prod([shape_of(eqn.invars[0])[axis] for axis in lhs_contract])
            products += 2.0 * float(np.prod(shape_of(eqn.outvars[0]))) * float(depth)
        elif name == "conv_general_dilated":
            numbers = eqn.params["dimension_numbers"]
            rhs = shape_of(eqn.invars[1])
            window = np.prod(
                [rhs[axis] for axis in numbers.rhs_spec[1:]]
            )  # input features of a group, kernel positions
            convolutions += 2.0 * float(np.prod(shape_of(eqn.outvars[0]))) * float(window)
        inner = [count_flops(item) for item in inner_jaxprs(eqn)]
        if inner and name == "cond":
            inner = [max(inner)]
        turns = float(eqn.params.get("length", 1)) if name == "scan" else 1.0
        products += turns * sum(a for a, _ in inner)
        convolutions += turns * sum(b for _, b in inner)
    return products, convolutions
