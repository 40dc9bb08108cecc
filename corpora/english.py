"""Prepare books for the training of the base model, and put the list of their words into its file.

There are two commands::

    python -m chargen.corpora.english BOOKS PREPARED
    python -m chargen.corpora.english --words PREPARED/training runs/english/model.safetensors

BOOKS is a folder of text files named ``Author - Title.txt``, one work each. PREPARED gets the same works, cleaned and
set in the typography of one of the usual sources, in the folders ``training`` and ``kept-out``; the beginnings of those
kept out are in ``validation``. `README.md` has the rest of the recipe.
"""

from __future__ import annotations

import re
import string
import sys
import textwrap
import zlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from chargen.store.modelfile import ModelFile
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed, word_list

# The authors whose works measure the base and the recipe of fine-tuning; the base never reads them.
KEPT_OUT = ("Anna Katharine Green", "Jerome K. Jerome", "John Buchan", "Stephen Crane", "Willa Cather")

VALIDATION_CHARACTERS = 12_000  # of each of these works

WORKS_OF_A_WORD = 3  # at least: most misprints and most names of characters are in fewer

LETTERS = "àáâäæçèéêëïñôöÆÉ"
MARKS = " !\"$&'()*,-.:;?[]_—‘’“”£\n"
ALPHABET = frozenset(string.ascii_letters + string.digits + LETTERS + MARKS)  # other characters are rare
INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\xad"))
SAME = str.maketrans({"\t": " ", "\xa0": " ", "―": "—", "–": "-", "…": "...", "´": "'", "`": "'", "“": '"', "”": '"'})
APOSTROPHES = str.maketrans("‘’", "''")


def mended(text: str) -> str:
    """Return the text without invisible characters and broken encodings, with straight quotes and ``—`` for dashes."""
    text = text.translate(INVISIBLE).translate(SAME).translate(APOSTROPHES)
    text = re.sub("(Ã.|â.{2})+", lambda found: _decoded(found[0]), text).replace("ť", "é")
    text = re.sub(r"\[(\d+|\*|sic|Illustration[^]]*)\]", "", text)
    if "--" not in text and "—" not in text:  # a work whose dashes became spaces or hyphens
        text = re.sub(r"(?<=[a-z,;])(?<!n't)(?<!'[a-z])(?<!'[a-z]{2})  (?=[a-z])", "—", text)
        text = re.sub(r" - +", "—", text)
    text = re.sub(r" ?-- ?(?!-)", "—", text)
    text = re.sub(r"(?<=\S)  +(?=\S)", " ", text)
    return re.sub(r" +(?=[,;.!?] |[\n,;])", "", text)


def _decoded(text: str) -> str:
    """Return a text in UTF-8 that was read as Latin-1; it stays as it is if it is no UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, each without line breaks but for verses and the like.

    A line break is the typesetter's if the next line's first word would not have fitted; such lines are joined.
    """
    lines = [line.strip() for line in text.split("\n")]
    lengths = sorted(map(len, filter(None, lines)))
    width = lengths[len(lengths) * 95 // 100]
    if width > 120:  # a paragraph a line
        whole = lines if _blank_share(lines) < 0.2 else re.split("\n\n+", "\n".join(lines))
    else:
        parts = [lines[0]]
        for before, line in pairwise(lines):
            fits = len(before) + 1 + len(line.split(" ")[0]) < width - 3
            broken = before.endswith("-") and not before.endswith("--")  # at a hyphen
            parts.append(line if not before or broken else ("\n" if fits else " ") + line if line else "\n\n")
        whole = re.split("\n\n+", "".join(parts))
        if len(whole) < len(lines) / 40:  # no blank lines: a short line ends a paragraph
            whole = "\n\n".join(whole).split("\n")
    return [part.strip() for part in whole if part.strip() and ALPHABET.issuperset(part)]


def _blank_share(lines: list[str]) -> float:
    return sum(not line for line in lines) / len(lines)


def curly(text: str) -> str:
    """Return the text with typographic quotes."""
    text = re.sub(r'(^|[\s—(\[\'-])"(?=\S)', r"\1“", text, flags=re.M).replace('"', "”")
    return re.sub(r"(^|[\s—(\[“])'(?=\S)", r"\1‘", text, flags=re.M).replace("'", "’")


def typeset(whole: list[str], style: int) -> str:
    """Return the work in a style: wrapped lines or a paragraph a line, straight or typographic quotes and dashes."""
    lines, quotes, width = style % 20, style // 20 % 20, 60 + style // 400 % 17
    if lines < 9:  # like Project Gutenberg
        whole = ["\n".join(textwrap.fill(line, width) for line in part.split("\n")) for part in whole]
    text = ("\n" if lines >= 16 else "\n\n").join(whole) + "\n"
    if quotes < 7:
        return curly(text)
    return text if quotes < 9 else text.replace("—", "--")


def main(books: Path, prepared: Path) -> None:
    """Prepare every work of the folder ``books``."""
    for path in sorted(books.glob("*.txt")):
        whole = paragraphs(mended(path.read_text(encoding="utf-8")))
        kept_out = path.name.startswith(KEPT_OUT)
        text = typeset(whole, zlib.crc32(path.name.encode()))
        parts = {"kept-out": text, "validation": text[:VALIDATION_CHARACTERS]} if kept_out else {"training": text}
        for name, part in parts.items():
            (prepared / name).mkdir(parents=True, exist_ok=True)
            (prepared / name / path.name).write_text(part, encoding="utf-8")


def words_of_works(folder: Path, vocabulary: Vocabulary) -> list[str]:
    """Return the words that are in at least WORKS_OF_A_WORD of a folder's text files, in code-point order.

    Each word is in every capitalisation in which it is in that many works, if the vocabulary can write it.
    """
    works = Counter[str]()
    for path in folder.glob("*.txt"):
        works.update(word_list(path.read_text(encoding="utf-8"), vocabulary))
    return sorted(word for word, count in works.items() if count >= WORKS_OF_A_WORD)


def add_words(folder: Path, path: Path) -> None:
    """Replace the list of words in the model file ``path``, of float32 weights, by that of a folder of works."""
    model = ModelFile.read(path)
    replace(model, words=packed(words_of_works(folder, model.vocabulary))).write(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--words"]:
        add_words(*map(Path, sys.argv[2:4]))
    else:
        main(*map(Path, sys.argv[1:3]))
