"""Where a device runs out of memory, fewer samples at a time: said so, and the numbers stay."""

from __future__ import annotations

import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lggwjax
from lggwjax.gradients import engine, signed
from lggwjax.gradients.halving import halving
from lggwjax.training import heldout
from lggwjax.training.meter import Meter, Samples

FITS = 3  # samples at once, by the false device
NUM = 20


def exhausted(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.\nand much more")


def loss(params, example):
    hidden = jnp.tanh(example["x"] @ params["in"])
    return 0.5 * (hidden @ params["out"] - example["y"]) ** 2


def draw(num, seed):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(num, 4)).astype(np.float32), "y": rng.normal(size=num).astype(np.float32)}


KEY, BATCH = jax.random.key(0), draw(NUM, 0)
PATH = [
    {"in": jnp.asarray(scale * draw(4, 1)["x"]), "out": jnp.asarray(scale * draw(4, 2)["y"])} for scale in (0.5, 1.0)
]
MEASUREMENTS = {
    "gradient_gram": lambda: lggwjax.gradient_gram(loss, PATH[1], BATCH),
    "gradient_gram in blocks": lambda: lggwjax.gradient_gram(loss, PATH[1], BATCH, chunk_size=7, max_memory=1),
    "per_sample_gradients": lambda: lggwjax.per_sample_gradients(loss, PATH[1], BATCH),
    "random_projections": lambda: lggwjax.random_projections(KEY, loss, PATH[1], BATCH, num_draws=8),
    "lggw": lambda: lggwjax.lggw(KEY, loss, PATH, BATCH, num_draws=64).value,
    "lggw single": lambda: lggwjax.lggw(KEY, loss, PATH, BATCH, "single", num_draws=64).value,
    "lggw union": lambda: lggwjax.lggw(KEY, loss, PATH, BATCH, "union", num_draws=64).value,
    "lggw streamed": lambda: lggwjax.lggw(KEY, loss, PATH, BATCH, "union", num_draws=8, chunk_size=9, max_memory=1),
    "single_widths": lambda: lggwjax.single_widths(KEY, loss, PATH, BATCH, num_draws=64).widths.value,
    "nerc": lambda: lggwjax.nerc(KEY, loss, PATH, BATCH, num_draws=64).value,
    "nerc by gradients": lambda: lggwjax.nerc(KEY, loss, PATH, BATCH, num_draws=4, by="gradients").value,
}


@pytest.fixture
def small_device(monkeypatch):
    """A device whose memory does not suffice for more than three samples at once."""
    passes = []

    def limit(place, name, batch_at):
        whole = getattr(place, name)

        def limited(*arguments):
            num = jax.tree.leaves(arguments[batch_at])[0].shape[0]
            passes.append(num)
            return whole(*arguments) if num <= FITS else exhausted()

        monkeypatch.setattr(place, name, limited)

    def shrink():
        limit(engine.Engine, "factors", 3)
        limit(engine.Engine, "gradients", 3)
        limit(signed, "_signed_sum", 2)
        limit(heldout, "_block_sums", 3)
        limit(heldout, "_descents", 3)
        return passes

    return shrink


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_the_numbers_do_not_depend_on_it_and_each_halving_is_said(small_device, caplog, name):
    expected = MEASUREMENTS[name]()
    passes = small_device()
    found = MEASUREMENTS[name]()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), found, expected)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    sizes = [int(text.split("chunk_size ")[1].split(":")[0]) for text in said]
    assert len(said) >= 2, "the device was too small for the first plan"
    assert all(f"trying {(size + 1) // 2}." in text for size, text in zip(sizes, said, strict=True))
    assert max(passes) > FITS >= min(passes)


@pytest.mark.slow
def test_so_does_a_meter(small_device):
    meter = Meter(loss, Samples(BATCH, draw(9, 5), draw(80, 6), draw(9, 7)), max_checkpoints=2, num_draws=16)

    def records():
        state, found = meter.init(PATH[0]), []
        for before, params in zip([None, PATH[0]], PATH, strict=True):
            state, record = meter.measure(state, params, before)
            found.append({name: value for name, value in record.items() if name != "status"})
        return found

    expected = records()
    small_device()
    found = records()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), found, expected)


def test_what_is_not_of_memory_is_not_tried_again():
    tries = []

    def measure(size):
        tries.append(size)
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        halving(measure, 8)
    assert tries == [8]


def test_one_sample_that_does_not_fit_is_said_in_one_line(caplog):
    with pytest.raises(MemoryError, match=r"one sample at a time .* 7 bytes\. Measure fewer") as caught:
        halving(exhausted, 5)
    assert "\n" not in str(caught.value)
    assert [record.args[:2] for record in caplog.records] == [(5, 3), (3, 2), (2, 1)]


def test_several_processes_do_not_try_again(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        halving(exhausted, 8)


def test_it_works_inside_a_trace():
    inside = jax.jit(lambda params: lggwjax.gradient_gram(loss, params, BATCH, chunk_size=6))(PATH[1])
    np.testing.assert_allclose(inside, lggwjax.gradient_gram(loss, PATH[1], BATCH), rtol=1e-4, atol=1e-5)


REAL = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
import lggwjax
from lggwjax.gradients.engine import pose

def loss(w, z):
    return jnp.sum(jnp.sin(jnp.cumsum(w * z)) ** 2)

w, z = jnp.ones(2**19), jnp.asarray(np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32))
small = lggwjax.gradient_gram(loss, w, z, chunk_size=1, max_memory=2**24)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, -1))
large = lggwjax.gradient_gram(loss, w, z, chunk_size=64)
print(float(jnp.abs(large - small).max() / jnp.abs(small).max()))
"""


@pytest.mark.slow
def test_a_real_limit_of_memory():
    """Not a false device: the process may not have more address space than 150 MiB beyond what it has."""
    if sys.platform != "linux" or jax.default_backend() != "cpu":
        pytest.skip("limits of the address space are Linux's, and say nothing of an accelerator's memory")
    done = subprocess.run([sys.executable, "-c", REAL, "150"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "does not suffice with chunk_size 64: trying 32" in done.stderr
    assert float(done.stdout) < 1e-4
