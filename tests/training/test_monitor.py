"""A monitor in a loop: right words at all looks, exact parts, constant memory, its share of the time, and donation."""

from __future__ import annotations

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lggwjax.gradients.selection import as_partial, select
from lggwjax.training import Monitor, population_descent
from lggwjax.training import monitor as monitors
from lggwjax.training.meter import Meter

DIM, STEPS = 30, 40


TRUE = np.r_[3 * np.ones(3), np.zeros(DIM - 3)].astype(np.float32)


def loss(params, example):
    weights = jnp.concatenate([params["a"], params["b"]])
    return 0.5 * (weights @ example["x"] - example["y"]) ** 2 * params["one"]


def _draw(num, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, DIM)).astype(np.float32)
    return {"x": x, "y": (x @ TRUE + 5 * rng.normal(size=num)).astype(np.float32)}


TRAIN, HELDOUT = _draw(30, 0), _draw(1000, 1)
START = {"a": jnp.zeros(10), "b": jnp.zeros(DIM - 10), "idle": jnp.ones(2), "one": jnp.int32(1)}


def _descend(params):
    gradient = jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, TRAIN).mean(), allow_int=True)(params)
    return params | {name: params[name] - 0.1 * gradient[name] for name in ("a", "b")}


def _monitor(train=TRAIN, heldout=HELDOUT, **options):
    return Monitor(loss, train, heldout, **({"num_draws": 64} | options))


def _watch(monitor, path, **options):
    state, reports = monitor.init(path[0], **options), []
    for step, params in enumerate(path):
        state, report = monitor.observe(state, step, params)
        reports.append(report)
    return state, reports


@pytest.fixture(scope="module")
def path():
    update, path = jax.jit(_descend), [START]
    for _ in range(STEPS):
        path.append(update(path[-1]))
    return path


@pytest.fixture(scope="module")
def watched(path):
    return _watch(_monitor(every=1), path)


def _truth(before, after):
    """The population descent itself: inputs are standard normal."""
    flat = lambda p: np.r_[p["a"], p["b"]].astype(float)  # noqa: E731
    return -(flat(after) - flat(before)) @ (flat(before) - TRUE)


def test_it_says_helps_and_then_hurts_and_is_never_wrong(path, watched):
    _, reports = watched
    words = [report.word for report in reports]
    for step in range(1, STEPS + 1):
        truth = _truth(path[step - 1], path[step])
        assert words[step] in ("undecided", "helps" if truth > 0 else "hurts"), step
        low, high = reports[step].descent.low, reports[step].descent.high
        assert low <= truth <= high, step
    assert words[1] == "helps"
    assert words[-1] == "hurts"


def test_the_verdict_turns_at_the_second_decided_look_and_dates_from_the_first(watched):
    _, reports = watched
    for good, verdict in (("helps", reports[2]), ("hurts", reports[-1])):
        assert verdict.verdict == good
    turn = next(report.step for report in reports if report.verdict == "hurts")
    hurting = [report.step for report in reports if report.word == "hurts"]
    assert hurting[1] == turn
    assert reports[-1].since == hurting[0]
    assert reports[turn - 1].verdict == "helps"
    assert reports[1].verdict == "undecided"
    assert f"since step {hurting[0]}" in str(reports[-1])


def test_the_parts_of_the_layers_sum_to_the_descent_of_the_whole_and_the_samples_average_to_it(path, watched):
    _, reports = watched
    for step in (1, 7, STEPS):
        report = reports[step]
        names = [layer.name for layer in report.layers]
        assert names == ["a", "b", "idle"]
        parts = [layer.descent.value for layer in report.layers]
        assert sum(parts) == pytest.approx(report.descent.value, rel=1e-9)
        assert parts[2] == 0
        before, after = path[step - 1], path[step]
        whole = population_descent(as_partial(loss), before, after, HELDOUT, select(before))
        assert report.descent.value == pytest.approx(whole.value, rel=1e-4)
        assert report.descent.stderr == pytest.approx(whole.stderr, rel=1e-4)
        field = report.record["population_descent"]
        np.testing.assert_allclose(field["ci95"], [whole.low, whole.high], rtol=1e-4, atol=1e-9)
        only_a = population_descent(as_partial(loss), before, before | {"a": after["a"]}, HELDOUT, select(before))
        assert parts[0] == pytest.approx(only_a.value, rel=1e-3, abs=1e-7)


