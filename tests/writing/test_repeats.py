"""--no-repeat N: no N characters are written twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.config import SampleConfig
from chargen.text.corpus import read
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed, word_list, word_pattern, words_of
from chargen.writing.repeats import NoRepeat
from chargen.writing.sampler import draw, filters, generators, repeated, started

ABCD = Vocabulary("abcd")


def kept(one, rows=1, vocabulary=ABCD):
    logits = one(np.zeros((rows, len(vocabulary))))
    return ["".join(c for c, z in zip(vocabulary.characters, row, strict=True) if z == 0) for row in logits]


@pytest.mark.parametrize(
    ("length", "text", "left"),
    [
        (1, "", "abcd"),
        (1, "ab", "cd"),
        (2, "a", "abcd"),
        (2, "aa", "bcd"),
        (2, "abaca", "ad"),
        (3, "abcab", "abd"),
        (3, "aaa", "bcd"),
        (3, "ab", "abcd"),
        (9, "abcabcabc", "abcd"),
    ],
)
def test_by_hand(length, text, left):
    assert kept(NoRepeat(length).start(ABCD.encode(text).tolist())) == [left]


@given(st.integers(1, 5), st.text("abc", max_size=8), st.integers(0, 99))
def test_a_text_never_repeats_and_ends_only_when_it_must(length, seed, random_seed):
    letters = Vocabulary("abc")
    chosen = filters(SampleConfig(no_repeat=length, temperature=1), letters)
    chosen, (one,) = repeated(started(chosen, letters.encode(seed).tolist()), 1, None)
    text, drawing = seed, generators(random_seed, 1)
    for _ in range(300):
        ids = draw(np.zeros((1, 3)), chosen, drawing)
        if one.stuck is not None and one.stuck[0]:
            break
        one.wrote(ids)
        text += letters.decode(ids)
        assert text[-length:] not in text[:-1]
    else:
        assert length == 5  # 3 ** 5 sequences are more than are written here only if the seed is short
    grams = {text[i : i + length] for i in range(len(text) - length + 1)}
    if len(text) - len(seed) < 300:
        assert all(text[len(text) - length + 1 :] + c in grams for c in "abc")


def test_rows_are_apart_and_share_what_was_before():
    one = NoRepeat(2).start(ABCD.encode("ab").tolist()).repeat(3, None)
    one.wrote(ABCD.encode("acd").astype(int))
    assert kept(one, 3) == ["acd", "abcd", "abcd"]
    one.keep(np.array([1, 1, 0]))
    one.wrote(ABCD.encode("bab").astype(int))
    assert kept(one, 3) == ["abd", "acd", "bcd"]


def test_the_unknown_character_does_not_count_as_one_that_is_left():
    vocabulary = Vocabulary("ab\ufffd", "\ufffd")
    chosen = started(filters(SampleConfig(no_repeat=1, temperature=0), vocabulary), [0, 1])
    _, (one,) = repeated(chosen, 1, None)
    one(np.zeros((1, 3)))
    assert one.stuck is not None
    assert one.stuck.tolist() == [True]


def test_a_word_that_could_not_be_finished_is_not_begun():
    vocabulary = Vocabulary(" abcde")
    chosen = filters(SampleConfig(words="book", no_repeat=6, temperature=1), vocabulary, packed(["abcde", "abd", "ce"]))
    _, (words, one) = repeated(started(chosen, vocabulary.encode("ce abcde ce ab").tolist()), 1, None)
    logits = np.zeros((1, 6))
    assert kept(words, 1, vocabulary) == ["cd"]
    assert "".join(c for c, z in zip(vocabulary.characters, one(words(logits))[0], strict=True) if z == 0) == "d"
    assert kept(one, 1, vocabulary)[0] != ""


def test_words_and_no_repeat_together_keep_both_promises():
    corpus = read([])
    words = packed(words_of(corpus.ids, corpus.vocabulary))
    chosen = filters(SampleConfig(words="book", no_repeat=12, temperature=0), corpus.vocabulary, words)
    chosen, following = repeated(started(chosen, []), 1, None)
    # A model whose opinion depends on the last two characters only would write a cycle.
    opinions = np.random.default_rng(1).normal(0, 3, (97, len(corpus.vocabulary)))
    ids = [0, 0]
    for _ in range(3000):
        drawn = draw(opinions[[(ids[-1] * 7 + ids[-2]) % 97]], chosen, None)
        assert following[1].stuck is None
        for one in following:
            one.wrote(drawn)
        ids.append(int(drawn[0]))
    text = corpus.vocabulary.decode(ids[2:])
    assert len({text[i : i + 12] for i in range(2989)}) == 2989
    known = set(word_list(corpus.vocabulary.decode(corpus.ids), corpus.vocabulary))
    found = word_pattern(corpus.vocabulary).findall(text)[:-1]
    assert all(word in known or word[0].lower() + word[1:] in known for word in found)
