import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.files.reading import DamagedError
from chargen.text import words
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed, unpacked, word_list, words_of


def listed(text):
    vocabulary = Vocabulary.of(text)
    return words_of(vocabulary.encode(text), vocabulary)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't! don’t 'Tis the dogs' well-known", "Don't Tis dogs don’t the well-known"),
        ("river--and rock-", "and river rock"),
        ("3rd x2 ², a_b 1840s", "a b rd s x"),
        ("漢字とかな of ไทย 한국말", "of 한국말"),
        ("e\u0301te\u0301 Straße", "Straße e\u0301te\u0301"),
        ("1 2 3", ""),
    ],
)
def test_a_word_is_letters_with_single_apostrophes_and_hyphens_inside(text, found):
    assert listed(text) == sorted(found.split())
    assert word_list(text, Vocabulary.of(text)) == tuple(sorted(found.split()))


def test_a_word_with_a_rare_character_is_not_one_that_the_model_can_write():
    vocabulary = Vocabulary(" aenv\ufffd", "\ufffd")
    assert words_of(vocabulary.encode("naïve van"), vocabulary) == ["van"]
    assert word_list("naïve van", vocabulary) == ("van",)


def test_a_long_text_is_counted_in_blocks_without_cut_words(monkeypatch):
    text = "one three fifteen seventy " * 50
    monkeypatch.setattr(words, "BLOCK", 100)
    assert listed(text) == ["fifteen", "one", "seventy", "three"]
    monkeypatch.setattr(words, "COUNTED_CHARACTERS", 300)
    assert listed(text) == ["fifteen", "one", "seventy", "three"]
    monkeypatch.setattr(words, "MOST_WORDS", 2)
    assert listed("a a b b c") == ["a", "b"]


@given(st.sets(st.text(st.characters(categories=["L", "M"]), min_size=1)))
def test_a_list_comes_back_as_it_was(found):
    assert unpacked(packed(sorted(found))) == tuple(sorted(found))


@pytest.mark.parametrize("wrong", ["", "?", "AAAA", packed(["a", "b"])[:-8], packed(["b", "a"])])
def test_a_damaged_list_is_refused(wrong):
    with pytest.raises(DamagedError, match="words"):
        unpacked(wrong)


def test_a_list_that_would_unpack_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(words, "LIST_BYTES", 100)
    with pytest.raises(DamagedError):
        unpacked(packed([chr(97 + n // 26) + chr(97 + n % 26) * 9 for n in range(600)]))


def test_the_list_of_the_bundled_book_is_small():
    from chargen.text.corpus import read

    corpus = read([])
    assert len(corpus.words) < 12_000
    assert np.isin(["the", "The", "lock-house", "Ruth"], unpacked(corpus.words)).all()
