"""Gradient sets over a whole region, not only over checkpoints: linearised, from below and from above (section 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import scipy
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.selection import LossFn, as_partial, batch_size, check_loss
from lggwjax.theory.bound import Assumption, Bound
from lggwjax.theory.regions import Region
from lggwjax.widths.closed_form import expected_chi
from lggwjax.widths.estimate import Estimate, Moments

KEPT_BYTES = 2**30  # directions of one draw that are kept for all its iterates; more are drawn again each time
CHUNK_BYTES = 2**28  # directions of the samples that are differentiated at once

Moves = list[Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RegionWidths:
    """The width of the gradients over a region; each field a number, or one a sample for ``kind="single"``.

    Attributes:
        linearised: Width of the linear part (7.1), (7.2).
        squared: Squared Frobenius norm of the linear map from the unit ball to gradients.
        from_below: The mean of what an ascent reached: at most the width, on average (7.4).
    """

    linearised: Estimate
    squared: Estimate
    from_below: Estimate

    def lower(self, confidence: float = 0.95) -> Float[Array, "..."]:
        """Lower bound on the width: one-sided, Student t over the draws.

        Args:
            confidence: Asymptotic.

        Returns:
            The bound, in the unit of the gradients.
        """
        quantile = scipy.special.stdtrit(self.from_below.num_replicates - 1.0, confidence)
        return self.from_below.value - quantile * self.from_below.stderr - self.from_below.rounding

    def frobenius(self, confidence: float = 0.95) -> Float[Array, "..."]:
        r"""Guaranteed upper bound on the Frobenius norm of the linear map, and so on the linearised width.

        .. math:: |A|_F^2 \le \frac{\tfrac1K \sum_k |A^\top g_k|^2}{1 - 2 \sqrt{\ln(1/\delta) / K}}

        from the lower tail of weighted chi-squares, whatever the spectrum.

        Args:
            confidence: 1 - delta.

        Returns:
            The bound, in the unit of the gradients.

        Raises:
            ValueError: If there are too few draws for it.

        References:
            B. Laurent, P. Massart, Adaptive estimation of a quadratic functional, Ann. Statist. 28 (2000), lemma 1.
        """
        level = math.log(1 / (1 - confidence))
        draws = int(self.squared.num_draws)
        if draws <= 4 * level:
            raise ValueError(f"Expected more than {4 * level:.3g} draws for confidence {confidence}, got {draws}.")
        mean = jnp.maximum(self.squared.value, 0) + self.squared.rounding
        return jnp.sqrt(mean / (1 - 2 * math.sqrt(level / draws)))


def region_widths(
    key: Key[Array, ""],
    loss_fn: LossFn,
    region: Region,
    batch: PyTree,
    *,
    kind: Literal["stacked", "single"] = "stacked",
    num_draws: int = 64,
    num_steps: int = 2,
    chunk_size: int | None = None,
) -> RegionWidths:
    r"""Measure the width of the gradients over a region: its linear part, and a lower bound by ascent.

    .. math:: \rho \, \mathbb{E} \Big| \tfrac{1}{\sqrt n} \sum_i E^\top H_i g_i \Big|
        \quad \text{(stacked)}, \qquad \rho \, \mathbb{E} |E^\top H_i g| \quad \text{(single)}

    by Hessian-vector products at the centre, g of the size of the parameters for every sample. Note that the stacked
    one is not :math:`\rho |\tfrac1n \sum_i H_i|_F`. From below: for each direction the best of the centre, of the end
    that the linear part points to, and of ``num_steps`` further steps of projected ascent; any point of the region may
    be chosen with the direction in hand.

    Guarantees:
        * Chunks change nothing beyond rounding: a sample's directions come from the key, the draw and its number.

    Args:
        key: One PRNG key, consumed here.
        loss_fn: ``loss_fn(params, example) -> scalar``, twice differentiable.
        region: From :mod:`lggwjax.theory.regions`.
        batch: n examples along the leading axis.
        kind: ``stacked`` for the LGGW, ``single`` for one width a sample.
        num_draws: K Gaussian directions, at least 2.
        num_steps: Steps of ascent after the linear one.
        chunk_size: Samples differentiated at once.

    Returns:
        Estimates with standard errors over the draws, in the unit of the gradients.

    Raises:
        ValueError: If ``num_draws < 2``, ``num_steps < 0``, or the loss is no scalar.

    Example:
        >>> from lggwjax.theory.regions import ball
        >>> def loss(w, z): return 0.5 * z * jnp.sum(w**2)
        >>> found = region_widths(jax.random.key(0), loss, ball(jnp.zeros(3), 2.0), jnp.array([1.0]), num_draws=512)
        >>> abs(float(found.linearised.value) - 2 * expected_chi(3)) < 4 * float(found.linearised.stderr)
        True

    References:
        lggwjax/theory/README.md, (7.1), (7.2) and (7.4).
    """
    if num_draws < 2 or num_steps < 0:
        raise ValueError(f"Expected num_draws >= 2 and num_steps >= 0, got {num_draws} and {num_steps}.")
    if kind not in ("stacked", "single"):
        raise ValueError(f"Expected kind to be 'stacked' or 'single', got {kind!r}.")
    loss, num = as_partial(loss_fn), batch_size(batch)
    region = replace(region, words="")  # words are part of what is compiled for
    check_loss(loss, region.params(region.zeros()), batch)
    fitting = max(1, CHUNK_BYTES // (4 * region.num_parameters))
    chunks = list(iter_chunks(batch, num, min(num, chunk_size or fitting)))
    found = []
    for draw in range(num_draws):
        found.append(_ascend(_Draw(loss, region, chunks, key, draw, num, kind == "single"), region, num_steps))
    shape = found[0][0].shape
    linear, squares, reached = (_estimate([one[place] for one in found], shape) for place in range(3))
    if kind == "stacked":
        linear, squares, reached = (jax.tree.map(lambda x: x.reshape(()), e) for e in (linear, squares, reached))
    return RegionWidths(linear, squares, reached)


class _Draw:
    """One Gaussian direction a sample: values and slopes of the process that it makes over the region."""

    def __init__(self, loss, region: Region, chunks: list, key, draw: int, num: int, single: bool):
        self._loss, self._region, self._chunks, self._num = loss, region, chunks, num
        self._key, self._single = jax.random.fold_in(key, draw), single
        keep = 4 * region.num_parameters * num <= KEPT_BYTES
        self._kept: list[Moves] | None = None if not keep else [self._normals(c) for c in chunks]

    @property
    def batch(self) -> int:
        """Points that move by themselves: one a sample, or one for all."""
        return self._num if self._single else 1

    def _normals(self, chunk) -> Moves:
        start, _, examples = chunk
        size = jax.tree.leaves(examples)[0].shape[0]
        return _directions(self._key, self._region.coordinates, jnp.arange(start, start + size))

    def __call__(self, points: Moves) -> tuple[Float[Array, " n"], Moves]:
        """Values of each sample, and slopes at each of the ``batch`` points."""
        values, slopes, total = [], [], None
        for index, chunk in enumerate(self._chunks):
            start, count, examples = chunk
            normals = self._kept[index] if self._kept is not None else self._normals(chunk)
            size = jax.tree.leaves(examples)[0].shape[0]
            weights = (jnp.arange(size) < count).astype(jnp.float32)
            if self._single:
                rows = [leaf[jnp.minimum(jnp.arange(start, start + size), self._num - 1)] for leaf in points]
                value, slope = _slope_of_each(self._loss, self._region, rows, examples, normals)
                slopes.append([leaf[:count] for leaf in slope])
            else:
                args = self._loss, self._region, [leaf[0] for leaf in points], examples, normals, weights
                value, slope = _slope_of_all(*args)
                total = slope if total is None else [a + b for a, b in zip(total, slope, strict=True)]
            values.append(value[:count])
        if self._single:
            return jnp.concatenate(values), [jnp.concatenate(parts) for parts in zip(*slopes, strict=True)]
        root = math.sqrt(self._num)
        return jnp.concatenate(values) / root, [leaf[None] / root for leaf in total or []]

    def gain(self, values: Float[Array, " n"], base: Float[Array, " n"]) -> Float[Array, " b"]:
        """What was gained over the centre, sample by sample before it is summed up."""
        gained = values - base
        return gained if self._single else jnp.sum(gained)[None]


def _ascend(draw: _Draw, region: Region, num_steps: int) -> tuple[Array, Array, Array]:
    """Length of the slope at the centre, its square, and the most that was gained."""
    points = [jnp.broadcast_to(leaf, (draw.batch, *leaf.shape)) for leaf in region.zeros()]
    base, slope = draw(points)
    linear = _lengths(slope)
    best = jnp.zeros_like(linear)
    points = _scaled(slope, linear)
    for step in range(num_steps + 1):
        values, slope = draw(points)
        best = jnp.maximum(best, draw.gain(values, base))
        if step < num_steps:
            ahead = [a + b for a, b in zip(points, _scaled(slope, _lengths(slope)), strict=True)]
            points = _scaled(ahead, jnp.maximum(_lengths(ahead), 1.0))
    return linear, linear**2, best


def _estimate(draws: list[Array], shape: tuple[int, ...]) -> Estimate:
    terms = jnp.stack(draws)
    moments = Moments.empty(shape, terms.dtype).add(terms, jnp.ones(len(draws), terms.dtype))
    count = jnp.asarray(len(draws), jnp.int32)
    rounding = 64 * jnp.finfo(terms.dtype).eps * jnp.abs(moments.mean)
    return Estimate(moments.mean, moments.stderr, count, count, rounding)


@jax.jit
def _directions(key, coordinates: Moves, samples) -> Moves:
    def of_sample(sample):
        own = jax.random.fold_in(key, sample)
        keys = jax.random.split(own, len(coordinates))
        return [jax.random.normal(k, x.shape, jnp.float32) for k, x in zip(keys, coordinates, strict=True)]

    return jax.vmap(of_sample)(samples)


def _process(loss, region: Region, point: Moves, example, normals: Moves) -> Float[Array, ""]:
    """The product of one sample's gradient at a point with its direction."""

    def of_coordinates(coordinates):
        return loss(region.selection.merge(coordinates, region.others), example)

    moved = [leaf + move for leaf, move in zip(region.coordinates, region.embed(point), strict=True)]
    tangents = [g.astype(leaf.dtype) for g, leaf in zip(normals, moved, strict=True)]
    return jax.jvp(of_coordinates, (moved,), (tangents,))[1]


