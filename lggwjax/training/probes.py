"""Widths along a growing path, on one probe: each new checkpoint costs one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.engine import Problem
from lggwjax.gradients.gram import is_short_step, joined, more_points_than_coordinates, trimmed
from lggwjax.gradients.halving import halving
from lggwjax.gradients.products import compact, compact_held, cross_gram, gradient_rows, pair_products
from lggwjax.gradients.projections import distances, project_factors
from lggwjax.gradients.sketch import NUM_GROUPS, sketch_factors
from lggwjax.lggw import estimate_nerc, signed_norms
from lggwjax.sharding import gathered
from lggwjax.widths.estimate import Estimate, Moments, WidthEstimate
from lggwjax.widths.factor import ancestor_matrix, factor_gram, factor_moved_gram, factor_points
from lggwjax.widths.finite import width_from_factor
from lggwjax.widths.sketched import SketchedExtremes, SketchedWidth, update_sketched, width_from_sketched
from lggwjax.widths.streamed import RunningExtremes, update_extremes, width_from_extremes

Route = Literal["exact", "sketched"]
SKETCH_SIZE = 32


@dataclass(frozen=True)
class Probe:
    """What is measured on one set of samples along a path; the state of the path is a :class:`ProbePath`.

    Attributes:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        batch: The n samples.
        chunk_size: Samples differentiated at once.
        capacity: Checkpoints the path may grow to on the exact route; fixes shapes, and with them the draws.
        num_draws: Directions of each width, and sign vectors.
        route: ``exact`` keeps the factors of all checkpoints; ``sketched`` keeps an n x d sketch of the first and the
            extremes on each direction: O(n d + K) numbers whatever the path and the model are.
        union: Whether single and union widths are followed too; the exact route only.
        sketch_size: d, numbers a sample.
    """

    problem: Problem
    batch: PyTree
    chunk_size: int
    capacity: int
    num_draws: int
    route: Route
    union: bool
    sketch_size: int = SKETCH_SIZE

    def start(self, key: Key[Array, ""]) -> ProbePath:
        """The empty path; ``key`` fixes the draws, common to all checkpoints, so that widths grow draw by draw."""
        num, exact = self.problem.num_samples, self.route == "exact"
        return ProbePath(
            key=key,
            length=0,
            signed_suprema=jnp.zeros(self.num_draws),
            largest_trace=jnp.zeros(()),
            exact=ExactPath(grams=jnp.zeros((num, self.capacity, self.capacity))) if exact else None,
            extremes=RunningExtremes.empty(self.num_draws) if exact and self.union else None,
            first=None,
            sketched=None if exact else SketchedExtremes.empty(NUM_GROUPS, self.num_draws),
        )

    def extend(self, path: ProbePath, params: PyTree) -> tuple[ProbePath, ProbeWidths]:
        """Add a checkpoint.

        Args:
            path: Shorter than ``capacity``, on the exact route.
            params: The new checkpoint.

        Returns:
            The longer path, and all widths of it.

        Raises:
            ValueError: If the path is full.
        """
        if path.exact is not None and path.length == self.capacity:
            raise ValueError(f"Expected at most {self.capacity} checkpoints, got one more. Raise max_checkpoints=.")
        arrays = self._factors(params)
        num, mesh = self.problem.num_samples, self.problem.mesh
        gram = gathered(cross_gram(self.problem.engine.held, arrays, arrays, mesh), mesh, num)[:, :num]
        rows = self._rows(arrays)
        cloud = gram, rows if more_points_than_coordinates(self.problem, num) else None
        signs = jax.random.rademacher(jax.random.fold_in(path.key, 0), (self.num_draws, gram.shape[0]), gram.dtype)
        longer = replace(
            path,
            length=path.length + 1,
            signed_suprema=jnp.maximum(path.signed_suprema, signed_norms(signs, gram[None])[0]),
            largest_trace=jnp.maximum(path.largest_trace, jnp.trace(gram)),
        )
        if path.exact is None:
            longer = self._sketch(longer, arrays)
            state = longer.key, longer.sketched, longer.signed_suprema, longer.largest_trace
            return longer, _sketched_widths(state, cloud)
        if path.extremes is not None:
            longer = self._project(longer, arrays)
        exact = self._grow(path.exact, params, arrays, rows)
        longer = replace(longer, exact=exact)
        return longer, self._exact_widths(longer, exact, cloud)

    def _rows(self, arrays: list[Array]) -> Float[Array, "n p"] | None:
        """The gradients themselves where a cloud or a path of them has fewer coordinates, see `cloud_points`."""
        num = self.problem.num_samples
        if not more_points_than_coordinates(self.problem, num if self.route == "sketched" else max(num, self.capacity)):
            return None
        return gathered(gradient_rows(self.problem.engine.held, arrays), self.problem.mesh, num)

    def _factors(self, params: PyTree) -> list[Array]:
        """One pass over the probe."""

        def measure(size: int) -> list[Array]:
            chunks = self.problem.chunks(self.batch, size)
            return joined([trimmed(self.problem.factors(params, c), count, self.problem) for _, count, c in chunks])

        return halving(measure, self.chunk_size)

    def _grow(self, path: ExactPath, params: PyTree, arrays: list[Array], rows) -> ExactPath:
        """Add a row to each sample's Gram matrix: products of differences, each taken relative to its reference."""
        held = self.problem.engine.held
        new, compacted = compact(held, arrays), compact_held(held)
        leaves, last = self.problem.selection.split(params)[0], len(path.steps)
        if path.previous is None or path.reference is None:
            few = more_points_than_coordinates(self.problem, self.capacity)
            points = jnp.repeat(rows[:, None], self.capacity, axis=1) if few else None
            return replace(path, steps=(new,), references=(0,), previous=leaves, reference=leaves, points=points)
        reference, of_reference = path.references[-1], path.reference
        if is_short_step(leaves, path.previous, of_reference):
            reference, of_reference = last - 1, path.previous
        steps, references, grams = (*path.steps, new), (*path.references, reference), path.grams
        # Entry 0 is its own reference: its row stays zero.
        for index in range(1, last + 1):
            earlier = steps[index], steps[references[index]]
            products = pair_products(compacted, *earlier, new, steps[reference])
            row = gathered(products, self.problem.mesh, self.problem.num_samples)
            grams = grams.at[:, index, last].set(row).at[:, last, index].set(row)
        points = None if path.points is None else path.points.at[:, last].set(rows)
        return ExactPath(grams, steps, references, leaves, of_reference, points)

    def _project(self, path: ProbePath, arrays: list[Array]) -> ProbePath:
        """Take the gradients of this checkpoint into the union, relative to the first sample's at the first."""
        held, num, mesh = self.problem.engine.held, self.problem.num_samples, self.problem.mesh
        projections = project_factors(self.problem, jax.random.fold_in(path.key, 1), arrays, self.num_draws)
        projections, first = gathered(projections, mesh, num), path.first
        if first is None:
            first = [array[:1] for array in arrays], projections[:1]
        apart = gathered(distances(held, arrays, first[0]), mesh, num)
        extremes = update_extremes(path.extremes, projections - first[1], apart)
        return replace(path, extremes=extremes, first=first)

    def _sketch(self, path: ProbePath, arrays: list[Array]) -> ProbePath:
        """Take the stacked gradient, relative to the first checkpoint's, into the sketched extremes."""
        num = self.problem.num_samples
        key = jax.random.fold_in(path.key, 1)
        sketch = sketch_factors(self.problem, key, arrays, jnp.arange(len(arrays[0])), self.sketch_size)
        sketch = gathered(sketch, self.problem.mesh, num)
        first = sketch if path.first is None else path.first
        point = jnp.moveaxis(sketch - first, 0, 1).reshape(NUM_GROUPS, -1) / jnp.sqrt(float(num))
        seen = update_sketched(path.sketched, jax.random.fold_in(path.key, 2), point)
        return replace(path, first=first, sketched=seen)

    def _exact_widths(self, path: ProbePath, exact: ExactPath, cloud) -> ProbeWidths:
        draws = jnp.asarray(self.num_draws, jnp.int32)
        ancestors = ancestor_matrix(exact.references, self.capacity)
        signed = path.signed_suprema, path.largest_trace
        found = _path_widths(path.key, (exact.grams, exact.points), ancestors, cloud, *signed, draws)
        if path.extremes is None:
            return found
        return replace(found, union=_union_width(path.extremes, self.capacity * self.problem.num_samples))


