"""The command line: ``python -m benchmarks [CASE ...] [--rivals] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import CASES, load
from benchmarks.harness import ROOT, THREADS, Bench
from benchmarks.machine import describe
from benchmarks.results import Report
from benchmarks.tables import print_report, record, wide_console, write_record


def main(arguments: list[str] | None = None) -> int:
    """Run the cases asked for.

    Args:
        arguments: Of the command line.

    Returns:
        The exit status: 0, also where a bar is missed; 2 for an unknown case.
    """
    options = _parse(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        print(f"Unknown case {', '.join(unknown)}. Cases: {', '.join(CASES)}.", file=sys.stderr)
        return 2
    console, reports, device = wide_console(), [], None
    figures = options.figures or (options.json.parent if options.json else Path("runs/benchmarks"))
    for name in options.cases or list(CASES):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="lggwjax-benchmarks-") as folder:
            bench = Bench(
                Path(folder), sizes=options.sizes, rivals=options.rivals, rounds=options.rounds, figures=figures
            )
            try:
                report: Report = load(name).run(bench)
            finally:
                bench.close()
        reports.append(report)
        device = device or bench.device
        print_report(report, console)
        if options.sizes == "tiny":
            console.print("  tiny sizes: the bars mean nothing")
        console.print(f"  took {time.perf_counter() - start:.0f} s", highlight=False)
        if options.json:  # after every case, so that an interruption loses one case at most
            settings = {"sizes": options.sizes, "rivals": options.rivals, "rounds": options.rounds}
            write_record(options.json, record(reports, describe(ROOT, device, THREADS), settings))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--rivals", action="store_true", help="measure what users would pick instead, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="where figures go; default: beside the JSON file")
    parser.add_argument("--full", dest="sizes", action="store_const", const="full", help="all sizes of `scaling`")
    parser.add_argument("--sizes", choices=("tiny", "quick", "full"), help="default quick; tiny: a trial")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each measured thing (default 5)")
    parser.set_defaults(sizes="quick")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
