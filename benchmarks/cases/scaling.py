"""scaling: how time and memory grow with width, p, n, T and K, on log-log axes with fitted slopes.

Every point is measured in a process of its own, and the batched gradients it needs are timed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Line, draw, fit, save, slope_record
from benchmarks.harness import Bench
from benchmarks.machine import GRADIENTS
from benchmarks.problems import Problem
from benchmarks.results import Report, Row

WIDTH, PROJECT = "benchmarks.ours:width", "benchmarks.cases.projections:subject"
FLOOR = 2**20  # bytes; below, the kernel's count of resident pages is too coarse to fit a slope to


@dataclass(frozen=True)
class Series:
    """One curve: what is measured at each size."""

    label: str
    function: str
    problem: Callable[[int], Problem]
    options: Callable[[int], dict[str, Any]]


@dataclass(frozen=True)
class Study:
    """One figure: what grows, through which sizes."""

    name: str
    title: str
    xlabel: str
    sizes: dict[str, tuple[int, ...]]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Point:
    """A measured size."""

    size: int
    num_parameters: int
    row: Row
    table: dict[str, Any] = field(default_factory=dict)


def _ffn(width: int = 512, num_samples: int = 256, num_checkpoints: int = 1) -> Problem:
    return Problem("ffn", num_samples, (784,), widths=(width, width), num_checkpoints=num_checkpoints)


def _resnet(base_width: int) -> Problem:
    return Problem("resnet18", 16, (32, 32, 3), base_width=base_width)


def _kind(kind: str) -> Callable[[int], dict[str, Any]]:
    return lambda _: {"kind": kind}


STUDIES = (
    Study(
        "ffn-width",
        "Union width of an FFN 784-w-w-10, n = 256",
        "hidden width w",
        {
            "tiny": (8, 16, 32),
            "quick": (64, 128, 256, 512, 1024),
            "full": (64, 128, 256, 512, 1024, 2048, 4096, 8192),
        },
        (Series("union width", WIDTH, lambda width: _ffn(width), _kind("union")),),
    ),
    Study(
        "resnet-width",
        "Union width of a ResNet-18 on 32x32x3, n = 16",
        "channels of the first stage",
        {"tiny": (4, 8, 12), "quick": (8, 16, 24, 32), "full": (8, 16, 24, 32, 48, 64)},
        (Series("union width", WIDTH, _resnet, _kind("union")),),
    ),
    Study(
        "samples",
        "Union width of an FFN 784-512-512-10",
        "samples n",
        {
            "tiny": (8, 16, 32),
            "quick": (64, 128, 256, 512, 1024),
            "full": (64, 128, 256, 512, 1024, 2048, 4096),
        },
        (Series("union width", WIDTH, lambda num: _ffn(num_samples=num), _kind("union")),),
    ),
    Study(
        "checkpoints",
        "Stacked LGGW of an FFN 784-256-256-10, n = 128",
        "checkpoints T",
        {"tiny": (2, 3, 4), "quick": (2, 4, 8, 16, 32), "full": (2, 4, 8, 16, 32, 64, 128)},
        (Series("stacked LGGW", WIDTH, lambda length: _ffn(256, 128, length), _kind("stacked")),),
    ),
    Study(
        "draws",
        "Draws for an FFN 784-256-256-10, n = 256",
        "directions K",
        {"tiny": (8, 16, 32), "quick": (16, 32, 64, 128, 256), "full": (16, 32, 64, 128, 256, 512, 1024)},
        (
            Series("projections", PROJECT, lambda _: _ffn(256), lambda draws: {"num_draws": draws}),
            Series(
                "union width",
                WIDTH,
                lambda _: _ffn(256),
                lambda draws: {"kind": "union", "num_draws": draws},
            ),
        ),
    ),
)


def run(bench: Bench) -> Report:
    """Measure all studies, draw them, and put the slopes beside the numbers."""
    rows, notes, slopes = [], [], {}
    by_parameters: dict[str, list[Point]] = {}
    for study in STUDIES:
        measured = {series.label: _measure(bench, study, series) for series in study.series}
        rows += [point.row for points in measured.values() for point in points]
        slopes[study.name] = _figure(bench, study.name, study.title, study.xlabel, measured, lambda point: point.size)
        if study.name in ("ffn-width", "resnet-width"):
            by_parameters["FFN, n = 256" if study.name == "ffn-width" else "ResNet-18, n = 16"] = measured[
                "union width"
            ]
    title = "Union widths by number of parameters"
    slopes["parameters"] = _figure(
        bench, "parameters", title, "parameters p", by_parameters, lambda point: point.num_parameters
    )
    for name, found in slopes.items():
        notes += [f"{name}: {label}: {slope}" for label, slope in found.items()]
    records = {name: {label: slope_record(slope) for label, slope in found.items()} for name, found in slopes.items()}
    sizes = f"{bench.sizes} sizes, figures in {bench.figures}"
    return Report("scaling", sizes, rows, [], notes, {"slopes": records})


def _measure(bench: Bench, study: Study, series: Series) -> list[Point]:
    points = []
    for size in bench.pick(study.sizes):
        problem = bench.problem(series.problem(size))
        options = series.options(size) | {"beside_rates": False}
        row = bench.start(f"{study.name} {size}, {series.label}", series.function, problem, **options)
        bench.race(row)
        points.append(Point(size, problem.num_parameters, row, _table(study, series, size, problem, row)))
    return points


def _table(study: Study, series: Series, size: int, problem: Any, row: Row) -> dict[str, Any]:
    given, spread = problem.problem, row.spread() or (None, None)
    return {
        "study": study.name,
        "series": series.label,
        "size": size,
        "p": problem.num_parameters,
        "n": given.num_samples,
        "T": given.num_checkpoints,
        "K": row.fact("num_draws"),
        "seconds": row.seconds(),
        "least_seconds": spread[0],
        "most_seconds": spread[1],
        "compile_seconds": row.compile_seconds,
        "gradient_seconds": row.seconds(GRADIENTS) if GRADIENTS in row.limits else None,
        "peak_bytes": row.found.get("bytes"),
        "first_call_bytes": row.found.get("first_bytes"),
        "plan_bytes": row.fact("plan_bytes"),
        "value": row.fact("value"),
        "stderr": row.fact("stderr"),
    }


def _figure(bench: Bench, name: str, title: str, xlabel: str, measured: dict[str, list[Point]], x) -> dict[str, Any]:
    """Draw time and memory, save figure and table, and return the slopes of all lines."""
    times, memories = [], []
    for index, (label, points) in enumerate(measured.items()):
        sizes = tuple(float(x(point)) for point in points)
        mib = [_mib(point.table["peak_bytes"]) for point in points]
        times.append(Line(label, sizes, tuple(point.table["seconds"] for point in points), index))
        memories.append(Line(f"{label}, measured", sizes, tuple(mib), index))
        planned = [_mib(point.table["plan_bytes"]) for point in points]
        if any(value is not None for value in planned) and len(measured) == 1:
            memories.append(Line("planned", sizes, tuple(planned), 3))
        gradients = [point.table["gradient_seconds"] for point in points]
        if all(value is not None for value in gradients) and len(measured) == 1:
            times.append(Line("batched gradients", sizes, tuple(gradients), 2))
    fig = draw(title, xlabel, {"time of one call (s)": times, "peak memory (MiB)": memories})
    save(bench.figures, f"scaling-{name}", fig, [point.table for points in measured.values() for point in points])
    lines = {f"time, {line.label}": line for line in times} | {f"memory, {line.label}": line for line in memories}
    return {label: fit(line.x, line.y) for label, line in lines.items()}


def _mib(count: float | None) -> float | None:
    return count / 2**20 if count is not None and count >= FLOOR else None
