from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lggwjax.report import load_config, load_run
from lggwjax.report.records import columns
from lggwjax.strict import room_for


def write(folder: Path, text: str) -> Path:
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_every_number_of_the_records_is_in_the_table(run_of):
    folder = run_of("overfit")
    table = load_run(folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    checked = 0
    for (_, row), line in zip(table.iterrows(), lines, strict=True):
        for name, value in json.loads(line).items():
            if isinstance(value, dict):
                for field, part in value.items():
                    if isinstance(part, list):
                        assert [row[f"{name}.{field}_low"], row[f"{name}.{field}_high"]] == part
                    else:
                        assert row[f"{name}.{field}"] == part
                    checked += 1
            elif value is None:
                assert np.isnan(row[f"{name}.value"])
            else:
                assert row[name] == value
                checked += 1
    assert checked > 50 * len(lines)


def test_a_run_without_held_out_part_has_the_same_columns(run_of):
    table = load_run(run_of("no_heldout"))
    assert set(columns()) <= set(table)
    assert table["population_descent.ci95_low"].isna().all()
    assert table["heldout_loss"].isna().all()


@pytest.mark.parametrize("torn", ['{"step": 1, "train_l', '{"step": 1, "lggw": {"value": 1.0}', '{"step"\xe9'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    table = load_run(write(tmp_path, '{"step": 0, "train_loss": 1.5}\n' + torn))
    assert table["step"].tolist() == [0]


def test_a_complete_last_line_without_its_end_is_kept(tmp_path):
    assert load_run(write(tmp_path, '{"step": 0}\n{"step": 3}'))["step"].tolist() == [0, 3]


def test_no_measurement_yet_is_an_empty_table(tmp_path):
    table = load_run(write(tmp_path, ""))
    assert table.empty
    assert set(columns()) <= set(table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 0, "train_loss": NaN}\n', "strict JSON.*NaN"),
        ('{"step": 0, "train_loss": -Infinity}\n', "strict JSON.*-Infinity"),
        ('{"step": 0, "train_loss": 1e999}\n', "strict JSON.*1e999"),
        ('{"step": 0\n{"step": 1}\n', "strict JSON.*line 1"),
        ('[1, 2]\n{"step": 1}\n', "JSON object.*list"),
        ('{"step": 0}\n{"step": 0}\n', "increase.*line 2"),
        ('{"step": 1.5}\n', "integer step.*1.5"),
        ('{"train_loss": 1.5}\n', "integer step.*None"),
        ('{"step": 0, "train_loss": "<b>"}\n', "number or null for train_loss"),
        ('{"step": 0, "lggw": 3.0}\n', "object with a value for lggw"),
        ('{"step": 0, "lggw": {"value": 1.0, "ci95": [1.0]}}\n', r"\[low, high\] for lggw.ci95"),
        ('{"step": 0, "lggw": {"value": "x"}}\n', "number or null for lggw.value"),
        ("[" * 100_000 + "\n", "strict JSON"),
        ('{"step": 0, "x": ' + "[" * 100 + "]" * 100 + "}\n", "more than 64 levels"),
        ('{"step": 0, "train_loss": 1' + "0" * 400 + "}\n", "strict JSON.*the token 1000"),
        ('{"step": 9223372036854775808}\n', "strict JSON.*the token 9223372036854775808"),
        ('{"step": 0, "name": "\\ud800"}\n', "strict JSON.*surrogates"),
        ('{"step": 0, "features": {"l1": {}}}\n', "number or null for features.l1"),
        ('{"step": 0, "lggw": {"value": 1.0, "stderr": [1]}}\n', "number or null for lggw.stderr"),
        ("".join(f'{{"step": {i}, "q{i}": 1}}\n' for i in range(1001)), "at most 1000 quantities"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_run(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a run folder with metrics\.jsonl"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match=r"Expected a run folder with config\.json"):
        load_config(tmp_path / "absent")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_a_link_out_of_the_folder_is_not_read(tmp_path, name):
    folder, secret = tmp_path / "run", tmp_path / "secret.json"
    folder.mkdir()
    secret.write_text('{"step": 0, "password": 1}')
    (folder / name).symlink_to(secret)
    with pytest.raises(ValueError, match="a link that leads out of it"):
        (load_run if name == "metrics.jsonl" else load_config)(folder)
    (folder / "held.json").write_text('{"step": 0}')
    (folder / name).unlink()
    (folder / name).symlink_to("held.json")
    assert load_config(folder) == {"step": 0} if name == "config.json" else load_run(folder)["step"].tolist() == [0]


def test_writing_goes_through_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.csv").write_text("kept")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "x.csv").symlink_to(outside / "x.csv")
    room_for(tmp_path / "figures" / "x.csv").write_text("new")
    assert (outside / "x.csv").read_text() == "kept"
    (tmp_path / "tables").symlink_to(outside)
    with pytest.raises(ValueError, match="got a link"):
        room_for(tmp_path / "tables" / "y.csv")
