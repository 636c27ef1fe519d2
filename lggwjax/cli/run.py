"""``lggwjax run``: train on a fixed sample and measure on the way."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lggwjax.cli.console import print_summary, progress
from lggwjax.cli.options import (
    EPILOG,
    add_data,
    add_folder,
    add_measuring,
    add_model,
    add_training,
    batch_size,
    named_options,
    num_steps,
    specs,
)


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    run = commands.add_parser(
        "run",
        help="train on a fixed sample and measure on the way",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    add_data(run)
    add_model(run)
    add_training(run)
    add_measuring(run)
    add_folder(run)
    run.add_argument("--plan", action="store_true", help="say what would be done, in time and memory, and stop")


def _run(options: argparse.Namespace) -> int:
    from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, plan_run, prepare_run, run

    with named_options():
        data, model = specs(options)
        training = TrainSpec(
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            batch_size=batch_size(options),
            weight_decay=options.weight_decay,
            feature_l1=options.feature_l1,
            steps=num_steps(options),
            seed=options.seed,
            fresh=options.fresh,
            non_finite=options.non_finite,
        )
        measuring = MeasureSpec(options.measurements, options.spacing, options.directions)
        prepared = prepare_run(RunConfig(data, model, training, measuring))
    if options.plan:
        _print_plan(plan_run(prepared))
        return 0
    out = options.out or Path("runs") / f"{data.name}-{model.name}-seed{options.seed}"
    with named_options(), progress(training.steps, quiet=options.quiet) as show:
        page = run(prepared, out, resume=options.resume, progress=show)
    if not options.quiet:
        print_summary(page)
    return 0


def _print_plan(plan: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = plan.settings
    table = Table(title="What this run would do", show_header=False)
    rows = {
        "samples trained on": settings["data"]["num_samples"],
        "samples measured": f"{settings['data']['probe_size']} of them, and as many held out",
        "samples held out": settings["data"]["num_heldout"],
        "parameters": f"{settings['measuring']['num_parameters']:,}",
        "steps": f"{settings['training']['steps']} of {plan.step_seconds:.3g} s",
        "checkpoints measured": f"{len(settings['measuring']['steps'])} of {plan.measure_seconds:.3g} s",
        "random directions": settings["measuring"]["num_draws"],
        "route": f"{settings['measuring']['route']}, {settings['measuring']['chunk_size']} gradients at once",
        "time": f"about {plan.total_seconds:.0f} s ({plan.compile_seconds:.0f} s compiling), then the page",
        "memory": f"about {plan.peak_bytes / 2**30:.2f} GiB",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    Console().print(table)
