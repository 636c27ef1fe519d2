from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lggwjax.data import DataSpec, load


@pytest.fixture
def rows() -> list[tuple[float, int, str, str]]:
    rng = np.random.default_rng(0)
    colours = ["red", "green", "blue"]
    return [
        (float(a), int(b), colours[int(c)], "yes" if a + b > 3 else "no")
        for a, b, c in zip(rng.normal(1, 2, 60), rng.integers(0, 5, 60), rng.integers(0, 3, 60), strict=True)
    ]


HEADER = "size,count,colour,bought"


def table(path: Path, rows, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def spec(place: Path, label: str = "bought", **fields) -> DataSpec:
    return DataSpec("csv", place, label=label, **({"num_samples": 30, "probe_size": 5} | fields))


def refused(place: Path, match: str, label: str = "bought") -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(spec(place, label))
    assert "\n" not in str(caught.value)


def test_numbers_are_standardised_and_categories_one_hot(tmp_path, rows):
    split = load(spec(table(tmp_path / "t.csv", rows)))
    assert (split.task, split.num_outputs, split.class_names) == ("classification", 2, ("no", "yes"))
    assert split.input_shape == (5,)
    x = split.sample["x"].astype(np.float64)
    np.testing.assert_allclose(x[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:, :2].std(axis=0), 1, atol=1e-6)
    assert np.all(x[:, 2:].sum(axis=1) == 1)
    # Undo the encoding: a known slope and intercept turn every row, held out or not, back into its line.
    sizes = np.array([row[0] for row in rows])
    found = np.concatenate([part["x"][:, 0] for part in (split.sample, split.heldout_probe, split.heldout_rest)])
    np.testing.assert_allclose(
        np.sort((found - found.mean()) / found.std()), np.sort((sizes - sizes.mean()) / sizes.std()), atol=1e-5
    )


def test_rows_keep_their_labels(tmp_path, rows):
    table(tmp_path / "t.csv", [(i, *row[1:3], "odd" if i % 2 else "even") for i, row in enumerate(rows)])
    split = load(spec(tmp_path))
    parts = (split.sample, split.heldout_probe, split.heldout_rest)
    x, y = (np.concatenate([part[name] for part in parts]) for name in ("x", "y"))
    # The first column is a line number, standardised: order tells it, and its parity is the label.
    assert y[np.argsort(x[:, 0])].tolist() == [i % 2 for i in range(60)]


def test_the_encoding_is_fitted_on_the_sample_only(tmp_path, rows):
    table(tmp_path / "t.csv", [(i, *row[1:]) for i, row in enumerate(rows)])
    first = load(spec(tmp_path))
    numbers = np.concatenate([first.heldout_probe["x"], first.heldout_rest["x"]])[:, 0]
    everything = np.concatenate([first.sample["x"][:, 0], numbers])
    held = set(np.flatnonzero(np.isin(np.sort(everything), numbers)).tolist())
    assert len(held) == 30
    changed = [(i + 1e6, row[1] + 1000, "violet", row[3]) if i in held else (i, *row[1:]) for i, row in enumerate(rows)]
    table(tmp_path / "t.csv", changed)
    second = load(spec(tmp_path))
    np.testing.assert_array_equal(second.sample["x"], first.sample["x"])
    assert np.all(second.heldout_probe["x"][:, 2:] == 0)
    assert not np.array_equal(second.heldout_probe["x"], first.heldout_probe["x"])


@pytest.mark.parametrize(
    ("label", "task", "outputs", "names"),
    [
        ("size", "regression", 1, ()),
        ("count", "classification", 5, tuple("01234")),
        ("colour", "classification", 3, ("blue", "green", "red")),
    ],
)
def test_the_task_follows_from_the_label(tmp_path, rows, label, task, outputs, names):
    split = load(spec(table(tmp_path / "t.csv", rows), label))
    assert (split.task, split.num_outputs, split.class_names) == (task, outputs, names)
    if task == "regression":
        assert abs(split.sample["y"].mean()) < 1e-5
        assert split.sample["y"].std() == pytest.approx(1, abs=1e-5)


def test_many_integers_are_a_quantity(tmp_path, rows):
    table(tmp_path / "t.csv", [(*row[:3], i // 2) for i, row in enumerate(rows)])
    assert load(spec(tmp_path)).task == "regression"


def test_quotes_byte_order_marks_and_blank_lines_are_read(tmp_path):
    lines = ['a,"b, c",y', *(f'{i},"x, {i % 2}",{i % 2}' for i in range(40)), "", ""]
    (tmp_path / "t.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    split = load(spec(tmp_path, "y"))
    assert split.input_shape == (3,)
    assert len(split.sample["x"]) == 30


def test_missing_words_are_a_category_of_their_own(tmp_path, rows):
    table(tmp_path / "t.csv", [(*row[:2], "?" if i % 2 else row[2], row[3]) for i, row in enumerate(rows)])
    assert load(spec(tmp_path)).input_shape == (6,)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expected a label column 'bought' .* got no header"),
        ("\n\n", "got no header"),
        ("a,b\n1,2\n", "Expected a label column 'bought' in .*t.csv, got the columns a, b. Name one"),
        ("brought,b\n1,2\n", "got the columns brought, b. Did you mean 'brought'?"),
        ("a;bought\n1;2\n", "separated by commas, not by semicolons"),
        ("a,b,c,d,e,f,g,h,z\n", "got the columns a, b, c, d, 2 more, g, h, z"),
        ("bought\n1\n2\n", "at least two different names"),
        ("a,a,bought\n1,2,3\n", "at least two different names"),
        ("a,bought\n", "Expected rows below the header, got none"),
        ("a,bought\n1,yes\n2\n", "Expected 2 cells in each row, got 1 at line 3"),
        ("a,bought\n1,yes\n2,no,3\n", "Expected 2 cells in each row, got 3 at line 3"),
        ("a,bought\n1,yes\n2,no\n,no\n", "Expected numbers in column 'a', .* got '' at line 4"),
        ("a,bought\n1,yes\n2,no\nNaN,no\n", "got 'NaN' at line 4"),
        ("a,bought\n1,yes\n2,no\ninf,no\n", "Expected finite numbers up to 1e30, got inf in column 'a' at line 4"),
        ("a,bought\n1,yes\n2,no\n1e99,no\n", "got 1e99 in column 'a'"),
        ("a,bought\n1,yes\n2,no\n3,\n", "Expected a label in every row"),
        ("a,bought\n1,yes\n2,yes\n", "at least two classes, fewer than the 2 rows, got 1"),
        ("a,bought\n1,yes\n2,no\n", "at least two classes, fewer than the 2 rows, got 2"),
        ('a,bought\n1,"yes\n2,no\n', "Expected a csv table, got unexpected end of data"),
        ("a,bought\n1," + "z" * 140_000 + "\n", "Expected a csv table, got field larger than field limit"),
        ("a,bought\n1,yes\n2,yes\n3,no\n", "Expected num_samples <= 3, .*got 30"),
    ],
)
def test_broken_tables_are_refused_with_the_line(tmp_path, text, match):
    (tmp_path / "t.csv").write_text(text)
    refused(tmp_path, match)


def test_identifiers_and_binary_files_are_refused(tmp_path):
    table(tmp_path / "t.csv", [(f"name{i}", i % 2) for i in range(1200)], "name,bought")
    refused(tmp_path, "Expected at most 1000 different words in column 'name'")
    (tmp_path / "t.csv").write_bytes(b"a,bought\n\xff\xfe\x00,1\n")
    refused(tmp_path, "Expected a sound csv table")
    (tmp_path / "t.csv").write_bytes(b"x" * (1 << 23))
    refused(tmp_path, "Expected lines shorter than")


def test_the_place_must_hold_exactly_one(tmp_path, rows):
    with pytest.raises(FileNotFoundError, match=r"Expected a \.csv file"):
        load(spec(tmp_path))
    table(tmp_path / "a.csv", rows)
    table(tmp_path / "b.csv", rows)
    refused(tmp_path, "exactly one .csv file")
