"""The words of a text: what counts as one, which ones occur, and a small form of their list for a model file.

A word is the longest run of letters, in which one apostrophe or hyphen may stand between two letters: "don't",
"lock-house". Digits and punctuation separate words. Letters of scripts that are written without spaces between words,
such as Chinese and Thai, count as punctuation.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from unicodedata import category

from chargen.files.reading import DamagedError
from chargen.text.vocabulary import Ids, Vocabulary

JOINERS = "'’-\u2010\u2011\u200c\u200d"  # apostrophes, hyphens, and the invisible joiners of Persian and Indic words
SPACELESS = (  # ranges of code points: scripts without spaces between words
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F)),
    *((0x2E80, 0xA4CF), (0xA980, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F)),
    (0x20000, 0x3FFFF),
)
LONGEST_WORD = 100  # characters; longer runs of letters are not listed
MOST_WORDS = 200_000  # of a text: the most frequent ones
COUNTED_CHARACTERS = 20_000_000  # of a text, at most, in evenly spaced blocks: some 2 seconds
BLOCK = 1_000_000  # characters that are in memory at once
LIST_BYTES = 2**25  # of an unpacked list, at most
DIGITS = "0123456789"  # none of them is a letter, so that they can stand between words


def is_letter(character: str) -> bool:
    """Return whether a character is a letter or a combining mark, of a script with spaces between words."""
    point = ord(character)
    return category(character)[0] in "LM" and not any(low <= point <= high for low, high in SPACELESS)


def word_pattern(vocabulary: Vocabulary) -> re.Pattern[str]:
    """Return an expression that finds the words in a text of the vocabulary's characters.

    The unknown character counts as a letter: a word with it is not one that the model can write.
    """
    letters = "".join(c for c in vocabulary.characters if is_letter(c) or c == vocabulary.unknown)
    if not letters:
        return re.compile("(?!)")
    one = f"[{re.escape(letters)}]+"
    return re.compile(f"{one}(?:[{re.escape(JOINERS)}]{one})*")


def words_of(ids: Ids, vocabulary: Vocabulary) -> list[str]:
    """Return the words of a text, ids (N,), each in every capitalisation that occurs, in code-point order.

    Of a text of more than COUNTED_CHARACTERS, only evenly spaced blocks are read, and of more than MOST_WORDS words,
    only the most frequent are returned.
    """
    find, counts = word_pattern(vocabulary).findall, Counter[str]()
    step = max(BLOCK, BLOCK * len(ids) // COUNTED_CHARACTERS)
    for place in range(0, len(ids), step):
        found = find(vocabulary.decode(ids[place : place + BLOCK]))
        # Both ends of a block may cut a word in two.
        counts.update(found[place > 0 : len(found) - (place + BLOCK < len(ids))])
    unknown = vocabulary.unknown or "\0"
    usual = (w for w, _ in counts.most_common() if len(w) <= LONGEST_WORD and unknown not in w)
    return sorted(word for word, _ in zip(usual, range(MOST_WORDS), strict=False))


def packed(words: list[str]) -> str:
    """Return a list of words, in code-point order, as a short text: front-coded, deflated, in base64.

    Each word is stored as the number of characters, at most 9, that it begins with as the word before it does, and
    the rest of its characters.
    """
    coded = []
    for before, word in pairwise(["", *words]):
        shared = next((n for n in range(min(9, len(before))) if word[n : n + 1] != before[n]), min(9, len(before)))
        coded.append(f"{shared}{word[shared:]}")
    return base64.b64encode(zlib.compress("".join(coded).encode(), 9)).decode()


@lru_cache(maxsize=2)
def unpacked(text: str) -> tuple[str, ...]:
    """Return the words that `packed` made a text of. Raises DamagedError for any other text."""
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(text, validate=True), LIST_BYTES)
        if not stream.eof:
            raise ValueError
        coded = data.decode()
    except (ValueError, binascii.Error, zlib.error):
        raise DamagedError("words: it is not a list of words") from None
    words, before = [], ""
    for shared, rest in re.findall(f"([{DIGITS}])([^{DIGITS}]*)", coded):
        before = before[: int(shared)] + rest
        words.append(before)
    if any(later <= word for word, later in pairwise(words)):
        raise DamagedError("words: they are not in code-point order")
    return tuple(words)


def united(*lists: str | None) -> str | None:
    """Return packed lists of words as one, or None if all of them are None. Raises DamagedError for a damaged list."""
    given = [text for text in lists if text is not None]
    words = {word for text in given for word in unpacked(text)}
    return packed(sorted(words)) if len(given) > 1 else next(iter(given), None)


def word_list(text: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the words of any text that a vocabulary can write, in code-point order."""
    found = set(word_pattern(Vocabulary.of(text or " ")).findall(text))
    return tuple(sorted(w for w in found if all(c in vocabulary and c != vocabulary.unknown for c in w)))
