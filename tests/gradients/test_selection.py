"""Which leaves are gradient coordinates."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from lggwjax.gradients.selection import as_partial, batch_size, select

PARAMS = {"a": jnp.ones(2), "b": {"c": np.zeros(3, np.float32), "n": jnp.int32(1)}, "s": 0.5, "flag": True}


def test_by_default_all_floating_leaves():
    selection = select(PARAMS)
    coordinates, others = selection.split(PARAMS)
    assert [np.shape(c) for c in coordinates] == [(2,), (3,), ()]
    assert others == [1, True]


def test_merge_undoes_split_and_tree_marks_the_rest():
    selection = select(PARAMS)
    merged = selection.merge(*selection.split(PARAMS))
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    assert merged["b"]["n"] is PARAMS["b"]["n"]
    assert selection.tree([1, 2, 3]) == {"a": 1, "b": {"c": 2, "n": None}, "s": 3, "flag": None}


def test_a_predicate_sees_path_and_leaf():
    selection = select(PARAMS, lambda path, leaf: path[0].key == "b" and np.ndim(leaf) == 1)
    assert selection.chosen == (False, True, False, False, False)


def test_a_mask_that_can_be_called_is_a_mask():
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    mask = eqx.tree_at(lambda m: m.bias, jax.tree.map(lambda _: True, model), False)
    assert callable(mask)
    coordinates, others = select(model, mask).split(model)
    assert coordinates[0].shape == (3, 2)
    assert others[0].shape == (3,)


def test_a_predicate_on_a_single_array():
    assert select(jnp.ones(3), lambda path, leaf: leaf.ndim == 1).chosen == (True,)


def test_selections_are_hashable_and_equal_when_the_structure_is():
    moved = jax.tree.map(lambda x: x, PARAMS)
    assert select(PARAMS) == select(moved)
    assert hash(select(PARAMS)) == hash(select(moved))


@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        ({"a": True}, "Expected wrt of the structure of params"),
        (lambda path, leaf: False, "at least one floating leaf"),
        (
            lambda path, leaf: True,
            r"Expected floating gradient coordinates, got int32 at params\['b'\]\['n'\]|got bool",
        ),
    ],
)
def test_wrong_selections_are_refused(wrt, message):
    with pytest.raises(ValueError, match=message):
        select(PARAMS, wrt)


def test_parameters_without_floating_leaves_are_refused():
    with pytest.raises(ValueError, match="at least one floating leaf"):
        select({"n": jnp.int32(1)})


def test_as_partial_keeps_functions_by_identity_and_arrays_as_leaves():
    def loss(params, example):
        return params @ example

    assert jax.tree.structure(as_partial(loss)) == jax.tree.structure(as_partial(loss))
    bound = Partial(loss)
    assert as_partial(bound) is bound
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))  # its activation is a leaf that is no array
    shaped = as_partial(model)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(shaped))


def test_batch_size():
    assert batch_size({"x": jnp.ones((4, 2)), "y": np.ones(4)}) == 4
    with pytest.raises(ValueError, match="one common leading axis"):
        batch_size({"x": jnp.ones((4, 2)), "y": np.ones(3)})
