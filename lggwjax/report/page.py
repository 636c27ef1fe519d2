"""From a run, a study or a comparison to one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from lggwjax.report.document import Document
from lggwjax.report.language import LANGUAGES, Language, Text
from lggwjax.report.phrases import GLOSSARY, OUTCOMES, PAGE
from lggwjax.report.run_page import run_document

_GENERATOR = '<meta name="generator" content="lggwjax">'
# A cell that begins with a symbol has the colour that goes with it.
_MARKS = {"▲": "helps", "▼": "hurts", "○": "undecided", "✓": "helps", "✗": "hurts"}


def write_document(document: Document, path: str | Path, language: Language = "en") -> Path:
    """Write a page.

    It loads nothing from outside: style and figures are inside it. It is written beside its place and then moved there,
    so a reader sees the old page or the new one, never half of one.

    Args:
        document: What it says.
        path: The file.
        language: ``en`` or ``ja``.

    Returns:
        The path.

    Raises:
        ValueError: If the language is another one.

    Example:
        >>> import tempfile
        >>> word = Text("word", "語")
        >>> document = Document(word, word, word, word, (word, word, word), "helps", say=word, do_not_say=[word])
        >>> path = write_document(document, Path(tempfile.mkdtemp()) / "page.html", "ja")
        >>> '<html lang="ja">' in path.read_text(encoding="utf-8")
        True
    """
    if language not in LANGUAGES:
        raise ValueError(f"Expected language to be one of {', '.join(LANGUAGES)}, got {language!r}.")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lggwjax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["say"] = lambda text: Text.same(text).to(language)
    html = environment.get_template("page.html").render(
        document=document,
        figures=[(figure, _inlined(figure.svg)) for figure in document.figures],
        words=PAGE,
        outcomes=OUTCOMES,
        glossary=GLOSSARY,
        marks=_MARKS,
        environment=_flat(document.environment),
        config=json.dumps(_shown(document.config), indent=2, ensure_ascii=False) if document.config else "",
        lang=language,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh_copy = path.with_name(f".{path.name}.{os.getpid()}")
    fresh_copy.unlink(missing_ok=True)  # a link of that name would lead the writing elsewhere
    fresh_copy.write_text(html, encoding="utf-8")
    fresh_copy.replace(path)
    return path


def write_page(folder: str | Path, language: Language = "en") -> Path:
    r"""Write a run's figures and the page that explains them.

    Args:
        folder: A run folder with ``config.json`` and at least one measurement.
        language: ``en`` or ``ja``.

    Returns:
        The path of ``report.html``, or of ``report.ja.html``.

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
    return write_document(run_document(folder), Path(folder) / page_name(language), language)


def write_study_page(folder: str | Path, language: Language = "en") -> Path:
    """Write a study's figures and the page that explains them.

    Args:
        folder: A study folder with ``study.json``.
        language: ``en`` or ``ja``.

    Returns:
        The path of ``report.html``, or of ``report.ja.html``.

    Raises:
        ValueError: If the folder is no study folder, or nothing is known about a study of its name.
    """
    from lggwjax.report.studies import study_document

    return write_document(study_document(folder), Path(folder) / page_name(language), language)


def page_name(language: Language) -> str:
    """Name the file of a page in a language.

    Example:
        >>> page_name("en"), page_name("ja")
        ('report.html', 'report.ja.html')
    """
    return "report.html" if language == "en" else f"report.{language}.html"


def is_page(path: Path) -> bool:
    """Say whether a file is a page that was written here, and may so be replaced."""
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(2000)
            return _GENERATOR in head or "· lggwjax</title>" in head  # pages before this one had no generator
    except (OSError, UnicodeDecodeError):
        return False


def _inlined(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _flat(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            rows += [(str(part), str(version)) for part, version in value.items() if version is not None]
        elif value is not None:
            rows.append((str(name).replace("_", " "), str(value)))
    return rows


def _shown(value: Any) -> Any:
    """Leave the folders of absolute paths out: a page is passed on, and whose machine it was made on is nobody's business."""
    if isinstance(value, Mapping):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return f"…/{Path(value).name}" if isinstance(value, str) and Path(value).is_absolute() else value
