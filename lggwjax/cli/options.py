"""Options that several commands share, and what they ask for."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULT_BATCH = 256

EPILOG = """\
Four numbers that are easily confused:
  --num-samples   how many samples are trained on, again and again
  --probe-size    how many of them (and as many held-out ones) have their gradients measured one by one
  --measurements  how many checkpoints are measured, and so how many points the path of gradients has
  --directions    how many random directions each width is averaged over; it sets the error bars
"""
_OPTION_OF = {"name": "--model", "data": "--data", "num_devices": "--devices"}


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which samples are trained on."""
    names = "digits, mnist, fashion-mnist, cifar10, npz, shards (many npz, read batch by batch), csv, linear, teacher"
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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model."""
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


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how it is trained."""
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


def add_measuring(parser: argparse.ArgumentParser, *, path: bool = True) -> None:
    """Add the options that say what is measured; without ``path``, only those of one checkpoint."""
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
    group.add_argument(
        "--non-finite",
        default="stop",
        metavar="P",
        help="a sample with a NaN or infinite loss or gradient: stop there, or skip it from then on (default stop)",
    )


def add_folder(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add the options that say where the run goes."""
    group = parser.add_argument_group("where it goes")
    group.add_argument("--out", type=Path, metavar="DIR", help=f"run folder (default runs/{prefix}DATA-MODEL-seedS)")
    group.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    group.add_argument("--quiet", action="store_true", help="no progress bar and no table")


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which devices and processes compute."""
    group = parser.add_argument_group("which devices compute")
    group.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="divide samples among N devices (default all); with --plan compile for 8 .. N virtual ones, and stop",
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes, each started with this command; found through Slurm, Kubernetes, Open MPI or a "
        "TPU pod, or by the next three",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process")
    group.add_argument("--num-processes", type=int, metavar="P", help="how many processes there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0")


def specs(options: argparse.Namespace) -> tuple[Any, Any]:
    """Make data and model from the options; a linear population gets a linear model unless told otherwise."""
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


def num_steps(options: argparse.Namespace) -> int:
    """Read the number of steps from ``--steps`` or ``--passes``."""
    if options.passes is None:
        return 200 if options.steps is None else options.steps
    if not 0 < options.passes < 1e9:
        raise ValueError(f"argument --passes: expected a positive number, got {options.passes}")
    return max(1, round(options.passes * options.num_samples / (batch_size(options) or options.num_samples)))


def batch_size(options: argparse.Namespace) -> int | None:
    """Read the batch size: None for the whole sample, which is what gradient descent proper takes."""
    if options.batch_size is None and options.optimizer != "gd" and options.num_samples > DEFAULT_BATCH:
        return DEFAULT_BATCH
    return options.batch_size


@contextlib.contextmanager
def named_options() -> Iterator[None]:
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


def _widths(text: str) -> tuple[int, ...]:
    if text.strip().lower() in ("none", ""):
        return ()
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, or none, got {text!r}") from None


def _option(match: re.Match[str]) -> str:
    return {"data.name": "--data", "model.name": "--model"}.get(match[0], "--" + match[1].replace("_", "-"))


def _parser_actions() -> Iterator[list[argparse.Action]]:
    parser = argparse.ArgumentParser()
    for add in (add_data, add_model, add_training, add_measuring, add_folder):
        add(parser)
    yield parser._actions
