"""The planner: routes and reasons, sizes that fit, and predictions that hold."""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.gradients.engine import pose
from lggwjax.gradients.layout import gram_layout
from lggwjax.jaxprs import live_bytes

KEY = jax.random.key(0)
NUM = 12


def loss(params, example):
    """An embedding, a recurrent layer, a dense layer, a bias, and a leaf without use."""
    tokens = params["table"][example["ids"]]
    state, _ = jax.lax.scan(lambda s, token: (jnp.tanh(params["loop"] @ s + token), None), jnp.zeros(4), tokens)
    return jnp.sum(jnp.tanh(state @ params["dense"] + params["bias"]) ** 2)


PARAMS = {
    "table": jax.random.normal(KEY, (40, 4)),
    "loop": jnp.eye(4) / 2,
    "dense": jax.random.normal(KEY, (4, 30)),
    "bias": jnp.ones(30),
    "spare": jnp.ones((3, 3)),
}
BATCH = {"ids": jax.random.randint(KEY, (NUM, 3), 0, 40)}
PATH = [PARAMS, jax.tree.map(lambda leaf: 1.2 * leaf, PARAMS)]


def test_routes_and_reasons():
    made = lggwjax.plan(loss, [PARAMS], BATCH, "gram")
    leaves = {leaf.name.strip("[]'"): leaf for leaf in made.leaves}
    assert leaves["table"].route in ("activations", "contracted")
    assert leaves["dense"].route in ("activations", "contracted")
    assert (leaves["bias"].route, leaves["bias"].reason) == ("gradient", "")
    assert leaves["loop"].route == "gradient"
    assert "scan" in leaves["loop"].reason
    assert leaves["spare"].route == "unused"
    assert made.num_parameters == 40 * 4 + 16 + 120 + 30 + 9
    text = str(made)
    assert "passes through 'scan'" in text
    assert max(map(len, text.splitlines())) < 160


@pytest.mark.parametrize("kind", ["gram", "stacked", "single", "union"])
def test_shapes_alone_make_the_same_plan(kind):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (PARAMS, BATCH))
    made = lggwjax.plan(loss, [PARAMS], BATCH, kind)
    other = lggwjax.plan(loss, [shapes[0]], shapes[1], kind)
    assert (other.leaves, other.memory, other.flops) == (made.leaves, made.memory, made.flops)


def test_wrong_kind_is_refused():
    with pytest.raises(ValueError, match='Expected kind "stacked"'):
        lggwjax.plan(loss, PATH, BATCH, "all")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_little_memory_makes_small_chunks_and_the_same_numbers():
    found = {}
    for limit in (None, 2_000):
        made = lggwjax.plan(loss, PATH, BATCH, "stacked", max_memory=limit)
        widths = [
            lggwjax.lggw(KEY, loss, PATH, BATCH, k, num_draws=64, max_memory=limit) for k in ("stacked", "single")
        ]
        gram = lggwjax.gradient_gram(loss, PARAMS, BATCH, max_memory=limit)
        found[limit] = made.chunk_size, [float(width.value) for width in widths], gram
    assert found[None][0] == NUM
    assert found[2_000][0] == 1
    np.testing.assert_allclose(found[2_000][1], found[None][1], rtol=1e-4)
    np.testing.assert_allclose(found[2_000][2], found[None][2], rtol=1e-4, atol=1e-5)


def test_chunks_are_of_one_size_and_all_factors_are_kept_while_they_fit():
    problem = pose(loss, PARAMS, BATCH, None)
    held, peak = problem.engine.sizes
    for limit in (10**9, 1000 * (held + problem.engine.largest_bytes) + 40 * peak, 500 * held):
        layout = gram_layout(problem.engine, 1000, None, limit + 3 * problem.engine.itemsize * 1000**2)
        assert layout.keep == (limit >= 1000 * held)
        assert -(-1000 // layout.chunk_size) * layout.chunk_size - 1000 < -(-1000 // layout.chunk_size)


def test_chunks_that_are_joined_are_planned_with_the_array_that_is_made():
    """Of one leaf: while it is joined, its parts and the whole are both there."""

    def quadratic(w, x):
        return jnp.sum(jnp.tanh(w) * x) ** 2

    w, x = jnp.ones(500, jnp.float32), jnp.ones((40, 500), jnp.float32)
    problem = pose(quadratic, w, x, None, self_check=False)
    held, rows = problem.engine.sizes.held, 4 * 500
    assert held == problem.engine.largest_bytes == rows
    result = 3 * 4 * 40**2
    whole, cut = (gram_layout(problem.engine, 40, chunk, None) for chunk in (40, 10))
    assert whole.keep
    assert cut.keep
    assert cut.memory == result + 2 * 40 * rows
    assert whole.memory < result + 40 * problem.engine.sizes.peak + 1
    # With no room for both, chunks are differentiated again.
    assert not gram_layout(problem.engine, 40, None, result + 2 * 40 * rows - 1).keep
    assert gram_layout(problem.engine, 40, None, result + 2 * 40 * rows).keep


def _mlp(params, example):
    hidden = example
    for weight in params:
        hidden = jax.nn.relu(hidden @ weight)
    return jax.nn.logsumexp(hidden)


def _cnn(params, example):
    image = example
    for kernel in params:
        image = jax.nn.relu(
            jax.lax.conv_general_dilated(image[None], kernel, (1, 1), "SAME", dimension_numbers=_NHWC)[0]
        )
    return jnp.sum(image.mean((0, 1)) ** 2)


_NHWC = ("NHWC", "HWIO", "NHWC")
MODELS = {
    "mlp": (_mlp, [jnp.ones((64, 256)), jnp.ones((256, 256)), jnp.ones((256, 10))], (64,)),
    "cnn": (_cnn, [jnp.ones((3, 3, 3, 16)), jnp.ones((3, 3, 16, 16))], (16, 16, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_bytes_of_a_pass_are_those_of_the_compiled_program(name):
    fn, params, shape = MODELS[name]
    batch = jax.random.normal(KEY, (64, *shape))
    engine = pose(fn, params, batch, None, self_check=False).engine
    compiled = engine.pass_bytes(64)
    held = sum(array.nbytes for array in engine.factors(jax.tree_util.Partial(fn), params, batch))
    assert held == 64 * engine.sizes.held
    assert held <= compiled
    # The estimate that chunks are cut by, before anything is compiled.
    assert compiled / 2 < 64 * engine.sizes.peak < 2 * compiled
    assert live_bytes(engine.program.jaxpr, len(engine.flat.jaxpr.invars) - 1) <= engine.sizes.peak


def test_the_logger_tells_the_plan_and_how_far_it_was_off(caplog):
    with caplog.at_level(logging.INFO, logger="lggwjax"):
        lggwjax.lggw(KEY, loss, PATH, BATCH, num_draws=64)
    assert "predicted:" in caplog.records[0].getMessage()
    assert "predicted without compiling" in caplog.records[-1].getMessage()
    caplog.clear()
    lggwjax.lggw(KEY, loss, PATH, BATCH, num_draws=64)
    assert not caplog.records
