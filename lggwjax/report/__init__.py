"""From the records of runs and studies to tables, verdicts, figures and pages; reads records only."""

from __future__ import annotations

from lggwjax.report.curves import Setting
from lggwjax.report.document import SavedFigure
from lggwjax.report.gallery import save_all
from lggwjax.report.page import write_document, write_page, write_study_page
from lggwjax.report.records import load_config, load_run, num_skipped, unseen_word
from lggwjax.report.run_page import run_document
from lggwjax.report.table import summary_table
from lggwjax.report.verdict import Verdict, judge, verdict, words

__all__ = [
    "SavedFigure",
    "Setting",
    "Verdict",
    "judge",
    "load_config",
    "load_run",
    "num_skipped",
    "run_document",
    "save_all",
    "summary_table",
    "unseen_word",
    "verdict",
    "words",
    "write_document",
    "write_page",
    "write_study_page",
]
