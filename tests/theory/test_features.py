"""The featurizer's bounds against widths that are known or measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.theory.features import LOOSEST_COTANGENT, feature_width_bounds, last_layer_bound
from lggwjax.widths import closed_form, gaussian_width

KEY = jax.random.key(0)


def _with_zero(points):
    return jnp.concatenate([jnp.asarray(points, jnp.float32), jnp.zeros((1, points.shape[1]))])


def _relu_features(seed: int, num: int = 40, dim: int = 30, shift: float = 0.0):
    return np.maximum(np.random.default_rng(seed).normal(size=(num, dim)) - shift, 0)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_bound_holds_for_the_measured_width(seed, shift):
    features = _relu_features(seed, shift=shift)
    width = gaussian_width(KEY, _with_zero(features), num_draws=2048)
    for name, bound in feature_width_bounds(features).items():
        assert float(width.value - 4 * width.stderr) <= bound.value, name
        assert bound.status == "certified"
        assert bound.about == "measured set"


def test_the_l1_bound_is_attained_and_a_smaller_constant_is_false():
    corners = np.concatenate([np.eye(12), -np.eye(12)])
    bound = feature_width_bounds(corners)["l1"].value
    width = gaussian_width(KEY, corners, num_draws=65_536)
    assert abs(float(width.value) - bound) <= 4 * float(width.stderr)
    assert float(width.value - 4 * width.stderr) > 0.9 * bound


def test_few_active_features_or_a_small_l1_norm_mean_a_small_width():
    dense, sparse = (feature_width_bounds(_relu_features(0, shift=s)) for s in (0.0, 2.0))
    assert sparse["sparse"].value < dense["sparse"].value
    assert sparse["l1"].value < dense["l1"].value
    assert sparse["sparse"].value < sparse["l2"].value  # l2 does not see the zeros


def test_the_sparse_bound_is_the_l2_bound_where_nothing_is_zero():
    bounds = feature_width_bounds(1 + _relu_features(1))
    assert bounds["sparse"].value == pytest.approx(bounds["l2"].value, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_last_layer_s_width_is_below_its_bound(seed):
    """Softmax cross-entropy by brute force: gradients (p - e_y) h^T of a last layer at several weights."""
    rng = np.random.default_rng(seed)
    features, labels = _relu_features(seed, 30, 8), rng.integers(0, 5, 30)
    points = []
    for scale in (0.0, 1.0, 5.0):
        logits = features @ (scale * rng.normal(size=(8, 5)))
        chances = np.exp(logits - logits.max(1, keepdims=True))
        cotangents = chances / chances.sum(1, keepdims=True) - np.eye(5)[labels]
        assert np.linalg.norm(cotangents, axis=1).max() <= LOOSEST_COTANGENT
        points.append(np.einsum("nk,nm->nkm", cotangents, features).reshape(30, -1))
    gradients = gaussian_width(KEY, jnp.asarray(np.concatenate(points), jnp.float32), num_draws=2048)
    width = gaussian_width(KEY, _with_zero(features), num_draws=2048)
    bound = last_layer_bound(width, float(np.linalg.norm(features, axis=1).max()), 5, 30)
    assert float(gradients.value - 4 * gradients.stderr) <= bound.value
    assert bound.confidence == 0.95
    assert float(gradients.value) > bound.value / 10, "the bound is not so loose that nothing could break it"


def test_the_last_layer_s_bound_is_nearly_attained():
    """One long feature vector and any cotangent: the simplex's width times the vector's length."""
    simplex = np.eye(10) - np.eye(10)[0]
    points = np.einsum("nk,m->nkm", simplex, np.array([100.0, 0.0])).reshape(10, -1)
    width = gaussian_width(KEY, jnp.asarray(points, jnp.float32), num_draws=16_384)
    bound = last_layer_bound(closed_form.segment(100.0), 100.0, 10, 1)
    assert bound.parts["cotangents"] == pytest.approx(float(width.value), abs=4 * float(width.stderr))


@pytest.mark.slow
def test_the_featurizer_s_width_alone_does_not_bound_the_network():
    """The false claim: constant features have width 0, and the gradients of layers below differ all the same."""
    features = np.ones((20, 4))
    assert float(gaussian_width(KEY, jnp.asarray(features, jnp.float32), num_draws=256).value) == 0
    lower_layer = np.random.default_rng(0).normal(size=(20, 50))
    assert float(gaussian_width(KEY, jnp.asarray(lower_layer, jnp.float32), num_draws=256).value) > 1
    bound = last_layer_bound(closed_form.segment(2.0), 2.0, 3, 20)
    assert "last layer alone" in str(bound)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"shape \(N, m\)"):
        feature_width_bounds(np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        feature_width_bounds(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="two classes"):
        last_layer_bound(1.0, 1.0, 1, 1)
    with pytest.raises(ValueError, match="at least 0"):
        last_layer_bound(-1.0, 1.0, 2, 1)
