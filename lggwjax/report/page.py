"""From a run folder to one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from lggwjax.report.gallery import save_all
from lggwjax.report.records import (
    ESTIMATES,
    NERCS,
    WIDTHS,
    is_fresh,
    load_config,
    load_run,
    loss_unit,
    move_word,
    unseen_word,
)
from lggwjax.report.table import NONE, estimate_text, measured, number_text
from lggwjax.report.verdict import verdict, words

# What each quantity is, for a reader who never saw its name in the records; {unseen} is held-out or population.
_NAMES = {
    "lggw": ("LGGW (stacked)", "width of the path's gradients, all measured samples stacked into one long vector"),
    "single_width": ("single width", "mean over the samples of the width of one sample's gradients along the path"),
    "union_width": ("union width", "width of all gradients: every measured sample at every checkpoint"),
    "cloud_width": ("cloud width", "width of the per-sample gradients at the present checkpoint"),
    "nerc": ("NERC", "normed empirical Rademacher complexity: how far random signs move the path's gradients"),
    "feature_width": ("feature width", "width of the featurizer's outputs at the present checkpoint"),
    "heldout_lggw": ("LGGW, held-out", "the LGGW of the same path on held-out samples"),
    "heldout_cloud_width": ("cloud width, held-out", "the cloud width on held-out samples"),
    "heldout_nerc": ("NERC, held-out", "the NERC of the same path on held-out samples"),
    "deviation": ("deviation", "distance between the gradient on the samples trained on and the {unseen} gradient"),
    "heldout_grad_norm": ("{unseen} gradient", "norm of the {unseen} gradient"),
    "population_descent": ("{unseen} descent", "first-order drop of the {unseen} loss by the last {move}"),
}
_PLAIN = {
    "passes": "passes",
    "train_loss": "train loss",
    "heldout_loss": "{unseen} loss",
    "train_accuracy": "train accuracy",
    "heldout_accuracy": "{unseen} accuracy",
    "grad_norm": "train gradient",
    "gradient_rms": "gradient rms",
    "features.active_share": "active units",
    "features.l1": "features L1",
    "features.l2": "features L2",
}
_TABLE_ORDER = (
    *("passes", "train_loss", "heldout_loss", "train_accuracy", "heldout_accuracy", "population_descent", "lggw"),
    *("heldout_lggw", "single_width", "union_width", "cloud_width", "heldout_cloud_width", "nerc", "heldout_nerc"),
    *("deviation", "grad_norm", "heldout_grad_norm", "gradient_rms", "feature_width", "features.active_share"),
    *("features.l1", "features.l2"),
)
_STATUS_WORDS = {
    "descriptive": "descriptive: what was seen, no guarantee; the path was trained on these samples",
    "independent": "independent: these samples took no part in making the path",
}


def write_page(folder: str | Path) -> Path:
    r"""Write a run's figures and the page that explains them.

    The page loads nothing from outside: style and figures are inside it. It is written beside its place and then moved
    there, so a reader sees the old page or the new one, never half of one.

    Args:
        folder: A run folder with ``config.json`` and at least one measurement.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: If the folder is no run folder or has no measurement yet.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> _ = (folder / "metrics.jsonl").write_text('{"step": 0, "train_loss": 2.5}\n')
        >>> write_page(folder).name
        'report.html'
    """
    folder = Path(folder)
    records, config = load_run(folder), load_config(folder)
    found = verdict(records, config)
    loader = jinja2.PackageLoader("lggwjax.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("run.html").render(
        kind="Training run" if move_word(config) == "step" else "Checkpoints measured",
        title=_title(folder, config),
        done=_done(records, config),
        verdict=found,
        unseen=unseen_word(config),
        move=move_word(config),
        unit=loss_unit(records),
        fresh=is_fresh(config),
        has_heldout=measured(records, "heldout_loss"),
        figures=[(figure, _inlined(figure.svg)) for figure in save_all(folder)],
        table=_table(records, unseen_word(config)),
        counts=_counts(records, config),
        quantities=_quantities(records, config),
        descriptive=_any_status(records, "descriptive"),
        environment=_environment(config),
        config=json.dumps(config, indent=2, ensure_ascii=False),
    )
    path = folder / "report.html"
    fresh_copy = path.with_name(f".report.html.{os.getpid()}")
    fresh_copy.write_text(html, encoding="utf-8")
    fresh_copy.replace(path)
    return path


def _inlined(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _title(folder: Path, config: Mapping[str, Any]) -> str:
    model, data = (_part(config, part).get("name") for part in ("model", "data"))
    if model and data:
        return f"{model} on {data}"
    return str(config.get("name") or folder.resolve().name)


def _done(records: pd.DataFrame, config: Mapping[str, Any]) -> str:
    model, data, training = (_part(config, name) for name in ("model", "data", "training"))
    last = records.iloc[-1].to_dict()
    what = f"A model ({model['name']})" if model.get("name") else "A model"
    about = f" {data['description']}" if data.get("description") else ""
    if move_word(config) == "move":
        return f"{what} was measured at {len(records)} checkpoint{'s' * (len(records) != 1)} made elsewhere.{about}"
    where = f" on {data['name']}" if data.get("name") else ""
    passes = "" if pd.isna(last["passes"]) or is_fresh(config) else f" ({number_text(last['passes'])} passes)"
    num_samples = data.get("num_samples")
    if is_fresh(config):
        reuse = "with new samples at every step"
    else:
        reuse = f"over the same {num_samples:,} samples" if isinstance(num_samples, int) else "over the same samples"
    return (
        f"{what} was trained{where} for {last['step']:,.0f} steps{passes} {reuse} ({_optimiser(training)}), and "
        f"measured {len(records)} time{'s' * (len(records) != 1)} on the way.{about}"
    )


def _optimiser(training: Mapping[str, Any]) -> str:
    how = [str(training.get("optimizer") or "optimiser not recorded")]
    if training.get("learning_rate") is not None:
        how.append(f"learning rate {training['learning_rate']:g}")
    if "batch_size" in training:
        size = training["batch_size"]
        how.append(f"batches of {size:,}" if size else "all samples at each step")
    return ", ".join(how)


def _table(records: pd.DataFrame, unseen: str) -> dict[str, Any]:
    names = [name for name in _TABLE_ORDER if measured(records, name)]
    headings = [_PLAIN[n] if n in _PLAIN else _NAMES[n][0] for n in names]
    rows = []
    for row, word in zip(records.to_dict("records"), words(records), strict=True):
        cells = [_plain_text(n, row[n]) if n in _PLAIN else estimate_text(row, n) for n in names]
        rows.append({"step": f"{row['step']:,.0f}", "word": word, "cells": cells})
    return {"headings": [heading.format(unseen=unseen) for heading in headings], "rows": rows}


def _plain_text(name: str, value: float) -> str:
    return f"{value:.3f}" if name.endswith("accuracy") and not pd.isna(value) else number_text(value)


def _counts(records: pd.DataFrame, config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Tell apart the four numbers that are easily mixed up: trained on, measured, checkpoints, directions."""
    last = records.iloc[-1]
    num_samples = _part(config, "data").get("num_samples")
    trained = f"{num_samples:,}" if isinstance(num_samples, int) else "not recorded"
    if is_fresh(config):
        trained = "new ones at every step"
    probe, heldout, checkpoints, draws = (
        number if number != NONE else "not measured"
        for number in (
            _whole(last["lggw.num_samples"]),
            _whole(last["heldout_lggw.num_samples"]),
            _whole(last["lggw.num_checkpoints"]),
            _whole(last["lggw.num_draws"]),
        )
    )
    chosen = "independent of the path" if is_fresh(config) else "drawn from those trained on"
    return [
        ("samples trained on", trained, "the sample S that the optimiser sees"),
        ("samples measured (train probe)", probe, f"{chosen}; the gradients of these enter the widths"),
        ("samples measured (held-out probe)", heldout, "never trained on; they speak for unseen data"),
        ("checkpoints", checkpoints, "points of the path at which gradients were taken, up to the last measurement"),
        ("random directions", draws, "Gaussian draws per width; more of them narrow the error bars only"),
    ]


