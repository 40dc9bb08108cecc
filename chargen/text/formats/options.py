"""How a document is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The options of all readers."""

    name: str  # of the document, for messages
    encoding: str = "utf-8"  # of formats that are bytes in any encoding
    keep_boilerplate: bool = False  # production notes, and what Standard Ebooks puts around a book
