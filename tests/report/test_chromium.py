"""Pages as a browser shows them, in both languages: on a phone, on a desk and on paper."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lggwjax.report import write_document
from lggwjax.report.compare_runs import comparison_document
from lggwjax.report.document import Document, Finding, Table
from lggwjax.report.language import LANGUAGES, Text
from lggwjax.report.run_page import run_document

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STEPS = [0, 1, 4, 11, 24, 33, 80, 400]
# Contrast of what is written on what lies behind it, for every piece of text.
CONTRASTS = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    found.push((Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return found;
}"""
# What sticks out of the page, leaving aside what lies in a part that scrolls by itself.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def shown(browser, path: Path, width: int, **media: Any) -> tuple[Any, list[str]]:
    page, said = browser.new_page(viewport={"width": width, "height": 800}), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.emulate_media(**media)
    page.goto(path.as_uri())
    return page, said


def check(browser, path: Path) -> None:
    """What holds for every page, at every width; a sheet of A4 with its margins is 680 pixels wide."""
    for width, media in (
        (375, {}),
        (1200, {"color_scheme": "dark"}),
        (375, {"color_scheme": "dark"}),
        (680, {"media": "print"}),
    ):
        page, said = shown(browser, path, width, **media)
        assert said == []
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert min(contrasts) >= 4.5
        page.close()
    page, _ = shown(browser, path, 1200)
    assert page.evaluate("[...document.images].every(i => i.alt.length > 20 && i.complete && i.naturalWidth > 0)")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))
    page.close()


def english_left(browser, path: Path) -> list[str]:
    """Runs of four or more English words in a page, outside of its configuration and of the title of the paper."""
    page, _ = shown(browser, path, 1200)
    text = page.evaluate("""() => {
      document.querySelectorAll('pre, code, .environment').forEach(e => e.remove());
      return document.body.innerText + [...document.images].map(i => i.alt).join('\\n');
    }""")
    page.close()
    text = re.sub(r"Banerjee.*?arXiv", "", text).replace("Loss Gradient Gaussian Width の略", "")
    return re.findall(r"(?:\b[A-Za-z]{2,}[ ,]+){3}[A-Za-z]{2,}", text)


def small_document(word: Text) -> Document:
    table = Table(
        word,
        [word, word],
        [["a-name-that-is-long-enough-to-need-more-than-one-line", "0.5 ± 0.1"], [word, "▲ 1"]],
        word,
    )
    outcomes = [Finding(word, outcome, word) for outcome in ("confirmed", "not confirmed", "not decided")]
    return Document(
        *(word, word, word, word, (word, word, word), "hurts"),
        say=word,
        do_not_say=[word],
        findings=outcomes,
        tables=[table],
        meaning=[word],
        may=[word],
        may_not=[word],
        method=[word],
        config={"long": "x" * 300},
        environment={"device": "cpu: " + "x" * 80},
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_of_words_is_fit_for_phone_desk_and_paper(browser, tmp_path, language):
    word = Text("What was measured, and how sure it is.", "測定したことと、その確からしさです。")
    path = write_document(small_document(word), tmp_path / "page.html", language)
    check(browser, path)
    if language == "ja":
        assert english_left(browser, path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["overfit", "helping", "no_heldout", "fresh", "regression"])
def test_the_page_of_a_run(browser, run_of, kind):
    folder = run_of(kind, STEPS)
    document = run_document(folder)
    for language in LANGUAGES:
        path = write_document(document, folder / f"{language}.html", language)
        check(browser, path)
    assert english_left(browser, path) == []
    assert len(english_left(browser, folder / "en.html")) > 20


@pytest.mark.slow
def test_the_page_of_a_comparison(browser, runs_of, tmp_path):
    document = comparison_document(runs_of({"small": [64], "large": [256]}, seeds=3), tmp_path / "figures")
    for language in LANGUAGES:
        path = write_document(document, tmp_path / f"{language}.html", language)
        check(browser, path)
    assert english_left(browser, path) == []


def test_the_checks_can_fail(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<html><body style='color: #999'><h1>a</h1><h3>b</h3><p style='width: 900px'>" + "text <i>x</i> " * 30
    )
    page, _ = shown(browser, path, 375)
    assert page.evaluate(OUTSIDE) != []
    assert min(page.evaluate(CONTRASTS)) < 4.5
    page.close()
    with pytest.raises(AssertionError):
        check(browser, path)


PAGES = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "pages").glob("*.html"))


def test_every_finished_page_is_there_in_every_language():
    names = {page.name.split(".")[0] for page in PAGES}
    assert len(PAGES) == len(LANGUAGES) * len(names)
    assert {f"{name}.html" for name in names} | {f"{name}.ja.html" for name in names} == {page.name for page in PAGES}


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_finished_page(browser, path):
    check(browser, path)
    if path.name.endswith(".ja.html"):
        assert english_left(browser, path) == []
