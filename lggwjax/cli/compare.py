"""``lggwjax compare``: a few designs on one's own data, ranked by held-out loss at equal training time."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from lggwjax.cli.console import print_answer, study_progress

_EPILOG = """\
A table of your own, without any configuration:
  lggwjax compare --data my.csv --label COLUMN

Designs of your own, from a template with comments (tables, images, small_data):
  lggwjax compare --template tables > designs.toml
  lggwjax compare --data my.csv --label COLUMN --config designs.toml

What it would cost to go on, asked of a comparison that has been run:
  lggwjax compare --data my.csv --label COLUMN --resume --price-per-hour 2 --price-per-sample 0.5
"""


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "compare",
        help="compare a few designs on your own data, and write a page that says which",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_compare)
    data = parser.add_argument_group("which data")
    data.add_argument("--data", metavar="DATA", help="a csv or npz file, or a name: digits, mnist, cifar10, ...")
    data.add_argument("--label", metavar="COLUMN", help="column to predict (csv)")
    data.add_argument("--data-dir", type=Path, metavar="DIR", help="where the files of mnist and cifar10 lie")
    data.add_argument("--num-samples", type=int, metavar="N", help="trained on (default two thirds, at most 2,000)")
    data.add_argument("--heldout-samples", type=int, metavar="N", help="held out (default the rest, at most 2,000)")
    designs = parser.add_argument_group("which designs, and how long")
    designs.add_argument("--config", type=Path, metavar="FILE", help="TOML with designs of your own")
    designs.add_argument("--template", metavar="KIND", help="print such a file: tables, images or small_data")
    designs.add_argument("--minutes", type=float, default=5.0, metavar="M", help="time for everything (default 5)")
    designs.add_argument(
        "--seeds", type=int, metavar="S", help="draws of all that is random (default 5 to 10, by time)"
    )
    designs.add_argument("--workers", type=int, default=1, metavar="N", help="processes side by side (default 1)")
    plan = parser.add_argument_group("what is worth deciding, and what it costs")
    plan.add_argument(
        "--worth",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="smallest difference worth deciding, as a share of the lowest loss (default 0.1)",
    )
    plan.add_argument("--target-loss", type=float, metavar="L", help="held-out loss that is wanted")
    plan.add_argument("--price-per-hour", type=float, metavar="P", help="of this machine, in your currency")
    plan.add_argument("--price-per-sample", type=float, metavar="P", help="of one labelled sample, the same currency")
    folder = parser.add_argument_group("where it goes")
    folder.add_argument("--out", type=Path, metavar="DIR", help="folder (default comparisons/DATA)")
    folder.add_argument("--resume", action="store_true", help="go on with the comparison in that folder")
    folder.add_argument("--quiet", action="store_true", help="no progress and no answer")


def _compare(options: argparse.Namespace) -> int:
    if options.template is not None:
        from lggwjax.experiments.designs import template

        print(template(options.template), end="")
        return 0
    if options.data is None:
        raise ValueError("Expected --data, a csv file or the name of a data set, got none. Try: --data digits")
    from lggwjax.experiments.compare import Question, compare

    logging.getLogger("lggwjax").setLevel(logging.ERROR)  # each network is a new function, as it has to be here
    question = Question(options.worth, options.target_loss, options.price_per_hour, options.price_per_sample)
    with study_progress(quiet=options.quiet) as progress:
        page = compare(
            options.data,
            label=options.label,
            data_dir=options.data_dir,
            config=options.config,
            minutes=options.minutes,
            seeds=options.seeds,
            num_samples=options.num_samples,
            num_heldout=options.heldout_samples,
            question=question,
            out=options.out,
            workers=options.workers,
            resume=options.resume,
            progress=progress,
        )
    return print_answer(page, quiet=options.quiet)
