"""Records of a meter: strict JSON, the same numbers as the functions they come from, and NaN found out."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import lggw, nerc
from lggwjax.training import meter as meters
from lggwjax.training.meter import Meter, Samples

DIM, CAPACITY = 4, 5
SCALARS = {"train_loss", "heldout_loss", "train_accuracy", "heldout_accuracy", "grad_norm", "gradient_rms"}
UNSEEN = {"heldout_grad_norm", "deviation", "population_descent"}
WIDTHS = {
    *("lggw", "single_width", "union_width", "cloud_width", "feature_width"),
    *("heldout_lggw", "heldout_cloud_width"),
}
NERCS = {"nerc", "heldout_nerc"}
BOUND = {"value", "stderr", "ci95", "num_draws", "num_samples", "num_checkpoints"}


def predict(params, example):
    return params["w"] @ example["x"]


def features(params, example):
    return jax.nn.relu(params["w"] @ example["x"])


def loss(params, example):
    scores = predict(params, example)
    return (jax.nn.logsumexp(scores) - scores[example["y"]]) * params["one"]


def _batch(num, seed):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(num, DIM)).astype(np.float32), "y": rng.integers(0, 3, num)}


def _take(batch, num):
    return jax.tree.map(lambda x: x[:num], batch)


TRAIN, HELDOUT = _batch(40, 0), _batch(50, 1)
SAMPLES = Samples(TRAIN, _take(TRAIN, 8), HELDOUT, _take(HELDOUT, 8))
START = {"w": jnp.zeros((3, DIM)), "one": jnp.int32(1)}


def _path():
    """Gradient descent on the training sample: the path that reuse makes."""
    path = [START]

    def mean(w):
        return jax.vmap(loss, in_axes=(None, 0))(path[-1] | {"w": w}, TRAIN).mean()

    for _ in range(CAPACITY - 1):
        path.append(path[-1] | {"w": path[-1]["w"] - 0.5 * jax.grad(mean)(path[-1]["w"])})
    return path


def _meter(samples=SAMPLES, **options):
    defaults = {"max_checkpoints": CAPACITY, "num_draws": 512, "predict_fn": predict, "feature_fn": features}
    return Meter(loss, samples, **(defaults | options))


def _records(meter, path):
    state, previous, records = meter.init(path[0]), None, []
    for params in path:
        state, record = meter.measure(state, params, previous)
        records.append(record)
        previous = params
    return records


@pytest.fixture(scope="module")
def path():
    return _path()


@pytest.fixture(scope="module")
def records(path):
    return _records(_meter(), path)


def test_records_are_strict_json_with_the_fields_of_a_run(records):
    for record in records:
        again = json.loads(json.dumps(record, allow_nan=False))
        assert again == record
        assert set(record) >= SCALARS | UNSEEN | WIDTHS | NERCS | {"features", "status"}
        for name in WIDTHS:
            assert set(record[name]) == BOUND | {"draws_bound95"}
        for name in NERCS:
            assert set(record[name]) == BOUND
        for name in UNSEEN - {"population_descent"}:
            assert set(record[name]) == {"value", "stderr", "ci95"}
        assert set(record["features"]) == {"active_share", "l1", "l2"}
        for name in WIDTHS | NERCS | UNSEEN:
            if record[name] is not None:
                low, high = record[name]["ci95"]
                assert low <= record[name]["value"] <= high
    assert records[0]["population_descent"] is None
    assert records[1]["population_descent"] is not None


def test_counts_of_samples_and_checkpoints(records):
    for length, record in enumerate(records, 1):
        assert record["lggw"]["num_checkpoints"] == record["nerc"]["num_checkpoints"] == length
        assert record["heldout_lggw"]["num_checkpoints"] == length
        assert record["cloud_width"]["num_checkpoints"] == record["feature_width"]["num_checkpoints"] == 1
        assert record["lggw"]["num_samples"] == 8
        assert record["lggw"]["num_draws"] == 512


def test_losses_gradients_and_accuracies(path, records):
    for params, record in zip(path, records, strict=True):
        for name, data in (("train", TRAIN), ("heldout", HELDOUT)):
            losses = jax.vmap(loss, in_axes=(None, 0))(params, data)
            scores = jax.vmap(predict, in_axes=(None, 0))(params, data)
            assert record[f"{name}_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
            assert record[f"{name}_accuracy"] == pytest.approx(float((scores.argmax(1) == data["y"]).mean()))
        gradient = jax.grad(lambda w, p=params: jax.vmap(loss, in_axes=(None, 0))(p | {"w": w}, TRAIN).mean())(
            params["w"]
        )
        assert record["grad_norm"] == pytest.approx(float(jnp.linalg.norm(gradient)), rel=1e-4)


def test_featurizer(path, records):
    outputs = np.stack([features(path[-1], {"x": x}) for x in SAMPLES.train_probe["x"]])
    found = records[-1]["features"]
    assert found["active_share"] == pytest.approx((outputs != 0).mean())
    assert found["l1"] == pytest.approx(np.abs(outputs).sum(1).mean(), rel=1e-4)
    assert found["l2"] == pytest.approx(np.linalg.norm(outputs, axis=1).mean(), rel=1e-4)
    assert records[0]["feature_width"]["value"] == 0


def _close(field, whole):
    slack = 4 * np.hypot(field["stderr"], float(whole.stderr)) + 1e-4 * field["value"]
    return abs(field["value"] - float(whole.value)) <= slack


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "kind", "batch"),
    [
        ("lggw", "stacked", SAMPLES.train_probe),
        ("single_width", "single", SAMPLES.train_probe),
        ("union_width", "union", SAMPLES.train_probe),
        ("heldout_lggw", "stacked", SAMPLES.heldout_probe),
    ],
)
def test_widths_agree_with_the_path_measured_at_once(path, records, field, kind, batch):
    whole = lggw(jax.random.key(5), loss, path, batch, kind=kind, num_draws=2048)
    assert _close(records[-1][field], whole)
    wrong = records[-1][field] | {"value": 1.3 * records[-1][field]["value"]}
    assert not _close(wrong, whole)


def test_nerc_agrees_with_the_path_measured_at_once(path, records):
    for field, batch in (("nerc", SAMPLES.train_probe), ("heldout_nerc", SAMPLES.heldout_probe)):
        assert _close(records[-1][field], nerc(jax.random.key(5), loss, path, batch, num_draws=2048))


def test_widths_never_fall_along_the_path(records):
    for name in ("lggw", "single_width", "union_width", "nerc", "heldout_lggw"):
        values = np.array([record[name]["value"] for record in records])
        assert (np.diff(values) >= -1e-5 * values[-1]).all(), name


def test_status_says_what_the_samples_took_part_in(path, records):
    assert records[0]["status"]["lggw"] == records[0]["status"]["nerc"] == "descriptive"
    assert records[0]["status"]["heldout_lggw"] == "independent"
    fresh = _meter(Samples(TRAIN, _take(TRAIN, 8), HELDOUT, _take(HELDOUT, 8), trained_on=False))
    assert _records(fresh, path[:1])[0]["status"]["lggw"] == "independent"


def test_the_same_seed_gives_the_same_records_and_another_does_not(path, records):
    again, other = _records(_meter(), path[:2]), _records(_meter(seed=1), path[:2])
    assert again == records[:2]
    assert other[1]["lggw"]["value"] != again[1]["lggw"]["value"]
    assert other[1]["train_loss"] == again[1]["train_loss"]


def test_a_state_may_be_extended_without_a_record(path, records):
    meter = _meter()
    state = meter.extend(meter.init(path[0]), path[0])
    _, record = meter.measure(state, path[1], path[0])
    assert record == records[1]


def test_without_held_out_samples_nothing_is_said_of_unseen_data(path):
    samples = Samples(TRAIN, _take(TRAIN, 8))
    record = _records(_meter(samples, predict_fn=None, feature_fn=None), path[:2])[1]
    empty = UNSEEN | {"heldout_loss", "heldout_accuracy", "train_accuracy", "heldout_lggw", "heldout_cloud_width"}
    assert {name for name in SCALARS | UNSEEN | WIDTHS | NERCS | {"features"} if record[name] is None} == empty | {
        *("heldout_nerc", "features", "feature_width")
    }
    assert "heldout_lggw" not in record["status"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_plan_says_route_and_size():
    plan = _meter().plan(START)
    assert plan["num_parameters"] == 3 * DIM
    assert plan["route"] == "exact"
    assert plan["kept_bytes"] == CAPACITY * START["w"].nbytes * 16
    assert _meter(route="sketched").plan(START)["route"] == "sketched"


def test_an_exact_route_keeps_what_the_plan_says(path):
    meter = _meter()
    state = meter.init(path[0])
    for params in path:
        state = meter.extend(state, params)
    kept = jax.tree.leaves([probe.exact.steps for probe in (state.train, state.heldout)])
    assert sum(leaf.nbytes for leaf in kept) == meter.plan(START)["kept_bytes"]


def test_a_path_that_would_be_too_large_is_sketched(monkeypatch):
    kept = _meter().plan(START)["kept_bytes"]
    monkeypatch.setattr(meters, "KEPT_BYTES", kept)
    assert _meter().plan(START)["route"] == "exact"
    monkeypatch.setattr(meters, "KEPT_BYTES", kept - 1)
    plan = _meter().plan(START)
    assert plan["route"] == "sketched"
    assert _meter(route="exact").plan(START)["route"] == "exact"


def _nbytes(state):
    """Bytes of all arrays that a meter's state holds, wherever they are."""
    if isinstance(state, jax.Array | np.ndarray):
        return state.nbytes
    if dataclasses.is_dataclass(state):
        return sum(_nbytes(getattr(state, field.name)) for field in dataclasses.fields(state))
    if isinstance(state, dict):
        return sum(map(_nbytes, state.values()))
    return sum(map(_nbytes, state)) if isinstance(state, list | tuple) else 0