def test_layers_and_samples_that_turned_first_are_named(path, watched):
    _, reports = watched
    last = reports[-1]
    # Part b has nothing to learn: it only fits noise, and hurts long before part a, if that ever does.
    assert last.layers_turned_first[0].name == "b"
    assert last.layers[1].verdict == "hurts"
    assert last.layers[2].first_hurt is None
    hurt = [report.step for report in reports if report.layers and report.layers[1].word == "hurts"]
    assert last.layers[1].first_hurt == hurt[0]
    slopes = np.array(
        [_sample_descent(path[-2], path[-1], HELDOUT["x"][i], HELDOUT["y"][i]) for i in range(len(HELDOUT["y"]))]
    )
    assert [sample.index for sample in last.most_hurt] == np.argsort(slopes, kind="stable")[:5].tolist()
    np.testing.assert_allclose([s.value for s in last.most_hurt], np.sort(slopes)[:5], rtol=1e-3)
    assert slopes.mean() == pytest.approx(last.descent.value, rel=1e-3)
    firsts = [sample.first_hurt for sample in last.turned_first]
    assert firsts == sorted(firsts)
    assert len(firsts) == 5
    one = last.turned_first[0]
    for step in (one.first_hurt, one.first_hurt + 1):
        assert _sample_descent(path[step - 1], path[step], HELDOUT["x"][one.index], HELDOUT["y"][one.index]) < 0


def _sample_descent(before, after, x, y):
    flat = lambda p: np.r_[p["a"], p["b"]].astype(float)  # noqa: E731
    return -(flat(after) - flat(before)) @ x * (flat(before) @ x - y)


def test_an_exploding_lggw_is_no_alarm():
    goal = 1e4 * jnp.ones(DIM)
    train, heldout = ({"x": probe["x"], "y": probe["x"] @ np.asarray(goal)} for probe in (TRAIN, HELDOUT))
    path = [START]
    for _ in range(8):
        flat = jnp.concatenate([path[-1]["a"], path[-1]["b"]])
        flat = flat + 0.003 * 2 ** len(path) * (goal - flat) / 2
        path.append(START | {"a": flat[:10], "b": flat[10:]})
    _, reports = _watch(_monitor(train, heldout, every=1), path)
    widths = [report.record["lggw"]["value"] for report in reports]
    assert widths[-1] > 50 * widths[1] > 0
    assert {report.word for report in reports[1:]} == {"helps"}
    assert {report.verdict for report in reports[2:]} == {"helps"}


def test_without_a_held_out_probe_it_refuses_to_speak_of_drift(path):
    _, reports = _watch(_monitor(heldout=None, every=2), path[:5])
    report = reports[-1]
    assert report.word == report.verdict == "unknown"
    assert report.descent is None
    assert report.layers == report.most_hurt == ()
    assert report.reason == "no held-out probe: nothing can be said about unseen data; pass heldout_probe=."
    assert report.record["lggw"]["value"] > 0
    assert report.record["status"]["lggw"] == "descriptive"
    assert report.record["population_descent"] is None
    with pytest.raises(ValueError, match="pass heldout_probe="):
        report.require_verdict()
    assert "unknown" in str(report)


def test_with_one_it_answers(watched):
    _, reports = watched
    assert reports[-1].require_verdict() == "hurts"
    assert reports[0].require_verdict() == "undecided"
    assert reports[0].descent is None
    assert "No step was seen before this look" in str(reports[0])
    assert str(reports[1]).startswith("Step 1: undecided. The last step descends ")
    assert reports[1].compile_seconds > reports[1].measuring_seconds > 0


def test_it_measures_at_multiples_and_looks_at_the_last_step_alone(path, watched):
    monitor = _monitor(every=7)
    state, reports = _watch(monitor, path[:30])
    assert [report.step for report in reports if report] == [0, 7, 14, 21, 28]
    assert [report.move for report in reports if report] == [0, 1, 1, 1, 1]
    assert reports[14].descent.value == pytest.approx(watched[1][14].descent.value, rel=1e-6)
    assert state.previous is None, "parameters are kept only from the step before a look to the look"


def test_observed_now_and_then_it_speaks_of_the_move(path):
    monitor = _monitor(every=20)
    state, reports = monitor.init(path[0]), []
    for step in range(0, STEPS + 1, 5):
        state, report = monitor.observe(state, step, path[step])
        reports += [report] if report else []
    assert [(report.step, report.move) for report in reports] == [(0, 0), (20, 5), (40, 5)]
    whole = population_descent(as_partial(loss), path[15], path[20], HELDOUT, select(START))
    assert reports[1].descent.value == pytest.approx(whole.value, rel=1e-4)
    assert "The last move of 5 steps" in str(reports[1])


