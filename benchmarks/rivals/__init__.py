"""What users would pick instead, each as subjects that run on a problem's file in a process of its own.

The tasks: ``gram``, the n x n Gram matrix of per-sample gradients; ``project``, these gradients on a block of Gaussian
directions; ``width``, the width of the cloud of gradients from its Gram matrix, sampled by hand; ``stacked``, the Gram
matrix of a path's stacked gradients.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Rival:
    """Somebody else's way.

    Attributes:
        name: For the table.
        tasks: From a task to ``module:function``.
        needs: Modules without which it cannot run.
        options: Passed to the function.
    """

    name: str
    tasks: dict[str, str]
    needs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Say whether all it needs can be imported."""
        return all(importlib.util.find_spec(module) is not None for module in self.needs)


_TORCH = {task: f"benchmarks.rivals.in_torch:{task}" for task in ("gram", "project")}
_LAYERWISE = {task: f"benchmarks.rivals.layerwise:{task}" for task in ("gram", "width")}

PLAIN_JAX = Rival(
    "plain JAX vmap(grad)", {task: f"benchmarks.rivals.plain_jax:{task}" for task in ("gram", "project", "stacked")}
)
TORCH_FUNC = Rival("torch.func vmap(grad)", _TORCH, ("torch",), {"source": "torch.func"})
OPACUS_HOOKS = Rival("opacus, hooks", _TORCH, ("torch", "opacus"), {"source": "hooks"})
OPACUS_EW = Rival("opacus, expanded weights", _TORCH, ("torch", "opacus"), {"source": "ew"})
TRAKER = Rival(
    "traker BasicProjector",
    {"project": _TORCH["project"]},
    ("torch", "trak"),
    {"source": "torch.func", "projector": "traker"},
)
NNGEOMETRY = Rival("nngeometry, layerwise Gram", _LAYERWISE, ("torch", "nngeometry"))

WITH_GRAM = (PLAIN_JAX, TORCH_FUNC, OPACUS_HOOKS, OPACUS_EW, NNGEOMETRY)
WITH_PROJECTIONS = (PLAIN_JAX, TORCH_FUNC, OPACUS_HOOKS, OPACUS_EW, TRAKER)
