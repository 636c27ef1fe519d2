"""``lggwjax run``: train on a fixed sample and measure on the way."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lggwjax.cli.console import print_summary, progress
from lggwjax.cli.options import (
    EPILOG,
    add_data,
    add_devices,
    add_folder,
    add_measuring,
    add_model,
    add_training,
    batch_size,
    named_options,
    num_steps,
    specs,
)

MOST_DEVICES = 4096


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
    add_devices(run)


def _run(options: argparse.Namespace) -> int:
    import jax

    if options.plan and options.devices is not None:
        return _plan_devices(options)
    _join(options)
    try:
        return _train(options)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() > 1:
            from lggwjax.training import hosts

            hosts.give_up(error)
        raise


def _join(options: argparse.Namespace) -> None:
    given = (options.coordinator, options.num_processes, options.process_id)
    if options.distributed:
        from lggwjax.training import hosts

        hosts.join(*given)
    elif any(value is not None for value in given):
        raise ValueError("argument --coordinator: expected --distributed beside it, and beside the others, got none")


def _train(options: argparse.Namespace) -> int:
    from lggwjax.training import hosts, plan_run, prepare_run, run

    with named_options():
        config = _config(options)
        prepared = prepare_run(config, num_devices=options.devices)
    if options.plan:
        _print_plan(plan_run(prepared))
        return 0
    out = options.out or Path("runs") / f"{config.data.name}-{config.model.name}-seed{options.seed}"
    quiet = options.quiet or not hosts.is_first()
    with named_options(), progress(config.training.steps, quiet=quiet) as show:
        page = run(prepared, out, resume=options.resume, progress=show)
    if not quiet:
        print_summary(page)
    return 0


def _config(options: argparse.Namespace) -> Any:
    from lggwjax.training import MeasureSpec, RunConfig, TrainSpec

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
    return RunConfig(data, model, training, MeasureSpec(options.measurements, options.spacing, options.directions))


def _plan_devices(options: argparse.Namespace) -> int:
    """Compile one more measurement for more and more virtual devices; nothing is run."""
    import jax

    if not 1 <= options.devices <= MOST_DEVICES:
        raise ValueError(f"argument --devices: expected 1 to {MOST_DEVICES}, got {options.devices}")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", options.devices)
    from lggwjax.scaling import plan_devices
    from lggwjax.training import prepare_run

    with named_options():
        prepared = prepare_run(_config(options), num_devices=1)
    counts = sorted({1, options.devices, *(2**k for k in range(3, options.devices.bit_length()))} - {0})
    probe = prepared.split.train_probe
    plans = [
        plan_devices(prepared.model.loss_fn, prepared.start.params, probe, num, wrt=prepared.model.wrt)
        for num in counts
        if num <= options.devices
    ]
    _print_devices(plans, len(probe["y"]))
    return 0


def _print_devices(plans: list[Any], num_samples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"One more checkpoint of a path, {num_samples} samples, as compiled: what each device does")
    for name in ("devices", "samples", "Mflop", "MB received", "of these, along the path", "MB of memory"):
        table.add_column(name, justify="right")
    for plan in plans:
        flops = plan.gram.flops + plan.products.flops
        sent = plan.gram.sent + plan.products.sent
        amounts = (flops / 1e6, sent / 1e6, plan.products.sent / 1e6, plan.memory / 1e6)
        table.add_row(str(plan.num_devices), str(plan.samples_per_device), *(f"{value:.4g}" for value in amounts))
    Console().print(table)


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
