"""All that reads what may be hostile: a valid input of each, how it is changed, and how it is read."""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib.util
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from lggwjax.cli import main
from lggwjax.data import DataSpec, load, write_shards
from lggwjax.data.archives import read_header
from lggwjax.data.files import one_line_errors
from lggwjax.experiments import grid
from lggwjax.experiments.compare_data import look_at
from lggwjax.experiments.designs import read_designs
from lggwjax.experiments.points import Point, open_study, run_points
from lggwjax.report import load_config, load_run
from lggwjax.report.study import load_study
from lggwjax.strict import strict_object
from lggwjax.training import checkpoints, evidence
from lggwjax.training.config import RunConfig
from lggwjax.training.folder import RunFolder, read_records
from lggwjax.training.left_out import LeftOut
from lggwjax.training.loop import TrainSpec, initial_state
from lggwjax.training.writers import CsvWriter, JsonlWriter
from tests.fuzz.mutate import NUMBERS, WORDS, Files, dump, mutate_files
from tests.fuzz.pages import made_by_data

ERRORS = (ValueError, OSError)
"""What a reader may raise; `FileNotFoundError` and `BadFileError` are among them."""


@dataclass(frozen=True)
class Case:
    """One input: the files of a folder, and words such as a column's name or a command line."""

    files: Files = field(default_factory=dict)
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """Something that reads.

    Attributes:
        name: In the counts.
        seeds: Valid inputs.
        run: Reads an input whose files lie in a folder.
        share: Inputs in about ten thousand.
        weight: Part of what is left over of a million; a quick target has a large one.
        errors: What it may raise.
        writes: Whether it writes, so that the folder beside it is looked after.
        whole: Whether it goes from the files to the page; such an input takes long.
        in_memory: Whether it reads bytes, so that no file is written.
        native: Whether threads of compiled code read, so that Python's count of what is held sees little.
    """

    name: str
    seeds: Callable[[], list[Case]]
    run: Callable[[Path, Case], Any]
    share: int = 500
    weight: int = 0
    errors: tuple[type[Exception], ...] = ERRORS
    writes: bool = False
    whole: bool = False
    in_memory: bool = False
    native: bool = False

    def mutate(self, rng: Random) -> Case:
        """Change one valid input."""
        case = rng.choice(_seeds(self.name))
        words = case.words
        if words and (not case.files or rng.randrange(4) == 0):
            return Case(case.files, mutate_words(rng, words))
        return Case(mutate_files(rng, case.files), words)


@functools.cache
def _seeds(name: str) -> list[Case]:
    return TARGETS[name].seeds()


def mutate_words(rng: Random, words: tuple[str, ...]) -> tuple[str, ...]:
    """Change words of a command line; none holds a NUL, which no process can be given."""
    found = list(words)
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(len(found) + 1)
        new = rng.choice((rng.choice(WORDS), rng.choice(NUMBERS), rng.choice(OPTIONS)))
        if rng.randrange(3) == 0:
            found.insert(index, new)
        elif index < len(found):
            found[index] = new if rng.randrange(4) else found[index] + new
    return tuple(word.replace("\0", "") for word in found)


# Data files


def _idx() -> list[Case]:
    rng, found = np.random.default_rng(0), {}
    for part, count in (("train", 6), ("t10k", 4)):
        images = struct.pack(">IIII", 0x803, count, 28, 28) + rng.integers(0, 256, (count, 784), np.uint8).tobytes()
        labels = struct.pack(">II", 0x801, count) + rng.integers(0, 10, count, np.uint8).tobytes()
        found |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    return [Case(found), Case({f"{name}.gz": gzip.compress(content, 1) for name, content in found.items()})]


def _cifar() -> list[Case]:
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (3, 3073), np.uint8)
    records[:, 0] %= 10
    names = "airplane automobile bird cat deer dog frog horse ship truck\n"
    part = records.tobytes()
    return [
        Case({"data_batch_1.bin": part, "test_batch.bin": part, "batches.meta.txt": names.encode()}),
        Case({"data_batch_2.bin": part}),
    ]


