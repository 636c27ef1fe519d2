"""Random projections of per-sample gradients: Gaussian, and regenerated from keys alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax import random_projections
from lggwjax.gradients.chunks import iter_chunks
from lggwjax.gradients.directions import directions_of_leaf
from lggwjax.gradients.engine import pose
from lggwjax.gradients.projections import project_factors

KEY = jax.random.key(0)
EYE = jnp.eye(8)


def dense(w, x):
    return jnp.sum(jnp.tanh(w @ x))


def linear(w, x):  # its per-sample gradients are the examples themselves
    return w @ x


def _project(points, num_draws, chunk_size=None):
    """By one program for all directions, whatever the planner would choose for so small a loss."""
    problem = pose(linear, jnp.zeros(points.shape[1]), points, None)
    chunks = iter_chunks(points, len(points), chunk_size or len(points))
    parts = [project_factors(problem, KEY, problem.factors(jnp.zeros(8), c), num_draws)[:n] for _, n, c in chunks]
    return jnp.concatenate(parts)


def test_a_direction_depends_on_key_and_number_alone():
    many = _project(EYE, 200)
    np.testing.assert_array_equal(many[:, :65], _project(EYE, 65))
    np.testing.assert_allclose(many[3:5], _project(EYE[3:5], 200), rtol=1e-6)
    np.testing.assert_allclose(many, _project(EYE, 200, chunk_size=3), rtol=1e-6)


def test_the_public_function_gives_these_projections():
    few = _project(EYE, 20)
    for chunk_size in (None, 3):
        found = random_projections(KEY, linear, jnp.zeros(8), EYE, num_draws=20, chunk_size=chunk_size)
        np.testing.assert_allclose(found, few, rtol=1e-5, atol=1e-6)
    other = random_projections(jax.random.key(1), linear, jnp.zeros(8), EYE, num_draws=20)
    assert not np.allclose(other, few)


def test_directions_are_standard_normal_and_differ_from_one_another():
    # The projections of the unit vectors are the directions themselves.
    normals = np.asarray(_project(EYE, 4096))
    error = 1 / np.sqrt(normals.size)
    assert abs(normals.mean()) < 4 * error
    assert abs(normals.var() - 1) < 4 * np.sqrt(2) * error
    covariance = normals @ normals.T / 4096
    assert np.abs(covariance - np.eye(8)).max() < 5 * np.sqrt(2 / 4096)
    assert np.unique(normals, axis=1).shape[1] == 4096, "no block of draws repeats another"


def test_directions_of_different_leaves_are_independent():
    both = [directions_of_leaf(KEY, jnp.arange(4096), leaf, (3,), jnp.float32) for leaf in (0, 1)]
    covariance = np.asarray(both[0]).T @ np.asarray(both[1]) / 4096
    assert np.abs(covariance).max() < 5 / np.sqrt(4096)


def test_projections_are_linear():
    first, second = (jnp.asarray(np.random.default_rng(s).normal(size=(8, 8)), jnp.float32) for s in (0, 1))
    np.testing.assert_allclose(
        _project(first + 2 * second, 65), _project(first, 65) + 2 * _project(second, 65), atol=1e-4
    )
    np.testing.assert_allclose(_project(first, 65), first @ _project(EYE, 65), atol=1e-4)


def test_the_block_of_all_directions_is_never_formed():
    # 256 directions of 200,000 coordinates would be 205 MB.
    for loss, shape, example in ((linear, (200_000,), (2, 200_000)), (dense, (400, 500), (2, 500))):
        params, batch = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(example, jnp.float32)
        problem = pose(loss, params, batch, None, self_check=False)

        def project(p, b, problem=problem):
            return project_factors(problem, KEY, problem.factors(p, b), 256)

        compiled = jax.jit(project).lower(params, batch).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 50e6


@pytest.mark.parametrize(("points", "num_draws"), [(EYE, 0), (EYE, -1)])
def test_too_few_draws_are_refused(points, num_draws):
    with pytest.raises(ValueError, match="Expected num_draws >= 1"):
        random_projections(KEY, linear, jnp.zeros(8), points, num_draws=num_draws)
