"""From a flax nnx model and a loss to ``loss_fn(params, example) -> scalar`` and its companions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from lggwjax.models.features import find_last_layer_input, last_layer_input
from lggwjax.models.layers import Featurized
from lggwjax.models.store import ModelStore

Loss = Literal["cross_entropy", "squared_error"]
Params = dict[str, Any]
FeatureFn = Callable[[Any, Array], Array]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A flax nnx model in the form the library measures and trains; made by :func:`adapt`.

    The functions are made once: each access gives the same objects, as ``jax.jit`` caches by identity.

    Attributes:
        params: ``{"params": ..., "state": ...}``, nested plain dicts of arrays: the ``nnx.Param`` leaves, and all else
            that a checkpoint must hold (batch statistics, random keys as raw integers); ``{}`` where there is none.
        loss_fn: ``(params, example) -> scalar``, with frozen statistics and without dropout.
        predict_fn: ``(params, example) -> (k,)`` logits, measured as the loss is; ``example["y"]`` is not needed.
        feature_fn: ``(params, example) -> (m,)`` features, measured as the loss is.
        train_fn: ``(params, batch) -> (losses (n,), features (n, m), state)`` in train mode; put the new ``state`` in
            place of ``params["state"]``.
        wrt: ``(path, leaf) -> bool``, which leaves of ``params`` are gradient coordinates.
    """

    params: Params
    loss_fn: Callable[[PyTree, PyTree], Float[Array, ""]]
    predict_fn: Callable[[PyTree, PyTree], Float[Array, " k"]]
    feature_fn: Callable[[PyTree, PyTree], Float[Array, " m"]]
    train_fn: Callable[[PyTree, PyTree], tuple[Float[Array, " n"], Float[Array, "n m"], PyTree]]
    wrt: Callable[[tuple, Any], bool]


def is_parameter(path: tuple, leaf: Any) -> bool:  # noqa: ARG001 (the contract passes the leaf)
    """Say whether a leaf of ``Adapted.params`` is a gradient coordinate: it lies under ``"params"``.

    Args:
        path: The leaf's jax key path.
        leaf: The leaf.

    Returns:
        True for ``nnx.Param`` leaves, False for statistics, keys and counters.

    Example:
        >>> import jax
        >>> tree = {"params": {"kernel": 1.0}, "state": {"mean": 0.0}}
        >>> jax.tree_util.tree_map_with_path(is_parameter, tree)
        {'params': {'kernel': True}, 'state': {'mean': False}}
    """
    return bool(path) and getattr(path[0], "key", None) == "params"


