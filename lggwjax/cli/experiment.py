"""``lggwjax experiment``: a study from its name, or a grid of runs from a file, to figures and a page."""

from __future__ import annotations

import argparse
import importlib.resources
import logging
import shutil
from pathlib import Path
from typing import Any

from lggwjax.cli.console import print_answer, study_progress
from lggwjax.experiments import PRESETS, STUDIES

_STUDIES = "\n".join(f"  {name:14} {question}" for name, question in STUDIES.items())
_EPILOG = f"""studies:
{_STUDIES}

A grid of your own:
  lggwjax experiment --template > sweep.toml      then edit it
  lggwjax experiment --config sweep.toml
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "experiment",
        help="run a study, theory against experiment, and write its page",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_experiment)
    parser.add_argument("name", nargs="?", metavar="NAME", help="which study")
    parser.add_argument("--preset", default="quick", metavar="P", help=f"{', '.join(PRESETS)} (default quick)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with a grid of runs of your own")
    parser.add_argument("--template", action="store_true", help="print such a file, with comments, and stop")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where mnist/ and cifar-10-batches-bin/ lie")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes side by side (default 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="study folder (default studies/NAME-PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on with the study in that folder")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    group = parser.add_argument_group("on a Slurm cluster, where the points are jobs of submitit (found by itself)")
    group.add_argument("--no-slurm", dest="slurm", action="store_false", help="run the points here all the same")
    group.add_argument(
        "--slurm-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="such as partition=gpu, gpus_per_node=1, time=600; may be given again",
    )


def _experiment(options: argparse.Namespace) -> int:
    if options.template:
        template = importlib.resources.files("lggwjax.experiments") / "templates" / "sweep.toml"
        print(template.read_text(encoding="utf-8"), end="")
        return 0
    from lggwjax.experiments.run import run_study

    logging.getLogger("lggwjax").setLevel(logging.ERROR)  # each network is a new function, as it has to be here
    slurm = options.slurm and shutil.which("sbatch") is not None
    with study_progress(quiet=options.quiet) as progress:
        page = run_study(
            options.name,
            preset=options.preset,
            config=options.config,
            data_dir=options.data_dir,
            out=options.out,
            workers=options.workers,
            resume=options.resume,
            cluster="slurm" if slurm else "here",
            cluster_options=_slurm_options(options.slurm_option),
            progress=progress,
        )
    return print_answer(page, quiet=options.quiet)


def _slurm_options(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"argument --slurm-option: expected KEY=VALUE, got {text!r}")
        found[f"slurm_{key}"] = int(value) if value.isdecimal() else value
    return found
