"""Convex sets of parameters: a centre, and a linear map of the unit ball around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.selection import Selection, Wrt, select

Form = Literal["ball", "span", "low rank"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("coordinates", "others", "radius", "basis"),
    meta_fields=("selection", "form", "words"),
)
@dataclass(frozen=True)
class Region:
    r"""The set :math:`\{\theta_0 + \rho E v : |v| \le 1\}`, with :math:`|E v| \le |v|`.

    Made by :func:`ball`, :func:`segment`, :func:`random_subspace` or :func:`low_rank`. Arrays are traced, so that a
    second region of the same shape compiles nothing.

    Attributes:
        coordinates: Gradient coordinates of the centre.
        others: The other leaves of the parameters, the same everywhere in the region.
        radius: :math:`\rho`, in units of the parameters.
        basis: What E is made of; nothing for a ball.
        selection: Which leaves are gradient coordinates.
        form: How E maps.
        words: The region in words.
    """

    coordinates: list[Array]
    others: list[Array]
    radius: Float[Array, ""]
    basis: list[Array | None]
    selection: Selection
    form: Form
    words: str

    @property
    def num_parameters(self) -> int:
        """p, gradient coordinates in all."""
        return sum(leaf.size for leaf in self.coordinates)

    def zeros(self) -> list[Array]:
        """Coordinates v of the centre: all zero."""
        if self.form == "ball":
            return [jnp.zeros_like(leaf) for leaf in self.coordinates]
        if self.form == "span":
            return [jnp.zeros(len(leaf), leaf.dtype) for leaf in self.basis[:1] if leaf is not None]
        return [
            jnp.zeros((leaf.size // leaf.shape[-1], a.shape[0]), leaf.dtype)
            for leaf, a in zip(self.coordinates, self.basis, strict=True)
            if a is not None
        ]

    def embed(self, v: list[Array]) -> list[Array]:
        """Map coordinates to a move of the gradient coordinates."""
        if self.form == "ball":
            return [self.radius * leaf for leaf in v]
        if self.form == "span":
            return [self.radius * jnp.tensordot(v[0], leaf, axes=1) for leaf in self.basis if leaf is not None]
        blocks = iter(v)
        return [
            jnp.zeros_like(leaf) if a is None else self.radius * (next(blocks) @ a).reshape(leaf.shape)
            for leaf, a in zip(self.coordinates, self.basis, strict=True)
        ]

    def params(self, v: list[Array]) -> PyTree:
        """Parameters at coordinates ``v``."""
        moved = [leaf + move for leaf, move in zip(self.coordinates, self.embed(v), strict=True)]
        return self.selection.merge(moved, self.others)

    def around(self, v: list[Array]) -> Region:
        """The same directions around another point of the region."""
        return replace(self, coordinates=self.selection.split(self.params(v))[0])


def ball(params: PyTree, radius: float, *, wrt: Wrt = None) -> Region:
    """All parameters within a distance of some.

    Args:
        params: The centre.
        radius: Of the ball, in units of the parameters.
        wrt: Which leaves are gradient coordinates, and so may move.

    Returns:
        The region.

    Raises:
        ValueError: If the radius is not positive.

    Example:
        >>> ball(jnp.zeros(3), 0.5).words
        'the ball of radius 0.5'
    """
    selection = select(params, wrt)
    coordinates, others = selection.split(params)
    words = f"the ball of radius {_checked_radius(radius):.4g}"
    return Region(_arrays(coordinates), others, jnp.asarray(radius, jnp.float32), [], selection, "ball", words)


def segment(first: PyTree, second: PyTree, *, wrt: Wrt = None) -> Region:
    """The line between two checkpoints.

    Args:
        first: One end, at coordinate -1.
        second: The other, at coordinate 1.
        wrt: Which leaves are gradient coordinates; the others are taken from ``first``.

    Returns:
        The region.

    Raises:
        ValueError: If the ends are equal.

    Example:
        >>> segment(jnp.zeros(2), jnp.array([3.0, 4.0])).words
        'the segment of length 5'
    """
    selection = select(first, wrt)
    (left, others), (right, _) = selection.split(first), selection.split(second)
    left, right = _arrays(left), _arrays(right)
    half = [(b - a) / 2 for a, b in zip(left, right, strict=True)]
    length = _norm(half)
    if not length > 0:
        raise ValueError("Expected two different ends, got equal ones. There is nothing between them.")
    middle = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
    basis: list[Array | None] = [(leaf / length)[None] for leaf in half]
    words = f"the segment of length {2 * length:.4g}"
    return Region(middle, others, jnp.asarray(length, jnp.float32), basis, selection, "span", words)


def random_subspace(key: Key[Array, ""], params: PyTree, radius: float, dimension: int, *, wrt: Wrt = None) -> Region:
    """A ball in a uniformly random subspace of parameter space.

    Args:
        key: One PRNG key, consumed here.
        params: The centre.
        radius: Of the ball.
        dimension: Of the subspace; its p x dimension basis is held.
        wrt: Which leaves are gradient coordinates.

    Returns:
        The region.

    Raises:
        ValueError: If the radius is not positive, or the dimension not from 1 to p.

    Example:
        >>> random_subspace(jax.random.key(0), jnp.zeros(9), 1.0, 2).zeros()[0].shape
        (2,)
    """
    whole = ball(params, radius, wrt=wrt)
    if not 1 <= dimension <= whole.num_parameters:
        raise ValueError(f"Expected a dimension from 1 to {whole.num_parameters}, got {dimension}.")
    columns = jnp.linalg.qr(jax.random.normal(key, (whole.num_parameters, dimension)))[0].T
    ends = [0, *jnp.cumsum(jnp.array([leaf.size for leaf in whole.coordinates])).tolist()]
    basis: list[Array | None] = [
        columns[:, start:stop].reshape(dimension, *leaf.shape).astype(leaf.dtype)
        for leaf, start, stop in zip(whole.coordinates, ends, ends[1:], strict=False)
    ]
    words = f"the ball of radius {radius:.4g} in a random subspace of {dimension} dimensions"
    return replace(whole, basis=basis, form="span", words=words)


def low_rank(key: Key[Array, ""], params: PyTree, radius: float, rank: int, *, wrt: Wrt = None) -> Region:
    r"""A ball of low-rank moves of every weight matrix, as LoRA makes them with its inner factor frozen.

    .. math:: W + \rho B A, \quad |B|_F \le 1

    with A of r random orthonormal rows over the last axis, and B free. Leaves with fewer than two axes stay fixed.

    Args:
        key: One PRNG key, consumed here.
        params: The centre.
        radius: Of the ball, in Frobenius norm over all matrices together.
        rank: r; at most the length of a matrix's last axis is used.
        wrt: Which leaves are gradient coordinates.

    Returns:
        The region.

    Raises:
        ValueError: If the radius or the rank is not positive, or there is no matrix.

    Example:
        >>> params = {"w": jnp.zeros((5, 4)), "b": jnp.zeros(4)}
        >>> [v.shape for v in low_rank(jax.random.key(0), params, 1.0, 2).zeros()]
        [(5, 2)]
    """
    whole = ball(params, radius, wrt=wrt)
    if rank < 1 or all(leaf.ndim < 2 for leaf in whole.coordinates):
        raise ValueError(f"Expected a rank of at least 1 and a leaf with two axes, got rank {rank}.")
    keys = jax.random.split(key, len(whole.coordinates))
    basis = [
        None
        if leaf.ndim < 2
        else jnp.linalg.qr(jax.random.normal(k, (leaf.shape[-1], min(rank, leaf.shape[-1]))))[0].T.astype(leaf.dtype)
        for leaf, k in zip(whole.coordinates, keys, strict=True)
    ]
    words = f"the ball of radius {radius:.4g} of moves of rank {rank}"
    return replace(whole, basis=basis, form="low rank", words=words)


def _arrays(leaves: list) -> list[Array]:
    return [jnp.asarray(leaf) for leaf in leaves]


def _norm(leaves: list[Array]) -> float:
    return float(jnp.sqrt(sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in leaves)))


def _checked_radius(radius: float) -> float:
    if not 0 < radius < math.inf:
        raise ValueError(f"Expected a positive radius, got {radius}.")
    return radius
