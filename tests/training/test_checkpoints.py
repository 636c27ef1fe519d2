"""Checkpoints come back bit for bit, are whole or absent, and say which leaf does not fit."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from lggwjax.training import checkpoints
from lggwjax.training.loop import TrainSpec, TrainState, initial_state, train


def make_params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "params": {
            "dense": {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "bias": jnp.zeros(3)},
            "half": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
            "list": [jnp.ones(2), jnp.asarray(1.5)],
        },
        "state": {"mean": jnp.asarray([0.1, -0.0]), "count": jnp.zeros((), jnp.int32)},
    }


def train_fn(params: Any, batch: Any) -> tuple[Any, Any, Any]:
    total = sum(jnp.sum((leaf.astype(jnp.float32) - 0.3) ** 2) for leaf in jax.tree.leaves(params["params"]))
    state = params["state"]
    return total * batch, batch, {"mean": state["mean"] * 1.1, "count": state["count"] + 1}


def chosen(path: Any, leaf: Any) -> bool:
    return path[0].key == "params"


def make_state(optimizer: Any = "adam", steps: int = 3) -> TrainState:
    spec = TrainSpec(optimizer, steps=steps)
    *_, last = train(train_fn, chosen, make_params(), jnp.ones(4), spec)
    return last


def bits(tree: Any) -> list[tuple[Any, ...]]:
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, optimizer: Any, capfd: Any, caplog: Any) -> None:
    state = make_state(optimizer)
    checkpoints.save(tmp_path / "checkpoints", state)
    like = initial_state(make_params(), chosen, TrainSpec(optimizer))
    found = checkpoints.restore(tmp_path / "checkpoints", 3, like)
    assert found.step == 3
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert bits(found[1:]) == bits(state[1:])
    assert bits(found[1:]) != bits(like[1:])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found[1:]))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    spec = TrainSpec("adam", steps=5)
    whole = list(train(train_fn, chosen, make_params(), jnp.ones(4), spec))
    checkpoints.save(tmp_path, whole[2])
    start = checkpoints.restore(tmp_path, 2, like=whole[0])
    rest = list(train(train_fn, chosen, make_params(), jnp.ones(4), spec, start=start))
    assert [bits(state[1:]) for state in rest] == [bits(state[1:]) for state in whole[2:]]


def test_random_keys_travel_along(tmp_path: Path) -> None:
    params = {"params": {"w": jnp.ones(2)}, "state": {"dropout": jax.random.key(3)}}
    state = initial_state(params, chosen, TrainSpec())
    checkpoints.save(tmp_path, state)
    found = checkpoints.restore(tmp_path, 0, like=state).params["state"]["dropout"]
    assert found.dtype == params["state"]["dropout"].dtype
    assert (jax.random.key_data(found) == jax.random.key_data(params["state"]["dropout"])).all()


def test_steps_are_those_that_are_complete(tmp_path: Path) -> None:
    assert checkpoints.steps(tmp_path / "none") == []
    state = make_state()
    for step in (10, 0, 9):
        checkpoints.save(tmp_path, state._replace(step=step))
    for name in ("11.partial", "12.orbax-checkpoint-tmp", "latest", "007"):
        (tmp_path / name).mkdir()
    (tmp_path / "13").write_text("a file")
    assert checkpoints.steps(tmp_path) == [0, 9, 10]
    with pytest.raises(ValueError, match="no checkpoint of step 9 yet"):
        checkpoints.save(tmp_path, state._replace(step=9))


@pytest.mark.parametrize("layout", ["ours", "bare", "inner", "no_state", "manager", "nnx"])
def test_parameters_are_read_from_every_layout(tmp_path: Path, layout: str) -> None:
    params = make_params()
    place = tmp_path / "3"
    if layout in ("inner", "no_state", "nnx"):
        params["state"] = {}
    if layout == "ours":
        checkpoints.save(tmp_path, initial_state(params, chosen, TrainSpec())._replace(step=3))
    elif layout == "manager":
        with ocp.CheckpointManager(tmp_path) as manager:
            manager.save(3, args=ocp.args.StandardSave(params))
    else:
        inner = params["params"]
        trees = {
            "bare": params,
            "inner": inner,
            "no_state": {"params": inner},
            "nnx": jax.tree.map(lambda leaf: {"value": leaf}, inner),
        }
        with ocp.StandardCheckpointer() as writer:
            writer.save(place, trees[layout])
    assert checkpoints.steps(tmp_path) == [3]
    like = jax.tree.map(jnp.zeros_like, params)
    found = checkpoints.read_params(place, like)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert bits(found) == bits(params)


def test_the_first_leaf_that_does_not_fit_is_named(tmp_path: Path) -> None:
    params = make_params()
    state = initial_state(params, chosen, TrainSpec())
    checkpoints.save(tmp_path, state)
    dense = params["params"]["dense"]

    def like(**changes: Any) -> dict[str, Any]:
        return params | {"params": params["params"] | changes}

    cases = [
        (like(extra=jnp.ones(2, jnp.float32)), r"Expected params/extra of float32\[2\] in .*, got no such leaf"),
        (
            like(dense=dense | {"kernel": jnp.ones((4, 5), jnp.float32)}),
            r"params/dense/kernel of float32\[4, 5\] .* got float32\[4, 3\]",
        ),
        (like(half=jnp.ones(5, jnp.float32)), r"params/half of float32\[5\] .* got bfloat16\[5\]"),
        (like(dense={"kernel": dense["kernel"]}), r"Expected no params/dense/bias in .*, got one"),
        (params | {"state": {}}, r"Expected no state/count in"),
    ]
    for template, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            checkpoints.read_params(tmp_path / "0", template)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="Expected opt_state/0/trace/params/dense/bias"):
        checkpoints.restore(tmp_path, 0, like=initial_state(params, chosen, TrainSpec("momentum")))


def test_a_model_with_statistics_needs_them(tmp_path: Path) -> None:
    params = make_params()
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "0", params["params"])
    with pytest.raises(ValueError, match=r"Expected state/count of int32\[\] in .*, got no such leaf"):
        checkpoints.read_params(tmp_path / "0", params)


def test_what_is_no_checkpoint_is_told_in_one_line(tmp_path: Path, capfd: Any) -> None:
    state = make_state()
    with pytest.raises(ValueError, match="no such folder"):
        checkpoints.restore(tmp_path, 5, like=state)
    (tmp_path / "5").mkdir()
    with pytest.raises(ValueError, match="Expected an orbax checkpoint") as empty:
        checkpoints.restore(tmp_path, 5, like=state)
    checkpoints.save(tmp_path, state._replace(step=6))
    largest = max((tmp_path / "6").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    os.truncate(largest, largest.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"Expected .* checkpoint") as torn:
        checkpoints.restore(tmp_path, 6, like=state)
    assert "\n" not in str(empty.value) + str(torn.value)
    assert capfd.readouterr().err == ""


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    state = make_state()
    checkpoints.save(tmp_path, state)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "sync", full)
    with pytest.raises(OSError, match=r"Writing the checkpoint of step 4 to .* failed: .*No space left"):
        checkpoints.save(tmp_path, state._replace(step=4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["3"]


FULL_DISK = """
import resource, signal, sys
import jax.numpy as jnp, numpy as np
from lggwjax.training import checkpoints
from lggwjax.training.loop import TrainSpec, initial_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
weights = jnp.asarray(np.random.default_rng(0).normal(size=(300, 300)), jnp.float32)
state = initial_state({"params": {"w": weights}, "state": {}}, None, TrainSpec())
checkpoints.save(sys.argv[1], state)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.save(sys.argv[1], state._replace(step=1))
except OSError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_disk_that_refuses_leaves_nothing_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    # Neither orbax's log nor the tracebacks of its threads; Python itself may tell of a loop that was closed early.
    assert "Error writing" not in done.stderr
    assert done.stdout.startswith("Writing the checkpoint of step 1 to")
    assert "File too large" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["0"]