def _npz() -> list[Case]:
    x, found = np.arange(8, dtype=np.float32).reshape(4, 2), []
    for arrays in (
        {"x": x, "y": np.array([0, 1, 0, 1])},
        {"x": np.asfortranarray(x), "y": x[:, 0]},
        {"x": np.zeros((4, 3, 3), np.uint8), "y": np.array([0, 1, 1, 0], np.uint8)},
    ):
        with io.BytesIO() as stream:
            np.savez_compressed(stream, **arrays) if len(found) == 1 else np.savez(stream, **arrays)
            found.append(Case({"a.npz": stream.getvalue()}))
    return [*found, Case({"train.npz": found[0].files["a.npz"], "test.npz": found[0].files["a.npz"]})]


def _shards() -> list[Case]:
    kinds = ("npz", "array_record") if importlib.util.find_spec("array_record") else ("npz",)
    part, found = {"x": np.arange(8, dtype=np.float32).reshape(4, 2), "y": np.array([0, 1, 0, 1])}, []
    with tempfile.TemporaryDirectory() as place:
        for kind in kinds:
            folder = write_shards(Path(place) / kind, [part, part], kind)
            found.append(Case({file.name: file.read_bytes() for file in sorted(folder.iterdir())}))
    return found


def _table() -> list[Case]:
    rows = [f'{i}.5,{"red" if i % 3 else "blue"},"a, b",{i % 2},{i}e2' for i in range(60)]
    text = "\n".join(["size,colour,kind,y,target", *rows]) + "\n"
    few = "\n".join(["size,colour,kind,y,target", *rows[:8]]) + "\n"
    return [
        Case({"t.csv": few.encode()}, ("y",)),
        Case({"t.csv": ("\ufeff" + few).encode()}, ("target",)),
        Case({"t.csv": text.encode()}, ("colour",)),
    ]


def _load(name: str, num: int = 2) -> Callable[[Path, Case], Any]:
    def run(folder: Path, case: Case) -> None:
        label = case.words[0] if case.words else None
        load(DataSpec(name, folder, num_samples=num, probe_size=1, heldout_samples=2, label=label))

    return run


def _look(folder: Path, case: Case) -> None:
    look_at(str(folder / "t.csv"), label=case.words[0] or None)


def _headers() -> list[Case]:
    with io.BytesIO() as stream:
        np.save(stream, np.zeros((4, 2), np.float32))
        return [Case({"x.npy": stream.getvalue()})]


def _header(_: Path, case: Case) -> None:
    with one_line_errors(Path("x.npz"), "npz archive"):  # as it is called
        (content,) = case.files.values() or (b"",)
        read_header(io.BytesIO(content), "x", Path("x.npz"))


def _objects() -> list[Case]:
    files = _run_files() | {f"study/{name}": content for name, content in _studies()[0].files.items()}
    lines = [line for content in files.values() for line in content.splitlines() if content.startswith(b"{")]
    return [Case({"x.json": line}) for line in lines]


def _object(_: Path, case: Case) -> None:
    for content in case.files.values():
        strict_object(content, "x.json")


# Configurations


def _sweep() -> list[Case]:
    from lggwjax.experiments import run as experiments

    template = Path(experiments.__file__).parent / "templates" / "sweep.toml"
    short = 'title = "t"\nseeds = [0, 1]\ntarget_loss = 0.5\n[base.data]\nname = "digits"\nnum_samples = 50\n'
    short += "[base.model]\nwidths = [8]\n[base.training]\nsteps = 10\nlearning_rate = 0.1\n"
    short += '[base.measuring]\nmeasurements = 4\n[grid]\n"model.norm" = ["none", "layer"]\n'
    return [Case({"sweep.toml": template.read_bytes()}), Case({"sweep.toml": short.encode()})]


def _designs() -> list[Case]:
    from lggwjax.experiments.designs import TEMPLATES, template

    return [Case({"designs.toml": template(name).encode()}) for name in TEMPLATES]


