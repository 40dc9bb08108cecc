"""Hostile and damaged files: one line for each, in little time and memory, and nothing written or fetched."""

import gzip
import io
import lzma
import os
import tarfile
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.text.formats import limits
from tests.text import making
from tests.text.test_formats import archive, document, documents, paragraphs, written

DTD = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{}]>'
LAUGHS = DTD.format("".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)))
OUTSIDE = '<!DOCTYPE x [<!ENTITY i SYSTEM "file:///etc/passwd">]>'
PARAMETER = '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://example.org/x.dtd"> %p;]>'


def refused(path):
    """The message for a file that is refused, which comes in seconds and is one line."""
    began = time.process_time()
    with pytest.raises(ChargenError) as error:
        documents(path)
    assert time.process_time() - began < 20
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize("declared", [LAUGHS, OUTSIDE, PARAMETER], ids=["laughs", "outside", "parameter"])
@pytest.mark.parametrize("kind", ["docx", "odt", "epub", "fodt"])
def test_entities_are_refused(tmp_path, kind, declared):
    made = making.flat_odt(["&i;"]).partition(b"?>\n")[2]
    xml = '<?xml version="1.0"?>' + declared + made.replace(b"&amp;", b"&").decode()
    path = tmp_path / f"a.{kind}"
    match kind:
        case "docx":
            written(path, making.docx([], **{"word/document.xml": xml}))
        case "odt":
            written(path, making.odt([], **{"content.xml": xml}))
        case "epub":
            written(path, making.epub(["x"], **{"META-INF/container.xml": xml}))
        case "fodt":
            written(path, xml.encode())
            assert "&i;" in document(path)  # it is a plain text, because of what stands before its first tag
            return
    assert refused(path) == " is refused, because its XML declares entities"


def test_the_entities_of_a_page_are_never_read(tmp_path):
    page = making.PAGE.format("<p>a&i;b</p>").replace("<!DOCTYPE html>", OUTSIDE.replace(" x ", " html "))
    path = written(tmp_path / "a.epub", making.epub(["x"], **{"book/0.xhtml": page}))
    assert "root:" not in document(path)


LONG = 3 * 10**6


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.zip", lambda: making.zipped({"a.txt": b"a" * LONG})),
        ("a.epub", lambda: making.epub(["x"], **{"book/0.xhtml": making.PAGE.format(" " * LONG)})),
        ("a.docx", lambda: making.docx([], " " * LONG)),
        ("a.odt", lambda: making.odt([], " " * LONG)),
        ("a.txt.gz", lambda: gzip.compress(b"a" * LONG)),
        ("a.txt.xz", lambda: lzma.compress(b"a" * LONG)),
        ("nested.zip", lambda: making.zipped({f"{n}.zip": making.zipped({"a": bytes(50_000)}) for n in range(99)})),
    ],
)
def test_what_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name, data):
    monkeypatch.setattr(limits, "MOST_TIMES", 100)
    monkeypatch.setattr(limits, "UNPACKED_FREELY", 10_000)
    assert refused(written(tmp_path / name, data())).endswith(
        "is refused, because it unpacks to more than 100 times its size"
    )


def test_a_thousand_times_is_too_much(tmp_path):
    path = written(tmp_path / "a.zip", making.zipped({"a.txt": b"a" * 10**8}))
    assert refused(path) == " is refused, because it unpacks to more than 1,000 times its size"


def test_an_archive_of_twenty_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MOST_UNPACKED", 10**6)
    path = written(tmp_path / "a.zip", making.zipped({"a.txt": os.urandom(2 * 10**6)}))
    assert "is refused, because it unpacks to more than 0 GB" in refused(path)


def test_a_sparse_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("a.txt")
        info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**62)}
        opened.addfile(info, io.BytesIO(b""))
    assert "unpacks to more than" in refused(tmp_path / "a.tar")


