"""Every statement that a finished run supports, each with its status."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lggwjax
from lggwjax import theory
from lggwjax.data import LinearPopulation
from lggwjax.strict import within
from lggwjax.theory import Assumption, Bound
from lggwjax.training.evidence import Evidence, ball_gradient_bound
from lggwjax.training.run import Progress, prepare_run, run

FIRST_RADIUS = 2.0**-4
"""Smallest ball of the doubling scheme, fixed before any sample is looked at."""

SIGNS = 8
"""Sign vectors behind the NERC of a whole sample: (4.2) holds for any number."""


@dataclass(frozen=True)
class Claims:
    """What a run supports.

    Attributes:
        bounds: Each holds by itself with its own confidence, not all of them at once.
        remarks: Comparisons of statements, and why some are missing.
    """

    bounds: tuple[Bound, ...]
    remarks: tuple[str, ...]

    def as_records(self) -> list[dict[str, Any]]:
        """One object of strict JSON types a statement."""
        return [_record(bound) for bound in self.bounds]

    def __str__(self) -> str:
        """Population first, then the measured set; certified before descriptive before shape."""
        lines = []
        for about in ("population", "measured set"):
            lines += [f"About the {about}", ""]
            lines += [f"  - {bound}" for bound in self.bounds if bound.about == about] or ["  - nothing"]
            lines.append("")
        lines += ["Remarks", "", *(f"  - {remark}" for remark in self.remarks)]
        return "\n".join(lines)


def claims(evidence: Evidence, *, confidence: float = 0.95, seed: int = 0) -> Claims:
    """State everything that a run supports.

    Args:
        evidence: The run, loaded by :meth:`Evidence.of_run`.
        confidence: Of each statement by itself.
        seed: Of the random directions and signs.

    Returns:
        The statements, certified ones first.

    Raises:
        ValueError: If ``confidence`` is not between 0 and 1.

    References:
        lggwjax/theory/README.md, which numbers the statements.
    """
    keys = jax.random.split(jax.random.key(seed), 4)
    remarks: list[str] = ["Each statement holds by itself with its confidence, not all of them at once."]
    bounds = list(_about_the_sample(keys[0], evidence, confidence, remarks))
    deviations = list(_deviations(keys[1], evidence, confidence, remarks))
    bounds += deviations
    bounds += _excess_risk(evidence, deviations, remarks)
    bounds += _descent(evidence, deviations, remarks)
    bounds += _featurizer(keys[2], evidence, confidence)
    order = ("certified", "descriptive", "shape")
    return Claims(tuple(sorted(bounds, key=lambda bound: order.index(bound.status))), tuple(remarks))


def layer_table(evidence: Evidence, *, confidence: float = 0.95, seed: int = 0) -> theory.LayerTable:
    """Say which layer makes the width of the gradients on the training probe.

    Args:
        evidence: The run.
        confidence: Of each bound.
        seed: Of the random directions.

    Returns:
        The table over at most four checkpoints, the first and the last among them.
    """
    places = sorted(set(np.linspace(0, len(evidence.path) - 1, 4).astype(int).tolist()))
    norms = evidence.norms
    spectral = {leaf.name: leaf.width for leaf in norms.leaves} if isinstance(norms, theory.NetworkNorms) else None
    return theory.layer_widths(
        jax.random.key(seed),
        evidence.prepared.model.loss_fn,
        [evidence.path[place] for place in places],
        evidence.prepared.split.train_probe,
        confidence=confidence,
        spectral=spectral,
        **evidence.options,
    )


def split_run(folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Redo a run honestly: train on half as many samples, and hold as many others out.

    For data without a test part of their own the second half of the sample is what is held out.

    Args:
        folder: A finished run.
        progress: Called with each step and its record.

    Returns:
        ``folder/split``, a run folder of its own; one that is there is gone on with.

    Raises:
        ValueError: If the sample is too small to be halved.
    """
    config = Evidence.of_run(folder).prepared.config
    half = config.data.num_samples // 2
    if half < 16:
        raise ValueError(f"Expected at least 32 samples to halve, got {config.data.num_samples}. Train on more.")
    size = config.training.batch_size
    halved = dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, num_samples=half, heldout_samples=half, probe_size=min(config.data.probe_size, half)
        ),
        training=dataclasses.replace(config.training, batch_size=None if size is None else min(size, half)),
    )
    out = within(Path(folder), "split")
    run(prepare_run(halved), out, resume=True, progress=progress)
    return out