@jax.jit
def _slope_of_all(loss, region, point, examples, normals, weights):
    def total(point):
        values = jax.vmap(partial(_process, loss, region, point))(examples, normals)
        return jnp.sum(values * weights), values

    (_, values), slope = jax.value_and_grad(total, has_aux=True)(point)
    return values, slope


@jax.jit
def _slope_of_each(loss, region, points, examples, normals):
    each = jax.value_and_grad(lambda p, z, g: _process(loss, region, p, z, g))
    return jax.vmap(each)(points, examples, normals)


@jax.jit
def _lengths(leaves: Moves) -> Float[Array, " b"]:
    return jnp.sqrt(sum(jnp.sum(leaf.astype(jnp.float32) ** 2, axis=range(1, leaf.ndim)) for leaf in leaves))


@jax.jit
def _scaled(leaves: Moves, lengths: Float[Array, " b"]) -> Moves:
    """Each point over its length; a point of length 0 stays."""
    safe = jnp.where(lengths > 0, lengths, 1.0)
    return [leaf / safe.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype) for leaf in leaves]


def region_width_bound(
    found: RegionWidths,
    region: Region,
    num_samples: int,
    *,
    hessian_lipschitz: float,
    is_lipschitz_declared: bool = True,
    confidence: float = 0.95,
) -> Bound:
    r"""Bound the LGGW over a region from above: the linear part, and what the Hessian may change on the way.

    .. math:: w(\Xi^n) \le |A|_F + \tfrac12 L_H \rho^2 \, \mathbb{E} |g_{np}|

    Args:
        found: Stacked widths of :func:`region_widths` on n samples; for ``num_samples=1`` those of one sample.
        region: The same region.
        num_samples: n.
        hessian_lipschitz: L_H: Lipschitz constant of every sample's Hessian over the region, in loss per cubed unit of
            parameter.
        is_lipschitz_declared: False where it is only an estimate; the result is then descriptive.
        confidence: Of the Frobenius norm.

    Returns:
        The bound; its parts say whether the linear part or the remainder dominates.

    Raises:
        ValueError: If L_H is negative, or there are too few draws.

    References:
        lggwjax/theory/README.md, (7.3).
    """
    if not 0 <= hessian_lipschitz < math.inf:
        raise ValueError(f"Expected a Lipschitz constant of at least 0, got {hessian_lipschitz}.")
    text = f"every sample's Hessian is {hessian_lipschitz:.4g}-Lipschitz over the region"
    known = Assumption(text, "declared")
    if not is_lipschitz_declared:
        known = Assumption(f"that {text} is only an estimate", "missing")
    radius, size = float(region.radius), num_samples * region.num_parameters
    parts = {
        "linear": float(found.frobenius(confidence)),
        "remainder": hessian_lipschitz * radius**2 / 2 * expected_chi(size),
    }
    return _about_region(parts, region, num_samples, confidence, known)


