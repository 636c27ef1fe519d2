"""The paper's gradient sets against brute force, their inequalities, and what single precision may cost."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import lggwjax
from lggwjax import gaussian_width, gradient_gram, lggw, nerc, single_widths
from lggwjax.gradients import path_grams
from lggwjax.gradients.per_sample import flat_gradients, prepare
from lggwjax.widths.factor import factor_moved_gram

KEY = jax.random.key(0)
NUM, LENGTH = 6, 4
RNG = np.random.default_rng(0)
BATCH = {
    "x": jnp.asarray(RNG.normal(size=(NUM, 5)), jnp.float32),
    "y": jnp.asarray(RNG.integers(0, 3, NUM)),
}


def loss(params, example):
    scores = params["out"] @ jnp.tanh(params["in"] @ example["x"])
    return jax.nn.logsumexp(scores) - scores[example["y"]]


def _params(scale, seed=0):
    rng, move = np.random.default_rng(100), np.random.default_rng(seed)
    shapes = {"in": (8, 5), "out": (3, 8)}
    return {
        name: jnp.asarray(rng.normal(size=shape) + scale * move.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


PATH = [_params(0.3 * step, seed=step) for step in range(LENGTH)]


def _gradients(path=PATH, batch=BATCH) -> np.ndarray:
    """All gradients, materialised: (T, n, p)."""
    selection, partial, _, chunk = prepare(loss, path[0], batch, None, None)
    return np.stack([np.asarray(flat_gradients(partial, p, batch, selection, chunk)) for p in path])


@pytest.fixture(scope="module")
def gradients():
    return _gradients()


def _brute_width(points, seed=0, num=20_000):
    """Mean half-range over directions of the points' own space, with its standard error."""
    rng, half = np.random.default_rng(seed), []
    for _ in range(num // 1000):
        scores = points @ rng.normal(size=(points.shape[1], 1000))
        half.append((scores.max(0) - scores.min(0)) / 2)
    half = np.concatenate(half)
    return half.mean(), half.std() / math.sqrt(half.size)


def _agree(estimate, mean, stderr):
    return abs(float(estimate.value) - mean) < 4 * math.hypot(float(estimate.stderr), stderr)


def test_stacked_is_the_width_of_the_stacked_gradients(gradients):
    mean, stderr = _brute_width(gradients.reshape(LENGTH, -1) / math.sqrt(NUM))
    estimate = lggw(KEY, loss, PATH, BATCH, num_draws=8192)
    assert _agree(estimate, mean, stderr)
    assert not _agree(estimate, 1.08 * mean, stderr)
    assert estimate.counts.shape == (LENGTH,)


def test_single_is_the_mean_of_the_samples_widths(gradients):
    widths = [_brute_width(gradients[:, i], seed=i, num=5000) for i in range(NUM)]
    mean, stderr = np.mean([w for w, _ in widths]), math.hypot(*[s for _, s in widths]) / NUM
    estimate = lggw(KEY, loss, PATH, BATCH, kind="single", num_draws=8192)
    assert _agree(estimate, mean, stderr)
    assert not _agree(estimate, 1.08 * mean, stderr)
    found = single_widths(KEY, loss, PATH, BATCH, num_draws=8192)
    for index in range(NUM):
        one = jax.tree.map(lambda x, i=index: x[i], found.widths.__dict__)
        assert abs(float(one["value"]) - widths[index][0]) < 4.5 * math.hypot(float(one["stderr"]), widths[index][1])
    assert float(found.mean.value) == pytest.approx(float(found.widths.value.mean()), rel=1e-4)
    assert _agree(found.mean, mean, stderr)


def test_union_is_the_width_of_all_gradients(gradients):
    mean, stderr = _brute_width(gradients.reshape(LENGTH * NUM, -1))
    estimate = lggw(KEY, loss, PATH, BATCH, kind="union", num_draws=4096)
    assert _agree(estimate, mean, stderr)
    assert not _agree(estimate, 1.08 * mean, stderr)
    assert estimate.counts.shape == (LENGTH * NUM,)
    assert int(estimate.counts.sum()) == 2 * 4096
    chunked = lggw(KEY, loss, PATH, BATCH, kind="union", num_draws=4096, chunk_size=4)
    assert float(chunked.value) == pytest.approx(float(estimate.value), rel=1e-5)
    assert chunked.counts.tolist() == estimate.counts.tolist()


def test_nerc_is_the_mean_supremum_over_signs(gradients):
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (20_000, NUM))
    norms = np.linalg.norm(np.einsum("ki,tip->ktp", signs, gradients), axis=-1).max(1) / NUM
    estimate = nerc(KEY, loss, PATH, BATCH, num_draws=8192)
    assert _agree(estimate, norms.mean(), norms.std() / math.sqrt(norms.size))
    assert not _agree(estimate, 1.05 * norms.mean(), norms.std() / math.sqrt(norms.size))


