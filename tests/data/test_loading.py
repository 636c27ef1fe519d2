from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lggwjax.data import DataSpec, LinearPopulation, Split, TeacherPopulation, load
from lggwjax.data.loading import files_of

LINEAR = DataSpec("linear", num_samples=300, probe_size=40, heldout_samples=200, dimension=7)


def rows_of(batch) -> set[bytes]:
    return {x.tobytes() for x in batch["x"]}


def batches(split: Split):
    return split.sample, split.train_probe, split.heldout_probe, split.heldout_rest


@pytest.fixture(params=["digits", "linear", "teacher"])
def spec(request) -> DataSpec:
    return replace(LINEAR, name=request.param)


def test_parts_have_the_sizes_asked_for_and_are_never_mixed(spec):
    split = load(spec)
    assert [len(b["x"]) for b in batches(split)] == [300, 40, 40, 160]
    sample, probe, heldout, rest = map(rows_of, batches(split))
    assert probe <= sample
    # The rows of these data are distinct, so that bytes tell them apart.
    assert len(sample) + len(heldout) + len(rest) == 500
    assert not sample & heldout
    assert not sample & rest
    assert not heldout & rest


def test_types_and_shapes(spec):
    split = load(spec)
    for batch in batches(split):
        assert batch["x"].dtype == np.float32
        assert batch["x"].shape[1:] == split.input_shape
        assert batch["y"].shape == batch["x"].shape[:1]
        assert batch["y"].dtype == (np.int32 if split.task == "classification" else np.float32)
    kinds = {"digits": type(None), "linear": LinearPopulation, "teacher": TeacherPopulation}
    assert isinstance(split.population, kinds[spec.name])
    assert "300" in split.description


def test_the_sample_depends_on_the_seed_only(spec):
    base = load(spec).sample["x"]
    for other in (replace(spec, probe_size=7), replace(spec, heldout_samples=0)):
        np.testing.assert_array_equal(load(other).sample["x"], base)
    assert not np.array_equal(load(replace(spec, seed=1)).sample["x"], base)


def test_the_same_spec_gives_the_same_split(spec):
    for first, second in zip(batches(load(spec)), batches(load(spec)), strict=True):
        np.testing.assert_array_equal(first["x"], second["x"])
        np.testing.assert_array_equal(first["y"], second["y"])


def test_a_larger_sample_starts_with_a_smaller_one():
    small, large = (load(DataSpec(num_samples=n, probe_size=10)).sample["x"] for n in (100, 400))
    np.testing.assert_array_equal(large[:100], small)


def test_digits_carry_their_own_labels_and_lie_in_the_unit_interval():
    split = load(DataSpec(num_samples=1797, probe_size=10))
    data, targets = load_digits(return_X_y=True)
    truth = {(image / 16).astype(np.float32).tobytes(): label for image, label in zip(data, targets, strict=True)}
    assert [truth[x.tobytes()] for x in split.sample["x"]] == split.sample["y"].tolist()
    assert split.sample["x"].min() == 0
    assert split.sample["x"].max() == 1
    assert len(split.heldout_probe["x"]) == len(split.heldout_rest["x"]) == 0
    assert split.heldout_rest["x"].shape == (0, 8, 8, 1)
    assert "nothing is held out" in split.description


def test_too_many_samples_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"Expected num_samples <= 1797, .* got 1798"):
        load(DataSpec(num_samples=1798))


def test_the_population_has_its_own_seed():
    first, second = (load(replace(LINEAR, seed=seed)).population for seed in (0, 1))
    other = load(replace(LINEAR, population_seed=1)).population
    np.testing.assert_array_equal(first.w_star, second.w_star)
    assert not np.array_equal(first.w_star, other.w_star)


def test_the_declared_condition_is_that_of_the_population():
    population = load(replace(LINEAR, condition=100)).population
    assert population.beta / population.mu == pytest.approx(100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "imagenet"}, "Expected data to be one of digits"),
        ({"num_samples": 0}, "Expected num_samples to be a whole number from 1 .* got 0"),
        ({"num_samples": 1.5}, "Expected num_samples to be a whole number"),
        ({"seed": -1}, "Expected seed to be a whole number from 0"),
        ({"seed": True}, "Expected seed to be a whole number"),
        ({"probe_size": 2000}, "Expected probe_size <= num_samples, got probe_size=2000 and num_samples=1000"),
        ({"noise": "cauchy"}, "Expected noise to be uniform or gaussian"),
        ({"noise_scale": float("nan")}, "Expected a finite noise_scale"),
        ({"condition": 0.5}, "Expected a finite condition >= 1"),
        ({"name": "mnist"}, "Expected data_dir to say where the files of mnist are"),
        ({"data_dir": "x"}, "Expected no data_dir for digits"),
        ({"name": "csv", "data_dir": "x"}, "Expected label to name the column"),
        ({"label": "y"}, "Expected a label column only for csv"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        DataSpec(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "npz", "csv"])
def test_a_missing_folder_is_named(tmp_path, name):
    spec = DataSpec(name, tmp_path / "nowhere", label="y" if name == "csv" else None)
    with pytest.raises(FileNotFoundError, match=f"Expected the data of {name} at .*nowhere"):
        load(spec)


def test_files_are_found_in_the_folder_given_or_in_the_one_named_after_the_data(tmp_path):
    assert files_of("mnist", tmp_path) == tmp_path
    (tmp_path / "mnist").mkdir()
    assert files_of("mnist", tmp_path) == tmp_path / "mnist"
    assert files_of("csv", tmp_path) == tmp_path
    assert files_of("cifar10", tmp_path) == tmp_path
