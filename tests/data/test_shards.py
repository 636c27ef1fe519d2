"""Shards against one array in memory: the same rows, and one line for each that is not as it should be."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import DataSpec, Shards, StreamedSample, load, open_shards, write_shards

KINDS = ("npz", "array_record")
NUM, CLASSES = 60, 3


def make(num: int = NUM, dtype: str = "<f4", shape: tuple[int, ...] = (4, 4), seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": (rng.random((num, *shape)) * 100).astype(dtype), "y": np.arange(num) % CLASSES}


def cut(data: dict[str, np.ndarray], *bounds: int) -> list[dict[str, np.ndarray]]:
    ends = [0, *bounds, len(data["y"])]
    return [{k: v[a:b] for k, v in data.items()} for a, b in itertools.pairwise(ends)]


def written(folder: Path, kind: str = "npz", **fields) -> Path:
    return write_shards(folder / "shards", cut(make(**fields), 7, 30), kind)


def spec(place: Path, name: str = "shards", **fields) -> DataSpec:
    return DataSpec(name, place, **({"num_samples": 40, "probe_size": 8, "heldout_samples": 12, "seed": 3} | fields))


def refused(folder: Path, name: str | None, match: str = "Expected") -> None:
    """Opening or reading everything fails in one line that names the file."""

    def read_all() -> None:
        shards = open_shards(folder)
        shards.rows(np.arange(len(shards)))

    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        read_all()
    assert "\n" not in str(caught.value)
    assert name is None or name in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<f4", "<f8", "u1", "<i2"])
def test_shards_give_what_one_file_in_memory_gives(tmp_path, kind, dtype):
    data = make(dtype=dtype)
    np.savez(tmp_path / "all.npz", **data)
    write_shards(tmp_path / "many", cut(data, 7, 30), kind)
    one, many = load(spec(tmp_path / "all.npz", "npz")), load(spec(tmp_path / "many"))
    assert isinstance(many.stored, StreamedSample)
    for name in ("sample", "train_probe", "heldout_probe", "heldout_rest"):
        for key in ("x", "y"):
            left, right = getattr(one, name)[key], getattr(many, name)[key]
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    assert (one.task, one.num_outputs, one.input_shape, one.input_radius) == (
        many.task,
        many.num_outputs,
        many.input_shape,
        many.input_radius,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_regression_stays_one(tmp_path, kind):
    data = make() | {"y": np.linspace(0, 1, NUM)}
    split = load(spec(write_shards(tmp_path / "a", cut(data, 9), kind)))
    assert (split.task, split.num_outputs, split.sample["y"].dtype) == ("regression", 1, np.float32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_of_numpy_is_read(tmp_path, save, order, caplog):
    data = make()
    for i, part in enumerate(cut(data, 25)):
        save(tmp_path / f"{i}.npz", x=np.asarray(part["x"], order=order), y=part["y"])
    shards, rows = open_shards(tmp_path), np.array([59, 0, 24, 25, 25, 3])
    np.testing.assert_array_equal(shards.rows(rows)["x"][..., 0], data["x"][rows])
    assert ("compressed" in caplog.text) == (save is np.savez_compressed or order == "F")


def test_a_test_folder_is_held_out(tmp_path):
    write_shards(tmp_path / "train", cut(make(), 20))
    write_shards(tmp_path / "test", [make(15, seed=1)])
    split = load(spec(tmp_path, num_samples=60))
    held = np.concatenate([split.heldout_probe["x"], split.heldout_rest["x"]])
    assert {row.tobytes() for row in held} <= {row.tobytes() for row in make(15, seed=1)["x"]}
    assert len(held) == 12


def test_only_the_rows_asked_for_are_read(tmp_path):
    data = {"x": np.ones((4000, 500), np.float32), "y": np.arange(4000) % 2}
    shards = open_shards(write_shards(tmp_path / "big", cut(data, 2000)))
    del data
    tracemalloc.start()
    shards.rows(np.arange(0, 4000, 400))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 < 8_000_000 // 10


def test_a_shard_is_a_source_for_grain(tmp_path):
    grain = pytest.importorskip("grain")
    shards, data = open_shards(written(tmp_path)), make()
    batches = iter(grain.MapDataset.source(shards).seed(0).shuffle().batch(6))
    assert "0x" not in repr(shards)
    found = np.concatenate([batch["x"] for batch in batches])
    assert sorted(map(bytes, found[..., 0])) == sorted(map(bytes, data["x"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_cut_off_is_named(tmp_path, kind):
    folder = written(tmp_path, kind, shape=(40, 40))
    path = folder / f"shard-000001.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(folder, path.name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_named_when_it_is_read(tmp_path, kind, value):
    parts = cut(make(dtype="<f8"), 7, 30)
    parts[1]["x"][3, 0, 0] = value
    folder = write_shards(tmp_path / "bad", parts, kind)
    refused(folder, f"shard-000001.{kind}", "finite|range of float32")
    open_shards(folder).rows(np.arange(7))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [{"shape": (4, 5)}, {"dtype": "<f8"}])
def test_a_shard_of_another_form_is_named(tmp_path, kind, other):
    folder = write_shards(tmp_path / "mixed", [make(5), make(5, **other)], kind)
    refused(folder, f"shard-000001.{kind}", "as in shard-000000")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_vanishes_or_changes_is_named(tmp_path, kind):
    shards = open_shards(written(tmp_path, kind))
    path = shards.parts[1].path
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        shards.rows(np.array([10]))
    shards.rows(np.array([1]))
    if kind == "npz":
        path.write_bytes(data)
        os.utime(path, ns=(1, 1))
        with pytest.raises(ValueError, match="changed since"):
            shards.rows(np.array([10]))


def test_labels_are_checked_over_all_shards(tmp_path):
    # Each shard alone has fewer rows than classes.
    parts = [{"x": np.ones((2, 3), np.float32), "y": np.array([i, i + 1])} for i in range(0, 10, 2)]
    assert open_shards(write_shards(tmp_path / "a", parts)).num_classes == 10
    refused(
        write_shards(tmp_path / "b", [*parts, {"x": np.ones((1, 3), np.float32), "y": np.array([-1])}]), "shard-000005"
    )


def test_headers_that_lie_allocate_nothing(tmp_path):
    folder = written(tmp_path)
    path = folder / "shard-000001.npz"
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    lie = members["x.npy"].replace(b"(23, 4, 4), }", b"(9999999,4)} ", 1)
    assert lie != members["x.npy"]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in (members | {"x.npy": lie}).items():
            new.writestr(name, data)
    tracemalloc.start()
    refused(folder, path.name)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_directory_that_lies_about_a_stored_size_is_refused(tmp_path):
    # 24 rows are promised and 23 are there: read by seeking, the last would be the bytes of the next member.
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones((23, 2000), np.float32), y=np.ones(24, np.float32), z=np.zeros(9000))
    data = path.read_bytes().replace(b"(23, 2000)", b"(24, 2000)")
    entry = data.index(b"PK\x01\x02")
    size = int.from_bytes(data[entry + 24 : entry + 28], "little")
    path.write_bytes(data[: entry + 24] + (size + 8000).to_bytes(4, "little") + data[entry + 28 :])
    refused(tmp_path, "a.npz", "hold all of its arrays")


@pytest.mark.parametrize(
    "text",
    [None, "", "{}", "[]", '{"num_classes": true}', '{"num_classes": 1}', "[" * 9999, '{"num_classes": "a\\nb"}'],
)
def test_records_need_to_know_their_classes(tmp_path, text):
    folder = written(tmp_path, "array_record")
    (folder / "info.json").unlink()
    if text is not None:
        (folder / "info.json").write_text(text)
    refused(folder, "info.json")


def test_labels_beyond_the_classes_stated_are_named(tmp_path):
    folder = written(tmp_path, "array_record")
    (folder / "info.json").write_text(json.dumps({"num_classes": 2}))
    refused(folder, "shard-000000.array_record", "Expected labels 0 to 1")


def npy(values: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(values))
    return stream.getvalue()


CUT = npy([1.0]) + b"\x93NUMPY\x02\x00" + b"\xff" * 9


@pytest.mark.parametrize("record", [b"", b"\x80\x04N.", npy([1.0]), npy([1.0]) + npy([1]), npy(1.0) + npy(1), CUT])
def test_records_of_others_are_refused(tmp_path, record):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    writer.write(record)
    writer.close()
    refused(tmp_path, "a.array_record")


@pytest.mark.parametrize("record", [npy([1.0, 2.0]) + npy(1), npy([1]) + npy(1), npy([2.0]) + npy(1) + b"0"])
def test_records_unlike_the_first_are_refused(tmp_path, record):
    from array_record.python.array_record_module import ArrayRecordWriter

    (tmp_path / "info.json").write_text('{"num_classes": 2}')
    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for one in (npy([1.0]) + npy(1), record):
        writer.write(one)
    writer.close()
    assert open_shards(tmp_path).rows(np.array([0]))["x"] == 1.0
    refused(tmp_path, "a.array_record", "got another")


def test_folders_without_shards_or_with_two_kinds_are_refused(tmp_path):
    refused(tmp_path, tmp_path.name, "got none")
    refused(tmp_path / "absent", "absent", "got none")
    np.savez(tmp_path / "a.npz", **make(5))
    (tmp_path / "b.array_record").write_bytes(b"")
    refused(tmp_path, "b.array_record", "one kind")


def test_without_array_record_it_is_said_what_to_install(tmp_path, monkeypatch):
    folder = written(tmp_path, "array_record")
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
    refused(folder, "shard-000000.array_record", r"pip install 'lggwjax\[data\]'")


def test_nothing_half_written_stays(tmp_path):
    good = make(5)
    with pytest.raises(KeyError):
        write_shards(tmp_path / "a", [good, {"x": good["x"]}])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["shard-000000.npz"]
    with pytest.raises(ValueError, match="without shards"):
        write_shards(tmp_path / "a", [good])
    with pytest.raises(ValueError, match="kind"):
        write_shards(tmp_path / "b", [good], "parquet")  # type: ignore[arg-type]


def test_more_than_half_of_the_memory_is_not_read_at_once(tmp_path, monkeypatch):
    shards = open_shards(written(tmp_path))
    monkeypatch.setattr("lggwjax.data.files.memory_limit", lambda: 640)
    assert len(shards.rows(np.arange(10))["y"]) == 10
    with pytest.raises(ValueError, match="Ask for fewer samples"):
        shards.rows(np.arange(11))
    assert isinstance(shards, Shards)
