"""The texts that people give, in the characters that a model knows: a seed and stop texts."""

from __future__ import annotations

from unicodedata import normalize

from chargen import ChargenError
from chargen.text.vocabulary import Vocabulary, name

NAMED = 8  # characters that a message names, at most


def named(characters: str) -> str:
    """Name the first NAMED of the characters, and say how many more there are."""
    more = f" and {len(characters) - NAMED} more" if len(characters) > NAMED else ""
    return name(characters[:NAMED]) + more


def known_seed(vocabulary: Vocabulary, seed: str, hint: str = "") -> tuple[str, str]:
    """Return a seed as `Vocabulary.repair` does, and the characters that were left out.

    Raises ChargenError, which ends with ``hint``, if no character of the seed is left.
    """
    read, skipped = vocabulary.repair(seed)
    if skipped and not read:
        shown = (c for c in vocabulary.characters if c.isprintable() and not c.isspace())
        known = "".join(c for c in shown if c != vocabulary.unknown)
        raise ChargenError(
            f"the model has never seen {named(skipped)}, and the seed has no other characters: "
            f"give characters that it knows, such as {known[-NAMED:]}{hint}"
        )
    return read, skipped


def known_stop(vocabulary: Vocabulary, stop: str) -> tuple[str, str]:
    """Return a stop text in the form (as given, NFC or NFD) that the model can write, and the characters that it can't.

    If there are such characters, the model never writes the stop text.
    """
    forms = stop, normalize("NFC", stop), normalize("NFD", stop)
    stop = next((form for form in forms if all(c in vocabulary for c in form)), forms[1])
    return stop, "".join(c for c in dict.fromkeys(stop) if c not in vocabulary)
