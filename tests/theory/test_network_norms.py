"""Norms read off a network against gradients and features that it has."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.models import ModelSpec, adapt, build
from lggwjax.theory.network_norms import network_norms
from lggwjax.theory.operator_norms import ITERATIONS, operator_norms
from lggwjax.widths import closed_form

KEY = jax.random.key(0)


def _dot_params(weight):
    [eqn] = jax.make_jaxpr(lambda h: h @ weight)(jnp.ones(weight.shape[0])).jaxpr.eqns
    return eqn.primitive, eqn.params


@pytest.mark.parametrize("seed", range(5))
def test_operator_norms_are_above_and_close(seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, 60, 30)) * np.array([1.0, 1e-25, 1e20, 0.0])[:, None, None]
    weights = weights.astype(np.float32)
    primitive, params = _dot_params(jnp.asarray(weights[0]))
    found = operator_norms(primitive, params, jnp.asarray(weights), (60,), side=0)
    exact = np.linalg.norm(weights.astype(np.float64), 2, axis=(1, 2))
    assert (found >= exact).all()
    assert (found <= 1.06 * exact).all(), "no more than its stated error above"
    slack = math.exp(math.log(0.8 * math.sqrt(60) / 1e-6) / (2 * ITERATIONS + 1))
    assert (found[:3] / slack < 1.002 * exact[:3]).all(), "without the stated error it would not be safely above"


def test_operator_norms_of_a_convolution_are_those_of_its_matrix():
    kernel = jax.random.normal(KEY, (3, 3, 2, 4))
    conv = lambda image, k: jax.lax.conv_general_dilated(  # noqa: E731
        image, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    shape = (1, 7, 7, 2)
    [eqn] = jax.make_jaxpr(conv)(jnp.ones(shape), kernel).jaxpr.eqns
    found = operator_norms(eqn.primitive, eqn.params, kernel[None], shape, side=0)[0]
    matrix = jax.jacobian(lambda v: conv(v.reshape(shape), kernel).reshape(-1))(jnp.ones(math.prod(shape)))
    exact = np.linalg.norm(np.asarray(matrix, np.float64), 2)
    assert exact <= found <= 1.06 * exact


def _zoo(name, **options):
    shape = (8, 8, 3) if name.startswith("resnet") else (6, 6, 1)
    model = adapt(build(ModelSpec(name, norm="none", **options), shape, 4, 0), "cross_entropy")
    return model, shape


def _path(model, length, scale=0.05):
    def moved(step):
        keys = jax.random.split(jax.random.fold_in(KEY, step), len(jax.tree.leaves(model.params)))
        leaves, tree = jax.tree.flatten(model.params)
        return tree.unflatten(
            [leaf + scale * step * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
        )

    return [moved(step) for step in range(length)]


def _hostile_inputs(model, params, shape, radius, num=24):
    """Inputs of the largest norm that are pushed towards large gradients."""
    wrt = model.wrt
    x = jax.random.normal(KEY, (num, *shape))

    def size(x, y):
        grads = jax.grad(lambda p: model.loss_fn(p, {"x": x, "y": y}))(params)
        return sum(jnp.sum(leaf**2) for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if wrt(path, leaf))

    normalise = lambda x: radius * x / jnp.sqrt(jnp.sum(x**2))  # noqa: E731
    y = jnp.arange(num) % 4
    push = jax.jit(jax.vmap(lambda x, y: normalise(x + radius * jax.grad(size)(x, y))))
    x = jax.vmap(normalise)(x)
    for _ in range(10):
        x = push(x, y)
    return {"x": x, "y": y}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("ffn", {"widths": (12, 8)}, marks=pytest.mark.slow),
        pytest.param("ffn", {"widths": (12,), "activation": "tanh", "bias": False}, marks=pytest.mark.slow),
        pytest.param("cnn", {"widths": (8,), "base_width": 4}, marks=pytest.mark.slow),
        pytest.param("resnet8", {"base_width": 4}, marks=pytest.mark.slow),
    ],
)
def test_no_gradient_is_longer_than_its_bound_at_hostile_inputs(name, options):
    model, shape = _zoo(name, **options)
    path, radius = _path(model, 3), 2.0
    example = {"x": jnp.zeros(shape), "y": jnp.zeros((), jnp.int32)}
    norms = network_norms(model.predict_fn, path, example, input_radius=radius, wrt=model.wrt)
    plan = {leaf.name: leaf for leaf in norms.leaves}
    for params in path:
        batch = _hostile_inputs(model, params, shape, radius)
        grads = lggwjax.per_sample_gradients(model.loss_fn, params, batch, wrt=model.wrt)
        total = 0.0
        for leaf, gradient in zip(norms.leaves, jax.tree.leaves(grads), strict=True):
            lengths = np.linalg.norm(np.asarray(gradient).reshape(len(gradient), -1), axis=1)
            assert lengths.max() <= plan[leaf.name].gradient_norm
            total = total + lengths**2
        assert np.sqrt(total).max() <= norms.gradient_bound.value
        logits = jax.vmap(model.predict_fn, (None, 0))(params, batch)
        assert float(jnp.linalg.norm(logits, axis=1).max()) <= norms.output_radius
    assert norms.gradient_bound.assumption.source == "declared"
    assert 0 < norms.gradient_bound.failure < 1e-3


def test_a_deep_linear_network_attains_its_bound():
    """Aligned rank-one weights: every inequality of the recursion is an equality."""
    unit = jnp.array([0.6, 0.8])
    params = [{"a": 2.0 * jnp.outer(unit, unit), "b": 3.0 * jnp.outer(unit, unit)}]
    norms = network_norms(
        lambda p, z: jax.nn.relu(z["x"] @ p["a"]) @ p["b"],
        params,
        {"x": jnp.zeros(2)},
        input_radius=1.0,
        loss="squared_error",
        target_radius=1.0,
    )
    # Output 6, its derivative 7; gradients 7 * 3 * 1 and 7 * 2.
    exact = math.hypot(21.0, 14.0)
    loss = lambda p, z: 0.5 * jnp.sum((jax.nn.relu(z["x"] @ p["a"]) @ p["b"] - z["y"]) ** 2)  # noqa: E731
    found = jax.grad(loss)(params[0], {"x": unit, "y": -unit})
    assert math.hypot(*(float(jnp.linalg.norm(found[k])) for k in "ab")) == pytest.approx(exact, rel=1e-5)
    assert exact <= norms.gradient_bound.value <= 1.06**2 * exact


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_measured_widths_stay_below_the_spectral_ones(seed):
    model, shape = _zoo("ffn", widths=(10, 6))
    path, radius = _path(model, 3), 1.5
    key = jax.random.key(seed)
    x = jax.random.normal(key, (16, *shape))
    x = radius * x / jnp.sqrt(jnp.sum(x**2, axis=(1, 2, 3), keepdims=True))
    batch = {"x": x, "y": jax.random.randint(key, (16,), 0, 4)}
    inputs = lggwjax.gaussian_width(key, x.reshape(16, -1))
    norms = network_norms(
        model.predict_fn,
        path,
        {"x": x[0], "y": batch["y"][0]},
        input_radius=radius,
        input_width=float(inputs.guaranteed_interval(0.999).high),
        wrt=model.wrt,
    )
    stacked = [lggwjax.per_sample_gradients(model.loss_fn, p, batch, wrt=model.wrt) for p in path]
    for leaf, gradients in zip(norms.leaves, zip(*map(jax.tree.leaves, stacked), strict=True), strict=True):
        points = jnp.concatenate([g.reshape(16, -1) for g in gradients])
        assert float(lggwjax.gaussian_width(key, points).interval(0.999).low) <= leaf.width


def test_it_reads_equinox_pooling_and_views():
    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        pool: eqx.nn.MaxPool2d
        head: eqx.nn.Linear

        def __call__(self, x):
            h = self.pool(jax.nn.relu(self.conv(x)))
            return self.head(h.reshape(-1) / 2)

    keys = jax.random.split(KEY)
    net = Net(eqx.nn.Conv2d(1, 3, 3, key=keys[0]), eqx.nn.MaxPool2d(2, 2), eqx.nn.Linear(12, 3, key=keys[1]))
    params, static = eqx.partition(net, eqx.is_array)
    predict_fn = lambda p, z: eqx.combine(p, static)(z["x"])  # noqa: E731
    norms = network_norms(predict_fn, [params], {"x": jnp.zeros((1, 6, 6))}, input_radius=1.0)
    x = jax.random.normal(KEY, (200, 1, 6, 6))
    x = x / jnp.sqrt(jnp.sum(x**2, axis=(1, 2, 3), keepdims=True))
    outputs = jax.vmap(lambda x: predict_fn(params, {"x": x}))(x)
    assert float(jnp.linalg.norm(outputs, axis=1).max()) <= norms.output_radius


def test_a_derivative_rule_that_is_none_is_not_believed():
    @jax.custom_jvp
    def steep(x):
        return jnp.tanh(x)

    steep.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 100.0 * tangents[0]))
    params, example = [{"w": jnp.eye(3)}], {"x": jnp.ones(3)}
    network_norms(lambda p, z: jax.nn.relu(p["w"] @ z["x"]), params, example, input_radius=1.0)
    with pytest.raises(ValueError, match="custom_jvp_call"):
        network_norms(lambda p, z: steep(p["w"] @ z["x"]), params, example, input_radius=1.0)


def test_what_has_no_bound_is_named():
    model = adapt(build(ModelSpec("resnet8", base_width=4), (8, 8, 1), 4, 0), "cross_entropy")
    example = {"x": jnp.zeros((8, 8, 1)), "y": jnp.zeros((), jnp.int32)}
    with pytest.raises(ValueError, match=r"Normalisation.*declare a gradient bound"):
        network_norms(model.predict_fn, [model.params], example, input_radius=1.0, wrt=model.wrt)
    with pytest.raises(ValueError, match="radii of at least 0"):
        network_norms(model.predict_fn, [model.params], example, input_radius=-1.0)
    with pytest.raises(ValueError, match="depends on the example"):
        network_norms(lambda p, z: p["w"], [{"w": jnp.ones(2)}], {"x": jnp.ones(2)}, input_radius=1.0)
    with pytest.raises(ValueError, match="'exp'"):
        network_norms(lambda p, z: jnp.exp(p["w"] * z["x"]), [{"w": jnp.ones(2)}], {"x": jnp.ones(2)}, input_radius=1.0)


@pytest.mark.parametrize(("later", "input_width"), [(2.0, 6.0), (5.0, 0.5)])
def test_the_recursion_for_widths_is_as_stated(later, input_width):
    """First weights 2 I, and where they move their distance acts as a ball: 2 w + (later - 2) r E|g|."""
    last = jnp.eye(64, 2)
    path = [{"a": 2.0 * jnp.eye(64), "b": last}, {"a": later * jnp.eye(64), "b": last}]
    predict_fn = lambda p, z: jnp.tanh(z["x"] @ p["a"]) @ p["b"]  # noqa: E731
    norms = network_norms(predict_fn, path, {"x": jnp.zeros(64)}, input_radius=1.0, input_width=input_width)
    chi = closed_form.expected_chi
    [second] = [leaf for leaf in norms.leaves if "b" in leaf.name]
    hidden = 2 * input_width + (later - 2) * chi(64)
    expected = math.sqrt(2) * (hidden + later / math.sqrt(2 * math.pi)) + later * math.sqrt(2) * chi(2)
    assert expected < math.sqrt(2) * later * chi(128), "the recursion decides here, not the ball"
    assert expected <= second.width <= 1.06 * expected
