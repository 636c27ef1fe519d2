"""What the README shows, runs as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf8"), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_python_block_runs_in_order():
    names: dict = {}
    for block in python_blocks():
        exec(compile(block, "README.md", "exec"), names)
    assert len(python_blocks()) >= 5
    assert names["width"].value > 0


def test_each_model_of_the_contract_has_per_sample_gradients():
    import jax
    import jax.numpy as jnp

    import lggwjax

    batch = {"x": jax.random.normal(jax.random.key(0), (5, 4)), "y": jnp.zeros(5, jnp.int32)}
    others = ("lggw(key", "theory", "Monitor")
    start, *frameworks = [block for block in python_blocks() if not any(word in block for word in others)]
    for block in frameworks:
        names: dict = {}
        exec(compile(start + block, "README.md", "exec"), names)
        gram = lggwjax.gradient_gram(names["loss_fn"], names["params"], batch, wrt=names.get("wrt"))
        assert gram.shape == (5, 5)
        assert bool((jnp.diagonal(gram) > 0).all())
    assert len(frameworks) == 4


def test_the_two_set_up_commands_are_there():
    text = README.read_text(encoding="utf8")
    section = text.split("<!-- set-up -->")[1].split("<!-- end of set-up -->")[0]
    assert re.findall(r"^pip install.*$", section, flags=re.MULTILINE) == [
        "pip install . && lggwjax run",
        "pip install '.[test]' && pytest",
    ]


def test_what_is_said_of_large_models_is_what_was_measured():
    text = README.read_text()
    results = README.parent / "benchmarks" / "results"
    rows = json.loads((results / "gpu-large.json").read_text())["rows"]
    held = [8 * row["num_parameters"] for row in rows]  # two checkpoints in float32
    largest = max(rows, key=lambda row: row["num_parameters"])
    planned = [max(row["planned_bytes"].values()) for row in rows]
    off = max((row["peak_bytes"] - size) / plan for row, size, plan in zip(rows, held, planned, strict=True))
    assert f"{largest['num_parameters'] / 1e9:.1f} billion parameters" in text
    assert f"{largest['peak_bytes'] / 1e9:.0f} GB, parameters included" in text
    assert f"up to {off:.1f} times what the plan foretold" in text

    rows = json.loads((results / "cpu-large.json").read_text())["rows"]
    most = max(row["layers"] for row in rows)
    stacked, gram = [next(r for r in rows if (r["layers"], r["kind"]) == (most, kind)) for kind in ("stacked", "gram")]
    assert f"{stacked['num_parameters'] / 1e9:.1f} billion parameters" in text
    used = max(stacked["bytes_first_and_again"]) / (4 * stacked["num_parameters"])
    assert f"{used:.1f} times the memory of these, {stacked['used_of_planned']:.2f} times the plan" in text
    assert f"matrix {gram['used_of_planned']:.2f} times" in text