def adapt(model: nnx.Module, loss: Loss, feature_fn: FeatureFn | None = None) -> Adapted:
    r"""Adapt a flax nnx model to the one contract, ``loss_fn(params, example) -> scalar``.

    .. math:: \ell = -\log \mathrm{softmax}(f(x))_y \quad\text{or}\quad \ell = \tfrac12 |f(x) - y|^2

    The model sees a batch axis, the example has none: the adapter adds and removes it, so BatchNorm, GroupNorm and the
    rest act as they do in a batch. Measured is what ``model.eval()`` computes (running averages, no dropout), trained
    what ``model.train()`` computes; the model handed in is left as it is.

    Guarantees:
        * ``vmap(loss_fn)`` over a batch is the batched loss of ``model.eval()``.
        * A model of the zoo gives logits and features from one forward pass.

    Args:
        model: A module that maps inputs with a leading batch axis to logits of shape (n, k).
        loss: ``"cross_entropy"`` with integer labels ``y``; ``"squared_error"``, summed over the outputs, with ``y`` of
            the shape of the logits (without axis if there is one output).
        feature_fn: The featurizer, ``(model, x) -> (n, ...)``; a method of the model's class will do. By default a zoo
            model's ``features``, else the input of the last layer with parameters.

    Returns:
        The parameters and the functions on them. An example is ``{"x": ..., "y": ...}``.

    Raises:
        ValueError: If ``model`` is no nnx module, has no floating ``nnx.Param``, or ``loss`` is unknown. The functions
            raise it for inputs, labels or logits of the wrong shape or kind, and for a model whose BatchNorm still
            uses the batch's statistics in evaluation mode.

    Example:
        >>> import jax
        >>> adapted = adapt(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "cross_entropy")
        >>> batch = {"x": jnp.ones((5, 2)), "y": jnp.zeros(5, jnp.int32)}
        >>> jax.vmap(adapted.loss_fn, (None, 0))(adapted.params, batch).shape
        (5,)
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"Expected model to be a flax nnx module, got {type(model).__name__}. "
            "For other frameworks write loss_fn(params, example) yourself: the README shows how."
        )
    if loss not in get_args(Loss):
        raise ValueError(f"Expected loss to be one of {', '.join(get_args(Loss))}, got {loss!r}. Choose one of these.")
    store = ModelStore(model)
    one_pass = feature_fn is None and isinstance(model, Featurized) and type(model).__call__ is Featurized.__call__
    if feature_fn is None and isinstance(model, Featurized):
        feature_fn = type(model).features

    def predict_fn(params: PyTree, example: PyTree) -> Float[Array, " k"]:
        x = _array(example, "x", store)[None]
        return _checked_logits(store.measure(params, lambda measured: measured(x)), 1)[0]

    def loss_fn(params: PyTree, example: PyTree) -> Float[Array, ""]:
        y = _array(example, "y", store)[None]
        return _losses(loss, predict_fn(params, example)[None], y)[0]

    return Adapted(
        params=store.params,
        loss_fn=loss_fn,
        predict_fn=predict_fn,
        feature_fn=last_layer_input(predict_fn) if feature_fn is None else _measured_features(store, feature_fn),
        train_fn=_train_fn(store, loss, feature_fn, one_pass=one_pass),
        wrt=is_parameter,
    )


def _measured_features(store: ModelStore, feature_fn: FeatureFn) -> Callable[[PyTree, PyTree], Array]:
    def measured_features(params: PyTree, example: PyTree) -> Float[Array, " m"]:
        x = _array(example, "x", store)[None]
        return _checked_features(store.measure(params, lambda measured: feature_fn(measured, x)), 1)[0]

    return measured_features


def _train_fn(
    store: ModelStore, loss: Loss, feature_fn: FeatureFn | None, *, one_pass: bool
) -> Callable[[PyTree, PyTree], tuple[Array, Array, PyTree]]:
    def forward(params: PyTree, x: Array) -> tuple[Array, Array, Any]:
        trained: Any = store.train_model(params)
        if one_pass:
            features = trained.features(x)
            return trained.head(features), features, trained
        logits = trained(x)
        # A second pass, from the same statistics and keys, costs nothing under jit: the compiler merges equal work, and
        # drops the features where nobody reads them.
        if feature_fn is not None:
            return logits, feature_fn(store.train_model(params), x), trained
        return logits, find_last_layer_input(lambda p, inputs: store.train_model(p)(inputs), params, x), trained

    def train_fn(params: PyTree, batch: PyTree) -> tuple[Float[Array, " n"], Float[Array, "n m"], PyTree]:
        x, y = _array(batch, "x", store), _array(batch, "y", store)
        if x.ndim == 0:
            raise ValueError("Expected a batch with a leading axis, got a scalar 'x'. Pass x of shape (n, ...).")
        logits, features, trained = forward(params, x)
        losses = _losses(loss, _checked_logits(logits, len(x)), y)
        return losses, _checked_features(features, len(x)), store.state_of(trained)

    return train_fn


def _array(example: PyTree, name: str, store: ModelStore) -> Array:
    if not isinstance(example, Mapping) or example.get(name) is None:
        given = sorted(map(str, example)) if isinstance(example, Mapping) else type(example).__name__
        raise ValueError(f"Expected a dict with an array under {name!r}, got {given}. Pass {{'x': ..., 'y': ...}}.")
    array = jnp.asarray(example[name])
    if name == "x" and array.dtype == jnp.float64 and not store.is_double:
        raise ValueError("Expected 'x' in the parameters' float32, got float64. Cast x, or build a float64 model.")
    return array


def _checked_logits(logits: Array, num_samples: int) -> Array:
    if getattr(logits, "ndim", None) != 2 or logits.shape[0] != num_samples:
        raise ValueError(
            f"Expected the model's logits to have shape ({num_samples}, k), got {_shape(logits)}. "
            "Pass examples without batch axis, and return one row of logits a sample."
        )
    return logits


def _checked_features(features: Array, num_samples: int) -> Float[Array, "n m"]:
    if getattr(features, "ndim", 0) < 1 or features.shape[0] != num_samples:
        raise ValueError(
            f"Expected features to have a leading axis of {num_samples}, got {_shape(features)}. "
            "Name a featurizer that returns one row a sample with feature_fn=."
        )
    return features.reshape(num_samples, -1)


def _shape(value: object) -> object:
    return getattr(value, "shape", type(value).__name__)


def _losses(loss: Loss, logits: Float[Array, "n k"], y: Array) -> Float[Array, " n"]:
    if loss == "cross_entropy":
        if logits.shape[1] < 2 or y.shape != logits.shape[:1] or not jnp.issubdtype(y.dtype, jnp.integer):
            raise ValueError(
                "Expected one integer label a sample and at least 2 logits for cross_entropy, "
                f"got {y.dtype} labels of shape {y.shape[1:]} and {logits.shape[1]} logits. "
                "Pass class numbers, or choose squared_error."
            )
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    if y.shape != logits.shape and not (logits.shape[1] == 1 and y.shape == logits.shape[:1]):
        raise ValueError(
            f"Expected a target of shape {logits.shape[1:]} a sample, as the model's outputs, got {y.shape[1:]}. "
            "Give the model one output for each target."
        )
    return 0.5 * jnp.sum((logits - y.reshape(logits.shape)) ** 2, axis=1)