def _record(bound: Bound) -> dict[str, Any]:
    return {
        "statement": bound.statement,
        "value": bound.value,
        "status": bound.status,
        "about": bound.about,
        "set": bound.gradient_set,
        "n": bound.num_samples,
        "assumptions": [a._asdict() for a in bound.assumptions],
        "quantity": bound.quantity,
        "relation": bound.relation,
        "confidence": bound.confidence,
        "parts": dict(bound.parts),
        "sentence": str(bound),
    }


def _about_the_sample(key, evidence: Evidence, confidence: float, remarks: list[str]) -> Iterator[Bound]:
    """Statements about the training probe itself: they need no population, and hold whatever it was used for."""
    model, probe = evidence.prepared.model, evidence.prepared.split.train_probe
    num, length = len(probe["y"]), len(evidence.path)
    keys = jax.random.split(key, 3)
    width = lggwjax.lggw(keys[0], model.loss_fn, evidence.path, probe, **evidence.options)
    single = lggwjax.single_widths(keys[1], model.loss_fn, evidence.path, probe, **evidence.options)
    nerc = lggwjax.nerc(keys[2], model.loss_fn, evidence.path, probe, **evidence.options)
    rms = np.sqrt(np.trace(np.asarray(evidence.grams, np.float64), axis1=1, axis2=2) / num)
    yield from theory.nerc_bounds(evidence.grams, width, confidence=confidence).values()
    yield from theory.chain_bounds(single, length, confidence=confidence).values()
    yield from theory.nerc_shapes(width, float(rms[0]), num, length).values()
    ratio = theory.homogeneous_ratio(nerc, width, float(rms.max()), num)
    low, high = nerc.interval(confidence)
    remarks.append(
        f"Measured on {num} samples at {length} checkpoints: LGGW {float(width.value):.4g} ± "
        f"{float(width.stderr):.1g}, NERC {float(nerc.value):.4g} ({float(low):.4g} to {float(high):.4g}); "
        f"sqrt(n) NERC / (LGGW + rms) is "
        f"{float(ratio.value):.3g} ± {float(ratio.stderr):.1g}, below a constant that nobody has named."
    )


def _deviations(key, evidence: Evidence, confidence: float, remarks: list[str]) -> Iterator[Bound]:
    """How far the gradient of the sample is from the population's, by every design that the run allows."""
    if (population := evidence.linear_population) is not None:
        yield _ball_deviation(key, evidence, population, confidence)
    bound, length = evidence.gradient_bound, len(evidence.path)
    longest = float(jnp.sqrt(jnp.diagonal(evidence.grams, axis1=1, axis2=2).max()))
    if bound.value > 2 * longest:
        remarks.append(
            f"Bounds on the deviation presume that no gradient is longer than {bound.value:.4g}; the longest measured "
            f"is {longest:.4g}. Whoever can vouch for less gets bounds smaller in proportion: --gradient-bound."
        )
    fresh = evidence.prepared.config.training.fresh
    design = "fresh samples" if fresh else "trained on these samples"
    points = theory.points_bound(bound, len(evidence.sample["y"]), length, design=design, confidence=confidence)
    yield points
    if evidence.heldout is None:
        remarks.append("Nothing was held out, so only a set fixed before training could certify anything about others.")
        return
    num = len(evidence.heldout["y"])
    between = [
        float(jnp.linalg.norm(a.gradient - b.gradient))
        for a, b in zip(evidence.passes, evidence.heldout_passes, strict=True)
    ]
    yield theory.split_bound(jnp.array(between), bound, num, confidence=confidence)
    held = {"design": "independent split", "confidence": confidence}
    simple = theory.points_bound(bound, num, length, **held)
    model = evidence.prepared.model
    nerc = lggwjax.nerc(
        key, model.loss_fn, evidence.path, evidence.heldout, num_draws=SIGNS, by="gradients", **evidence.options
    )
    by_nerc = theory.nerc_bound(float(nerc.value), bound, num, gradient_set=f"{length} points", **held)
    yield simple
    yield by_nerc
    smaller, larger = sorted((simple, by_nerc), key=lambda one: one.value)
    remarks.append(
        f"For the {length} points looked at, on the held-out samples, ({smaller.statement}) gives "
        f"{smaller.value:.4g} and ({larger.statement}) {larger.value:.4g}: NERC and LGGW pay for a continuum of points."
    )


