import bz2
import gzip
import io
import lzma
import unicodedata
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.text.documents import Reading, decode, text
from chargen.text.encodings import NoTextError
from chargen.text.sources import Source, expanded, sources

BOOK = "Chapter 1\n\nIt was a dark night.\n\n\n"
TODAY = (
    "The Project Gutenberg eBook of Nights\n\nThis eBook is for the use of anyone anywhere\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK NIGHTS ***\n\n\n",
    "\n\n*** END OF THE PROJECT GUTENBERG EBOOK NIGHTS ***\n\nSection 1. General Terms of Use\n",
)
EARLIER = (
    "Project Gutenberg's Nights, by A. Nonymous\n\n"
    "*** START OF THIS PROJECT GUTENBERG EBOOK THE NIGHTS\nAND SOME DAYS ***\n\n",
    "End of Project Gutenberg's Nights, by A. Nonymous\n\n*** END OF THIS PROJECT GUTENBERG EBOOK NIGHTS ***\nlicence",
)
ETEXT = (
    "**The Project Gutenberg Etext of Nights**\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is"
    " this here?\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n",
    "End of The Project Gutenberg Etext of Nights\n",
)


@pytest.fixture(params=[1, 7, 1 << 14])
def block(request, monkeypatch):
    monkeypatch.setattr("chargen.text.documents.BLOCK_BYTES", request.param)


def read(path, encoding="utf-8", left_out=None):
    reading = Reading(encoding, keep_boilerplate=left_out is None)
    found = "".join(text(Source(str(path), path), reading))
    if left_out is not None:
        left_out[:] = [one.characters for one in reading.left_out]
    return found


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift_jis", "utf-8-sig"])
def test_a_text_in_blocks_is_the_text_read_at_once(tmp_path, encoding):
    written = "a\r\nb\rc\n\r\n語、文字がある。\r\n" * 20
    (tmp_path / "text").write_bytes(written.encode(encoding))
    assert read(tmp_path / "text", encoding) == written.replace("\r\n", "\n").replace("\r", "\n")


@given(st.text("e\u0301\u0323o\u0308 \n가\u1100\u1161\u11a8語\u3099か", min_size=1), st.integers(1, 9))
def test_composition_does_not_depend_on_where_blocks_end(characters, size):
    data = characters.encode()
    file = io.BytesIO(data)

    class Opened:
        name = "text"

        def open(self, mode):
            return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chargen.text.documents.BLOCK_BYTES", size)
        assert "".join(text(Source("text", Opened()), Reading(keep_boilerplate=True))) == unicodedata.normalize(
            "NFC", characters
        )
    assert decode(data, "text") == unicodedata.normalize("NFC", characters)


@pytest.mark.usefixtures("block")
def test_an_error_names_the_offset_in_the_file_for_any_block_size(tmp_path):
    (tmp_path / "text").write_bytes("añb".encode() + b"cd\xe9e")
    with pytest.raises(ChargenError, match=r"byte 0xe9 at offset 6 is invalid"):
        read(tmp_path / "text")
    (tmp_path / "text").write_bytes(b"abcdefgh\xc3")
    with pytest.raises(ChargenError, match=r"byte 0xc3 at offset 8 is invalid"):
        read(tmp_path / "text")
    (tmp_path / "text").write_bytes(b"abcdefgh\0")
    with pytest.raises(NoTextError, match=r"offset 8"):
        read(tmp_path / "text")


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd.compress)],
)
def test_compressed_files_are_read_and_damaged_ones_named(tmp_path, suffix, compress):
    path = tmp_path / f"book.txt{suffix}"
    path.write_bytes(compress(BOOK.encode()) + compress(b"and another frame\n"))
    assert read(path) == BOOK + "and another frame\n"
    path.write_bytes(compress(BOOK.encode() * 50)[:-6])
    with pytest.raises(ChargenError, match="damaged"):
        read(path)
    path.write_bytes(BOOK.encode())
    with pytest.raises(ChargenError, match=f"book.txt{suffix}"):
        read(path)


@pytest.mark.parametrize(("before", "after"), [TODAY, EARLIER, ETEXT])
@pytest.mark.parametrize(("size", "times"), [(1, 1), (7, 1), (1 << 14, 1), (1 << 14, 10_000), (999, 10_000)])
def test_the_header_and_licence_of_project_gutenberg_are_left_out(tmp_path, monkeypatch, before, after, size, times):
    monkeypatch.setattr("chargen.text.documents.BLOCK_BYTES", size)
    book = BOOK * times
    (tmp_path / "text").write_text(before + book + after)
    left_out: list[int] = []
    assert read(tmp_path / "text", left_out=left_out) == book.rstrip() + "\n"
    assert left_out == [len(before + book + after) - len(book.rstrip() + "\n")]
    assert read(tmp_path / "text") == before + book + after


def test_all_books_of_a_joined_file_are_kept(tmp_path):
    (tmp_path / "text").write_text("".join(before + BOOK + after for before, after in (TODAY, EARLIER, TODAY)))
    assert read(tmp_path / "text", left_out=[]) == (BOOK.rstrip() + "\n") * 3


def test_a_book_that_mentions_project_gutenberg_is_kept_whole(tmp_path):
    words = "He read it at Project Gutenberg, where books START and END ***.\n" * 2000
    (tmp_path / "text").write_text(words)
    left_out: list[int] = []
    assert read(tmp_path / "text", left_out=left_out) == words
    assert not left_out


def test_patterns_stand_for_the_files_that_match_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "deep/d.txt", "[odd].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [p.name for p in expanded(str(tmp_path / "?.txt"))] == ["a.txt", "b.txt"]
    assert [p.name for p in expanded(str(tmp_path / "**" / "[a-d].txt"))] == ["a.txt", "b.txt", "d.txt"]
    assert [p.name for p in expanded(str(tmp_path / "[odd].txt"))] == ["[odd].txt"]
    assert expanded(str(tmp_path / "x*")) == [tmp_path / "x*"]
    with sources([str(tmp_path / "?.txt")]) as found:
        assert [Path(source.name).name for source in found] == ["a.txt", "b.txt"]


def test_a_long_text_after_a_book_is_kept(tmp_path):
    own = "My own words about it.\n" * 5000
    (tmp_path / "text").write_text(TODAY[0] + BOOK + TODAY[1] + own)
    assert read(tmp_path / "text", left_out=[]).endswith(own)
    (tmp_path / "header").write_text(TODAY[0])
    with pytest.raises(NoTextError, match="nothing but Project Gutenberg's header"):
        read(tmp_path / "header", left_out=[])


def test_a_pattern_finds_each_file_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "sub/b.txt"):
        (tmp_path / name).write_text(name)
    for pattern in ("**", "**/*"):
        assert [p.name for p in expanded(str(tmp_path / pattern))] == ["a.txt", "b.txt"]
    assert expanded("x" * 5000 + "*")


def test_a_long_text_without_words_is_read_as_fast_as_others(tmp_path, monkeypatch):
    (tmp_path / "text").write_text("ひらがなカタカナ" * 20_000)
    composed: list[int] = []

    def noted(part):
        composed.append(len(part))
        return part

    monkeypatch.setattr("chargen.text.documents._nfc", noted)
    read(tmp_path / "text")
    assert max(composed) < 2 * (1 << 14)  # nothing is held back from block to block
