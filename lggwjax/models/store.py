"""A flax nnx model as plain nested dicts of arrays, and back, in train mode or as it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jaxtyping import Array, PyTree

_Result = TypeVar("_Result")


class _Collection:
    """Some variables of a model: from nnx state to a nested dict with string keys, and back.

    Plain dicts of plain arrays are what checkpoint libraries, optax and ``jax.tree`` treat alike; flax's list positions
    become strings, and typed random keys the integers they stand for.
    """

    def __init__(self, name: str, state: nnx.State) -> None:
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(state)
        self.name = name
        # The last part of a path is the attribute `value` of the nnx variable: an internal of flax, and always there.
        self._paths = [tuple(jax.tree_util.keystr((k,), simple=True) for k in path[:-1]) for path, _ in leaves]
        self._key_kinds = [jax.random.key_impl(leaf) if _is_key(leaf) else None for _, leaf in leaves]

    def to_dict(self, state: nnx.State) -> dict[str, Any]:
        arrays = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state)]
        return traverse_util.unflatten_dict(dict(zip(self._paths, arrays, strict=True)))

    def to_state(self, nested: dict[str, Any]) -> nnx.State:
        flat = traverse_util.flatten_dict(nested)
        differing = set(self._paths) ^ set(flat)
        if differing:
            raise ValueError(
                f"Expected params[{self.name!r}] to have the leaves of the adapted model, "
                f"got a difference at {'/'.join(map(str, min(differing, key=str)))!r}. Pass params of this very model."
            )
        # nnx would update a numpy array, such as a checkpoint may hold, in place: make it jax's own.
        arrays = [jnp.asarray(flat[path]) for path in self._paths]
        leaves = [
            array if kind is None else jax.random.wrap_key_data(array, impl=kind)
            for array, kind in zip(arrays, self._key_kinds, strict=True)
        ]
        return jax.tree.unflatten(self._structure, leaves)


class ModelStore:
    """Holds the structure of a model, and turns parameters into models.

    Args:
        model: The module; it is neither changed nor kept.

    Raises:
        ValueError: If the model has no ``nnx.Param``, or one that is not floating.

    Attributes:
        params: ``{"params": ..., "state": ...}``, the model's arrays.
        is_double: Whether a parameter is of dtype float64.
    """

    def __init__(self, model: nnx.Module) -> None:
        # A view shares the arrays but has modes of its own, so the model handed in keeps its mode.
        measured, trained = nnx.view(model), nnx.view(model)
        measured.eval()
        trained.train()
        self._measured = nnx.split(measured, nnx.Param, ...)[0]
        self._trained, parameters, rest = nnx.split(trained, nnx.Param, ...)
        self._parameters, self._rest = _Collection("params", parameters), _Collection("state", rest)
        self.params = {"params": self._parameters.to_dict(parameters), "state": self._rest.to_dict(rest)}
        leaves = jax.tree.leaves(parameters)
        strange = next((leaf.dtype for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)), None)
        if not leaves or strange is not None:
            raise ValueError(
                f"Expected a model with nnx.Param leaves of floating dtype, got {strange or 'none'}. "
                "Keep what is not trained by gradients in another nnx.Variable."
            )
        self.is_double = any(leaf.dtype == jnp.float64 for leaf in leaves)

    def train_model(self, params: PyTree) -> nnx.Module:
        """Return the model with these parameters, in train mode."""
        return self._merge(self._trained, params)

    def state_of(self, trained: nnx.Module) -> dict[str, Any]:
        """Return what a forward pass in train mode left beside the parameters, in the form of ``params["state"]``."""
        # A pass may add variables (intermediates): only those the model began with belong to its state.
        known = self._rest.to_state(self.params["state"])
        after = dict(nnx.to_flat_state(nnx.state(trained, nnx.Not(nnx.Param))))
        return self._rest.to_dict(nnx.from_flat_state([(path, after[path]) for path, _ in nnx.to_flat_state(known)]))

    def measure(self, params: PyTree, call: Callable[[Any], _Result]) -> _Result:
        """Apply ``call`` to the model in evaluation mode, and refuse a model that does not stay in it.

        A BatchNorm in train mode replaces its statistics, and that is the one trace it leaves under ``vmap(grad)``.
        """
        model = self._merge(self._measured, params)
        before = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
        result = call(model)
        after = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
        if len(before) != len(after) or any(old is not new for old, new in zip(before, after, strict=True)):
            raise ValueError(
                "Expected BatchNorm to use its running averages when measured, got train mode after model.eval(). "
                "Do not pass use_running_average=False in the call; let train() and eval() set it."
            )
        return result

    def _merge(self, structure: nnx.GraphDef, params: PyTree) -> Any:
        if not isinstance(params, dict) or set(params) != {"params", "state"}:
            raise ValueError(
                f"Expected params to be a dict with the keys 'params' and 'state', got {_describe(params)}. "
                "Start from adapt(...).params."
            )
        return nnx.merge(structure, self._parameters.to_state(params["params"]), self._rest.to_state(params["state"]))


def _describe(params: object) -> str:
    return f"the keys {sorted(map(str, params))}" if isinstance(params, dict) else type(params).__name__


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
