"""A meter of checkpoints: parameters in, one record out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lggwjax.gradients.engine import Engine, pose
from lggwjax.gradients.layout import gram_layout
from lggwjax.gradients.selection import LossFn, Wrt, as_partial, batch_size, select
from lggwjax.sharding import gathered, mesh_of, num_shares, place_whole, shard_samples
from lggwjax.training.heldout import NUM_BLOCKS, Scalar, gradient_norm, pass_over, population_descent
from lggwjax.training.nonfinite import blame
from lggwjax.training.probes import SKETCH_SIZE, Probe, ProbePath, ProbeWidths, Route
from lggwjax.widths.estimate import Estimate, WidthEstimate
from lggwjax.widths.finite import gaussian_width
from lggwjax.widths.sketched import SketchedWidth

KEPT_BYTES = 2**31  # factors of all checkpoints on both probes that are kept; a larger path is sketched

Record = dict[str, Any]


@dataclass(frozen=True)
class MeterState:
    """What a meter knows of the path so far: one path of widths a probe."""

    train: ProbePath
    heldout: ProbePath | None


@dataclass(frozen=True)
class Samples:
    """Which samples answer which question. Batches are pytrees with a leading axis.

    Attributes:
        train: The training sample, for losses and the empirical gradient: all of it, also where its rows are read when
            they are asked for (:class:`lggwjax.data.StreamedSample`).
        train_probe: Part of it, for widths.
        heldout: Samples that take no part in training, for losses, the deviation and the population descent; or None.
        heldout_probe: Part of them, for widths; or None.
        trained_on: Whether the path was trained on ``train``; if so its widths are descriptive.
    """

    train: PyTree
    train_probe: PyTree
    heldout: PyTree | None = None
    heldout_probe: PyTree | None = None
    trained_on: bool = True


class Meter:
    """Measures LGGW, NERC, the featurizer and the population descent of a path as it grows.

    Pure: :meth:`init` gives a state, :meth:`measure` takes it and the parameters and returns a new one with a record.
    Nothing it does reaches the training. The widths of the training probe are marked ``descriptive``: the path was
    trained on these samples. Without held-out samples it says nothing about unseen data.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, z): return 0.5 * (w @ z["x"] - z["y"]) ** 2
        >>> data = {"x": jnp.eye(4), "y": jnp.ones(4)}
        >>> meter = Meter(loss, Samples(data, data), max_checkpoints=2, num_draws=64)
        >>> state = meter.init(jnp.zeros(4))
        >>> state, record = meter.measure(state, jnp.zeros(4))
        >>> record["lggw"]["value"], record["train_loss"]
        (0.0, 0.5)
    """

    def __init__(
        self,
        loss_fn: LossFn,
        samples: Samples,
        *,
        max_checkpoints: int = 64,
        num_draws: int = 512,
        seed: int = 0,
        wrt: Wrt = None,
        predict_fn: Callable[[Any, Any], Array] | None = None,
        feature_fn: Callable[[Any, Any], Array] | None = None,
        route: Route | None = None,
    ):
        """Set the meter up; nothing is computed yet.

        Args:
            loss_fn: ``loss_fn(params, example) -> scalar``, the data loss of one example.
            samples: Training and held-out samples.
            max_checkpoints: Longest path; fixes the draws.
            num_draws: Gaussian directions and sign vectors of each estimate.
            seed: Fixes the draws.
            wrt: Which leaves are gradient coordinates; by default all floating ones.
            predict_fn: ``predict_fn(params, example) -> (k,)``, for the accuracy against integer labels
                ``example["y"]``.
            feature_fn: ``feature_fn(params, example) -> (m,)``, the featurizer.
            route: ``"exact"`` keeps the factors of all checkpoints; ``"sketched"`` keeps memory constant, measures LGGW
                with an error of the sketch beside the draws', and leaves single and union widths out. By default exact
                while the factors take less than 2 GiB.

        Raises:
            ValueError: If ``max_checkpoints < 1`` or ``num_draws < 2``.
        """
        if max_checkpoints < 1 or num_draws < 2:
            raise ValueError(
                f"Expected max_checkpoints >= 1 and num_draws >= 2, got {max_checkpoints} and {num_draws}."
            )
        self._loss_fn, self._samples, self._wrt = loss_fn, samples, wrt
        self._capacity, self._num_draws, self._seed = max_checkpoints, num_draws, seed
        self._predict, self._features = predict_fn, feature_fn
        self._route: Route | None = route
        probes = (samples.train_probe, samples.heldout_probe)
        self._num_probed = sum(batch_size(probe) for probe in probes if probe is not None)

    def of(self, samples: Samples) -> Meter:
        """The same meter of other samples, such as those that are left; the route stays as it was.

        Args:
            samples: No more than before.

        Returns:
            A meter with the same draws, which does not know this one's states.
        """
        other = copy.copy(self)
        other._samples = samples
        return other

    def init(self, params: PyTree) -> MeterState:
        """State before the first measurement; ``params`` give the shapes.

        Args:
            params: Parameters of the structure that will be measured.

        Returns:
            The state of an empty path.
        """
        train_key, heldout_key = jax.random.split(jax.random.key(self._seed))
        heldout = self._samples.heldout_probe
        return MeterState(
            train=self._probe(params, self._samples.train_probe, union=True).start(train_key),
            heldout=None if heldout is None else self._probe(params, heldout, union=False).start(heldout_key),
        )

    def plan(self, params: PyTree) -> dict[str, Any]:
        """Route and sizes that measuring will use, for the configuration of a run.

        Args:
            params: Parameters of the structure that will be measured.

        Returns:
            ``route``, ``chunk_size``, ``num_draws``, ``max_checkpoints``, ``num_parameters`` and ``kept_bytes``.
        """
        probe = self._probe(params, self._samples.train_probe, union=True)
        engine = probe.problem.engine
        return {
            "route": probe.route,
            "chunk_size": probe.chunk_size,
            "num_draws": self._num_draws,
            "max_checkpoints": self._capacity,
            "num_parameters": sum(layer.size for layer in engine.layers),
            "kept_bytes": self._kept_bytes(engine) if probe.route == "exact" else 4 * SKETCH_SIZE * self._num_probed,
        }

    def measure(self, state: MeterState, params: PyTree, previous: PyTree | None = None) -> tuple[MeterState, Record]:
        """Add a checkpoint to the path.

        Args:
            state: From :meth:`init` or the last call.
            params: Parameters now.
            previous: Parameters before the step just taken, for the population descent; None where there was no step.

        Returns:
            The new state, and a record: strict JSON types only, ``None`` for what is not known.

        Raises:
            FloatingPointError: If a loss or gradient is NaN or infinite; the message names the first such sample and
                the layers.
            ValueError: If the path is full.
        """
        try:
            return self._measure(state, params, previous)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}{self._blamed(params)}") from None

    def _blamed(self, params: PyTree) -> str:
        for name, batch in (("trained on", self._samples.train), ("held out", self._samples.heldout)):
            cause = "" if batch is None else blame(self._loss_fn, params, batch, self._wrt)
            if cause:
                return f" Of the samples {name}, {cause}."
        return ""

    def _measure(self, state: MeterState, params: PyTree, previous: PyTree | None) -> tuple[MeterState, Record]:
        after, train, outside = self._extend(state, params)
        record = self._losses(params, previous, train)
        record |= self._featurizer(state, params)
        record |= _width_fields("", train, self._samples.train_probe, after.train.length)
        heldout_fields = dict.fromkeys(("heldout_lggw", "heldout_cloud_width", "heldout_nerc"))
        if outside is not None:
            heldout_fields = _width_fields("heldout_", outside, self._samples.heldout_probe, after.train.length)
        record |= heldout_fields | {"status": self._status()}
        _require_finite(record)
        return after, record

    def extend(self, state: MeterState, params: PyTree) -> MeterState:
        """Add a checkpoint to the path without a record: how a path is rebuilt from its checkpoints.

        Args:
            state: From :meth:`init` or the last call.
            params: The checkpoint.

        Returns:
            The state that :meth:`measure` would have returned.
        """
        return self._extend(state, params)[0]

    def _extend(self, state: MeterState, params: PyTree) -> tuple[MeterState, ProbeWidths, ProbeWidths | None]:
        train, widths = self._probe(params, self._samples.train_probe, union=True).extend(state.train, params)
        if state.heldout is None:
            return MeterState(train, None), widths, None
        heldout, outside = self._probe(params, self._samples.heldout_probe, union=False).extend(state.heldout, params)
        return MeterState(train, heldout), widths, outside

    def _kept_bytes(self, engine: Engine) -> int:
        return self._capacity * self._num_probed * engine.compact_bytes

    def _probe(self, params: PyTree, batch: PyTree, *, union: bool) -> Probe:
        problem = pose(self._loss_fn, params, batch, self._wrt)
        by_size: Route = "exact" if self._kept_bytes(problem.engine) <= KEPT_BYTES else "sketched"
        shares = num_shares(problem.mesh)
        chunk_size = gram_layout(problem.engine, problem.num_samples, None, None, shares).chunk_size
        return Probe(problem, batch, chunk_size, self._capacity, self._num_draws, self._route or by_size, union)

    def _losses(self, params: PyTree, previous: PyTree | None, widths: ProbeWidths) -> Record:
        samples = self._samples
        selection, loss = select(params, self._wrt), as_partial(self._loss_fn)
        here = pass_over(loss, self._predict, params, samples.train, selection)
        gradient = here.gradient
        record: Record = {
            "train_loss": here.loss,
            "heldout_loss": None,
            "train_accuracy": here.accuracy,
            "heldout_accuracy": None,
            "grad_norm": float(jnp.linalg.norm(gradient)),
            "gradient_rms": float(widths.gradient_rms),
            "heldout_grad_norm": None,
            "deviation": None,
            "population_descent": None,
        }
        if samples.heldout is not None:
            outside = pass_over(loss, self._predict, params, samples.heldout, selection, NUM_BLOCKS)
            record |= {
                "heldout_loss": outside.loss,
                "heldout_accuracy": outside.accuracy,
                "heldout_grad_norm": _scalar_field(gradient_norm(outside.gradients)),
                "deviation": _scalar_field(gradient_norm(gradient - outside.gradients)),
            }
            if previous is not None:
                descent = population_descent(loss, previous, params, samples.heldout, selection)
                record["population_descent"] = _scalar_field(descent)
        if not np.isfinite([here.loss, record["heldout_loss"] or 0.0]).all():
            raise FloatingPointError("The loss is NaN or infinite.")
        return record

    def _featurizer(self, state: MeterState, params: PyTree) -> Record:
        if self._features is None:
            return {"feature_width": None, "features": None}
        probe = self._samples.train_probe
        mesh = mesh_of(params, probe)
        if mesh is not None:
            params, probe = place_whole(params, mesh), shard_samples(probe, mesh)
        features = gathered(_feature_matrix(jax.tree_util.Partial(self._features), params, probe), mesh)
        if not bool(jnp.isfinite(features).all()):
            raise FloatingPointError("A feature is NaN or infinite.")
        key = jax.random.fold_in(state.train.key, 5)
        width = gaussian_width(key, features, num_draws=self._num_draws)
        return {
            "feature_width": _width_field(width, len(features), 1),
            "features": {
                "active_share": float(jnp.mean(features != 0)),
                "l1": float(jnp.abs(features).sum(1).mean()),
                "l2": float(jnp.linalg.norm(features, axis=1).mean()),
            },
        }

    def _status(self) -> dict[str, str]:
        own = "descriptive" if self._samples.trained_on else "independent"
        names = ("lggw", "single_width", "union_width", "cloud_width", "feature_width", "nerc")
        status: dict[str, str] = dict.fromkeys(names, own)
        if self._samples.heldout_probe is not None:
            status |= dict.fromkeys(("heldout_lggw", "heldout_cloud_width", "heldout_nerc"), "independent")
        return status


def example_form(batch: PyTree) -> str:
    """Types and shapes of one example, for comparing batches and for messages."""
    return str(jax.tree.map(lambda leaf: f"{np.asarray(leaf).dtype}{list(np.shape(leaf)[1:])}", batch))


@jax.jit
def _feature_matrix(feature_fn, params, batch) -> Float[Array, "n m"]:
    features = jax.vmap(feature_fn, in_axes=(None, 0))(params, batch)
    return features.reshape(features.shape[0], -1)


def _require_finite(record: Record, prefix: str = "") -> None:
    """Refuse a record with a NaN or an infinity, by the name of the field: what follows from it would mean nothing."""
    for name, value in record.items():
        if isinstance(value, dict):
            _require_finite(value, f"{prefix}{name}.")
        elif isinstance(value, float | list) and not np.isfinite(value).all():
            raise FloatingPointError(f"The loss or a gradient is NaN or infinite, met in {prefix}{name}.")


def _scalar_field(scalar: Scalar) -> Record:
    return {"value": scalar.value, "stderr": scalar.stderr, "ci95": [scalar.low, scalar.high]}


def _estimate_field(estimate: Estimate, num_samples: int, num_checkpoints: int) -> Record:
    return {
        "value": float(estimate.value),
        "stderr": float(estimate.stderr),
        "ci95": [float(end) for end in estimate.interval(0.95)],
        "num_draws": int(estimate.num_draws),
        "num_samples": num_samples,
        "num_checkpoints": num_checkpoints,
    }


def _width_field(width: WidthEstimate | SketchedWidth, num_samples: int, num_checkpoints: int) -> Record:
    if isinstance(width, SketchedWidth):
        # Its interval covers the sketch too; nothing is guaranteed about it.
        field = _estimate_field(width, num_samples, num_checkpoints)
        return field | {"draws_bound95": None, "sketch_stderr": float(width.sketch_stderr)}
    guaranteed = [float(end) for end in width.guaranteed_interval(0.95)]
    return _estimate_field(width, num_samples, num_checkpoints) | {"draws_bound95": guaranteed}


def _width_fields(prefix: str, widths: ProbeWidths, batch: PyTree, length: int) -> Record:
    num = batch_size(batch)
    fields = {
        "lggw": _width_field(widths.stacked, num, length),
        "cloud_width": _width_field(widths.cloud, num, 1),
        "nerc": _estimate_field(widths.nerc, num, length),
    }
    if widths.union is not None and widths.single is not None:
        fields["single_width"] = _width_field(widths.single, num, length)
        fields["union_width"] = _width_field(widths.union, num, length)
    elif not prefix:
        fields |= {"single_width": None, "union_width": None}
    return {prefix + name: field for name, field in fields.items()}
