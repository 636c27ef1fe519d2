"""Ten thousand hostile inputs, the same ones each time; and the watch over them would see what breaks the promise."""

from __future__ import annotations

import importlib.util
import mmap
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import guided, run, watch
from tests.fuzz.mutate import LINK
from tests.fuzz.pages import made_by_data
from tests.fuzz.targets import TARGETS, Case, Target
from tests.fuzz.watch import EVERY, Failure, attempt, watching

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_hostile_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target, outcomes = TARGETS[name], Counter[str]()

    @settings(
        max_examples=target.share,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def tried(rng: Random) -> None:
        case, counted = target.mutate(rng), outcomes.total() % EVERY == 0
        outcomes[attempt(target, tmp_path / "x", case, counted=counted).kind] += 1

    with watching():
        tried()
    print(f"{name}: {outcomes.total()} inputs, {dict(outcomes.most_common())}")
    assert outcomes.total() >= target.share
    assert len(outcomes) > 1, "all were refused or all were accepted: nothing was tried"


def test_every_kind_of_checkpoint_is_read_before_it_is_changed(tmp_path: Path) -> None:
    target = TARGETS["checkpoint"]
    with watching():
        found = [attempt(target, tmp_path / "x", case).kind for case in target.seeds()]
    assert found == ["accepted"] * 4


def test_ten_thousand_inputs_are_tried() -> None:
    assert sum(target.share for target in TARGETS.values()) >= 10_000
    million = run.split(1_000_000)
    assert 990_000 < sum(million.values()) <= 1_000_000
    assert all(number >= (2_000 if TARGETS[name].whole else 10_000) for name, number in million.items())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
@pytest.mark.parametrize("name", ["npz", "config"])
def test_fuzzing_guided_by_coverage_finds_new_code_and_no_failure(name: str) -> None:
    found = guided.guided(name, 1000)
    assert found["inputs"] >= 1000
    assert found["branches"] > found["branches_at_first"]


def _raises_another_error(folder: Path, _: Case) -> None:
    raise TypeError("oh")


def _says_two_lines(folder: Path, _: Case) -> None:
    raise ValueError("one\ntwo")


def _steers_the_terminal(folder: Path, _: Case) -> None:
    print("\x1b[2J")


def _tells_a_file_outside(folder: Path, _: Case) -> None:
    print((folder / "link").read_text())


def _writes_outside(folder: Path, _: Case) -> None:
    (folder / "link").write_text("x")


def _allocates(folder: Path, _: Case) -> None:
    np.ones(64 << 20, np.uint8)


def _allocates_in_native_code(folder: Path, _: Case) -> None:
    memory = mmap.mmap(-1, 64 << 20)
    memory.write(b"1" * (64 << 20))


def _allocates_much(folder: Path, _: Case) -> None:
    np.empty(4 << 30, np.uint8)


def _hangs(folder: Path, _: Case) -> None:
    time.sleep(5)


def _leaves(folder: Path, _: Case) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (_raises_another_error, "TypeError"),
        (_says_two_lines, "more than one line"),
        (_steers_the_terminal, "control characters"),
        (_tells_a_file_outside, "a file outside holds"),
        (_writes_outside, "was changed"),
        (_allocates, "bytes held"),
        (_allocates_in_native_code, "bytes held"),
        (_allocates_much, "MemoryError"),
        (_hangs, "more than"),
        (_leaves, "left by"),
    ],
)
def test_the_watch_sees_what_breaks_the_promise(
    read, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SECONDS", 0.5)
    case = Case({"link": LINK + b"../outside/secret.json"})
    with watching(), pytest.raises(Failure, match=said):
        attempt(
            Target("mutant", lambda: [case], read, writes=True, native=read is _allocates_in_native_code),
            tmp_path / "x",
            case,
            counted=read is not _allocates_much,
        )


def test_markup_from_data_is_seen_on_a_page() -> None:
    page = (
        '<!doctype html><html lang="en"><body><p class="x">{}</p><img src="data:image/svg+xml;base64,"></body></html>'
    )
    assert made_by_data(page.format("&lt;script&gt;")) == []
    for hostile in (
        "<script>1</script>",
        "<p onclick=x>",
        "<img src=x>",
        "<svg onload=x>",
        "<!-- -->",
        "<a href='javascript:x'>",
    ):
        assert made_by_data(page.format(hostile)), hostile
