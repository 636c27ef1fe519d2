"""Residual networks for small images, with their skip connections or without."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Array, Float

from lggwjax.models import layers
from lggwjax.models.spec import ModelSpec

BLOCKS: dict[str, tuple[int, ...]] = {"resnet8": (1, 1, 1), "resnet18": (2, 2, 2, 2)}
"""Blocks in each stage; every stage but the first halves the image and doubles the channels."""


class Block(nnx.Module):
    """Two 3 x 3 convolutions, added to their input if ``spec.residual``.

    Args:
        spec: The description of the network.
        num_inputs: Channels that come in.
        num_outputs: Channels that go out.
        stride: Stride of the first convolution. Where shape or channels change, the shortcut is a 1 x 1 convolution.
        rngs: The random stream of the initial kernels.
    """

    def __init__(self, spec: ModelSpec, num_inputs: int, num_outputs: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.activation = layers.ACTIVATIONS[spec.activation]
        self.branch = nnx.Sequential(
            layers.conv(spec, num_inputs, num_outputs, stride=stride, rngs=rngs),
            layers.normalise(spec, num_outputs, rngs=rngs),
            self.activation,
            layers.conv(spec, num_outputs, num_outputs, rngs=rngs),
            layers.normalise(spec, num_outputs, rngs=rngs),
        )
        self.residual = spec.residual
        self.shortcut = nnx.Sequential(nnx.identity)
        if spec.residual and (stride != 1 or num_inputs != num_outputs):
            self.shortcut = nnx.Sequential(
                layers.conv(spec, num_inputs, num_outputs, size=1, stride=stride, rngs=rngs),
                layers.normalise(spec, num_outputs, rngs=rngs),
            )

    def __call__(self, x: Float[Array, "n height width channels"]) -> Float[Array, "n height width channels"]:
        """Return the activation of branch plus shortcut."""
        branch = self.branch(x)
        return self.activation(branch + self.shortcut(x) if self.residual else branch)


class ResNet(layers.Featurized):
    """A ResNet in its form for small images: a 3 x 3 stem without pooling, stages of blocks, the mean over positions.

    Args:
        spec: The description, named ``"resnet8"`` or ``"resnet18"``; all fields but ``widths`` are used.
        input_shape: ``(height, width, channels)``.
        num_outputs: Number of logits.
        rngs: The random stream of the initial kernels.

    Raises:
        ValueError: If ``spec.top_k`` exceeds the number of features.

    Example:
        >>> import jax.numpy as jnp
        >>> model = ResNet(ModelSpec("resnet8", base_width=4), (8, 8, 3), 10, rngs=nnx.Rngs(0))
        >>> model(jnp.ones((2, 8, 8, 3))).shape, model.features(jnp.ones((2, 8, 8, 3))).shape
        ((2, 10), (2, 16))
    """

    def __init__(self, spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int, *, rngs: nnx.Rngs) -> None:
        channels = spec.base_width or 1
        stem = layers.conv(spec, input_shape[-1], channels, rngs=rngs)
        norm = layers.normalise(spec, channels, rngs=rngs)
        blocks = []
        for stage, num_blocks in enumerate(BLOCKS[spec.name]):
            for position in range(num_blocks):
                next_channels = (spec.base_width or 1) * 2**stage
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(Block(spec, channels, next_channels, stride, rngs=rngs))
                channels = next_channels
        layers.check_top_k(spec, channels)
        self.body = nnx.Sequential(stem, norm, layers.ACTIVATIONS[spec.activation], *blocks)
        self.top_k = spec.top_k
        self.head = layers.head(spec, channels, num_outputs, rngs=rngs)

    def features(self, x: Float[Array, "n height width channels"]) -> Float[Array, "n m"]:
        """Return the last block's output, averaged over positions."""
        return layers.keep_largest(self.body(x).mean(axis=(1, 2)), self.top_k)
