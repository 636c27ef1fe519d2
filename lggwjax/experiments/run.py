"""One study from its name to its page."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lggwjax.experiments import PRESETS, STUDIES, Preset, grid
from lggwjax.experiments.points import Cluster, Measure, Point, open_study, run_points
from lggwjax.training.files import Json


class Study(NamedTuple):
    """A study's two functions.

    Attributes:
        points: From a preset and the folder of data files (or None) to the points.
        measure: From a point's settings to its result.
    """

    points: Callable[[Preset, Path | None], Sequence[Point]]
    measure: Measure


def find_study(name: str) -> Study:
    """Load a study by its name.

    Args:
        name: One of ``STUDIES``.

    Returns:
        The study.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in STUDIES:
        raise ValueError(f"Expected a study, one of {', '.join(STUDIES)}, got {name!r}.")
    module: Any = importlib.import_module(f"lggwjax.experiments.{name.replace('-', '_')}")
    return Study(module.points, module.measure)


def run_study(
    name: str | None = None,
    *,
    preset: Preset = "quick",
    config: Path | None = None,
    data_dir: Path | None = None,
    out: Path | None = None,
    workers: int = 1,
    resume: bool = False,
    cluster: Cluster = "here",
    cluster_options: Json | None = None,
    progress: Callable[[Json | None, int], None] | None = None,
) -> Path:
    """Run a study and write its figures, tables and page.

    Args:
        name: One of ``STUDIES``; None with ``config``.
        preset: ``quick`` needs no file and ends within 90 seconds on two cores, ``full`` is for hours on such a
            machine, ``gpu`` for one large accelerator.
        config: A TOML file with a grid of runs of one's own, instead of a name.
        data_dir: Where the files of MNIST and CIFAR-10 lie, for ``full`` and ``gpu``.
        out: The study folder; by default ``studies/NAME-PRESET``.
        workers: Processes side by side, or jobs on a cluster.
        resume: Go on with what is there.
        cluster: See :func:`lggwjax.experiments.points.run_points`.
        cluster_options: The same.
        progress: Called with None when the points begin, then with each finished point's record; and the number of all.

    Returns:
        The page. Points that failed are listed on it.

    Raises:
        ValueError: If the study or the folder cannot be used as asked, or no point could be measured.
        FileNotFoundError: If a data file is missing.
    """
    from lggwjax.report import write_study_page  # matplotlib is loaded when there is something to draw

    if (name is None) == (config is None):
        raise ValueError("Expected the name of a study or --config FILE, one of them.")
    if preset not in PRESETS:
        raise ValueError(f"Expected preset to be one of {', '.join(PRESETS)}, got {preset!r}.")
    if workers < 1:
        raise ValueError(f"Expected workers >= 1, got {workers}.")
    extra: Json = {}
    if config is not None:
        name, preset_name = "sweep", "own"
        points, extra = grid.read(config, data_dir)
        measure = grid.measure
    else:
        study, preset_name = find_study(str(name)), preset
        points, measure = study.points(preset, data_dir), study.measure
    folder = out or Path("studies") / f"{name if config is None else config.stem}-{preset_name}"
    tell = progress or (lambda *_: None)
    with open_study(folder, str(name), preset_name, points, resume=resume, extra=extra):
        tell(None, len(points))
        run_points(
            folder,
            measure,
            workers=workers,
            cluster=cluster,
            cluster_options=cluster_options,
            progress=lambda record: tell(record, len(points)),
        )
        return write_study_page(folder)
