"""What the machine can do at best, as limits timed beside a subject, and what the machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.worker import Limit

GRADIENTS = "batched gradients"
PRODUCTS, NORMALS = "matrix products", "normals"
PACKAGES = ("lggwjax", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "nngeometry", "opacus", "traker")


def product_limit(rows: int = 2048, inner: int = 2048, columns: int = 2048) -> Limit:
    """One float32 matrix product."""
    import jax
    import jax.numpy as jnp

    left = jax.random.normal(jax.random.key(0), (rows, inner))
    right = jax.random.normal(jax.random.key(1), (inner, columns))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
    return Limit(lambda: product(left, right), 2.0 * rows * inner * columns, "flops")


def normal_limit(count: int = 2**24) -> Limit:
    """Generation of so many normals."""
    import jax

    draw = jax.jit(lambda key: jax.random.normal(key, (count,)))
    return Limit(lambda: draw(jax.random.key(0)), float(count), "normals")


def rates() -> dict[str, Limit]:
    """Both, at sizes where the machine is at its best."""
    return {PRODUCTS: product_limit(), NORMALS: normal_limit()}


def describe(root: Path, device: str | None, threads: int) -> dict[str, Any]:
    """Commit, date, hardware and versions, for the record of a run."""
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git(root, "status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "threads": threads,
        "jax_device": device,
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name == "lggwjax":  # run from a checkout
            import lggwjax

            return lggwjax.__version__
        return None


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