@dataclass(frozen=True)
class ExactPath:
    """A path of which all factors are kept.

    Attributes:
        grams: Per-sample Gram matrices of differences, zero beyond the path. Shape (n, capacity, capacity).
        steps: Factors at each checkpoint.
        references: For each checkpoint the one it is taken relative to.
        previous: Coordinates of the last checkpoint.
        reference: Coordinates of its reference.
        points: The gradients where the path may have more of them than coordinates, the first beyond the path; or None.
            Shape (n, capacity, p).
    """

    grams: Float[Array, "n T T"]
    steps: tuple[list[Array], ...] = ()
    references: tuple[int, ...] = ()
    previous: list[Array] | None = None
    reference: list[Array] | None = None
    points: Float[Array, "n T p"] | None = None


@dataclass(frozen=True)
class ProbePath:
    """The state of a growing path on one probe.

    Attributes:
        key: Fixes every draw.
        length: Checkpoints so far.
        signed_suprema: Largest signed mean gradient so far for each sign vector. Shape (K,).
        largest_trace: Largest sum of squared gradient norms so far.
        exact: The path itself, on the exact route.
        extremes: Projections of the union so far, or None.
        first: On the exact route the factors and projections of the first gradient, on the sketched one the first
            checkpoint's sketch, shape (n, G, d/G).
        sketched: Extremes of the stacked gradient's sketches, on the sketched route.
    """

    key: Key[Array, ""]
    length: int
    signed_suprema: Float[Array, " K"]
    largest_trace: Float[Array, ""]
    exact: ExactPath | None
    extremes: RunningExtremes | None
    first: Any
    sketched: SketchedExtremes | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProbeWidths:
    """All widths of a path on one probe, and of the cloud of per-sample gradients at its last checkpoint.

    ``single`` and ``union`` are None on the sketched route, which keeps inner products within a sample only, as a mean.
    """

    stacked: WidthEstimate | SketchedWidth
    single: WidthEstimate | None
    union: WidthEstimate | None
    cloud: WidthEstimate
    nerc: Estimate
    gradient_rms: Float[Array, ""]


