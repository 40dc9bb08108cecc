"""Documents of all kinds become text. A kind is recognised by a file's content; its name decides where it cannot.

A reader is a module with ``read(file, options)``, which yields the text of an open file and raises
`limits.UnreadableError`, or what `limits.DAMAGE` lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import IO, cast

from chargen.text.formats.limits import DAMAGE, UnreadableError
from chargen.text.formats.options import Options

VERSION = 1  # of all readers: raised when one would give another text
HEAD_BYTES = 1024  # of a file, by which its kind is recognised
PLAIN, ARCHIVE = "plain", "archive"
# How a kind is called, by its module. Archives are no documents, see `archives`.
KINDS = {
    "epub": "an EPUB",
    "docx": "a Word file",
    "odt": "an OpenDocument text",
    "flat_odt": "an OpenDocument text",
    "rtf": "an RTF file",
    "pdf": "a PDF",
    "html": "a web page",
    "markdown": "a Markdown file",
}
ENCODED = {PLAIN, "html", "markdown"}  # kinds whose files may be in any encoding
ZIP, TAR, OLE = (b"PK\x03\x04", b"PK\x05\x06"), b"ustar", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
TAR_PLACE = 257  # of its mark
ZIP_NAMES = {".epub": "an EPUB", ".docx": "a Word file", ".odt": "an OpenDocument text"}
MARKDOWN_NAMES = {".md", ".markdown", ".mdown", ".mkd"}
HTML_NAMES = {".html", ".htm", ".xhtml", ".xht"}

_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"\s*<[!?A-Za-z]")
_FLAT_ODT = re.compile(r"\s*<\?xml[^>]*>\s*<office:document\s")


def versions(kinds: Collection[str], *, guessing: bool) -> list[str]:
    """Return the versions of the readers of ``kinds``, on which a text depends beside its file and options.

    ``guessing`` is whether encodings may be guessed.
    """
    packages = {"pypdfium2": "pdf" in kinds, "charset-normalizer": guessing and not {*kinds}.isdisjoint(ENCODED)}
    return [str(VERSION), *(_installed(package) for package, used in packages.items() if used)]


def _installed(package: str) -> str:
    """Return the version of a package; empty if it is not installed."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def recognised(head: bytes, name: str, *, keep_markup: bool = False) -> str:
    """Return the kind of a file with ``name`` that begins with ``head``: a key of KINDS, PLAIN, "zip" or "tar".

    With ``keep_markup``, Markdown and HTML are PLAIN. Raises UnreadableError for Word's files from before 2007.
    """
    suffix = Path(name).suffix.lower()
    if head.startswith(ZIP):
        return "zip"
    if head[TAR_PLACE:].startswith(TAR):
        return "tar"
    if head.startswith(OLE):
        raise UnreadableError("a file of old Office versions, or protected by a password: save it as .docx or .txt")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"%PDF-") or (b"%PDF-" in head and suffix == ".pdf"):
        return "pdf"
    if start.startswith(b"{\\rtf"):
        return "rtf"
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(head[:2])
    text = head[2:].decode(wide, "replace") if wide else start.decode("latin-1")
    if _FLAT_ODT.match(text):
        return "flat_odt"
    if keep_markup:
        return PLAIN
    if _HTML.match(text) or (suffix in HTML_NAMES and _MARKUP.match(text)):
        return "html"
    return "markdown" if suffix in MARKDOWN_NAMES else PLAIN


def zip_kind(file: IO[bytes], name: str) -> str:
    """Return the kind of a ZIP file: a key of KINDS, or ARCHIVE. Raises UnreadableError for others."""
    from chargen.text.formats.package import kind

    with damage_of(ZIP_NAMES.get(Path(name).suffix.lower(), "a ZIP file")):
        return kind(file)


def read(kind: str, file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text of a file of a kind. Raises UnreadableError for one that cannot be read."""
    reader = cast(Callable[[IO[bytes], Options], Iterator[str]], import_module(f"chargen.text.formats.{kind}").read)
    with damage_of(KINDS[kind]):
        yield from reader(file, options)


@contextmanager
def damage_of(title: str) -> Iterator[None]:
    """While entered, errors of damaged files become `UnreadableError`: "a damaged EPUB" if the title is "an EPUB"."""
    damaged = "a damaged " + title.partition(" ")[2]
    try:
        yield
    except UnreadableError as error:
        what, _, why = error.what.partition(": ")
        raise UnreadableError(damaged + f" ({why})" * bool(why) if what == "damaged" else error.what) from None
    except DAMAGE:
        raise UnreadableError(damaged) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableError(damaged) from None