def _run_files(kind: str = "overfit", steps: tuple[int, ...] = (0, 1, 4)) -> Files:
    from tests.report.conftest import make_config, make_records

    config = make_config(kind) | {
        part: fields | make_config(kind).get(part, {}) for part, fields in RunConfig().as_dict().items()
    }
    lines = "".join(json.dumps(record) + "\n" for record in make_records(kind, list(steps)))
    return {"config.json": json.dumps(config).encode(), "metrics.jsonl": lines.encode()}


def _runs() -> list[Case]:
    return [Case(_run_files(kind)) for kind in ("overfit", "no_heldout", "fresh")]


def _config(folder: Path, _: Case) -> None:
    RunConfig.from_dict(load_config(folder))


def _records(folder: Path, _: Case) -> None:
    read_records(folder / "metrics.jsonl")
    load_run(folder)


def _resumed() -> list[Case]:
    saved = {f"checkpoints/{step}/array": b"1" for step in (0, 1, 4)}
    return [
        Case(_run_files() | saved),
        Case(_run_files() | {"checkpoints/5.partial/x": b"", "report.html": b"x"}),
        Case(_run_files()),
    ]


def _resume(folder: Path, _: Case) -> None:
    asked = {part: dict(fields) for part, fields in RunConfig().as_dict().items() if part == "model"}
    with RunFolder.open(folder, asked | {"name": "overfit-example"}, resume=True) as opened:
        if not opened.finished:
            opened.append({"step": 1_000_000 if not opened.records else opened.records[-1]["step"] + 1})


_POINTS = [Point(f"p-{number}", {"seed": number}) for number in range(3)]


def _studies() -> list[Case]:
    study = {"name": "sweep", "preset": "own", "points": [{"id": p.id, "settings": p.settings} for p in _POINTS]}
    files = {"study.json": json.dumps(study).encode()}
    for number, status in enumerate(("done", "failed", "running")):
        record = {
            "id": f"p-{number}",
            "settings": {"seed": number},
            "attempts": number,
            "status": status,
            "result": {"loss": 1.0},
            "error": "x",
        }
        files[f"points/p-{number}.json"] = json.dumps(record).encode()
    return [Case(files)]


def _go_on(folder: Path, _: Case) -> None:
    if folder.is_dir():
        with contextlib.suppress(*ERRORS):
            load_study(folder)
    with open_study(folder, "sweep", "own", _POINTS, resume=True):
        run_points(folder, lambda settings: {"loss": settings["seed"]})


def _written() -> list[Case]:  # the file is one that the user names: a link there is the user's
    return [
        Case({"a.jsonl": b'{"step": 0, "a": 1}\n{"step": 3, "a": 1}\n{"st'}),
        Case({"a.csv": b"step,seconds\n0,1\n3,1\n4"}),
    ]


def _write_on(folder: Path, case: Case) -> None:
    for name in case.files:
        kind = JsonlWriter if name.endswith("jsonl") else CsvWriter
        kind(folder / name, append=True).close()


# Checkpoints


@functools.cache
def _state() -> Any:
    return initial_state({"params": {"a": jnp.arange(3.0), "b": jnp.ones((2, 2))}, "state": {}}, None, TrainSpec())


@functools.cache
def _checkpoint() -> Files:
    with tempfile.TemporaryDirectory() as place:
        checkpoints.save(place, _state())
        return {
            f"0/{file.relative_to(Path(place) / '0')}": file.read_bytes()
            for file in sorted((Path(place) / "0").rglob("*"))
            if file.is_file()
        }


def _summed() -> list[Case]:
    return [Case(dict(_checkpoint()))]


def _verify(folder: Path, _: Case) -> None:
    checkpoints.steps(folder)
    checkpoints._verify(folder / "0")


_PACKED, _AS_JSON = "0/packed/", ("_METADATA", "_CHECKPOINT_METADATA", "_sharding", "process_0", ".zarray", "zarr.json")


def _of_others(*, zarr3: bool) -> Files:
    with tempfile.TemporaryDirectory() as place:
        tree = {part: getattr(_state(), part) for part in checkpoints.PARTS}
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=zarr3)
        with checkpoints._quiet(), ocp.Checkpointer(handler) as writer:
            writer.save(Path(place) / "0", args=ocp.args.PyTreeSave(tree))
        return {
            file.relative_to(place).as_posix(): file.read_bytes()
            for file in sorted(Path(place).rglob("*"))
            if file.is_file()
        }