def test_names_in_archives_are_no_paths(tmp_path):
    outside = tmp_path / "outside"
    names = ["../outside", "/etc/outside", "..\\outside", str(outside), "a\x1b[2J\n/b", "C:\\x", "a//b", "x" * 5000]
    data = {name: f"{n}\n" for n, name in enumerate(names)}
    before = sorted(path.name for path in tmp_path.iterdir())
    found = documents(written(tmp_path / "a.zip", making.zipped(data)))
    assert sorted(found.values()) == sorted(data.values())
    assert all(name.isprintable() for name in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*before, "a.zip"]
    made = archive(tmp_path, "a.tar", {name: text.encode() for name, text in data.items()})
    assert sorted(documents(made).values()) == sorted(data.values())
    assert not outside.exists()


def test_links_and_devices_in_a_tar_are_no_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, "/etc/passwd"
            opened.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 2
        opened.addfile(info, io.BytesIO(b"a\n"))
    assert documents(tmp_path / "a.tar") == {"a.txt": "a\n"}


def test_archives_inside_each_other_end(tmp_path):
    data = b"deep\n"
    for n in range(6):
        data = making.zipped({f"{n}.zip" if n else "a.txt": data})
    assert "an archive in more than 3 archives" in refused(written(tmp_path / "a.zip", data))


def test_an_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("chargen.text.formats.archives.MOST_FILES", 100)
    files = {str(n): b"x" for n in range(101)}
    assert "holds more than 100 files" in refused(archive(tmp_path, "a.zip", files))
    assert "holds more than 100 files" in refused(archive(tmp_path, "a.tar", files))
    monkeypatch.setattr(limits, "MOST_AT_ONCE", 1000)
    assert "its list of files is too long" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.odt", lambda: making.odt([], "<text:span>" * 10**5)),
        ("a.docx", lambda: making.docx([], f'<w:p w:x="{"x" * 10**7}"/>')),
        ("a.rtf", lambda: b"{\\rtf1" + b"{" * 10**6),
        ("b.rtf", lambda: b"{\\rtf1 " + b"\\'e9" * 10**5 + b"\\u" * 10**5),
        ("a.pdf", lambda: b"%PDF-1.4\nstartxref\n0\n" * 1000),
        ("b.pdf", lambda: b"%PDF-1.7\n" + b"<<" * 10**6 + b"\nstartxref\n9\n%%EOF"),
        ("c.pdf", lambda: b"%PDF-1.7\n" + b"[" * 10**6 + b"\nstartxref\n9\n%%EOF"),
    ],
)
def test_what_is_nested_or_long_without_end_is_refused(tmp_path, name, data):
    refused(written(tmp_path / name, data()))


