"""Documents of all kinds: the same words from each, what is left out, and archives as folders."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.text import formats
from chargen.text.corpus import read
from chargen.text.documents import Reading, text
from chargen.text.sources import sources
from tests.text import making

BOOK = Path(making.__file__).parents[2] / "corpora" / "book.txt"
PARAGRAPHS = ["A Title & more", "It was <a> dark “night” — très noir.", "Ölsardinen 漢字, 𝄞 and {braces}\\."]


def documents(path, **options):
    """The texts of the files that a path names, by their names below it."""
    with sources([str(path)]) as found:
        return {one.name.removeprefix(f"{path}/"): "".join(text(one, Reading(**options))) for one in found}


def document(path, **options):
    (found,) = documents(path, **options).values()
    return found


def written(path, data):
    path.write_bytes(data)
    return path


def paragraphs():
    return [" ".join(one.split()) for one in BOOK.read_text("utf-8").split("\n\n") if one.strip()]


@pytest.mark.parametrize("kind", making.MAKERS)
def test_the_book_has_the_same_words_in_every_format(tmp_path, kind):
    path = written(tmp_path / f"book.{kind}", making.MAKERS[kind](paragraphs()))
    found = document(path)
    assert found.split() == BOOK.read_text("utf-8").split()
    assert found.split("\n\n") == [*paragraphs()[:-1], paragraphs()[-1] + "\n"]


@pytest.mark.parametrize("kind", making.MAKERS)
def test_characters_and_markup_of_each_format_are_kept_apart(tmp_path, kind):
    made = [one.replace("<a>", "a") for one in PARAGRAPHS] if kind == "md" else PARAGRAPHS
    path = written(tmp_path / f"book.{kind}", making.MAKERS[kind](made))
    expected = "\n\n".join(made) + "\n"
    assert document(path) == (expected.replace("\\.", ".") if kind == "md" else expected)


@pytest.mark.parametrize("kind", [kind for kind in making.MAKERS if kind != "md"])
@pytest.mark.parametrize("name", ["book", "book.txt", "book.pdf", "book.docx", "book.csv"])
def test_the_kind_is_that_of_the_content_not_of_the_name(tmp_path, kind, name):
    path = written(tmp_path / name, making.MAKERS[kind](PARAGRAPHS))
    assert document(path) == "\n\n".join(PARAGRAPHS) + "\n"


@pytest.mark.parametrize("name", ["text.epub", "text.docx", "text.pdf", "text.html", "text.rtf"])
def test_a_plain_text_with_the_name_of_another_kind_is_read_as_it_is(tmp_path, name):
    assert document(written(tmp_path / name, b"Just 3 < 4\nwords.\n")) == "Just 3 < 4\nwords.\n"


def test_a_corpus_of_documents_is_kept_by_their_content_and_found_again(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    written(folder / "1.epub", making.epub(PARAGRAPHS))
    written(folder / "2.docx", making.docx(PARAGRAPHS)[:-50])
    written(folder / "3.txt", b"plain\n")
    corpus = read([str(folder)], cache=tmp_path / "cache")
    assert corpus.vocabulary.decode(corpus.ids) == "\n\n".join(PARAGRAPHS) + "\nplain\n"
    assert corpus.notes == (f"{folder / '2.docx'} is a damaged Word file: left out",)
    again = read([str(folder)], cache=tmp_path / "cache", advance=lambda count: pytest.fail("it was read again"))
    assert again.sha256 == corpus.sha256
    assert len(list((tmp_path / "cache").glob("*/corpus.json"))) == 1


def test_another_version_of_the_readers_reads_again(tmp_path, monkeypatch):
    path = written(tmp_path / "book.md", b"# A heading\n")
    read([str(path)], cache=tmp_path / "cache")
    monkeypatch.setattr(formats, "VERSION", formats.VERSION + 1)
    read([str(path)], cache=tmp_path / "cache")
    read([str(path)], TrainConfig(keep_markup=True), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/corpus.json"))) == 3


def test_a_damaged_document_that_was_named_is_an_error(tmp_path):
    path = written(tmp_path / "a.epub", making.epub(PARAGRAPHS)[:-50])
    with pytest.raises(ChargenError, match=r"a\.epub is a damaged EPUB$"):
        read([str(path)])


def archive(tmp_path, name, files):
    """An archive with the files, by their names."""
    path = tmp_path / name
    if name.endswith(".zip"):
        return written(path, making.zipped(files))
    with tarfile.open(path, "w:" + name.partition("tar")[2].removeprefix(".")) as opened:
        for inner, data in files.items():
            info = tarfile.TarInfo(inner)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tar.xz", "all.tar.bz2"])
def test_an_archive_is_a_folder(tmp_path, name):
    inner = making.zipped({"deep/1.txt": b"in deep\n", "2.rtf": making.rtf(["rtf"])})
    files = {
        **{"b/z.txt": b"last\n", "a.html": making.html(["page"]), "c.epub": making.epub(["epub"])},
        **{".hidden": b"no", "__MACOSX/a.html": b"no", "b/inner.zip": inner, "b/a.txt": b"b first\n"},
    }
    path = archive(tmp_path, name, files)
    assert documents(path) == {
        **{"a.html": "page\n", "b/a.txt": "b first\n", "b/inner.zip/2.rtf": "rtf\n"},
        **{"b/inner.zip/deep/1.txt": "in deep\n", "b/z.txt": "last\n", "c.epub": "epub\n"},
    }
    corpus = read([str(path)], cache=tmp_path / "cache")
    again = read([str(path)], cache=tmp_path / "cache", advance=lambda count: pytest.fail("it was read again"))
    assert again.sha256 == corpus.sha256
    assert len(corpus.starts) == 6


def test_a_damaged_file_in_an_archive_is_left_out_and_named(tmp_path):
    path = archive(tmp_path, "all.zip", {"a.txt": b"text\n", "b.docx": making.docx(["x"])[:-9], "c.png": b"\x89PNG\0"})
    corpus = read([str(path)])
    assert corpus.vocabulary.decode(corpus.ids) == "text\n"
    assert corpus.notes == (f"{path}/b.docx is a damaged Word file: left out", f"{path}/c.png is binary: left out")
    only = archive(tmp_path, "only.zip", {"b.docx": making.docx(["x"])[:-9]})
    with pytest.raises(ChargenError, match=r"holds no text files \(.*b\.docx is a damaged Word file\)"):
        read([str(only)])


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"xl/workbook.xml": "", "[Content_Types].xml": ""}, r"a spreadsheet \(Excel\)"),
        ({"ppt/presentation.xml": "", "[Content_Types].xml": ""}, r"a presentation \(PowerPoint\)"),
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}, "an OpenDocument spreadsheet, not a text"),
        ({"META-INF/MANIFEST.MF": "", "a.txt": "no"}, r"a program \(Java\)"),
        ({"mimetype": "application/epub+zip"}, r"a damaged EPUB \(META-INF/container.xml is missing\)"),
        ({}, "an archive without files"),
    ],
)
def test_documents_that_are_no_texts_are_named(tmp_path, files, what):
    path = written(tmp_path / "file", making.zipped(files))
    with pytest.raises(ChargenError, match=f"file is {what}$"):
        read([str(path)])


def test_an_old_word_file_says_what_to_do(tmp_path):
    path = written(tmp_path / "old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(ChargenError, match=r"old\.doc is a file of old Office versions.*save it as \.docx"):
        read([str(path)])


STANDARD_EBOOK = {
    **{"titlepage": "A Title", "imprint": "This ebook is the product of volunteers", "colophon": "was published in"},
    **{"copyright-page": "Uncopyright", "toc": "Contents", "loi": "Illustrations", "dedication": "To you"},
    **{"bodymatter": "The story", "endnotes": "A note"},
}


def test_front_and_back_matter_of_standard_ebooks_is_left_out(tmp_path):
    def page(kind, words):
        return making.PAGE.format(f'<section epub:type="{kind}"><p>{words}</p></section>')

    pages = {f"book/{kind}.xhtml": page(kind, words) for kind, words in STANDARD_EBOOK.items()}
    items = "".join(f'<item id="{k}" href="{k}.xhtml" media-type="application/xhtml+xml"/>' for k in STANDARD_EBOOK)
    spine = "".join(f'<itemref idref="{kind}"/>' for kind in STANDARD_EBOOK)
    opf = making.OPF.format(items=items, spine=spine, guide="")
    path = written(tmp_path / "book.epub", making.epub([], **{"book/content.opf": opf, **pages}))
    assert document(path) == "To you\n\nThe story\n\nA note\n"
    assert set(document(path, keep_boilerplate=True).split("\n\n")) >= {"A Title", "Uncopyright", "To you"}
    assert "Contents" not in document(path, keep_boilerplate=True)


def test_an_epub_leaves_out_contents_that_are_not_marked_and_numbers_of_pages_and_notes(tmp_path):
    links = making.PAGE.format("".join(f'<p><a href="1.xhtml#c{n}">Chapter {n}</a></p>' for n in range(9)))
    page = making.PAGE.format(
        '<h1>One</h1><p>A word<a epub:type="noteref" href="#n">1</a> and a <span epub:type="pagebreak">17</span>'
        '<a href="x">link</a>, so&shy;\u00ad called<br/>line.</p><img alt="no" src="x"/><svg><text>no</text></svg>'
    )
    files = {"book/0.xhtml": links, "book/1.xhtml": page}
    path = written(tmp_path / "book.epub", making.epub(["x", "y"], pages=2, **files))
    assert document(path) == "One\n\nA word and a link, so called\nline.\n"


def test_a_protected_epub_is_refused(tmp_path):
    encryption = '<encryption><CipherReference URI="book/0.xhtml"/></encryption>'
    path = written(tmp_path / "a.epub", making.epub(["x"], **{"META-INF/encryption.xml": encryption}))
    with pytest.raises(ChargenError, match=r"a\.epub is protected against copying \(DRM\)"):
        read([str(path)])


def test_what_word_shows_beside_the_text_is_left_out(tmp_path):
    body = (
        '<w:sdt><w:sdtPr><w:docPartObj><w:docPartGallery w:val="Table of Contents"/></w:docPartObj></w:sdtPr>'
        "<w:sdtContent><w:p><w:r><w:t>Contents</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        '<w:p><w:pPr><w:pStyle w:val="TOC1"/></w:pPr><w:r><w:t>One 1</w:t></w:r></w:p>'
        '<w:p><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr><w:ins><w:r><w:t>New</w:t></w:r></w:ins><w:del><w:r>'
        "<w:delText>old</w:delText></w:r></w:del><w:r><w:tab/><w:t>tab</w:t><w:br/><w:t>line</w:t>"
        "<w:instrText>PAGE</w:instrText><w:noBreakHyphen/><w:t>end</w:t></w:r></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p><w:p><w:r>"
        "<w:t>c</w:t></w:r></w:p></w:tc></w:tr><w:tr><w:tc><w:p><w:r><w:t>d</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    )
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    more = {
        "word/_rels/document.xml.rels": (
            f'<Relationships xmlns="{package}"><Relationship Type="{kind}/styles" Target="styles.xml"/>'
            f'<Relationship Type="{kind}/footnotes" Target="/word/footnotes.xml"/>'
            f'<Relationship Type="{kind}/endnotes" TargetMode="External" Target="http://example.org/"/></Relationships>'
        ),
        "word/styles.xml": (
            f'<w:styles xmlns:w="{making.WORD}"><w:style w:styleId="TOC1"><w:name w:val="toc 1"/></w:style></w:styles>'
        ),
        "word/footnotes.xml": (
            f'<w:footnotes xmlns:w="{making.WORD}"><w:footnote w:type="separator"><w:p><w:r><w:t>no</w:t></w:r></w:p>'
            "</w:footnote><w:footnote><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnote></w:footnotes>"
        ),
    }
    path = written(tmp_path / "a.docx", making.docx(["First"], body, **more))
    assert document(path) == "First\n\nNew\ttab\nline-end\n\na\tb\nc\nd\n\nA note.\n"


def test_what_opendocument_shows_beside_the_text_is_left_out(tmp_path):
    body = (
        "<text:table-of-content><text:p>Contents</text:p></text:table-of-content><text:tracked-changes><text:p>old"
        "</text:p></text:tracked-changes><text:p>A  word<text:note><text:note-citation>1</text:note-citation>"
        "<text:note-body><text:p>A note.</text:p></text:note-body></text:note>, <text:span>two</text:span>"
        '<text:s text:c="3"/>spaces<office:annotation><text:p>no</text:p></office:annotation><text:line-break/>line'
        "</text:p>"
        "<table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell><table:table-cell><text:p>b"
        "</text:p></table:table-cell></table:table-row></table:table>"
    )
    path = written(tmp_path / "a.odt", making.odt(["First"], body))
    assert document(path) == "First\n\nA word, two   spaces\nline\n\na\tb\n\nA note.\n"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (r"caf\'e9 \u8217?x \u-10179?\u-8675?\par", "café ’x 😝"),
        (r"{\uc2\u233ab\u234\'41\'42}c", "éêc"),
        (r"a\line b\tab c~\~\_\emdash\ldblquote d", "a\nb\tc~\xa0-—“d"),
        (r"A{\footnote A note.} word{\*\unknown no}{\v hidden}{\deleted old}{\pict\bin3 }}}ok}.", "A word.\n\nA note."),
        (r"{\field{\*\fldinst {TOC \\o}}{\fldrslt Contents\par}}{\field{\*\fldinst PAGE}{\fldrslt 17}}", "17"),
        (r"\trowd a\cell b\cell\row c\cell\row", "a\tb\nc"),
        (r"{\header no}{\info{\title no}}a\'b7", "a·"),
    ],
)
def test_control_words_of_rtf(tmp_path, body, found):
    path = written(tmp_path / "a.rtf", making.rtf([], body))
    assert document(path) == found + "\n"


def test_rtf_in_the_code_pages_of_its_fonts(tmp_path):
    data = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset204 A;}{\f1\fcharset128 B;}{\f2\fcharset0 C;}}"
        rb"\f0 \'cf\'f0\'e8\f1 \'8a\'bf\'8e\'9a \'83A\f2 \'e9}"
    )
    assert document(written(tmp_path / "a.rtf", data)) == "При漢字 アé\n"


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<p>a <b>b</b>\n c</p>d<br>e<hr>f", "a b c\n\nd\ne\n\nf"),
        ("<pre>a\n  b</pre><ul><li>c<li>d</ul>", "a\n  b\n\nc\nd"),
        ("<table><tr><th>a</th><td> b </td></tr><tr><td>c</td></tr></table>", "a\tb\nc"),
        ("a&amp;b &#x263a; &unknown; < 3 <3 &lt;p&gt;", "a&b ☺ &unknown; < 3 <3 <p>"),
        ("a<!-- <p>no</p> -- > -->b<!-->c<?php no ?>d", "abcd"),
        ("<script>'</scripty'</SCRIPT >a<style>p{}</style><textarea><p>no</textarea>", "a"),
        ("<p title='a>b' data-x=it's hidden-x=\"<p>\">c</p>", "c"),
        ('<nav>no<nav>no</nav>no</nav><p hidden>no</p><div style="display : none">no</div><p aria-hidden=false>a', "a"),
        ("<p>a <select><option>no</select>b <svg><title>no</title></svg>c&#0;", "a b c\ufffd"),
        ("<ruby>漢<rt>かん</rt></ruby>字&shy;の", "漢字の"),
        (f"<img src='data:{'x' * 200_000}>' alt=no>a<p class={'y' * 100_000}>b", "a\n\nb"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_the_text_of_a_page(tmp_path, monkeypatch, page, found, size):
    if size == 1 and len(page) > 10_000:
        size = 1000
    monkeypatch.setattr("chargen.text.formats.html.BLOCK_BYTES", size)
    assert document(written(tmp_path / "a.html", f"<html><body>{page}".encode())) == found + "\n"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"<!doctype html><meta charset=windows-1251>", "cp1251"),
        (b"<html><meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>", "shift_jis"),
        (b"<html><meta charset='iso-8859-1'>", "cp1252"),
        (b"<html><meta charset=rot13>", "utf-8"),
        (b'<?xml version="1.0" encoding="koi8-r"?><html>', "koi8-r"),
    ],
)
def test_the_encoding_of_a_page_is_that_which_it_names(tmp_path, head, encoding):
    word = {"cp1252": "“café”", "shift_jis": "漢字"}.get(encoding, "При")
    assert document(written(tmp_path / "a.html", head + f"<p>{word}".encode(encoding))) == word + "\n"


def test_an_encoding_that_is_given_is_that_of_a_page(tmp_path):
    path = written(tmp_path / "a.html", "<html><meta charset=utf-8><p>При".encode("cp1251"))
    assert document(path, encoding="cp1251") == "При\n"
    assert document(written(tmp_path / "b.html", "<html><p>При".encode("utf-16"))) == "При\n"
    with pytest.raises(ChargenError, match=r"a\.html is not utf-8"):
        document(path)


MARKDOWN = """---
title: no
---
A Title
=======