def test_nerc_by_one_backward_pass_a_sign_vector_is_nerc_by_gram_matrices():
    @jax.jit
    @jax.vmap
    def norm(signs):
        def signed(params):
            return signs @ jax.vmap(loss, in_axes=(None, 0))(params, BATCH) / NUM

        squares = [sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(signed)(params))) for params in PATH]
        return jnp.sqrt(jnp.stack(squares).max())

    signs = jax.random.rademacher(KEY, (64, NUM), jnp.float32)
    grams = jnp.stack([gradient_gram(loss, params, BATCH) for params in PATH])
    np.testing.assert_allclose(norm(signs), lggwjax.lggw.__globals__["signed_norms"](signs, grams).max(0), rtol=1e-4)


def test_stacked_lies_between_the_largest_and_the_sum_of_the_single_widths():
    # theory 3.7
    stacked = lggw(KEY, loss, PATH, BATCH, num_draws=8192)
    singles = single_widths(KEY, loss, PATH, BATCH, num_draws=8192)
    slack = 4 * float(stacked.stderr + singles.widths.stderr.max())
    assert float(singles.widths.value.max()) / math.sqrt(NUM) <= float(stacked.value) + slack
    assert float(stacked.value) <= float(singles.widths.value.sum()) / math.sqrt(NUM) + slack


def test_nerc_lies_between_its_bounds_in_the_root_mean_square(gradients):
    # theory 3.1
    rms = np.sqrt((gradients**2).sum(2).mean(1))
    along = nerc(KEY, loss, PATH, BATCH)
    assert float(along.value) + 4 * float(along.stderr) >= rms.max() / math.sqrt(2 * NUM)
    one = nerc(KEY, loss, PATH[:1], BATCH)
    assert rms[0] / math.sqrt(2 * NUM) <= float(one.value) + 4 * float(one.stderr)
    assert float(one.value) - 4 * float(one.stderr) <= rms[0] / math.sqrt(NUM)


def _scaled_quadratic(w, x):
    return 0.5 * x * jnp.sum(w**2)


def test_the_largest_single_width_is_not_biased():
    # Six samples of equal width: the maximum of noisy estimates would be too large.
    def rotated(w, x):
        return w @ jnp.roll(jnp.eye(6), 1, axis=0) @ x

    path = [np.random.default_rng(s).normal(size=6).astype(np.float32) for s in range(3)]
    del rotated

    def product(w, x):  # gradient 2 w_j x_j e_j: a permutation of coordinates leaves every width as it is
        return jnp.sum(w**2) * jnp.sum(x) / 2

    batch = jnp.ones((6, 6))
    truth, stderr = _brute_width(6 * np.stack(path))
    keys = jax.random.split(KEY, 100)
    found = jax.jit(jax.vmap(lambda key: single_widths(key, product, path, batch, num_draws=16).largest.value))(keys)
    assert abs(float(found.mean()) - truth) < 4 * math.hypot(float(found.std()) / 10, stderr)


def test_the_largest_single_width_is_found():
    found = single_widths(KEY, _scaled_quadratic, [jnp.zeros(2), jnp.ones(2)], jnp.array([1.0, 3.0, 2.0]))
    assert int(found.largest_index) == 1
    assert float(found.largest.value) == pytest.approx(3 * math.sqrt(2) / math.sqrt(2 * math.pi), rel=1e-5)
    assert int(found.largest.num_draws) == 512


@pytest.mark.parametrize("kind", ["stacked", "single", "union"])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunks_do_not_matter(kind, chunk_size):
    whole = lggw(KEY, loss, PATH, BATCH, kind=kind)
    chunked = lggw(KEY, loss, PATH, BATCH, kind=kind, chunk_size=chunk_size)
    assert float(chunked.value) == pytest.approx(float(whole.value), rel=1e-4)


@pytest.mark.parametrize("kind", ["stacked", "single", "union"])
def test_scaling_the_loss_scales_the_width(kind):
    scaled = Partial(lambda s, params, example: s * loss(params, example), jnp.float32(-3.0))
    plain, moved = lggw(KEY, loss, PATH, BATCH, kind=kind), lggw(KEY, scaled, PATH, BATCH, kind=kind)
    assert float(moved.value) == pytest.approx(3 * float(plain.value), rel=1e-4)


