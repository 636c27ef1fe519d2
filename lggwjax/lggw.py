"""The paper's gradient sets along a path of checkpoints: LGGW, single-sample widths and NERC."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key, PyTree

from lggwjax.gradients.engine import Problem, pose
from lggwjax.gradients.gram import cloud_gram, cloud_points, gradient_gram, path_grams, path_points
from lggwjax.gradients.halving import halving
from lggwjax.gradients.layout import Layout, stream_layout
from lggwjax.gradients.projections import distances, project_by_jvp, project_factors
from lggwjax.gradients.selection import LossFn, Wrt, as_partial, batch_size, select
from lggwjax.gradients.signed import signed_mean_norms
from lggwjax.planner import forecast_if_logged, prefers_gram
from lggwjax.sharding import for_directions, gathered, num_shares
from lggwjax.widths.estimate import Estimate, Moments, WidthEstimate
from lggwjax.widths.factor import Factor, ancestor_matrix, factor_gram, factor_moved_gram, factor_points, is_narrow
from lggwjax.widths.finite import (
    DRAWS_PER_BLOCK,
    Sampler,
    check_num_draws,
    draws_for,
    require_finite,
    width_from_factor,
)
from lggwjax.widths.streamed import RunningExtremes, update_extremes, width_from_extremes

Kind = Literal["stacked", "single", "union"]
_STREAMED_DRAWS = 512
_SETS_BESIDE = 64  # single-sample sets whose draws are held at once
_WHAT_OVERFLOWS = "inner products of gradients (sample, checkpoint, checkpoint)"


def lggw(
    key: Key[Array, ""],
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    kind: Kind = "stacked",
    *,
    num_draws: int | None = None,
    tolerance: float | None = None,
    sampler: Sampler = "iid",
    wrt: Wrt = None,
    chunk_size: int | None = None,
    max_memory: int | None = None,
    self_check: bool = True,
) -> WidthEstimate:
    r"""Estimate the Loss Gradient Gaussian Width of a path of checkpoints on a batch of samples.

    ========= =====================================================================  =======================
    kind      gradient set                                                            what is returned
    ========= =====================================================================  =======================
    stacked   :math:`\{n^{-1/2}(\xi(\theta; z_1), \dots, \xi(\theta; z_n)) : \theta\}`  its width: the LGGW
    single    :math:`\{\xi(\theta; z_i) : \theta\}`, one set a sample                 the mean of the n widths
    union     :math:`\{\xi(\theta; z_i) : \theta, i\}`                                its width
    ========= =====================================================================  =======================

    The width of the checkpoints looked at is, on average, a lower bound on the width over all parameters in between. It
    describes the samples measured: for a path trained on these same samples it certifies nothing about the population.

    Guarantees (for a fixed ``key``, up to rounding):
        * ``stacked`` lies between the largest single width / sqrt(n) and the sum of the single widths / sqrt(n), in
          expectation.
        * The result does not depend on ``chunk_size``, on the number of devices (samples are divided among all that
          there are, see :mod:`lggwjax.sharding`), nor on ``max_memory`` while the route is the same.
        * Scaling the loss by ``s`` scales the width by ``|s|``.

    Args:
        key: One PRNG key, consumed here.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: Checkpoints of one structure: a sequence, or an object that can be iterated again and again and loads
            lazily. To measure one checkpoint pass ``[params]``.
        batch: n examples along the leading axis.
        kind: Which gradient set.
        num_draws: Gaussian directions. Default 1024 (512 where a union is streamed).
        tolerance: Relative standard error asked for, instead of ``num_draws``; outside ``jit`` only.
        sampler: ``"iid"`` or ``"rqmc"`` (on the host; not where a union is streamed), see
            :func:`lggwjax.gaussian_width`.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Samples differentiated at once; by default what fits ``max_memory``.
        max_memory: Bytes that may be used on top of what is there; by default a quarter of the host's memory or half
            of an accelerator's. A union whose Gram matrix would take longer or does not fit is streamed past
            directions of p coordinates; :func:`lggwjax.plan` says which.
        self_check: Compare the layer factors with ``vmap(grad)`` on two samples, once for each loss and shape.

    Returns:
        The estimate, in loss per unit of parameter. ``counts`` say how often each checkpoint attained the supremum (for
        ``union`` each pair of checkpoint and sample, checkpoint by checkpoint).

    Raises:
        ValueError: If the checkpoints differ in structure or shape, ``kind`` is unknown, or the loss is not a scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x): return 0.5 * jnp.sum((w - x) ** 2)
        >>> path = [jnp.zeros(2), jnp.array([3.0, 4.0])]
        >>> width = lggw(jax.random.key(0), loss, path, jnp.ones((7, 2)))
        >>> bool(abs(width.value - 5 / jnp.sqrt(2 * jnp.pi)) <= 4 * width.stderr + width.rounding)
        True

    References:
        Banerjee, Li, Zhou (2025), arXiv:2406.07712; lggwjax/theory/README.md, sections 0 and 3.
    """
    path = check_path(path)
    if kind not in ("stacked", "single", "union"):
        raise ValueError(f'Expected kind "stacked", "single" or "union", got {kind!r}.')
    if tolerance is not None and num_draws is not None:
        raise ValueError("Expected num_draws or tolerance, got both. Pass one of them.")
    forecast = forecast_if_logged(loss_fn, path, batch, kind, num_draws, wrt, chunk_size, max_memory)
    if kind == "union":
        width = _union_width(
            key, loss_fn, path, batch, num_draws, tolerance, sampler, wrt, chunk_size, max_memory, self_check
        )
    else:
        factor = _path_factor(kind, loss_fn, path, batch, wrt, chunk_size, max_memory, self_check)
        width = width_from_factor(key, factor, num_draws=num_draws, tolerance=tolerance, sampler=sampler)
    if forecast is not None:
        forecast.log_outcome(width)
    return width


def _path_factor(kind, loss_fn, path, batch, wrt, chunk_size, max_memory=None, self_check=True) -> Factor:
    """Coordinates of the stacked set, or of each sample's own set."""
    _warn_if_one(path, kind)
    if kind == "single":
        problem = pose(loss_fn, next(iter(path)), batch, wrt, self_check=self_check)
        points = path_points(problem, path, batch, chunk_size, max_memory)
        if points is not None:
            require_finite("gradients (sample, checkpoint, coordinate)", points)
            return jax.vmap(factor_points)(points)
    grams, references = path_grams(
        loss_fn, path, batch, wrt=wrt, chunk_size=chunk_size, max_memory=max_memory, self_check=self_check
    )
    require_finite(_WHAT_OVERFLOWS, grams)
    ancestors = ancestor_matrix(references)
    if kind == "single":
        return jax.vmap(lambda gram: factor_moved_gram(gram, ancestors))(grams)
    return factor_moved_gram(grams.mean(0), ancestors)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SingleWidths:
    """Single-sample widths of n samples, by directions common to them.

    Attributes:
        widths: n estimates as one: each field has a leading axis n.
        mean: Their mean, with the error bar of that mean.
        largest: The width of the sample that was widest on one half of the draws, estimated on the other half.
        largest_index: That sample.
    """

    widths: WidthEstimate
    mean: WidthEstimate
    largest: WidthEstimate
    largest_index: Int[Array, ""]


