"""Batches from anywhere: the same states as from memory, and going on where an iterator stood."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.training import batches, checkpoints
from lggwjax.training.batches import batch_rows
from lggwjax.training.loop import TrainSpec, TrainState, initial_state, train
from lggwjax.training.rows import Rows, ahead, chunks_of

SPEC = TrainSpec("momentum", 0.1, steps=9)
rng = np.random.default_rng(0)
SAMPLE = {"x": rng.normal(size=(10, 3)).astype(np.float32), "y": rng.normal(size=10).astype(np.float32)}
PARAMS = {"params": jnp.ones(3), "state": {}}


def model(params: Any, batch: Any) -> tuple[Any, Any, Any]:
    losses = 0.5 * (batch["x"] @ params["params"] - batch["y"]) ** 2
    return losses, batch["x"], params["state"]


def run(batches: Any, spec: TrainSpec = SPEC, start: TrainState | None = None) -> list[TrainState]:
    return list(train(model, None, PARAMS, batches, spec, start=start))


def same(first: list[TrainState], second: list[TrainState]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), a[1:4], b[1:4])) for a, b in pairs)


class OnDisk:
    """Rows that are given when asked for, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def __len__(self) -> int:
        return 10

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        self.asked.append(indices)
        return {name: array[indices] for name, array in SAMPLE.items()}


class Counter:
    """An iterator with a position, which may be bytes as Grain's loaders give them."""

    def __init__(self, as_bytes: bool = False) -> None:
        self.at, self.as_bytes = 0, as_bytes

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        rows = np.random.default_rng(self.at).integers(0, 10, 4)
        self.at += 1
        return {name: array[rows] for name, array in SAMPLE.items()}

    def get_state(self) -> Any:
        return json.dumps({"at": self.at}).encode() if self.as_bytes else {"at": self.at}

    def set_state(self, state: Any) -> None:
        assert isinstance(state, bytes) == self.as_bytes
        self.at = (json.loads(state) if self.as_bytes else state)["at"]


@pytest.mark.parametrize("size", [None, 4, 10])
def test_rows_read_when_asked_for_train_as_those_in_memory(size):
    spec = TrainSpec("momentum", 0.1, batch_size=size, steps=9)
    disk = OnDisk()
    assert isinstance(disk, Rows)
    states = run(disk, spec)
    assert same(states, run(SAMPLE, spec))
    # The full sample is read once, as it is the batch of every step.
    assert [len(rows) for rows in disk.asked] == ([4] * 9 if size == 4 else [10])
    # From step 5 on nothing that was read before is read again.
    later = OnDisk()
    assert same(run(later, spec, states[5]), states[5:])
    assert len(later.asked) == (4 if size == 4 else 1)


def test_an_order_by_formula_holds_every_sample_once_a_pass(monkeypatch):
    batches._order.cache_clear()
    listed = batch_rows(5, 0, 10, 4)
    monkeypatch.setattr(batches, "LARGEST_LIST", 9)
    batches._order.cache_clear()
    rows = np.concatenate([batch_rows(5, step, 10, 4) for step in range(10)]).reshape(4, 10)
    assert (np.sort(rows, axis=1) == np.arange(10)).all()
    assert len(np.unique(rows, axis=0)) == 4
    spec = TrainSpec("momentum", 0.1, batch_size=4, steps=9)
    assert same(run(OnDisk(), spec), run(SAMPLE, spec))
    assert list(rows[0, :4]) != list(listed)
    batches._order.cache_clear()


@pytest.mark.parametrize("wrong", [False, True])
def test_an_iterator_of_the_same_batches_gives_the_same_states(wrong):
    steps = range(wrong, 9 + wrong)
    batches = (jax.tree.map(lambda a, s=s: a[batch_rows(0, s, 10, 4)], SAMPLE) for s in steps)
    assert same(run(batches), run(SAMPLE, TrainSpec("momentum", 0.1, batch_size=4, steps=9))) != wrong


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_position_goes_through_a_checkpoint(tmp_path, as_bytes, caplog):
    states = run(Counter(as_bytes))
    checkpoints.save(tmp_path, states[4])
    start = checkpoints.restore(tmp_path, 4, like=initial_state(PARAMS, None, SPEC))
    assert start.position == states[4].position
    fresh = Counter(as_bytes)
    assert same(run(fresh, start=start), states[4:])
    assert fresh.at == 9
    assert not caplog.text
    # A negative control: without the position it starts anew, so other batches come.
    assert not same(run(Counter(as_bytes), start=start._replace(position=None, step=0))[:6], states[4:])