def _ball_deviation(key, evidence: Evidence, population: LinearPopulation, confidence: float) -> Bound:
    """(4.2) over a ball around a start that saw no data: it covers a path trained on the sample itself."""
    start = evidence.coordinates(0)
    distance = max(evidence.distance, _descent_distance(evidence) if _is_plain_descent(evidence) else 0.0)
    radius, left = theory.doubled_radius(FIRST_RADIUS, distance, confidence)
    bound = theory.nerc_bound(
        theory.least_squares_ball_nerc(key, evidence.sample, jax.tree.leaves(start)[0], radius, SIGNS),
        ball_gradient_bound(population, radius, start),
        len(evidence.sample["y"]),
        gradient_set=f"the ball of radius {radius:g} around the initial parameters, which holds the path",
        design="data-free ball",
        confidence=left,
    )
    # The radius was chosen with the path in hand: what holds is the whole list of balls, with the confidence asked for.
    return dataclasses.replace(bound, confidence=confidence)


def _descent_distance(evidence: Evidence) -> float:
    """Largest distance from the start at any step, measured or not: least squares descended once more."""
    training = evidence.prepared.config.training
    x, y = (np.asarray(evidence.sample[name], np.float64) for name in ("x", "y"))
    moment, pull = x.T @ x / len(y), x.T @ y / len(y)
    start = np.asarray(jax.tree.leaves(evidence.coordinates(0))[0], np.float64).reshape(-1)
    here, distance = start, 0.0
    for _ in range(training.steps):
        here = here - training.learning_rate * (moment @ here - pull)
        distance = max(distance, float(np.linalg.norm(here - start)))
    return distance * (1 + 1e-3)  # the run itself was in float32


def _is_plain_descent(evidence: Evidence) -> bool:
    training = evidence.prepared.config.training
    return training.optimizer == "gd" and not (training.weight_decay or training.feature_l1 or training.fresh)


def _excess_risk(evidence: Evidence, deviations: list[Bound], remarks: list[str]) -> Iterator[Bound]:
    """(5.1) at the last checkpoint: rigorous for the linear population, else by the envelope of the path."""
    # Only bounds on the deviation of S go with the gradient of S: (4.5), and the ball.
    about_sample = [b for b in deviations if b.statement == "4.5" or "ball" in b.gradient_set]
    if not about_sample:
        return
    # By design and not by size: the smaller of two bounds holds less often than either.
    deviation = next((b for b in about_sample if b.statement == "4.5"), about_sample[0])
    norm = float(jnp.linalg.norm(evidence.passes[-1].gradient))
    deviation = dataclasses.replace(deviation, gradient_set=f"the last checkpoint, one of {deviation.gradient_set}")
    if (population := evidence.linear_population) is not None:
        yield theory.excess_risk_bound(norm, deviation, theory.strongly_convex(population.mu, "checked"))
        return
    gaps = np.array([p.loss for p in evidence.heldout_passes])
    fields = [record["heldout_grad_norm"] for record in evidence.records]
    norms = np.array([math.nan if field is None else field["value"] for field in fields], np.float64)
    resolved = np.isfinite(norms) & (norms > 0)
    if not len(gaps) or not resolved.any():
        remarks.append("The population gradient could not be told from 0 anywhere: there is no envelope.")
        return
    least = theory.envelope(jnp.asarray(gaps[resolved]), jnp.asarray(norms[resolved]))
    if resolved.sum() > 1:
        seen = theory.envelope(jnp.asarray(gaps[resolved] - gaps.min()), jnp.asarray(norms[resolved]))
        pairs = ", ".join(
            f"{b.constant:.3g} to {a.constant:.3g} (alpha {a.alpha:g})" for a, b in zip(least, seen, strict=True)
        )
        remarks.append(
            f"The least possible loss is not known. If it is the best one seen or 0, gradient domination needs the "
            f"constants {pairs}; {int(resolved.sum())} of {len(norms)} points have a gradient that can be told from 0."
        )
    for domination in least:
        yield theory.excess_risk_bound(norm, deviation, domination)


