"""Coverage-guided fuzzing by Atheris of what is read in Python: mutations that reach new code are mutated again.

    python tests/fuzz/guided.py --inputs 10000 --json benchmarks/results/fuzz-guided.json

Each target runs in a process of its own, because libFuzzer ends the one that it works in. An input is one byte that
says which file of which valid input it replaces, and what that file holds; half of the mutations are libFuzzer's, half
are those of `mutate`. The corpus is made from the valid inputs and thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "idx",
    "cifar10",
    "npz",
    "shards",
    "array header",
    "csv",
    "sweep",
    "designs",
    "config",
    "records",
    "run folder",
    "study folder",
    "writers",
)
MODULES = (
    "lggwjax.data",
    "lggwjax.report.records",
    "lggwjax.strict",
    "lggwjax.report.study",
    "lggwjax.experiments",
    "lggwjax.training",
    "lggwjax.models.spec",
    "zipfile",
    "tomllib",
    "csv",
    "gzip",
)
_MOST_BYTES = 20_000


def guided(name: str, inputs: int, seed: int = 1) -> dict[str, Any]:
    """Fuzz one target.

    Args:
        name: One of `TARGETS`.
        inputs: So many.
        seed: Of the mutations.

    Returns:
        What libFuzzer counted: inputs tried, branches reached by the valid inputs and at the end.

    Raises:
        RuntimeError: If an input broke the promise; the message ends with what was found.
    """
    with tempfile.TemporaryDirectory(prefix="lggwjax-guided-") as place:
        (Path(place) / "corpus").mkdir()
        command = [
            sys.executable,
            str(Path(__file__)),
            "--child",
            name,
            "--place",
            place,
            "--inputs",
            str(inputs),
            "--seed",
            str(seed),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    covered = [int(number) for number in re.findall(r"cov: (\d+)", done.stderr)]
    executed = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode or executed is None or not covered:
        raise RuntimeError(f"{name} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    return {"inputs": int(executed[1]), "branches_at_first": covered[0], "branches": covered[-1]}


def _child(name: str, place: Path, inputs: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=list(MODULES)):
        sys.path.insert(0, str(ROOT))
        from tests.fuzz import targets
        from tests.fuzz.mutate import BY_SUFFIX, mutate_bytes
        from tests.fuzz.watch import attempt, watching

    target = targets.TARGETS[name]
    files = [(case, file) for case in target.seeds() for file in sorted(case.files)][:256]
    for index, (case, file) in enumerate(files):
        (place / "corpus" / str(index)).write_bytes(bytes((index,)) + case.files[file])

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng, index = Random(seed), (data[0] if data else 0) % len(files)
        if rng.randrange(2):
            return atheris.Mutate(data, most)
        try:
            content = BY_SUFFIX.get(Path(files[index][1]).suffix, mutate_bytes)(rng, data[1:])
        except Exception:
            content = mutate_bytes(rng, data[1:])
        return (bytes((index,)) + content)[:most]

    def one(data: bytes) -> None:
        case, file = files[data[0] % len(files)] if data else files[0]
        with watching():
            attempt(target, place / "x", targets.Case(case.files | {file: data[1:]}, case.words), counted=False)

    arguments = [
        sys.argv[0],
        f"-runs={inputs}",
        f"-seed={seed}",
        f"-max_len={_MOST_BYTES}",
        "-timeout=120",
        "-rss_limit_mb=4096",
    ]
    arguments += [f"-artifact_prefix={place}/", "-print_final_stats=1", str(place / "corpus")]
    atheris.Setup(arguments, one, custom_mutator=mutate, internal_libfuzzer=True)
    atheris.Fuzz()


def main() -> int:
    """Fuzz every target in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given again")
    parser.add_argument("--json", type=Path, help="write what came out")
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.place, options.inputs, options.seed)
        return 0
    sys.path.insert(0, str(ROOT))
    from benchmarks.machine import describe

    machine, results = describe(ROOT, "cpu", os.cpu_count() or 1), {}
    for name in options.target or TARGETS:
        results[name] = guided(name, options.inputs, options.seed)
        print(name, results[name], flush=True)
    if options.json:
        found = {"machine": machine, "seed": options.seed, "targets": results}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
