"""One of several processes, for ``test_hosts.py``: ``python host.py PORT PROCESSES INDEX`` prints what it saw."""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

import lggwjax
from lggwjax.sharding import device_mesh, shard_parameters, shard_rows, to_host
from lggwjax.training import Monitor, hosts


def loss(params, example):
    hidden = jnp.tanh(params["w"] @ example["x"])  # w has factors, the slope none
    return 0.5 * (jnp.where(hidden > 0, hidden, params["slope"] * hidden).sum() - example["y"]) ** 2


def main(port: str, processes: int, index: int) -> None:
    if processes > 1:
        hosts.join(f"127.0.0.1:{port}", processes, index)
    rng, read = np.random.default_rng(0), []
    data = {"x": rng.normal(size=(64, 6)).astype(np.float32), "y": rng.normal(size=64).astype(np.float32)}

    def rows(indices):
        read.extend(indices.tolist())
        return {name: array[indices] for name, array in data.items()}

    mesh = device_mesh()
    batch = shard_rows(rows, np.arange(16, 32), mesh)
    # More parameters than the 128 gradients of both checkpoints: of fewer, what stands beyond the rank is rounding.
    params = {"w": rng.normal(size=(40, 6)).astype(np.float32) / 3, "slope": np.full(40, 0.5, np.float32)}
    params = shard_parameters(params, mesh)
    moved = jax.tree.map(lambda leaf: leaf * 0.9, params)
    key = jax.random.key(0)
    found = {
        "read": read,
        "batch": to_host(batch["x"]).sum().item(),
        "gram": np.asarray(lggwjax.gradient_gram(loss, params, data))[:4].tolist(),
        "lggw": float(lggwjax.lggw(key, loss, [params, moved], data, num_draws=64).value),
        "union": float(lggwjax.lggw(key, loss, [params, moved], data, "union", num_draws=64).value),
        "bytes": hosts.broadcast(f"said by {index}".encode()).decode(),
        "first": hosts.on_first(lambda: index),
    }
    try:
        hosts.on_first(lambda: (_ for _ in ()).throw(OSError("disk full")))
    except OSError as error:
        found["error"] = str(error)
    # Clocks that disagree: the first process looks at every step, the others, left to themselves, at none.
    ticks = iter(range(10**6))
    clock = lambda: float(next(ticks)) * (1e-6 if index else 1e3)  # noqa: E731
    heldout = {name: array[32:] for name, array in data.items()}
    probe = {name: array[:32] for name, array in data.items()}
    monitor = Monitor(loss, probe, heldout, num_draws=16, clock=clock, overhead=0.9)
    state, looks = monitor.init(params), []
    for step in range(6):
        state, report = monitor.observe(state, step, jax.tree.map(lambda leaf, s=step: leaf * 0.9**s, params))
        looks.append(report is not None)
    print(json.dumps(found | {"looks": looks}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
