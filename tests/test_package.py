"""The house: what importing costs, which rooms know which, and that every example runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lggwjax

ROOT = Path(lggwjax.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages(lggwjax.__path__, "lggwjax.") if not m.name.endswith("__main__"))
HEAVY = ("flax", "optax", "matplotlib", "orbax", "sklearn", "pandas", "jinja2", "rich", "IPython")

# Which rooms a room may import from, besides itself.
CORE = {"gradients", "widths", "lggw"}
ALLOWED = {
    "jaxprs": set(),
    "sharding": set(),
    "programs": set(),
    "widths": set(),
    "gradients": {"jaxprs", "sharding"},
    "planner": {"gradients", "sharding"},
    "scaling": {"gradients", "programs", "sharding"},
    "lggw": {"gradients", "widths", "planner", "sharding"},
    "theory": CORE | {"jaxprs"},
    "models": {"jaxprs"},
    "data": set(),
    "strict": set(),
    "report": {"strict"},
    "training": CORE | {"sharding", "strict", "theory", "models", "data", "report"},
}
# Parts of a room that keep to less than their room.
STRICTER = {
    "training/loop.py": {"data", "gradients", "sharding"},
    "training/meter.py": CORE | {"sharding"},
    "training/monitor.py": CORE | {"sharding"},
    "training/looks.py": set(),
    "training/pace.py": set(),
    "training/probes.py": CORE | {"sharding"},
    "training/heldout.py": CORE | {"sharding"},
}


def _imports(file: Path) -> list[str]:
    """Full names of all modules that a file imports, also those imported inside functions."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_the_core_only():
    code = f"import sys, lggwjax; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _run(code) == "[]"
    assert _run(f"import sys, matplotlib; print([m for m in {HEAVY!r} if m in sys.modules][0])") == "matplotlib"


def test_training_loads_nothing_that_draws():
    assert _run("import sys, lggwjax.training; print('matplotlib' in sys.modules)") == "False"


def test_importing_turns_no_global_switch():
    code = "import jax; before = dict(jax.config.values); import lggwjax; print(before == dict(jax.config.values))"
    assert _run(code) == "True"


@pytest.mark.slow
def test_importing_costs_little_more_than_jax():
    code = (
        "import time, jax, jax.numpy; start = time.perf_counter(); import lggwjax; print(time.perf_counter() - start)"
    )
    assert min(float(_run(code)) for _ in range(5)) <= 0.3


def test_every_public_name_can_be_had():
    for name in lggwjax.__all__:
        assert getattr(lggwjax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'widht'"):
        _ = lggwjax.widht


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_in_one_direction(room):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        known = {name.split(".")[1] for name in _imports(file) if name.startswith("lggwjax.")}
        assert known <= ALLOWED[room] | {room}, file.name


@pytest.mark.parametrize("file", STRICTER)
def test_measuring_and_training_know_little(file):
    known = {name.split(".")[1] for name in _imports(ROOT / file) if name.startswith("lggwjax.")}
    assert known <= STRICTER[file] | {"training"}


def test_report_reads_records_without_jax():
    for file in (ROOT / "report").glob("*.py"):
        assert not {name.split(".")[0] for name in _imports(file)} & {"jax", "flax", "optax"}, file.name


def test_data_and_gradients_need_no_flax():
    for room in ("data", "gradients", "widths"):
        for file in (ROOT / room).glob("*.py"):
            assert not {name.split(".")[0] for name in _imports(file)} & {"flax", "optax", "matplotlib"}, file.name


def test_no_private_module_of_jax_is_imported():
    for file in ROOT.rglob("*.py"):
        private = [name for name in _imports(file) if name.startswith(("jax._", "jaxlib", "flax.nnx._"))]
        assert private == [], file.name


def test_the_import_tests_would_see_an_import(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from jax._src import core\n    import lggwjax.models.zoo\n")
    assert _imports(file) == ["jax._src.core", "lggwjax.models.zoo"]


FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "pty", "commands", "code"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pd.read_pickle",
    "jnp.load",
}


def _runs_what_it_reads(text: str) -> list[str]:
    """Calls and imports by which a file that is only read could run code, or words reach a shell."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else module
            found += [name for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call):
            called, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in FORBIDDEN_CALLS | FORBIDDEN_METHODS or called.startswith(("os.exec", "os.spawn")):
                found.append(called)
            if words.get("shell", "False") != "False" or words.get("allow_pickle", "False") != "False":
                found.append(called)
            if called in ("np.load", "numpy.load") and words.get("allow_pickle") != "False":
                found.append(called)
    return found


def test_nothing_that_is_read_is_run():
    for file in ROOT.rglob("*.py"):
        assert _runs_what_it_reads(file.read_text(encoding="utf-8")) == [], file.name


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from cloudpickle import loads",
            "import yaml",
            "import marshal",
            "eval(x)",
            "exec(x)",
            "os.system(x)",
        ),
        *(
            "subprocess.run(x, shell=True)",
            "subprocess.run(x, shell=flag)",
            "np.load(x)",
            "np.load(x, allow_pickle=True)",
        ),
        *("read(x, allow_pickle=True)", "os.popen(x)", "os.execv(x, y)", "__import__(x)"),
    ],
)
def test_what_could_run_code_would_be_seen(line):
    assert _runs_what_it_reads(line)
    assert not _runs_what_it_reads("np.load(x, allow_pickle=False)\nsubprocess.run([x], shell=False)\nmodel.eval()")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} failed"


def test_the_public_functions_have_examples():
    finder = doctest.DocTestFinder(recurse=False)
    for name in (
        "lggw",
        "plan",
        "nerc",
        "single_widths",
        "gaussian_width",
        "width_from_gram",
        "gradient_gram",
        "per_sample_gradients",
    ):
        assert finder.find(getattr(lggwjax, name))[0].examples, name


def test_the_package_is_typed():
    assert (ROOT / "py.typed").exists()
