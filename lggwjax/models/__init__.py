"""Models (flax nnx), and the adapter from a model and a loss to ``loss_fn(params, example) -> scalar``."""

from lggwjax.models.adapt import Adapted, adapt
from lggwjax.models.features import last_layer_input
from lggwjax.models.layers import Featurized
from lggwjax.models.spec import ModelSpec
from lggwjax.models.zoo import build, build_adapted

__all__ = ["Adapted", "Featurized", "ModelSpec", "adapt", "build", "build_adapted", "last_layer_input"]
