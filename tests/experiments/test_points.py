"""Points of a study: each once, whatever happens to them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from lggwjax.experiments.points import COMPILED, MAX_ATTEMPTS, Point, open_study, plain, run_points
from lggwjax.report.study import load_study

# Other processes import what they run by name, so it is a module of its own.
_MODULE = """
import os, signal, time
from pathlib import Path

def measure(settings):
    log = Path(settings["log"])
    with log.open("a") as file:
        file.write(f"{settings['number']} {os.getpid()}\\n")
    attempts = log.read_text().split("\\n")
    tried = sum(line.startswith(f"{settings['number']} ") for line in attempts)
    kind = settings["kind"]
    if kind == "waits" and tried == 1:
        time.sleep(600)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fails" or (kind == "fails once" and tried == 1):
        raise RuntimeError("no such luck")
    return {"double": 2.0 * settings["number"], "nothing": float("nan")}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "points_of_this_test.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return importlib.import_module("points_of_this_test")


def some_points(tmp_path: Path, kinds: list[str]) -> list[Point]:
    log = str(tmp_path / "log")
    return [Point(f"p{i}", {"number": i, "kind": kind, "log": log}) for i, kind in enumerate(kinds)]


def runs(tmp_path: Path) -> list[int]:
    log = tmp_path / "log"
    return sorted(int(line.split()[0]) for line in log.read_text().split("\n") if line) if log.exists() else []


def go(tmp_path: Path, module: ModuleType, points: list[Point], *, resume: bool = False, **options) -> list[dict]:
    told: list[dict] = []
    with open_study(tmp_path / "study", "name", "quick", points, resume=resume):
        run_points(tmp_path / "study", module.measure, progress=told.append, **options)
    return told


def test_each_point_runs_once_and_its_result_is_strict_json(tmp_path, module):
    told = go(tmp_path, module, some_points(tmp_path, ["fine"] * 3))
    assert runs(tmp_path) == [0, 1, 2]
    assert [record["id"] for record in told] == ["p0", "p1", "p2"]
    study = load_study(tmp_path / "study")
    assert [point["result"] for point in study.points] == [{"double": 2.0 * i, "nothing": None} for i in range(3)]
    assert (study.num_missing, study.failed) == (0, [])


def test_a_point_that_fails_is_tried_again_and_then_reported(tmp_path, module):
    told = go(tmp_path, module, some_points(tmp_path, ["fails", "fine", "fails once"]))
    assert runs(tmp_path) == [0, 0, 1, 2, 2]
    assert {record["id"]: record["status"] for record in told} == {"p0": "failed", "p1": "done", "p2": "done"}
    study = load_study(tmp_path / "study")
    assert [point["id"] for point in study.points] == ["p1", "p2"]
    [failed] = study.failed
    assert failed["attempts"] == MAX_ATTEMPTS
    assert "RuntimeError: no such luck (points_of_this_test.py, line" in failed["error"]


def test_resuming_runs_what_is_left_and_gives_failures_another_chance(tmp_path, module):
    points = some_points(tmp_path, ["fine", "fails", "fine"])
    go(tmp_path, module, points)
    (tmp_path / "study" / "points" / "p2.json").unlink()
    (tmp_path / "log").unlink()
    told = go(tmp_path, module, points, resume=True)
    assert runs(tmp_path) == [1, 1, 2]
    assert {record["id"] for record in told} == {"p1", "p2"}


def test_a_folder_that_exists_is_refused_and_left_as_it_is(tmp_path, module):
    points = some_points(tmp_path, ["fine"])
    go(tmp_path, module, points)
    before = {file: file.read_bytes() for file in (tmp_path / "study").rglob("*.json")}
    with pytest.raises(ValueError, match=r"which exists\. Add --resume"):
        go(tmp_path, module, points)
    with pytest.raises(ValueError, match="its points differ"):
        go(tmp_path, module, some_points(tmp_path, ["fine", "fine"]), resume=True)
    (tmp_path / "study" / "stranger").mkdir()
    assert {file: file.read_bytes() for file in (tmp_path / "study").rglob("*.json")} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with (
        pytest.raises(ValueError, match=r"Expected a study folder with study\.json"),
        open_study(tmp_path / "other", "name", "quick", points, resume=True),
    ):
        pass


def test_two_starts_on_one_folder_do_not_collide(tmp_path, module):
    points = some_points(tmp_path, ["fine"])
    with open_study(tmp_path / "study", "name", "quick", points):
        with (
            pytest.raises(ValueError, match="in use"),
            open_study(tmp_path / "study", "name", "quick", points, resume=True),
        ):
            pass
        run_points(tmp_path / "study", module.measure)
    assert runs(tmp_path) == [0]


def test_points_share_compiled_programs_and_jax_is_left_as_it_was(tmp_path, module):
    before = jax.config.values["jax_compilation_cache_dir"]
    seen = []
    points = some_points(tmp_path, ["fine"])
    with open_study(tmp_path / "study", "name", "quick", points):
        run_points(tmp_path / "study", lambda _: seen.append(jax.config.values["jax_compilation_cache_dir"]) or {})
    assert seen[0].endswith(".compiled")
    assert jax.config.values["jax_compilation_cache_dir"] == before
    assert not (tmp_path / "study" / ".compiled").exists()