@pytest.mark.slow
def test_the_sketched_route_keeps_its_memory_along_thirty_checkpoints(path):
    sizes = {}
    for route, longest in (("sketched", 30), ("exact", 8)):
        meter = _meter(route=route, max_checkpoints=30, num_draws=64, feature_fn=None, predict_fn=None)
        state, sizes[route] = meter.init(START), []
        for step in range(longest):
            state = meter.extend(state, jax.tree.map(lambda x, s=step: x + jnp.asarray(s, x.dtype), path[1]))
            sizes[route].append(_nbytes(state))
    assert len(set(sizes["sketched"])) == 1
    assert len(set(sizes["exact"])) == 8, "the count does see an exact path grow"
    assert state.train.length == 8


def test_sketched_records(path, records):
    found = _records(_meter(route="sketched"), path)
    for record, exact in zip(found, records, strict=True):
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert record["single_width"] is record["union_width"] is None
        assert set(record) == set(exact)
        for name in ("lggw", "heldout_lggw"):
            field = record[name]
            assert set(field) == BOUND | {"draws_bound95", "sketch_stderr"}
            assert field["draws_bound95"] is None
            assert field["ci95"][0] <= field["value"] <= field["ci95"][1]
            assert field["ci95"][0] - 1e-6 <= exact[name]["value"] <= field["ci95"][1] + 1e-6
        for name in ("train_loss", "grad_norm"):
            assert record[name] == exact[name]
        for name in ("nerc", "cloud_width", "feature_width"):
            assert record[name]["value"] == pytest.approx(exact[name]["value"], rel=1e-3, abs=1e-5)


