"""Each study at its quick preset: one command, within its time, to a whole page in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from lggwjax.cli import main
from lggwjax.experiments import PRESETS, STUDIES
from lggwjax.experiments.run import find_study
from lggwjax.experiments.trained import run_config
from lggwjax.report.study import load_study


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_point_is_a_run_that_can_be_made(name, preset, tmp_path):
    points = find_study(name).points(preset, tmp_path)
    assert len({point.id for point in points}) == len(points) > 1
    for point in points:
        config = run_config(point.settings)
        assert config.data.seed == config.training.seed == point.settings["seed"]
        assert preset != "quick" or config.data.data_dir is None


@pytest.mark.parametrize("name", STUDIES)
def test_full_presets_say_where_data_must_be(name):
    with pytest.raises(ValueError, match="Expected --data-dir DIR"):
        find_study(name).points("full", None)


def test_full_prediction_trains_at_least_sixty_models_on_two_data_sets(tmp_path):
    points = find_study("prediction").points("full", tmp_path)
    assert len(points) >= 60
    assert len({point.settings["data"] for point in points}) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "Expected a study, one of domination, reuse"),
        ([], "Expected the name of a study or --config FILE"),
        (["reuse", "--config", "x.toml"], "Expected the name of a study or --config FILE"),
        (["reuse", "--preset", "huge"], "Expected preset to be one of quick, full, gpu"),
        (["reuse", "--preset", "full"], "Expected --data-dir DIR"),
        (["reuse", "--workers", "0"], "Expected workers >= 1"),
        (["--config", "x.toml"], "Expected a TOML file with a grid of runs at x.toml"),
        (["reuse", "--slurm-option", "partition"], "expected KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_quick_study_ends_in_a_page(name, tmp_path, capfd):
    folder = tmp_path / "study"
    assert main(["experiment", name, "--out", str(folder), "--workers", "2"]) == 0
    study = load_study(folder)
    assert (study.failed, study.num_missing) == ([], 0)
    assert (folder / "report.html").stat().st_size > 20_000
    assert main(["report", str(folder), "--lang", "ja"]) == 0
    assert '<html lang="ja">' in (folder / "report.ja.html").read_text(encoding="utf-8")
    drawn = {file.stem for file in (folder / "figures").glob("*.png")}
    assert drawn
    assert drawn == {file.stem for file in (folder / "figures").glob("*.csv")}
    assert main(["experiment", name, "--out", str(folder)]) == 2
    assert "--resume" in capfd.readouterr().err


@pytest.mark.slow
def test_points_that_fail_are_told_at_the_end_and_by_the_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text('[base.data]\nnum_samples = 5000\n[grid]\n"training.learning_rate" = [0.1, 0.2]\n')
    assert main(["experiment", "--config", "sweep.toml", "--out", "study", "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "2 of 2 points failed and are left out; the first, run-0000: " in error
    assert "num_samples <= 1797" in error.splitlines()[-1]


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path, capsys):
    assert main(["experiment", "reuse", "--preset", "full", "--data-dir", str(tmp_path / "nope")]) == 2
    assert "got no such folder. Check --data-dir." in capsys.readouterr().err
