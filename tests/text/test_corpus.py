import io
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import chargen.text.corpus
from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.files.disk import PREFIX
from chargen.text.corpus import cache_folder, opened, read
from chargen.text.documents import decode
from chargen.text.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (b"\xef\xbb\xbfab", "utf-8", "ab"),
        (b"a\r\nb\rc\n", "utf-8", "a\nb\nc\n"),
        ("cafe\u0301".encode(), "utf-8", "café"),
        (b"caf\xe9 \x93x\x94", "cp1252", "café “x”"),
        ("\ufeffab\r\n".encode("utf-16-le"), "utf-16", "ab\n"),
        ("\ufeffab".encode("utf-16-le"), "utf-16-le", "ab"),
        *(
            ("\ufeffäb".encode(e), "cp1252", "äb")
            for e in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        ),
        ("\ufeffone\n\ufefftwo\n".encode(), "utf-8", "one\ntwo\n"),
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
        ("ab".encode("utf-16-le"), "utf-8", "seems to be utf-16-le: --encoding utf-16-le would read it"),
        ("ab".encode("utf-16-be"), "utf-8", "seems to be utf-16-be: --encoding utf-16-be would read it"),
        (b"abc\x81d", "cp1252", "a file is not cp1252: byte 0x81 at offset 3 .*--encoding latin-1 would read it"),
        (b"abc\x93d", "utf-8", "--encoding cp1252 would read it"),
        ("añb".encode(), "ascii", "--encoding utf-8 would read it"),
        ("a\0b".encode("utf-16"), "utf-16", "binary file"),
    ],
)
def test_a_file_that_is_not_a_text_is_refused_with_the_reason(data, encoding, message):
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


def test_the_hash_distinguishes_texts_and_not_files(tmp_path):
    for name, data in {"a": b"one two\n", "b": b"one two\r\n", "c": b"one twO\n"}.items():
        (tmp_path / name).write_bytes(data)
    a, b, c = (read([str(tmp_path / name)]).sha256 for name in "abc")
    assert a == b != c


def test_the_end_of_the_text_is_for_validation(tmp_path):
    (tmp_path / "text").write_text("abcdefghijklmnopqrst")
    corpus = read([str(tmp_path / "text")])
    train, validation = corpus.split(TrainConfig(validation=0.2))
    assert corpus.vocabulary.decode(train.ids) == "abcdefghijklmnop"
    assert corpus.vocabulary.decode(validation.ids) == "qrst"
    assert np.shares_memory(train.ids, corpus.ids)


def test_a_text_that_leaves_nothing_to_train_on_is_refused(tmp_path):
    (tmp_path / "text").write_text("abc")
    with pytest.raises(ChargenError, match="3 characters"):
        read([str(tmp_path / "text")]).split(TrainConfig(validation=0.1))


def written(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(folder / f"{name}.txt") for name in texts]


def test_documents_stay_apart_unless_they_are_joined(tmp_path):
    paths = written(tmp_path, a="one", b="two\n", c="three")
    corpus = read(paths)
    assert corpus.vocabulary.decode(corpus.ids) == "one\ntwo\nthree"
    assert corpus.starts.tolist() == [0, 4, 8]
    joined = read(paths, TrainConfig(join=True))
    assert joined.starts.tolist() == [0]
    assert (joined.ids == corpus.ids).all()
    assert joined.sha256 != corpus.sha256


def test_parts_know_where_their_documents_begin(tmp_path):
    corpus = read(written(tmp_path, a="0123456\n", b="89\n", c="b\n", d="defghij"))  # starts at 0, 8, 11, 13; 20 in all
    train, validation = corpus.split(TrainConfig(validation=0.5))
    assert (train.starts.tolist(), validation.starts.tolist()) == ([8], [1, 3])
    train, validation = corpus.split(
        TrainConfig(validation=0.35)
    )  # cut where a document begins, which needs no telling
    assert (train.starts.tolist(), validation.starts.tolist()) == ([8, 11], [])


def test_validation_has_a_largest_size(tmp_path):
    corpus = read(written(tmp_path, a="0123456789" * 10))
    assert [len(part.ids) for part in corpus.split(TrainConfig(validation=0.1, held_out=5))] == [95, 5]
    assert [len(part.ids) for part in corpus.split(TrainConfig(validation=0.1, held_out=50))] == [90, 10]


def folder_of(corpus):
    assert isinstance(corpus.ids, np.memmap)
    return Path(str(corpus.ids.filename)).parent


def test_a_text_is_cached_and_mapped_and_found_again(tmp_path, monkeypatch):
    paths = written(tmp_path, a="one\n", b="two\n")
    first = read(paths, cache=tmp_path / "cache")
    plain = read(paths)
    assert (first.ids == plain.ids).all()
    assert (first.sha256, first.starts.tolist(), first.vocabulary) == (
        plain.sha256, plain.starts.tolist(), plain.vocabulary
    )  # fmt: skip
    monkeypatch.setattr("chargen.text.corpus._build", None)  # which can't be called
    assert folder_of(read(paths, cache=tmp_path / "cache")) == folder_of(first)


