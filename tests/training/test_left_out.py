"""Samples that are not finite are left out for good: named, counted, and the records are those of the other samples."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.data import DataSpec
from lggwjax.models import ModelSpec, build_adapted
from lggwjax.report import load_run, run_document
from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, checkpoints, prepare_run
from lggwjax.training.batches import batch_rows
from lggwjax.training.evidence import Evidence
from lggwjax.training.left_out import LeftOut
from lggwjax.training.loop import TrainingDiverged, train
from lggwjax.training.measure import measure
from lggwjax.training.meter import Meter, Samples
from lggwjax.training.run import run


def root(params, z):
    return params["params"] * jnp.sqrt(z)


def train_root(params, batch):
    return params["params"] * jnp.sqrt(batch), jnp.zeros_like(batch), params["state"]


SAMPLE = np.array([1.0, 4.0, -1.0, 9.0, 16.0, -4.0, 25.0], np.float32)
GOOD, START = [0, 1, 3, 4, 6], {"params": jnp.ones(()), "state": {}}


def everything(path, leaf):
    return True


def losses(spec, sample=SAMPLE, left_out=None):
    path = train(train_root, everything, START, sample, spec, left_out=left_out)
    return [float(state.params["params"]) for state in path]


def test_training_is_that_of_the_other_samples(caplog):
    spec = TrainSpec("gd", 0.01, steps=3)
    left_out = LeftOut(root, SAMPLE, None)
    assert losses(spec, left_out=left_out) == losses(spec, SAMPLE[GOOD])
    assert left_out.field() == {"skipped": {"train": [2, 5], "heldout": []}}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("Sample 2 of 7 trained on (with 5) has a NaN or infinite loss at step 0: left out")
    with pytest.raises(TrainingDiverged):
        losses(spec)


def test_of_a_batch_only_the_bad_ones_are_dropped_and_no_other_batch_changes():
    spec = TrainSpec("sgd", 0.01, batch_size=2, steps=20, seed=1)
    left_out, w, expected = LeftOut(root, SAMPLE, None), 1.0, [1.0]
    for step in range(20):
        rows = [row for row in batch_rows(1, step, 7, 2) if row in GOOD]
        if not rows:
            with pytest.raises(FloatingPointError, match=f"got none among the 2 of the batch at step {step}"):
                losses(spec, left_out=left_out)
            return
        w -= 0.01 * np.sqrt(SAMPLE[rows]).mean()
        expected.append(w)
    np.testing.assert_allclose(losses(spec, left_out=left_out), expected, rtol=1e-5)
    assert left_out.train == {2, 5}


def test_where_no_sample_is_to_blame_it_is_a_divergence():
    left_out = LeftOut(root, SAMPLE[GOOD], None)
    with pytest.raises(TrainingDiverged, match="step 1"):
        losses(TrainSpec("gd", 1e38, steps=3), 1e4 * SAMPLE[GOOD], left_out)
    assert not left_out.train


def test_the_last_record_says_who_is_left_out():
    records = [{"skipped": {"train": [], "heldout": []}}, {"skipped": {"train": [2], "heldout": [1]}}]
    left_out = LeftOut(root, SAMPLE, SAMPLE[:2], records=records)
    assert left_out.field() == records[-1]
    assert left_out.found(3, START)
    assert left_out.train == {2, 5}
    assert not left_out.found(3, START)
    for wrong in ({}, {"skipped": {"train": [7], "heldout": []}}, {"skipped": {"train": [0], "heldout": "all"}}):
        with pytest.raises(ValueError, match=r"Expected skipped\.(train|heldout) with sample indices below"):
            LeftOut(root, SAMPLE, SAMPLE[:2], records=[wrong])


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='non_finite "stop" or "skip"'):
        TrainSpec(non_finite="ignore")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="do not come again"):
        TrainSpec(non_finite="skip", fresh=True)


BAD = 100.0  # marks a sample whose loss becomes infinite once training has moved far enough


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run with samples that are fine at first: of those trained on, and of those held out."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 3)), rng.normal(size=80)
    x[::20, 0], x[::20, 1] = BAD, np.array([0.015, 0.025, 0.035, 0.045])  # how far
    file = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(file, x=x.astype(np.float32), y=y.astype(np.float32))

    def broken(*arguments):
        adapted = build_adapted(*arguments)
        moved = lambda params: jnp.abs(jax.tree.leaves(params["params"])[-2]).max()  # noqa: E731, a bias, 0 at first
        fate = lambda p, x: jnp.where((x[..., 0] == BAD) & (moved(p) > x[..., 1]), jnp.inf, 0)  # noqa: E731

        def tame(batch):
            return batch | {"x": jnp.where(batch["x"][..., :1] == BAD, 0.5, batch["x"])}

        def loss_fn(params, example):
            return adapted.loss_fn(params, tame(example)) + fate(params, example["x"])

        def train_fn(params, batch):
            losses, features, new = adapted.train_fn(params, tame(batch))
            return losses + fate(params, batch["x"]), features, new

        return dataclasses.replace(adapted, loss_fn=loss_fn, train_fn=train_fn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[run.__module__], "build_adapted", broken)
        data = DataSpec("npz", file, num_samples=40, heldout_samples=40, probe_size=20, seed=1)
        training = TrainSpec("adam", 0.01, batch_size=8, steps=10, non_finite="skip")
        yield prepare_run(RunConfig(data, ModelSpec("ffn", widths=(4,)), training, MeasureSpec(6, directions=16)))


def read(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "peak_memory")} for record in records]


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(prepared, folder)
    return folder


@pytest.mark.slow
def test_samples_that_turn_bad_on_the_way_are_counted_and_stay_out(whole):
    records = read(whole)
    counts = [(len(record["skipped"]["train"]), len(record["skipped"]["heldout"])) for record in records]
    assert counts[0] == (0, 0)
    assert counts == sorted(counts)
    assert counts[-1][0] > 0
    assert counts[-1][1] > 0
    for before, after in itertools.pairwise(records):
        assert set(before["skipped"]["train"]) <= set(after["skipped"]["train"])
    for record in records:
        assert record["lggw"]["num_samples"] == 20 - sum(row < 20 for row in record["skipped"]["train"])
        assert record["heldout_lggw"]["num_samples"] == 20 - sum(row < 20 for row in record["skipped"]["heldout"])


@pytest.mark.slow
def test_the_records_are_those_of_the_samples_that_are_left(prepared, whole):
    """Brute force: a meter of the others alone, from the first checkpoint on."""
    records = read(whole)
    skipped = records[-1]["skipped"]
    left = {side: [row for row in range(40) if row not in skipped[side]] for side in ("train", "heldout")}
    few = {side: [row for row in rows if row < 20] for side, rows in left.items()}
    sample, heldout = prepared.split.sample, prepared.heldout
    pick = lambda batch, rows: {name: leaf[rows] for name, leaf in batch.items()}  # noqa: E731
    samples = Samples(
        pick(sample, left["train"]),
        pick(sample, few["train"]),
        pick(heldout, left["heldout"]),
        pick(heldout, few["heldout"]),
    )
    model = prepared.model
    meter = Meter(model.loss_fn, samples, max_checkpoints=6, num_draws=16, wrt=model.wrt, feature_fn=model.feature_fn)
    state, found = meter.init(prepared.start.params), {}
    for record in records:
        saved = checkpoints.restore(whole / "checkpoints", record["step"], like=prepared.start)
        state, found = meter.measure(state, saved.params, saved.previous if saved.step else None)
    for name in ("train_loss", "heldout_loss", "lggw", "union_width", "heldout_lggw", "nerc", "population_descent"):
        assert found[name] == records[-1][name], name


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_records(prepared, whole, tmp_path):
    """Cut after each of its records: before, between and after the findings."""
    expected = read(whole)
    changes = [i for i in range(1, len(expected)) if expected[i]["skipped"] != expected[i - 1]["skipped"]]
    for cut in {changes[0] - 1, changes[0], changes[-1]}:

        def interrupt(step, record, cut=cut):
            if record is not None and record["step"] >= expected[cut]["step"]:
                raise KeyboardInterrupt

        folder = tmp_path / f"cut{cut}"
        with pytest.raises(KeyboardInterrupt):
            run(prepared, folder, progress=interrupt)
        assert read(folder) == expected[: cut + 1]
        run(prepared, folder, resume=True)
        assert read(folder) == expected


@pytest.mark.slow
def test_a_damaged_checkpoint_takes_the_findings_after_it_along(prepared, whole, tmp_path):
    expected = read(whole)
    first = next(i for i in range(1, len(expected)) if expected[i]["skipped"] != expected[i - 1]["skipped"])
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    (folder / "report.html").unlink()
    place = folder / "checkpoints" / str(expected[first]["step"])
    max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size).write_bytes(b"")
    run(prepared, folder, resume=True)
    assert read(folder) == expected


@pytest.mark.slow
def test_the_page_the_table_and_the_statements_know_of_it(prepared, whole):
    skipped = read(whole)[-1]["skipped"]
    last = load_run(whole).iloc[-1]
    assert (last["skipped.train"], last["skipped.heldout"]) == (len(skipped["train"]), len(skipped["heldout"]))
    for language, word in (("en", "trained on and"), ("ja", "途中で除外しました")):
        assert word in run_document(whole).done.to(language)
    evidence = Evidence.of_run(whole)
    assert len(evidence.sample["y"]) == 40 - len(skipped["train"])
    assert len(evidence.heldout["y"]) == 40 - len(skipped["heldout"])


@pytest.mark.slow
def test_too_few_that_are_left_end_the_run_in_one_line(tmp_path, prepared):
    left_out = prepared.left_out()
    left_out.heldout |= set(range(25))
    with pytest.raises(FloatingPointError, match="got 20 and 0 of the probes and 15 held out") as caught:
        prepared.meter(left_out)
    assert "\n" not in str(caught.value)
    left_out.heldout.clear()
    left_out.train |= set(range(20))
    with pytest.raises(FloatingPointError, match="got 0 and 20"):
        prepared.meter(left_out)


def bend(params, z):
    """Infinite at samples below minus the parameter."""
    return 0.5 * (params * z["x"] - z["y"]) ** 2 + jnp.where(z["x"] < -params, jnp.inf, 0)


@pytest.fixture(scope="module")
def given():
    """Checkpoints and samples from elsewhere: two of those trained on turn bad on the way, and one held out."""
    rng = np.random.default_rng(3)
    draw = lambda low: {  # noqa: E731
        "x": np.concatenate([low, rng.uniform(0.5, 1, size=20 - len(low))]).astype(np.float32),
        "y": rng.normal(size=20).astype(np.float32),
    }
    return [jnp.float32(value) for value in (3.0, 1.6, 1.4, 0.8)], draw([-1.5, -1.0]), draw([-1.5])


def test_checkpoints_from_elsewhere_are_measured_without_bad_samples(given, tmp_path):
    path, batch, heldout = given
    options = {"heldout": heldout, "probe_size": 20, "num_draws": 16}
    with pytest.raises(FloatingPointError, match=r"sample 0 .* met at step 2"):
        measure(path, bend, batch, out=tmp_path / "stopped", **options)
    measure(path, bend, batch, out=tmp_path / "run", non_finite="skip", **options)
    records = read(tmp_path / "run")
    assert [r["skipped"]["train"] for r in records] == [[], [], [0], [0, 1]]
    assert [r["skipped"]["heldout"] for r in records] == [[], [], [0], [0]]
    # Brute force: the whole path of the others.
    pick = lambda batch, rows: {name: leaf[rows] for name, leaf in batch.items()}  # noqa: E731
    probes = [np.random.default_rng([0, side]).permutation(20) for side in (0, 1)]
    samples = Samples(
        pick(batch, range(2, 20)),
        pick(batch, [row for row in probes[0] if row > 1]),
        pick(heldout, range(1, 20)),
        pick(heldout, [row for row in probes[1] if row > 0]),
    )
    meter = Meter(bend, samples, max_checkpoints=4, num_draws=16)
    state, found = meter.init(path[0]), {}
    for before, params in itertools.pairwise([None, *path]):
        state, found = meter.measure(state, params, before)
    for name in ("train_loss", "heldout_loss", "lggw", "union_width", "heldout_lggw", "nerc", "population_descent"):
        assert found[name] == records[-1][name], name
    page = run_document(tmp_path / "run")
    assert "2 samples trained on and 1 held out" in page.done.to("en")
    assert "訓練サンプル2個とホールドアウト1個" in page.done.to("ja")
    assert "from then on they are not measured" in (tmp_path / "run" / "report.html").read_text()
    # Interrupted between the findings, and with another policy.
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "run", cut)
    (cut / "report.html").unlink()
    lines = (cut / "metrics.jsonl").read_text().splitlines(keepends=True)
    (cut / "metrics.jsonl").write_text("".join(lines[:3]))
    with pytest.raises(ValueError, match="non_finite"):
        measure(path, bend, batch, out=cut, resume=True, **options)
    measure(path, bend, batch, out=cut, non_finite="skip", resume=True, **options)
    assert read(cut) == records


def test_measuring_refuses_what_it_cannot_leave_out(given, tmp_path):
    path, batch, heldout = given
    with pytest.raises(ValueError, match='non_finite "stop" or "skip", got \'ignore\''):
        measure(path, bend, batch, out=tmp_path / "a", non_finite="ignore")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FloatingPointError, match="got 0 and 0 of the probes and 0 held out"):
        measure([*path, jnp.float32(-2.0)], bend, batch, heldout, out=tmp_path / "b", num_draws=16, non_finite="skip")
    assert len(read(tmp_path / "b")) == 4