def _descent(evidence: Evidence, deviations: list[Bound], remarks: list[str]) -> Iterator[Bound]:
    """(6.1) and (6.2), for gradient descent proper."""
    training = evidence.prepared.config.training
    if not _is_plain_descent(evidence):
        remarks.append("Statements (6.1) to (6.3) are about plain gradient descent on the sample: none is made here.")
        return
    squares = [r["heldout_grad_norm"]["value"] ** 2 for r in evidence.records if r["heldout_grad_norm"] is not None]
    if squares:
        remarks.append(f"Mean squared population gradient at the checkpoints, measured: {np.mean(squares):.4g}.")
    if (population := evidence.linear_population) is not None:
        if training.learning_rate > 1 / population.beta:
            remarks.append(f"The learning rate is above 1/beta = {1 / population.beta:.4g}: (6.1) says nothing.")
            return
        [ball] = [b for b in deviations if b.gradient_set.startswith("the ball")]
        yield from _linear_descent(evidence, population, ball)
        return
    held = [b for b in deviations if b.statement == "4.5"]
    if not held:
        return
    text = "losses and deviations between the checkpoints, and their errors, are not accounted for"
    yield theory.mean_gradient_bound(
        evidence.heldout_passes[0].loss,
        evidence.heldout_passes[-1].loss,
        training.learning_rate,
        jnp.full(training.steps, held[0].value),
        smoothness=1 / training.learning_rate,
        num_samples=held[0].num_samples,
        source="missing",
        assumptions=(*held[0].assumptions, Assumption(text, "missing")),
    )


def _linear_descent(evidence: Evidence, population: LinearPopulation, ball: Bound) -> Iterator[Bound]:
    training, start, end = evidence.prepared.config.training, evidence.coordinates(0), evidence.coordinates(-1)
    given: dict[str, Any] = {
        "smoothness": population.beta,
        "num_samples": ball.num_samples,
        "source": "checked",
        "assumptions": ball.assumptions,
    }
    rate, steps = training.learning_rate, training.steps
    losses = population.loss(start), population.loss(end)
    mean = theory.mean_gradient_bound(*losses, rate, jnp.full(steps, ball.value), **given)
    gap = theory.gap_bound(losses[0] - population.loss_star, rate, steps, ball.value, modulus=population.mu, **given)
    for bound in (mean, gap):
        yield dataclasses.replace(bound, confidence=ball.confidence)


def _featurizer(key, evidence: Evidence, confidence: float) -> Iterator[Bound]:
    """(8.6) from the features of the training probe at all checkpoints; (8.5) where the loss is cross-entropy."""
    model, probe = evidence.prepared.model, evidence.prepared.split.train_probe
    features = jax.jit(jax.vmap(model.feature_fn, in_axes=(None, 0)))
    rows = jnp.concatenate([features(params, probe).reshape(len(probe["y"]), -1) for params in evidence.path])
    yield from theory.feature_width_bounds(rows).values()
    if evidence.prepared.split.task == "classification":
        with_zero = jnp.concatenate([rows, jnp.zeros((1, rows.shape[1]))])
        width = lggwjax.gaussian_width(key, with_zero)
        largest = float(jnp.linalg.norm(rows, axis=1).max()) * (1 + 1e-5)  # of float32
        classes = evidence.prepared.split.num_outputs
        yield theory.last_layer_bound(width, largest, classes, len(rows), confidence=confidence)