@pytest.mark.parametrize(
    "change",
    [
        {"join": True},
        {"min_count": 2},
        {"keep_boilerplate": True},
        {"encoding": "latin-1"},
    ],
)
def test_other_options_and_other_texts_are_cached_separately(tmp_path, change):
    paths = written(tmp_path, a="one\n", b="two\n")
    first = read(paths, cache=tmp_path / "cache")
    assert folder_of(read(paths, TrainConfig(**change), cache=tmp_path / "cache")) != folder_of(first)
    before = (tmp_path / "b.txt").stat()
    written(tmp_path, b="owt\n")  # as long, and as old
    os.utime(tmp_path / "b.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    again = read(paths, cache=tmp_path / "cache")
    assert again.vocabulary.decode(again.ids) == "one\nowt\n"


def test_a_killed_build_leaves_no_half_made_corpus_and_two_at_once_do_no_harm(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    written(folder, **{f"t{n}": "some words and more\n" * 20_000 for n in range(20)})
    program = (
        "import sys; from pathlib import Path; from chargen.text.corpus import read; "
        "print(read([sys.argv[1]], cache=Path(sys.argv[2])).sha256)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "cache").glob(f"{PREFIX}*/corpus")):
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir() and not p.name.startswith(PREFIX)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said[0] == said[1] == read([str(folder)]).sha256 + "\n"
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    paths = written(tmp_path, a="one\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(ChargenError, match=r"can't be kept in .*--cache"):
        read(paths, cache=tmp_path / "file" / "cache")


def test_rare_characters_become_one_that_is_unknown(tmp_path):
    corpus = read(written(tmp_path, a="aaabbbcde\n\n"), TrainConfig(min_count=2))
    assert corpus.vocabulary.characters == "\nab\ufffd"
    assert corpus.vocabulary.unknown == "\ufffd"
    assert corpus.vocabulary.decode(corpus.ids) == "aaabbb\ufffd\ufffd\ufffd\n\n"
    assert "3 characters, 3 times" in corpus.notes[0]
    whole = read(written(tmp_path, a="aabb"), TrainConfig(min_count=2))
    assert whole.vocabulary.unknown is None


def test_characters_of_a_known_vocabulary_are_never_rare(tmp_path):
    corpus = read(written(tmp_path, a="bbc"), TrainConfig(min_count=2), Vocabulary("acx"))
    assert corpus.vocabulary.characters == "abcx"
    assert read(written(tmp_path, a="bb"), None, Vocabulary("a\ufffd", "\ufffd")).vocabulary.unknown == "\ufffd"


def test_a_binary_file_leaves_no_trace_even_if_it_is_recognised_late(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    late = "Ω" * 100_000
    written(folder, a="one\n", b=late.encode() + b"\0", c=b"", d="two\n")
    corpus = read([str(folder)])
    assert corpus.vocabulary.decode(corpus.ids) == "one\ntwo\n"
    assert "Ω" not in corpus.vocabulary
    assert corpus.starts.tolist() == [0, 4]
    assert [note.split()[-3:] for note in corpus.notes] == [["binary:", "left", "out"], ["empty:", "left", "out"]]
    with pytest.raises(ChargenError, match="binary"):
        read([str(folder / "b.txt")])


def test_a_large_vocabulary_is_read_as_it_grows(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) * 3 + "abc" * 40_000
    corpus = read(written(tmp_path, a=text))
    assert corpus.ids.dtype == np.uint16
    assert corpus.vocabulary.decode(corpus.ids) == text


def test_without_a_writable_cache_texts_are_kept_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder(TrainConfig()) is None
    assert cache_folder(TrainConfig(cache=str(tmp_path / "own"))) == tmp_path / "own"


def test_reading_reports_its_progress(tmp_path):
    told: list[int] = []
    corpus = read(written(tmp_path, a="x" * 200_000, b="y\n"), advance=told.append)
    assert len(told) > 3
    assert sum(told) == len(corpus.ids) - 1  # but for the line's end between the two


def test_a_corpus_that_was_written_opens_as_it_was(tmp_path):
    corpus = read(written(tmp_path, a="aab\n", b="ü"), TrainConfig(min_count=2))
    (tmp_path / "kept").mkdir()
    corpus.write(tmp_path / "kept")
    back = opened(tmp_path / "kept", corpus.files, corpus.name, mapped=True)
    assert (back.ids == corpus.ids).all()
    assert (back.vocabulary, back.sha256, back.notes, back.starts.tolist()) == (
        corpus.vocabulary, corpus.sha256, corpus.notes, corpus.starts.tolist()
    )  # fmt: skip


def test_a_binary_file_leaves_the_lines_around_it_as_they_are(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, a="abc\n", b=b"x" * 40_000 + b"\0", c="def")
    written(folder, d=b"y\n" * 40_000 + b"\0", e="ghi")
    corpus = read([str(folder)])
    assert corpus.vocabulary.decode(corpus.ids) == "abc\ndef\nghi"


def test_a_pipe_is_read_once_and_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", "echo through a pipe > pipe"], cwd=tmp_path)
    corpus = read([str(tmp_path / "pipe")], cache=tmp_path / "cache")
    writer.wait(10)
    assert corpus.vocabulary.decode(corpus.ids) == "through a pipe\n"
    paths = written(tmp_path, a="one\n")
    build = chargen.text.corpus._build

    def changing(*arguments):
        build(*arguments)
        written(tmp_path, a="another\n")

    monkeypatch.setattr("chargen.text.corpus._build", changing)
    with pytest.raises(ChargenError, match=r"a\.txt has changed while it was read"):
        read(paths, cache=tmp_path / "cache")
    monkeypatch.undo()
    written(tmp_path, a="one\n")
    again = read(paths, cache=tmp_path / "cache")
    assert again.vocabulary.decode(again.ids) == "one\n"


def test_a_folder_of_hidden_files_and_a_text_of_rare_characters_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".hidden").write_text("x")
    with pytest.raises(ChargenError, match="holds no text files"):
        read([str(tmp_path / "folder")])
    with pytest.raises(ChargenError, match="no character occurs 9 times"):
        read(written(tmp_path, a="abab"), TrainConfig(min_count=9))
