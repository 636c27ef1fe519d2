"""The gate against losses that are dominated by their gradients and losses that are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.training import domination_gate

KEY = jax.random.key(0)


def convex(w, z):
    return 0.5 * jnp.sum((w - z) ** 2)


def plateau(w, z):
    """Flat far from the valley: nearly no gradient, and nearly all of the loss still to be gained."""
    return 1 - jnp.exp(-0.5 * jnp.sum((w - 0.1 * z) ** 2))


def _heldout(num, seed=0):
    return jax.random.normal(jax.random.key(seed), (num, 3))


def _line(start, length=6):
    return [jnp.full(3, float(x)) for x in np.linspace(start, 0.0, length)]


def test_a_convex_loss_passes():
    gate = domination_gate(convex, _line(4.0), _heldout(400))
    assert gate.verdict == "yes"
    known = np.array([0.5] * 5 + [np.nan])  # |w|^2 / 2 over |w| |w|
    inside = (gate.low <= known) & (known <= gate.high)
    assert inside[:5].all()
    assert gate.best == 5
    assert "best loss seen, not of the least possible" in str(gate)


def test_a_plateau_does_not():
    gate = domination_gate(plateau, _line(4.0), _heldout(400))
    assert gate.verdict == "no"
    assert gate.low[gate.worst] > 2
    assert "plateau" in str(gate)


def test_few_samples_leave_it_undecided():
    noisy = lambda w, z: convex(w, 30 * z)  # noqa: E731
    gate = domination_gate(noisy, _line(1.0), _heldout(64))
    assert gate.verdict == "undecided"
    assert "Hold out more" in str(gate)


def test_no_scale_of_loss_or_parameters_matters():
    first = domination_gate(convex, _line(4.0), _heldout(200))
    louder = domination_gate(lambda w, z: 1e3 * convex(w, z), _line(4.0), _heldout(200))
    longer = domination_gate(lambda w, z: convex(100 * w, z), [w / 100 for w in _line(4.0)], _heldout(200))
    np.testing.assert_allclose(louder.ratios, first.ratios, rtol=1e-4)
    np.testing.assert_allclose(longer.ratios, first.ratios, rtol=1e-4)


@pytest.mark.slow
def test_intervals_hold_together_as_often_as_they_say():
    """Over 200 held-out sets the truth 0.5 is missed by some interval in at most a tenth of them."""
    missed = wrong = 0
    for seed in range(200):
        gate = domination_gate(convex, _line(2.0, 4), _heldout(128, seed), confidence=0.9)
        others = np.arange(4) != gate.best
        missed += gate.best == 3 and not ((gate.low <= 0.5) & (gate.high >= 0.5))[others].all()
        wrong += gate.verdict == "no"
    assert missed <= 20
    assert wrong == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": _line(1.0, 1)}, "2 checkpoints"),
        ({"heldout": _heldout(10)}, "64 held-out"),
        ({"limit": 0.0}, "positive limit"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_wrong_input_is_refused(options, message):
    given = {"path": _line(1.0), "heldout": _heldout(100)} | options
    with pytest.raises(ValueError, match=message):
        domination_gate(convex, given.pop("path"), given.pop("heldout"), **given)
