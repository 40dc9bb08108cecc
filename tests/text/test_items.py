"""Lines, paragraphs and the rows of a column as documents, and the character that ends them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.config import TrainConfig
from chargen.text.corpus import read
from chargen.text.vocabulary import END, Vocabulary
from tests.conftest import invoke


def corpus_of(path, text, **settings):
    path.write_text(text, "utf-8")
    return read([str(path)], TrainConfig(**settings))


def texts_of(corpus):
    """Return the documents of a corpus, of which `starts` must be the beginnings."""
    whole = corpus.vocabulary.decode(corpus.ids)
    assert [place for place, c in enumerate(whole) if c == END] == [*corpus.starts.tolist(), len(whole) - 1]
    return whole.split(END)[1:-1]


@pytest.mark.parametrize(
    ("settings", "text", "documents"),
    [
        ({"document": "line"}, "Anna\n\n  Bert \r\nCora", ["Anna", "  Bert", "Cora"]),
        ({"document": "paragraph"}, "\n\na\n b\n \n\nc\n", ["a\n b", "c"]),
        ({"column": "name"}, 'name,age\nAnna,3\n"Bert, ""B""",4\n,5\n', ["Anna", 'Bert, "B"']),
        ({"column": "text"}, 'id;text\n1;"one\ntwo"\n2;three\n3\n', ["one\ntwo", "three"]),
        ({"column": "b"}, "a\tb\n1\tx, y\n", ["x, y"]),
        ({"column": "b"}, '{"a": 1, "b": "x\\r\\ny"}\n\n{"b": null}\n{"a": 2}\n{"b": 7}\n', ["x\ny", "7"]),
        ({"column": "b"}, '{"b": "\\ud83d\\ude00 \\ud800 e\\u0301"}\n', ["😀 \ufffd é"]),
    ],
)
def test_lines_paragraphs_and_rows_are_documents_and_blank_ones_are_left_out(tmp_path, settings, text, documents):
    assert texts_of(corpus_of(tmp_path / "text", text, **settings)) == documents


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=3000), min_size=1))
def test_every_line_is_a_document_however_long_the_blocks(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "text"
    assert texts_of(corpus_of(path, "\n".join(lines), document="line", normalize="none")) == lines


@pytest.mark.parametrize(
    ("settings", "text", "message"),
    [
        ({"column": "x"}, "a,b\n1,2\n", "has no column x: it has a, b"),
        ({"column": "x"}, '{"a": 1}\n', "has no column x: it has a"),
        ({"column": "x"}, '{"x": 1}\nno\n', "line 2 is not a JSON object"),
        ({"column": "x"}, '[{"x": 1}]', "line 1 is not a JSON object"),
        ({"column": "x"}, "x,y\n,1\n", "nothing but blank documents"),
        ({"document": "line"}, "a\n\uffff", r"U\+FFFF"),
    ],
)
def test_a_file_without_such_documents_is_refused_with_the_reason(tmp_path, settings, text, message):
    with pytest.raises(ChargenError, match=message):
        corpus_of(tmp_path / "text", text, **settings)


def test_of_a_folder_a_file_without_the_column_is_left_out_and_named(tmp_path):
    (tmp_path / "a.csv").write_text("x\none\n")
    (tmp_path / "b.csv").write_text("y\ntwo\n")
    corpus = read([str(tmp_path)], TrainConfig(column="x"))
    assert texts_of(corpus) == ["one"]
    assert [note for note in corpus.notes if "b.csv is without a column x: left out" in note]


def test_validation_takes_whole_documents_as_near_to_its_share_as_they_come(tmp_path):
    corpus = corpus_of(tmp_path / "text", "abc\ndef\nghi\njkl", document="line")  # 17 characters
    for share, trained in ((0.01, 3), (0.3, 3), (0.4, 2), (0.9, 1)):
        training, validation = corpus.split(TrainConfig(validation=share))
        left, right = (corpus.vocabulary.decode(part.ids) for part in (training, validation))
        assert left == "".join(END + text for text in ("abc", "def", "ghi", "jkl")[:trained]) + END
        assert right == "".join(END + text for text in ("abc", "def", "ghi", "jkl")[trained:]) + END
        for part in (training, validation):
            assert part.starts.tolist() == list(range(4, len(part.ids) - 1, 4))
    with pytest.raises(ChargenError, match="is a single document"):
        corpus_of(tmp_path / "one", "abc", document="line").split(TrainConfig())


def test_the_end_is_never_a_rare_character_and_survives_the_cache(tmp_path):
    (tmp_path / "text").write_text("aab\naac")
    settings = TrainConfig(document="line", min_count=4)
    first, again = (read([str(tmp_path / "text")], settings, cache=tmp_path / "cache") for _ in range(2))
    assert first.vocabulary == again.vocabulary == Vocabulary("a\ufffd\uffff", "\ufffd", END)
    assert np.array_equal(first.ids, again.ids)
    assert len(list((tmp_path / "cache").glob("*/corpus.json"))) == 1
    whole = read([str(tmp_path / "text")], TrainConfig(min_count=4), cache=tmp_path / "cache")
    assert whole.vocabulary.end is None
    kept = [json.loads(file.read_text()) for file in (tmp_path / "cache").glob("*/corpus.json")]
    assert {one["sha256"]: one.get("end", "none") for one in kept} == {first.sha256: END, whole.sha256: "none"}


def test_a_list_that_goes_on_from_another_model_has_its_end_too(tmp_path):
    (tmp_path / "text").write_text("ab\nba")
    known = Vocabulary("abc\uffff", None, END)
    assert read([str(tmp_path / "text")], TrainConfig(document="line"), Vocabulary("xyz")).vocabulary.end == END
    corpus = read([str(tmp_path / "text")], TrainConfig(), known)
    assert (corpus.vocabulary.end, corpus.itemized) == (END, False)
    assert corpus.vocabulary.decode(corpus.ids) == "ab\nba"


def test_chargen_text_shows_documents_apart_and_counts_them(here):
    (here / "names.txt").write_text("Anna\n\nBert \n")
    (here / "poems.csv").write_text('poem\n"a\nb"\nc\n')
    assert invoke("text", "names.txt", "--document", "line").stdout == "Anna\nBert\n"
    assert invoke("text", "poems.csv", "--column", "poem").stdout == "a\nb\n\nc\n"
    report = json.loads(invoke("text", "names.txt", "--document", "line", "--json").stdout)
    assert report["documents"] == 2
    refused = invoke("text", "poems.csv", "--column", "poem", "--document", "line")
    assert "does not go with --document" in refused.stderr
