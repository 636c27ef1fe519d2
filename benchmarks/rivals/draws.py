"""What a rival's own projections say about the draws it needs."""

from __future__ import annotations

import numpy as np

ALONE = "per-sample gradients alone"


def draw_facts(*blocks: np.ndarray) -> dict[str, float]:
    """Mean and spread of one draw, from blocks of projections of shape (n, K).

    Returns:
        Mean and standard deviation of the maximum over samples, which is what one would take, and of the half-range,
        which has the same mean and varies less; and how many draws these come from.
    """
    projections = np.concatenate(blocks, axis=1)
    highest, lowest = projections.max(0), projections.min(0)
    half = (highest - lowest) / 2
    return {
        "draws_seen": projections.shape[1],
        "max_mean": float(highest.mean()),
        "max_std": float(highest.std(ddof=1)),
        "half_mean": float(half.mean()),
        "half_std": float(half.std(ddof=1)),
    }
