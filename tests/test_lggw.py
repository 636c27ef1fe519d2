"""The paper's gradient sets against brute force, their inequalities, and what single precision may cost."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from lggwjax import gaussian_width, gradient_gram, lggw, nerc, single_widths
from lggwjax.gradients import path_grams
from lggwjax.gradients.engine import pose
from lggwjax.lggw import signed_norms
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
    problem = pose(loss, path[0], batch, None)
    return np.stack([np.asarray(problem.engine.flat_gradients(problem.loss, p, batch)) for p in path])


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


@pytest.mark.slow
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
    # Blocks round in their own way, and a direction on which two points nearly tie may name the other one.
    assert np.abs(np.asarray(chunked.counts - estimate.counts)).sum() <= 4


def _few():
    """A loss of two parameters, a path and samples."""
    rng = np.random.default_rng(0)
    batch = {"x": jnp.asarray(rng.normal(size=(9, 2)), jnp.float32), "y": jnp.asarray(rng.normal(size=9), jnp.float32)}
    path = [jnp.asarray(rng.normal(size=2), jnp.float32) for _ in range(6)]
    return lambda w, example: 0.5 * (jnp.tanh(w @ example["x"]) - example["y"]) ** 2, path, batch


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_of_more_gradients_than_parameters_the_draws_are_those_of_the_gradients(chunk_size):
    own, path, batch = _few()
    gradients = jnp.stack([jax.vmap(jax.grad(own), (None, 0))(params, batch) for params in path])
    union, single = (
        lggw(KEY, own, path, batch, kind, num_draws=256, chunk_size=chunk_size) for kind in ("union", "single")
    )
    whole = gaussian_width(KEY, gradients.reshape(-1, 2), num_draws=256)
    assert float(union.value) == pytest.approx(float(whole.value), rel=1e-5)
    each = [gaussian_width(KEY, gradients[:, index], num_draws=256).value for index in range(9)]
    assert float(single.value) == pytest.approx(float(np.mean(each)), rel=1e-5)


@pytest.mark.makes_nan
@pytest.mark.parametrize("kind", ["union", "single"])
def test_of_more_gradients_than_parameters_one_that_is_nan_is_refused(kind):
    own, path, batch = _few()
    with pytest.raises(ValueError, match="finite gradients"):
        lggw(KEY, own, [*path, path[0] * np.nan], batch, kind)


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
    np.testing.assert_allclose(norm(signs), signed_norms(signs, grams).max(0), rtol=1e-4)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_largest_single_width_is_not_biased():
    # Samples of equal width whose gradients lie in different coordinates, so that the noise of their estimates differs.
    def own_coordinates(w, example):
        return jnp.sum((w[example] - jnp.arange(4.0)) ** 2) / 2

    path = list(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
    batch = jnp.asarray([np.random.default_rng(s).permutation(4) for s in range(8)])
    truth, stderr = _brute_width(np.stack(path))

    def repeat(key):
        found = single_widths(key, own_coordinates, path, batch, num_draws=16)
        return found.largest.value, found.widths.value.max()

    # The gradient is a permutation of w - target: all eight widths are that of the path, up to the shift by the target.
    largest, naive = jax.jit(jax.vmap(repeat))(jax.random.split(KEY, 200))
    error = math.hypot(float(largest.std()) / math.sqrt(200), stderr)
    assert abs(float(largest.mean()) - truth) < 4 * error
    assert float(naive.mean()) - truth > -4 * error


@pytest.mark.slow
def test_the_largest_single_width_is_found():
    found = single_widths(KEY, _scaled_quadratic, [jnp.zeros(2), jnp.ones(2)], jnp.array([1.0, 3.0, 2.0]))
    assert int(found.largest_index) == 1
    assert float(found.largest.value) == pytest.approx(3 * math.sqrt(2) / math.sqrt(2 * math.pi), rel=1e-5)
    assert int(found.largest.num_draws) == 512


@pytest.mark.parametrize("kind", ["stacked", "single", "union"])
def test_chunks_do_not_matter(kind):
    whole = lggw(KEY, loss, PATH, BATCH, kind=kind)
    chunked = lggw(KEY, loss, PATH, BATCH, kind=kind, chunk_size=4)
    assert float(chunked.value) == pytest.approx(float(whole.value), rel=1e-4)


@pytest.mark.parametrize("kind", ["stacked", "single", "union"])
def test_scaling_the_loss_scales_the_width(kind):
    scaled = Partial(lambda s, params, example: s * loss(params, example), jnp.float32(-3.0))
    plain, moved = lggw(KEY, loss, PATH, BATCH, kind=kind), lggw(KEY, scaled, PATH, BATCH, kind=kind)
    assert float(moved.value) == pytest.approx(3 * float(plain.value), rel=1e-4)


@pytest.mark.slow
def test_works_under_jit_and_vmap_with_traced_draws():
    def all_of(key, num):
        return {
            "stacked": lggw(key, loss, PATH, BATCH, num_draws=num),
            "single": lggw(key, loss, PATH, BATCH, kind="single", num_draws=num),
            "largest": single_widths(key, loss, PATH, BATCH, num_draws=num).largest,
            "union": lggw(key, loss, PATH, BATCH, kind="union", num_draws=num),
            "counted": lggw(key, loss, PATH, BATCH, kind="union", num_draws=512),
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


@pytest.mark.makes_nan
def test_nan_inside_a_trace_stays_nan():
    path = [PATH[0], jax.tree.map(lambda x: x * jnp.nan, PATH[1])]
    kinds = ("stacked", "single", "union")
    found = jax.jit(
        lambda p: (*(lggw(KEY, loss, p, BATCH, kind=k).value for k in kinds), nerc(KEY, loss, p, BATCH).value)
    )(path)
    assert np.isnan(found).all()
    for kind in kinds:
        with pytest.raises(ValueError, match="Expected finite inner products of gradients"):
            lggw(KEY, loss, path, BATCH, kind=kind)
    with pytest.raises(ValueError, match="Expected finite inner products of gradients"):
        nerc(KEY, loss, path, BATCH)


def test_a_second_call_compiles_nothing(compilations):
    for kind in ("stacked", "single", "union"):
        lggw(KEY, loss, PATH, BATCH, kind=kind)
    nerc(KEY, loss, PATH, BATCH)
    other, other_key = jax.tree.map(lambda x: x + 1, PATH), jax.random.key(5)
    with compilations() as again:
        for kind in ("stacked", "single", "union"):
            lggw(other_key, loss, other, BATCH, kind=kind)
        nerc(other_key, loss, other, BATCH, num_draws=100)
    with compilations() as compiled:
        gaussian_width(KEY, jnp.ones((3, 17)))
    assert again == []
    assert compiled, "the listener does hear of compilations"


@pytest.mark.slow
def test_rqmc_and_tolerance():
    for kind in ("stacked", "union"):
        iid = lggw(KEY, loss, PATH, BATCH, kind=kind, num_draws=8192)
        quasi = lggw(KEY, loss, PATH, BATCH, kind=kind, sampler="rqmc", num_draws=4096)
        assert abs(iid.value - quasi.value) < 4.5 * jnp.hypot(iid.stderr, quasi.stderr)
        assert abs(1.08 * iid.value - quasi.value) > 4.5 * jnp.hypot(iid.stderr, quasi.stderr)
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
        ([PATH[0], {"in": jnp.ones((8, 5))}], r"entry 1 that differs .* To measure one checkpoint pass \[params\]"),
        ([PATH[0], jax.tree.map(lambda x: x[:2], PATH[0])], r"entry 1 that differs .* pass \[params\]"),
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
    assert float(nerc(KEY, loss, Lazy(), BATCH).value) == pytest.approx(
        float(nerc(KEY, loss, PATH, BATCH).value), rel=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cloud"}, 'kind "stacked", "single" or "union"'),
        ({"kind": "union", "sampler": "sobol"}, 'sampler="iid" or "rqmc"|"iid" or "rqmc"'),
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


SCALES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
NORMALS = np.random.default_rng(2).normal(size=(2000, 3))
WIDE_BATCH = {
    "x": jnp.asarray(RNG.normal(size=(8, 64)), jnp.float32),
    "y": jnp.asarray(RNG.integers(0, 10, 8)),
}


def _near_path(scale):
    """Checkpoints of a small network, ``scale`` apart relative to its weights; both precisions start from these."""
    rng, path = np.random.default_rng(100), []
    start = {"in": rng.normal(size=(128, 64)) / 8, "out": rng.normal(size=(10, 128)) / 11}
    for step in range(4):
        moves = {name: scale * min(step, 1) * rng.normal(size=w.shape) / w.shape[1] ** 0.5 for name, w in start.items()}
        path.append({name: jnp.asarray(w + moves[name], jnp.float32) for name, w in start.items()})
    return path


def _in_double(function, *trees):
    """Call the function in double precision on the same numbers."""
    with jax.enable_x64(True):

        def double(leaf):
            return jnp.asarray(np.asarray(leaf), jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(np.asarray, function(*jax.tree.map(double, trees)))


def _common_width(gram):
    """Width of a Gram matrix relative to its first point, by fixed normals through the library's factor."""
    scores = np.asarray(factor_moved_gram(gram).rows, np.float64) @ NORMALS.T
    return np.mean(scores.max(0) - scores.min(0)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_two_near_checkpoints_agree_with_double_precision(scale):
    # Two points have width |a - b| / sqrt(2 pi), without any error of the draws.
    path = _near_path(scale)[:2]
    for kind in ("stacked", "single"):

        def width(path, batch, kind=kind):
            return lggw(KEY, loss, path, batch, kind=kind, num_draws=2).value

        truth = _in_double(width, path, WIDE_BATCH)
        assert truth.dtype == np.float64
        assert float(width(path, WIDE_BATCH)) == pytest.approx(float(truth), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_near_paths_agree_with_double_precision(scale):
    path = _near_path(scale)
    found = path_grams(loss, path, WIDE_BATCH).grams
    truth = _in_double(lambda p, b: path_grams(loss, p, b).grams, path, WIDE_BATCH)
    stacked, single = _common_width(found.mean(0)), np.mean([_common_width(gram) for gram in found])
    with jax.enable_x64(True):
        exact = [jnp.asarray(gram, jnp.float64) for gram in (truth.mean(0), *truth)]
        stacked_truth, *single_truth = [_common_width(gram) for gram in exact]
    assert stacked == pytest.approx(stacked_truth, rel=1e-3)
    assert single == pytest.approx(np.mean(single_truth), rel=1e-3)


@pytest.mark.slow
def test_a_plain_single_precision_gram_matrix_would_fail():
    # G_ss + G_tt - 2 G_st, from gradients in single precision and products in full single precision
    errors = {}
    for scale in SCALES:
        path = _near_path(scale)[:2]
        first, second = jnp.asarray(_gradients(path, WIDE_BATCH)).reshape(2, -1) / math.sqrt(8)
        square = jnp.vdot(first, first) + jnp.vdot(second, second) - 2 * jnp.vdot(first, second)
        truth = _in_double(lambda p, b: path_grams(loss, p, b).grams.mean(0)[1, 1], path, WIDE_BATCH)
        errors[scale] = abs(math.sqrt(max(0.0, float(square)) / truth) - 1)
    assert errors[1e-1] < 1e-3
    assert min(errors[1e-4], errors[1e-5]) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_nerc_by_backward_passes_is_nerc_by_gram_matrices(chunk_size):
    def loss(params, z):
        return jnp.sum(jnp.tanh(params["w"] @ z["x"] + params["b"]) ** 2) * z["y"]

    keys = jax.random.split(jax.random.key(3), 4)
    params = {"w": jax.random.normal(keys[0], (4, 5)), "b": jax.random.normal(keys[1], (4,))}
    path = [params, jax.tree.map(lambda leaf: 1.5 * leaf, params)]
    batch = {"x": jax.random.normal(keys[2], (8, 5)), "y": jax.random.normal(keys[3], (8,))}
    by_gram = nerc(keys[0], loss, path, batch, num_draws=70)
    by_gradients = nerc(keys[0], loss, path, batch, num_draws=70, by="gradients", chunk_size=chunk_size)
    assert float(by_gradients.value) == pytest.approx(float(by_gram.value), rel=1e-5)
    assert float(by_gradients.stderr) == pytest.approx(float(by_gram.stderr), rel=1e-4)
    assert int(by_gradients.num_draws) == 70
    with pytest.raises(ValueError, match="'gram' or 'gradients'"):
        nerc(keys[0], loss, path, batch, by="rows")
