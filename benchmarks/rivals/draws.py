"""What a rival's own projections say about the draws it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ALONE = "per-sample gradients alone"
FACT_BLOCKS = 4


def project_facts(call: Callable[[int], Any]) -> dict[str, float]:
    """Mean and spread of one draw, from a few blocks of projections of shape (n, K).

    Returns:
        Mean and standard deviation of the maximum over samples, which is what one would take, and of the half-range,
        which has the same mean and varies less; and how many draws these come from.
    """
    blocks = [np.asarray(call(seed)) for seed in range(1, FACT_BLOCKS + 1)]
    return draw_facts(np.concatenate(blocks, axis=1))


def draw_facts(projections: np.ndarray) -> dict[str, float]:
    """The same, from projections of shape (n, K)."""
    highest, lowest = projections.max(0), projections.min(0)
    half = (highest - lowest) / 2
    return {
        "draws_seen": projections.shape[1],
        "max_mean": float(highest.mean()),
        "max_std": float(highest.std(ddof=1)),
        "half_mean": float(half.mean()),
        "half_std": float(half.std(ddof=1)),
    }