def _foreign() -> list[Case]:
    """Without sums: as it is written here, in folders, and as entries that a database is then made of."""
    folders, ours = _of_others(zarr3=False), dict(_checkpoint())
    del ours["0/sha256.json"]
    in_database = {name for name in folders if name.count("/") == 2 and "array_metadatas" not in name}
    entries = {name.replace("0/", _PACKED, 1) if name in in_database else name: folders[name] for name in folders}
    entries["0/_METADATA"] = entries["0/_METADATA"].replace(b'"use_ocdbt": false', b'"use_ocdbt": true')
    return [
        Case({name + (".json" if name.endswith(_AS_JSON) else ""): content for name, content in files.items()})
        for files in (ours, folders, _of_others(zarr3=True), entries)
    ]


def _restore(folder: Path, _: Case) -> None:
    for file in [*folder.rglob("*.json")]:  # the suffix says how it was changed
        file.rename(file.with_suffix(""))
    packed = folder / _PACKED
    if packed.is_dir():
        base = {"driver": "file", "path": f"{folder / '0'}/"}
        database = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        for file in packed.rglob("*"):
            if file.is_file():
                database.write(file.relative_to(packed).as_posix(), file.read_bytes()).result()
    checkpoints.restore(folder, 0, _state())


# The command line

OPTIONS = (
    *(
        "run",
        "measure",
        "claims",
        "experiment",
        "compare",
        "report",
        "--help",
        "--version",
        "--data",
        "--label",
        "--seed",
        "--out",
    ),
    *(
        "--num-samples",
        "--heldout-samples",
        "--probe-size",
        "--widths",
        "--steps",
        "--passes",
        "--batch-size",
        "--learning-rate",
    ),
    *(
        "--config",
        "--resume",
        "--json",
        "--plan",
        "--lang",
        "--minutes",
        "--workers",
        "--slurm-option",
        "--template",
        "--quiet",
        "--",
    ),
    *(
        "--noise-scale",
        "--condition",
        "--dimension",
        "--checkpoints",
        "--confidence",
        "--gradient-bound",
        "--worth",
        "--directions",
    ),
)


def _commands() -> list[Case]:
    files = (
        _run_files() | _table()[0].files | _sweep()[1].files | {"d/designs.toml": _designs()[0].files["designs.toml"]}
    )
    lines = (
        "run --data digits --num-samples 50 --probe-size 8 --widths 8,8 --steps 10 --batch-size 10 --out new --quiet",
        "run --data csv --data-dir t.csv --label y --num-samples 4 --heldout-samples 2 --out new --seed 1 --plan",
        "run --data linear --dimension 5 --noise-scale 0.5 --fresh --passes 2 --optimizer sgd --out new",
        "measure --checkpoints . --data digits --model cnn --base-width 4 --directions 16 --out new",
        "claims . --json --confidence 0.9 --gradient-bound 3",
        "experiment --config sweep.toml --out new --workers 1 --slurm-option partition=gpu",
        "experiment levers --preset quick --out new",
        "compare --data t.csv --label y --config d/designs.toml --minutes 1 --seeds 3 --out new --worth 0.2",
        "report . --lang ja --out page.html",
        "report . . --out both.html",
    )
    return [Case(files, tuple(line.split())) for line in lines]


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """Nothing is trained or drawn; everything is read and checked."""
    import lggwjax.report
    import lggwjax.training
    from lggwjax.experiments import compare, run
    from lggwjax.report import compare_runs, run_page

    def prepare(config: RunConfig, **_: Any) -> Any:
        small = config.data.name not in ("linear", "teacher") or config.data.num_samples * config.data.dimension < 1e4
        if small:
            load(config.data)
        raise ValueError("Expected nothing, got a run that could start. This is where training would begin.")

    drawn = mock.Mock(side_effect=ValueError("Expected nothing, got a page that could be drawn."))
    with contextlib.ExitStack() as stack:
        for module, name, stub in (
            (lggwjax.training, "prepare_run", prepare),
            (evidence, "prepare_run", prepare),
            (
                compare,
                "pilot",
                mock.Mock(side_effect=ValueError("Expected nothing, got a comparison that could start.")),
            ),
            (run, "run_points", lambda *_, **__: None),
            (lggwjax.report, "write_study_page", lambda folder: folder / "report.html"),
            (run_page, "_document", drawn),
            (compare_runs, "_document", drawn),
        ):
            stack.enter_context(mock.patch.object(module, name, stub))
        stack.enter_context(mock.patch("lggwjax.cli.experiment.print_answer", return_value=0))
        yield


