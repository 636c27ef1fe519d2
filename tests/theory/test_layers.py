"""The layer table against gradients written out, and its bounds against the widths that they bound."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.models import ModelSpec, adapt, build
from lggwjax.theory.layers import layer_widths
from lggwjax.theory.network_norms import network_norms

KEY = jax.random.key(0)
ERRORS = 4.5


def _moved(params, step, wrt=lambda *_: True, scale=0.3):
    def move(path, leaf):
        if not wrt(path, leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + scale * step * jax.random.normal(jax.random.fold_in(KEY, leaf.size + step), leaf.shape)

    return jax.tree_util.tree_map_with_path(move, params)


def _model(name="ffn", shape=(5,), **options):
    model = adapt(build(ModelSpec(name, **options), shape, 4, 0), "cross_entropy")
    keys = jax.random.split(jax.random.key(3))
    batch = {"x": jax.random.normal(keys[0], (6, *shape)), "y": jax.random.randint(keys[1], (6,), 0, 4)}
    return model, [_moved(model.params, step, model.wrt) for step in range(3)], batch


def _written_out(model, path, batch):
    """Every leaf's gradients, one a row."""
    parts = [lggwjax.per_sample_gradients(model.loss_fn, p, batch, wrt=model.wrt) for p in path]
    leaves = zip(*(jax.tree.leaves(part) for part in parts), strict=True)
    return [jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in one]) for one in leaves]


MODELS = {
    "ffn": ("ffn", (5,), {"widths": (7, 6)}),
    "layer norm": ("ffn", (5,), {"widths": (7,), "norm": "layer"}),
    "cnn": ("cnn", (6, 6, 1), {"widths": (5,), "base_width": 3}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_measured_widths_are_those_of_the_gradients_and_below_every_bound(name):
    kind, shape, options = MODELS[name]
    model, path, batch = _model(kind, shape, **options)
    table = layer_widths(KEY, model.loss_fn, path, batch, wrt=model.wrt, num_draws=2048)
    written = _written_out(model, path, batch)
    for row, points in zip(table.rows, written, strict=True):
        exact = lggwjax.gaussian_width(jax.random.key(7), points, num_draws=2048)
        error = math.hypot(float(exact.stderr), float(row.measured.stderr))
        assert abs(float(row.measured.value - exact.value)) <= ERRORS * error + 1e-5
        for bound in (row.coupled, row.centred):
            if bound is not None:
                assert float(row.measured.value) - ERRORS * error <= bound.value
                assert bound.status == "certified"
        if row.kind == "dense":
            assert row.from_inputs is not None
            assert row.coupled.value <= (row.from_inputs + row.from_cotangents) * 1.1
    assert {"dense", "gradient"} <= {row.kind for row in table.rows}
    assert float(table.total.value) <= table.sum_of_layers.value
    assert sum(row.share for row in table.rows) == pytest.approx(1.0)
    whole = lggwjax.gaussian_width(jax.random.key(8), jnp.concatenate(written, axis=1), num_draws=2048)
    assert abs(float(table.total.value - whole.value)) <= ERRORS * math.hypot(
        float(whole.stderr), float(table.total.stderr)
    )


def _dense_set(rng, num, rows, columns):
    """A loss whose gradient by W is d h^T for given h and d."""
    h, d = rng.normal(size=(num, rows)), rng.normal(size=(num, columns))
    h, d = h * rng.gamma(1, size=(num, 1)), d * rng.gamma(1, size=(num, 1))
    return {"h": jnp.asarray(h, jnp.float32), "d": jnp.asarray(d, jnp.float32)}


def _bilinear(params, z):
    return (z["h"] @ params["w"]) @ z["d"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12))])
def test_the_coupled_bounds_hold_for_random_factors(seed):
    rng = np.random.default_rng(seed)
    rows, columns, num = rng.integers(1, 8, 3) + np.array([0, 0, 1])
    batch = _dense_set(rng, int(num), int(rows), int(columns))
    params = [{"w": jnp.zeros((int(rows), int(columns)))}]
    [row] = layer_widths(KEY, _bilinear, params, batch, num_draws=4096).rows
    slack = ERRORS * float(row.measured.stderr)
    assert float(row.measured.value) - slack <= row.coupled.value
    assert float(row.measured.value) - slack <= row.centred.value
    h, d = np.asarray(batch["h"], np.float64), np.asarray(batch["d"], np.float64)
    coupled = np.concatenate([np.linalg.norm(d, axis=1)[:, None] * h, np.linalg.norm(h, axis=1)[:, None] * d], 1)
    width = lggwjax.gaussian_width(KEY, jnp.asarray(coupled, jnp.float32), num_draws=4096)
    assert row.coupled.value == pytest.approx(float(width.guaranteed_interval(0.95).high), rel=2e-2)


