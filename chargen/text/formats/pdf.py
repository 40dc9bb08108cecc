"""The text layer of a PDF, read by PDFium, in a process of its own.

PDFium is the reader of Chromium, in C++. A file that makes it loop, crash or take gigabytes ends that process alone.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

from chargen.text.formats.limits import BLOCK_BYTES, UnreadableError, copied, most_unpacked
from chargen.text.formats.options import HEADS, Options
from chargen.text.formats.printed import Line, cleaned, paragraphs

TAIL_BYTES = 4096  # at the end of a file, in which it says where its table of objects begins
PAGE_SECONDS, FILE_SECONDS, SECONDS_PER_MB = 20.0, 60.0, 20.0
MOST_MEMORY = 3 << 30  # bytes of address space
REFUSED, STOPPED = 3, 4  # exit codes
DIVIDED = "\ufffe"  # PDFium's sign for a hyphen at the end of a line, which takes the place of the line's end
SCANNED_SHARE = 0.8  # of the pages of a scan are pictures without text
UNKNOWN_SHARE = 0.3  # of the characters may be unknown
PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
# What the process runs. Its modules are found where this process finds them.
PROGRAM = "import sys; sys.path = {path!r}; from chargen.text.formats.pdf import _main; _main({size})"


def read(file: IO[bytes], options: Options) -> Iterator[str]:
    """Yield the text. Raises UnreadableError for a file that is damaged, encrypted, scanned or hostile."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    if b"startxref" not in file.read():
        raise UnreadableError("damaged: its end is missing")
    if find_spec("pypdfium2") is None:
        raise UnreadableError("a PDF, which needs pip install 'chargen[books]'")
    file.seek(0)
    program = PROGRAM.format(path=sys.path, size=size)
    with copied(file) if _fileno(file) is None else file as real:
        os.lseek(real.fileno(), 0, os.SEEK_SET)
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=real, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as reader:
            try:
                assert reader.stdout is not None
                assert reader.stderr is not None
                with io.TextIOWrapper(reader.stdout, "utf-8", errors="replace", newline="\n") as text:
                    yield from iter(lambda: text.read(BLOCK_BYTES), "")
                message = reader.stderr.read(1000).decode("utf-8", "replace").strip()
            finally:
                reader.kill()
    if reader.returncode == STOPPED:
        raise UnreadableError("a PDF that takes too long: it is damaged, or made to")
    if reader.returncode == REFUSED:
        raise UnreadableError(message)
    if reader.returncode:
        raise UnreadableError("damaged: its reader stopped")
    options.left_out[HEADS] += int(message) if message.isdecimal() else 0


def _fileno(file: IO[bytes]) -> int | None:
    try:
        return file.fileno()
    except OSError:
        return None


def _main(size: int) -> None:
    """Read a PDF of ``size`` bytes from standard input and write its text: the program of the reader's process."""
    _limit_memory()
    watch = _Watch(FILE_SECONDS + SECONDS_PER_MB * size / 1e6)
    output = io.TextIOWrapper(sys.stdout.buffer, "utf-8", errors="replace", newline="\n")
    try:
        heads: list[int] = []
        for part in paragraphs(_pages(size, watch), heads.append):
            watch.begin_page()
            output.write(part)
        output.flush()
        print(sum(heads), file=sys.stderr, flush=True)
        os._exit(0)  # PDFium has nothing to save
    except (UnreadableError, MemoryError) as error:
        print(getattr(error, "what", "a PDF that takes too much memory"), file=sys.stderr, flush=True)
        os._exit(REFUSED)


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY if hard < 0 else min(MOST_MEMORY, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Watch:
    """A thread that ends the process when a page or the file takes too long."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._page_end = 0.0
        self.begin_page()
        threading.Thread(target=self._run, daemon=True).start()

    def begin_page(self) -> None:
        self._page_end = time.monotonic() + PAGE_SECONDS

    def _run(self) -> None:
        while time.monotonic() < min(self._end, self._page_end):
            time.sleep(0.2)
        os._exit(STOPPED)


def _pages(size: int, watch: _Watch) -> list[list[Line]]:
    """Return the lines of all pages."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(sys.stdin.buffer)
        count = len(document)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", 0) == PASSWORD_ERROR or "password" in str(error).lower():
            raise UnreadableError("a PDF that is protected by a password") from None
        raise UnreadableError("damaged") from None
    pages: list[list[Line]] = []
    scanned = characters = 0
    for number in range(count):
        watch.begin_page()
        try:
            page = document[number]
            textpage = page.get_textpage()
        except pypdfium2.PdfiumError:
            raise UnreadableError(f"damaged: its page {number + 1:,} can't be read") from None
        pages.append(_lines(textpage))
        characters += sum(len(line.text) for line in pages[-1])
        if characters > most_unpacked(size):
            raise UnreadableError("refused, because it has more than a thousand times as much text as bytes")
        scanned += not pages[-1] and any(True for _ in page.get_objects([pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]))
        textpage.close()
        page.close()
    if scanned >= max(1, SCANNED_SHARE * count):
        raise UnreadableError("a scan, pictures of pages without text: recognise its text first, as with ocrmypdf")
    if not characters:
        raise UnreadableError("a PDF without text")
    return pages


def _lines(textpage: Any) -> list[Line]:
    """Return the lines of a page in the order of the file."""
    import ctypes

    import pypdfium2.raw as pdfium

    text = textpage.get_text_range()
    lines, place = [], 0
    loose = pdfium.FS_RECTF()
    x, y, left, right, bottom, top = (ctypes.c_double() for _ in range(6))
    for part in text.replace(DIVIDED, DIVIDED + "\r\n").split("\r\n"):
        divided = part.endswith(DIVIDED)
        written = part.removesuffix(DIVIDED)
        units = len(written.encode("utf-16-le", "surrogatepass")) // 2
        inner = written.strip()
        if inner:
            start = place + len(written) - len(written.lstrip())
            first = max(0, pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, start))
            last = max(first, pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, place + units - 1))
            pdfium.FPDFText_GetCharOrigin(textpage, first, x, y)
            pdfium.FPDFText_GetCharBox(textpage, last, left, right, bottom, top)
            pdfium.FPDFText_GetLooseCharBox(textpage, first, loose)
            kept = cleaned(inner)
            if kept:
                lines.append(Line(kept, x.value, right.value, y.value, abs(loose.top - loose.bottom) or 10.0, divided))
        place += units + (1 if divided else 2)
    return lines