@pytest.mark.parametrize("kind", ["stacked", "single", "union"])
def test_works_under_jit(kind):
    num_draws = 512
    inside = jax.jit(lambda k, p: lggw(k, loss, p, BATCH, kind=kind, num_draws=num_draws))(KEY, PATH)
    outside = lggw(KEY, loss, PATH, BATCH, kind=kind, num_draws=num_draws)
    assert float(inside.value) == pytest.approx(float(outside.value), rel=1e-4)
    assert inside.interval().low < inside.value < inside.guaranteed_interval().high


def test_works_under_vmap_over_keys_with_traced_draws():
    def all_of(key, num):
        return {
            "stacked": lggw(key, loss, PATH, BATCH, num_draws=num),
            "single": lggw(key, loss, PATH, BATCH, kind="single", num_draws=num),
            "largest": single_widths(key, loss, PATH, BATCH, num_draws=num).largest,
            "union": lggw(key, loss, PATH, BATCH, kind="union", num_draws=128),
            "nerc": nerc(key, loss, PATH, BATCH, num_draws=num),
        }

    keys = jax.random.split(KEY, 2)
    several = jax.jit(jax.vmap(all_of, in_axes=(0, None)))
    found = several(keys, 128)
    several(keys, 256)
    assert several._cache_size() == 1
    for name, estimate in all_of(keys[1], 128).items():
        assert float(found[name].value[1]) == pytest.approx(float(estimate.value), rel=1e-4)
        assert found[name].interval().low.shape == (2,)


def test_nan_inside_a_trace_stays_nan():
    path = [PATH[0], jax.tree.map(lambda x: x * jnp.nan, PATH[1])]
    found = jax.jit(lambda p: (lggw(KEY, loss, p, BATCH).value, nerc(KEY, loss, p, BATCH).value))(path)
    assert np.isnan(found).all()
    assert np.isnan(lggw(KEY, loss, path, BATCH, kind="union").value)


def test_a_second_call_compiles_nothing():
    compiled = []
    for kind in ("stacked", "single", "union"):
        lggw(KEY, loss, PATH, BATCH, kind=kind)
    nerc(KEY, loss, PATH, BATCH)
    listening = [True]

    def listen(event, duration, **_):
        if listening[0] and event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    other = jax.tree.map(lambda x: x + 1, PATH)
    for kind in ("stacked", "single", "union"):
        lggw(jax.random.key(5), loss, other, BATCH, kind=kind)
    nerc(jax.random.key(5), loss, other, BATCH, num_draws=100)
    again = list(compiled)
    gaussian_width(KEY, jnp.ones((3, 17)))
    listening[0] = False
    assert again == []
    assert compiled, "the listener does hear of compilations"


def test_rqmc_and_tolerance():
    iid = lggw(KEY, loss, PATH, BATCH, num_draws=8192)
    quasi = lggw(KEY, loss, PATH, BATCH, sampler="rqmc", num_draws=4096)
    assert abs(iid.value - quasi.value) < 4.5 * jnp.hypot(iid.stderr, quasi.stderr)
    for kind in ("stacked", "single", "union"):
        found = lggw(KEY, loss, PATH, BATCH, kind=kind, tolerance=0.02)
        assert float(found.stderr / found.value) < 0.022


@pytest.mark.parametrize("kind", ["stacked", "single"])
def test_one_checkpoint_has_width_zero_and_the_warning_says_what_to_use(kind):
    with pytest.warns(UserWarning, match='For one checkpoint use kind="union"'):
        found = lggw(KEY, loss, PATH[:1], BATCH, kind=kind)
    assert float(found.value) == float(found.stderr) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(lggw(KEY, loss, PATH[:1], BATCH, kind="union").value) > 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (PATH[0], r"To measure one checkpoint pass \[params\]"),
        (jnp.ones(3), r"To measure one checkpoint pass \[params\]"),
        ([PATH[0], {"in": jnp.ones((8, 5))}], r"entry 1 differs .* To measure one checkpoint pass \[params\]"),
        ([PATH[0], jax.tree.map(lambda x: x[:2], PATH[0])], r"entry 1 differs .* pass \[params\]"),
        (iter(PATH), r"more than once, got an iterator. Pass list\(path\)"),
        ((p for p in PATH), r"Pass list\(path\)"),
        ([], "at least one checkpoint"),
    ],
    ids=["params", "array", "structure", "shapes", "iterator", "generator", "empty"],
)
def test_what_is_no_path_is_refused(path, message):
    for function in (lggw, nerc, single_widths):
        with pytest.raises(ValueError, match=message):
            function(KEY, loss, path, BATCH)


