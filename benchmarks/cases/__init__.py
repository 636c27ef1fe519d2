"""The cases, by the name on the command line."""

from __future__ import annotations

import importlib
from types import ModuleType

CASES = {
    "ffn-gram": "ffn_gram",
    "ffn-union": "ffn_union",
    "ffn-path": "ffn_path",
    "resnet-gram": "resnet_gram",
    "resnet-wide": "resnet_wide",
    "projections": "projections",
    "monitor": "monitor",
    "scaling": "scaling",
    "studies": "studies",
    "devices": "devices",
}


def load(name: str) -> ModuleType:
    """The module of a case."""
    return importlib.import_module(f"benchmarks.cases.{CASES[name]}")