def test_buffers_may_be_donated_or_overwritten(path, watched):
    update = jax.jit(_descend, donate_argnums=0)
    monitor = _monitor(every=3)
    params = jax.tree.map(lambda leaf: leaf.copy(), START)
    state, reports = monitor.init(params), []
    for step in range(10):
        state, report = monitor.observe(state, step, params)
        reports += [report] if report else []
        given, params = params, update(params)
        assert given["a"].is_deleted()
    assert [report.step for report in reports] == [0, 3, 6, 9]
    for report in reports[1:]:
        assert report.descent.value == pytest.approx(watched[1][report.step].descent.value, rel=1e-5)
    # numpy parameters that are changed in place
    numpy_params = jax.tree.map(lambda leaf: np.array(leaf), path[2])
    state = monitor.init(numpy_params)
    state, _ = monitor.observe(state, 2, numpy_params)
    numpy_params["a"][:], numpy_params["b"][:] = path[3]["a"], path[3]["b"]
    state, report = monitor.observe(state, 3, numpy_params)
    assert report.descent.value == pytest.approx(watched[1][3].descent.value, rel=1e-5)


def test_it_is_pure(path):
    monitor = _monitor(every=1)
    state, _ = _watch(monitor, path[:3])
    kept = jax.tree.map(np.array, state.judgement.whole.verdict), state.step
    first, second = (monitor.observe(state, 3, path[3])[1] for _ in range(2))
    assert (state.judgement.whole.verdict, state.step) == kept
    drop = {"seconds", "peak_memory"}
    assert {k: v for k, v in first.record.items() if k not in drop} == {
        k: v for k, v in second.record.items() if k not in drop
    }
    again = monitor.observe(pickle.loads(pickle.dumps(state)), 3, path[3])[1]
    assert again.descent == first.descent


def test_nothing_is_compiled_after_the_first_look(path, compilations):
    monitor = _monitor(every=1)
    state, _ = monitor.observe(monitor.init(path[0]), 0, path[0])
    with compilations() as compiled:
        for step in range(1, 12):
            state, _ = monitor.observe(state, step, path[step])
    assert compiled == []
    with compilations() as compiled:
        jax.block_until_ready(jax.jit(lambda x: x * 3.25)(jnp.ones(7)))
    assert compiled, "the count does see a compilation"


def _nbytes(state):
    if isinstance(state, jax.Array | np.ndarray):
        return state.nbytes
    if dataclasses.is_dataclass(state):
        return sum(_nbytes(getattr(state, field.name)) for field in dataclasses.fields(state))
    if isinstance(state, dict):
        return sum(map(_nbytes, state.values()))
    return sum(map(_nbytes, state)) if isinstance(state, list | tuple) else 0


def test_memory_is_constant_and_so_is_a_report(path, watched):
    early, _ = _watch(_monitor(every=1), path[:3])
    late, reports = watched
    assert _nbytes(early) == _nbytes(late)
    # Bytes of a pickle grow by the digits of its counters and the nine costs at most.
    assert len(pickle.dumps(late)) < len(pickle.dumps(early)) + 200
    assert {len(report.scalars()) for report in reports} == {len(reports[0].scalars())}
    assert len(json.dumps(reports[-1].record)) < 1.5 * len(json.dumps(reports[10].record))


def test_records_are_strict_json_of_one_schema(watched):
    _, reports = watched
    for report in reports:
        assert json.loads(json.dumps(report.record, allow_nan=False)) == report.record
    assert {tuple(report.record) for report in reports} == {tuple(reports[0].record)}
    assert {tuple(report.scalars()) for report in reports} == {tuple(reports[0].scalars())}
    scalars = reports[-1].scalars()
    assert scalars["layers/b/value"] == reports[-1].layers[1].descent.value
    assert scalars["population_descent/ci95_low"] == reports[-1].record["population_descent"]["ci95"][0]
    assert all(value is None or isinstance(value, int | float | str) for value in scalars.values())