def envelope_bound(
    key: Key[Array, ""],
    loss_fn: LossFn,
    region: Region,
    batch: PyTree,
    *,
    num_points: int = 4,
    num_draws: int = 32,
    confidence: float = 0.95,
) -> Bound:
    r"""Estimate a bound on the LGGW over a region from Hessians at points of it.

    .. math:: w(\Xi^n) \le \rho \sqrt{\mathrm{tr} \, Q}, \qquad Q = \sum_j \tfrac1n \sum_i H_i(\theta_j)^2

    Q is no smaller than the mean squared Hessian at any of the points looked at. Between them it may be: the result is
    descriptive. The largest :math:`\rho |H(\theta_j)|_F` alone would bound nothing even if all points were looked at.

    Args:
        key: One PRNG key, consumed here.
        loss_fn: As :func:`region_widths`.
        region: The region.
        batch: n examples.
        num_points: The centre, and random points on the rim.
        num_draws: Directions at each point.
        confidence: Of the norms at these points together.

    Returns:
        The bound, descriptive.

    Raises:
        ValueError: If there is no point, or as :func:`region_widths`.

    References:
        lggwjax/theory/README.md, (7.3) and section 9.
    """
    if num_points < 1:
        raise ValueError(f"Expected at least one point, got {num_points}.")
    total = 0.0
    for index in range(num_points):
        point_key, width_key = jax.random.split(jax.random.fold_in(key, index))
        here = region.around(_on_the_rim(point_key, region)) if index else region
        found = region_widths(width_key, loss_fn, here, batch, num_draws=num_draws, num_steps=0)
        total += float(found.frobenius(1 - (1 - confidence) / num_points)) ** 2
    seen = Assumption(f"Hessians were looked at in {num_points} points only, and may be larger between them", "missing")
    return _about_region({"envelope": math.sqrt(total)}, region, batch_size(batch), confidence, seen)


def _on_the_rim(key, region: Region) -> Moves:
    zeros = region.zeros()
    keys = jax.random.split(key, len(zeros))
    moves = [jax.random.normal(k, leaf.shape, leaf.dtype)[None] for k, leaf in zip(keys, zeros, strict=True)]
    return [leaf[0] for leaf in _scaled(moves, _lengths(moves))]


def _about_region(
    parts: dict[str, float], region: Region, num_samples: int, confidence: float, assumption: Assumption
) -> Bound:
    return Bound(
        value=sum(parts.values()),
        quantity="the LGGW",
        statement="7.3",
        about="measured set",
        gradient_set=region.words,
        num_samples=num_samples,
        confidence=confidence,
        assumptions=(assumption,),
        parts=parts,
    )
