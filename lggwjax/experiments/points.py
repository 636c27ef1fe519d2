"""Running the points of a study: each once, on one process or many, whatever happens to them."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import shutil
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lggwjax.report.study import POINTS_DIR, STUDY_FILE
from lggwjax.strict import read_object, within
from lggwjax.training.config import environment
from lggwjax.training.files import LOCK, Json, lock, lock_folder, partial_name, strict_json, write_json

MAX_ATTEMPTS = 2
_KEPT_FOR = 20  # points whose programs a process keeps in memory
COMPILED = ".compiled"
PILOT = ".pilot.lock"

Measure = Callable[[Json], Json]
Cluster = Literal["here", "local", "slurm"]


class Point(NamedTuple):
    """One point of a study.

    Attributes:
        id: Names its file.
        settings: Strict JSON, all that fixes its numbers.
    """

    id: str
    settings: Json


@contextlib.contextmanager
def open_study(
    folder: Path, name: str, preset: str, points: Sequence[Point], *, resume: bool = False, extra: Json | None = None
) -> Iterator[bool]:
    """Create a study folder, or go on with one; it is this process's alone inside the block.

    Args:
        folder: The folder; its parents are made too.
        name: Of the study.
        preset: ``quick``, ``full``, ``gpu`` or ``own``.
        points: All points, with different names.
        resume: Go on with what is there; points that failed for good get two further attempts.
        extra: Further entries of ``study.json`` that the page needs.

    Yields:
        Whether something was there already.

    Raises:
        ValueError: If the folder exists and ``resume`` is not set, is worked on by another process, or holds another
            study. Nothing in it is changed then.
    """
    asked = {"name": name, "preset": preset, "points": [{"id": p.id, "settings": p.settings} for p in points]}
    asked |= extra or {}
    strict_json(asked)
    if len({point.id for point in points}) != len(points):
        raise ValueError("Expected points with different names, got one twice.")
    file = folder / STUDY_FILE
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder to write the study to, got the file {folder}. Choose another --out.")
    ours = {LOCK, COMPILED, PILOT, partial_name(file).name}
    strangers = {entry.name for entry in folder.iterdir()} - ours if folder.exists() else set()
    if strangers and not resume:
        raise ValueError(f"Expected a new folder, got {folder}, which exists. Add --resume or choose another --out.")
    if strangers and STUDY_FILE not in strangers:
        raise ValueError(f"Expected a study folder with {STUDY_FILE}, got {folder} with {min(strangers)}.")
    _refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    held = lock_folder(folder)
    try:
        there = file.exists()
        if there:
            _refuse_other_study(file, asked)
            _forgive(folder)
            forget_programs(folder)
        else:
            (folder / POINTS_DIR).mkdir(exist_ok=True)
            write_json(file, asked | {"environment": environment()})
        yield there
        forget_programs(folder)
    finally:
        os.close(held)


def _refuse_links(folder: Path) -> None:
    """What lies in a study is read, replaced and removed: none of it may be somebody's elsewhere."""
    for place in (folder, folder / POINTS_DIR):
        for entry in place.iterdir() if place.is_dir() else ():
            within(folder, *entry.relative_to(folder).parts)


def _refuse_other_study(file: Path, asked: Json) -> None:
    held = read_object(file, "Choose another --out.")
    for name, value in asked.items():
        if strict_json(value) != strict_json(held.get(name)):
            raise ValueError(
                f"Expected the study in {file}, got another one: its {name} differ. Ask for the same, or choose "
                "another --out."
            )


def _forgive(folder: Path) -> None:
    """Let points that failed, or whose process died, be tried again."""
    for file in (folder / POINTS_DIR).glob("*.json"):
        record = read_object(file, "")
        if record.get("status") != "done":
            write_json(file, record | {"status": "failed", "attempts": 0})


def run_points(
    folder: Path,
    measure: Measure,
    *,
    workers: int = 1,
    cluster: Cluster = "here",
    cluster_options: Json | None = None,
    progress: Callable[[Json], None] | None = None,
) -> None:
    """Run all points of an open study that are not done, each at most twice.

    Args:
        folder: Inside :func:`open_study`.
        measure: From the settings of a point to its result, strict JSON types; a function that another process can
            import by its name.
        workers: Processes side by side. One is this process itself.
        cluster: ``here``, or through submitit: ``slurm``, or ``local`` processes of its own.
        cluster_options: What submitit's ``update_parameters`` takes: ``{"slurm_partition": "gpu"}``.
        progress: Called with each point's record when it is done or has failed for good.

    Raises:
        ValueError: If ``workers < 1``, or submitit is asked for and not installed.
    """
    if workers < 1:
        raise ValueError(f"Expected workers >= 1, got {workers}.")
    announce = progress or (lambda _: None)
    if cluster != "here":
        _run_jobs(_submitted(folder, measure, workers, cluster, cluster_options or {}), folder, announce)
    elif workers == 1:
        work(folder, measure, announce)
    else:
        context = multiprocessing.get_context("spawn")
        # A process that was killed leaves its point to the next round; a point is given up after two attempts.
        for _ in range(MAX_ATTEMPTS + 1):
            if not any(_to_do(folder)):
                break
            jobs = [context.Process(target=_work_for_parent, args=(folder, measure)) for _ in range(workers)]
            for job in jobs:
                job.start()
            try:
                _run_jobs([_Finished(lambda job=job: not job.is_alive()) for job in jobs], folder, announce)
            finally:
                for job in jobs:
                    job.terminate() if job.is_alive() else None
                    job.join()
    for file in (folder / POINTS_DIR).glob("*.json"):
        record = read_object(file, "")
        if record.get("status") == "running":  # nobody is at work any more
            write_json(file, record | {"status": "failed"})
            announce(record | {"status": "failed"})


