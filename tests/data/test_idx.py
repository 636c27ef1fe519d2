from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import DataSpec, load
from lggwjax.data.idx import open_idx

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray, count: int | None = None) -> bytes:
    dims = (len(array) if count is None else count, *array.shape[1:])
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *dims) + array.tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"train": 50, "t10k": 30}
    made = {}
    for part, n in sizes.items():
        made[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        made[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, n, dtype=np.uint8)
    return made


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def zipped(request) -> bool:
    return request.param


@pytest.fixture
def folder(tmp_path, arrays, zipped) -> Path:
    for name, array in arrays.items():
        put(tmp_path, name, idx(array), zipped)
    return tmp_path


def put(folder: Path, name: str, data: bytes, zipped: bool) -> None:
    (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)


def spec(folder: Path, **fields) -> DataSpec:
    return DataSpec("mnist", folder, **({"num_samples": 20, "probe_size": 5} | fields))


def test_images_and_labels_are_those_of_the_files(folder, arrays):
    split = load(spec(folder))
    assert split.input_shape == (28, 28, 1)
    for batch, part in ((split.sample, "train"), (split.heldout_rest, "t10k")):
        truth = {
            x.tobytes(): y
            for x, y in zip(arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"], strict=True)
        }
        found = [truth[np.rint(x * 255).astype(np.uint8).tobytes()] for x in batch["x"]]
        assert found == batch["y"].tolist()
    assert len(split.heldout_probe["x"]) + len(split.heldout_rest["x"]) == 30


def test_fashion_mnist_has_the_same_files_and_its_own_classes(folder):
    digits, fashion = (
        load(DataSpec(name, folder, num_samples=20, probe_size=5)) for name in ("mnist", "fashion-mnist")
    )
    np.testing.assert_array_equal(digits.sample["x"], fashion.sample["x"])
    assert (digits.class_names[9], fashion.class_names[9]) == ("9", "Ankle boot")
    (folder / NAMES[0]).unlink(missing_ok=True)
    (folder / f"{NAMES[0]}.gz").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="zalandoresearch"):
        load(DataSpec("fashion-mnist", folder))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_where_to_get_it(folder, name):
    for path in folder.glob(f"{name}*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected the file {name} or .* in .*https://"):
        load(spec(folder))


@pytest.mark.parametrize("name", NAMES)
def test_truncated_files_are_refused(folder, arrays, zipped, name):
    data = idx(arrays[name])
    for cut in (0, 3, 7, len(data) - 1):
        put(folder, name, data[:cut], zipped)
        refused(folder)


def refused(folder: Path, match: str = "Expected") -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(spec(folder))
    assert "\n" not in str(caught.value)


def test_a_cut_or_corrupt_gzip_stream_is_refused(tmp_path, arrays):
    for name, array in arrays.items():
        put(tmp_path, name, idx(array), True)
    path = tmp_path / f"{NAMES[0]}.gz"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(tmp_path, "Expected a sound IDX file")
    path.write_bytes(data[:-20] + bytes(20))
    refused(tmp_path)
    path.write_bytes(b"not gzip at all")
    refused(tmp_path, "Expected a sound IDX file")


@pytest.mark.parametrize("count", [51, 10**6, 2**32 - 1])
def test_a_header_that_promises_more_than_the_file_holds_costs_no_memory(folder, arrays, zipped, count):
    put(folder, NAMES[0], idx(arrays[NAMES[0]], count), zipped)
    put(folder, NAMES[1], idx(arrays[NAMES[1]], count), zipped)
    tracemalloc.start()
    refused(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_header_that_promises_less_than_the_file_holds_is_refused(folder, arrays, zipped):
    put(folder, NAMES[0], idx(arrays[NAMES[0]], 49), zipped)
    put(folder, NAMES[1], idx(arrays[NAMES[1]], 49), zipped)
    refused(folder, "to end after the 49 rows")


@pytest.mark.parametrize("name", NAMES)
def test_a_gzip_bomb_costs_no_memory(tmp_path, arrays, name):
    for other, array in arrays.items():
        put(tmp_path, other, idx(array), True)
    with gzip.open(tmp_path / f"{name}.gz", "wb", compresslevel=1) as stream:
        stream.write(idx(arrays[name]))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    refused(tmp_path, "got more bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_mislabelled_files_are_refused(folder, arrays, zipped):
    put(folder, NAMES[0], idx(arrays[NAMES[1]]), zipped)
    refused(folder, r"Expected an IDX file of images \(magic number 00000803\), got 00000801")
    put(folder, NAMES[0], idx(np.zeros((50, 32, 32), np.uint8)), zipped)
    refused(folder, "Expected images of 28 x 28 pixels, got 32 x 32")
    put(folder, NAMES[0], idx(arrays[NAMES[2]]), zipped)
    refused(folder, "Expected as many labels as images, got 50 .* and 30")


def test_labels_out_of_range_are_refused_wherever_they_are(folder, arrays, zipped):
    labels = arrays[NAMES[1]].copy()
    labels[-1] = 10
    put(folder, NAMES[1], idx(labels), zipped)
    refused(folder, "Expected labels 0 to 9, got 10 at row 49")


def test_too_many_samples_are_refused(folder):
    with pytest.raises(ValueError, match=r"Expected num_samples <= 50, .*MNIST at .* got 51"):
        load(spec(folder, num_samples=51))


def test_random_damage_is_either_harmless_or_one_line(tmp_path, arrays):
    rng = np.random.default_rng(0)
    for name, array in arrays.items():
        put(tmp_path, name, idx(array), True)
    path = tmp_path / f"{NAMES[0]}.gz"
    sound = np.frombuffer(path.read_bytes(), np.uint8)
    messages = []
    for _ in range(150):
        damaged = sound.copy()
        damaged[rng.integers(0, len(sound) if rng.random() < 0.5 else 40, 1 + rng.integers(3))] = rng.integers(256)
        path.write_bytes(damaged.tobytes())
        try:
            load(spec(tmp_path))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 75
    assert not any("\n" in message for message in messages)


def test_real_mnist(shared_data):
    source = open_idx("mnist", shared_data / "mnist")
    assert (source.num_train, source.num_test) == (60_000, 10_000)
    rows = np.arange(5)
    sample, heldout = source.read(rows, rows)
    # The first labels and pixel means of the original files.
    assert sample["y"].tolist() == [5, 0, 4, 1, 9]
    assert heldout["y"].tolist() == [7, 2, 1, 0, 4]
    assert sample["x"].dtype == np.float32
    split = load(DataSpec("mnist", shared_data / "mnist", num_samples=2000))
    # Mean and deviation of all training pixels are 0.1307 and 0.3081; means of images vary by about 0.04.
    per_image = split.sample["x"].mean(axis=(1, 2, 3))
    assert abs(per_image.mean() - 0.1307) < 4 * per_image.std() / 2000**0.5
