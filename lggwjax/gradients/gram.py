"""Gradient Gram matrices: at one point, and per sample along a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.engine import Problem, pose
from lggwjax.gradients.halving import halving
from lggwjax.gradients.layout import Layout, gram_layout, path_layout
from lggwjax.gradients.products import cross_gram, gradient_rows, path_products
from lggwjax.gradients.selection import LossFn, Selection, Wrt
from lggwjax.sharding import gathered, num_shares

MOVE_REFERENCE = 2**-5  # of the distance to the reference: steps shorter than that are taken relative to a nearer one


def gradient_gram(
    loss_fn: LossFn,
    params: PyTree,
    batch: PyTree,
    *,
    wrt: Wrt = None,
    chunk_size: int | None = None,
    max_memory: int | None = None,
    self_check: bool = True,
) -> Float[Array, "n n"]:
    r"""Inner products of the per-sample gradients at one point of parameter space.

    .. math:: K_{ij} = \langle \xi_i, \xi_j \rangle

    From layer factors where the model has them: a dense layer costs its inputs' and its cotangents' inner products, and
    no per-sample gradient is formed.

    Guarantees (up to rounding):
        * Equal to the product of the per-sample gradients with their transpose, whatever ``chunk_size`` and
          ``max_memory`` are.
        * Where the factors of all n samples do not fit, those of two chunks are in memory, and each chunk is
          differentiated again for each pair.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        params: Any pytree.
        batch: n examples along the leading axis.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Examples differentiated at once; by default what fits ``max_memory``.
        max_memory: Bytes that may be used on top of what is there; by default a quarter of the host's memory or half
            of an accelerator's.
        self_check: Compare the factors with ``vmap(grad)`` on two samples, once for each loss and shape.

    Returns:
        The Gram matrix, in squared loss per squared unit of parameter.

    Raises:
        ValueError: See :func:`lggwjax.per_sample_gradients`.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x): return w @ x
        >>> gradient_gram(loss, jnp.zeros(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])).tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """
    problem = pose(loss_fn, params, batch, wrt, self_check=self_check)
    return cloud_gram(problem, [params], batch, chunk_size, max_memory)


def cloud_gram(
    problem: Problem, path: Iterable[PyTree], batch: PyTree, chunk_size: int | None, max_memory: int | None
) -> Float[Array, "N N"]:
    """Inner products between the gradients of all samples at all checkpoints.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        path: T checkpoints.
        batch: n examples.
        chunk_size: Examples differentiated at once, or None.
        max_memory: Bytes, or None.

    Returns:
        The Gram matrix of N = T n gradients, checkpoint by checkpoint.
    """
    num, length = problem.num_samples, sum(1 for _ in path)
    if not problem.engine.held:
        return jnp.zeros((num * length,) * 2)  # the loss does not depend on its parameters
    layout = gram_layout(problem.engine, num * length, chunk_size, max_memory, num_shares(problem.mesh))
    first = min(layout.chunk_size, num)

    def measure(size: int) -> Float[Array, "N N"]:
        return _cloud_gram(problem, path, batch, layout._replace(chunk_size=size, keep=layout.keep and size == first))

    return halving(measure, first)


def cloud_points(
    problem: Problem, path: Iterable[PyTree], batch: PyTree, chunk_size: int | None, max_memory: int | None
) -> Float[Array, "N p"] | None:
    """The gradients of all samples at all checkpoints, where their coordinates are fewer than they themselves.

    Their Gram matrix is then larger than they are and has no full rank: what rounding leaves of the rest would be taken
    for coordinates, and move the draws from one number of devices to another.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        path: T checkpoints.
        batch: n examples.
        chunk_size: Examples differentiated at once, or None.
        max_memory: Bytes, or None.

    Returns:
        N = T n gradients, checkpoint by checkpoint; None where there are not so many.
    """
    held, mesh = problem.engine.held, problem.mesh
    num_points = problem.num_samples * sum(1 for _ in path)
    if not more_points_than_coordinates(problem, num_points):
        return None
    layout = gram_layout(problem.engine, num_points, chunk_size, max_memory, num_shares(mesh))

    def measure(size: int) -> Float[Array, "N p"]:
        blocks = _Blocks(problem, path, batch, size)
        return jnp.concatenate([gathered(gradient_rows(held, arrays), mesh, count) for _, count, arrays in blocks])

    return halving(measure, min(layout.chunk_size, problem.num_samples))


def path_points(
    problem: Problem, path: Iterable[PyTree], batch: PyTree, chunk_size: int | None, max_memory: int | None
) -> Float[Array, "n T p"] | None:
    """Each sample's gradients along a path, where their coordinates are fewer than they; see :func:`cloud_points`.

    Args:
        problem: From :func:`lggwjax.gradients.engine.pose`.
        path: T checkpoints.
        batch: n examples.
        chunk_size: Samples whose gradients at all T checkpoints are held at once, or None.
        max_memory: Bytes, or None.

    Returns:
        T gradients a sample; None where there are not so many.
    """
    held, mesh, length = problem.engine.held, problem.mesh, sum(1 for _ in path)
    if not more_points_than_coordinates(problem, length):
        return None
    layout = path_layout(problem.engine, problem.num_samples, length, chunk_size, max_memory, num_shares(mesh))

    def measure(size: int) -> Float[Array, "n T p"]:
        parts = []
        for _, count, chunk in problem.chunks(batch, size):
            steps = [gradient_rows(held, problem.factors(params, chunk)) for params in path]
            parts.append(jnp.stack([gathered(step, mesh, count) for step in steps], axis=1))
        return jnp.concatenate(parts)

    return halving(measure, layout.chunk_size)


def more_points_than_coordinates(problem: Problem, num_points: int) -> bool:
    """Whether so many gradients, one of them taken as the origin, are more than their coordinates."""
    size = sum(item.size for item in problem.engine.held)
    return 0 < size < num_points - 1


def _cloud_gram(problem: Problem, path: Iterable[PyTree], batch: PyTree, layout: Layout) -> Float[Array, "N N"]:
    held, mesh = problem.engine.held, problem.mesh
    blocks = _Blocks(problem, path, batch, layout.chunk_size)
    if layout.keep:
        parts, counts = [], []
        for _, count, arrays in blocks:
            parts.append(arrays)
            counts.append((count, len(arrays[0])))
        arrays = joined(parts)
        return _counted(gathered(cross_gram(held, arrays, arrays, mesh), mesh), counts)
    rows = []
    for position, count, left in blocks:
        row = []
        for other, other_count, right in blocks:
            block = cross_gram(held, left, left if other == position else right, mesh)
            row.append(_finished(gathered(block, mesh, count)[:, :other_count]))
            del right, block  # before the next are made
            if other == position:
                break
        rows.append(row)
        del left
    return _assembled(rows)


class _Blocks:
    """Factors of one chunk of samples at one checkpoint after another; computed again each time they are asked for."""

    def __init__(self, problem: Problem, path: Iterable[PyTree], batch: PyTree, chunk_size: int):
        self._problem, self._path, self._batch, self._chunk_size = problem, path, batch, chunk_size

    def __iter__(self) -> Iterator[tuple[int, int, list[Array]]]:
        position = 0
        for params in self._path:
            for _, count, chunk in self._problem.chunks(self._batch, self._chunk_size):
                arrays = trimmed(_finished(self._problem.factors(params, chunk)), count, self._problem)
                yield position, count, arrays
                del arrays  # before the next are made
                position += 1


def trimmed(arrays: list[Array], count: int, problem: Problem) -> list[Array]:
    """Cut a pass to the samples that count; on a mesh not yet, as rows that do not divide would lie on every device."""
    return arrays if problem.mesh is not None or count == len(arrays[0]) else [array[:count] for array in arrays]


def _counted(gram: Float[Array, "M M"], counts: list[tuple[int, int]]) -> Float[Array, "N N"]:
    """Leave out samples that only fill up a chunk; ``counts`` say of each chunk how many count, of how many."""
    if all(count == size for count, size in counts):
        return gram
    keep = np.concatenate([np.arange(size) < count for count, size in counts])
    return gram[keep][:, keep]


def joined(parts: list[list[Array]]) -> list[Array]:
    """Factors of several chunks as those of one; an array is let go as soon as it is joined.

    Args:
        parts: Arrays of each chunk; emptied.

    Returns:
        Arrays of all.
    """
    if len(parts) == 1:
        return parts[0]
    whole = []
    while parts[0]:
        whole.append(jnp.concatenate([part.pop(0) for part in parts]))
    return whole


def _finished(found: PyTree) -> PyTree:
    """Wait, so that no pass is begun while the scratch or the factors of the one before are still held."""
    if any(isinstance(array, Tracer) for array in jax.tree.leaves(found)):
        return found
    return jax.block_until_ready(found)


def _assembled(rows: list[list[Array]]) -> Float[Array, "N N"]:
    """The whole matrix from the blocks on and below its diagonal."""
    above = [[rows[j][i].T for j in range(i + 1, len(rows))] for i in range(len(rows))]
    return jnp.concatenate([jnp.concatenate([*row, *rest], 1) for row, rest in zip(rows, above, strict=True)])


class PathGrams(NamedTuple):
    """Per-sample Gram matrices of the differences along a path.

    Attributes:
        grams: One T x T matrix a sample.
        references: For each checkpoint the one it is taken relative to; the first is its own.
    """

    grams: Float[Array, "n T T"]
    references: tuple[int, ...]


def path_grams(
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    *,
    wrt: Wrt = None,
    chunk_size: int | None = None,
    max_memory: int | None = None,
    self_check: bool = True,
) -> PathGrams:
    r"""Per-sample Gram matrices of the gradients along a path, relative to reference checkpoints of it.

    .. math:: G^{(i)}_{st} = \langle \xi_i(\theta_s) - \xi_i(\theta_{r_s}), \,
        \xi_i(\theta_t) - \xi_i(\theta_{r_t}) \rangle

    Their mean over samples is the Gram matrix of the stacked gradient set. The subtraction comes before the product:
    for checkpoints 1e-3 apart a float32 Gram matrix of the gradients themselves is off by 20% in the squared distances.
    The reference is the first checkpoint until a step is short against the distance to it, then the one before the
    step.

    Args:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: T checkpoints of one structure; read once for each chunk of samples.
        batch: n examples along the leading axis.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Samples whose factors at all T checkpoints are held at once; by default what fits ``max_memory``.
        max_memory: Bytes that may be used on top of what is there.
        self_check: See :func:`gradient_gram`.

    Returns:
        One T x T matrix a sample, its row and column 0 equal to zero, and the references.

    Raises:
        ValueError: See :func:`lggwjax.per_sample_gradients`.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x): return 0.5 * (w @ x) ** 2
        >>> path = [jnp.zeros(2), jnp.ones(2)]
        >>> path_grams(loss, path, jnp.array([[1.0, 0.0]])).grams.tolist()
        [[[0.0, 0.0], [0.0, 1.0]]]
    """
    checkpoints = list(path) if isinstance(path, list | tuple) else path
    problem = pose(loss_fn, next(iter(checkpoints)), batch, wrt, self_check=self_check)
    references = moving_references(checkpoints, problem.selection)
    num, length = problem.num_samples, len(references)
    if not problem.engine.held:
        return PathGrams(jnp.zeros((num, length, length)), references)
    shares = num_shares(problem.mesh)
    fitting = path_layout(problem.engine, num, length, chunk_size, max_memory, shares).chunk_size
    whole = halving(lambda size: _path_grams(problem, checkpoints, references, batch, size), fitting)
    # A difference of equal gradients may leave a rounding where the compiler fuses one of them with its product.
    return PathGrams(whole.at[:, 0].set(0).at[:, :, 0].set(0), references)


def _path_grams(
    problem: Problem, checkpoints: Iterable[PyTree], references: tuple[int, ...], batch: PyTree, chunk_size: int
) -> Float[Array, "n T T"]:
    grams, mesh = [], problem.mesh
    for _, count, chunk in problem.chunks(batch, chunk_size):
        steps = [_finished(problem.factors(params, chunk)) for params in checkpoints]
        products = path_products(problem.engine.held, steps, references, num_shares(mesh))
        grams.append(_finished(gathered(products, mesh, count)))
        del steps  # before those of the next chunk are made
    return grams[0] if len(grams) == 1 else jnp.concatenate(grams)


def moving_references(path: Iterable[PyTree], selection: Selection) -> tuple[int, ...]:
    """Choose what each checkpoint's gradients are taken relative to, by distances between parameters.

    In float32 the distance of two checkpoints is lost when it is small against their distance to the reference. Inside
    a trace nothing is known, and the reference stays the first checkpoint.

    Args:
        path: T checkpoints.
        selection: Gradient coordinates.

    Returns:
        T indices, each at most its own; the first is 0.
    """
    references: list[int] = []
    reference = previous = None
    current = 0
    for index, params in enumerate(path):
        leaves = selection.split(params)[0]
        if reference is None or previous is None:
            reference = leaves
        elif is_short_step(leaves, previous, reference):
            reference, current = previous, index - 1
        previous = leaves
        references.append(current)
    return tuple(references)


def is_short_step(leaves: list[Array], previous: list[Array], reference: list[Array]) -> bool:
    """Whether a step is so short against the distance to the reference that the reference should move.

    Args:
        leaves: Coordinates now.
        previous: Coordinates before the step.
        reference: Coordinates of the present reference.

    Returns:
        The answer; no inside a trace, where nothing is known.
    """
    found = _distances(leaves, previous, reference)
    if isinstance(found, Tracer):
        return False
    step, distance = map(float, np.asarray(found))
    return step < MOVE_REFERENCE * distance


@jax.jit
def _distances(leaves: list[Array], previous: list[Array], reference: list[Array]) -> Float[Array, " 2"]:
    def distance(others: list[Array]) -> Array:
        squares = [jnp.sum((a.astype(jnp.float32) - b) ** 2) for a, b in zip(leaves, others, strict=True)]
        return jnp.sqrt(sum(squares))  # pyright: ignore[reportArgumentType]

    return jnp.stack([distance(previous), distance(reference)])