def _work_for_parent(folder: Path, measure: Measure) -> None:
    """`work` in a process of its own that ends with its parent, however that one ends."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # every file is whole or absent at any moment

    threading.Thread(target=follow, daemon=True).start()
    work(folder, measure)


class _Finished:
    """A local process, asked as submitit's jobs are."""

    def __init__(self, done: Callable[[], bool]):
        self.done = done


def _submitted(folder: Path, measure: Measure, workers: int, cluster: Cluster, options: Json) -> list[Any]:
    try:
        import submitit
    except ImportError:
        raise ValueError("Expected submitit to be installed. Run: pip install 'lggwjax[slurm]'") from None
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
    executor.update_parameters(**options)
    # Each job takes one point after another, whichever is free: no point waits for a queue of its own.
    with executor.batch():
        return [executor.submit(work, folder, measure) for _ in range(workers)]


def _run_jobs(jobs: Sequence[Any], folder: Path, announce: Callable[[Json], None]) -> None:
    seen = {file.name for file in (folder / POINTS_DIR).glob("*.json") if _is_final(read_object(file, ""))}
    while True:
        ended = all(job.done() for job in jobs)
        for file in sorted((folder / POINTS_DIR).glob("*.json")):
            if file.name not in seen and _is_final(record := read_object(file, "")):
                seen.add(file.name)
                announce(record)
        if ended:
            return
        time.sleep(0.3)


def work(folder: Path, measure: Measure, announce: Callable[[Json], None] | None = None) -> None:
    """Take points that nobody works on, one after another, until none is left to take.

    Args:
        folder: The study's.
        measure: See :func:`run_points`.
        announce: Called with the record of each point that is done or given up.
    """
    settings = {point["id"]: point["settings"] for point in read_object(folder / STUDY_FILE, "")["points"]}
    with shared_programs(folder):
        _work(folder, settings, measure, announce)


def _work(folder: Path, settings: dict[str, Json], measure: Measure, announce: Callable[[Json], None] | None) -> None:
    import jax

    taken = 0
    for _ in range(MAX_ATTEMPTS):
        for name in list(_to_do(folder)):
            held = lock(folder / POINTS_DIR / f"{name}.lock")
            if held is None:
                continue
            try:
                # Again, now that nobody else can: another process may have done it a moment ago.
                if name in set(_to_do(folder)):
                    record = _attempt(folder, name, settings[name], measure)
                    taken += 1
                    if taken % _KEPT_FOR == 0:
                        jax.clear_caches()  # some 50 MB a point; what is needed again is read from the folder
                    if announce is not None and _is_final(record):
                        announce(record)
            finally:
                os.close(held)


def _attempt(folder: Path, name: str, settings: Json, measure: Measure) -> Json:
    file = folder / POINTS_DIR / f"{name}.json"
    before = read_object(file, "") if file.exists() else {}
    record = {"id": name, "settings": settings, "attempts": _attempts(before) + 1}
    write_json(file, record | {"status": "running", "error": "its process ended."})
    start = time.perf_counter()
    try:
        result = plain(measure(settings))
        record |= {"status": "done", "result": result, "seconds": round(time.perf_counter() - start, 3)}
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        text = " ".join(str(error).split())[:500]
        record |= {"status": "failed", "error": f"{type(error).__name__}: {text} ({where})"}
    write_json(file, record)
    return record


def _to_do(folder: Path) -> Iterator[str]:
    for point in read_object(folder / STUDY_FILE, "")["points"]:
        file = folder / POINTS_DIR / f"{point['id']}.json"
        record = read_object(file, "Delete it to have the point run again.") if file.exists() else {}
        if record.get("status") != "done" and _attempts(record) < MAX_ATTEMPTS:
            yield point["id"]


def _attempts(record: Json) -> int:
    number = record.get("attempts")
    return number if isinstance(number, int) else 0


def _is_final(record: Json) -> bool:
    given_up = _attempts(record) >= MAX_ATTEMPTS
    return record.get("status") == "done" or (record.get("status") == "failed" and given_up)


def forget_programs(folder: Path) -> None:
    """Remove what was compiled: machine code, which is run only where the work at hand wrote it."""
    place = folder / COMPILED
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place, ignore_errors=True)
    if place.exists():  # read-only, say: what is left would be run
        raise ValueError(f"Expected to remove {place}, which holds compiled programs, got a refusal. Remove it.")


@contextlib.contextmanager
def shared_programs(folder: Path) -> Iterator[None]:
    """Let points of one shape compile once, in whichever process they run; leave jax's settings as they were."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    wanted = {
        "jax_compilation_cache_dir": str((folder / COMPILED).resolve()),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax decides once, at its first program, whether it uses one
    log, level = logging.getLogger("lggwjax"), logging.getLogger("lggwjax").level
    log.setLevel(logging.ERROR)  # that each architecture is a new function is no news here
    try:
        with warnings.catch_warnings():
            # Two processes that write one entry at a time: the loser compiles it itself.
            warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
            yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def plain(value: Any) -> Any:
    """Turn arrays and numpy scalars into strict JSON types; what is not finite becomes None.

    Args:
        value: Numbers, strings, arrays, and dicts and sequences of these.

    Returns:
        The same with strict JSON types only.

    Example:
        >>> plain({"a": np.float32(0.5), "b": np.array([1.0, np.nan]), "c": (1, None)})
        {'a': 0.5, 'b': [1.0, None], 'c': [1, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    array = np.asarray(value)
    if array.ndim:
        return [plain(item) for item in array.tolist()]
    item = array.item()
    return None if isinstance(item, float) and not math.isfinite(item) else item
