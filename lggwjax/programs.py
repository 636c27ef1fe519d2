"""What a compiled program does on one device: operations, bytes sent between devices, memory. Read off the program."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|branch_computations|true_computation|false_computation)=\{?([^,}]+(?:, ?%[^,}]+)*)"
)


@dataclass(frozen=True)
class ProgramCosts:
    """What one device does in one compiled program.

    Attributes:
        flops: Operations of its matrix products and convolutions, a loop's as often as it turns.
        collective_bytes: Bytes that arrive in collective operations, by the name of the operation.
        memory: Bytes of arguments, results and scratch.
    """

    flops: float
    collective_bytes: dict[str, float]
    memory: int

    @property
    def sent(self) -> float:
        """Bytes of all collectives."""
        return sum(self.collective_bytes.values())


@dataclass
class _Computation:
    flops: float = 0.0
    collectives: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    called: list[tuple[str, float]] = field(default_factory=list)


def costs_of(compiled: Any) -> ProgramCosts:
    """Read a program that ``jax.jit(f).lower(...).compile()`` gave.

    Args:
        compiled: The program, for one device or, with shardings, for each of many.

    Returns:
        Its costs on one device. Loops without a known number of turns count once.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> square = jax.jit(lambda a: jax.lax.fori_loop(0, 3, lambda _, x: x @ x, a))
        >>> costs_of(square.lower(jnp.ones((8, 8))).compile()).flops
        3072.0
    """
    flops, collectives = read_program(compiled.as_text())
    found = compiled.memory_analysis()
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    memory = sum(getattr(found, name) for name in sizes) if found is not None else 0
    return ProgramCosts(flops, collectives, memory)


def read_program(text: str) -> tuple[float, dict[str, float]]:
    """Operations and bytes of collectives in the text of an optimised HLO module.

    Args:
        text: From ``compiled.as_text()``.

    Returns:
        Operations, and bytes by collective.
    """
    computations, entry, current, shapes = {}, "", _Computation(), {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and " = " not in line.split("{")[0]:
            current, shapes = _Computation(), {}
            computations[header[2]] = current
            entry = header[2] if header[1] else entry
            continue
        instruction = _INSTRUCTION.match(line)
        if instruction:
            name, shape, operation, rest = instruction.groups()
            shapes[name] = shape
            _count(current, operation, shape, rest, shapes)
    return _total(computations, entry, {})


def _count(own: _Computation, operation: str, shape: str, rest: str, shapes: dict[str, str]) -> None:
    kind = operation.removesuffix("-start")
    if kind in COLLECTIVES:
        # A collective that was only begun also returns its operand.
        parts = _sizes(shape)
        own.collectives[kind] += parts[-1] if operation.endswith("-start") and len(parts) > 1 else sum(parts)
    elif operation == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        left = _dims(_operand(rest, 0, shapes))
        depth = math.prod(left[int(axis)] for axis in contracted[1].split(",") if axis) if contracted else 1
        own.flops += 2.0 * math.prod(_dims(shape)) * depth
    elif operation == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", rest)
        kernel = _dims(_operand(rest, 1, shapes))
        outputs = kernel[labels[1].index("o")] if labels else 1
        own.flops += 2.0 * math.prod(_dims(shape)) * math.prod(kernel) / max(1, outputs)
    turns = 1.0
    if operation == "while":
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
        turns = float(known[1]) if known else 1.0
    for found in _CALLED.finditer(rest):
        own.called += [(name.strip().lstrip("%"), turns) for name in found[1].split(",")]


def _operand(rest: str, place: int, shapes: dict[str, str]) -> str:
    """The shape of an operand, written where it is used or where it was made."""
    depth, start, parts = 0, 0, []
    for index, sign in enumerate(rest):
        depth += sign in "([{"
        depth -= sign in ")]}"
        if (sign == "," and depth == 0) or depth < 0:
            parts.append(rest[start:index].strip())
            start = index + 1
        if depth < 0:
            break
    text = parts[place]
    return text if _SHAPE.search(text) else shapes[text.split()[-1].lstrip("%")]


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return [int(size) for size in found[2].split(",") if size] if found else []


def _sizes(shape: str) -> list[float]:
    return [_itemsize(kind) * math.prod(int(s) for s in dims.split(",") if s) for kind, dims in _SHAPE.findall(shape)]


def _itemsize(kind: str) -> float:
    digits = re.search(r"\d+", kind)
    return _BYTES.get(kind, int(digits[0]) / 8 if digits else 4)


def _total(
    computations: dict[str, _Computation], name: str, seen: dict[str, tuple[float, dict[str, float]]]
) -> tuple[float, dict[str, float]]:
    if name not in seen:
        own = computations.get(name, _Computation())
        flops, collectives = own.flops, defaultdict(float, own.collectives)
        for called, turns in own.called:
            inner, sent = _total(computations, called, seen)
            flops += turns * inner
            for kind, size in sent.items():
                collectives[kind] += turns * size
        seen[name] = flops, dict(collectives)
    return seen[name]
