"""Writers: what they write can be read while it is written, and a restart goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys

import pytest

from lggwjax import load_run
from lggwjax.training.looks import Judgement
from lggwjax.training.observation import make_report
from lggwjax.training.writers import CsvWriter, JsonlWriter, TensorBoardWriter, WandbWriter

NAMES = ["dense/kernel", "dense/bias"]


@pytest.fixture(scope="module")
def reports():
    """Four looks: the start, then steps that help, as a monitor would report them."""
    import numpy as np

    rng = np.random.default_rng(0)
    judgement, found = Judgement.start(0, 2, 32), []
    for step in (0, 10, 20, 30):
        look = None
        if step:
            judgement, look = judgement.judged(step, rng.normal(0.5, 0.1, size=(32, 2)), 0.95)
        estimate = {"value": 1.5 + step, "stderr": 0.25, "ci95": [1.0, 2.0]}
        record = {
            "train_loss": 0.5 / (step + 1),
            "heldout_loss": 0.75,
            "population_descent": None,
            "lggw": estimate | {"num_draws": 64, "num_samples": 8, "num_checkpoints": 1, "draws_bound95": None},
            "features": None,
            "status": {"lggw": "descriptive"},
            "seconds": {"training": 1.0, "measuring": 0.125, "compiling": 8.0},
        }
        found.append(make_report(step, int(step > 0), NAMES, judgement, look, record))
    return found


def _write(writer, reports):
    with writer:
        for report in reports:
            writer(report)


def test_json_lines_are_whole_at_once_and_make_a_run_folder(tmp_path, reports):
    file = tmp_path / "deep" / "metrics.jsonl"
    with JsonlWriter(file) as writer:
        for count, report in enumerate(reports, 1):
            writer(report)
            lines = file.read_text().splitlines(keepends=True)
            assert len(lines) == count
            assert json.loads(lines[-1]) == report.record
            assert lines[-1].endswith("\n")
    table = load_run(file.parent)
    assert table["step"].tolist() == [0, 10, 20, 30]
    assert table["lggw.value"].tolist() == [1.5, 11.5, 21.5, 31.5]
    assert table["verdict"].tolist() == ["undecided", "undecided", "helps", "helps"]
    assert table["population_descent.value"][2] == reports[2].descent.value
    assert table["population_descent.value"].isna().tolist() == [True, False, False, False]
    assert table["seconds.compiling"].tolist() == [8.0] * 4


@pytest.mark.parametrize("kind", [JsonlWriter, CsvWriter])
def test_a_file_with_records_is_never_overwritten(tmp_path, reports, kind):
    file = tmp_path / "records"
    _write(kind(file), reports[:2])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="Pass append=True or choose another path"):
        kind(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", [JsonlWriter, CsvWriter])
def test_a_restart_goes_on_where_the_file_ends(tmp_path, reports, kind):
    whole, file = tmp_path / "whole", tmp_path / "records"
    _write(kind(whole), reports)
    _write(kind(file), reports[:2])
    with file.open("ab") as torn:
        torn.write(b'{"step": 20, "wo')
    # The loop restarts from a checkpoint before the last record, and passes it once more.
    _write(kind(file, append=True), reports[1:])
    assert file.read_bytes() == whole.read_bytes()
    _write(kind(tmp_path / "new", append=True), reports)
    assert (tmp_path / "new").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("text", ["some\ntext", "one word", '{"a": 1}\n', "a,b\n1,2\n", '{"step": "x"}\n'])
@pytest.mark.parametrize("kind", [JsonlWriter, CsvWriter])
def test_other_files_are_refused_and_left_alone(tmp_path, text, kind):
    other = tmp_path / "other"
    other.write_text(text)
    with pytest.raises(ValueError, match=r"Expected records with a step in .*other, got others"):
        kind(other, append=True)
    assert other.read_text() == text


@pytest.mark.parametrize("kind", [JsonlWriter, CsvWriter])
def test_closed_writers_are_refused(tmp_path, reports, kind):
    writer = kind(tmp_path / "records")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="Expected an open writer"):
        writer(reports[0])


def test_csv_has_one_header_and_a_row_a_report(tmp_path, reports):
    file = tmp_path / "monitor.csv"
    _write(CsvWriter(file), reports)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["step"] for row in rows] == ["0", "10", "20", "30"]
    assert list(rows[0]) == list(reports[0].scalars())
    assert float(rows[2]["layers/dense/kernel/value"]) == reports[2].layers[0].descent.value
    assert rows[0]["population_descent/value"] == ""
    assert rows[3]["verdict"] == "helps"


def test_csv_of_another_model_is_refused(tmp_path, reports):
    file = tmp_path / "monitor.csv"
    _write(CsvWriter(file), reports[:1])
    layers = [layer | {"name": "other"} for layer in reports[1].record["layers"]]
    other = dataclasses.replace(reports[1], record=reports[1].record | {"layers": layers})
    with pytest.raises(ValueError, match="Expected the columns of"):
        _write(CsvWriter(file, append=True), [other])


@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_what_was_written(tmp_path, reports):
    _write(TensorBoardWriter(tmp_path), reports)
    scalars, texts = _events(tmp_path)
    assert scalars["lggw/value"] == {0: 1.5, 10: 11.5, 20: 21.5, 30: 31.5}
    assert scalars["verdict"] == {0: 0.0, 10: 0.0, 20: 1.0, 30: 1.0}
    assert scalars["population_descent/value"][20] == pytest.approx(reports[2].descent.value)
    assert 0 not in scalars["population_descent/value"]
    assert scalars["layers/dense/bias/verdict"][30] == 1.0
    assert str(reports[3]) in texts


def _events(folder):
    """Scalars and texts of an event file: records of a length, a checksum, the message, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, texts = {}, []
    for file in folder.iterdir():
        content, place = file.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, {})[event.step] = value.simple_value
                else:
                    texts += [text.decode() for text in value.tensor.string_val]
    return scalars, texts


