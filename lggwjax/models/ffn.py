"""Fully connected networks; without hidden layers, the linear model."""

from __future__ import annotations

import math

from flax import nnx
from jaxtyping import Array, Float

from lggwjax.models import layers
from lggwjax.models.spec import ModelSpec


class FFN(layers.Featurized):
    r"""A fully connected network on flattened inputs.

    .. math:: h_l = \sigma(\mathrm{norm}(W_l h_{l-1} + b_l)), \qquad f(x) = V h_L + c

    Args:
        spec: The description; ``widths``, ``activation``, ``bias``, ``norm``, ``init_scale`` and ``top_k`` are used.
        input_shape: Shape of one input, flattened before the first layer.
        num_outputs: Number of logits.
        rngs: The random stream of the initial kernels.

    Raises:
        ValueError: If ``spec.top_k`` exceeds the number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> model = FFN(ModelSpec("ffn", widths=(5,)), (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> model(jnp.ones((3, 8, 8, 1))).shape, model.features(jnp.ones((3, 8, 8, 1))).shape
        ((3, 10), (3, 5))
    """

    def __init__(self, spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, *, rngs: nnx.Rngs) -> None:
        width, hidden = math.prod(input_shape), []
        for next_width in spec.widths or ():
            hidden += [layers.dense(spec, width, next_width, rngs=rngs), layers.normalise(spec, next_width, rngs=rngs)]
            hidden.append(layers.ACTIVATIONS[spec.activation])
            width = next_width
        layers.check_top_k(spec, width)
        self.hidden = nnx.Sequential(*hidden)
        self.top_k = spec.top_k
        self.head = layers.head(spec, width, num_outputs, rngs=rngs)

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """Return the last hidden layer; for a model without hidden layers, the flattened input."""
        x = x.reshape(x.shape[0], -1)
        hidden = self.hidden(x) if self.hidden.layers else x
        return layers.keep_largest(hidden, self.top_k)
