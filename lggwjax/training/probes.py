"""Widths along a growing path, on one probe: each new checkpoint costs one pass of per-sample gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.directions import random_projections
from lggwjax.gradients.gram import inner_products, sample_products
from lggwjax.gradients.per_sample import flat_gradients
from lggwjax.gradients.selection import Selection, batch_size
from lggwjax.lggw import estimate_nerc, signed_norms
from lggwjax.widths.estimate import Estimate, Moments, WidthEstimate
from lggwjax.widths.factor import factor_gram, factor_moved_gram
from lggwjax.widths.finite import width_from_factor
from lggwjax.widths.streamed import RunningExtremes, update_extremes, width_from_extremes

Route = Literal["stored", "recomputed"]


@dataclass(frozen=True)
class Probe:
    """What is measured on one set of samples along a path; the state of the path is a :class:`ProbePath`.

    Attributes:
        loss: From :func:`lggwjax.gradients.selection.as_partial`.
        selection: Gradient coordinates.
        batch: The n samples.
        chunk_size: Samples differentiated at once.
        capacity: Checkpoints the path may grow to; fixes shapes, and with them the draws.
        num_draws: Directions of each width, and sign vectors.
        route: ``stored`` keeps the gradients of all checkpoints (n p numbers each); ``recomputed`` keeps parameters and
            differentiates again.
        union: Whether the union width is followed too.
    """

    loss: Partial
    selection: Selection
    batch: PyTree
    chunk_size: int
    capacity: int
    num_draws: int
    route: Route
    union: bool

    def gradients(self, params: PyTree) -> Float[Array, "n p"]:
        """One pass of per-sample gradients."""
        return flat_gradients(self.loss, params, self.batch, self.selection, self.chunk_size)

    def start(self, key: Key[Array, ""]) -> ProbePath:
        """The empty path; ``key`` fixes the draws, common to all checkpoints, so that widths grow draw by draw."""
        num = batch_size(self.batch)
        return ProbePath(
            key=key,
            reference=None,
            earlier=(),
            grams=jnp.zeros((num, self.capacity, self.capacity)),
            signed_suprema=jnp.zeros(self.num_draws),
            largest_trace=jnp.zeros(()),
            extremes=RunningExtremes.empty(self.num_draws) if self.union else None,
        )

    def extend(self, path: ProbePath, params: PyTree) -> tuple[ProbePath, ProbeWidths]:
        """Add a checkpoint.

        Args:
            path: Shorter than ``capacity``.
            params: The new checkpoint.

        Returns:
            The longer path, and all widths of it.

        Raises:
            ValueError: If the path is full.
        """
        if path.length == self.capacity:
            raise ValueError(f"Expected at most {self.capacity} checkpoints, got one more. Raise max_checkpoints=.")
        gradients = self.gradients(params)
        reference = gradients if path.reference is None else path.reference
        moved = gradients - reference
        gram = inner_products(gradients, gradients)
        signs = jax.random.rademacher(jax.random.fold_in(path.key, 0), (self.num_draws, gram.shape[0]), gram.dtype)
        extremes = path.extremes
        if extremes is not None:
            points = gradients - reference[:1]
            projections = random_projections(jax.random.fold_in(path.key, 1), points, num_draws=self.num_draws)
            extremes = update_extremes(extremes, projections, jnp.linalg.norm(points, axis=1))
        longer = ProbePath(
            key=path.key,
            reference=reference,
            earlier=(*path.earlier, params if self.route == "recomputed" else moved),
            grams=self._grow(path, moved),
            signed_suprema=jnp.maximum(path.signed_suprema, signed_norms(signs, gram[None])[0]),
            largest_trace=jnp.maximum(path.largest_trace, jnp.trace(gram)),
            extremes=extremes,
        )
        return longer, self._widths(longer, gram)

    def _grow(self, path: ProbePath, moved: Float[Array, "n p"]) -> Float[Array, "n T T"]:
        """Add a row to each sample's Gram matrix; the differences were taken before the products."""
        grams, last = path.grams.astype(moved.dtype), path.length
        # Entry 0 is the reference itself: its row stays zero.
        for index in range(1, last):
            before = path.earlier[index]
            if self.route == "recomputed":
                before = self.gradients(before) - path.reference  # pyright: ignore[reportOperatorIssue]
            row = sample_products(before, moved)
            grams = grams.at[:, index, last].set(row).at[:, last, index].set(row)
        return grams.at[:, last, last].set(sample_products(moved, moved)) if last else grams

    def _widths(self, path: ProbePath, gram: Float[Array, "n n"]) -> ProbeWidths:
        draws = jnp.asarray(self.num_draws, jnp.int32)
        found = _path_widths(path.key, path.grams, gram, path.signed_suprema, path.largest_trace, draws)
        extremes = path.extremes
        return (
            found if extremes is None else replace(found, union=_union_width(extremes, self.capacity * gram.shape[0]))
        )


@dataclass(frozen=True)
class ProbePath:
    """The state of a growing path on one probe.

    Attributes:
        key: Fixes every draw.
        reference: Gradients at the first checkpoint; None before it.
        earlier: For each checkpoint so far its parameters, or its gradients relative to the reference. T entries.
        grams: Per-sample Gram matrices relative to the first checkpoint, zero beyond it. Shape (n, capacity, capacity).
        signed_suprema: Largest signed mean gradient so far for each sign vector. Shape (K,).
        largest_trace: Largest sum of squared gradient norms so far.
        extremes: Projections of the union so far, or None.
    """

    key: Key[Array, ""]
    reference: Float[Array, "n p"] | None
    earlier: tuple[PyTree, ...]
    grams: Float[Array, "n T T"]
    signed_suprema: Float[Array, " K"]
    largest_trace: Float[Array, ""]
    extremes: RunningExtremes | None

    @property
    def length(self) -> int:
        """Checkpoints so far."""
        return len(self.earlier)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProbeWidths:
    """All widths of a path on one probe, and of the cloud of per-sample gradients at its last checkpoint."""

    stacked: WidthEstimate
    single: WidthEstimate
    union: WidthEstimate | None
    cloud: WidthEstimate
    nerc: Estimate
    gradient_rms: Float[Array, ""]


_union_width = jax.jit(
    lambda extremes, max_points: width_from_extremes(extremes, max_points=max_points), static_argnums=1
)


@jax.jit
def _path_widths(key, grams, gram, signed_suprema, largest_trace, num_draws) -> ProbeWidths:
    """All that follows from the Gram matrices; shapes are those of the full path, so it is compiled once."""
    keys = [jax.random.fold_in(key, index) for index in range(2, 5)]
    signed = Moments.empty(dtype=gram.dtype).add(signed_suprema, jnp.ones_like(signed_suprema))
    return ProbeWidths(
        stacked=width_from_factor(keys[0], factor_moved_gram(grams.mean(0)), num_draws=num_draws),
        single=width_from_factor(keys[1], jax.vmap(factor_moved_gram)(grams), num_draws=num_draws),
        union=None,
        cloud=width_from_factor(keys[2], factor_gram(gram), num_draws=num_draws),
        nerc=estimate_nerc(signed, largest_trace, gram.shape[0], num_draws),
        gradient_rms=jnp.sqrt(jnp.trace(gram) / gram.shape[0]),
    )
