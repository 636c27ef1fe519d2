"""What a statement of lggwjax/theory/README.md says for measured numbers, with the status that its input earns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

Status = Literal["certified", "descriptive", "shape"]
About = Literal["measured set", "population"]
Relation = Literal["at most", "at least"]
Source = Literal["checked", "declared", "missing"]
Design = Literal["independent split", "fresh samples", "data-free ball", "trained on these samples"]

_SHAPES = frozenset({"3.5", "3.6"})  # statements that hold up to a constant that nobody has named
_DESIGNS: Mapping[Design, str] = MappingProxyType(
    {
        "independent split": "the points were fixed before these samples were looked at",
        "fresh samples": "each step used samples that no step before had used",
        "data-free ball": "the ball was fixed before any sample was looked at",
        "trained on these samples": "the points must not depend on the samples, but were trained on them",
    }
)


class Assumption(NamedTuple):
    """What a statement presumes, and who stands for it.

    Attributes:
        text: The assumption, as the end of "provided that".
        source: ``checked`` by the code, ``declared`` by the caller, or ``missing``.
    """

    text: str
    source: Source


def assume_design(design: Design) -> Assumption:
    """Turn how the points relate to the samples into the assumption that statements about a population make.

    Args:
        design: How the points came about.

    Returns:
        The assumption: declared by the caller, and missing for points trained on the samples.

    Raises:
        ValueError: If the design is unknown.
    """
    if design not in _DESIGNS:
        raise ValueError(f"Expected design to be one of {', '.join(map(repr, _DESIGNS))}, got {design!r}.")
    return Assumption(_DESIGNS[design], "missing" if design == "trained on these samples" else "declared")


class GradientBound(NamedTuple):
    """B: no sample's gradient is longer, at any point in question; and who stands for it.

    Attributes:
        value: B, in loss per unit of parameter.
        assumption: For the bounds that rest on it.
        failure: Probability with which a bound that was computed may be wrong.
    """

    value: float
    assumption: Assumption
    failure: float = 0.0

    @classmethod
    def declared(cls, value: float) -> GradientBound:
        """A bound that the caller stands for.

        Args:
            value: B.

        Returns:
            The bound.

        Raises:
            ValueError: If ``value`` is negative or not finite.
        """
        return cls(_checked_norm(value), Assumption(f"no sample's gradient is longer than {value:.4g}", "declared"))

    @classmethod
    def seen(cls, value: float) -> GradientBound:
        """The longest gradient that was met, which bounds no other: what rests on it is descriptive.

        Args:
            value: Largest norm seen.

        Returns:
            The bound, with its assumption missing.

        Raises:
            ValueError: If ``value`` is negative or not finite.
        """
        text = f"that no sample's gradient is longer than {value:.4g} is only what was seen, and has to be declared"
        return cls(_checked_norm(value), Assumption(text, "missing"))


def _checked_norm(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"Expected a gradient bound of at least 0, got {value}.")
    return float(value)


@dataclass(frozen=True)
class Bound:
    """A bound, what it is about, and what it rests on. Its status follows from that and cannot be set.

    Attributes:
        value: The bound, in the unit of the quantity.
        quantity: What is bounded, in words.
        statement: Number in lggwjax/theory/README.md.
        about: Whether the measured set or the population.
        gradient_set: Over which points of parameter space.
        num_samples: n.
        relation: Whether the quantity is at most or at least the value.
        confidence: Probability with which it holds; 1 where nothing is random.
        assumptions: What it presumes.
        parts: Terms that the value is made of, in the unit of the quantity.
    """

    value: float
    quantity: str
    statement: str
    about: About
    gradient_set: str
    num_samples: int
    relation: Relation = "at most"
    confidence: float = 1.0
    assumptions: tuple[Assumption, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        """Refuse a number that bounds nothing."""
        if not math.isfinite(self.value):
            raise ValueError(f"Expected a finite bound, got {self.value}. Check the gradients for NaN and infinity.")
        if not 0 < self.confidence <= 1:
            raise ValueError(f"Expected a confidence above 0 and at most 1, got {self.confidence}.")
        if self.about == "population" and not self.assumptions:
            raise ValueError("Expected a statement about the population to name its assumptions, got none.")
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def status(self) -> Status:
        """``certified`` only where every assumption was checked or declared."""
        if self.statement in _SHAPES:
            return "shape"
        return "descriptive" if any(a.source == "missing" for a in self.assumptions) else "certified"

    @property
    def largest_part(self) -> str | None:
        """The term that dominates, or None where there is only one."""
        return max(self.parts, key=lambda name: self.parts[name]) if len(self.parts) > 1 else None

    def __str__(self) -> str:
        """One sentence that a colleague understands."""
        number = (
            f"{self.quantity} is {self.relation} {self.value:.4g} over {self.gradient_set} (n = {self.num_samples:,}"
        )
        number += f", statement {self.statement})"
        if self.status == "shape":
            return f"Shape only, up to an unnamed constant: {number}."
        missing = "; ".join(a.text for a in self.assumptions if a.source == "missing")
        if missing:
            return f"Descriptive, not a guarantee: {number} would hold, but {missing}."
        sure = "" if self.confidence == 1 else f", with probability at least {self.confidence:.4g}"
        given = "; ".join(f"{a.text} ({a.source})" for a in self.assumptions)
        return f"Certified for the {self.about}{sure}: {number}{f', provided that {given}' if given else ''}."
