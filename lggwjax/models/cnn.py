"""A small convolutional network for images of any size."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from lggwjax.models import layers
from lggwjax.models.spec import ModelSpec


class CNN(layers.Featurized):
    """Two 3 x 3 convolutions of stride 2, then dense layers.

    Strides instead of pooling: every layer with parameters is a plain convolution or product, any image size works,
    and measuring costs least where there are few positions.

    Args:
        spec: The description; all fields but ``residual`` are used.
        input_shape: ``(height, width, channels)``.
        num_outputs: Number of logits.
        rngs: The random stream of the initial kernels.

    Raises:
        ValueError: If ``spec.top_k`` exceeds the number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> model = CNN(ModelSpec("cnn", widths=(5,), base_width=4), (8, 8, 1), 10, rngs=nnx.Rngs(0))
        >>> model(jnp.ones((3, 8, 8, 1))).shape, model.features(jnp.ones((3, 8, 8, 1))).shape
        ((3, 10), (3, 5))
    """

    def __init__(self, spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, *, rngs: nnx.Rngs) -> None:
        height, width, channels = input_shape
        base_width, activation = spec.base_width or 1, layers.ACTIVATIONS[spec.activation]
        convolutions = []
        for next_channels in (base_width, 2 * base_width):
            convolutions.append(layers.conv(spec, channels, next_channels, stride=2, rngs=rngs))
            convolutions += [layers.normalise(spec, next_channels, rngs=rngs), activation]
            height, width, channels = -(-height // 2), -(-width // 2), next_channels
        size, hidden = height * width * channels, []
        for next_size in spec.widths or ():
            hidden += [layers.dense(spec, size, next_size, rngs=rngs), layers.normalise(spec, next_size, rngs=rngs)]
            hidden.append(activation)
            size = next_size
        layers.check_top_k(spec, size)
        self.convolutions, self.hidden = nnx.Sequential(*convolutions), nnx.Sequential(*hidden)
        self.top_k = spec.top_k
        self.head = layers.head(spec, size, num_outputs, rngs=rngs)

    def features(self, x: Float[Array, "n height width channels"]) -> Float[Array, "n m"]:
        """Return the last hidden dense layer; without one, the flattened output of the convolutions."""
        x = self.convolutions(x)
        x = x.reshape(x.shape[0], -1)
        hidden = self.hidden(x) if self.hidden.layers else x
        return layers.keep_largest(hidden, self.top_k)
