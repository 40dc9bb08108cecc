import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from chargen import ChargenError
from chargen.corpus import read
from chargen.documents import decode


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (b"\xef\xbb\xbfab", "utf-8", "ab"),
        (b"a\r\nb\rc\n", "utf-8", "a\nb\nc\n"),
        ("cafe\u0301".encode(), "utf-8", "café"),
        (b"caf\xe9 \x93x\x94", "cp1252", "café “x”"),
        ("\ufeffab\r\n".encode("utf-16-le"), "utf-16", "ab\n"),
        ("\ufeffab".encode("utf-16-le"), "utf-16-le", "ab"),
    ],
)
def test_marks_line_ends_and_composition_are_normalised(data, encoding, text):
    assert decode(data, "a file", encoding) == text


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"", "utf-8", "a file is empty"),
        (b"\xef\xbb\xbf", "utf-8", "a file is empty"),
        (b"ab\0c", "utf-8", "a file is a binary file .*offset 2"),
        (b"abc\xe9d", "utf-8", "a file is not utf-8: byte 0xe9 at offset 3 .*--encoding"),
        ("ab".encode("utf-16"), "utf-8", "--encoding utf-16"),
        ("a\0b".encode("utf-16"), "utf-16", "binary file"),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(data, encoding, message):
    with pytest.raises(ChargenError, match=message):
        decode(data, "a file", encoding)


def test_files_and_folders_are_joined_in_order_and_lines_stay_whole(tmp_path):
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "2.txt").write_text("two\n")
    (folder / "a.txt").write_text("one")
    (folder / ".hidden").write_text("hidden")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\0\0")
    (tmp_path / "last.txt").write_text("three")
    corpus = read([str(folder), str(tmp_path / "last.txt")])
    assert corpus.vocabulary.decode(corpus.ids) == "one\ntwo\nthree"
    assert corpus.name == "folder"
    assert len(corpus.notes) == 1
    assert "cover.jpg is binary" in corpus.notes[0]


def test_a_missing_file_and_a_folder_without_text_are_refused(tmp_path):
    with pytest.raises(ChargenError, match=r"none\.txt can't be read: No such file"):
        read([str(tmp_path / "none.txt")])
    with pytest.raises(ChargenError, match="holds no text"):
        read([str(tmp_path)])


def test_standard_input_is_a_file_named_minus(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("zażółć".encode())))
    corpus = read(["-"])
    assert corpus.vocabulary.decode(corpus.ids) == "zażółć"
    assert corpus.files == ("-",)


def test_the_bundled_book_is_there_and_long_enough():
    corpus = read([])
    assert corpus.name == "book"
    assert len(corpus.ids) >= 100_000
    counts = np.bincount(corpus.ids)
    assert counts.min() >= 3, "a character of the book is too rare to be learnt"


def test_the_hash_tells_texts_apart_and_not_files(tmp_path):
    for name, data in {"a": b"one two\n", "b": b"one two\r\n", "c": b"one twO\n"}.items():
        (tmp_path / name).write_bytes(data)
    a, b, c = (read([str(tmp_path / name)]).sha256 for name in "abc")
    assert a == b != c


def test_the_end_of_the_text_is_for_validation(tmp_path):
    (tmp_path / "text").write_text("abcdefghijklmnopqrst")
    corpus = read([str(tmp_path / "text")])
    train, validation = corpus.split(0.2)
    assert corpus.vocabulary.decode(train.ids) == "abcdefghijklmnop"
    assert corpus.vocabulary.decode(validation.ids) == "qrst"
    assert np.shares_memory(train.ids, corpus.ids)


def test_a_text_that_leaves_nothing_to_train_on_is_refused(tmp_path):
    (tmp_path / "text").write_text("abc")
    with pytest.raises(ChargenError, match="3 characters"):
        read([str(tmp_path / "text")]).split(0.1)