def test_one_cotangent_for_all_attains_the_centred_bound():
    rng = np.random.default_rng(0)
    batch = _dense_set(rng, 9, 6, 4) | {"d": jnp.broadcast_to(jnp.array([3.0, 0.0, 4.0, 0.0]), (9, 4))}
    [row] = layer_widths(KEY, _bilinear, [{"w": jnp.zeros((6, 4))}], batch, num_draws=65_536).rows
    assert row.centred.parts["cotangents"] == pytest.approx(0.0, abs=1e-2)
    assert row.centred.value == pytest.approx(float(row.measured.value), rel=0.03)
    assert 0.9 * row.centred.value < float(row.measured.value), "a constant 10% smaller would be false"


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 8))])
def test_the_bound_for_positions_holds_for_random_patches(seed):
    rng = np.random.default_rng(seed)
    num, positions, rows, columns = 8, 5, 4, 3
    scale = rng.gamma(1, size=(2, num, 1, 1))
    batch = {
        "p": jnp.asarray(scale[0] * rng.normal(size=(num, positions, rows)), jnp.float32),
        "d": jnp.asarray(scale[1] * rng.normal(size=(num, positions, columns)), jnp.float32),
    }
    loss = lambda params, z: jnp.sum((z["p"] @ params["w"]) * z["d"])  # noqa: E731
    [row] = layer_widths(KEY, loss, [{"w": jnp.zeros((rows, columns))}], batch, num_draws=4096).rows
    assert row.kind == "positions"
    assert row.coupled.statement == "8.8"
    assert float(row.measured.value) - ERRORS * float(row.measured.stderr) <= row.coupled.value
    largest = max(np.linalg.norm(np.asarray(p, np.float64), 2) for p in batch["p"])
    widths = [lggwjax.gaussian_width(KEY, batch[k].reshape(num, -1), num_draws=4096) for k in "pd"]
    assert row.from_cotangents == pytest.approx(largest * float(widths[1].guaranteed_interval(0.975).high), rel=1e-2)


def test_positions_with_one_cotangent_attain_their_bound():
    # D the same unitary map at every point: |P^T D - P'^T D|_F = |P - P'|_F, and w(D) = 0.
    rng = np.random.default_rng(1)
    p = jnp.asarray(rng.normal(size=(10, 4, 6)), jnp.float32)
    batch = {
        "p": p,
        "d": jnp.broadcast_to(jnp.asarray(np.linalg.qr(rng.normal(size=(4, 4)))[0], jnp.float32), (10, 4, 4)),
    }
    loss = lambda params, z: jnp.sum((z["p"] @ params["w"]) * z["d"])  # noqa: E731
    [row] = layer_widths(KEY, loss, [{"w": jnp.zeros((6, 4))}], batch, num_draws=65_536).rows
    assert row.coupled.value == pytest.approx(float(row.measured.value), rel=0.05)
    assert 0.9 * row.coupled.value < float(row.measured.value)


@pytest.mark.slow
def test_the_featurizer_alone_does_not_bound_the_network():
    """The false claim: a last layer without inputs that differ has a small bound, the layers below do not."""

    def loss(params, z):
        features = jnp.tanh(0 * (z["x"] @ params["below"]) + 1.0) + 0 * z["x"][0]
        return jnp.sum(features @ params["head"]) + 5 * (z["x"] @ params["below"]).sum()

    params = {"below": jnp.ones((6, 3)), "head": jnp.ones((3, 2))}
    batch = {"x": jax.random.normal(KEY, (12, 6))}
    table = layer_widths(KEY, loss, [params], batch)
    widths = {row.name: float(row.measured.value) for row in table.rows}
    assert widths["['head']"] < 1e-3
    assert widths["['below']"] > 5
    assert float(table.total.value) > 5


