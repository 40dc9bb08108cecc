"""How a document is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# What readers leave out, as it is called where people read of it.
CONTENTS = "contents, covers and navigation"
IMPRINTS = "title pages and imprints"
HEADS = "running heads, footers and page numbers"
MARKS = "marks of Markdown"
HIDDEN = "comments, deleted and hidden text"


def names(text: str) -> frozenset[str]:
    """Return the names in a text, with spaces between them."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Options:
    """The options of all readers."""

    name: str  # of the document, for messages
    encoding: str = "utf-8"  # of formats that are bytes in any encoding
    keep_boilerplate: bool = False  # production notes, and what Standard Ebooks puts around a book
    unwrap: bool = False  # of formats whose lines may be wrapped
    guessed: Callable[[str], object] | None = None  # called with an encoding that was guessed; None: none is guessed
    left_out: Counter[str] = field(default_factory=Counter)  # characters, by what they were