class _Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_share_of_the_wall_time_is_kept_exactly(path, monkeypatch):
    clock, costs = _Clock(), []
    measure = Meter.measure

    def timed(self, *arguments):
        costs.append(40.0 if not costs else 2.0)  # the first compiles
        clock.now += costs[-1]
        return measure(self, *arguments)

    monkeypatch.setattr(Meter, "measure", timed)
    monitor = _monitor(overhead=0.1, clock=clock)
    state, reports = monitor.init(path[0]), []
    for step in range(400):
        state, report = monitor.observe(state, step, path[min(step, STEPS)])
        if report is not None:
            reports.append(report)
            after = state.pace.measuring_seconds / (clock.now - 100.0 - state.pace.compile_seconds)
            assert len(reports) == 1 or after <= 0.1 + 1 / (clock.now - 100.0)
        clock.now += 1.0
    assert state.pace.compile_seconds == 38.0
    assert costs.count(2.0) == len(reports), "one look for compiling, and one a report"
    wall = clock.now - 100.0 - 38.0
    assert 0.09 * wall < 2.0 * (len(reports) + 1) <= 0.1 * wall
    assert reports[1].record["seconds"] == {
        "training": pytest.approx(reports[1].step),
        "measuring": 4.0,
        "compiling": 38.0,
    }
    assert all(report.move == 1 for report in reports[1:]), "decided one step ahead"


def test_writers_are_paid_from_the_same_share(path):
    clock, seen = _Clock(), []

    def slow(report):
        seen.append(report)
        clock.now += 3.0

    monitor = _monitor(overhead=0.5, clock=clock, writers=[slow, seen.append])
    state = monitor.init(path[0])
    state, report = monitor.observe(state, 0, path[0])
    assert seen == [report, report]
    assert state.pace.costs == (3.0,)


def test_the_start_is_measured_whatever_the_step(path):
    state, report = _monitor(every=50).observe(_monitor(every=50).init(path[3]), 3, path[3])
    assert report.step == 3
    assert report.descent is None
    assert (state.step, state.measured) == (3, 3)


def test_widths_are_those_of_as_many_samples_on_both_sides(watched, monkeypatch):
    record = watched[1][-1].record
    for name in ("lggw", "cloud_width", "heldout_lggw", "heldout_cloud_width"):
        assert record[name]["num_samples"] == 30
    monkeypatch.setattr(monitors, "WIDTH_SAMPLES", 8)
    assert len(_monitor(every=1)._meter._samples.heldout_probe["y"]) == 8


def test_looks_of_an_earlier_process_count(path):
    monitor = _monitor(every=1)
    _, fresh = _watch(monitor, path[:2])
    _, after = _watch(monitor, path[:2], looks=1000)
    assert after[1].looks == 1001
    assert after[1].descent.low < fresh[1].descent.low
    with pytest.raises(ValueError, match="Expected looks >= 0"):
        monitor.init(path[0], looks=-1)


def test_steps_must_rise(path):
    monitor = _monitor(every=1)
    state, _ = _watch(monitor, path[:2])
    for step in (1, 0):
        with pytest.raises(ValueError, match="Expected steps from 0 on that rise"):
            monitor.observe(state, step, path[2])


def test_nan_is_said_with_its_step(path):
    monitor = _monitor(every=1)
    state, _ = _watch(monitor, path[:2])
    with pytest.raises(FloatingPointError, match="met at step 2"):
        monitor.observe(state, 2, path[2] | {"a": jnp.full(10, jnp.nan)})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"every": 5, "overhead": 0.1}, "every or overhead, got both"),
        ({"every": 0}, "every >= 1"),
        ({"overhead": 0.0}, "0 < overhead < 1"),
        ({"overhead": 5.0}, "0 < overhead < 1"),
        ({"level": 95.0}, "0 < level < 1"),
        ({"heldout": _draw(15, 3)}, "at least 16 held-out samples, got 15"),
        ({"heldout": {"x": HELDOUT["x"]}}, "of the form of the training probe"),
        ({"heldout": TRAIN}, "30 of 30 that are in the training probe too"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        _monitor(**options)


def test_the_first_process_decides_when_to_measure(monkeypatch):
    from lggwjax.training import monitor as module

    for decided in (True, False):  # whatever the clock of this process says
        monkeypatch.setattr(module, "on_first", lambda action, d=decided: d)
        monitor, params = _monitor(), START
        state, _ = monitor.observe(monitor.init(params), 0, params)
        _, report = monitor.observe(state, 1, params)
        assert (report is not None) == decided


@pytest.mark.slow
def test_five_per_cent_of_a_real_loop():
    import time

    update = jax.jit(_descend)
    monitor, params, seconds = _monitor(), START, []
    state = monitor.init(params)
    start = time.perf_counter()
    for step in range(3000):
        before = time.perf_counter()
        state, report = monitor.observe(state, step, params)
        seconds.append(time.perf_counter() - before if report else 0.0)
        params = update(params)
        time.sleep(0.005)
    wall = time.perf_counter() - start - seconds[0]
    assert sum(value > 0 for value in seconds) > 3
    assert sum(seconds[1:]) / wall < 0.06, "measured from outside, by another clock"
