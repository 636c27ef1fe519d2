"""A question to ask first: is gradient domination plausible here?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree
from scipy import special

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.selection import LossFn, Selection, Wrt, as_partial, batch_size, select
from lggwjax.training.heldout import LARGEST_BLOCK, NUM_BLOCKS, gradient_norm, pass_over

LIMIT = 2.0
"""How many times larger than under convexity a gap may be before the gate says no."""

NEGLIGIBLE = 0.05
"""Gaps below this share of the largest one are passed over: there the loss seen is nearly the least that was seen."""

MIN_HELDOUT = 64


@dataclass(frozen=True)
class Gate:
    """Whether small gradients meant small losses along a path, on samples that took no part in training.

    Attributes:
        verdict: ``yes``, ``no`` or ``undecided``.
        ratios: At each checkpoint the gap to the best one, over the norm of the gradient times the distance to that
            one. A convex loss has at most 1. NaN at the best one.
        low: Lower ends, simultaneous over all checkpoints.
        high: Upper ends; infinite where the gradient cannot be told from 0.
        best: Index of the checkpoint of least held-out loss.
        worst: Index of the checkpoint that decided, or is hardest to decide.
        limit: Largest ratio that counts as plausible.
        confidence: Of all intervals together.
        num_heldout: Held-out samples used.
    """

    verdict: Literal["yes", "no", "undecided"]
    ratios: Float[np.ndarray, " T"]
    low: Float[np.ndarray, " T"]
    high: Float[np.ndarray, " T"]
    best: int
    worst: int
    limit: float
    confidence: float
    num_heldout: int

    def __str__(self) -> str:
        """One sentence that a colleague understands, and what to do."""
        low, high = self.low[self.worst], self.high[self.worst]
        at = f"at checkpoint {self.worst} the ratio is between {low:.2g} and {high:.2g}"
        given = f"(limit {self.limit:g}, {self.num_heldout:,} held-out samples, confidence {self.confidence:g})"
        if self.verdict == "yes":
            return (
                f"Yes, plausible: wherever the loss was clearly above the best one seen, the gradient was large enough "
                f"for it; {at} {given}. This speaks of the points visited and of the best loss seen, not of the least "
                "possible one."
            )
        if self.verdict == "no":
            return (
                f"No: {at} {given}. The gradient there is too small for the loss that is still to be gained: a plateau "
                "or a saddle. Bounds through gradient domination say nothing here."
            )
        return f"Undecided: {at} {given}. Hold out more samples, or train further apart."


def domination_gate(
    loss_fn: LossFn,
    path: Iterable[PyTree],
    heldout: PyTree,
    *,
    wrt: Wrt = None,
    limit: float = LIMIT,
    confidence: float = 0.95,
) -> Gate:
    r"""Ask whether gradient domination is plausible along a path, from a small held-out set.

    .. math:: r_t = \frac{L_D(\theta_t) - L_D(\theta_b)}{|\nabla L_D(\theta_t)| \, |\theta_t - \theta_b|}

    with b the best checkpoint. A convex loss has :math:`r_t \le 1` at every point, and so does any loss that is convex
    along the lines to b; the ratio has no unit, and no rescaling of loss or parameters changes it. Where it is large
    the gradient has gone out before the loss was gained. The best checkpoint is chosen on the first half of the
    held-out samples and everything else estimated on the second; gaps are paired sample by sample, norms unbiased
    (5.4), and the intervals hold together.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: T >= 2 checkpoints.
        heldout: Samples that took no part in training, 64 at least, in random order.
        wrt: Which leaves are gradient coordinates.
        limit: Largest ratio that counts as plausible.
        confidence: Of all intervals together.

    Returns:
        The verdict with its numbers; printed, a sentence.

    Raises:
        ValueError: If there are fewer than 2 checkpoints or 64 samples, or a number is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, z): return 0.5 * jnp.sum((w - z) ** 2)
        >>> heldout = jax.random.normal(jax.random.key(0), (400, 2))
        >>> domination_gate(loss, [jnp.full(2, 4.0), jnp.full(2, 1.0), jnp.zeros(2)], heldout).verdict
        'yes'

    References:
        lggwjax/theory/README.md, section 5.
    """
    checkpoints, num = list(path), batch_size(heldout)
    if len(checkpoints) < 2 or num < MIN_HELDOUT:
        raise ValueError(
            f"Expected at least 2 checkpoints and {MIN_HELDOUT} held-out samples, got {len(checkpoints)} and {num}."
        )
    if not 0 < confidence < 1 or not limit > 0:
        raise ValueError(f"Expected a confidence between 0 and 1 and a positive limit, got {confidence} and {limit}.")
    selection, loss = select(checkpoints[0], wrt), as_partial(loss_fn)
    losses = np.stack([_losses(loss, params, heldout) for params in checkpoints])
    half = num // 2
    best = int(losses[:, :half].mean(1).argmin())
    others = [index for index in range(len(checkpoints)) if index != best]
    # Two intervals a checkpoint, all of which have to hold.
    level = 1 - (1 - confidence) / (2 * len(others))
    rest = jax.tree.map(lambda x: x[half:], heldout)
    ends = np.full((len(checkpoints), 3, 2), np.nan)
    for index in others:
        ends[index, :, 0] = _gap(losses[index, half:] - losses[best, half:], level)
        found = pass_over(loss, None, checkpoints[index], rest, selection, NUM_BLOCKS)
        norm = gradient_norm(found.gradients, level)
        ends[index, :, 1] = np.array([norm.high, norm.value, norm.low]) * _distance(
            selection, checkpoints[index], checkpoints[best]
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        low, ratios, high = (_ratio(ends[:, place, 0], ends[:, place, 1]) for place in range(3))
    counts = [index for index in others if ends[index, 2, 0] > NEGLIGIBLE * np.nanmax(ends[:, 1, 0])]
    return _decided(ratios, low, high, best, counts or others, limit, confidence, num)


def _decided(ratios, low, high, best, counts, limit, confidence, num) -> Gate:
    worst = max(counts, key=lambda index: (low[index] > limit, high[index], ratios[index]))
    verdict = "undecided"
    if low[worst] > limit:
        verdict = "no"
    elif high[worst] <= limit:
        verdict = "yes"
    return Gate(verdict, ratios, low, high, best, worst, limit, confidence, num)


def _ratio(gap: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A gap that is not positive needs no gradient at all."""
    return np.where(gap > 0, gap / scale, np.where(np.isnan(gap), np.nan, 0.0))


def _gap(differences: Float[np.ndarray, " m"], level: float) -> tuple[float, float, float]:
    mean = float(differences.mean())
    half = float(special.stdtrit(len(differences) - 1, 0.5 + level / 2) * differences.std(ddof=1))
    half /= float(np.sqrt(len(differences)))
    return mean - half, mean, mean + half


def _distance(selection: Selection, first: PyTree, second: PyTree) -> float:
    pairs = zip(selection.split(first)[0], selection.split(second)[0], strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2) for a, b in pairs)))


def _losses(loss, params: PyTree, data: PyTree) -> Float[np.ndarray, " m"]:
    num = batch_size(data)
    chunks = iter_chunks(data, num, min(num, LARGEST_BLOCK))
    return np.concatenate(
        [np.asarray(_of_chunk(loss, params, chunk), np.float64)[:count] for _, count, chunk in chunks]
    )


@jax.jit
def _of_chunk(loss, params: PyTree, chunk: PyTree) -> Float[Array, " n"]:
    return jax.vmap(loss, in_axes=(None, 0))(params, chunk)
