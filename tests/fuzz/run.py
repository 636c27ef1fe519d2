"""Try many hostile inputs on all that reads files, and count what became of them.

    python tests/fuzz/run.py --inputs 1000000 --json benchmarks/results/fuzz.json

Of up to 20,000 inputs every target gets its share. Of more, a target gets 10,000, one that goes from the files to the
page 2,000, and the quick ones get the rest. An input is a valid one,
changed at random; the seed, the target's name and a number fix it, so that one that fails can be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz.targets import TARGETS, Target  # noqa: E402, the checkout comes first
from tests.fuzz.watch import CONSTANT, EVERY, FACTOR, LIMIT, SECONDS, Failure, attempt, watching  # noqa: E402

LEAST, LEAST_PAGES = 10_000, 2_000


def split(inputs: int) -> dict[str, int]:
    """How many inputs each target gets: so many as its share, or, of many, mostly the quick ones."""
    if inputs <= 20_000:
        total = sum(target.share for target in TARGETS.values())
        return {name: max(1, round(inputs * target.share / total)) for name, target in TARGETS.items()}
    found = {name: LEAST_PAGES if target.whole else LEAST for name, target in TARGETS.items()}
    rest, weights = max(0, inputs - sum(found.values())), sum(target.weight for target in TARGETS.values())
    return {name: number + rest * TARGETS[name].weight // weights for name, number in found.items()}


def tried(target: Target, number: int, seed: int, failures: list[str]) -> dict[str, Any]:
    """Try so many inputs of one target."""
    outcomes, slowest, largest, start = Counter[str](), 0.0, 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lggwjax-fuzz-") as place, watching():
        for index in range(number):
            case = target.mutate(random.Random(f"{target.name} {seed} {index}"))
            try:
                found = attempt(target, Path(place) / "x", case, counted=index % EVERY == 0)
            except Failure as error:
                outcomes["FAILED"] += 1
                failures.append(f"{target.name}, seed {seed}, input {index}: {error}")
                print(failures[-1], flush=True)
            else:
                outcomes[found.kind] += 1
                slowest, largest = max(slowest, found.seconds), max(largest, found.allocated)
    seconds = time.perf_counter() - start
    return {
        "inputs": number,
        "outcomes": dict(outcomes.most_common()),
        "slowest_seconds": round(slowest, 3),
        "largest_allocation_bytes": largest,
        "peak_of_the_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "inputs_per_second": round(number / max(seconds, 1e-9)),
        "from_files_to_page": target.whole,
    }


def main() -> int:
    """Try, count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--target", action="append", choices=[*TARGETS], help="only this one, the others kept; again for more"
    )
    parser.add_argument("--json", type=Path, help="write what came out")
    options = parser.parse_args()
    from benchmarks.machine import describe

    machine, parts = describe(ROOT, "cpu", os.cpu_count() or 1), split(options.inputs)
    kept = json.loads(options.json.read_text()) if options.target and options.json and options.json.exists() else {}
    results, failures = kept.get("targets", {}), []
    for name in options.target or TARGETS:
        results[name] = tried(TARGETS[name], parts[name], options.seed, failures)
        results[name]["commit"] = machine["commit"]
        print(f"{name:22} {results[name]}", flush=True)
        if options.json:
            write(options.json, machine, options.seed, results, failures)
    total = sum(result["inputs"] for result in results.values())
    print(f"{total} inputs, {len(failures)} failures")
    return int(bool(failures))


def write(file: Path, machine: dict[str, Any], seed: int, results: dict[str, Any], failures: list[str]) -> None:
    """Write what came out until now."""
    found = {
        "machine": machine,
        "seed": seed,
        "inputs": sum(result["inputs"] for result in results.values()),
        "failures": failures,
        "limits": {
            "seconds": SECONDS,
            "growth_of_the_process_bytes": LIMIT,
            "counted_inputs": f"1 in {EVERY}",
            "counted_bytes": CONSTANT,
            "counted_bytes_per_byte_of_input": FACTOR,
        },
        "targets": results,
    }
    file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
