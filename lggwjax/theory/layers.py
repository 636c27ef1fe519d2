"""Layer by layer: which one makes the width of the gradients, and which of its two factors does (section 8)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.costs import default_memory
from lggwjax.gradients.engine import own_gradient, pose
from lggwjax.gradients.factors import Layer
from lggwjax.gradients.forms import HIGHEST, Operands, Product
from lggwjax.gradients.products import inner_products
from lggwjax.gradients.selection import LossFn, Wrt
from lggwjax.theory.bound import Bound
from lggwjax.theory.complexity import comb
from lggwjax.widths.estimate import WidthEstimate
from lggwjax.widths.finite import width_from_gram

Kind = Literal["dense", "positions", "lookup", "gradient", "unused"]
AT_ONCE = 32  # samples whose patches are held at once


class FactorNorms(NamedTuple):
    """What the factors of N points of one layer look like to one another.

    Attributes:
        inputs: Inner products of the inputs h, or of all patches P. Shape (N, N).
        cotangents: Inner products of the cotangents. Shape (N, N).
        input_norm: Largest operator norm of the patches; for one position the largest norm.
        cotangent_norm: Largest operator norm of the cotangents.
        gradients: Inner products of the layer's gradients. Shape (N, N).
    """

    inputs: Float[Array, "N N"]
    cotangents: Float[Array, "N N"]
    input_norm: float
    cotangent_norm: float
    gradients: Float[Array, "N N"]


@dataclass(frozen=True)
class LayerRow:
    """One leaf of the parameters.

    Attributes:
        name: As :func:`lggwjax.plan` names it.
        kind: ``dense``, ``positions`` (a convolution, or a layer over tokens), ``lookup``, ``gradient`` (no factors:
            biases, norms), or ``unused``.
        size: Parameters.
        measured: Width of the leaf's gradients.
        coupled: (8.1) for a dense layer, (8.8) for one with positions; None without factors.
        centred: (8.2), dense layers only.
        spectral: Bound from the weights alone (8.7), where the caller gave one.
        from_inputs: The term of the looser form of (8.1), or of (8.8), that the width of the inputs makes.
        from_cotangents: The term that the width of the cotangents makes.
        share: Of the sum of all leaves' measured widths.
    """

    name: str
    kind: Kind
    size: int
    measured: WidthEstimate
    coupled: Bound | None
    centred: Bound | None
    spectral: float | None
    from_inputs: float | None
    from_cotangents: float | None
    share: float


@dataclass(frozen=True)
class LayerTable:
    """Where the width of the gradients comes from.

    Attributes:
        rows: One a leaf, in the order of the parameters.
        total: Width of the whole gradients.
        sum_of_layers: (8.4): the total is at most the sum of all leaves' widths.
        num_points: N = T n gradients.
    """

    rows: tuple[LayerRow, ...]
    total: WidthEstimate
    sum_of_layers: Bound
    num_points: int

    @property
    def widest(self) -> LayerRow:
        """The leaf with the largest measured width."""
        return max(self.rows, key=lambda row: float(row.measured.value))

    def as_records(self) -> list[dict[str, Any]]:
        """One object of strict JSON types a leaf."""
        value = lambda bound: None if bound is None else bound.value  # noqa: E731
        return [
            {
                "name": row.name,
                "kind": row.kind,
                "size": row.size,
                "measured": float(row.measured.value),
                "stderr": float(row.measured.stderr),
                "coupled": value(row.coupled),
                "centred": value(row.centred),
                "spectral": row.spectral,
                "from_inputs": row.from_inputs,
                "from_cotangents": row.from_cotangents,
                "share": row.share,
            }
            for row in self.rows
        ]

    def __str__(self) -> str:
        """A line a leaf, then the whole, then which leaf makes the width and what would change it."""
        return _printed(self)


def layer_widths(
    key: Key[Array, ""],
    loss_fn: LossFn,
    path: Iterable[PyTree],
    batch: PyTree,
    *,
    wrt: Wrt = None,
    num_draws: int = 1024,
    confidence: float = 0.95,
    spectral: Mapping[str, float] | None = None,
    max_memory: int | None = None,
) -> LayerTable:
    r"""Measure every layer's gradient width beside the bounds that its inputs and cotangents give.

    .. math:: w(\{\delta h^\top\}) \le w(\{(|\delta| h, |h| \delta)\})
        \le \mathrm{rad}(\Delta) \, w_0(H) + \mathrm{rad}(H) \, w_0(\Delta)

    and for a layer with positions, patches P and cotangents D,
    :math:`\mathrm{comb}(\sup |D| \, w(P), \sup |P| \, w(D))`. The set is the union over T checkpoints and n samples.
    A layer whose inputs make the width gets narrower by fewer or sparser features in front of it; one whose cotangents
    do, by what comes behind it.

    Args:
        key: One PRNG key, consumed here; all leaves share its directions.
        loss_fn: ``loss_fn(params, example) -> scalar``.
        path: T checkpoints.
        batch: n examples.
        wrt: Which leaves are gradient coordinates.
        num_draws: Gaussian directions.
        confidence: Of each bound, through the guaranteed intervals of the widths in it.
        spectral: Bounds by leaf from the weights, from :func:`lggwjax.theory.network_norms`.
        max_memory: Bytes for the factors of all T n points.

    Returns:
        The table; printed, it is one line a leaf.

    Raises:
        ValueError: If the factors do not fit, or as :func:`lggwjax.lggw`.

    Example:
        >>> def loss(params, z): return 0.5 * jnp.sum((z @ params["w"]) ** 2)
        >>> batch = jax.random.normal(jax.random.key(1), (8, 3))
        >>> table = layer_widths(jax.random.key(0), loss, [{"w": jnp.eye(3)}], batch)
        >>> table.rows[0].kind, table.rows[0].coupled.value >= table.rows[0].measured.value
        ('dense', Array(True, dtype=bool))

    References:
        lggwjax/theory/README.md, (8.1), (8.2), (8.4) and (8.8).
    """
    checkpoints = list(path)
    problem = pose(loss_fn, checkpoints[0], batch, wrt)
    engine, num = problem.engine, problem.num_samples
    num_points = num * len(checkpoints)
    needed = engine.sizes.peak * num + engine.sizes.peak * num_points
    budget = default_memory() if max_memory is None else max_memory
    if needed > budget:
        raise ValueError(
            f"Expected the factors of {num_points:,} gradients to fit {budget / 2**30:.2f} GiB, got about "
            f"{needed / 2**30:.2f} GiB. Pass fewer checkpoints or samples."
        )
    whole = [_joined(engine, problem.loss, params, batch, num) for params in checkpoints]
    outputs = [[jnp.concatenate(parts) for parts in zip(*uses, strict=True)] for uses in zip(*whole, strict=True)]
    del whole
    words = f"{_count(len(checkpoints), 'checkpoint')} and {_count(num, 'sample')}"
    measure = _Measure(key, num_draws, confidence, num_points, words)
    rows, total = [], jnp.zeros((num_points, num_points))
    for layer, factors in zip(engine.layers, outputs, strict=True):
        row, gram = measure.row(layer, factors, (spectral or {}).get(layer.name))
        rows.append(row)
        total = total + gram
    everything = sum(float(row.measured.value) for row in rows) or 1.0
    rows = [replace(row, share=float(row.measured.value) / everything) for row in rows]
    highest = sum(float(row.measured.guaranteed_interval(measure.split(len(rows))).high) for row in rows)
    return LayerTable(
        tuple(rows), measure.width(total), measure.bound(highest, "8.4", "the width of all gradients"), num_points
    )


def _joined(engine, loss, params: PyTree, batch: PyTree, num: int) -> list[list[Array]]:
    """Factors of all samples at one checkpoint, made in chunks."""
    parts = []
    for _, count, chunk in iter_chunks(batch, num, min(num, 2 * AT_ONCE)):
        found = engine.layer_outputs(loss, params, chunk)
        parts.append([[array[:count] for array in arrays] for arrays in found])
    return [[jnp.concatenate(arrays) for arrays in zip(*uses, strict=True)] for uses in zip(*parts, strict=True)]


class _Measure:
    """Widths and bounds of one set, with the settings they share."""

    def __init__(self, key, num_draws: int, confidence: float, num_points: int, words: str):
        self._key, self._num_draws, self._confidence = key, num_draws, confidence
        self._num_points, self._words = num_points, words

    def split(self, parts: int) -> float:
        """Confidence of each of several widths that have to hold together."""
        return 1 - (1 - self._confidence) / parts

    def width(self, gram: Float[Array, "N N"]) -> WidthEstimate:
        """Width of points by their Gram matrix."""
        return width_from_gram(self._key, gram, num_draws=self._num_draws)

    def bound(self, value: float, statement: str, quantity: str, parts: dict[str, float] | None = None) -> Bound:
        """A statement about the points looked at."""
        return Bound(
            value=value,
            quantity=quantity,
            statement=statement,
            about="measured set",
            gradient_set=self._words,
            num_samples=self._num_points,
            confidence=self._confidence,
            parts=parts or {},
        )

    def row(self, layer: Layer, outputs: list[Array], spectral: float | None) -> tuple[LayerRow, Array]:
        """Measure one leaf."""
        if layer.unused:
            gram = jnp.zeros((self._num_points, self._num_points))
            return self._without_factors(layer, "unused", gram, spectral), gram
        if layer.product is None or layer.product.is_lookup or layer.product.dims[0] > 1:
            gradients = own_gradient(layer, outputs)
            gram = inner_products(gradients, gradients)
            is_lookup = layer.product is not None and layer.product.is_lookup
            kind: Kind = "lookup" if is_lookup else "positions" if layer.product is not None else "gradient"
            return self._without_factors(layer, kind, gram, spectral), gram
        operands = list(zip(outputs[::2], outputs[1::2], strict=True))
        norms = factor_norms(layer.product, operands)
        is_dense = layer.product.dims[1:3] == (1, 1)
        found = self._dense(layer, norms) if is_dense else self._with_positions(layer, norms)
        row = self._without_factors(layer, "dense" if is_dense else "positions", norms.gradients, spectral)
        return replace(row, **found), norms.gradients

    def _without_factors(self, layer: Layer, kind: Kind, gram: Array, spectral: float | None) -> LayerRow:
        return LayerRow(layer.name, kind, layer.size, self.width(gram), None, None, spectral, None, None, 0.0)

    def _high(self, gram: Array, parts: int) -> float:
        return float(self.width(gram).guaranteed_interval(self.split(parts)).high)

    def _dense(self, layer: Layer, norms: FactorNorms) -> dict[str, Any]:
        """(8.1) in both forms, and (8.2)."""
        lengths = [jnp.sqrt(jnp.diagonal(gram)) for gram in (norms.inputs, norms.cotangents)]
        scales = [jnp.outer(one, one) for one in lengths]
        coupled = self._high(scales[1] * norms.inputs + scales[0] * norms.cotangents, 1)
        inputs, cotangents = (self._high(_with_zero(gram), 2) for gram in (norms.inputs, norms.cotangents))
        terms = norms.cotangent_norm * inputs, norms.input_norm * cotangents
        reach = [_reach(gram) for gram in (norms.inputs, norms.cotangents)]
        centred = {
            "inputs": reach[1] * self._high(norms.inputs, 2),
            "cotangents": reach[0] * self._high(norms.cotangents, 2),
        }
        quantity = f"the gradient width of {layer.name}"
        return {
            "coupled": self.bound(coupled, "8.1", quantity),
            "centred": self.bound(sum(centred.values()), "8.2", quantity, centred),
            "from_inputs": terms[0],
            "from_cotangents": terms[1],
        }

    def _with_positions(self, layer: Layer, norms: FactorNorms) -> dict[str, Any]:
        """(8.8)."""
        terms = {
            "inputs": norms.cotangent_norm * self._high(norms.inputs, 2),
            "cotangents": norms.input_norm * self._high(norms.cotangents, 2),
        }
        quantity = f"the gradient width of {layer.name}"
        return {
            "coupled": self.bound(comb(*terms.values()), "8.8", quantity, terms),
            "from_inputs": terms["inputs"],
            "from_cotangents": terms["cotangents"],
        }


def factor_norms(product: Product, operands: list[Operands]) -> FactorNorms:
    """Compare the factors of N points with one another; patches are made for a few points at a time.

    Args:
        product: How they make the gradient; no lookup, one group.
        operands: Inputs and cotangents, a pair a use.

    Returns:
        Gram matrices and the largest operator norms.
    """
    num = operands[0][0].shape[0]
    cotangents = product.cotangents(operands)[:, 0]
    inputs, squares, gradients = jnp.zeros((num, num)), [], []
    # One array a kernel offset: moved images, which together are the patches.
    for rows in product.inputs(operands):
        flat = rows.reshape(num, -1)
        inputs = inputs + inner_products(flat, flat)
        del rows, flat
    for start in range(0, num, AT_ONCE):
        some = [(a[start : start + AT_ONCE], b[start : start + AT_ONCE]) for a, b in operands]
        square, gradient = _squares_and_gradients(product, some)
        squares.append(square)
        gradients.append(gradient)
    rows = jnp.concatenate(gradients)
    flat = cotangents.reshape(num, -1)
    input_norm, cotangent_norm = (_largest_norm([square[side] for square in squares]) for side in range(2))
    return FactorNorms(inputs, inner_products(flat, flat), input_norm, cotangent_norm, inner_products(rows, rows))


@partial(jax.jit, static_argnames="product")
def _squares_and_gradients(product: Product, operands: list[Operands]):
    """For each point the smaller Gram matrices of its patches and of its cotangents, and its gradient as a row."""
    columns = product.cotangents(operands)[:, 0]
    patches = jnp.concatenate([rows[:, 0] for rows in product.inputs(operands)], axis=2)
    gradients = jnp.einsum("nsi,nso->nio", patches, columns, precision=HIGHEST)
    return [_smaller_gram(patches), _smaller_gram(columns)], gradients.reshape(gradients.shape[0], -1)


def _smaller_gram(matrices: Float[Array, "n S I"]) -> Float[Array, "n k k"]:
    form = "nsi,nti->nst" if matrices.shape[1] <= matrices.shape[2] else "nsi,nsj->nij"
    return jnp.einsum(form, matrices, matrices, precision=HIGHEST)


def _largest_norm(squares: list[Array]) -> float:
    """Largest operator norm, from Gram matrices; on the host, as batched eigenvalues of XLA hung on two cores."""
    largest = max(float(np.linalg.eigvalsh(np.asarray(some))[:, -1].max()) for some in squares)
    return math.sqrt(max(largest, 0.0)) * (1 + 1e-5)  # of float32


def _with_zero(gram: Float[Array, "N N"]) -> Float[Array, "N+1 N+1"]:
    return jnp.pad(gram, ((0, 1), (0, 1)))


def _reach(gram: Float[Array, "N N"]) -> float:
    """|mean| and the largest distance from it, added up."""
    values = np.asarray(gram, np.float64)
    mean = max(float(values.mean()), 0.0)
    apart = np.diagonal(values) - 2 * values.mean(1) + mean
    return math.sqrt(mean) + math.sqrt(max(float(apart.max()), 0.0))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _printed(table: LayerTable) -> str:
    shown = [row for row in table.rows if row.share >= 0.01]
    rest = [row for row in table.rows if row.share < 0.01]
    names = [_short(row.name) for row in shown]
    wide = max([*map(len, names), 24])
    head = f"{'layer':{wide}}  {'kind':9} {'parameters':>10}  {'measured':>16}  {'coupled':>9}  {'centred':>9}  "
    lines = [f"{head}{'spectral':>9}  share"]
    for name, row in zip(names, shown, strict=True):
        measured = f"{float(row.measured.value):.4g} ± {float(row.measured.stderr):.1g}"
        bounds = [row.coupled and row.coupled.value, row.centred and row.centred.value, row.spectral]
        cells = "  ".join(f"{'' if b is None else f'{b:.4g}':>9}" for b in bounds)
        lines.append(f"{name:{wide}}  {row.kind:9} {row.size:>10,}  {measured:>16}  {cells}  {row.share:5.0%}")
    if rest:
        share = sum(row.share for row in rest)
        lines.append(
            f"{f'{len(rest)} more, each below 1%':{wide}}  {'':9} {sum(r.size for r in rest):>10,}{'':54}{share:5.0%}"
        )
    total = f"{float(table.total.value):.4g} ± {float(table.total.stderr):.1g}"
    lines.append(f"all gradients together: {total}; sum of the layers: {table.sum_of_layers.value:.4g}")
    return "\n".join([*lines, *_advice(table)])


def _short(name: str) -> str:
    """A key path without its punctuation."""
    words = name.replace("']['", ".").replace("']", "").replace("['", "")
    return words.removeprefix("params.").replace("layers.", "")


def _advice(table: LayerTable) -> list[str]:
    with_factors = [row for row in table.rows if row.from_inputs is not None]
    if not with_factors:
        return ["No layer has factors: nothing can be said about what makes its width."]
    row = max(with_factors, key=lambda r: float(r.measured.value))
    inputs, cotangents = row.from_inputs or 0.0, row.from_cotangents or 0.0
    side, other = ("its inputs", "cotangents") if inputs >= cotangents else ("its cotangents", "inputs")
    change = (
        "Fewer, smaller or sparser features in front of it (a bottleneck, an L1 penalty, top-k) make that term smaller."
        if inputs >= cotangents
        else "Fewer outputs of it, or smaller weights behind it, make that term smaller."
    )
    return [
        f"Widest layer: {_short(row.name)}, {row.share:.0%} of the sum; {side} make more of its bound than its {other} "
        f"({max(inputs, cotangents):.3g} against {min(inputs, cotangents):.3g}). {change}"
    ]
