"""How alike two numbers order the same things, with all resamples of a bootstrap at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from lggwjax.report.statistics import Interval

NUM_RESAMPLES = 2000


class Resamples:
    """Resamples of clusters, shared by all measures, so that their differences are paired.

    A resample is a row of counts: how often each cluster is drawn. Two draws of one thing are tied in every number, and
    Kendall's tau-b of the resampled things is then a ratio of sums over pairs of different ones: summed over pairs of
    clusters first, two small products of matrices give it for all resamples.

    Args:
        clusters: The cluster of each thing; things of one cluster are drawn together.
        seed: Fixes the resamples.
        num: How many; by default ``NUM_RESAMPLES``.

    Attributes:
        counts: One row a resample, after a first row of ones: the things as they are. One column a cluster.
        members: One row a thing: 1 in the column of its cluster.
        num_clusters: Different clusters.
    """

    def __init__(self, clusters: Sequence[object], *, seed: int = 0, num: int | None = None):
        names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
        self.num_clusters = len(names)
        self.members: Float[np.ndarray, "n c"] = np.eye(len(names))[
            np.array([names[name] for name in clusters], dtype=int)
        ]
        drawn = np.zeros((0, len(names)))
        if len(names) > 1:
            rng = np.random.default_rng(seed)
            drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=num or NUM_RESAMPLES).astype(
                float
            )
        self.counts: Float[np.ndarray, "b c"] = np.concatenate([np.ones((1, len(names))), drawn])

    def tau_b(self, x: ArrayLike, y: ArrayLike) -> Float[np.ndarray, " b"]:
        """Kendall's tau-b of the things, and of each resample; what is NaN in one number is left out.

        Example:
            >>> Resamples("abcd").tau_b([1, 2, 3, 4], [10, 20, 40, 30])[0].round(9)
            np.float64(0.666666667)
        """
        signs_x, signs_y = _signs(x, y)
        both, only_x, only_y = (self._sums(pairs) for pairs in (signs_x * signs_y, signs_x**2, signs_y**2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return both / np.sqrt(only_x * only_y)

    def agreement(self, x: ArrayLike, y: ArrayLike, pairs: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " b"]:
        """Mean agreement of signs (1 alike, -1 opposite, 0 tied) over chosen pairs, each with its weight.

        Args:
            x: One number a thing.
            y: The same.
            pairs: Weights of the pairs, symmetric.

        Returns:
            Of the things, then of each resample; NaN without a pair.
        """
        signs_x, signs_y = _signs(x, y)
        known = _known(x, y).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sums(signs_x * signs_y * pairs) / self._sums(np.outer(known, known) * pairs)

    def _sums(self, pairs: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " b"]:
        clustered = self.members.T @ pairs @ self.members
        # einsum and not a matrix product: on so small matrices the threads of a busy BLAS cost ten times the product.
        return np.einsum("bc,bc->b", np.einsum("bc,cd->bd", self.counts, clustered), self.counts)

    def interval(self, values: Float[np.ndarray, " b"], level: float = 0.95) -> Interval:
        """The estimate with its percentile interval, as ``bootstrap_interval`` gives it."""
        value, rest = float(values[0]), values[1:]
        rest = rest[np.isfinite(rest)]
        if len(rest) <= (len(self.counts) - 1) / 2 or not len(rest) or math.isnan(value):
            return Interval(value, math.nan, math.nan, math.nan, self.num_clusters)
        low, high = np.quantile(rest, [(1 - level) / 2, (1 + level) / 2])
        return Interval(value, float(low), float(high), float(rest.std(ddof=1)), self.num_clusters)

    def p_value(self, values: Float[np.ndarray, " b"]) -> float:
        """Two-sided p-value of zero: twice the share of resamples on its other side, never below 2 / (their number + 1).

        NaN where :meth:`interval` has no ends.
        """
        if math.isnan(self.interval(values).low):
            return math.nan
        rest = values[1:]
        rest = rest[np.isfinite(rest)]
        fewer = min((rest <= 0).sum(), (rest >= 0).sum())
        return min(1.0, 2 * (1 + float(fewer)) / (1 + len(rest)))


def _known(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    return np.isfinite(np.asarray(x, dtype=float)) & np.isfinite(np.asarray(y, dtype=float))


def _signs(x: ArrayLike, y: ArrayLike) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Signs of all differences, 0 with what is not known."""
    known = _known(x, y)
    found = []
    for values in (x, y):
        column = np.where(known, np.asarray(values, dtype=float), 0.0)
        signs = np.sign(column[:, None] - column[None, :])
        found.append(signs * np.outer(known, known))
    return found[0], found[1]