@pytest.mark.long
@pytest.mark.parametrize(
    "part",
    [
        *("<div>", "<a <b", "<!--", "<![CDATA[", "&", "&#", "<p a='", "</script", "<script>", "<", "a=\"'"),
        *("<x " + "a=b " * 50, "<textarea><title>", "]]>", "<?", "<b><i>"),
    ],
)
def test_a_page_takes_time_in_proportion_to_its_length(tmp_path, part):
    def seconds(size):
        path = written(tmp_path / "a.html", b"<html>" + (part * (size // len(part))).encode())
        began = time.process_time()
        with suppress(ChargenError):
            document(path)
        return time.process_time() - began

    few = max(min(seconds(100_000) for _ in range(2)), 0.01)
    assert seconds(1_600_000) < 80 * few


@pytest.mark.long
@pytest.mark.parametrize("part", ["*", "_a", "**a", "[", "[a](", "![", "<", "`", "``a`", "[a][b", "\\", "|", "> ", "&"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_markdown_takes_time_in_proportion_to_its_length(tmp_path, part, end):
    path = written(tmp_path / "a.md", b"x " + ((part + end) * (60_000 // len(part + end))).encode())
    began = time.process_time()
    with suppress(ChargenError):
        document(path)
    assert time.process_time() - began < 5


def test_a_page_is_read_in_little_memory(tmp_path):
    path = written(tmp_path / "a.html", making.html(["some words of a paragraph " * 20] * 10_000))
    from chargen.text.documents import Reading, text
    from chargen.text.sources import sources

    with sources([str(path)]) as found:
        next(iter(text(found[0], Reading())))
        tracemalloc.start()
        for _ in text(found[0], Reading()):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert path.stat().st_size > 5_000_000
    assert peak < 2_000_000


@pytest.mark.parametrize("tenth", range(11))
@pytest.mark.parametrize("kind", [*making.MAKERS, "zip", "tar", "tar.gz"])
def test_a_file_that_is_cut_off_is_named_in_one_line_or_read_as_far_as_it_goes(tmp_path, kind, tenth):
    book = paragraphs()[:40]
    if kind in making.MAKERS:
        data = making.MAKERS[kind](book)
    else:
        data = archive(tmp_path, f"whole.{kind}", {f"{n}.txt": one.encode() for n, one in enumerate(book)}).read_bytes()
    path = written(tmp_path / f"a.{kind}", data[: len(data) * tenth // 10])
    try:
        found = documents(path)
    except ChargenError as error:
        message = str(error)
        assert tenth < 10
        assert "\n" not in message
        assert message.startswith(str(path))
    else:
        words, all_words = " ".join(found.values()).split(), " ".join(book).split()
        whole = sorted(words) == sorted(all_words)  # a TAR may lose some of the empty blocks at its end
        assert whole or kind in ("html", "md", "fodt"), "a cut file was taken for a whole one"
        assert set(words[:-1]) <= set(all_words)


@pytest.mark.parametrize("kind", [*making.MAKERS, "zip", "tar"])
@given(st.data())
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_a_file_with_wrong_bytes_is_named_in_one_line_or_read(tmp_path, kind, data):
    book = ["A few words.", "And some others in a paragraph."]
    if kind in making.MAKERS:
        made = bytearray(making.MAKERS[kind](book))
    else:
        made = bytearray(archive(tmp_path, f"whole.{kind}", {"a.txt": b"a", "b.rtf": making.rtf(book)}).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(made) - 1))
        made[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    path = written(tmp_path / f"a.{kind}", bytes(made))
    try:
        documents(path)
    except ChargenError as error:
        message = str(error)
        assert "\n" not in message


def open_files():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a file that is just being opened may be listed


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the open files are counted by Linux")  # noqa: PTH112
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_only_a_few_archives_are_open_at_a_time(tmp_path, kind):
    for n in range(40):
        archive(tmp_path, f"{n:02}.{kind}", {f"{m}.txt": f"{n} {m}\n".encode() for m in range(3)})
    inner = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    archive(tmp_path, "99.zip", inner)
    from chargen.text.documents import Reading, text
    from chargen.text.sources import sources

    before, found = open_files(), list[str]()
    with sources([str(tmp_path)]) as listed:
        assert open_files() - before < 20
        for source in listed:
            found.append("".join(text(source, Reading())))
            assert open_files() - before < 20
        assert "".join(text(listed[0], Reading())) == "0 0\n"  # an archive that was closed is opened again
    assert found == [f"{n} {m}\n" for n in range(40) for m in range(3)] * 2
    assert open_files() == before


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("a.docx", lambda n: making.docx([], "<w:p>" + "<w:r><w:t>some words </w:t></w:r>" * n + "</w:p>"), {}),
        ("a.odt", lambda n: making.odt([], "<text:p>" + "some <text:span>words </text:span>" * n + "</text:p>"), {}),
        ("a.epub", lambda n: making.epub(["some words " * n], pages=1), {}),
        ("a.html", lambda n: b"<html><p>" + b"some <b>words</b> " * n, {}),
        ("a.md", lambda n: b"some *words* " * n, {}),
        ("a.rtf", lambda n: b"{\\rtf1 " + b"some {\\b words} " * n + b"}", {}),
        ("a.txt", lambda n: b"some words " * n, {"unwrap": True}),
        ("b.txt", lambda n: b"some words \n" * n, {"unwrap": True}),
    ],
)
@pytest.mark.long
def test_a_paragraph_without_end_is_read_in_little_memory(tmp_path, name, make, options):
    from chargen.text.documents import Reading, text
    from chargen.text.sources import sources

    def peak(times):
        path = written(tmp_path / name, make(times))
        with sources([str(path)]) as found:
            tracemalloc.start()
            characters = sum(map(len, text(found[0], Reading(**options))))
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert characters >= 10 * times
        return most

    peak(1000)
    assert peak(200_000) < 12_000_000
