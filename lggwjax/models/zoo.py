"""From a description to a model."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from flax import nnx

from lggwjax.models.adapt import Adapted, Loss, adapt
from lggwjax.models.cnn import CNN
from lggwjax.models.ffn import FFN
from lggwjax.models.layers import Featurized
from lggwjax.models.resnet import ResNet
from lggwjax.models.spec import ModelSpec
from lggwjax.models.store import ModelStore

_MODELS: dict[str, type[FFN] | type[CNN] | type[ResNet]] = {
    "ffn": FFN,
    "cnn": CNN,
    "resnet8": ResNet,
    "resnet18": ResNet,
}


def build(spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> Featurized:
    """Build the model that ``spec`` describes.

    Args:
        spec: The description.
        input_shape: Shape of one input without batch axis; ``(height, width, channels)`` for all but ``"ffn"``.
        num_outputs: Number of logits: the classes, or the targets of a regression.
        seed: Seed of the initial kernels, >= 0. The same seed gives the same model.

    Returns:
        A flax nnx module in train mode: ``model(x)`` gives the logits of a batch, ``model.features(x)`` its features.

    Raises:
        ValueError: If ``input_shape`` is not a shape, not that of an image where one is needed, if
            ``num_outputs < 1``, ``seed < 0``, or ``spec.top_k`` exceeds the number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> model = build(ModelSpec("ffn", widths=(16,)), (4,), 3, seed=0)
        >>> model(jnp.ones((2, 4))).shape
        (2, 3)
    """
    if not isinstance(input_shape, tuple) or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise ValueError(f"Expected input_shape as a tuple of integers >= 1, got {input_shape!r}. Leave the batch out.")
    if spec.name != "ffn" and len(input_shape) != 3:
        raise ValueError(
            f"Expected images (height, width, channels) for {spec.name!r}, got inputs of shape {input_shape}. "
            "Choose the model 'ffn'."
        )
    if num_outputs < 1:
        raise ValueError(f"Expected num_outputs >= 1, got {num_outputs}. A model needs an output.")
    if seed < 0:
        raise ValueError(f"Expected seed >= 0, got {seed}. Choose another seed.")
    return _MODELS[spec.name](spec, input_shape, num_outputs, rngs=nnx.Rngs(seed))


def build_adapted(spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, seed: int, loss: Loss) -> Adapted:
    """Build a model in the form the library measures and trains; models that differ in their start share functions.

    ``jax.jit`` caches by identity, so that many seeds or scales of one architecture compile once.

    Args:
        spec: The description.
        input_shape: See :func:`build`.
        num_outputs: The same.
        seed: The same.
        loss: See :func:`lggwjax.models.adapt`.

    Returns:
        What ``adapt(build(...), loss)`` gives.

    Raises:
        ValueError: As :func:`build`.

    Example:
        >>> one, two = (build_adapted(ModelSpec(widths=(4,)), (3,), 2, seed, "cross_entropy") for seed in (0, 1))
        >>> heads = [model.params["params"]["head"]["kernel"] for model in (one, two)]
        >>> one.loss_fn is two.loss_fn, bool((heads[0] == heads[1]).all())
        (True, False)
    """
    params = ModelStore(build(spec, input_shape, num_outputs, seed)).params
    same_start = dataclasses.replace(spec, init_scale=1.0, init="standard")
    return dataclasses.replace(_functions(same_start, input_shape, num_outputs, loss), params=params)


@lru_cache(maxsize=8)
def _functions(spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, loss: Loss) -> Adapted:
    return adapt(build(spec, input_shape, num_outputs, seed=0), loss)