class _Run:
    """Notes what is asked of a run of Weights & Biases."""

    def __init__(self):
        self.metrics, self.logged, self.finished = [], [], False

    def define_metric(self, *names, **options):
        self.metrics.append((*names, options))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished = True


def test_wandb_keeps_a_step_of_its_own_and_leaves_the_run_open(reports):
    run = _Run()
    _write(WandbWriter(run), reports)
    assert run.metrics[-1] == ("lggwjax/*", {"step_metric": "lggwjax/step"})
    assert [values["lggwjax/step"] for values in run.logged] == [0, 10, 20, 30]
    assert run.logged[2]["lggwjax/verdict"] == 1
    assert run.logged[3]["lggwjax/lggw/value"] == 31.5
    assert all(isinstance(value, int | float) for values in run.logged for value in values.values())
    assert not run.finished


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_offline(tmp_path, reports, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=tmp_path, project="lggwjax-test", settings=wandb.Settings(console="off"))
    run.log({"loop/loss": 1.0})
    with WandbWriter() as writer:
        for report in reports:
            writer(report)
    summary = dict(run.summary)
    run.finish()
    assert summary["lggwjax/step"] == 30
    assert summary["lggwjax/lggw/value"] == 31.5
    assert summary["lggwjax/verdict"] == 1
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_wandb_without_a_run_is_refused():
    wandb = pytest.importorskip("wandb")
    assert wandb.run is None
    with pytest.raises(ValueError, match=r"Call wandb.init\(...\) first"):
        WandbWriter()


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("tensorboardX", lambda folder: TensorBoardWriter(folder), "tensorboard"),
        ("wandb", lambda folder: WandbWriter(), "wandb"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, module, make, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module} is not installed. Run: pip install 'lggwjax\[{extra}\]'"):
        make(tmp_path)
