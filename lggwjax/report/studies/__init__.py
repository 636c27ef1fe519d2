"""One module per study: from its records to what its page says."""

from __future__ import annotations

import importlib
from pathlib import Path

from lggwjax.report.document import Document
from lggwjax.report.study import load_study
from lggwjax.strict import usual_form

# A study's module is imported when its page is asked for; it has ``document(study) -> Document``.
_MODULES = {
    "domination": "domination",
    "reuse": "reuse",
    "featurizer": "featurizer",
    "width-scaling": "width_scaling",
    "levers": "levers",
    "shift": "shift",
    "prediction": "prediction",
    "sweep": "sweep",
    "compare": "compare",
}


def study_document(folder: str | Path) -> Document:
    """Read a study, draw its figures into the folder, and say what they show.

    Args:
        folder: A study folder, as ``lggwjax experiment`` or ``lggwjax compare`` leaves it.

    Returns:
        What its page says.

    Raises:
        ValueError: If it is no study folder, nothing is known about a study of its name, or a record is not of its form.
    """
    study = load_study(folder)
    if study.name not in _MODULES:
        raise ValueError(f"Expected a study named {', '.join(_MODULES)}, got {study.name!r} in {str(folder)!r}.")
    with usual_form(folder):
        return importlib.import_module(f"lggwjax.report.studies.{_MODULES[study.name]}").document(study)
