"""ZIP files, opened carefully: EPUB, Word's and OpenDocument's formats, and archives.

Nothing is written to the disk under a name from an archive.
"""

from __future__ import annotations

import zipfile
from functools import partial
from typing import IO, cast

from chargen.text.formats.limits import Careful, UnreadableError, most_unpacked, too_large

ENCRYPTED = 0x1  # the flag of a file in an archive
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}  # LZMA reserves as much memory as a file claims
EPUB, ODT = b"application/epub+zip", b"application/vnd.oasis.opendocument.text"
# The files that tell what a ZIP is, if it is not an archive.
MARKS = {
    "META-INF/container.xml": "epub",
    "word/document.xml": "docx",
    "xl/workbook.xml": "a spreadsheet (Excel)",
    "xl/workbook.bin": "a spreadsheet (Excel)",
    "ppt/presentation.xml": "a presentation (PowerPoint)",
    "META-INF/MANIFEST.MF": "a program (Java)",
    "AndroidManifest.xml": "a program (Android)",
}


class Package:
    """A ZIP file. Raises UnreadableError if it unpacks to too much, and what `limits.DAMAGE` lists if it is damaged."""

    def __init__(self, file: IO[bytes]) -> None:
        self.zip = zipfile.ZipFile(cast(IO[bytes], Careful(file)))
        self.packed = file.seek(0, 2)
        self.unpacked = sum(info.file_size for info in self.zip.infolist())
        if self.unpacked > most_unpacked(self.packed):
            raise too_large(self.unpacked, self.packed)
        self._infos = {info.filename: info for info in self.zip.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the archive. Raises UnreadableError if there is none, or if it is encrypted."""
        info = self._infos.get(name)
        if info is None:
            raise UnreadableError(f"damaged: {printable(name)} is missing")
        return self.open_info(info)

    def open_info(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """Open a file of the archive. Raises UnreadableError if it is encrypted, or compressed by another method."""
        if info.flag_bits & ENCRYPTED:
            raise UnreadableError("encrypted")
        if info.compress_type not in METHODS:
            raise UnreadableError("compressed by a method that is not read")
        return self.zip.open(info)


def kind(file: IO[bytes]) -> str:
    """Return what a ZIP file is: "epub", "docx", "odt" or "archive". Raises UnreadableError for other documents."""
    package = Package(file)
    if "mimetype" in package:
        with package.open("mimetype") as mime:
            named = mime.read(200).strip()
        if named == EPUB:
            return "epub"
        if named.startswith(b"application/vnd.oasis.opendocument."):
            if named == ODT or named.startswith(ODT + b"-"):
                return "odt"
            raise UnreadableError(
                f"an OpenDocument {printable(named.decode('latin-1')).rpartition('.')[2]}, not a text"
            )
    if "[Content_Types].xml" in package and "_rels/.rels" in package and not MARKS.keys() & package._infos.keys():
        return "docx"  # its document may have any name
    found = next((what for mark, what in MARKS.items() if mark in package), "archive")
    if " " in found:
        raise UnreadableError(found)
    return found


def printable(name: str) -> str:
    """Return a name from a file, which may hold anything, for a message."""
    return "".join(c if c.isprintable() else "?" for c in name)[:200]


def blocks(file: IO[bytes], size: int) -> partial[bytes]:
    """Return a function that reads the next ``size`` bytes, for `iter`."""
    return partial(file.read, size)