def single_widths(
    key: Key[Array, ""],
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    *,
    num_draws: int = 1024,
    wrt: Wrt = None,
    chunk_size: int | None = None,
) -> SingleWidths:
    r"""Estimate the width of every sample's own gradient set :math:`\{\xi(\theta; z_i) : \theta\}`.

    Args:
        key: One PRNG key, consumed here.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: Checkpoints of one structure, see :func:`lggw`.
        batch: n examples along the leading axis.
        num_draws: Gaussian directions, common to all samples; at least 4.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Samples whose gradients are held at once.

    Returns:
        All n widths, their mean, and the largest. The maximum of n noisy estimates is too large on average, so the
        largest is chosen on one half of the draws and estimated on the other.

    Raises:
        ValueError: If ``num_draws < 4``, or as :func:`lggw`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x): return 0.5 * x * jnp.sum(w**2)
        >>> found = single_widths(jax.random.key(0), loss, [jnp.zeros(2), jnp.ones(2)], jnp.array([1.0, 3.0, 2.0]))
        >>> int(found.largest_index), found.widths.value.shape
        (1, (3,))
    """
    path = check_path(path)
    if not isinstance(num_draws, Tracer) and num_draws < 4:
        raise ValueError(f"Expected num_draws >= 4, got {num_draws}. Half of the draws choose, half estimate.")
    factors = _path_factor("single", loss_fn, path, batch, wrt, chunk_size)
    all_key, choose_key, estimate_key = jax.random.split(key, 3)

    def each(key: Key[Array, ""], num: int | Int[Array, ""]) -> WidthEstimate:
        width = lambda factor: width_from_factor(key, factor, num_draws=num)  # noqa: E731
        return jax.lax.map(width, factors, batch_size=_SETS_BESIDE)

    chosen = each(choose_key, num_draws // 2).value.argmax()
    return SingleWidths(
        widths=each(all_key, num_draws),
        mean=width_from_factor(all_key, factors, num_draws=num_draws),
        largest=width_from_factor(estimate_key, jax.tree.map(lambda x: x[chosen], factors), num_draws=num_draws // 2),
        largest_index=chosen,
    )


def nerc(
    key: Key[Array, ""],
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    *,
    num_draws: int = 1024,
    wrt: Wrt = None,
    chunk_size: int | None = None,
    by: Literal["gram", "gradients"] = "gram",
) -> Estimate:
    r"""Estimate the normed empirical Rademacher complexity of the gradients along a path.

    .. math:: \mathbb{E}_\epsilon \sup_\theta \Big\| \tfrac1n \sum_i \epsilon_i \, \xi(\theta; z_i) \Big\|_2
        = \tfrac1n \, \mathbb{E}_\epsilon \sup_\theta \sqrt{\epsilon^\top K_\theta \epsilon}

    with :math:`K_\theta` the gradient Gram matrix. It does not vanish for a path of one checkpoint.

    Guarantees:
        * At least ``max rms / sqrt(2 n)``, in expectation; for one checkpoint at most ``rms / sqrt(n)``.

    Args:
        key: One PRNG key, consumed here.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: Checkpoints of one structure, see :func:`lggw`.
        batch: n examples along the leading axis.
        num_draws: Sign vectors, at least 2; may be traced.
        wrt: Which leaves are gradient coordinates; by default all floating ones.
        chunk_size: Gradients held at once; with ``gradients``, samples of one pass.
        by: ``gram`` multiplies sign vectors with one Gram matrix a checkpoint. ``gradients`` makes one backward pass of
            :math:`\sum_i \epsilon_i \ell_i` for each sign vector and checkpoint: for few draws on many samples. Both
            take the same signs from a key and give the same estimate up to rounding.

    Returns:
        The estimate, in loss per unit of parameter.

    Raises:
        ValueError: As :func:`lggw`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(w, x): return w @ x
        >>> float(nerc(jax.random.key(0), loss, [jnp.zeros(2)], jnp.array([[3.0, 4.0]])).value)
        5.0

    References:
        Banerjee, Li, Zhou (2025), arXiv:2406.07712; lggwjax/theory/README.md, section 3.
    """
    path = check_path(path)
    drawn = check_num_draws(num_draws)
    if by == "gradients":
        return _nerc_by_gradients(key, loss_fn, path, batch, num_draws, wrt, chunk_size)
    if by != "gram":
        raise ValueError(f"Expected by to be 'gram' or 'gradients', got {by!r}.")
    grams = jnp.stack([gradient_gram(loss_fn, params, batch, chunk_size=chunk_size, wrt=wrt) for params in path])
    require_finite("inner products of gradients", grams)
    largest = jnp.trace(grams, axis1=-2, axis2=-1).max()
    return estimate_nerc(_nerc_moments(key, grams, drawn), largest, grams.shape[-1], drawn)


def _nerc_by_gradients(key, loss_fn, path, batch, num_draws, wrt, chunk_size) -> Estimate:
    if isinstance(num_draws, Tracer):
        raise ValueError("Expected a plain number of draws for by='gradients', got a traced one. Use by='gram'.")
    num = batch_size(batch)
    loss, selection = as_partial(loss_fn), select(next(iter(path)), wrt)
    moments, largest = Moments.empty(), jnp.zeros(())
    for index in range(-(-num_draws // DRAWS_PER_BLOCK)):
        count = min(DRAWS_PER_BLOCK, num_draws - index * DRAWS_PER_BLOCK)
        signs = _signs(key, index, num, jnp.result_type(float))[:count]
        norms = jnp.stack([signed_mean_norms(loss, params, batch, signs, selection, chunk_size) for params in path])
        require_finite("signed gradients", norms)
        moments = moments.add(norms.max(0), jnp.ones(count))
        largest = jnp.maximum(largest, num * jnp.max(norms) ** 2)
    return estimate_nerc(moments, num * largest, num, jnp.asarray(num_draws, jnp.int32))


def estimate_nerc(
    moments: Moments, largest_trace: Float[Array, ""], num_samples: int, num_draws: int | Int[Array, ""]
) -> Estimate:
    """Put a NERC together from its draws; the largest trace of a Gram matrix sets the rounding allowance."""
    drawn = jnp.asarray(num_draws, jnp.int32)
    rounding = 16 * jnp.finfo(moments.mean.dtype).eps * jnp.sqrt(largest_trace / num_samples)
    return Estimate(moments.mean, moments.stderr, drawn, drawn, rounding)


@jax.jit
def signed_norms(signs: Float[Array, "b n"], grams: Float[Array, "T n n"]) -> Float[Array, "T b"]:
    """|(1/n) sum_i eps_i xi_i| for each sign vector and checkpoint, from the Gram matrices."""
    squares = jnp.einsum("bi,tij,bj->tb", signs, grams, signs, precision=jax.lax.Precision.HIGHEST)
    return jnp.sqrt(jnp.maximum(squares, 0)) / grams.shape[-1]


def _signs(key: Key[Array, ""], index: int | Int[Array, ""], num: int, dtype) -> Float[Array, "b n"]:
    return jax.random.rademacher(jax.random.fold_in(key, index), (DRAWS_PER_BLOCK, num), dtype)


@jax.jit
def _nerc_moments(key, grams: Float[Array, "T n n"], num_draws: Int[Array, ""]) -> Moments:
    def block(index, moments):
        signs = _signs(key, index, grams.shape[-1], grams.dtype)
        keep = index * DRAWS_PER_BLOCK + jnp.arange(DRAWS_PER_BLOCK) < num_draws
        return moments.add(signed_norms(signs, grams).max(0), keep.astype(grams.dtype))

    num_blocks = (num_draws + DRAWS_PER_BLOCK - 1) // DRAWS_PER_BLOCK
    return jax.lax.fori_loop(0, num_blocks, block, Moments.empty(dtype=grams.dtype))


def _union_width(
    key, loss_fn, path, batch, num_draws, tolerance, sampler, wrt, chunk_size, max_memory, self_check
) -> WidthEstimate:
    """Width of all gradients of all checkpoints and samples: from their Gram matrix, or streamed past directions."""
    problem = pose(loss_fn, next(iter(path)), batch, wrt, self_check=self_check)
    length = sum(1 for _ in path)
    # Streamed directions are counted in Python: a traced count, and Sobol points, need the Gram matrix.
    needs_gram = isinstance(num_draws, Tracer) or sampler == "rqmc"
    draws = _STREAMED_DRAWS
    if num_draws is not None and not isinstance(num_draws, Tracer):
        check_num_draws(num_draws)
        draws = int(num_draws)
    shares = num_shares(problem.mesh)
    if needs_gram or prefers_gram(problem.engine, problem.num_samples, length, draws, chunk_size, max_memory, shares):
        points = cloud_points(problem, path, batch, chunk_size, max_memory)
        if points is None:
            gram = cloud_gram(problem, path, batch, chunk_size, max_memory)
            require_finite("inner products of gradients", gram)
            factor = factor_gram(gram)
        else:
            require_finite("gradients", points)
            factor = factor_points(points)
        # Gradients that hardly differ: float32 has lost their distances to their norms, and subtracting comes first.
        if needs_gram or not is_narrow(factor, factor.rows.dtype):
            return width_from_factor(key, factor, num_draws=num_draws, tolerance=tolerance, sampler=sampler)
    problem = problem._replace(mesh=for_directions(problem.mesh, problem.num_samples))
    shares = num_shares(problem.mesh)
    layout = stream_layout(problem.engine, problem.num_samples, length, draws, chunk_size, max_memory, shares)
    if tolerance is not None:
        key, pilot_key = jax.random.split(key)
        draws = draws_for(_streamed_width(pilot_key, problem, path, batch, DRAWS_PER_BLOCK, layout), tolerance)
    return _streamed_width(key, problem, path, batch, draws, layout)


def _streamed_width(
    key, problem: Problem, path: Iterable[PyTree], batch: PyTree, num_draws: int, layout: Layout
) -> WidthEstimate:
    """Project chunk by chunk and keep the largest and smallest projection on each direction."""
    measure = lambda size: _streamed(key, problem, path, batch, num_draws, layout._replace(chunk_size=size))  # noqa: E731
    return halving(measure, layout.chunk_size)


def _streamed(
    key, problem: Problem, path: Iterable[PyTree], batch: PyTree, num_draws: int, layout: Layout
) -> WidthEstimate:
    extremes = RunningExtremes.empty(num_draws)
    reference, length, largest = None, 0, jnp.zeros(())
    for params in path:
        length += 1
        for _, count, chunk in problem.chunks(batch, layout.chunk_size):
            arrays = problem.factors(params, chunk)
            if layout.route == "jvp":
                projections = project_by_jvp(problem, key, params, chunk, num_draws)
            else:
                projections = project_factors(problem, key, arrays, num_draws)
            projections = gathered(projections, problem.mesh, count)
            if reference is None:
                reference = [array[:1] for array in arrays], projections[:1]
            held, zero = problem.engine.held, [jnp.zeros_like(array) for array in reference[0]]
            norms, apart = (gathered(distances(held, arrays, one), problem.mesh, count) for one in (zero, reference[0]))
            largest = jnp.maximum(largest, norms.max())
            extremes = update_extremes(extremes, projections - reference[1], apart)
    found = width_from_extremes(extremes, max_points=length * problem.num_samples)
    # Projections are subtracted, not gradients: their rounding is relative to the norms.
    return replace(found, rounding=found.rounding + 32 * jnp.finfo(largest.dtype).eps * largest)


class _Path:
    """Checkpoints, checked as they are read: one structure, shapes and dtypes throughout."""

    def __init__(self, checkpoints: Iterable[PyTree]):
        self._checkpoints = checkpoints

    def __iter__(self) -> Iterator[PyTree]:
        first = None
        for index, params in enumerate(self._checkpoints):
            form = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), params)
            form = (jax.tree.structure(params), jax.tree.leaves(form, is_leaf=lambda x: isinstance(x, tuple)))
            first = form if first is None else first
            if form != first:
                raise ValueError(
                    f"Expected checkpoints of one structure, shapes and dtypes, got an entry {index} that differs from "
                    "the first. To measure one checkpoint pass [params]."
                )
            yield params


def check_path(path: Iterable[PyTree]) -> _Path:
    """Refuse what is no path of checkpoints; entries are checked as they are read.

    Args:
        path: A sequence of checkpoints, or an object that can be iterated again and again.

    Returns:
        The path, re-iterable.

    Raises:
        ValueError: If it is empty, a single pytree of parameters, or an iterator that can be read only once.
    """
    if isinstance(path, _Path):
        return path
    if isinstance(path, Mapping) or hasattr(path, "shape") or not isinstance(path, Iterable):
        raise ValueError(
            f"Expected a sequence of checkpoints, got {type(path).__name__}. To measure one checkpoint pass [params]."
        )
    if isinstance(path, Iterator):
        raise ValueError("Expected a path that can be read more than once, got an iterator. Pass list(path).")
    if next(iter(path), None) is None:
        raise ValueError("Expected a path of at least one checkpoint, got none.")
    checked = _Path(path)
    if isinstance(path, list | tuple):
        for _ in checked:  # nothing is loaded here, so a wrong entry is refused before anything is computed
            pass
    return checked


def _warn_if_one(path: Iterable[PyTree], kind: str) -> None:
    if sum(1 for _ in zip(path, range(2), strict=False)) == 1:
        warnings.warn(
            f"A path of one checkpoint has {kind} width 0: its gradient set is one point. "
            'For one checkpoint use kind="union" '
            "(the cloud of per-sample gradients) or nerc, which do not vanish.",
            stacklevel=3,
        )
