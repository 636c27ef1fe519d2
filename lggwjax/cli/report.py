"""``lggwjax report``: one page for a run, a study or a comparison of runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    report = commands.add_parser("report", help="write one page for a run, a study or a comparison of runs")
    report.set_defaults(command=_report)
    report.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN", help="a run's or a study's folder, or several runs to compare"
    )
    report.add_argument("--lang", default="en", choices=("en", "ja"), help="language of the page (default en)")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default report.html in the folder, comparison.html for several)",
    )


def _report(options: argparse.Namespace) -> int:
    from lggwjax.report.compare_runs import comparison_document
    from lggwjax.report.page import is_page, page_name, write_document
    from lggwjax.report.run_page import run_document
    from lggwjax.report.studies import study_document
    from lggwjax.report.study import STUDY_FILE

    folders, several = options.folders, len(options.folders) > 1
    here = Path("comparison.html" if options.lang == "en" else f"comparison.{options.lang}.html")
    out = options.out or (here if several else folders[0] / page_name(options.lang))
    if out.is_dir() or (out.exists() and not is_page(out)):
        raise ValueError(f"Expected --out to be new or an earlier page, got {str(out)!r}. Choose another name.")
    studies = [folder for folder in folders if (folder / STUDY_FILE).is_file()]
    if several and studies:
        raise ValueError(f"Expected runs to compare, got the study {str(studies[0])!r}. Give a study alone.")
    if several:
        document = comparison_document(folders, out.with_name(f"{out.name.split('.')[0]}-figures"))
    else:
        document = study_document(folders[0]) if studies else run_document(folders[0])
    replaced = out.exists()
    write_document(document, out, options.lang)
    print(f"page{' (replaced)' if replaced else ''}: {out}")
    return 0
