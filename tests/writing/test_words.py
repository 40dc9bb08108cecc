"""--words: what is written are words of the list, whatever the model would like to write."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.text.corpus import read
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed, word_pattern, words_of
from chargen.writing.sampler import draw, filters, generators, repeated, started
from chargen.writing.words import Tree, Words, known_words

TEXT = "the THE The then O'Neil o'clock lock-house lock house don't river, 12 iPad."


def some(text=TEXT, extra="Rx.:?\n\"'-"):
    vocabulary = Vocabulary.of(text + extra)
    return vocabulary, words_of(vocabulary.encode(text), vocabulary)


def may_follow(before, text=TEXT, **settings):
    """The letters, and whether a space, may be written after a text."""
    vocabulary, words = some(text)
    chosen = filters(SampleConfig(words="book", temperature=1, **settings), vocabulary, packed(words))
    _, (one,) = repeated(started(chosen, vocabulary.encode(before).tolist()), 1, None)
    kept = [c for c, z in zip(vocabulary.characters, one(np.zeros((1, len(vocabulary))))[0], strict=True) if z == 0]
    return "".join(c for c in kept if c.isalpha() or c in " '-1")


@pytest.mark.parametrize(
    ("before", "characters"),
    [
        ("x the", " '-1n"),  # "the", or "then"
        ("x th", "e"),
        ("x T", "Hh"),
        ("x TH", "E"),
        ("x lock", " '-1"),
        ("x lock-", " '-1h"),  # "lock-house", or a dash after "lock"
        ("x lock--", " '-1OTdhilort"),
        ("x O", "'"),  # neither "O" nor "o" is a word by itself
        ("x O'", "N"),
        ("x o'", "c"),
        ("x don'", "t"),
        ("x rivers", " '-1" + "".join(sorted({*TEXT, "R", "x"} & {*map(chr, range(65, 123))}))),  # not a word: free
        ("x 1", " '-1OTdhilort"),
        ("x ", " '-1OTdhilort"),
    ],
)
def test_what_may_follow_in_a_sentence(before, characters):
    assert sorted(may_follow(before)) == sorted(characters)


@pytest.mark.parametrize("before", ["", "x. ", 'x: "', "x?' ", "x\n\n", "x.\n", "\n\n"])
def test_a_word_may_have_a_capital_where_a_sentence_begins(before):
    assert "R" in may_follow(before)
    assert may_follow(before + "R") == "i"
    assert may_follow(before + "T") == "Hh"
    assert may_follow(before + "The") == " '-1n"


@pytest.mark.parametrize("before", ["x ", "x, ", "x\n", "x the "])
def test_a_word_has_no_new_capital_elsewhere(before):
    assert "R" not in may_follow(before)
    assert may_follow(before + "The") == " '-1"  # "Then" is not in the text


def test_scripts_without_spaces_are_left_alone():
    assert {*may_follow("x", "x 漢字 y")} >= {*" 漢字"}
    assert not {*may_follow("x ", "xa 漢字 y")} & {"a"}


def test_words_are_of_the_characters_that_are_allowed():
    assert may_follow("x ", forbid="e") == " '-1Tdilo"
    with pytest.raises(ChargenError, match="--words needs a character between words"):
        may_follow("x ", allow="[a-z]")


def test_a_capital_that_lowers_to_another_letter_is_not_offered():
    vocabulary = Vocabulary(" .aµΜΣςσ")
    tree = Tree(["aς", "µa", "ςa"], vocabulary, np.ones(8, bool))
    one = Words(tree)
    assert np.isfinite(one(np.zeros((1, 8))))[0].tolist() == [c in " .aµς" for c in vocabulary.characters]


def walk(words, vocabulary, characters, rows=250, before="", new=0.0):
    """Write so many characters with a model whose logits are random; return the text of each row, and its seed."""
    chosen = filters(SampleConfig(words="book", new_words=new), vocabulary, packed(words))
    random, drawing = np.random.default_rng(1), generators(1, rows)
    chosen, following = repeated(started(chosen, vocabulary.encode(before).tolist()), rows, drawing)
    logits = random.normal(0, 3, (997, len(vocabulary))).astype(np.float32)
    written = np.empty((characters // rows, rows), np.int64)
    for step in range(len(written)):
        written[step] = draw(logits[random.integers(0, 997, rows)], chosen, drawing)
        for one in following:
            one.wrote(written[step])
    return [before + vocabulary.decode(column) for column in written.T]


def strangers(text, words, vocabulary):
    """The words of a text that are not in the list, in any capitalisation that it allows; the unfinished last one."""
    known, found = set(words), list(word_pattern(vocabulary).finditer(text))
    last = found.pop()[0] if found and found[-1].end() >= len(text.rstrip("'’-")) else ""
    strange, end = [], 0
    for word in found:
        between = text[end : word.start()]
        begins = not end or {*between} & {*".!?…\"'“”‘’„‚«»‹›"} or "\n\n" in between
        lowered, end = word[0][0].lower() + word[0][1:], word.end()
        if word[0] not in known and not (begins and lowered in known):
            strange.append(word[0])
    return strange, last


@pytest.mark.parametrize("characters", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_what_is_written_are_words_of_the_book(characters):
    corpus = read([])
    words = words_of(corpus.ids, corpus.vocabulary)
    texts = walk(words, corpus.vocabulary, characters, before="The riv")
    assert sum(map(len, texts)) >= characters
    found = 0
    for text in texts:
        strange, last = strangers(text, words, corpus.vocabulary)
        assert strange == []
        assert not last or any(word.lower().startswith(last.lower()) for word in words)
        assert re.match("The river|The rivets", text)
        found += len(text.split())
    assert found > characters / 20


@given(st.lists(st.text("abAB'-’é\u0301漢 ßİıς", min_size=1, max_size=8), min_size=1, max_size=8), st.text("abAB'- ."))
def test_any_words_can_always_go_on_and_are_kept(parts, seed):
    text = " ".join(parts)
    vocabulary = Vocabulary.of(text + seed + " .\n")
    words = words_of(vocabulary.encode(text), vocabulary)
    (written,) = walk(words, vocabulary, 60, rows=1, before=seed + " ")
    assert strangers(written[len(seed) :], words, vocabulary)[0] == []


def test_a_word_may_be_new_with_the_given_probability():
    vocabulary = Vocabulary.of("the cat. xyz")
    shares = []
    for new in (0.0, 0.2, 1.0):
        texts = walk(["cat", "the"], vocabulary, 100_000, new=new)
        found = [word for text in texts for word in word_pattern(vocabulary).findall(text)[:-1]]
        shares.append(sum(word.lower() not in ("cat", "the") for word in found) / len(found))
    assert shares[0] == 0
    assert 0.17 < shares[1] < 0.21  # a new word may happen to be one of the list
    assert shares[2] > 0.9
    assert walk(["cat"], vocabulary, 5000, new=0.5) == walk(["cat"], vocabulary, 5000, new=0.5)


def test_rows_are_dropped_and_repeated():
    vocabulary, words = some()
    one = Words(Tree(words, vocabulary, np.ones(len(vocabulary), bool))).start(vocabulary.encode("x th").tolist())
    three = one.repeat(3, None)
    three.wrote(np.array([vocabulary.id_of(c) for c in "e n"]))
    logits = np.zeros((3, len(vocabulary)))
    kept = three(logits)
    three.keep(np.array([2, 0, 0]))
    assert (three(logits) == kept[[2, 0, 0]]).all()
    assert np.isfinite(one(logits[:1])).sum() == 1  # it has not gone on


def test_a_file_of_words_and_an_old_model(here):
    vocabulary = Vocabulary(" .aeht")
    (here / "list").write_text("the hat\nriver\n", "utf-8")
    assert known_words("list", None, vocabulary) == ("hat", "the")
    (here / "none").write_text("river 12", "utf-8")
    with pytest.raises(ChargenError, match="none has no words"):
        known_words("none", None, vocabulary)
    with pytest.raises(ChargenError, match="no list of words: name the book, --words FILE, or train again"):
        known_words("book", None, vocabulary)
    with pytest.raises(ChargenError, match="the model file is damaged"):
        known_words("book", "AAAA", vocabulary)


def test_the_words_of_a_base_are_those_of_the_book_and_its_own():
    vocabulary, book, base = Vocabulary(" .aeht"), packed(["hat", "the"]), packed(["heat", "the"])
    assert known_words("base", book, vocabulary, base) == ("hat", "heat", "the")
    assert known_words("book", book, vocabulary, base) == ("hat", "the")
    with pytest.raises(ChargenError, match="no words of a base: use --words book, or train it with --from english"):
        known_words("base", book, vocabulary)
    with pytest.raises(ChargenError, match="the model file is damaged"):
        known_words("base", book, vocabulary, "AAAA")