## Second *heading* ##

Some *emphasis*, **strong**, ***both***, _under_ and snake_case_name, 2 * 3 * 4, \\*stars\\*.
A [link](http://a.b/(c) "title"), [another][1], ![picture](x.png), <http://x.y>, `code *as is*`, a<b>b</b>[^1].

> quoted
> - item one
1. item two
   - [x] done

```python
def f(*args): pass  # as it is
```

    indented *code*

| a | b |
|---|:-:|
| c | d |

***
<!-- a comment
over lines -->
[1]: http://no.no
[^1]: A note &amp; more.
"""
WITHOUT_MARKS = """A Title

Second heading

Some emphasis, strong, both, under and snake_case_name, 2 * 3 * 4, *stars*.
A link, another, , http://x.y, code *as is*, ab.

quoted
item one
item two
   done

def f(*args): pass  # as it is

    indented *code*

a\tb
c\td

A note & more.
"""


def test_markdown_loses_its_marks_unless_they_are_kept(tmp_path):
    path = written(tmp_path / "a.md", MARKDOWN.encode())
    assert document(path) == WITHOUT_MARKS
    assert document(path, keep_markup=True) == MARKDOWN
    page = written(tmp_path / "a.html", making.html(["x"]))
    assert document(page, keep_markup=True).encode() == making.html(["x"])


def test_the_licence_of_project_gutenberg_is_left_out_of_all_kinds(tmp_path):
    book = [
        *("The Project Gutenberg eBook of Nights", "This eBook is for the use of anyone anywhere"),
        *("*** START OF THE PROJECT GUTENBERG EBOOK NIGHTS ***", "It was a dark night."),
        *("*** END OF THE PROJECT GUTENBERG EBOOK NIGHTS ***", "Section 1. General Terms of Use"),
    ]
    for kind in ("epub", "html", "docx", "odt", "rtf"):
        path = written(tmp_path / f"a.{kind}", making.MAKERS[kind](book))
        assert document(path) == "It was a dark night.\n"
        assert document(path, keep_boilerplate=True).split() == " ".join(book).split()


def test_documents_are_closed_before_the_next_is_opened(tmp_path):
    resource = pytest.importorskip("resource")
    files = {f"{n}.epub": making.epub([f"Text {n}"]) for n in range(60)}
    for name, data in files.items():
        written(tmp_path / name, data)
    written(tmp_path / "all.zip", making.zipped(files))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 20, hard))  # noqa: PTH208
    try:
        assert len(documents(tmp_path)) == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_member_of_a_zip_may_be_stored_or_packed_by_other_methods(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2):
        assert documents(written(tmp_path / "a.zip", making.zipped({"a.txt": "a\n"}, method))) == {"a.txt": "a\n"}
    written(tmp_path / "a.zip", making.zipped({"a.txt": "a\n", "b.txt": "b"}, zipfile.ZIP_LZMA))
    with pytest.raises(ChargenError, match="compressed by a method that is not read"):
        documents(tmp_path / "a.zip")