def test_nothing_warns(tmp_path: Path) -> None:
    state = make_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checkpoints.save(tmp_path, state)
        checkpoints.restore(tmp_path, 3, like=state)
        checkpoints.read_params(tmp_path / "3", state.params)
    assert caught == []


@pytest.mark.slow
def test_every_bit_that_is_flipped_is_noticed(tmp_path: Path) -> None:
    """Whatever file it lies in: arrays, index or the sums themselves."""
    state = make_state()
    checkpoints.save(tmp_path, state)
    place, rng = tmp_path / str(state.step), np.random.default_rng(0)
    for file in sorted(place.rglob("*")):
        whole = file.read_bytes() if file.is_file() else b""
        for _ in range(5 if whole else 0):
            torn = bytearray(whole)
            torn[rng.integers(len(torn))] ^= 1 << int(rng.integers(8))
            file.write_bytes(torn)
            with pytest.raises(checkpoints.DamagedCheckpoint, match="as it was written"):
                checkpoints.restore(tmp_path, state.step, like=state)
        if whole:
            file.write_bytes(whole)
    assert bits(checkpoints.restore(tmp_path, state.step, like=state).params) == bits(state.params)


LIKE = {"params": {"a": jnp.arange(3.0)}, "state": {}}


def foreign(path: Path, *, ocdbt: bool = False, zarr3: bool = False) -> Path:
    """A checkpoint that another program wrote, one array a folder or all in one database."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)) as writer:
        writer.save(path, args=ocp.args.PyTreeSave(LIKE))
    return path


def database(path: Path) -> tensorstore.KvStore:
    """What lies in the database of a checkpoint."""
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}}).result()


@pytest.mark.parametrize("ocdbt", [False, True])
@pytest.mark.parametrize("zarr3", [False, True])
@pytest.mark.parametrize("levels", [65, 100_000])
def test_metadata_of_many_levels_is_refused_before_it_overflows_a_stack(
    tmp_path: Path, ocdbt: bool, zarr3: bool, levels: int
) -> None:
    place, name = foreign(tmp_path / "0", ocdbt=ocdbt, zarr3=zarr3), f"params.a/{'zarr.json' if zarr3 else '.zarray'}"
    assert checkpoints.read_params(place, LIKE)["params"]["a"].tolist() == [0.0, 1.0, 2.0]
    text = database(place).read(name).result().value if ocdbt else (place / name).read_bytes()
    text = text[:-1] + b', "attributes": {"x": ' + b"[" * levels + b"]" * levels + b"}}"
    if ocdbt:
        database(place).write(name, text).result()
    else:
        (place / name).write_bytes(text)
    with pytest.raises(ValueError, match=rf"Expected strict JSON at .*{name}") as caught:
        checkpoints.read_params(place, LIKE)
    assert "\n" not in str(caught.value)


def test_a_sharding_of_many_levels_is_refused_too(tmp_path: Path) -> None:
    (foreign(tmp_path / "0") / "_sharding").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ValueError, match=r"Expected strict JSON at .*_sharding"):
        checkpoints.read_params(tmp_path / "0", LIKE)


@pytest.mark.parametrize("chunks", ["x", [3.0], ["3"], {"a": 3}, [[3]]])
def test_chunks_that_are_no_numbers_are_refused(tmp_path: Path, chunks: Any) -> None:
    file = foreign(tmp_path / "0") / "_METADATA"
    held = json.loads(file.read_text())
    held["tree_metadata"]["('params', 'a')"]["value_metadata"]["write_shape"] = chunks
    file.write_text(json.dumps(held))
    with pytest.raises(ValueError, match="in chunks of at most") as caught:
        checkpoints.read_params(tmp_path / "0", LIKE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("chunks", [10**10], "params/a in chunks of at most its 3 numbers"),
        ("shape", [10**12], r"params/a of float32\[3\]"),
        ("shape", [10**30], "Expected strict JSON"),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, field: str, value: Any, said: str) -> None:
    file = foreign(tmp_path / "0") / "params.a" / ".zarray"
    assert checkpoints.read_params(tmp_path / "0", LIKE)["params"]["a"].tolist() == [0.0, 1.0, 2.0]
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=said) as caught:
        checkpoints.read_params(tmp_path / "0", LIKE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("_CHECKPOINT_METADATA", "orbax.checkpoint._src.handlers.pytree_checkpoint_handler", "this_test_imports_it"),
        ("_CHECKPOINT_METADATA", '{"item_handlers": ', '{"item_handlers": {"a": "os.system", "b": ["eval"]}, "x": '),
        ("_METADATA", '"value_type": "', '"value_type": "this_test_imports_it.'),
        ("_METADATA", '"key_type": 2', '"key_type": "__reduce__"'),
        ("_METADATA", "{", '{"custom_metadata": {"py/object": "os.system", "__class__": "os.system"}, '),
        ("params.a/.zarray", '"id":"zstd"', '"id":"pickle"'),
        ("params.a/.zarray", '"filters":null', '"filters":[{"id":"pickle"}]'),
        ("params.a/.zarray", '"<f4"', '"|O"'),
    ],
)
def test_a_checkpoint_of_others_is_arrays_or_one_line(
    tmp_path: Path, monkeypatch: Any, file: str, old: str, new: str
) -> None:
    trap = f"__import__('pathlib').Path({str(tmp_path / 'it ran')!r}).touch()"
    (tmp_path / "this_test_imports_it.py").write_text(trap)
    monkeypatch.syspath_prepend(tmp_path)
    held = foreign(tmp_path / "0") / file
    text = held.read_text()
    assert old in text
    held.write_text(text.replace(old, new, 1))
    evil = b"cbuiltins\nexec\n(V" + trap.encode() + b"\ntR."
    (tmp_path / "0" / "checkpoint.pkl").write_bytes(evil)
    (tmp_path / "0" / "params.a" / "0.pickle").write_bytes(evil)
    said = ""
    try:
        found = checkpoints.read_params(tmp_path / "0", LIKE)
        assert found["params"]["a"].tolist() == [0.0, 1.0, 2.0]
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    assert not (tmp_path / "it ran").exists()
    pickle.loads(evil)
    assert (tmp_path / "it ran").exists(), "the trap would not have gone off"


@pytest.mark.parametrize("sums", ['{"a\\nb": "0"}', "[1]", "[" * 5000, '{"a": ' + "9" * 5000 + "}", "\x00"])
def test_odd_sums_are_damage_told_in_one_line(tmp_path: Path, sums: str) -> None:
    (foreign(tmp_path / "0") / "sha256.json").write_text(sums)
    with pytest.raises(checkpoints.DamagedCheckpoint, match="got another") as caught:
        checkpoints.read_params(tmp_path / "0", LIKE)
    assert "\n" not in str(caught.value)
