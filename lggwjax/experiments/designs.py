"""Designs to compare: three that need no configuration, and those of a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lggwjax.models.spec import ModelSpec
from lggwjax.training.files import Json
from lggwjax.training.loop import TrainSpec

TEMPLATES_DIR = Path(__file__).parent / "templates"
TEMPLATES = ("tables", "images", "small_data")
LINEAR, NETWORK, SPARSE = "linear model", "network", "narrow sparse network"

_DEFAULT_BATCH = 64
# The budget sets the steps, the seeds of the comparison set the seed, and a file has no population to draw from.
_TRAINING = tuple(f.name for f in dataclasses.fields(TrainSpec) if f.name not in ("steps", "seed", "fresh"))
_MODEL = tuple(f.name for f in dataclasses.fields(ModelSpec))


@dataclass(frozen=True)
class Design:
    """A design: a model and how it is trained.

    Attributes:
        name: Distinguishes it on the page.
        model: The network.
        training: Fields of :class:`lggwjax.training.TrainSpec`; the number of steps comes from the budget.

    Raises:
        ValueError: If the name is empty or longer than 40 characters, or a field is refused.
    """

    name: str
    model: ModelSpec
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name.strip()) <= 40:
            raise ValueError(f"Expected a name of 1 to 40 characters for each design, got {self.name!r}. Give it one.")
        self.train_spec(steps=1, seed=0, most=1)

    def train_spec(self, *, steps: int, seed: int, most: int) -> TrainSpec:
        """Return how to train it.

        Args:
            steps: Optimiser steps.
            seed: Fixes the order of the sample.
            most: Largest batch that the samples allow.
        """
        fields = dict(self.training)
        size = fields.pop("batch_size", None if fields.get("optimizer") == "gd" else _DEFAULT_BATCH)
        if isinstance(size, int) and not isinstance(size, bool) and size > most:
            size = most
        return TrainSpec(batch_size=size, steps=steps, seed=seed, **fields)

    def as_dict(self) -> Json:
        """Return the design as strict JSON types."""
        model = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self.model).items()}
        return {"name": self.name, "model": model, "training": dict(self.training)}


def default_designs(*, images: bool) -> list[Design]:
    """Return the three designs that a comparison takes without configuration.

    A linear model says whether anything more is needed; a network of usual size, for images a convolutional one, says
    what flexibility buys; and a network of the same kind with a narrow featurizer, few of whose features are active,
    says whether that flexibility can be had with less.

    Args:
        images: Whether the inputs are images.

    Returns:
        The designs.

    Example:
        >>> [design.name for design in default_designs(images=False)]
        ['linear model', 'network', 'narrow sparse network']
    """
    kind, wide, narrow = ("cnn", (64,), (16,)) if images else ("ffn", (64, 64), (64, 16))
    sparse: dict[str, Any] = {"learning_rate": 0.003, "feature_l1": 0.001}
    return [
        Design(LINEAR, ModelSpec(widths=()), {"learning_rate": 0.01}),
        Design(NETWORK, ModelSpec(kind, widths=wide), {"learning_rate": 0.003}),  # type: ignore[arg-type]
        Design(SPARSE, ModelSpec(kind, widths=narrow, top_k=8), sparse),  # type: ignore[arg-type]
    ]


def template(name: str) -> str:
    """Return the text of a template, to be changed and given as ``--config``.

    Args:
        name: One of ``TEMPLATES``.

    Raises:
        ValueError: If there is none of that name.
    """
    name = name.replace("-", "_")
    if name not in TEMPLATES:
        raise ValueError(f"Expected --template to be one of {', '.join(TEMPLATES)}, got {name!r}.")
    return (TEMPLATES_DIR / f"designs_{name}.toml").read_text(encoding="utf-8")


def read_designs(file: Path) -> list[Design]:
    """Read designs from a TOML file with a table ``[[design]]`` each.

    Args:
        file: Each design has a ``name``, fields ``model.…`` of :class:`lggwjax.models.ModelSpec` and fields
            ``training.…`` of :class:`lggwjax.training.TrainSpec`.

    Returns:
        Two designs or more, with different names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such TOML, or a design is refused; the message says which, and what to change.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected --config to be a TOML file, got no file {file}. Start from `lggwjax compare --template tables`."
        )
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad UTF-8, numbers of 5,000 digits and deep lists among them
        raise ValueError(f"Expected TOML in {file}, got {error}. Correct that place.") from None
    unknown = sorted(set(given) - {"design"})
    if unknown:
        raise ValueError(f"Expected only [[design]] tables in {file}, got {unknown[0]!r}. Put it under a design.")
    tables = given.get("design")
    if not isinstance(tables, list) or len(tables) < 2:
        raise ValueError(f"Expected at least two [[design]] tables in {file}, got fewer. A comparison needs two.")
    designs = [_design(file, number, table) for number, table in enumerate(tables, start=1)]
    _check_names(file, [design.name for design in designs])
    return designs


def _check_names(file: Path, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Expected designs with different names in {file}, got {name!r} twice. Rename one.")


def _design(file: Path, number: int, table: Any) -> Design:
    where = f"design {number} of {file}"
    if not isinstance(table, dict) or not all(isinstance(table.get(p, {}), dict) for p in ("model", "training")):
        raise ValueError(f'Expected a table with name, model and training in {where}, such as model.name = "ffn".')
    for part, known in (("", ("name", "model", "training")), ("model", _MODEL), ("training", _TRAINING)):
        fields = table.get(part, {}) if part else table
        unknown = sorted(set(fields) - set(known))
        if unknown:
            what = f"field of {part}" if part else "entry"
            raise ValueError(f"Expected a known {what} in {where}, one of {', '.join(known)}, got {unknown[0]!r}.")
    try:
        return Design(table.get("name", ""), ModelSpec(**table.get("model", {})), dict(table.get("training", {})))
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"Expected a design that can be made as {where}: {error}") from None