def test_a_lazy_path_gives_the_same():
    class Lazy:
        def __iter__(self):
            yield from PATH

    for kind in ("stacked", "union"):
        lazy, plain = (lggw(KEY, loss, p, BATCH, kind=kind).value for p in (Lazy(), PATH))
        assert float(lazy) == pytest.approx(float(plain), rel=1e-6)
    assert float(nerc(KEY, loss, Lazy(), BATCH).value) == pytest.approx(float(nerc(KEY, loss, PATH, BATCH).value), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cloud"}, 'kind "stacked", "single" or "union"'),
        ({"kind": "union", "sampler": "rqmc"}, 'sampler="iid"'),
        ({"kind": "union", "num_draws": 64, "tolerance": 0.1}, "got both"),
        ({"kind": "union", "num_draws": 1}, "num_draws >= 2"),
        ({"num_draws": 1}, "num_draws >= 2"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        lggw(KEY, loss, PATH, BATCH, **options)
    with pytest.raises(ValueError, match="num_draws >= 4"):
        single_widths(KEY, loss, PATH, BATCH, num_draws=3)


def test_wrt_leaves_out_what_is_frozen(gradients):
    mask = {"in": False, "out": True}
    points = gradients[..., 40:].reshape(LENGTH, -1) / math.sqrt(NUM)
    mean, stderr = _brute_width(points)
    assert _agree(lggw(KEY, loss, PATH, BATCH, wrt=mask, num_draws=8192), mean, stderr)


# Precision along a path ------------------------------------------------------------------------------------------------

SCALES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
_HALF_RANGE_NORMALS = np.random.default_rng(2).normal(size=(2000, 4))


def _near_path(scale):
    """Five checkpoints, ``scale`` apart relative to the parameters, exactly representable in single precision."""
    return [_params(scale * (step > 0), seed=step) for step in range(5)]


def _in_double(function):
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(  # noqa: E731
            lambda x: jnp.asarray(np.asarray(x), jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )
        return jax.tree.map(np.asarray, function(double))


def _common_width(gram):
    """Width of a Gram matrix relative to its first point, by fixed normals and the library's factor."""
    scores = np.asarray(factor_moved_gram(gram).rows, np.float64) @ _HALF_RANGE_NORMALS.T
    return float(np.mean(scores.max(0) - scores.min(0)) / 2)


def _plain_relative_gram(gradients):
    """What single precision makes of G_st - G_s0 - G_0t + G_00. From (T, n, p)."""
    gram = jnp.einsum("sip,tip->ist", gradients, gradients, precision="highest")
    return gram - gram[:, :1] - gram[:, :, :1] + gram[:, :1, :1]


@pytest.mark.parametrize("scale", SCALES)
def test_two_near_checkpoints_agree_with_double_precision(scale):
    # Two points: width |a - b| / sqrt(2 pi) without any error of the draws.
    path = _near_path(scale)[:2]
    for kind in ("stacked", "single"):
        found = float(lggw(KEY, loss, path, BATCH, kind=kind, num_draws=2).value)
        truth = _in_double(lambda double, k=kind: lggw(KEY, loss, double(path), double(BATCH), kind=k, num_draws=2).value)
        assert truth.dtype == np.float64
        assert found == pytest.approx(float(truth), rel=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_near_paths_agree_with_double_precision(scale):
    path = _near_path(scale)
    grams = path_grams(loss, path, BATCH)
    exact = _in_double(lambda double: path_grams(loss, double(path), double(BATCH)))
    with jax.enable_x64(True):
        truth = [_common_width(jnp.asarray(g, jnp.float64)) for g in (exact.mean(0), *exact)]
    found = [_common_width(g) for g in (grams.mean(0), *grams)]
    np.testing.assert_allclose(found, truth, rtol=1e-3)


def test_a_plain_single_precision_gram_matrix_would_fail():
    errors = {}
    for scale in SCALES:
        path = _near_path(scale)
        exact = _in_double(lambda double, p=path: path_grams(loss, double(p), double(BATCH)))
        plain = np.asarray(_plain_relative_gram(jnp.asarray(_gradients(path))))
        diagonal = np.arange(1, 5)
        roots = [np.sqrt(np.maximum(g[:, diagonal, diagonal].mean(0), 0)) for g in (plain, exact)]
        errors[scale] = np.abs(roots[0] / roots[1] - 1).max()
    assert errors[1e-1] < 1e-3
    assert errors[1e-4] > 1e-2
    assert errors[1e-5] > 0.5