@pytest.mark.slow
def test_spectral_bounds_close_the_chain():
    model, path, batch = _model(widths=(7, 6))
    radius = float(jnp.linalg.norm(batch["x"], axis=1).max())
    norms = network_norms(model.predict_fn, path, {"x": batch["x"][0]}, input_radius=radius, wrt=model.wrt)
    spectral = {leaf.name: leaf.width for leaf in norms.leaves}
    table = layer_widths(KEY, model.loss_fn, path, batch, wrt=model.wrt, spectral=spectral)
    for row in table.rows:
        assert float(row.measured.value) <= row.spectral
        if row.kind == "dense":
            assert row.coupled.value <= row.spectral


@pytest.mark.slow
def test_unusual_layers_have_rows_too():
    def loss(params, z):
        words = params["words"][z["ids"]]  # a lookup, used again as output weights
        hidden = jnp.tanh(words @ params["mix"])
        image = jax.lax.conv_general_dilated(
            z["image"][None],
            params["depthwise"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        return jnp.sum((hidden @ params["words"].T) ** 2) + jnp.sum(image**2) + 0 * jnp.sum(params["unused"])

    keys = jax.random.split(KEY, 4)
    params = {
        "words": jax.random.normal(keys[0], (9, 4)),
        "mix": jax.random.normal(keys[1], (4, 4)),
        "depthwise": jax.random.normal(keys[2], (3, 3, 1, 2)),
        "unused": jnp.ones(3),
    }
    batch = {"ids": jax.random.randint(keys[3], (5, 3), 0, 9), "image": jax.random.normal(keys[3], (5, 4, 4, 2))}
    table = layer_widths(KEY, loss, [params], batch)
    kinds = {row.name: row.kind for row in table.rows}
    assert kinds["['mix']"] == "positions"
    assert kinds["['words']"] == "gradient"
    assert table.sum_of_layers.value >= float(table.total.value)
    json.dumps(table.as_records(), allow_nan=False)


@pytest.mark.slow
def test_the_printed_table_answers_which_and_what():
    model, path, batch = _model(widths=(7, 6))
    text = str(layer_widths(KEY, model.loss_fn, path, batch, wrt=model.wrt))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "kind", "parameters", "measured", "coupled", "centred", "spectral", "share"]
    assert len({len(line) for line in lines[:2]}) == 1
    assert "Widest layer: " in lines[-1]
    assert "make that term smaller" in lines[-1]
    assert "params" not in lines[1]


def test_what_does_not_fit_is_refused():
    model, path, batch = _model(widths=(7,))
    with pytest.raises(ValueError, match="fewer checkpoints"):
        layer_widths(KEY, model.loss_fn, path, batch, wrt=model.wrt, max_memory=100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("cnn", {"widths": (5,), "base_width": 3}), ("resnet8", {"base_width": 4, "norm": "none"})]
)
def test_spectral_bounds_of_convolutions_close_the_chain(name, options):
    model, path, batch = _model(name, (6, 6, 1), **options)
    path = path[:2]
    radius = float(jnp.sqrt(jnp.sum(batch["x"] ** 2, axis=(1, 2, 3))).max())
    norms = network_norms(model.predict_fn, path, {"x": batch["x"][0]}, input_radius=radius, wrt=model.wrt)
    table = layer_widths(
        KEY, model.loss_fn, path, batch, wrt=model.wrt, spectral={leaf.name: leaf.width for leaf in norms.leaves}
    )
    for row in table.rows:
        assert float(row.measured.value) <= row.spectral
        if row.coupled is not None:
            assert row.coupled.value <= row.spectral
    assert {"dense", "positions"} <= {row.kind for row in table.rows}


@pytest.mark.parametrize("size", [2, 3])
def test_patches_are_at_most_k_times_as_wide_as_their_images(size):
    images = jax.random.normal(KEY, (12, 7, 7, 2))
    patches = jax.lax.conv_general_dilated_patches(
        images, (size, size), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    width, of_patches = (lggwjax.gaussian_width(KEY, x.reshape(12, -1), num_draws=4096) for x in (images, patches))
    error = ERRORS * (size * float(width.stderr) + float(of_patches.stderr))
    assert float(of_patches.value) <= size * float(width.value) + error
    assert float(of_patches.value) > 0.7 * size * float(width.value), "the edges alone make it less"
