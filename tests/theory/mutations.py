"""Does a wrong constant make a test fail? A check to be run by hand: ``python tests/theory/mutations.py``.

Each mutation makes one constant of one statement 10% wrong, in the direction that makes it claim too much, in a copy of
the library; the tests of its module must notice, the slow ones if the others do not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Mutation(NamedTuple):
    """One constant made wrong.

    Attributes:
        statement: Its number in lggwjax/theory/README.md.
        module: File under ``lggwjax/theory``.
        right: Text that occurs once.
        wrong: What takes its place.
    """

    statement: str
    module: str
    right: str
    wrong: str

    @property
    def tests(self) -> str:
        """The file of tests that must notice."""
        return f"tests/theory/test_{self.module}.py"


MUTATIONS = (
    Mutation("3.1", "complexity", "float(rms.max()) / math.sqrt(2)}", "1.1 * float(rms.max()) / math.sqrt(2)}"),
    Mutation("3.2", "complexity", '{"rms": float(rms.max()), "points"', '{"rms": 0.9 * float(rms.max()), "points"'),
    Mutation("3.2", "complexity", "math.sqrt(2 * math.log(length))", "0.9 * math.sqrt(2 * math.log(length))"),
    Mutation("3.3", "complexity", "whole = math.sqrt(math.pi / 2)", "whole = 0.9 * math.sqrt(math.pi / 2)"),
    Mutation("3.4", "complexity", "(3 * math.sqrt(2 * math.pi)", "(0.9 * 3 * math.sqrt(2 * math.pi)"),
    Mutation("3.4", "complexity", "4 * math.sqrt(math.pi * math.log(2))", "3.6 * math.sqrt(math.pi * math.log(2))"),
    Mutation("3.7", "complexity", '"at least": largest / root', '"at least": 1.1 * largest / root'),
    Mutation("3.7", "complexity", '"at most": root *', '"at most": 0.9 * root *'),
    Mutation("4.2", "sample_reuse", '{"NERC": 2 * nerc, "chance": chance}', '{"NERC": 1.8 * nerc, "chance": chance}'),
    Mutation("4.2", "sample_reuse", "chance = 3 * bound.value", "chance = 2.7 * bound.value"),
    Mutation("4.3", "sample_reuse", '"NERC": 2 * nerc,\n', '"NERC": 1.8 * nerc,\n'),
    Mutation("4.3", "sample_reuse", '"chance": bound.value * math', '"chance": 0.9 * bound.value * math'),
    Mutation("4.3", "sample_reuse", 'own chance": 2 * math', 'own chance": 1.8 * math'),
    Mutation("4.3", "sample_reuse", "+ 4 * bound.value", "+ 3.6 * bound.value"),
    Mutation("4.4", "sample_reuse", "scale = bound.value /", "scale = 0.9 * bound.value /"),
    Mutation(
        "4.4",
        "sample_reuse",
        "scale * math.sqrt(2 * math.log(num_points",
        "scale * math.sqrt(1.6 * math.log(num_points",
    ),
    Mutation("4.5", "sample_reuse", "float(seen.max())", "0.9 * float(seen.max())"),
    Mutation("4.6", "sample_reuse", "((times + 1) * (times + 2))", "((times + 1) * (times + 1))"),
    Mutation(
        "5.1",
        "generalization",
        "value=power(gradient_norm + deviation.value)",
        "value=power(0.9 * (gradient_norm + deviation.value))",
    ),
    Mutation("5.2", "domination", "Domination(2.0, 1 / (2 * modulus)", "Domination(2.0, 0.9 / (2 * modulus)"),
    Mutation("5.2", "domination", "Domination(1.0, radius,", "Domination(1.0, 0.9 * radius,"),
    Mutation("5.3", "domination", "constant = float(ratios.max())", "constant = 0.9 * float(ratios.max())"),
    Mutation("6.1", "optimisation", "2 * (first_loss - last_loss)", "1.8 * (first_loss - last_loss)"),
    Mutation("6.1", "optimisation", '"deviation": float(np.mean', '"deviation": 0.9 * float(np.mean'),
    Mutation("6.2", "optimisation", "(1 - learning_rate * modulus)", "(1 - 1.1 * learning_rate * modulus)"),
    Mutation("6.2", "optimisation", '"floor": float(', '"floor": 0.9 * float('),
    Mutation(
        "6.3", "optimisation", "smoothness * learning_rate * noise**2", "0.9 * smoothness * learning_rate * noise**2"
    ),
    Mutation("8.5", "features", "LOOSEST_COTANGENT = math.sqrt(2)", "LOOSEST_COTANGENT = 0.9 * math.sqrt(2)"),
    Mutation("8.5", "features", "feature_radius * expected_max_normal", "0.9 * feature_radius * expected_max_normal"),
    Mutation("8.6", "features", "* expected_max_abs_normal(dim)", "* 0.9 * expected_max_abs_normal(dim)"),
    Mutation("8.6", "features", "largest * sparse_ball(dim, entries)", "0.9 * largest * sparse_ball(dim, entries)"),
    Mutation("8.6", "features", "largest * expected_chi(dim)", "0.9 * largest * expected_chi(dim)"),
    Mutation(
        "8.7", "network_norms", "width = float(weights[0]) * node.width", "width = 0.9 * float(weights[0]) * node.width"
    ),
    Mutation("8.7", "network_norms", "width += float(moves", "width += 0.9 * float(moves"),
    Mutation(
        "B", "network_norms", "np.full(reader.length, math.sqrt(2))", "np.full(reader.length, 0.9 * math.sqrt(2))"
    ),
    Mutation(
        "B",
        "network_norms",
        "made = self._from(node, weights, size, width)",
        "made = self._from(node, 0.9 * weights, size, width)",
    ),
    Mutation("7.2", "local_ball", "linear = _lengths(slope)", "linear = 0.9 * _lengths(slope)"),
    Mutation("7.3", "local_ball", "hessian_lipschitz * radius**2 / 2", "0.9 * hessian_lipschitz * radius**2 / 2"),
    Mutation("7.3", "local_ball", "mean / (1 - 2 * math.sqrt(level / draws))", "mean"),
    Mutation("7.4", "local_ball", "best = jnp.maximum(best, draw", "best = jnp.maximum(best, 1.1 * draw"),
    Mutation("8.1", "layers", "coupled = self._high(scales[1]", "coupled = 0.9 * self._high(scales[1]"),
    Mutation("8.2", "layers", '"inputs": reach[1] * self', '"inputs": 0.9 * reach[1] * self'),
    Mutation("8.4", "layers", "highest = sum(float(row", "highest = 0.4 * sum(float(row"),
    Mutation("8.8", "layers", "self.bound(comb(*terms.values())", "self.bound(0.9 * comb(*terms.values())"),
    Mutation("B", "network_norms", "math.sqrt(times * known.repeats)", "0.9 * math.sqrt(times * known.repeats)"),
)


def notices(mutation: Mutation) -> bool:
    """Whether the tests of a mutation's module fail on it.

    Args:
        mutation: What to make wrong.

    Returns:
        True if they do, as they should.

    Raises:
        ValueError: If the text to change does not occur exactly once.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("lggwjax", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        module = copy / "lggwjax" / "theory" / f"{mutation.module}.py"
        text = module.read_text()
        if text.count(mutation.right) != 1:
            raise ValueError(
                f"Expected {mutation.right!r} once in {module.name}, got {text.count(mutation.right)} times."
            )
        module.write_text(text.replace(mutation.right, mutation.wrong))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            mutation.tests,
            "-m",
        ]
        run = {"cwd": copy, "env": os.environ | {"PYTHONPATH": folder}, "capture_output": True, "check": False}
        return any(subprocess.run([*command, tier], **run).returncode == 1 for tier in ("not slow", "slow"))


def main() -> int:
    """Try all mutations, print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write what came out")
    parser.add_argument("--only", help="statements, with commas between")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else {m.statement for m in MUTATIONS}
    rows = []
    for mutation in MUTATIONS:
        if mutation.statement not in wanted:
            continue
        rows.append(mutation._asdict() | {"noticed": notices(mutation)})
        print(
            f"{mutation.statement:4} {'noticed' if rows[-1]['noticed'] else 'SURVIVED':9} {mutation.wrong}", flush=True
        )
    if options.json:
        sys.path.insert(0, str(ROOT))
        from benchmarks.machine import describe

        found = {"machine": describe(ROOT, "cpu", os.cpu_count() or 1), "mutations": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    survived = [row for row in rows if not row["noticed"]]
    print(f"{len(rows) - len(survived)} of {len(rows)} noticed")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
