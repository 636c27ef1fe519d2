from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import DataSpec, load


def spec(place: Path, **fields) -> DataSpec:
    return DataSpec("npz", place, **({"num_samples": 10, "probe_size": 4} | fields))


def refused(place: Path, match: str = "Expected") -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(spec(place))
    assert "\n" not in str(caught.value)


def npy(shape: str, descr: str = "'<f4'", data: bytes = b"", fortran: str = "False") -> bytes:
    """A hand-made npy member; ``shape`` and ``descr`` are the text of its header."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return path


def member(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.fixture
def xy() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 5)), rng.integers(0, 3, 30)


def pairs(split) -> set[tuple[bytes, float]]:
    parts = (split.sample, split.heldout_probe, split.heldout_rest)
    return {(x.tobytes(), float(y)) for part in parts for x, y in zip(part["x"], part["y"], strict=True)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", "?"])
def test_rows_keep_their_labels(tmp_path, xy, save, order, dtype):
    x, y = np.asarray(xy[0] * 10, dtype, order=order), xy[1]
    x[:, 0] = np.arange(30) > 14 if dtype == "?" else np.arange(30)
    save(tmp_path / "data.npz", x=x, y=y)
    split = load(spec(tmp_path))
    assert pairs(split) == {(a.astype(np.float32).tobytes(), float(b)) for a, b in zip(x, y, strict=True)}
    assert (split.task, split.num_outputs, split.input_shape) == ("classification", 3, (5,))
    assert len(split.sample["x"]) == 10
    assert len(split.heldout_probe["x"]) + len(split.heldout_rest["x"]) == 20


@pytest.mark.parametrize("order", ["C", "F"])
def test_images_of_bytes_are_scaled_and_get_a_channel(tmp_path, order):
    x = np.asarray(np.random.default_rng(0).integers(0, 256, (20, 4, 6)), np.uint8, order=order)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(20) % 2)
    split = load(spec(tmp_path / "data.npz"))
    assert split.input_shape == (4, 6, 1)
    known = {image.tobytes() for image in x}
    assert {np.rint(255 * image).astype(np.uint8).tobytes() for image in split.sample["x"]} <= known


def test_floats_in_y_mean_regression(tmp_path, xy):
    np.savez(tmp_path / "data.npz", x=xy[0], y=xy[1] + 0.5)
    split = load(spec(tmp_path))
    assert (split.task, split.num_outputs, split.sample["y"].dtype) == ("regression", 1, np.float32)


def test_a_test_file_is_the_held_out_part(tmp_path, xy):
    x, y = xy
    np.savez(tmp_path / "train.npz", x=x[:20], y=y[:20])
    np.savez(tmp_path / "test.npz", x=x[20:], y=y[20:])
    split = load(spec(tmp_path, num_samples=20))
    held = {a.tobytes() for part in (split.heldout_probe, split.heldout_rest) for a in part["x"]}
    assert held == {a.tobytes() for a in x[20:].astype(np.float32)}
    np.savez(tmp_path / "test.npz", x=x[20:, :4], y=y[20:])
    refused(tmp_path, r"arrays of one kind, .*\(20, 5\) and float64 \(10, 4\)")
    np.savez(tmp_path / "test.npz", x=x[20:], y=np.arange(10))
    refused(tmp_path, "Expected the labels of .*test.npz to occur in")


def test_the_place_must_hold_exactly_one(tmp_path, xy):
    with pytest.raises(FileNotFoundError, match=r"Expected a \.npz file, or a folder with one"):
        load(spec(tmp_path))
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=xy[0], y=xy[1])
    refused(tmp_path, r"exactly one .npz file .* got 2 \(a.npz, b.npz\)")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: {"x": x}, "Expected arrays x and y"),
        (lambda x, y: {"x": x, "y": y[:-1]}, r"y of shape \(30,\), got \(29,\)"),
        (lambda x, y: {"x": x, "y": y[:, None]}, r"y of shape \(30,\), got \(30, 1\)"),
        (lambda x, y: {"x": x[:, 0], "y": y}, r"Expected x of shape .* got \(30,\)"),
        (lambda x, y: {"x": x[:, :0], "y": y}, r"Expected x of shape .* got \(30, 0\)"),
        (lambda x, y: {"x": x, "y": y - 1}, "Expected integer labels 0 to k-1 .* got -1 to 1"),
        (lambda x, y: {"x": x, "y": y * 1000}, "got 0 to 2000"),
        (lambda x, y: {"x": x.astype(object), "y": y}, "Expected numbers in x, got type object"),
        (lambda x, y: {"x": x, "y": y.astype(str)}, "Expected numbers in y, got type <U"),
        (lambda x, y: {"x": x + 1j, "y": y}, "Expected numbers in x, got type complex"),
        (lambda x, y: {"x": np.where(np.arange(30)[:, None] == 29, np.nan, x), "y": y}, "numbers in x, got nan"),
        (lambda x, y: {"x": x, "y": np.full(30, np.inf)}, "Expected finite numbers in y, got inf"),
        (lambda x, y: {"x": x * 1e300, "y": y}, "within the range of float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, xy, change, match):
    np.savez(tmp_path / "data.npz", allow_pickle=True, **change(*xy))
    refused(tmp_path, match)


def test_pickles_are_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    trap = np.array([[Trap()]] * 30, dtype=object)
    np.savez(tmp_path / "data.npz", x=trap, y=np.arange(30) % 2)
    refused(tmp_path, "Objects and text are never read")
    assert not (tmp_path / "sprung").exists()
    # The negative control: this pickle does spring when it is read.
    np.load(tmp_path / "data.npz", allow_pickle=True)["x"]
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "x",
    [
        npy("(4000000000, 1000)"),
        npy("(30, 1000000000000)"),
        npy("(30, 5)", data=bytes(4 * 149)),
        npy("(30, 5)", data=bytes(4 * 151)),
        npy("(-30, -5)", data=bytes(600)),
        npy("(True, 5)", data=bytes(20)),
        npy("()", data=bytes(4)),
        npy("(30, 'five')", data=bytes(600)),
        npy("(30, 5)", descr="'|S1000000000'"),
        npy("(30, 5)", descr="[('a', '<f4')]", data=bytes(600)),
        npy("(" * 3000 + ")" * 3000),
        npy("(30, " + "9" * 5000 + ")"),
        npy("(30L, 5L)", data=bytes(600)),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(1000),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"\x93NUM",
        b"",
        b"cposix\nsystem\n(S'true'\ntR.",
    ],
)
def test_absurd_headers_cost_no_memory(tmp_path, x):
    archive(tmp_path / "data.npz", {"x.npy": x, "y.npy": member(np.arange(30) % 3)})
    tracemalloc.start()
    refused(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_zip_bomb_costs_no_memory(tmp_path):
    zeros = bytes(64 << 20)
    # A header of 2 GiB in a member that expands from 64 KiB; then data beyond what the header promises.
    for x in (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + zeros, npy("(30, 5)", data=zeros)):
        path = archive(tmp_path / "data.npz", {"x.npy": x, "y.npy": member(np.arange(30) % 3)})
        assert path.stat().st_size < 1 << 17
        tracemalloc.start()
        refused(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


@pytest.mark.parametrize("fortran", ["False", "True"])
def test_many_rows_that_were_not_asked_for_cost_no_memory(tmp_path, fortran):
    n = 1 << 22
    x = npy(f"({n}, 3)", data=bytes(12 * n), fortran=fortran)
    y = npy(f"({n},)", descr="'|u1'", data=bytes(n - 1) + b"\x01")
    archive(tmp_path / "data.npz", {"x.npy": x, "y.npy": y})
    wanted = spec(tmp_path, heldout_samples=10)
    load(wanted)
    tracemalloc.start()
    split = load(wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert split.sample["x"].shape == (10, 3)
    assert peak < 8 << 20


def test_a_directory_that_lies_about_sizes_is_refused(tmp_path, xy):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=xy[0], y=xy[1])
    sound = path.read_bytes()
    start = sound.index(b"PK\x01\x02")
    for offset in (20, 24):
        lying = bytearray(sound)
        lying[start + offset : start + offset + 4] = struct.pack("<I", 2**31)
        path.write_bytes(lying)
        refused(tmp_path, "Expected sizes that the file can hold")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_a_bound_are_refused(tmp_path, xy, compression):
    members = {"x.npy": member(xy[0]), "y.npy": member(xy[1])}
    archive(tmp_path / "data.npz", members, compression)
    refused(tmp_path, "Expected y? ?x? ?stored or deflated")


def test_random_damage_is_either_harmless_or_one_line(tmp_path, xy):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=xy[0], y=xy[1])
    sound = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    messages = []
    for i in range(200):
        damaged = sound.copy()
        damaged[rng.integers(0, len(sound), 1 + rng.integers(4))] = rng.integers(256)
        path.write_bytes(damaged.tobytes()[: rng.integers(len(sound)) if i % 4 == 0 else None])
        try:
            load(spec(tmp_path))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
