"""Single numbers of a trained network: what LGGW is compared with."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lggwjax.data import Batch
from lggwjax.experiments.trained import Trained
from lggwjax.gradients.selection import as_partial, select
from lggwjax.theory.predictors import predictor_measures
from lggwjax.training.files import Json

_POWER_STEPS = 20


def usual_measures(trained: Trained) -> Json:
    """Compute the measures of the last checkpoint that are usually drawn against the generalization gap.

    Args:
        trained: The run.

    Returns:
        ``parameter_norm``, ``distance_from_start``, ``product_of_norms``, ``spectral_complexity``, ``sharpness``,
        ``margin`` (10th percentile over the sample; None for a regression), ``inverse_margin`` and
        ``gradient_variance``.
    """
    params, split = trained.path[-1], trained.prepared.split
    margin = None
    if split.task == "classification":
        margin = float(np.quantile(_margins(trained.scores(params, split.sample), split.sample["y"]), 0.1))
    # Spectral complexity needs a positive margin; where a tenth of the sample is misclassified it has none.
    used = margin if margin is not None and margin > 0 else 1.0
    radius = float(np.linalg.norm(split.sample["x"].reshape(len(split.sample["y"]), -1), axis=1).max())
    norms = predictor_measures(params, trained.path[0], input_radius=radius, margin=used, **trained.options)
    last = trained.records[-1] if trained.records else {}
    variance = None
    if last.get("gradient_rms") is not None:
        variance = max(0.0, last["gradient_rms"] ** 2 - last["grad_norm"] ** 2)
    return {
        "parameter_norm": norms["parameter norm"],
        "distance_from_start": norms["distance from start"],
        "product_of_norms": norms["product of norms"],
        "spectral_complexity": norms["spectral complexity"] if margin is None or margin > 0 else None,
        "sharpness": sharpness(trained, params, trained.probe),
        "margin": margin,
        "inverse_margin": 1 / margin if margin is not None and margin > 0 else None,
        "gradient_variance": variance,
    }


def sharpness(trained: Trained, params: PyTree, batch: Batch) -> float:
    """Largest eigenvalue of the Hessian of the mean loss, by power iteration.

    Args:
        trained: Whose loss.
        params: Where.
        batch: On which samples.

    Returns:
        The eigenvalue of largest modulus (its Rayleigh quotient after 20 steps), in loss per squared parameter.
    """
    loss, selection = as_partial(trained.prepared.model.loss_fn), select(params, trained.prepared.model.wrt)
    return float(_top_eigenvalue(loss, params, batch, selection))


def _top_eigenvalue(loss, params: PyTree, batch: Batch, selection) -> Float[Array, ""]:
    leaves, others = selection.split(params)

    def mean_loss(coordinates):
        return jnp.mean(jax.vmap(loss, (None, 0))(selection.merge(coordinates, others), batch))

    def product(vector):
        return jax.jvp(jax.grad(mean_loss), (leaves,), (vector,))[1]

    def norm(vector):
        return jnp.sqrt(sum(jnp.sum(x**2) for x in vector))

    def step(_, vector):
        moved = product(vector)
        size = jnp.maximum(norm(moved), 1e-30)
        return [x / size for x in moved]

    keys = jax.random.split(jax.random.key(0), len(leaves))
    start = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]

    @jax.jit
    def run(start):
        vector = jax.lax.fori_loop(0, _POWER_STEPS, step, [x / norm(start) for x in start])
        return sum(jnp.vdot(x, y) for x, y in zip(vector, product(vector), strict=True))

    return run(start)


def _margins(scores: Float[np.ndarray, "n k"], labels: np.ndarray) -> Float[np.ndarray, " n"]:
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -math.inf
    return scores[rows, labels] - others.max(1)


def path_rms(records: list[Json]) -> float:
    """Root mean square of the per-sample gradient norms over all measured checkpoints: a path's width is divided by it.

    The rms of the last checkpoint alone goes to 0 where the samples are fitted, and the ratio with it to infinity.
    """
    return math.sqrt(float(np.mean([record["gradient_rms"] ** 2 for record in records])))
