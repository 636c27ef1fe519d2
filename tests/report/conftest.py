"""Run folders written as a run writes them, with numbers that look like real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KINDS = ("overfit", "helping", "no_heldout", "fresh", "regression")


def estimate(value: float, error: float, low: float | None = None) -> dict[str, Any]:
    half = 1.96 * error
    return {"value": value, "stderr": error, "ci95": [value - half if low is None else low, value + half]}


def width(value: float, samples: int, checkpoints: int, spread: float = 0.01) -> dict[str, Any]:
    half = 4 * spread * value
    return estimate(value, spread * value) | {
        "draws_bound95": [value - half, value + half],
        "num_draws": 512,
        "num_samples": samples,
        "num_checkpoints": checkpoints,
    }


def make_records(kind: str, steps: list[int], seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    records, path = [], 0.0
    for index, step in enumerate(steps):
        time = step / 24
        rms = 2.0 * math.exp(-0.9 * math.sqrt(time)) + 1e-4
        path = 3.0 * (1 - math.exp(-time)) + 0.02 * math.log1p(step)
        rises = kind in ("overfit", "no_heldout", "regression")
        heldout_loss = 0.6 + 1.7 * math.exp(-time * 2) + (0.08 * math.log1p(time) if rises else 0.0)
        drop = 0.29 * math.exp(-time * 3.4)
        drop += -0.009 * (1 - math.exp(-time)) * math.exp(-time / 8) if rises else 2e-3 * math.exp(-time / 20)
        error = 0.03 * abs(drop) + (4e-4 if rises else 4e-5) * math.exp(-time / 10) + 2e-6
        record: dict[str, Any] = {
            "step": step,
            "passes": float(step),
            "train_loss": 2.3 * math.exp(-0.9 * math.sqrt(3 * time)) + 1e-5,
            "heldout_loss": heldout_loss,
            "train_accuracy": 1 - 0.9 * math.exp(-time),
            "heldout_accuracy": 0.85 - 0.75 * math.exp(-time),
            "grad_norm": 1.1 * math.exp(-0.9 * math.sqrt(2 * time)) + 1e-5,
            "gradient_rms": rms,
            "heldout_grad_norm": estimate(0.9 * math.exp(-time) + 0.1, 0.02, low=0.0 if index % 5 == 4 else None),
            "deviation": estimate(0.16 + 0.1 * math.tanh(time), 0.01),
            "population_descent": estimate(drop + error * rng.standard_normal(), error) if step else None,
            "lggw": width(path, 64, index + 1),
            "single_width": width(0.8 * path, 64, index + 1),
            "union_width": width(2.9 + 0.4 * path, 64, index + 1),
            "cloud_width": width(2.8 * rms / 2, 64, 1),
            "feature_width": width(6 + 2 * math.tanh(time), 64, 1),
            "heldout_lggw": width(1.25 * path, 128, index + 1),
            "heldout_cloud_width": width(1.5 * rms + 1.0, 128, 1),
            "nerc": {k: v for k, v in width(0.2 + 0.02 * path, 64, index + 1).items() if k != "draws_bound95"},
            "heldout_nerc": {
                k: v for k, v in width(0.25 + 0.02 * path, 128, index + 1).items() if k != "draws_bound95"
            },
            "features": {"active_share": 0.5 - 0.1 * math.tanh(time), "l1": 20 + 6 * math.tanh(time), "l2": 3.2},
            "seconds": {"training": 0.5 * step, "measuring": 2.0 * index},
            "peak_memory": 700_000_000,
            "status": {
                "lggw": "independent" if kind == "fresh" else "descriptive",
                "cloud_width": "independent" if kind == "fresh" else "descriptive",
                "nerc": "independent" if kind == "fresh" else "descriptive",
                "heldout_lggw": "independent",
                "heldout_nerc": "independent",
            },
        }
        if kind == "no_heldout":
            for name in record:
                if name.startswith("heldout") or name in ("deviation", "population_descent"):
                    record[name] = None
        if kind in ("regression", "fresh"):
            record["train_accuracy"] = record["heldout_accuracy"] = None
        records.append(record)
    return records


def make_config(kind: str) -> dict[str, Any]:
    exact = kind in ("regression", "fresh")
    return {
        "name": f"{kind}-example",
        "data": {
            "name": "linear" if exact else "digits",
            "description": f"A sample of 64 rows of {'linear regression' if exact else 'digits'}.",
            "population": exact,
            "num_samples": 64,
            "probe_size": 64,
            "heldout_samples": 0 if kind == "no_heldout" else 1000,
            "seed": 0,
        },
        "model": {"name": "ffn", "widths": [256, 256], "activation": "relu", "norm": "none", "loss": "cross_entropy"},
        "training": {
            "optimizer": "adam",
            "learning_rate": 0.003,
            "batch_size": None,
            "weight_decay": 0.0,
            "steps": 2000,
            "seed": 0,
            "fresh": kind == "fresh",
        },
        "measuring": {"route": "exact", "num_draws": 512},
        "environment": {
            "python": "3.11.2",
            "versions": {"lggwjax": "0.1.0", "jax": "0.10.2", "optax": None},
            "device": "cpu: cpu",
            "revision": "0123abc",
        },
    }


def write_run(folder: Path, records: list[dict[str, Any]], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
    return folder


LOG_STEPS = [0, 1, 2, 3, 4, 6, 8, 11, 16, 24, 33, 50, 80, 130, 210, 400, 900, 2000]


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a run of a kind into a new folder."""

    def write(kind: str, steps: list[int] | None = None) -> Path:
        chosen = LOG_STEPS if steps is None else steps
        return write_run(tmp_path / kind, make_records(kind, chosen), make_config(kind))

    return write


@pytest.fixture
def runs_of(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write runs of several designs, each a list of hidden widths, with seeds each; losses ``gap`` apart."""

    def write(
        designs: dict[str, list[int]], seeds: int, gap: float = 0.1, steps: list[int] | None = None
    ) -> list[Path]:
        folders = []
        for place, (name, widths) in enumerate(designs.items()):
            for seed in range(seeds):
                rng = np.random.default_rng(100 * place + seed)
                records, config = (
                    make_records("overfit", steps or [0, 1, 4, 11, 24, 33, 80, 400], seed),
                    make_config("overfit"),
                )
                # What a seed adds to all designs alike is what pairing takes out.
                common, own = 0.2 * math.sin(seed), 0.01 * rng.standard_normal()
                for record in records:
                    record["heldout_loss"] += gap * place + common + own
                config["data"]["seed"] = config["training"]["seed"] = seed
                config["model"]["widths"] = widths
                folders.append(write_run(tmp_path / f"{name}-{seed}", records, config))
        return folders

    return write
