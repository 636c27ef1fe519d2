"""``lggwjax claims``: what a finished run supports, and what it does not."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from lggwjax.cli.console import shown


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
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
            print(f"No spectral bounds: {shown(evidence.norms)}")
        return 0
    found = claims(evidence, confidence=options.confidence)
    print(json.dumps(found.as_records(), indent=2, allow_nan=False) if options.json else found)
    return 0
