from __future__ import annotations

import json

import numpy as np
import pytest

from lggwjax.cli import main
from lggwjax.report.compare_runs import comparison_document
from lggwjax.report.designs import check_widths, compare_designs, design_names, load_runs, losses_of, one_population
from lggwjax.report.statistics import holm, p_value, paired_difference

SMALL, THREE = {"small": [64], "large": [256]}, {"small": [64], "mid": [128], "large": [256, 256]}


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes nearly all of the time."""
    monkeypatch.setattr("lggwjax.report.compare_runs._figures", lambda *_: [])


def test_runs_that_differ_by_seed_only_are_one_design(runs_of):
    runs = load_runs(runs_of(THREE, seeds=2))
    assert list(design_names(runs).values()) == ["widths=64", "widths=128", "widths=256-256"]
    assert [run.name for run in runs] == ["small-0", "small-1", "mid-0", "mid-1", "large-0", "large-1"]
    assert list(losses_of(runs, runs[0].design)) == [0, 1]


def test_designs_are_compared_on_equal_seeds_with_holms_correction(runs_of):
    runs = load_runs(runs_of(THREE, seeds=4))
    pairs = compare_designs(runs)
    losses = [[run.final_loss for run in runs if run.design == design] for design in design_names(runs)]
    expected = [paired_difference(losses[i], losses[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [pair.difference for pair in pairs] == expected
    np.testing.assert_array_equal([pair.adjusted for pair in pairs], holm([p_value(d) for d in expected]))


def test_seeds_are_paired_by_their_number_and_not_by_their_place(runs_of):
    folders = runs_of(SMALL, seeds=4)
    (pair,) = compare_designs(load_runs(folders))
    (turned,) = compare_designs(load_runs([*folders[:4], *folders[:3:-1]]))
    assert turned.difference == pytest.approx(pair.difference)
    (fewer,) = compare_designs(load_runs(folders[1:]))
    assert fewer.difference.num == 3


def test_a_clear_difference_is_decided(runs_of, no_figures):
    document = comparison_document(runs_of(SMALL, seeds=5, gap=0.2))
    assert document.tone == "helps"
    assert document.answer[1].en.startswith("widths=64 is better")
    assert "lower by 0.197 ± 0.014 nats" in document.answer[1].en
    assert "choose widths=64" in document.answer[2].en
    assert document.answer[1].en in document.say.en


def test_no_difference_is_not_decided_and_not_called_equal(runs_of, no_figures):
    document = comparison_document(runs_of(SMALL, seeds=5, gap=0.0))
    assert document.tone == "undecided"
    assert "not decided against" in document.answer[1].en
    assert "Not decided is not equal" in document.do_not_say[0].en


@pytest.mark.parametrize(("seeds", "why"), [(1, "one seed each"), (2, "needs 3 seeds that both designs have")])
def test_few_seeds_decide_nothing_however_large_the_difference(runs_of, no_figures, seeds, why):
    document = comparison_document(runs_of(SMALL, seeds=seeds, gap=10.0))
    assert document.tone == "undecided"
    assert why in document.answer[1].en
    assert any("three seeds in common" in text.en for text in document.may_not)


def test_one_design_has_nothing_to_choose(runs_of, no_figures):
    document = comparison_document(runs_of({"a": [64]}, seeds=3))
    assert "repetitions of one design" in document.answer[1].en
    assert document.tone == "undecided"


def test_other_data_are_not_ranked(runs_of, no_figures):
    folders = runs_of(SMALL, seeds=3)
    for folder in folders[3:]:
        config = json.loads((folder / "config.json").read_text())
        config["data"]["name"] = "mnist"
        (folder / "config.json").write_text(json.dumps(config))
    document = comparison_document(folders)
    assert not one_population(load_runs(folders))
    assert "different data" in document.answer[1].en
    assert any("loss: the data differ" in text.en for text in document.may_not)


def test_widths_of_other_schedules_are_shown_and_not_compared(runs_of, no_figures):
    same = runs_of(SMALL, seeds=1)
    check_widths(load_runs(same))
    other = runs_of({"third": [32]}, seeds=1, steps=[0, 10, 400])
    with pytest.raises(ValueError, match="equal schedules and probes, got different measured steps"):
        check_widths(load_runs([*same, *other]))
    document = comparison_document([*same, *other])
    assert "may not be compared" in document.tables[0].note.en
    assert any("differences in LGGW" in text.en for text in document.may_not)
    assert not any("different steps" in text.en for text in document.may_not)
    earlier = runs_of({"fourth": [16]}, seeds=1, steps=[0, 10])
    assert any("different steps" in text.en for text in comparison_document([*same, *earlier]).may_not)
    assert all(len(row) == len(document.tables[0].headings) for row in document.tables[0].rows)


def test_many_runs_are_drawn_by_design(runs_of, tmp_path):
    document = comparison_document(runs_of(THREE, seeds=3), tmp_path / "figures")
    assert [figure.name for figure in document.figures] == [
        "heldout_loss",
        "population_descent",
        "lggw_over_rms",
        "differences",
    ]
    assert all((tmp_path / "figures" / f"{figure.name}.csv").is_file() for figure in document.figures)
    assert "One line a design" in document.figures[0].caption.en


def test_few_runs_are_drawn_with_their_intervals(runs_of, tmp_path):
    document = comparison_document(runs_of(SMALL, seeds=1), tmp_path / "figures")
    assert [figure.name for figure in document.figures] == ["heldout_loss", "population_descent", "lggw_over_rms"]
    rows = (tmp_path / "figures" / "population_descent.csv").read_text().splitlines()
    assert rows[0].split(",") == ["step", "value", "low", "high", "name"]
    assert all(cell for row in rows[1:] for cell in row.split(","))


def test_the_same_run_twice_is_refused(runs_of):
    folders = runs_of({"a": [64]}, seeds=1)
    with pytest.raises(ValueError, match="two or more different runs"):
        load_runs([*folders, *folders])


def test_the_command_writes_a_page_for_one_and_for_several(runs_of, no_figures, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("lggwjax.report.gallery.PLOTS", [])
    monkeypatch.chdir(tmp_path)
    folders = [str(folder) for folder in runs_of(SMALL, seeds=1)]
    assert main(["report", folders[0]]) == 0
    assert main(["report", folders[0], "--lang", "ja"]) == 0
    assert main(["report", *folders]) == 0
    assert main(["report", *folders, "--lang", "ja", "--out", "mine.html"]) == 0
    assert main(["report", *folders]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == ["page: comparison.html", "page: mine.html", "page (replaced): comparison.html"]
    assert 'lang="ja"' in (tmp_path / "mine.html").read_text(encoding="utf-8")[:100]
    assert [line.endswith(name) for line, name in zip(said, ("report.html", "report.ja.html"), strict=False)] == [
        True,
        True,
    ]


def test_the_command_overwrites_nothing_of_yours(runs_of, tmp_path, capsys):
    (folder,) = runs_of({"a": [64]}, seeds=1)
    mine = tmp_path / "mine.html"
    mine.write_text("<html>my own page about lggwjax</html>")
    for arguments in (["--out", str(mine)], ["--out", str(tmp_path)]):
        assert main(["report", str(folder), *arguments]) == 2
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert all(line.startswith("lggwjax: Expected ") for line in said)
    assert mine.read_text() == "<html>my own page about lggwjax</html>"


def test_an_unknown_study_is_refused(tmp_path, capsys):
    (tmp_path / "study.json").write_text('{"name": "alchemy", "preset": "quick", "points": []}')
    assert main(["report", str(tmp_path)]) == 2
    assert "a study named domination, reuse" in capsys.readouterr().err
