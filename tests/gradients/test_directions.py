"""Random projections: Gaussian, and regenerated from keys alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.gradients import directions, random_projections

KEY = jax.random.key(0)
EYE = jnp.eye(8)


def test_a_direction_depends_on_key_and_number_alone():
    many = random_projections(KEY, EYE, num_draws=200)
    np.testing.assert_array_equal(many[:, :65], random_projections(KEY, EYE, num_draws=65))
    np.testing.assert_allclose(many[3:5], random_projections(KEY, EYE[3:5], num_draws=200), rtol=1e-6)
    assert not np.allclose(many, random_projections(jax.random.key(1), EYE, num_draws=200))


def test_directions_are_standard_normal_and_differ_from_one_another():
    # The projections of the unit vectors are the directions themselves.
    normals = np.asarray(random_projections(KEY, EYE, num_draws=4096))
    error = 1 / np.sqrt(normals.size)
    assert abs(normals.mean()) < 4 * error
    assert abs(normals.var() - 1) < 4 * np.sqrt(2) * error
    covariance = normals @ normals.T / 4096
    assert np.abs(covariance - np.eye(8)).max() < 5 * np.sqrt(2 / 4096)
    assert len(np.unique(normals[0])) == 4096, "no block of draws repeats another"


def test_projections_are_linear():
    first, second = (jnp.asarray(np.random.default_rng(s).normal(size=(8, 8)), jnp.float32) for s in (0, 1))
    project = lambda points: random_projections(KEY, points, num_draws=65)  # noqa: E731
    np.testing.assert_allclose(project(first + 2 * second), project(first) + 2 * project(second), atol=1e-4)
    np.testing.assert_allclose(project(first), first @ project(EYE), atol=1e-4)


def test_many_coordinates_are_projected_tile_by_tile(monkeypatch):
    # Each tile has directions of its own: the sum over tiles is Gaussian with the whole norm.
    monkeypatch.setattr(directions, "COORDINATES_PER_TILE", 5)
    random_projections.clear_cache()
    points = jnp.zeros((13, 13)).at[jnp.arange(13), jnp.arange(13)].set(1.0)
    normals = np.asarray(random_projections(KEY, points, num_draws=4096))
    monkeypatch.undo()
    random_projections.clear_cache()
    assert np.abs(normals @ normals.T / 4096 - np.eye(13)).max() < 5 * np.sqrt(2 / 4096)


def test_the_block_of_all_directions_is_never_formed():
    # 256 directions of 200,000 coordinates would be 205 MB.
    points = jax.ShapeDtypeStruct((2, 200_000), jnp.float32)
    compiled = random_projections.lower(KEY, points, num_draws=256).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6


@pytest.mark.parametrize(("points", "num_draws"), [(jnp.ones(3), 5), (jnp.ones((3, 2)), 0)])
def test_wrong_shapes_are_refused(points, num_draws):
    with pytest.raises(ValueError, match="Expected points of shape"):
        random_projections(KEY, points, num_draws=num_draws)
