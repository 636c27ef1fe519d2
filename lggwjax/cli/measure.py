"""``lggwjax measure``: measure checkpoints that were trained elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lggwjax.cli.console import print_summary, progress
from lggwjax.cli.options import EPILOG, add_data, add_folder, add_measuring, add_model, named_options, specs


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    measure = commands.add_parser(
        "measure",
        help="measure checkpoints that were trained elsewhere",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    measure.set_defaults(command=_measure, fresh=False)
    measure.add_argument(
        "--checkpoints",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of orbax checkpoints, one folder a step, or a run folder",
    )
    add_data(measure)
    add_model(measure)
    add_measuring(measure, path=False)
    add_folder(measure, "measured-")


def _measure(options: argparse.Namespace) -> int:
    from lggwjax.training import CheckpointPath, MeasureSpec, RunConfig, TrainSpec, prepare_run
    from lggwjax.training.checkpoints import steps
    from lggwjax.training.measure import measure_path

    with named_options():
        data, model = specs(options)
        inner = options.checkpoints / "checkpoints"
        place = inner if inner.is_dir() else options.checkpoints
        found = steps(place)
        training = TrainSpec(non_finite=options.non_finite)
        config = RunConfig(data, model, training, MeasureSpec(directions=options.directions))
        prepared = prepare_run(config, max_checkpoints=len(found))
    path = CheckpointPath(place, prepared.model.params)
    about = {name: part for name, part in prepared.settings().items() if name in ("data", "model")}
    out = options.out or Path("runs") / f"measured-{data.name}-{model.name}-seed{options.seed}"
    with named_options(), progress(path.steps[-1], quiet=options.quiet) as show:
        page = measure_path(path, prepared, path.steps, about, out, resume=options.resume, progress=show)
    if not options.quiet:
        print_summary(page)
    return 0
