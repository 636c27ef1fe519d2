"""One battery over every model of the zoo, then what is special to one of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lggwjax.models import Adapted, Featurized, ModelSpec, adapt, build, build_adapted, last_layer_input
from lggwjax.models.layers import keep_largest

NUM_OUTPUTS, NUM_SAMPLES = 3, 4

# name -> (description, shape of an input): every model, norm, activation and option at least once, as small as it goes.
ZOO: dict[str, tuple[ModelSpec, tuple[int, ...]]] = {
    "linear": (ModelSpec("ffn", widths=()), (5,)),
    "linear-no-bias": (ModelSpec("ffn", widths=(), bias=False), (2, 3)),
    "ffn": (ModelSpec("ffn", widths=(7, 6)), (5,)),
    "ffn-tanh-no-bias": (ModelSpec("ffn", widths=(6,), activation="tanh", bias=False), (5,)),
    "ffn-gelu-layer": (ModelSpec("ffn", widths=(6, 8), activation="gelu", norm="layer"), (5,)),
    "ffn-group": (ModelSpec("ffn", widths=(8,), norm="group"), (5,)),
    "ffn-batch-no-bias": (ModelSpec("ffn", widths=(8,), norm="batch", bias=False), (5,)),
    "ffn-top-k": (ModelSpec("ffn", widths=(8,), activation="tanh", top_k=3), (5,)),
    "cnn": (ModelSpec("cnn", widths=(6,), base_width=3), (8, 8, 1)),
    "cnn-bare-tanh": (ModelSpec("cnn", widths=(), base_width=2, activation="tanh"), (5, 7, 2)),
    "cnn-batch": (ModelSpec("cnn", widths=(6,), base_width=3, norm="batch"), (8, 8, 1)),
    "cnn-group-top-k": (ModelSpec("cnn", widths=(8,), base_width=4, norm="group", top_k=2), (8, 8, 1)),
    "resnet8": (ModelSpec("resnet8", base_width=3), (8, 8, 1)),
    "resnet8-plain": (ModelSpec("resnet8", base_width=2, norm="none", residual=False, activation="gelu"), (6, 6, 3)),
    "resnet8-batch": (ModelSpec("resnet8", base_width=2, norm="batch"), (8, 8, 1)),
    "resnet8-layer-tanh": (ModelSpec("resnet8", base_width=3, norm="layer", activation="tanh"), (8, 8, 1)),
    "resnet18": (ModelSpec("resnet18", base_width=3, norm="group"), (4, 4, 1)),
}


SLOW = ("cnn-bare-tanh", "resnet8-plain", "resnet8-layer-tanh", "resnet18")
battery = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ZOO]
)
# Here compiling is all the time there is: the compiler need not try hard.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def make(name: str) -> tuple[Featurized, Adapted, dict]:
    spec, input_shape = ZOO[name]
    model = build(spec, input_shape, NUM_OUTPUTS, seed=0)
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.uniform(-1, 1, (NUM_SAMPLES, *input_shape)).astype(np.float32),
        "y": rng.integers(0, NUM_OUTPUTS, NUM_SAMPLES).astype(np.int32),
    }
    return model, adapt(model, "cross_entropy"), batch


@battery
def test_battery(name: str) -> None:
    model, adapted, batch = make(name)

    @quick_jit
    def each(params: dict, batch: dict) -> tuple:
        """All that is measured of each example alone."""
        functions = (adapted.predict_fn, adapted.feature_fn, last_layer_input(adapted.predict_fn))
        functions = (jax.value_and_grad(adapted.loss_fn), *functions)
        return tuple(jax.vmap(function, (None, 0))(params, batch) for function in functions)

    (losses, gradients), logits, features, found = each(adapted.params, batch)

    # The batched model in evaluation mode is the reference.
    measured = nnx.view(model)
    measured.eval()
    expected_features, expected = quick_jit(lambda x: (measured.features(x), measured(x)))(batch["x"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, cross_entropy(expected, batch["y"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, expected_features, rtol=1e-4, atol=1e-5)
    # The featurizer that is found in the jaxpr is the model's own, and the head on it gives the logits.
    np.testing.assert_array_equal(found, features)
    np.testing.assert_allclose(model.head(features), expected, rtol=1e-4, atol=1e-5)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients["params"]):
        assert gradient.shape[0] == NUM_SAMPLES
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


@battery
def test_train_fn_is_the_batched_model_in_train_mode(name: str) -> None:
    model, adapted, batch = make(name)
    losses, features, state = quick_jit(adapted.train_fn)(adapted.params, batch)
    graph, arrays = nnx.split(model)

    @quick_jit
    def reference(arrays: nnx.State, x: jax.Array) -> tuple:
        trained = nnx.merge(graph, arrays)
        features = trained.features(x)
        return trained.head(features), features, nnx.to_pure_dict(nnx.state(trained, nnx.BatchStat))

    logits, expected_features, statistics = reference(arrays, batch["x"])
    np.testing.assert_allclose(features, expected_features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(losses, cross_entropy(logits, batch["y"]), rtol=1e-3, atol=1e-4)
    assert jax.tree.structure(state) == jax.tree.structure(adapted.params["state"])
    assert bool(jax.tree.leaves(state)) == (ZOO[name][0].norm == "batch")
    for updated, expected in zip(jax.tree.leaves(state), jax.tree.leaves(statistics), strict=True):
        np.testing.assert_allclose(updated, expected, rtol=1e-3, atol=1e-5)


def cross_entropy(logits: jax.Array, labels: np.ndarray) -> jax.Array:
    return jax.scipy.special.logsumexp(logits, axis=1) - logits[np.arange(NUM_SAMPLES), labels]


def count(spec: ModelSpec, input_shape: tuple[int, ...], num_outputs: int) -> int:
    model = nnx.eval_shape(lambda: build(spec, input_shape, num_outputs, seed=0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("widths", [(), (16,), (256, 256)])
@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count_ffn(widths: tuple[int, ...], bias: bool) -> None:
    sizes = (784, *widths, 10)
    expected = sum((inputs + bias) * outputs for inputs, outputs in itertools.pairwise(sizes))
    assert count(ModelSpec("ffn", widths=widths, bias=bias), (28, 28, 1), 10) == expected


def test_parameter_count_norms() -> None:
    # Scale and shift of the norm take the bias's place; without bias the scale alone stays.
    plain = 5 * 8 + 8 * 3
    for norm in ("layer", "group", "batch"):
        assert count(ModelSpec("ffn", widths=(8,), norm=norm), (5,), 3) == plain + 2 * 8 + 3
        assert count(ModelSpec("ffn", widths=(8,), norm=norm, bias=False), (5,), 3) == plain + 8


@pytest.mark.parametrize(("input_shape", "positions"), [((8, 8, 1), 4), ((28, 28, 1), 49), ((32, 32, 3), 64)])
def test_parameter_count_cnn(input_shape: tuple[int, ...], positions: int) -> None:
    expected = (9 * input_shape[-1] + 1) * 16 + (9 * 16 + 1) * 32 + (positions * 32 + 1) * 64 + 65 * 10
    assert count(ModelSpec("cnn"), input_shape, 10) == expected


def test_parameter_count_resnet18() -> None:
    # The CIFAR form of ResNet-18 with batch normalisation: the count everyone reports.
    assert count(ModelSpec("resnet18", norm="batch"), (32, 32, 3), 10) == 11_173_962


@pytest.mark.parametrize("width", [4, 16])
def test_parameter_count_resnet8(width: int) -> None:
    kernels = 9 * (3 * width + (1 + 1) * width**2 + (2 + 4) * width**2 + (8 + 16) * width**2)
    shortcuts = (2 + 8) * width**2 + 2 * (2 + 4) * width
    # Scale and shift of three norms of `width` channels (stem and stage 1), two of 2 `width`, two of 4 `width`.
    norms = 2 * (3 * width + 2 * 2 * width + 2 * 4 * width)
    head = 4 * width * 10 + 10
    assert count(ModelSpec("resnet8", base_width=width), (32, 32, 3), 10) == kernels + norms + shortcuts + head
    plain = ModelSpec("resnet8", base_width=width, residual=False)
    assert count(plain, (32, 32, 3), 10) == kernels + norms + head


def test_top_k_leaves_k_active() -> None:
    _, adapted, batch = make("ffn-top-k")
    features = quick_jit(jax.vmap(adapted.feature_fn, (None, 0)))(adapted.params, batch)
    np.testing.assert_array_equal((features != 0).sum(1), 3)
    model = build(ModelSpec("ffn", widths=(8,), activation="tanh"), (5,), NUM_OUTPUTS, seed=0)
    full = quick_jit(lambda x: model.features(x))(batch["x"])
    smallest_kept = np.sort(np.abs(full), axis=1)[:, -3]
    np.testing.assert_array_equal(features, np.where(np.abs(full) >= smallest_kept[:, None], full, 0))
    # Only the kept features pass a gradient to their row of the hidden kernel.
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    gradient = quick_jit(jax.grad(adapted.loss_fn))(adapted.params, example)["params"]["hidden"]["layers"]["0"]["bias"]
    np.testing.assert_array_equal(gradient != 0, features[0] != 0)


def test_top_k_breaks_ties() -> None:
    np.testing.assert_array_equal(keep_largest(jnp.ones((2, 5)), 2), [[1, 1, 0, 0, 0]] * 2)


def test_init_scale_scales_every_kernel() -> None:
    one, three = (build(ModelSpec("cnn", base_width=2, init_scale=s), (4, 4, 1), 3, seed=1) for s in (1.0, 3.0))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(nnx.state(one, nnx.Param)),
        jax.tree.leaves(nnx.state(three, nnx.Param)),
        strict=True,
    ):
        np.testing.assert_allclose(3 * a, b, rtol=1e-6)
        assert ("kernel" in jax.tree_util.keystr(path)) == bool(np.any(a != 0))


def test_initial_kernel_has_its_variance() -> None:
    for activation, gain in (("relu", 2.0), ("tanh", 1.0)):
        model = build(ModelSpec("ffn", widths=(300,), activation=activation), (200,), 50, seed=0)
        for kernel, expected in ((model.hidden.layers[0].kernel[...], gain / 200), (model.head.kernel[...], 1 / 300)):
            # The sample variance of N normals has relative standard error sqrt(2/N).
            tolerance = 4 * math.sqrt(2 / kernel.size)
            assert abs(float(jnp.var(kernel)) / expected - 1) < tolerance
            assert abs(float(jnp.var(kernel)) / (1.5 * expected) - 1) > tolerance


def test_seed_makes_the_model() -> None:
    first, again, other = (build(ModelSpec("ffn", widths=(4,)), (3,), 2, seed=s).head.kernel[...] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


def test_group_norm_has_groups_of_at_least_four() -> None:
    for width, groups in ((3, 1), (6, 1), (8, 2), (12, 2), (16, 4), (24, 4), (64, 8)):
        spec = ModelSpec("ffn", widths=(width,), norm="group")
        model = nnx.eval_shape(lambda spec=spec: build(spec, (5,), 2, seed=0))
        assert model.hidden.layers[1].num_groups == groups


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit"}, "Expected name to be one of"),
        ({"activation": "swish"}, "Expected activation to be one of"),
        ({"norm": "rms"}, "Expected norm to be one of"),
        ({"widths": (0,)}, "Expected widths and base_width >= 1"),
        ({"widths": 8}, "Expected widths to be a tuple"),
        ({"widths": (2,), "norm": "layer"}, "Expected widths and base_width >= 3"),
        ({"bias": 1}, "Expected bias to be True or False"),
        ({"init_scale": 0.0}, "Expected init_scale"),
        ({"init_scale": float("nan")}, "Expected init_scale"),
        ({"top_k": 0}, "Expected top_k to be an integer >= 1"),
        ({"base_width": 8}, "Expected no base_width for 'ffn'"),
        ({"residual": False}, "Expected residual=True for 'ffn'"),
        ({"name": "resnet8", "widths": (8,)}, "Expected no widths for 'resnet8'"),
    ],
)
def test_spec_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ModelSpec(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "input_shape", "num_outputs", "seed", "message"),
    [
        (ModelSpec("cnn"), (13,), 2, 0, "Expected images"),
        (ModelSpec("ffn"), (0,), 2, 0, "Expected input_shape"),
        (ModelSpec("ffn"), (3,), 0, 0, "Expected num_outputs >= 1"),
        (ModelSpec("ffn"), (3,), 2, -1, "Expected seed >= 0"),
        (ModelSpec("ffn", widths=(), top_k=4), (3,), 2, 0, "Expected top_k <= 3"),
        (ModelSpec("resnet8", base_width=4, top_k=17), (8, 8, 1), 2, 0, "Expected top_k <= 16"),
    ],
)
def test_build_refuses(spec: ModelSpec, input_shape: tuple, num_outputs: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: build(spec, input_shape, num_outputs, seed))


def test_spec_comes_back_from_json() -> None:
    for spec, _ in ZOO.values():
        assert ModelSpec(**json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


def test_models_of_one_architecture_share_their_functions_and_nothing_else() -> None:
    """Function for function they are what `adapt(build(...))` gives, at each one's own parameters."""
    specs = [ModelSpec(widths=(6,)), ModelSpec(widths=(6,), init_scale=2.0), ModelSpec(widths=(6,), init="mean-field")]
    x = {"x": jnp.linspace(-1, 1, 5), "y": jnp.asarray(1)}
    shared = [build_adapted(spec, (5,), 3, seed, "cross_entropy") for spec in specs for seed in (0, 1)]
    apart = [adapt(build(spec, (5,), 3, seed), "cross_entropy") for spec in specs for seed in (0, 1)]
    assert len({id(model.loss_fn) for model in shared}) == 1
    for one, other in zip(shared, apart, strict=True):
        chex.assert_trees_all_equal(one.params, other.params)
        assert float(one.loss_fn(one.params, x)) == float(other.loss_fn(other.params, x))
    assert len({float(model.loss_fn(model.params, x)) for model in shared}) == len(shared)


def test_a_mean_field_head_starts_as_an_average() -> None:
    """Its kernel is that of the standard start over the root of its fan-in; the other layers are the same."""
    one, other = (build(ModelSpec(widths=(64,), init=init), (5,), 3, seed=0) for init in ("standard", "mean-field"))
    chex.assert_trees_all_close(other.head.kernel[...] * 8.0, one.head.kernel[...], rtol=1e-6)
    chex.assert_trees_all_equal(other.features(jnp.ones((1, 5))), one.features(jnp.ones((1, 5))))
