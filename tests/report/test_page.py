from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lggwjax.report import gallery, load_run, verdict, write_page
from lggwjax.report.document import Document
from lggwjax.report.language import Text
from lggwjax.report.page import write_document

STEPS = [0, 1, 4, 11, 24, 33, 80, 400]
PACKAGE = Path(__file__).resolve().parents[2] / "lggwjax"


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """Draw two figures a page, except where the figures are the point: drawing takes nearly all of the time."""
    if "all_figures" not in request.fixturenames:
        monkeypatch.setattr(gallery, "PLOTS", [p for p in gallery.PLOTS if p.name in ("descent", "losses")])


@pytest.fixture
def all_figures():
    """Ask for every figure."""


class Reader(HTMLParser):
    """The tags, the attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data):
        self.text += data


def read(folder: Path) -> Reader:
    return Reader(write_page(folder).read_text(encoding="utf-8"))


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("kind", ["helping", "no_heldout", "fresh", "regression"])
def test_the_page_says_the_three_sentences(run_of, kind):
    folder = run_of(kind, STEPS)
    page = read(folder)
    config = json.loads((folder / "config.json").read_text())
    for sentence in verdict(load_run(folder), config).sentences:
        assert sentence.en in page.text


@pytest.mark.parametrize(("kind", "number"), [("overfit", 7), ("no_heldout", 5)])
def test_the_page_shows_the_figures_with_words(run_of, all_figures, kind, number):
    page = read(run_of(kind, STEPS))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == number
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/svg+xml;base64,") for image in images)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_the_page_loads_nothing_from_outside(run_of):
    folder = run_of("overfit", STEPS)
    page = read(folder)
    html = re.sub(r'src="data:[^"]*"', "", (folder / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed"} == set()
    sources = [a[name] for _, a in page.tags for name in ("src", "href") if name in a]
    assert all((source or "").startswith("data:") for source in sources)


def test_hostile_names_are_shown_and_not_obeyed(run_of):
    folder = run_of("overfit", STEPS)
    hostile = "<script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}</style>"
    config = json.loads((folder / "config.json").read_text())
    config["environment"]["device"] = config["data"]["name"] = config["data"]["description"] = hostile
    config["model"]["name"] = config["training"]["optimizer"] = hostile
    config["environment"]["versions"] = {hostile: hostile}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["status"] = {"lggw": hostile}
        line[hostile] = {hostile: hostile}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = read(folder)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert not [a for _, a in page.tags if "onerror" in a]
    assert page.text.count(hostile) >= 6


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("data", {"num_samples": []}),
        ("training", {"learning_rate": {}}),
        ("model", {"name": {"a": []}}),
        ("measuring", [[]]),
    ],
)
def test_an_odd_configuration_has_a_page_or_one_line(run_of, part, value):
    folder = run_of("overfit", [0, 1, 10])
    config = json.loads((folder / "config.json").read_text())
    config[part] = config[part] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    said = ""
    try:
        write_page(folder)
    except ValueError as error:
        said = str(error)
    assert not said or ("records of the usual form" in said and "\n" not in said)


def test_the_page_tells_the_four_counts_and_the_status_apart(run_of):
    text = one_line(read(run_of("overfit", STEPS)).text)
    assert "samples trained on 64" in text
    assert "samples measured (held-out probe) 128" in text
    assert f"checkpoints {len(STEPS)}" in text
    assert "random directions 512" in text
    assert "no guarantee; the path was trained on these samples" in text
    assert "took no part in making the path" in text


def test_a_sketched_run_has_a_page(run_of):
    folder = run_of("overfit", STEPS)
    config = json.loads((folder / "config.json").read_text())
    config["measuring"]["route"] = "sketched"
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["single_width"] = line["union_width"] = None
        for name in ("lggw", "heldout_lggw"):
            line[name] |= {"draws_bound95": None, "sketch_stderr": 0.02}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verdict(load_run(folder), config).sentences[0].en in read(folder).text
    table = load_run(folder)
    assert table["lggw.sketch_stderr"].tolist() == [0.02] * len(lines)
    assert table["lggw.draws_bound95_low"].isna().all()


def test_population_is_a_word_for_exact_populations(run_of):
    finite, exact = (one_line(read(run_of(kind, STEPS)).text) for kind in ("overfit", "regression"))
    assert "population loss" not in finite
    assert "population descent" not in finite.replace("population_descent", "")
    assert "population loss" in exact


def test_without_held_out_part_the_page_claims_nothing_about_unseen_data(run_of):
    text = one_line(read(run_of("no_heldout", STEPS)).text)
    assert "Anything about unseen data: this run has no held-out part." in text
    assert "U-statistics" not in text
    assert "with 95% confidence" not in text


@pytest.mark.parametrize(
    "config", [{}, {"data": None, "model": 3, "training": []}, {"training": {"trained_here": False, "steps": 10}}]
)
def test_a_folder_that_was_not_trained_here_has_a_page(run_of, config):
    folder = run_of("overfit", [0, 10])
    (folder / "config.json").write_text(json.dumps(config))
    page = read(folder)
    assert "measured at 2 checkpoints made elsewhere" in page.text
    assert "overfit" in page.text
    assert "the move from the checkpoint before" in page.text
    assert "a step over" not in page.text


def test_the_page_is_replaced_whole(run_of, monkeypatch):
    folder = run_of("overfit", [0, 1, 10])
    path = write_page(folder)
    before = path.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_page(folder)
    assert path.read_text() == before


def test_no_measurement_is_refused(run_of):
    folder = run_of("overfit", [])
    with pytest.raises(ValueError, match="at least one measurement"):
        write_page(folder)


def test_report_needs_no_jax(run_of):
    folder = run_of("overfit", [0, 1, 10])
    program = f"""
import sys, types
for name in ("jax", "jaxlib", "flax", "optax", "matplotlib.pyplot"):
    sys.modules[name] = None  # importing it is an error
package = types.ModuleType("lggwjax")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["lggwjax"] = package
import lggwjax.report
print(lggwjax.report.write_page({str(folder)!r}, "ja"), lggwjax.report.write_page({str(folder)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("report.html")


def test_the_page_does_not_tell_where_the_data_lie(tmp_path):
    word = Text("word", "語")
    config = {
        "data": {"data_dir": "/home/ann/secret/mnist"},
        "points": [{"file": "/home/ann/my.csv", "relative": "data/x"}],
    }
    page = Document(word, word, word, word, (word, word, word), "helps", say=word, do_not_say=[word], config=config)
    html = write_document(page, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "/home" not in html
    assert all(name in html for name in ("…/mnist", "…/my.csv", "data/x"))
