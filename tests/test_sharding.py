"""On 1, 2 and 8 devices the same numbers come out, and each device has its share."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lggwjax
from lggwjax import sharding
from lggwjax.gradients.engine import pose
from lggwjax.models import build_adapted
from lggwjax.models.spec import ModelSpec
from lggwjax.sharding import device_mesh, parameter_shares, shard_parameters, shard_rows, shard_samples
from lggwjax.training.loop import TrainSpec, initial_state, train
from lggwjax.training.meter import Meter, Samples

KEY = jax.random.key(3)
eight = pytest.mark.skipif(jax.device_count() < 8, reason="set JAX_NUM_CPU_DEVICES=8")


def _batch(num: int, shape: tuple[int, ...] = (12,)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(num, *shape)).astype(np.float32), "y": rng.integers(0, 10, num).astype(np.int32)}


def _model(shape: tuple[int, ...] = (12,), **fields):
    spec = ModelSpec("ffn", widths=(32,)) if len(shape) == 1 else ModelSpec("cnn", widths=(8,), **fields)
    return build_adapted(spec, shape, 10, 0, "cross_entropy")


def _path(model):
    moved = lambda x, s: x * s if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
    return [jax.tree.map(lambda x, s=s: moved(x, s), model.params) for s in (1.0, 1.05, 0.9)]


def _close(found, wanted):
    scale = np.max(np.abs(wanted))
    assert np.max(np.abs(np.asarray(found) - wanted)) <= 2e-5 * scale


@pytest.fixture(params=["2 devices", "8", "8, filled up", "2 x 2 x 2", "all by default", "axes part of types"])
def placed(request):
    """The samples on several devices, as they may be given, and the same on one."""
    num = 21 if request.param == "8, filled up" else 24
    batch = _batch(num)
    one = jax.device_put(batch, jax.devices()[0])
    if request.param == "axes part of types":
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
        return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data"))), one
    meshes = {"2 devices": device_mesh(2), "8": device_mesh(8), "2 x 2 x 2": device_mesh(8, directions=2, parameters=2)}
    mesh = meshes.get(request.param)
    return (batch if mesh is None else shard_samples(batch, mesh)), one


MEASURES = {
    "gram": lambda m, b: lggwjax.gradient_gram(m.loss_fn, m.params, b, wrt=m.wrt),
    "gram in chunks": lambda m, b: lggwjax.gradient_gram(m.loss_fn, m.params, b, wrt=m.wrt, chunk_size=5),
    "gram made twice": lambda m, b: lggwjax.gradient_gram(m.loss_fn, m.params, b, wrt=m.wrt, max_memory=2**14),
    "stacked": lambda m, b: lggwjax.lggw(KEY, m.loss_fn, _path(m), b, wrt=m.wrt, num_draws=64).value,
    "union": lambda m, b: lggwjax.lggw(KEY, m.loss_fn, _path(m), b, "union", wrt=m.wrt, num_draws=64).value,
    "single": lambda m, b: lggwjax.single_widths(KEY, m.loss_fn, _path(m), b, wrt=m.wrt, num_draws=64).widths.value,
    "nerc": lambda m, b: lggwjax.nerc(KEY, m.loss_fn, _path(m), b, wrt=m.wrt, num_draws=64).value,
    "projections": lambda m, b: lggwjax.random_projections(KEY, m.loss_fn, m.params, b, wrt=m.wrt, num_draws=9),
    "gradients": lambda m, b: jax.tree.leaves(lggwjax.per_sample_gradients(m.loss_fn, m.params, b, wrt=m.wrt))[0],
}


@eight
@pytest.mark.parametrize("measure", MEASURES)
def test_any_number_of_devices_gives_the_same(placed, measure):
    model = _model()
    several, one = placed
    _close(MEASURES[measure](model, several), np.asarray(MEASURES[measure](model, one)))


@eight
@pytest.mark.parametrize("measure", ["gram", "stacked", "projections"])
def test_parameters_may_be_divided_too(measure, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL_LEAF", 1)
    model, batch = _model(), _batch(24)
    wanted = np.asarray(MEASURES[measure](model, jax.device_put(batch, jax.devices()[0])))
    mesh = device_mesh(8, parameters=4)
    params = shard_parameters(model.params, mesh)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
    _close(MEASURES[measure](dataclasses.replace(model, params=params), batch), wanted)


def _few(params, example):
    return 0.5 * (jnp.tanh(params @ example["x"]).sum() - example["y"]) ** 2


@eight
@pytest.mark.parametrize("kind", ["union", "single"])
def test_of_more_points_than_parameters_the_draws_are_the_same(kind):
    """The Gram matrix has no full rank: coordinates made of its rounding would differ from device to device."""
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(24, 3)).astype(np.float32), "y": rng.normal(size=24).astype(np.float32)}
    path = [jnp.asarray(rng.normal(size=(2, 3)), jnp.float32) for _ in range(12)]
    width = lambda b: lggwjax.lggw(KEY, _few, path, b, kind, num_draws=64).value  # noqa: E731
    _close(width(batch), np.asarray(width(jax.device_put(batch, jax.devices()[0]))))


@eight
def test_a_meter_of_few_parameters_measures_the_same():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(24, 3)).astype(np.float32), "y": rng.normal(size=24).astype(np.float32)}
    path = [jnp.asarray(rng.normal(size=(2, 3)), jnp.float32) for _ in range(9)]
    records = []
    for devices in (1, 8):
        meter = Meter(_few, Samples(data, data), max_checkpoints=9, num_draws=64)
        placed = [shard_parameters(params, device_mesh(devices)) for params in path]
        state, before = meter.init(placed[0]), None
        for params in placed:
            state, record = meter.measure(state, params, before)
            before = params
        records.append(record)
    for name in ("lggw", "single_width", "union_width", "cloud_width", "nerc"):
        _close(records[1][name]["value"], np.asarray(records[0][name]["value"]))


@eight
@pytest.mark.parametrize("shape", [(12,), (8, 8, 1)])
def test_each_device_holds_its_share_of_the_factors(shape):
    model, batch = _model(shape), _batch(16, shape)
    problem = pose(model.loss_fn, model.params, batch, model.wrt)
    (_, count, chunk), *rest = problem.chunks(batch, 16)
    assert (count, rest) == (16, [])
    for array in problem.factors(model.params, chunk):
        assert array.sharding.shard_shape(array.shape)[0] == 2
    alone = pose(model.loss_fn, model.params, jax.device_put(batch, jax.devices()[3]), model.wrt)
    assert alone.mesh is None  # what is committed to a device stays there


@eight
def test_directions_are_divided_where_samples_are_too_few():
    assert dict(sharding.for_directions(device_mesh(8), 3).shape) == {"samples": 2, "directions": 4, "parameters": 1}
    assert sharding.for_directions(device_mesh(8), 8) == device_mesh(8)
    model, batch = _model(), _batch(3)
    one = jax.device_put(batch, jax.devices()[0])
    streamed = {"wrt": model.wrt, "num_draws": 64, "max_memory": 1}
    for kind in ("projections", "union"):
        if kind == "union":
            found, wanted = (
                lggwjax.lggw(KEY, model.loss_fn, _path(model), b, "union", **streamed).value for b in (batch, one)
            )
        else:
            found, wanted = (MEASURES[kind](model, b) for b in (batch, one))
        _close(found, np.asarray(wanted))


@eight
def test_the_plan_is_that_of_each_device():
    model, batch = _model(), _batch(64)
    kinds = ("stacked", "gram", "union")
    eight = [lggwjax.plan(model.loss_fn, _path(model), batch, kind, wrt=model.wrt) for kind in kinds]
    one = jax.device_put(batch, jax.devices()[0])
    alone = [lggwjax.plan(model.loss_fn, _path(model), one, kind, wrt=model.wrt) for kind in kinds]
    for many, single in zip(eight, alone, strict=True):
        assert (many.num_devices, single.num_devices) == (8, 1)
        assert many.flops == single.flops
        assert many.memory < single.memory
    assert "on each of 8 devices" in str(eight[0])


@eight
def test_the_meter_measures_the_same():
    model, data, unseen = _model(), _batch(24), _batch(40)
    records = []
    for devices in (1, 8):
        meter = Meter(
            model.loss_fn,
            Samples(data, data, unseen, _batch(24)),
            max_checkpoints=3,
            num_draws=64,
            wrt=model.wrt,
            predict_fn=model.predict_fn,
            feature_fn=model.feature_fn,
        )
        path = [shard_parameters(p, device_mesh(devices)) for p in _path(model)]
        state, before = meter.init(path[0]), None
        for params in path:
            state, record = meter.measure(state, params, before)
            before = params
        records.append(record)
    for name in ("train_loss", "grad_norm", "heldout_loss"):
        _close(records[1][name], np.asarray(records[0][name]))
    for name in ("lggw", "single_width", "union_width", "cloud_width", "nerc", "feature_width", "heldout_lggw"):
        _close(records[1][name]["value"], np.asarray(records[0][name]["value"]))
    _close(records[1]["population_descent"]["value"], np.asarray(records[0]["population_descent"]["value"]))


@eight
@pytest.mark.parametrize("batch_size", [None, 16, 10])  # 10 does not divide: every device takes the whole batch
def test_training_goes_the_same_way(batch_size):
    model, data = _model(), _batch(48)
    spec = TrainSpec("adam", 0.01, batch_size=batch_size, steps=5)
    ends = []
    for devices in (1, 8):
        start = initial_state(model.params, model.wrt, spec)
        start = start._replace(
            **{
                part: shard_parameters(getattr(start, part), device_mesh(devices))
                for part in ("params", "previous", "opt_state")
            }
        )
        ends.append(list(train(model.train_fn, model.wrt, model.params, data, spec, start=start))[-1].params)
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        _close(other, np.asarray(one))


@eight
def test_rows_that_are_read_lie_where_they_belong():
    data = _batch(64)
    found = shard_rows(
        lambda rows: {name: array[rows] for name, array in data.items()}, np.arange(8, 24), device_mesh(8)
    )
    np.testing.assert_array_equal(found["x"], data["x"][8:24])
    assert found["x"].sharding.shard_shape(found["x"].shape) == (2, 12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"num_devices": 0}, "num_devices from 1"), ({"directions": 3}, "divide"), ({"parameters": 0}, "divide")],
)
def test_meshes_that_cannot_be_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        device_mesh(**asked)


def test_parameters_are_divided_only_where_they_would_fill_a_device():
    assert parameter_shares(8, 10, 80) == 1
    assert parameter_shares(8, 11, 80) == 2
    assert parameter_shares(8, 10**6, 80) == 8