def test_numbers_become_strict_json():
    given = {"a": np.float32(0.5), "b": np.array([[1, 2]]), "c": [float("inf"), True, "x"], 3: np.int64(4)}
    assert plain(given) == {"a": 0.5, "b": [[1, 2]], "c": [None, True, "x"], "3": 4}
    json.dumps(plain(given), allow_nan=False)


@pytest.mark.slow
def test_processes_side_by_side_share_the_points(tmp_path, module):
    told = go(tmp_path, module, some_points(tmp_path, ["fine"] * 6 + ["fails"]), workers=2)
    assert runs(tmp_path) == [0, 1, 2, 3, 4, 5, 6, 6]
    assert len(told) == 7
    assert str(os.getpid()) not in {line.split()[1] for line in (tmp_path / "log").read_text().split("\n") if line}


@pytest.mark.slow
def test_a_point_that_kills_its_process_takes_no_other_point_with_it(tmp_path, module):
    told = go(tmp_path, module, some_points(tmp_path, ["fine", "killed", "fine", "fine"]), workers=2)
    assert {record["id"]: record["status"] for record in told} == {
        "p0": "done",
        "p1": "failed",
        "p2": "done",
        "p3": "done",
    }
    assert runs(tmp_path) == [0, 1, 1, 2, 3]
    assert load_study(tmp_path / "study").failed[0]["error"] == "its process ended."


@pytest.mark.slow
def test_processes_end_with_their_parent_and_the_study_goes_on_later(tmp_path, module):
    points = some_points(tmp_path, ["waits", "waits", "fine"])
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(tmp_path / "code")!r})
from lggwjax.experiments.points import Point, open_study, run_points
import points_of_this_test
if __name__ == "__main__":
    folder = Path({str(tmp_path / "study")!r})
    points = [Point(name, settings) for name, settings in {[tuple(point) for point in points]!r}]
    with open_study(folder, "name", "quick", points):
        run_points(folder, points_of_this_test.measure, workers=2)
"""
    (tmp_path / "script.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], cwd=tmp_path)
    until(lambda: runs(tmp_path) == [0, 1])
    workers = [int(line.split()[1]) for line in (tmp_path / "log").read_text().split("\n") if line]
    parent.kill()
    parent.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert runs(tmp_path) == [0, 1]
    told = go(tmp_path, module, points, resume=True)
    assert {record["id"]: record["status"] for record in told} == dict.fromkeys(("p0", "p1", "p2"), "done")


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # submitit's own
def test_points_go_through_submitit(tmp_path, module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    told = go(tmp_path, module, some_points(tmp_path, ["fine"] * 3), workers=2, cluster="local")
    assert runs(tmp_path) == [0, 1, 2]
    assert len(told) == 3


def test_programs_that_lie_in_a_folder_are_not_run(tmp_path, module):
    """They are machine code, and a folder may come from elsewhere."""
    points = some_points(tmp_path, ["fine"])
    go(tmp_path, module, points)
    foreign = tmp_path / "study" / ".compiled" / "jit_f-cache"
    foreign.parent.mkdir()
    foreign.write_bytes(b"whatever")
    with open_study(tmp_path / "study", "name", "quick", points, resume=True):
        assert not foreign.exists()


@pytest.mark.parametrize("kind", ["link inside", "link outside", "file", "locked folder"])
def test_programs_that_lie_in_a_folder_in_an_odd_way_are_not_run_either(tmp_path, module, kind, monkeypatch):
    points = some_points(tmp_path, ["works"])
    go(tmp_path, module, points)
    folder = tmp_path / "study"
    (folder / "evil").mkdir()
    (folder / "evil" / "program").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    place = folder / COMPILED
    if kind == "file":
        place.touch()
    elif kind == "locked folder":
        place.mkdir()
        monkeypatch.setattr(
            "lggwjax.experiments.points.shutil.rmtree", lambda *_, **__: None
        )  # as root nothing is locked
    else:
        place.symlink_to("evil" if kind == "link inside" else tmp_path / "elsewhere")
    if kind in ("locked folder", "link outside"):
        with pytest.raises(ValueError, match=r"compiled programs|leads out of it"):
            go(tmp_path, module, points, resume=True)
    else:
        go(tmp_path, module, points, resume=True)
        assert not os.path.lexists(place)


@pytest.mark.parametrize("attempts", ["2", None, [], 1.5, -3])
def test_an_odd_number_of_attempts_is_none(tmp_path, module, attempts):
    points = some_points(tmp_path, ["works"])
    go(tmp_path, module, points)
    file = tmp_path / "study" / "points" / "p0.json"
    file.write_text(json.dumps({"id": "p0", "status": "failed", "attempts": attempts}))
    go(tmp_path, module, points, resume=True)
    assert json.loads(file.read_text())["status"] == "done"
