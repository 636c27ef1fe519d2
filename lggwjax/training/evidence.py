"""What a finished run left behind, loaded again for the statements that it supports."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import lggwjax
from lggwjax.data import Batch, LinearPopulation
from lggwjax.gradients.selection import as_partial, select
from lggwjax.report import load_config
from lggwjax.strict import within
from lggwjax.theory import GradientBound
from lggwjax.theory.network_norms import NetworkNorms, network_norms
from lggwjax.training import checkpoints
from lggwjax.training.config import RunConfig
from lggwjax.training.folder import read_records
from lggwjax.training.heldout import Pass, pass_over
from lggwjax.training.run import Prepared, prepare_run


@dataclass(frozen=True)
class Evidence:
    """A run, its samples and its checkpoints.

    Attributes:
        prepared: Data and model, as the run had them in the end: without the samples that it left out.
        records: What was measured, a record a checkpoint.
        path: The checkpoints' parameters.
        declared_bound: Gradient bound that the caller stands for, or None.
        declared_radius: Largest norm of an input that the caller stands for, or None.
    """

    prepared: Prepared
    records: list[dict[str, Any]]
    path: list[PyTree]
    declared_bound: float | None = None
    declared_radius: float | None = None

    @classmethod
    def of_run(
        cls, folder: str | Path, *, gradient_bound: float | None = None, input_radius: float | None = None
    ) -> Evidence:
        """Load a run folder.

        Args:
            folder: As ``lggwjax run`` leaves it, with its checkpoints; the data must lie where they lay.
            gradient_bound: Norm that no sample's gradient exceeds on the path.
            input_radius: Norm that no input exceeds.

        Returns:
            The evidence.

        Raises:
            ValueError: If a declared number is not positive, the folder is no run's, is not finished, or its
                checkpoints are gone.
            FileNotFoundError: If a data file is missing.
        """
        for name, value in (("gradient bound", gradient_bound), ("input bound", input_radius)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"Expected {name} to be a positive number, got {value}.")
        folder, settings = Path(folder), load_config(folder)
        training = settings.get("training")
        if isinstance(training, dict) and training.get("trained_here") is False:
            raise ValueError(
                f"Expected the folder of a training run, got one of 'lggwjax measure' at {folder}: it does not say "
                "what the path was trained on."
            )
        prepared = prepare_run(RunConfig.from_dict(settings))
        records = read_records(within(folder, "metrics.jsonl"))
        if [record["step"] for record in records] != list(prepared.config.steps_measured):
            raise ValueError(
                f"Expected a finished run at {folder}. Go on with it first: the same command and --resume."
            )
        if (left_out := prepared.left_out(records)) is not None:
            split = prepared.split.without(left_out.train, left_out.heldout)
            prepared = dataclasses.replace(prepared, split=split, monitor=prepared.meter(left_out))
        saved = within(folder, "checkpoints")
        path = [checkpoints.restore(saved, record["step"], prepared.start).params for record in records]
        return cls(prepared, records, path, gradient_bound, input_radius)

    @property
    def sample(self) -> Batch:
        """S, what was trained on."""
        return self.prepared.split.sample

    @property
    def heldout(self) -> Batch | None:
        """H, all samples that took no part in training; None if there are too few."""
        return self.prepared.heldout

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that every measurement of this model takes."""
        return {"wrt": self.prepared.model.wrt}

    @functools.cached_property
    def passes(self) -> list[Pass]:
        """Loss and gradient of S at every checkpoint."""
        return self._passes(self.sample)

    @functools.cached_property
    def heldout_passes(self) -> list[Pass]:
        """The same of H."""
        return [] if self.heldout is None else self._passes(self.heldout)

    def _passes(self, data: Batch) -> list[Pass]:
        model = self.prepared.model
        selection, loss = select(self.path[0], model.wrt), as_partial(model.loss_fn)
        return [pass_over(loss, None, params, data, selection) for params in self.path]

    @functools.cached_property
    def grams(self) -> Float[Array, "T n n"]:
        """Gradient Gram matrices of the training probe."""
        probe, model = self.prepared.split.train_probe, self.prepared.model
        return jnp.stack([lggwjax.gradient_gram(model.loss_fn, params, probe, **self.options) for params in self.path])

    @functools.cached_property
    def distance(self) -> float:
        """Largest distance of a checkpoint from the first."""
        selection = select(self.path[0], self.prepared.model.wrt)
        first, *rest = ([np.asarray(x, np.float64) for x in selection.split(params)[0]] for params in self.path)
        return max(float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(one, first, strict=True)))) for one in rest)

    @property
    def linear_population(self) -> LinearPopulation | None:
        """The population, where the model is the linear one that its closed forms are about."""
        population, leaves = self.prepared.split.population, jax.tree.leaves(self.path[0]["params"])
        if not isinstance(population, LinearPopulation) or population.noise != "uniform":
            return None
        return population if len(leaves) == 1 and leaves[0].size == population.dimension else None

    def coordinates(self, index: int) -> PyTree:
        """Coordinates of one checkpoint, as the population's closed forms take them."""
        return self.path[index]["params"]

    @functools.cached_property
    def norms(self) -> NetworkNorms | str:
        """What the weights alone say about gradients; or why they say nothing."""
        split, radius, source = self.prepared.split, self.declared_radius, "declared"
        if radius is None:
            radius, source = split.input_radius, "checked"
        if radius is None:
            return "no norm of the inputs is known: declare it, or a gradient bound"
        try:
            return network_norms(
                self.prepared.model.predict_fn,
                self.path,
                jax.tree.map(lambda x: x[0], split.sample),
                input_radius=radius,
                loss="cross_entropy" if split.task == "classification" else "squared_error",
                target_radius=self._target_radius(),
                source=source,
                wrt=self.prepared.model.wrt,
            )
        except ValueError as error:
            return str(error)

    def _target_radius(self) -> float:
        split = self.prepared.split
        if split.task == "classification":
            return 0.0
        population = split.population
        if isinstance(population, LinearPopulation) and population.noise == "uniform":
            return population.input_radius + 3**0.5 * population.noise_scale  # |w_star| = 1
        raise ValueError("Expected targets whose norm is known, got regression on data that do not say so.")

    @functools.cached_property
    def gradient_bound(self) -> GradientBound:
        """B on the path: declared, from a known population, from the architecture, or else only seen."""
        if self.declared_bound is not None:
            return GradientBound.declared(self.declared_bound)
        if (population := self.linear_population) is not None:
            return ball_gradient_bound(population, self.distance, self.coordinates(0))
        if isinstance(self.norms, NetworkNorms):
            return self.norms.gradient_bound
        largest = float(jnp.sqrt(jnp.diagonal(self.grams, axis1=1, axis2=2).max()))
        seen = GradientBound.seen(largest)
        return seen._replace(assumption=seen.assumption._replace(text=f"{seen.assumption.text} ({self.norms})"))


def ball_gradient_bound(population: LinearPopulation, radius: float, center: PyTree) -> GradientBound:
    """B over a ball around a point, from a population with bounded inputs and noise."""
    value = population.gradient_bound(radius, center)
    bound = GradientBound.declared(value)
    text = f"inputs and noise are bounded, so that no gradient is longer than {value:.4g}"
    return bound._replace(assumption=bound.assumption._replace(text=text, source="checked"))
