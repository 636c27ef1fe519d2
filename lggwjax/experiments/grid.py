"""A grid of runs of one's own, from a TOML file."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lggwjax.experiments.outcomes import outcomes
from lggwjax.experiments.points import Point
from lggwjax.experiments.trained import data_folder, run_config, run_settings
from lggwjax.training.config import RunConfig
from lggwjax.training.files import Json

_PARTS = ("data", "model", "training", "measuring")
_KEYS = {"title", "seeds", "target_loss", "base", "grid"}
MAX_POINTS = 10_000
_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("a text", (str,)),
    list: ("a list", (list,)),
}


def read(file: Path, data_dir: Path | None = None) -> tuple[Sequence[Point], Json]:
    """Read a grid: every combination of the values in ``[grid]``, on every seed, is a run.

    Args:
        file: TOML with ``seeds``, tables ``[base.data]``, ``[base.model]``, ``[base.training]`` and
            ``[base.measuring]``, and a table ``[grid]`` from ``"part.field"`` to a list of values. ``title`` and
            ``target_loss`` may be given.
        data_dir: Where data files lie, if ``base.data.data_dir`` does not say so.

    Returns:
        The points, and what the page needs to know besides.

    Raises:
        ValueError: If the file is no such TOML, or a run in it is refused; the message says which.
        FileNotFoundError: If there is no file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"Expected a TOML file with a grid of runs at {file}, got no such file.")
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad UTF-8, numbers of 5,000 digits and deep lists among them
        raise ValueError(f"Expected TOML in {file}, got {error}.") from None
    unknown = sorted(set(given) - _KEYS)
    if unknown:
        raise ValueError(f"Expected {', '.join(sorted(_KEYS))} in {file}, got {unknown[0]!r}. Leave it out.")
    base, axes, seeds = given.get("base", {}), given.get("grid", {}), given.get("seeds", [0])
    _check(file, base, axes, seeds)
    target = given.get("target_loss")
    if target is not None and (not isinstance(target, int | float) or isinstance(target, bool)):
        raise ValueError(f"Expected target_loss to be a number in {file}, got {target!r}.")
    points = []
    for values in itertools.product(*axes.values()):
        change = dict(zip(axes, values, strict=True))
        design = ", ".join(f"{name.split('.')[1]} {_text(value)}" for name, value in change.items()) or "base"
        for seed in seeds:
            config = _config(file, base, change, seed, data_dir)
            settings = run_settings(config) | {
                "design": design,
                "changed": {name: _text(value) for name, value in change.items()},
                "seed": seed,
                "target_loss": target,
            }
            points.append(Point(f"run-{len(points):04d}", settings))
    return points, {"title": str(given.get("title", file.stem))}


def _check(file: Path, base: Any, axes: Any, seeds: Any) -> None:
    if not isinstance(base, dict) or not all(part in _PARTS and isinstance(base[part], dict) for part in base):
        others = [part for part in base if part not in _PARTS] if isinstance(base, dict) else []
        got = f"[base.{others[0]}]" if others else "something else"
        raise ValueError(f"Expected tables [base.{'], [base.'.join(_PARTS)}] in {file}, got {got}.")
    if not isinstance(axes, dict) or not all(isinstance(values, list) and values for values in axes.values()):
        raise ValueError(f'Expected [grid] in {file} to give lists, such as "model.norm" = ["none", "layer"].')
    for name in axes:
        if name.count(".") != 1 or name.split(".")[0] not in _PARTS:
            raise ValueError(f'Expected names such as "model.norm" in [grid] of {file}, got {name!r}. Quote them.')
    whole = isinstance(seeds, list) and seeds and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not whole:
        raise ValueError(f"Expected seeds to be a list of whole numbers in {file}, got {seeds!r}.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"Expected different seeds in {file}, got one twice in {seeds}.")
    number = len(seeds)
    for values in axes.values():
        number *= len(values)
    if number > MAX_POINTS:
        raise ValueError(f"Expected at most {MAX_POINTS:,} runs in {file}, got {number:,}. Shorten its lists.")


def _config(file: Path, base: dict[str, Any], change: dict[str, Any], seed: int, data_dir: Path | None) -> RunConfig:
    parts = {part: dict(base.get(part, {})) for part in _PARTS}
    defaults = RunConfig().as_dict()
    for name, value in change.items():
        part, field = name.split(".")
        parts[part][field] = value
    for part, fields in parts.items():
        unknown = sorted(set(fields) - set(defaults[part]))
        if unknown:
            raise ValueError(
                f"Expected a field of {part} in {file}, one of {', '.join(defaults[part])}, got {unknown[0]!r}."
            )
        for name, value in fields.items():
            kinds = _KINDS.get(type(defaults[part][name]))
            if kinds and (not isinstance(value, kinds[1]) or (isinstance(value, bool) and bool not in kinds[1])):
                raise ValueError(f"Expected {part}.{name} in {file} to be {kinds[0]}, got {value!r}.")
    data, training = parts["data"], parts["training"]
    data.setdefault("seed", seed)
    training.setdefault("seed", seed)
    data.setdefault("num_samples", defaults["data"]["num_samples"])
    data.setdefault("probe_size", min(64, data["num_samples"]))
    training.setdefault("steps", defaults["training"]["steps"])
    if "data_dir" not in data and data_dir is not None:
        folder = data_folder(str(data.get("name", "digits")), data_dir)
        data |= {} if folder is None else {"data_dir": str(folder)}
    try:
        return RunConfig.from_dict(parts)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"Expected runs that can be made in {file}: {error}") from None


def measure(settings: Json) -> Json:
    """One run's numbers."""
    return outcomes(run_config(settings), target_loss=settings["target_loss"])


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
