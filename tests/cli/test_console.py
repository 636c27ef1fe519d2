"""What the command line prints cannot steer the terminal it is read on."""

from __future__ import annotations

import json
import logging

import pytest

from lggwjax.cli import _log_on_stderr, main
from lggwjax.cli.console import print_answer, shown

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r"


def test_letters_stay_and_what_steers_is_written_out():
    assert shown("幅 ±0.5 «é»") == "幅 ±0.5 «é»"
    assert shown(HOSTILE) == r"\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r"


@pytest.mark.parametrize(
    "words", [["report", f"no{HOSTILE}"], ["compare", "--data", f"x{HOSTILE}"], ["run", "--model", HOSTILE], [HOSTILE]]
)
def test_errors_are_one_line_without_control_characters(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.strip().isprintable()


def test_the_log_is_written_out_too(capsys):
    with _log_on_stderr():
        logging.getLogger("lggwjax.x").warning("dropped %s", HOSTILE)
    assert capsys.readouterr().err.strip().isprintable()


def test_a_point_that_failed_is_told_without_control_characters(tmp_path, capsys):
    (tmp_path / "points").mkdir()
    study = {"name": "sweep", "preset": "own", "points": [{"id": "p", "settings": {}}], "title": HOSTILE}
    (tmp_path / "study.json").write_text(json.dumps(study))
    point = {"id": f"p{HOSTILE}", "settings": {}, "status": "failed", "error": HOSTILE}
    (tmp_path / "points" / "p.json").write_text(json.dumps(point))
    assert print_answer(tmp_path / "report.html", quiet=False) == 1
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()
