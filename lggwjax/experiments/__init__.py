"""Theory against experiment: studies that are one command each, and grids of one's own."""

from __future__ import annotations

from lggwjax.experiments.catalogue import STUDIES, Preset
from lggwjax.experiments.points import Point
from lggwjax.experiments.run import run_study

__all__ = ["STUDIES", "Point", "Preset", "run_study"]
