"""Data: loaders that draw the sample and the held-out part once, and populations with known truth."""

from __future__ import annotations

from lggwjax.data.linear import LinearPopulation
from lggwjax.data.loading import load
from lggwjax.data.shards import Shards, StreamedSample, open_shards, write_shards
from lggwjax.data.spec import NAMES, Batch, DataSpec, Split
from lggwjax.data.teacher import PopulationEstimate, TeacherPopulation

__all__ = [
    "NAMES",
    "Batch",
    "DataSpec",
    "LinearPopulation",
    "PopulationEstimate",
    "Shards",
    "Split",
    "StreamedSample",
    "TeacherPopulation",
    "load",
    "open_shards",
    "write_shards",
]
