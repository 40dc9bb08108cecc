"""PDFs, read by PDFium in a process of its own."""

import time
import zlib

import pytest

from chargen import ChargenError
from chargen.text.formats import pdf
from tests.text import making
from tests.text.test_formats import BOOK, document, documents, paragraphs, written

pytest.importorskip("pypdfium2")


def test_the_book_in_print_has_the_same_words_and_paragraphs(tmp_path):
    path = written(tmp_path / "book.txt", making.printed(paragraphs()))
    found = document(path)
    assert found.split() == BOOK.read_text("utf-8").split()
    assert found.strip().split("\n\n") == paragraphs()


def test_words_that_lines_divide_are_whole(tmp_path):
    lines = ["It was in gen-", "eral a well-known matter, but the well-", "known man did not know it, as the gen-"]
    path = written(tmp_path / "a.pdf", making.pdf([lines, ["erals never do, and Sun-"]]))
    assert document(path).strip() == (
        "It was in general a well-known matter, but the well-known man did not know it, "
        "as the generals never do, and Sun-"
    )


def test_pdfs_in_archives_are_read(tmp_path):
    files = {"a.pdf": making.pdf([["One."]]), "b.pdf": making.pdf([["Two."]])}
    assert documents(written(tmp_path / "a.zip", making.zipped(files))) == {"a.pdf": "One.\n", "b.pdf": "Two.\n"}


def one_page(page, content=b"", *more):
    return making.pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R" + page + b">>",
            b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
            *more,
        ]
    )


def test_a_scan_says_what_to_do(tmp_path):
    picture = b"<</Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray/Length 1>>"
    data = one_page(
        b"/Resources<</XObject<</I 5 0 R>>>>", b"500 0 0 800 0 0 cm /I Do", picture + b"stream\nx\nendstream"
    )
    with pytest.raises(ChargenError, match=r"a\.pdf is a scan, .* recognise its text first, as with ocrmypdf$"):
        document(written(tmp_path / "a.pdf", data))
    with pytest.raises(ChargenError, match=r"a\.pdf is a PDF without text$"):
        document(written(tmp_path / "a.pdf", one_page(b"")))


LOOPS = {
    "pages": [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 9/Kids[2 0 R 2 0 R]>>"],
    "parents": [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]/Parent 3 0 R>>",
        b"<</Type/Page/Parent 2 0 R/Contents 3 0 R>>",
    ],
    "count": [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 2000000000/Kids[]>>"],
    "length": [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>", b"<</Length 3 0 R>>"],
    "forms": [
        *(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>"),
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</XObject<</F 4 0 R>>>>>>",
        b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</F 4 0 R>>>>/Length 11>>stream\n/F Do /F Do\n"
        b"endstream",
    ],
    "catalog": [b"1 0 R", b"2 0 R"],
}


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_end_with_one_line(tmp_path, loop):
    began = time.monotonic()
    with pytest.raises(ChargenError, match=r"^[^\n]*a\.pdf is [^\n]*PDF[^\n]*$"):
        document(written(tmp_path / "a.pdf", making.pdf_of(LOOPS[loop])))
    assert time.monotonic() - began < 60


def test_a_stream_that_unpacks_without_end_takes_no_memory_here(tmp_path):
    inner = zlib.compress(bytes(10**8), 9)
    bomb = zlib.compress(inner * 20, 9)
    stream = b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(bomb), bomb)
    data = making.pdf_of(
        [
            *(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>"),
            *(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>", stream),
        ]
    )
    with pytest.raises(ChargenError, match=r"a\.pdf is a"):
        document(written(tmp_path / "a.pdf", data))


def test_a_page_that_takes_too_long_ends_its_process(tmp_path, monkeypatch):
    path = written(tmp_path / "a.pdf", making.printed(paragraphs()))
    program = "import time; from chargen.text.formats import pdf; pdf.PAGE_SECONDS = 0.3; pdf._Watch(9); time.sleep(60)"
    monkeypatch.setattr(pdf, "PROGRAM", "import sys; sys.path = {path!r}; " + program)
    began = time.monotonic()
    with pytest.raises(ChargenError, match=r"a\.pdf is a PDF that takes too long"):
        document(path)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("code", ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "raise SystemExit(1)"])
def test_a_crash_of_the_reader_is_one_line(tmp_path, monkeypatch, code):
    monkeypatch.setattr(pdf, "PROGRAM", code)
    with pytest.raises(ChargenError, match=r"a\.pdf is a damaged PDF \(its reader stopped\)$"):
        document(written(tmp_path / "a.pdf", making.pdf([["One."]])))


@pytest.mark.parametrize("tenth", range(10))
def test_a_pdf_that_is_cut_off_is_damaged(tmp_path, tenth):
    data = making.printed(paragraphs()[:50])
    with pytest.raises(ChargenError, match=r"a\.pdf is (a damaged PDF|empty|not utf-8)"):
        document(written(tmp_path / "a.pdf", data[: len(data) * tenth // 10]))


def test_without_the_extra_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "find_spec", lambda name: None)
    with pytest.raises(ChargenError, match=r"a\.pdf is a PDF, which needs pip install 'chargen\[books\]'$"):
        document(written(tmp_path / "a.pdf", making.pdf([["One."]])))
