"""From a run's records to a table, a verdict, figures and a page; reads records only and computes nothing new."""

from __future__ import annotations

from lggwjax.report.curves import Setting
from lggwjax.report.gallery import SavedFigure, save_all
from lggwjax.report.page import write_page
from lggwjax.report.records import load_config, load_run, unseen_word
from lggwjax.report.table import summary_table
from lggwjax.report.verdict import Verdict, judge, verdict, words

__all__ = [
    "SavedFigure",
    "Setting",
    "Verdict",
    "judge",
    "load_config",
    "load_run",
    "save_all",
    "summary_table",
    "unseen_word",
    "verdict",
    "words",
    "write_page",
]
