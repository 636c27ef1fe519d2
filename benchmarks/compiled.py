"""One measurement compiled for many virtual devices, in a process of its own: ``python -m benchmarks.compiled JSON``.

Virtual devices have to be made before jax starts, so each number of them takes a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def compile_elsewhere(task: dict[str, Any]) -> dict[str, Any]:
    """Compile in a child process.

    Args:
        task: ``model`` (``transformer`` or ``ffn``), its ``sizes``, ``num_samples``, ``num_devices`` and
            ``parameter_shards``.

    Returns:
        The plan as a dict, with the seconds of compiling and p.

    Raises:
        RuntimeError: If the child failed; with its last line.
    """
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(task["num_devices"]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.compiled", json.dumps(task)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def _main(task: dict[str, Any]) -> None:
    import jax
    import jax.numpy as jnp

    from benchmarks.transformer import Transformer
    from lggwjax.models import build_adapted
    from lggwjax.models.spec import ModelSpec
    from lggwjax.scaling import plan_devices

    num = task["num_samples"]
    if task["model"] == "transformer":
        model = Transformer(**task["sizes"])
        loss_fn, params, batch, wrt = model.loss, model.shapes, model.batch(num), None
    else:
        widths = tuple(task["sizes"]["widths"])
        adapted = build_adapted(ModelSpec("ffn", widths=widths), (784,), 10, 0, "cross_entropy")
        loss_fn, params, wrt = adapted.loss_fn, adapted.params, adapted.wrt
        batch = {"x": jax.ShapeDtypeStruct((num, 784), jnp.float32), "y": jax.ShapeDtypeStruct((num,), jnp.int32)}
    start = time.perf_counter()
    plan = plan_devices(loss_fn, params, batch, task["num_devices"], parameter_shards=task["parameter_shards"], wrt=wrt)
    seconds = time.perf_counter() - start
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(json.dumps(asdict(plan) | {"compile_seconds": seconds, "num_parameters": size}))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
