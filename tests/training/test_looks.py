"""What is said at every look: right at all looks at once, where plain intervals are not, and slow to turn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from lggwjax.training.looks import Judgement, Turns, look_interval, spent, word

LOOKS, RUNS = 200, 300


def test_all_looks_together_spend_the_error_asked_for():
    total = sum(spent(look, 0.9) for look in range(1, 20001))
    assert 0.1 - 1e-5 < total < 0.1
    assert all(spent(k) > spent(k + 1) for k in range(1, 50))


@pytest.mark.parametrize(("look", "level"), [(0, 0.95), (1, 0.0), (1, 1.0)])
def test_looks_and_levels_are_checked(look, level):
    with pytest.raises(ValueError, match="Expected look >= 1 and 0 < level < 1"):
        spent(look, level)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 held-out samples, got 1"):
        look_interval(np.ones((1, 1)), 1)


def test_on_normal_values_it_is_the_t_interval_of_its_level():
    values = np.random.default_rng(0).uniform(size=(50, 1))  # lighter tails than normal: m - 1 degrees of freedom
    found = look_interval(values, 3, 0.9)
    t = stats.ttest_1samp(values[:, 0], 0).confidence_interval(1 - spent(3, 0.9))
    np.testing.assert_allclose([found.low[0], found.high[0]], [t.low, t.high], rtol=1e-10)
    assert found.value[0] == pytest.approx(values.mean())
    assert found.stderr[0] == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_intervals_grow_with_looks_and_with_the_number_of_statements():
    values = np.random.default_rng(0).normal(size=(40, 1))
    widths = [np.ptp([look_interval(values, k).low[0], look_interval(values, k).high[0]]) for k in (1, 5, 50, 5000)]
    assert (np.diff(widths) > 0).all()
    several = look_interval(np.repeat(values, 10, axis=1), 1)
    assert several.low[0] < look_interval(values, 1).low[0]


def test_few_samples_that_carry_the_spread_count_as_few():
    values = np.zeros((100, 1))
    values[:4, 0] = [10.0, 9.0, 11.0, 10.0]
    even = np.random.default_rng(0).normal(0.4, 1.95, size=(100, 1))
    heavy, light = look_interval(values, 20), look_interval(even, 20)
    assert light.stderr[0] == pytest.approx(heavy.stderr[0], rel=0.1)
    assert (heavy.high - heavy.low)[0] > 1.5 * (light.high - light.low)[0]


def test_values_without_spread_are_decided_only_when_not_zero():
    assert look_interval(np.zeros((20, 1)), 1).signs.tolist() == [0]
    assert look_interval(np.full((20, 1), 0.5), 1).signs.tolist() == [1]


def _runs(rng, num, steps=LOOKS, features=40):
    """Descents of a drifting direction on fixed held-out samples, mean 0 in the population at every look."""
    for _ in range(RUNS):
        samples = rng.normal(size=(num, features))
        direction = rng.normal(size=features)
        values = np.empty((steps, num))
        for step in range(steps):
            values[step] = samples @ direction
            direction = 0.9 * direction + 0.44 * rng.normal(size=features)
        yield values


def _ever_wrong(rng, num, sign_of):
    wrong = [any(sign_of(row, look) != 0 for look, row in enumerate(values, 1)) for values in _runs(rng, num)]
    return np.mean(wrong)


def test_the_chance_of_ever_a_wrong_word_over_200_looks_keeps_to_the_level():
    rate = _ever_wrong(np.random.default_rng(1), 64, lambda row, look: look_interval(row[:, None], look).signs[0])
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / RUNS)
    quantile = special.stdtrit(63, 0.975)
    plain = _ever_wrong(
        np.random.default_rng(1), 64, lambda row, _: abs(row.mean()) > quantile * row.std(ddof=1) / np.sqrt(64)
    )
    assert plain > 0.5, "the negative control: 95% at each look fails over many looks"


def test_layers_keep_to_the_level_among_themselves():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(RUNS):
        judgement = Judgement.start(0, 12, 64)
        fixed = rng.normal(size=(64, 12))
        for step in range(8):
            judgement, look = judgement.judged(step, fixed + rng.normal(size=(64, 12)), 0.95)
            if (look.layers.signs != 0).any():
                wrong += 1
                break
    assert wrong / RUNS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.slow
def test_on_descents_of_a_trained_network_too_with_256_samples():
    values = _descents_of_a_network()
    values = values - values.mean(1, keepdims=True)  # every look null, skewness and kurtosis as they are
    kurtosis = stats.kurtosis(values, axis=1, fisher=False)
    assert np.median(kurtosis) > 15, "far from normal: that is what is tried here"
    rng, wrong, plain, runs = np.random.default_rng(0), 0, 0, 300
    quantile = special.stdtrit(255, 0.975)
    for _ in range(runs):
        probe = values[:, rng.integers(0, values.shape[1], 256)].T
        signs = [look_interval(probe[:, [k]], k + 1).signs[0] for k in range(probe.shape[1])]
        wrong += any(signs)
        plain += bool((abs(probe.mean(0)) > quantile * probe.std(0, ddof=1) / 16).any())
    assert wrong / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert plain / runs > 0.3


def _descents_of_a_network():
    """Descents of every tenth Adam step on batches of 32 out of 300 digits, on the other 1,497: shape (150, 1497)."""
    import jax
    import jax.numpy as jnp
    import optax
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    sizes = (64, 128, 128, 10)
    keys = jax.random.split(jax.random.key(1), 3)
    params = [
        (jax.random.normal(key, (a, b)) * np.sqrt(2 / a), jnp.zeros(b))
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]

    def losses(params, x, y):
        for kernel, bias in params[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        logits = x @ params[-1][0] + params[-1][1]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)

    optimizer = optax.adam(0.001)
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, x, y):
        gradient = jax.grad(lambda p: losses(p, x, y).mean())(params)
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state

    @jax.jit
    def descents(before, after):
        step = jax.tree.map(jnp.subtract, before, after)
        return jax.jvp(lambda p: losses(p, x[300:], y[300:]), (before,), (step,))[1]

    found = []
    for step in range(1500):
        rows = rng.integers(0, 300, 32)
        after, state = update(params, state, x[rows], y[rows])
        if step % 10 == 9:
            found.append(np.asarray(descents(params, after), float))
        params = after
    return np.array(found)


def _follow(signs):
    turns = Turns.start(1)
    for step, sign in enumerate(signs):
        turns = turns.saw(10 * step, np.array([sign]))
    return turns


def test_two_decided_looks_in_a_row_turn_a_verdict():
    cases = {
        (): (0, -1, -1),
        (1,): (0, -1, -1),
        (1, 1): (1, 0, -1),
        (1, 0, 0, 1): (1, 0, -1),
        (1, 1, -1): (1, 0, -1),
        (1, 1, -1, 1, -1): (1, 0, -1),
        (1, 1, -1, 0, -1): (-1, 20, 20),
        (1, 1, -1, -1, 0, 0): (-1, 20, 20),
        (-1, -1, 1, 1, -1, -1): (-1, 40, 0),
        (-1, -1, 1, 1): (1, 20, 0),
    }
    for signs, (verdict, since, first) in cases.items():
        turns = _follow(signs)
        assert (turns.verdict[0], turns.since[0], turns.first_hurt[0]) == (verdict, since, first), signs


def test_the_last_decided_look_is_remembered():
    assert _follow((1, 1, 0, 0)).decided[0] == 10
    assert _follow((0, 0)).decided[0] == -1


def test_turns_are_kept_apart_and_take_no_room():
    turns = Turns.start(3)
    for step in range(1000):
        turns = turns.saw(step, np.array([1, 0, -1]))
    assert turns.verdict.tolist() == [1, 0, -1]
    assert turns.first_hurt.tolist() == [-1, -1, 0]
    assert all(array.shape == (3,) for array in vars(turns).values())
    assert turns.row.max() == 2


def test_a_look_counts_on_from_those_of_an_earlier_process():
    values = np.random.default_rng(0).normal(0.3, 1.0, size=(64, 2))
    first, late = Judgement.start(0, 2, 64), Judgement.start(500, 2, 64)
    (after, look), (later, wide) = first.judged(7, values, 0.95), late.judged(7, values, 0.95)
    assert (after.looks, later.looks) == (1, 501)
    assert wide.whole.low[0] < look.whole.low[0]
    np.testing.assert_allclose(look.layers.value.sum(), look.whole.value[0])
    np.testing.assert_allclose(look.samples, values.sum(1))


def test_words():
    assert [word(sign) for sign in (1, 0, -1)] == ["helps", "undecided", "hurts"]
