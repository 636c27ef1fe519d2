"""The command line: ``lggwjax run``, ``measure`` and ``claims``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

DEFAULT_BATCH = 256

EPILOG = """\
Four numbers that are easily confused:
  --num-samples   how many samples are trained on, again and again
  --probe-size    how many of them (and as many held-out ones) have their gradients measured one by one
  --measurements  how many checkpoints are measured, and so how many points the path of gradients has
  --directions    how many random directions each width is averaged over; it sets the error bars
"""


class _OneLine(argparse.ArgumentParser):
    """Argument errors in one line that names the option, what was expected and what was given."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See: {self.prog} --help")


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the library logs while a command runs, and leave the logger of the process as it was."""
    log = logging.getLogger("lggwjax")
    if log.handlers:
        yield
        return
    level, propagate, handler = log.level, log.propagate, logging.StreamHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # else a handler of the root logger would say everything twice
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; by default those of this process.

    Returns:
        The exit status: 0 when all was done, 1 when a run did not finish, 2 when it was refused, 130 after Ctrl-C.
    """
    try:
        options = _parser().parse_args(arguments)
        with _log_on_stderr():
            return options.command(options)
    except KeyboardInterrupt:
        print("lggwjax: interrupted; the same command with --resume goes on from the last measurement", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        print(f"lggwjax: {_one_line(error)}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        print(f"lggwjax: {_one_line(error)}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:
        print(f"lggwjax: {_one_line(error) or type(error).__name__}", file=sys.stderr)
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = _OneLine(
        prog="lggwjax", description="Loss Gradient Gaussian Width: measure how complex the gradients of training are."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_OneLine)
    details: dict[str, Any] = {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    run = commands.add_parser("run", help="train on a fixed sample and measure on the way", **details)
    run.set_defaults(command=_run)
    _add_data(run)
    _add_model(run)
    _add_training(run)
    _add_measuring(run)
    _add_folder(run)
    run.add_argument("--plan", action="store_true", help="say what would be done, in time and memory, and stop")
    measure = commands.add_parser("measure", help="measure checkpoints that were trained elsewhere", **details)
    measure.set_defaults(command=_measure, fresh=False)
    measure.add_argument(
        "--checkpoints", type=Path, required=True, metavar="DIR", help="folder of orbax checkpoints, one folder a step"
    )
    _add_data(measure)
    _add_model(measure)
    _add_measuring(measure, path=False)
    _add_folder(measure)
    claims = commands.add_parser("claims", help="say what a finished run supports, and what it does not")
    claims.set_defaults(command=_claims)
    claims.add_argument("run", type=Path, metavar="RUN", help="folder that 'lggwjax run' left")
    claims.add_argument(
        "--split", action="store_true", help="redo the run on half the samples, the other half held out, in RUN/split"
    )
    claims.add_argument(
        "--layers", action="store_true", help="instead, a table of the layers: which one makes the width"
    )
    claims.add_argument("--json", action="store_true", help="one JSON array, an object a statement")
    claims.add_argument(
        "--gradient-bound", type=float, metavar="B", help="norm that no sample's gradient exceeds on the path"
    )
    claims.add_argument(
        "--input-bound",
        type=float,
        metavar="R",
        help="norm that no input exceeds, from which the weights bound gradients",
    )
    claims.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of each statement (default 0.95)")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    names = "digits, mnist, fashion-mnist, cifar10, npz, csv, linear, teacher"
    group = parser.add_argument_group("which samples are trained on")
    group.add_argument(
        "--data", default="digits", metavar="NAME", help=f"{names} (default digits, which needs no file)"
    )
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="where the files lie; nothing is downloaded")
    group.add_argument("--label", metavar="COLUMN", help="column to predict (csv)")
    group.add_argument("--num-samples", type=int, default=200, metavar="N", help="samples trained on (default 200)")
    group.add_argument(
        "--heldout-samples", type=int, default=1000, metavar="N", help="at most so many samples held out (default 1000)"
    )
    group.add_argument(
        "--dimension", type=int, default=20, metavar="D", help="inputs of linear and teacher (default 20)"
    )
    group.add_argument("--num-classes", type=int, default=4, metavar="C", help="classes of teacher (default 4)")
    group.add_argument(
        "--noise",
        default="uniform",
        metavar="KIND",
        help="uniform or gaussian (linear; gaussian has no gradient bound)",
    )
    group.add_argument(
        "--noise-scale",
        type=float,
        default=0.5,
        metavar="S",
        help="noise of linear, label temperature of teacher (default 0.5)",
    )
    group.add_argument(
        "--condition", type=float, default=10.0, metavar="C", help="condition number of linear's inputs (default 10)"
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="S", help="fixes samples, initial parameters, batches and directions"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which model")
    group.add_argument("--model", default="ffn", metavar="NAME", help="ffn, cnn, resnet8 or resnet18 (default ffn)")
    group.add_argument(
        "--widths", type=_widths, metavar="W,W,..", help="hidden layers of ffn and cnn; 'none' for a linear model"
    )
    group.add_argument("--base-width", type=int, metavar="C", help="channels of the first convolution")
    group.add_argument("--activation", default="relu", metavar="A", help="relu, tanh or gelu")
    group.add_argument(
        "--norm", metavar="NORM", help="none, layer, group or batch (batch is measured with frozen statistics)"
    )
    group.add_argument("--no-bias", dest="bias", action="store_false", help="leave out all biases")
    group.add_argument(
        "--no-residual", dest="residual", action="store_false", help="leave out a ResNet's skip connections"
    )
    group.add_argument("--init-scale", type=float, default=1.0, metavar="S", help="multiplies the initial kernels")
    group.add_argument("--top-k", type=int, metavar="K", help="keep the K largest features of each sample")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is trained")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="T", help="optimiser steps (default 200)")
    length.add_argument("--passes", type=float, metavar="P", help="passes over the samples, instead of --steps")
    group.add_argument(
        "--optimizer", default="adam", metavar="O", help="gd, sgd, momentum, adam or adamw (default adam)"
    )
    group.add_argument("--learning-rate", type=float, default=0.003, metavar="R", help="default 0.003")
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="samples a step (default 256, or all if they are fewer; gd always takes all)",
    )
    group.add_argument(
        "--weight-decay", type=float, default=0.0, metavar="R", help="decoupled with adamw, else added to the gradient"
    )
    group.add_argument(
        "--feature-l1",
        type=float,
        default=0.0,
        metavar="R",
        help="weight of the features' L1 norm in the loss trained on",
    )
    group.add_argument(
        "--fresh", action="store_true", help="draw new samples at every step (linear, teacher) instead of reusing them"
    )


def _add_measuring(parser: argparse.ArgumentParser, *, path: bool = True) -> None:
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--probe-size", type=int, metavar="M", help="samples whose gradients are measured (default 64, or all if fewer)"
    )
    if path:
        group.add_argument(
            "--measurements", type=int, default=16, metavar="K", help="checkpoints measured (default 16)"
        )
        group.add_argument("--spacing", default="log", metavar="S", help="log or even (default log)")
    group.add_argument("--directions", type=int, default=512, metavar="K", help="random directions (default 512)")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it goes")
    group.add_argument("--out", type=Path, metavar="DIR", help="run folder (default runs/DATA-MODEL-seedS)")
    group.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    group.add_argument("--quiet", action="store_true", help="no progress bar and no table")


def _widths(text: str) -> tuple[int, ...]:
    if text.strip().lower() in ("none", ""):
        return ()
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, or none, got {text!r}") from None


def _specs(options: argparse.Namespace) -> tuple[Any, Any]:
    """Data and model from the options; a linear population gets a linear model unless told otherwise."""
    from lggwjax.data.spec import DataSpec
    from lggwjax.models.spec import ModelSpec

    data = DataSpec(
        name=options.data,
        data_dir=None if options.data_dir is None else options.data_dir.absolute(),
        num_samples=options.num_samples,
        probe_size=min(64, options.num_samples) if options.probe_size is None else options.probe_size,
        heldout_samples=options.heldout_samples,
        seed=options.seed,
        label=options.label,
        dimension=options.dimension,
        num_classes=options.num_classes,
        condition=options.condition,
        noise=options.noise,
        noise_scale=options.noise_scale,
    )
    plain = data.name == "linear" and options.model == "ffn" and options.widths is None
    model = ModelSpec(
        name=options.model,
        widths=() if plain else options.widths,
        base_width=options.base_width,
        activation=options.activation,
        bias=options.bias and not plain,
        norm=options.norm,
        residual=options.residual,
        init_scale=options.init_scale,
        top_k=options.top_k,
    )
    return data, model


def _steps(options: argparse.Namespace) -> int:
    if options.passes is None:
        return 200 if options.steps is None else options.steps
    if not 0 < options.passes < 1e9:
        raise ValueError(f"argument --passes: expected a positive number, got {options.passes}")
    return max(1, round(options.passes * options.num_samples / (_batch_size(options) or options.num_samples)))


def _batch_size(options: argparse.Namespace) -> int | None:
    """None for the whole sample, which is what gradient descent proper takes."""
    if options.batch_size is None and options.optimizer != "gd" and options.num_samples > DEFAULT_BATCH:
        return DEFAULT_BATCH
    return options.batch_size


def _run(options: argparse.Namespace) -> int:
    from lggwjax.training import MeasureSpec, RunConfig, TrainSpec, plan_run, prepare_run, run

    with _named_options():
        data, model = _specs(options)
        training = TrainSpec(
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            batch_size=_batch_size(options),
            weight_decay=options.weight_decay,
            feature_l1=options.feature_l1,
            steps=_steps(options),
            seed=options.seed,
            fresh=options.fresh,
        )
        measuring = MeasureSpec(options.measurements, options.spacing, options.directions)
        prepared = prepare_run(RunConfig(data, model, training, measuring))
    if options.plan:
        _print_plan(plan_run(prepared))
        return 0
    out = options.out or Path("runs") / f"{data.name}-{model.name}-seed{options.seed}"
    with _named_options(), _progress(training.steps, quiet=options.quiet) as progress:
        page = run(prepared, out, resume=options.resume, progress=progress)
    if not options.quiet:
        _print_summary(page)
    return 0


def _measure(options: argparse.Namespace) -> int:
    from lggwjax.training import CheckpointPath, MeasureSpec, RunConfig, prepare_run
    from lggwjax.training.checkpoints import steps
    from lggwjax.training.measure import measure_path

    with _named_options():
        data, model = _specs(options)
        found = steps(options.checkpoints)
        config = RunConfig(data, model, measuring=MeasureSpec(directions=options.directions))
        prepared = prepare_run(config, max_checkpoints=len(found))
    path = CheckpointPath(options.checkpoints, prepared.model.params)
    about = {name: part for name, part in prepared.settings().items() if name in ("data", "model")}
    out = options.out or Path("runs") / f"measured-{data.name}-{model.name}-seed{options.seed}"
    with _named_options(), _progress(path.steps[-1], quiet=options.quiet) as progress:
        page = measure_path(path, prepared.monitor, path.steps, about, out, resume=options.resume, progress=progress)
    if not options.quiet:
        _print_summary(page)
    return 0


def _claims(options: argparse.Namespace) -> int:
    import json

    from lggwjax.training.claims import claims, layer_table, split_run
    from lggwjax.training.evidence import Evidence

    logging.getLogger("lggwjax").setLevel(logging.WARNING)  # predictions of cost are no news here
    folder = options.run
    if options.split:
        folder = split_run(folder)
    declared = {"gradient_bound": options.gradient_bound, "input_radius": options.input_bound}
    evidence = Evidence.of_run(folder, **declared)
    if options.layers:
        table = layer_table(evidence, confidence=options.confidence)
        print(json.dumps(table.as_records(), indent=2, allow_nan=False) if options.json else table)
        if isinstance(evidence.norms, str) and not options.json:
            print(f"No spectral bounds: {evidence.norms}")
        return 0
    found = claims(evidence, confidence=options.confidence)
    print(json.dumps(found.as_records(), indent=2, allow_nan=False) if options.json else found)
    return 0


_OPTION_OF = {"name": "--model", "data": "--data"}


@contextlib.contextmanager
def _named_options() -> Iterator[None]:
    """Name a refused field as the option is typed: learning_rate becomes --learning-rate."""
    try:
        yield
    except ValueError as error:
        known = {action.dest for group in _parser_actions() for action in group}
        first = re.match(r"Expected (?:no |a finite )?(\w+)", str(error))
        text = re.sub(r"\b(?:data|model|training|measuring)\.(\w+)", _option, str(error))
        if first and first[1] in known | set(_OPTION_OF):
            option = _OPTION_OF.get(first[1], "--" + first[1].replace("_", "-"))
            text = text.replace(first[1], option, 1)
        for name in known:
            if "_" in name:
                text = re.sub(rf"(?<![\w-]){name}(?!\w)", "--" + name.replace("_", "-"), text)
        raise ValueError(text) from None


def _option(match: re.Match[str]) -> str:
    return {"data.name": "--data", "model.name": "--model"}.get(match[0], "--" + match[1].replace("_", "-"))


def _parser_actions() -> Iterator[list[argparse.Action]]:
    parser = argparse.ArgumentParser()
    for add in (_add_data, _add_model, _add_training, _add_measuring, _add_folder):
        add(parser)
    yield parser._actions


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


def _print_summary(page: Path) -> None:
    from rich.console import Console

    from lggwjax.report import load_config, load_run, summary_table, unseen_word, words

    # Cut off at 80 columns, a table in a log file would lose its intervals.
    console, records = Console(width=None if sys.stdout.isatty() else 120), load_run(page.parent)
    if records.empty:
        raise ValueError(f"Expected records in {page.parent / 'metrics.jsonl'}, got none. Restore it, or run again.")
    console.print(summary_table(records, words(records), unseen_word(load_config(page.parent))))
    training, measuring = records["seconds.training"].iloc[-1], records["seconds.measuring"].iloc[-1]
    share = 100 * measuring / max(training + measuring, 1e-9)
    console.print(f"training {training:.1f} s, measuring {measuring:.1f} s ({share:.0f}%)", highlight=False)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Any]:
    """A bar with the latest LGGW and population descent, from the first step on: a refused run shows none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    task, started = bar.add_task("", total=total), False

    def show(step: int, record: dict[str, Any] | None) -> None:
        nonlocal started
        if not started:
            bar.start()
            started = True
        bar.update(task, completed=step)
        if record is not None:
            bar.update(task, description=_latest(record))

    try:
        yield show
    finally:
        if started:
            bar.stop()


def _latest(record: dict[str, Any]) -> str:
    text = f"LGGW {record['lggw']['value']:.3g}±{record['lggw']['stderr']:.1g}"
    descent = record["population_descent"]
    if descent is not None:
        low, high = descent["ci95"]
        text += f" descent {descent['value']:.2g} [{low:.2g}, {high:.2g}]"
    return text
