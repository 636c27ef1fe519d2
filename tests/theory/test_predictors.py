"""Predictor-complexity measures by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.theory import predictor_measures


def test_known_values():
    params = {"a": jnp.diag(jnp.array([3.0, 1.0])), "b": jnp.array([4.0, 0.0]), "c": jnp.array([[2.0], [0.0]])}
    start = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2), "c": jnp.array([[0.0], [0.0]])}
    found = predictor_measures(params, start, input_radius=5.0, margin=0.5)
    assert found["parameters"] == 8
    assert found["parameter norm"] == found["distance from start"] == pytest.approx(np.sqrt(9 + 1 + 16 + 4))
    assert found["product of norms"] == pytest.approx(6.0)
    # Column norms 3 + 1 over 3, and 2 over 2.
    assert found["spectral complexity"] == pytest.approx(10 * 6 * ((4 / 3) ** (2 / 3) + 1) ** 1.5)


def test_how_they_grow_with_the_weights():
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=(4, 4)), jnp.float32) for _ in range(3)]
    start = [jnp.zeros((4, 4))] * 3
    one, two = (predictor_measures([s * w for w in params], start) for s in (1.0, 2.0))
    assert two["spectral complexity"] == pytest.approx(8 * one["spectral complexity"], rel=1e-5)
    assert two["parameter norm"] == pytest.approx(2 * one["parameter norm"], rel=1e-5)


def test_at_the_start_nothing_has_moved():
    params = {"w": jnp.ones((2, 3))}
    found = predictor_measures(params, params)
    assert found["distance from start"] == found["spectral complexity"] == 0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="different shapes"):
        predictor_measures([jnp.ones((2, 2))], [jnp.ones((3, 2))])
    with pytest.raises(ValueError, match="margin"):
        predictor_measures([jnp.ones((2, 2))], [jnp.ones((2, 2))], margin=0.0)