@pytest.mark.makes_nan
def test_nan_stops(path):
    bad = START | {"w": jnp.full((3, DIM), jnp.nan)}
    meter = _meter()
    with pytest.raises(FloatingPointError, match="The loss is NaN or infinite"):
        meter.measure(meter.init(START), bad)


def _rooted(params, example):  # the root has an infinite slope at 0, and 0 times infinity is NaN
    return jnp.sqrt(jnp.sum(params["w"]) * example["x"].sum())


@pytest.mark.slow
@pytest.mark.parametrize("where", ["train", "heldout"])
def test_a_gradient_that_is_nan_while_the_loss_is_not_stops(where):
    good = {"x": np.ones((20, DIM), np.float32)}
    bad = {"x": np.zeros((20, DIM), np.float32)}
    params = {"w": jnp.ones((3, DIM))}
    samples = {"train": Samples(bad, bad, good, good), "heldout": Samples(good, good, bad, bad)}[where]
    meter = Meter(_rooted, samples, max_checkpoints=CAPACITY, num_draws=512)
    with pytest.raises(FloatingPointError, match=r"gradient.* is NaN or infinite"):
        meter.measure(meter.init(params), params)


@pytest.mark.parametrize("options", [{"max_checkpoints": 0}, {"num_draws": 1}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="Expected max_checkpoints >= 1 and num_draws >= 2"):
        _meter(**options)


def test_a_full_path_is_refused(path):
    meter = _meter()
    state = meter.init(path[0])
    for params in path:
        state = meter.extend(state, params)
    with pytest.raises(ValueError, match="at most 5 checkpoints"):
        meter.measure(state, path[1])