def test_without_a_position_the_batches_taken_are_skipped_and_this_is_said(caplog):
    states = run(itertools.islice(Counter(), 99))
    assert states[4].position is None
    assert same(run(itertools.islice(Counter(), 99), start=states[4]), states[4:])
    assert "skipping the 4 batches" in caplog.text


def grain_loader(kind: str) -> Any:
    grain = pytest.importorskip("grain")

    class Source:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, row: int) -> dict[str, np.ndarray]:
            return {name: array[row] for name, array in SAMPLE.items()}

        def __repr__(self) -> str:
            return "Source"

    if kind == "loader":
        sampler = grain.samplers.IndexSampler(10, shuffle=True, seed=0)
        return grain.DataLoader(data_source=Source(), sampler=sampler, operations=[grain.transforms.Batch(4)])
    data = grain.MapDataset.source(Source()).seed(0).shuffle().repeat().batch(4)
    return data if kind == "map" else data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))


@pytest.mark.parametrize("kind", ["map", "iter", "loader"])
def test_grain_goes_on_where_it_stood(tmp_path, kind, caplog):
    states = run(grain_loader(kind))
    checkpoints.save(tmp_path, states[6])
    start = checkpoints.restore(tmp_path, 6, like=initial_state(PARAMS, None, SPEC))
    assert start.position is not None
    assert same(run(grain_loader(kind), start=start), states[6:])
    assert not caplog.text
    assert not same(run(SAMPLE, TrainSpec("momentum", 0.1, batch_size=4, steps=9)), states)


def batch_of(num: int, kind: Any = np.float32) -> dict[str, np.ndarray]:
    return {"x": np.ones((num, 3), kind), "y": np.ones(num, np.float32)}


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([batch_of(4)] * 8, "Expected 9 batches for 9 steps, got 8"),
        ([batch_of(4), batch_of(3)], "Expected batch 1 to be like"),
        ([batch_of(4), {"x": np.ones((4, 3))}], "Expected batch 1 to be like"),
        ([batch_of(4), batch_of(4, np.float16)], "Expected batch 1 to be like"),
        ([{"x": np.ones((4, 3)), "y": np.ones(3)}], "Expected batch 0 to be arrays"),
        (["text"], "Expected batch 0 to be arrays"),
        ([None], "Expected batch 0 to be arrays"),
    ],
)
def test_bad_batches_end_in_one_line(batches, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(iter(batches))
    assert "\n" not in str(caught.value)


def test_positions_that_mean_nothing_are_refused(tmp_path):
    states = run(Counter())
    with pytest.raises(ValueError, match="whose position was stored"):
        run(Counter(), start=states[4]._replace(position='{"other": 1}'))
    with pytest.raises(ValueError, match="get_state to give JSON"):
        run(type("Odd", (Counter,), {"get_state": lambda self: {"at": object()}})())
    with pytest.raises(ValueError, match="Expected 4 batches for 4 steps, got 2"):
        run(iter([batch_of(4)] * 2), start=states[4])
    with pytest.raises(ValueError, match="neither a batch_size"):
        run(Counter(), TrainSpec("sgd", 0.1, batch_size=4, steps=9))
    checkpoints.save(tmp_path, states[4])
    (tmp_path / "4" / "position.json").write_text("{")
    with pytest.raises(checkpoints.DamagedCheckpoint, match=r"position\.json"):
        checkpoints.restore(tmp_path, 4, like=states[0])
    (tmp_path / "4" / "sha256.json").unlink()
    with pytest.raises(ValueError, match=r"Expected JSON in .*position\.json"):
        checkpoints.restore(tmp_path, 4, like=states[0])


def test_the_next_item_is_read_while_one_is_in_use():
    reached = threading.Event()

    def read(item: int) -> int:
        if item == 1:
            reached.set()
        if item == 3:
            raise ValueError("three")
        return item

    items = ahead(read, range(5))
    assert next(items) == 0
    assert reached.wait(30)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(items)
    assert list(ahead(read, [])) == []


@pytest.mark.parametrize("data", [SAMPLE, OnDisk()])
def test_chunks_hold_every_sample_once(data):
    chunks = list(chunks_of(data, 4))
    assert {chunk["y"].shape for _, chunk in chunks} == {(4,)}
    found = np.concatenate([np.asarray(chunk["y"])[:count] for count, chunk in chunks])
    np.testing.assert_array_equal(found, SAMPLE["y"])