@contextlib.contextmanager
def without_figures() -> Iterator[None]:
    """Figures are laid out and not rendered."""
    from matplotlib.figure import Figure

    def save(_: Figure, file: Path, **__: Any) -> None:
        Path(file).write_bytes(b"<svg/>")

    with (
        mock.patch.object(Figure, "savefig", save),
        mock.patch.object(Figure, "draw_without_rendering"),
    ):
        yield


class Refused(ValueError):  # noqa: N818, what happened
    """The command line said no in one line."""


def command(words: tuple[str, ...]) -> None:
    """Run a command; whatever is refused is refused in one line and by its exit status."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(list(words))
    lines = said.getvalue().strip().splitlines()
    if status not in (0, 1, 2) or len(lines) > 1 or (status and not lines):
        raise AssertionError(f"status {status} and {lines}")
    if status:
        from tests.fuzz.watch import check_said

        check_said(" ".join(words)[:200], said.getvalue())
        raise Refused(lines[0])


def _command(folder: Path, case: Case) -> None:
    with contextlib.chdir(folder), without_work():
        command(case.words)


# From records to pages


def _page_of(folder: Path, *words: str) -> None:
    from lggwjax.report import gallery

    out = folder / "page.html"
    few = [plot for plot in gallery.PLOTS if plot.name in ("descent",)]
    with contextlib.chdir(folder.parent), mock.patch.object(gallery, "PLOTS", few):
        command(("report", *words, "--out", str(out)))
    html = out.read_text(encoding="utf-8")
    out.unlink()
    if bad := made_by_data(html):
        raise AssertionError(f"a page with {bad[:5]}")
    if "the-secret-outside" in html:
        raise AssertionError("a page that tells what a file outside holds")


def _page(folder: Path, _: Case) -> None:
    with without_figures():
        _page_of(folder, str(folder), "--lang", "ja")


def _drawn_page(folder: Path, _: Case) -> None:
    _page_of(folder, str(folder))


def _compared() -> list[Case]:
    files = {}
    for design, seed in (("a", 0), ("a", 1), ("b", 0), ("b", 1)):
        held = _run_files()
        config = json.loads(held["config.json"])
        config["data"]["seed"] = config["training"]["seed"] = seed
        config["model"]["widths"] = [8] if design == "a" else [16]
        files |= {
            f"{design}{seed}/config.json": json.dumps(config).encode(),
            f"{design}{seed}/metrics.jsonl": held["metrics.jsonl"],
        }
    return [Case(files)]


def _comparison(folder: Path, _: Case) -> None:
    with without_figures():
        _page_of(folder, *(str(folder / name) for name in ("a0", "a1", "b0", "b1")))


def _study_pages() -> list[Case]:
    """A small study of every name, as the tests of its page make it."""
    import tests.report.test_study_compare as compare
    import tests.report.test_study_domination as domination
    import tests.report.test_study_featurizer as featurizer
    import tests.report.test_study_prediction as prediction
    import tests.report.test_study_reuse as reuse
    import tests.report.test_study_shift as shift
    import tests.report.test_study_sweep as sweep
    import tests.report.test_study_width_scaling as scaling
    from tests.report.study_folders import lever_points, write_study

    found = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        two = {"ffn": lambda seed: domination.result(2.0, seed), "cnn": lambda seed: domination.result(1.5, seed)}
        domination.study(home / "domination", two)
        featurizer.study(home / "featurizer", {"ffn": lambda seed: featurizer.result(seed, 0.2, 0.9)})
        scaling.study(home / "scaling")
        compare.comparison(home / "compare" / "study", {"linear model": 0.5, "network": 0.2}, seeds=3)
        write_study(home / "levers" / "study", "levers", lever_points({"a": {"lggw": 0.5}, "b": {}}, 3))
        write_study(
            home / "sweep" / "study", "sweep", sweep.points({"a": {}, "b": {"heldout_loss": 0.5}}, 3), title="t"
        )
        write_study(
            home / "prediction" / "study", "prediction", prediction.models({"lggw": 1.0}, data=["digits"], seeds=1)[:12]
        )
        listed = [reuse.point("linear", num, seed, turn=8 if num else None) for num in (64, None) for seed in range(3)]
        write_study(home / "reuse" / "study", "reuse", listed)
        listed = [
            shift.point(kind, seed, lggw=None, descent=2 if kind != "none" else None, loss=None)
            for kind in ("none", "label noise")
            for seed in range(3)
        ]
        write_study(home / "shift" / "study", "shift", listed)
        for name in (
            "domination",
            "featurizer",
            "scaling",
            "compare",
            "levers",
            "sweep",
            "prediction",
            "reuse",
            "shift",
        ):
            folder = home / name / "study"
            found.append(
                Case(
                    {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*.json"))}
                )
            )
    return found


def _study_page(folder: Path, _: Case) -> None:
    with without_figures():
        _page_of(folder, str(folder))


def _claims(folder: Path, _: Case) -> None:
    def left_out(records: list[dict[str, Any]]) -> None:
        if records and records[-1].get("skipped") is not None:
            LeftOut(lambda *_: 0.0, np.zeros(8), np.zeros(8), None, records)

    def prepare(config: RunConfig) -> Any:
        return SimpleNamespace(config=config, start=_state(), left_out=left_out)

    with (
        mock.patch.object(evidence, "prepare_run", prepare),
        mock.patch.object(checkpoints, "restore", return_value=_state()),
    ):
        evidence.Evidence.of_run(folder)


def _claimed() -> list[Case]:
    files = _run_files("overfit", RunConfig().steps_measured)
    config = json.loads(files["config.json"])
    config |= RunConfig().as_dict()
    *_, last = files["metrics.jsonl"].splitlines(keepends=True)
    skipped = dump(json.loads(last) | {"skipped": {"train": [1, 3], "heldout": []}}) + b"\n"
    found = files | {"config.json": json.dumps(config).encode()}
    return [Case(found), Case(found | {"metrics.jsonl": found["metrics.jsonl"].removesuffix(last) + skipped})]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("idx", _idx, _load("mnist"), 900, 1),
        Target("cifar10", _cifar, _load("cifar10"), 800, 2),
        Target("npz", _npz, _load("npz"), 900),
        Target("shards", _shards, _load("shards", 4), 500),
        Target("array header", _headers, _header, 1200, 5, in_memory=True),
        Target("JSON object", _objects, _object, 600, 30, in_memory=True),
        Target("csv", _table, _load("csv", 4), 800),
        Target("csv of a comparison", _table, _look, 400),
        Target("sweep", _sweep, lambda folder, _: grid.read(folder / "sweep.toml"), 600),
        Target("designs", _designs, lambda folder, _: read_designs(folder / "designs.toml"), 600),
        Target("config", _runs, _config, 800, 2),
        Target("records", _runs, _records, 600),
        Target("run folder", _resumed, _resume, 500, writes=True),
        Target("study folder", _studies, _go_on, 400, writes=True),
        Target("writers", _written, _write_on, 500, 2),
        Target("claims", _claimed, _claims, 300),
        Target("checkpoint sums", _summed, _verify, 300),
        Target("checkpoint", _foreign, _restore, 120, native=True),
        Target("command line", _commands, _command, 300, writes=True),
        Target("page", _runs, _page, 40, writes=True, whole=True),
        Target("drawn page", _runs, _drawn_page, 6, writes=True, whole=True),
        Target("page of several runs", _compared, _comparison, 10, writes=True, whole=True),
        Target("page of a study", _study_pages, _study_page, 45, writes=True, whole=True),
    )
}
