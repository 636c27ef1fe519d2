"""What a run was asked for: frozen, checked on construction, saved with the run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax

from lggwjax.data.spec import DataSpec
from lggwjax.models.spec import ModelSpec
from lggwjax.training.loop import TrainSpec, measurement_steps

_PACKAGES = ("lggwjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


@dataclass(frozen=True)
class MeasureSpec:
    """How often and how finely to measure.

    Attributes:
        measurements: Checkpoints measured, step 0 and the last included; at least 2.
        spacing: ``log`` (ever longer gaps) or ``even``.
        directions: Gaussian directions behind each width, and sign vectors behind each NERC; at least 8.

    Raises:
        ValueError: If a field is out of its range.
    """

    measurements: int = 16
    spacing: Literal["log", "even"] = "log"
    directions: int = 512

    def __post_init__(self) -> None:
        if not 2 <= self.measurements <= 100_000:
            raise ValueError(
                f"Expected measurements >= 2, at most 100,000, got {self.measurements}. The first and last step are "
                "measured."
            )
        if self.directions < 8:
            raise ValueError(f"Expected directions >= 8, got {self.directions}. Fewer have no useful error bar.")
        if self.spacing not in ("log", "even"):
            raise ValueError(f'Expected spacing "log" or "even", got {self.spacing!r}.')


@dataclass(frozen=True)
class RunConfig:
    """Everything that fixes a run's numbers: two runs with equal configurations on one machine agree bit for bit.

    Attributes:
        data: The samples.
        model: The network.
        training: The optimiser and its steps.
        measuring: When and how finely widths are measured.

    Example:
        >>> RunConfig().steps_measured[:3]
        (0, 1, 2)
    """

    data: DataSpec = field(default_factory=lambda: DataSpec(num_samples=200, probe_size=64))
    model: ModelSpec = field(default_factory=ModelSpec)
    training: TrainSpec = field(default_factory=lambda: TrainSpec(steps=200))
    measuring: MeasureSpec = field(default_factory=MeasureSpec)

    def __post_init__(self) -> None:
        if self.training.steps < 1:
            raise ValueError(f"Expected steps >= 1, got {self.training.steps}. Training takes at least one step.")
        if self.training.fresh and self.data.name not in ("linear", "teacher"):
            raise ValueError(
                "Expected data with a population (linear or teacher) for fresh samples, "
                f"got {self.data.name!r}. Leave fresh out."
            )
        size = self.training.batch_size
        if size is not None and size > self.data.num_samples:
            raise ValueError(
                f"Expected batch_size <= num_samples, got {size} and {self.data.num_samples}. Choose a smaller batch."
            )

    @property
    def steps_measured(self) -> tuple[int, ...]:
        """Steps at which the run is measured."""
        return measurement_steps(self.training.steps, self.measuring.measurements, self.measuring.spacing)

    @property
    def passes_per_step(self) -> float:
        """Passes over the sample that one step makes."""
        size = self.training.batch_size
        return 1.0 if size is None else size / self.data.num_samples

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as strict JSON types, one object a part."""
        return {
            name: {key: _plain(value) for key, value in dataclasses.asdict(getattr(self, name)).items()}
            for name in ("data", "model", "training", "measuring")
        }

    @classmethod
    def from_dict(cls, settings: dict[str, dict[str, Any]]) -> RunConfig:
        """Undo :meth:`as_dict`; what ``config.json`` says beyond it is passed over.

        Args:
            settings: The parts of a run's ``config.json``.

        Returns:
            The configuration.

        Raises:
            ValueError: If a part is missing or a field is out of its range.

        Example:
            >>> RunConfig.from_dict(RunConfig().as_dict()) == RunConfig()
            True
        """
        parts: dict[str, Any] = {}
        kind: Any
        for name, kind in (
            ("data", DataSpec),
            ("model", ModelSpec),
            ("training", TrainSpec),
            ("measuring", MeasureSpec),
        ):
            given = settings.get(name)
            if not isinstance(given, dict):
                raise ValueError(f"Expected the configuration of a run, got none of its {name}. Name a run folder.")
            known = {f.name for f in dataclasses.fields(kind)} & set(given)
            values = {key: tuple(v) if isinstance(v := given[key], list) else v for key in known}
            try:
                parts[name] = kind(**values)
            except (TypeError, OverflowError) as error:  # a text for a number, or one that no float can hold
                raise ValueError(f"Expected numbers, texts and lists where {name} has them, got {error}.") from None
        return cls(**parts)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def environment() -> dict[str, Any]:
    """Versions, device and git revision, so that a run says what made it.

    Returns:
        Strict JSON types; ``revision`` is None where the working directory is no git checkout.
    """
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "num_devices": jax.device_count(),
        "revision": _git_revision(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
