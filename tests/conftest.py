"""Fixtures that every room's tests share."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from lggwjax.gradients import engine

MAPS = 15_000
_COMPILED: list[str] = []
# Compiling is nearly all of the quick tests' time; the slow ones compile as users do.
_QUICK_TO_COMPILE = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"


def pytest_configure(config: pytest.Config) -> None:
    """Compile with less trying, before jax has started, unless the slow tests are asked for."""
    if config.option.markexpr.startswith("not slow"):
        os.environ.setdefault("XLA_FLAGS", _QUICK_TO_COMPILE)


def _listen(event: str, duration: float, **_) -> None:
    if event.endswith("backend_compile_duration"):
        _COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)  # for good: jax has no public way to take one off


@pytest.fixture
def compilations() -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """A context whose list holds, once it is left, one entry for each program that was compiled inside it."""

    @contextlib.contextmanager
    def counted() -> Iterator[list[str]]:
        before, found = len(_COMPILED), []
        yield found
        found += _COMPILED[before:]

    return counted


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_let_go() -> Iterator[None]:
    """Each holds some maps of memory, of which a process may have 65,530 on Linux: a thousand slow tests need more."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()
        engine._engines.clear()
        gc.collect()


@pytest.fixture(autouse=True)
def _no_hint_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint at losses made anew counts in a process: no test may set it off for another."""
    monkeypatch.setattr(engine, "_seen_at", OrderedDict())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real MNIST and CIFAR-10 files, where one lies beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data with real MNIST and CIFAR-10 files")
    return folder
