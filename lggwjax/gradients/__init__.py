"""From a loss to gradients: per sample, projected, and as Gram matrices."""

from lggwjax.gradients.gram import gradient_gram, path_grams
from lggwjax.gradients.per_sample import per_sample_gradients
from lggwjax.gradients.projections import random_projections

__all__ = ["gradient_gram", "path_grams", "per_sample_gradients", "random_projections"]
