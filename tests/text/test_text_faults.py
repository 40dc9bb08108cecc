"""Texts as people have them: marks without end, links in circles, folders of everything, joined files."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.config import TrainConfig
from chargen.text.corpus import read
from chargen.text.documents import MARKS_HELD, decode
from chargen.text.sources import expanded
from tests.conftest import invoke

MARKS = "\u0301\u0323\u0308\u0344\u0345\u05b8\u3099"


@given(
    st.text("e\u0301\u0323\u0344\u05b8か\u3099\uac00", min_size=1, max_size=20), st.integers(1, 60), st.integers(1, 60)
)
def test_many_marks_in_a_row_are_composed_as_by_unicodedata(characters, times, others):
    text = characters * times + MARKS * others + characters
    assert decode(text.encode(), "text") == unicodedata.normalize("NFC", text)


def test_endless_marks_take_time_in_proportion_to_their_number():
    """Sixteen times as many took 256 times as long."""

    def seconds(count):
        data = ("\u0301\u0323" * count).encode()
        began = time.process_time()
        decode(data, "text")
        return time.process_time() - began

    few = max(min(seconds(20_000) for _ in range(3)), 1e-3)
    assert seconds(320_000) < 80 * few
    assert MARKS_HELD < 320_000


HEADER = (
    "The Project Gutenberg EBook of Nights, by A. Nonymous\n\nThis eBook is for the use of anyone anywhere\n\n"
    "Title: Nights\n\n*** START OF THIS PROJECT GUTENBERG EBOOK NIGHTS ***\n\n"
)
LICENCE = (
    "*** END OF THIS PROJECT GUTENBERG EBOOK NIGHTS ***\n\nUpdated editions will replace the previous one.\n\n"
    "Section 1.  General Terms of Use\n\n1.A.  By reading any part of this electronic work you agree.\n"
)
SMALL_PRINT = "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy?\n*END*THE SMALL PRINT!*END*\n"
POEM = "Project Gutenberg Etext of A Poem\n\n" + "A line of a poem, and another one.\n" * 60
QUOTED = "*** START OF THIS PROJECT GUTENBERG EBOOK NIGHTS ***\n"
OWN = "These are my own words about it.\n\n" * 30


@pytest.mark.parametrize(
    "text",
    [
        "Project Gutenberg\n\nmy whole text\n\n*END THE SMALL PRINT!\n",
        POEM + SMALL_PRINT,
        (POEM + SMALL_PRINT) * 2,
        OWN + QUOTED + OWN,
        "I read this at Project Gutenberg.\n" + OWN + QUOTED + OWN,
        OWN + "End of Project Gutenberg's Nights\n" + OWN,
        OWN + SMALL_PRINT + OWN,
    ],
)
def test_a_doubtful_header_or_licence_is_kept(tmp_path, text):
    (tmp_path / "text").write_text(text)
    corpus = read([str(tmp_path / "text")])
    assert corpus.vocabulary.decode(corpus.ids) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (HEADER + OWN + LICENCE, OWN),
        (OWN + LICENCE, OWN),
        ((HEADER + OWN + LICENCE) * 2, OWN * 2),
        (HEADER + OWN + LICENCE + "\n\n" + "My note.\n\n" * 20, OWN + "My note.\n\n" * 20),
        ("The Project Gutenberg Etext of Nights\n" + SMALL_PRINT + OWN, OWN),
    ],
)
def test_headers_and_licences_are_left_out_and_nothing_else(tmp_path, text, kept):
    (tmp_path / "text").write_text(text)
    corpus = read([str(tmp_path / "text")])
    assert corpus.vocabulary.decode(corpus.ids).split() == kept.split()
    assert any("are left out of" in note for note in corpus.notes)


@pytest.fixture
def library(tmp_path):
    """Two texts, the first of which has three names more; links in circles; and a folder elsewhere."""
    inside, outside = tmp_path / "library", tmp_path / "outside"
    for path, text in (
        (inside / "a.txt", "first\n"),
        (inside / "sub/b.txt", "second\n"),
        (outside / "c.txt", "third\n"),
    ):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    (inside / "hard.txt").hardlink_to(inside / "a.txt")
    (inside / "soft.txt").symlink_to(inside / "a.txt")
    (inside / "sub" / "again").symlink_to(inside)
    (inside / "self").symlink_to(inside)
    (inside / "other").symlink_to(outside)
    (inside / "nowhere").symlink_to(tmp_path / "none")
    return inside


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.txt"])
def test_each_file_is_read_once_whatever_links_to_it(library, pattern):
    corpus = read([f"{library}{pattern}"])
    assert corpus.vocabulary.decode(corpus.ids) == "first\nthird\nsecond\n"


def test_a_pattern_matches_part_by_part(library):
    def found(pattern):
        return [str(path.relative_to(library)) for path in expanded(str(library / pattern))]

    assert found("**/b.txt") == ["sub/b.txt"]
    assert found("s*/**") == ["sub/b.txt"]
    assert found("*.txt") == ["a.txt"]
    assert expanded(str(library / "**/*.md")) == [library / "**/*.md"]


def test_a_folder_that_cannot_be_read_is_named(library, monkeypatch):
    import os

    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    corpus = read([str(library)])
    assert corpus.vocabulary.decode(corpus.ids) == "first\nthird\n"
    assert f"{library / 'sub'} is not readable (Permission denied): left out" in corpus.notes


def test_a_folder_may_mix_encodings_with_marks_and_files_that_are_no_texts_are_named(tmp_path):
    (tmp_path / "1.txt").write_text("one é\n", "utf-8")
    (tmp_path / "2.txt").write_text("two é\n", "utf-16")
    (tmp_path / "3.pdf").write_bytes(b"%PDF-1.7 \xe2\xe3\xcf\xd3 without a NUL")
    (tmp_path / "4.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    corpus = read([str(tmp_path)])
    assert corpus.vocabulary.decode(corpus.ids) == "one é\ntwo é\n"
    assert [note for note in corpus.notes if "left out" in note] == [
        f"{tmp_path / '3.pdf'} is a damaged PDF (its end is missing): left out",
        f"{tmp_path / '4.jpg'} is not utf-8: left out",
    ]


def test_a_text_with_replacement_characters_gets_another_unknown_character(tmp_path):
    (tmp_path / "text").write_text("a\ufffdb" * 50 + "x" + "a\ufffdb" * 5, "utf-8")
    corpus = read([str(tmp_path / "text")], TrainConfig(min_count=3))
    assert corpus.vocabulary.characters == "ab\ufdd0\ufffd"
    assert corpus.vocabulary.unknown == "\ufdd0"
    assert np.bincount(corpus.ids).tolist() == [55, 55, 1, 55]


def test_a_seed_file_is_read_by_its_mark_and_the_error_without_one_gives_advice(trained, here):
    (here / "seed").write_text("the cat", "utf-16")
    base = ["sample", "--model", trained, "--length", 5, "--temperature", 0, "--seed-file", "seed"]
    assert invoke(*base).stdout.startswith("the cat")
    (here / "seed").write_bytes("the cat".encode("utf-16-le"))
    result = invoke(*base)
    assert result.exit_code == 1
    assert "seed seems to be utf-16-le: save it as UTF-8" in result.stderr
    assert "--encoding" not in result.stderr


def test_a_text_is_composed_with_a_note_unless_normalisation_is_off(fake, here):
    words = "cafe\u0301 and \u05d1\u05bc\u05b7, "
    (here / "text").write_text(words * 60, "utf-8")
    composed = read(["text"])
    assert composed.vocabulary.decode(composed.ids) == unicodedata.normalize("NFC", words) * 60
    assert any("--normalize none keeps them" in note for note in composed.notes)
    plain = read(["text"], TrainConfig(normalize="none"))
    assert plain.vocabulary.decode(plain.ids) == words * 60
    assert plain.notes == ()
    sizes = ["--units", 4, "--batch-size", 2, "--seq-length", 8]
    assert invoke("train", "text", *sizes, "--steps", 4, "--normalize", "none").exit_code == 0
    assert invoke("train", "--resume", "--steps", 2).exit_code == 0
    result = invoke("sample", "--seed", "caf\u00e9", "--stop", "\u00e9", "--length", 3)
    assert (result.exit_code, result.stdout[:5]) == (0, "cafe\u0301")
    assert "Warning" not in result.stderr
    result = invoke("train", "--resume", "--normalize", "nfc")
    assert "--normalize cannot be changed with --resume" in result.stderr
    (here / "new").write_text(words * 5, "utf-8")
    assert invoke("eval", "new", "--json").stdout.count('"unknown_characters": 0')
