"""How a document is read."""

from __future__ import annotations

from dataclasses import dataclass


def names(text: str) -> frozenset[str]:
    """Return the names in a text, with spaces between them."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Options:
    """The options of all readers."""

    name: str  # of the document, for messages
    encoding: str = "utf-8"  # of formats that are bytes in any encoding
    keep_boilerplate: bool = False  # production notes, and what Standard Ebooks puts around a book
