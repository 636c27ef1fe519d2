"""A page holds the elements that its template has, and none that data made."""

from __future__ import annotations

from html.parser import HTMLParser

ELEMENTS = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "header",
        "main",
        "section",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "ul",
        "li",
        "figure",
        "img",
        "figcaption",
        "details",
        "summary",
        "pre",
        "dl",
        "dt",
        "dd",
    ]
)
ATTRIBUTES = frozenset(
    [
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "rel",
        "href",
        "class",
        "role",
        "tabindex",
        "scope",
        "src",
        "alt",
        "width",
        "height",
        "id",
    ]
)


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.bad: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ELEMENTS:
            self.bad.append(f"<{tag}>")
        for name, value in attrs:
            if name not in ATTRIBUTES and not name.startswith("aria-"):
                self.bad.append(f"<{tag} {name}>")
            elif name in ("src", "href") and not (value or "").startswith(("data:image/svg+xml;base64,", "data:,")):
                self.bad.append(f"<{tag} {name}={value!r}>")

    def handle_comment(self, data: str) -> None:
        self.bad.append(f"<!--{data[:40]}-->")

    def handle_pi(self, data: str) -> None:
        self.bad.append(f"<?{data[:40]}>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def made_by_data(html: str) -> list[str]:
    """Elements, attributes, comments and addresses that the template does not have."""
    return Reader(html).bad