def _quantities(records: pd.DataFrame, config: Mapping[str, Any]) -> list[dict[str, str]]:
    last, listed = records.iloc[-1], []
    for name in (*WIDTHS, *NERCS, *(n for n in ESTIMATES if n not in (*WIDTHS, *NERCS))):
        if not measured(records, name):
            continue
        label, meaning = (t.format(unseen=unseen_word(config), move=move_word(config)) for t in _NAMES[name])
        status = last.get(f"status.{name}")
        listed.append(
            {
                "name": label,
                "field": name,
                "meaning": meaning,
                "status": _STATUS_WORDS.get(str(status), status if isinstance(status, str) else NONE),
                "samples": _whole(last.get(f"{name}.num_samples")),
                "checkpoints": _whole(last.get(f"{name}.num_checkpoints")),
                "draws": _whole(last.get(f"{name}.num_draws")),
            }
        )
    return listed


def _any_status(records: pd.DataFrame, status: str) -> bool:
    return any(bool((records[c] == status).any()) for c in records if str(c).startswith("status."))


def _environment(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in _part(config, "environment").items():
        if isinstance(value, Mapping):
            rows += [(str(part), str(version)) for part, version in value.items() if version is not None]
        elif value is not None:
            rows.append((str(name).replace("_", " "), str(value)))
    return rows


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _whole(value: Any) -> str:
    return NONE if value is None or pd.isna(value) else f"{value:,.0f}"
