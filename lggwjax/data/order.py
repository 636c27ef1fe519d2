"""A random order of any number of rows, any part of which is found without making the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Up to here an order is a list in memory (8 bytes a row), beyond it a formula.
LARGEST_LIST = 2**22
_ROUNDS = 8


@dataclass(frozen=True)
class Order:
    """A pseudorandom order of ``range(num_rows)`` in constant memory.

    A Feistel network over the smallest even number of bits that holds every row; what falls outside goes through it
    again, fewer than four times on average. It looks random to statistics, not to cryptanalysis.

    Args:
        seed: Whole numbers that fix it.
        num_rows: Length of the order, at least 1.

    Example:
        >>> order = Order((0, 1), 10)
        >>> sorted(order[np.arange(10)].tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    seed: Sequence[int]
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions of the order."""
        keys = np.random.SeedSequence(tuple(self.seed)).generate_state(_ROUNDS, np.uint64)
        half = np.uint64(max(1, -(-(self.num_rows - 1).bit_length() // 2)))
        rows = np.array(positions, np.uint64)
        outside = np.ones(rows.shape, bool)
        while outside.any():
            rows[outside] = _feistel(rows[outside], keys, half)
            outside = rows >= self.num_rows
        return rows.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        # The finaliser of splitmix64: each bit of the half and of the key reaches each bit that is kept.
        mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
    return (left << half) | right
