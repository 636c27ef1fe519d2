from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import DataSpec, load


def write(path: Path, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
    records[:, 0] = rng.integers(0, 10, n)
    path.write_bytes(records.tobytes())
    return records


def spec(folder: Path, **fields) -> DataSpec:
    return DataSpec("cifar10", folder, **({"num_samples": 10, "probe_size": 5} | fields))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(spec(folder))
    assert "\n" not in str(caught.value)


def as_record(x: np.ndarray, y: int) -> bytes:
    return bytes([y]) + np.rint(x.transpose(2, 0, 1) * 255).astype(np.uint8).tobytes()


@pytest.mark.parametrize("batches", [(1,), (2, 5), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("with_test", [True, False])
def test_any_subset_of_batches_is_read(tmp_path, batches, with_test):
    train = {r.tobytes() for i in batches for r in write(tmp_path / f"data_batch_{i}.bin", 12, i)}
    test = {r.tobytes() for r in write(tmp_path / "test_batch.bin", 8, 9)} if with_test else set()
    n = 12 * len(batches) - 2
    split = load(spec(tmp_path, num_samples=n))
    sample = {as_record(x, y) for x, y in zip(split.sample["x"], split.sample["y"], strict=True)}
    held = {
        as_record(x, y)
        for part in (split.heldout_probe, split.heldout_rest)
        for x, y in zip(part["x"], part["y"], strict=True)
    }
    assert len(sample) == n
    assert sample < train
    assert held == (test if with_test else train - sample)


def test_the_test_batch_alone_is_split(tmp_path):
    write(tmp_path / "test_batch.bin", 12, 0)
    split = load(spec(tmp_path))
    assert len(split.heldout_probe["x"]) == 2


def test_colours_and_rows_are_in_their_places(tmp_path):
    record = np.zeros((2, 3073), np.uint8)
    record[:, 1 + 1024 + 32 * 3 + 5] = 255
    (tmp_path / "data_batch_1.bin").write_bytes(record.tobytes())
    x = load(spec(tmp_path, num_samples=1, probe_size=1)).sample["x"][0]
    assert np.argwhere(x == 1).tolist() == [[3, 5, 1]]


def test_no_batch_at_all_says_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected data_batch_1\.bin .* in .*https://www\.cs\.toronto\.edu"):
        load(spec(tmp_path))


def test_broken_batches_are_refused(tmp_path):
    records = write(tmp_path / "data_batch_1.bin", 12, 0)
    path = tmp_path / "data_batch_1.bin"
    for data in (b"", records.tobytes()[:-1], records.tobytes() + b"x"):
        path.write_bytes(data)
        refused(tmp_path, "Expected .*data_batch_1.bin to hold records of 3073 bytes")
    records[-1, 0] = 10
    path.write_bytes(records.tobytes())
    refused(tmp_path, "Expected labels 0 to 9, got 10")


def test_class_names_come_from_the_file_if_it_is_there(tmp_path):
    write(tmp_path / "data_batch_1.bin", 12, 0)
    assert load(spec(tmp_path)).class_names[6] == "frog"
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    assert load(spec(tmp_path)).class_names == tuple("abcdefghij")
    (tmp_path / "batches.meta.txt").write_text("a\nb\n")
    refused(tmp_path, "Expected 10 class names .* got 2")
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, "Expected a sound list of class names")


def test_real_cifar(shared_data):
    folder = shared_data / "cifar-10-batches-bin"
    split = load(DataSpec("cifar10", folder, num_samples=1000))
    # Channel means of the training images are .4914, .4822, .4465.
    per_image = split.sample["x"].mean(axis=(1, 2))
    error = 4 * per_image.std(axis=0) / 1000**0.5
    assert np.all(abs(per_image.mean(axis=0) - [0.4914, 0.4822, 0.4465]) < error)
    # Ships lie on blue, frogs on green and brown.
    colour = per_image[:, 2] - per_image[:, 0]
    ships, frogs = (colour[split.sample["y"] == split.class_names.index(name)] for name in ("ship", "frog"))
    assert ships.mean() - frogs.mean() > 4 * (ships.var() / len(ships) + frogs.var() / len(frogs)) ** 0.5