_union_width = jax.jit(
    lambda extremes, max_points: width_from_extremes(extremes, max_points=max_points), static_argnums=1
)


@jax.jit
def _path_widths(key, path, ancestors, cloud, signed_suprema, largest_trace, num_draws) -> ProbeWidths:
    """All that follows from the Gram matrices; shapes are those of the full path, so it is compiled once."""
    keys = [jax.random.fold_in(key, index) for index in range(2, 5)]
    grams, points = path
    by_gram = jax.vmap(lambda one: factor_moved_gram(one, ancestors))
    each = by_gram(grams) if points is None else jax.vmap(factor_points)(points)
    return ProbeWidths(
        stacked=width_from_factor(keys[0], factor_moved_gram(grams.mean(0), ancestors), num_draws=num_draws),
        single=width_from_factor(keys[1], each, num_draws=num_draws),
        union=None,
        **_of_cloud(keys[2], cloud, signed_suprema, largest_trace, num_draws),
    )


@jax.jit
def _sketched_widths(path_state, cloud) -> ProbeWidths:
    key, sketched, signed_suprema, largest_trace = path_state
    draws = jnp.asarray(len(signed_suprema), jnp.int32)
    return ProbeWidths(
        stacked=width_from_sketched(sketched),
        single=None,
        union=None,
        **_of_cloud(jax.random.fold_in(key, 4), cloud, signed_suprema, largest_trace, draws),
    )


def _of_cloud(key, cloud, signed_suprema, largest_trace, num_draws) -> dict[str, Any]:
    gram, points = cloud
    factor = factor_gram(gram) if points is None else factor_points(points)
    signed = Moments.empty(dtype=gram.dtype).add(signed_suprema, jnp.ones_like(signed_suprema))
    return {
        "cloud": width_from_factor(key, factor, num_draws=num_draws),
        "nerc": estimate_nerc(signed, largest_trace, gram.shape[0], num_draws),
        "gradient_rms": jnp.sqrt(jnp.trace(gram) / gram.shape[0]),
    }
