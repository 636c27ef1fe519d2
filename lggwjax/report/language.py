"""Text in the languages that a page can be written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Language = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True)
class Text:
    """The same statement in every language; both are written side by side, so that neither is forgotten.

    Attributes:
        en: English.
        ja: Japanese.

    Example:
        >>> Text("{n} seeds", "シード {n} 個").format(n=3).ja
        'シード 3 個'
        >>> str(Text("loss", "損失") + Text(" (nats)", "(nats)"))
        'loss (nats)'
    """

    en: str
    ja: str

    @staticmethod
    def same(text: object) -> Text:
        """Return a text that is the same in every language: a name, a number, or what is a Text already."""
        return text if isinstance(text, Text) else Text(str(text), str(text))

    def format(self, **values: Any) -> Text:
        """Fill in numbers, names and other texts, each in its language."""
        return Text(*(getattr(self, lang).format(**_in(values, lang)) for lang in LANGUAGES))

    def to(self, language: Language) -> str:
        """Return the text in one language."""
        return getattr(self, language)

    def __add__(self, other: Text | str) -> Text:
        """Join two texts, or a text and what is the same in every language."""
        end = Text.same(other)
        return Text(self.en + end.en, self.ja + end.ja)

    def __str__(self) -> str:
        return self.en


EMPTY = Text("", "")


def joined(parts: list[Text] | tuple[Text, ...]) -> Text:
    """Join names into a list as each language writes it.

    Args:
        parts: The names, one at least.

    Returns:
        The list.

    Example:
        >>> joined([Text("loss", "損失"), Text("width", "幅"), Text("rms", "rms")]).en
        'loss, width and rms'
    """
    if len(parts) == 1:
        return parts[0]
    english = ", ".join(part.en for part in parts[:-1]) + f" and {parts[-1].en}"
    return Text(english, "、".join(part.ja for part in parts))


def _in(values: dict[str, Any], language: Language) -> dict[str, Any]:
    return {name: value.to(language) if isinstance(value, Text) else value for name, value in values.items()}
