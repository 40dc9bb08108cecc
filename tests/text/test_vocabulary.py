import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.text.vocabulary import Vocabulary


@given(st.text(min_size=1))
def test_a_text_comes_back_from_its_ids(text):
    vocabulary = Vocabulary.of(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.characters == "".join(sorted(set(text)))


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)]
)
def test_ids_are_as_small_as_the_vocabulary_allows(size, dtype):
    characters = "".join(map(chr, range(0x10000, 0x10000 + size)))
    ids = Vocabulary(characters).encode(characters)
    assert ids.dtype == dtype
    assert ids[-1] == size - 1


def test_an_unknown_character_is_named():
    with pytest.raises(ChargenError, match=r"ž \(U\+017E\)"):
        Vocabulary.of("abc").encode("až")


@pytest.mark.parametrize("characters", ["", "ba", "aa"])
def test_a_vocabulary_is_distinct_characters_in_order(characters):
    with pytest.raises(ChargenError):
        Vocabulary(characters)


@pytest.mark.parametrize(
    ("known", "seed", "repaired", "skipped"),
    [
        ("'abc", "‘a’", "'a'", ""),
        ("’abc", "'a'", "’a’", ""),
        ('"abc', "“a”", '"a"', ""),
        ("-ab", "a—b", "a-b", ""),
        ("abcé", "cafe\u0301", "caé", "f"),
        ("abc", "ABC", "abc", ""),
        ("ABC", "abc", "ABC", ""),
        (" ab", "a\u00a0b", "a b", ""),
        ("ab", "a§§b¶", "ab", "§¶"),
        ("ab", "§", "", "§"),
        ("Aab", "Aa", "Aa", ""),
        ("'’", "’", "’", ""),
        ("eé\u0301", "e\u0301", "e\u0301", ""),
    ],
)
def test_a_seed_is_repaired_where_that_helps(known, seed, repaired, skipped):
    assert Vocabulary.of(known).repair(seed) == (repaired, skipped)


@given(st.text(min_size=1), st.text())
def test_a_repaired_seed_can_be_read(known, seed):
    vocabulary = Vocabulary.of(known)
    repaired, _ = vocabulary.repair(seed)
    assert len(vocabulary.encode(repaired)) == len(repaired)


@pytest.mark.parametrize("characters", ["ab", "a\u201d", "a\U0010ffff"])
def test_characters_around_the_last_known_one_are_unknown(characters):
    vocabulary = Vocabulary(characters)
    last = ord(characters[-1])
    others = "".join(map(chr, {last - 1, min(last + 1, 0x10FFFF), 0, 0x10FFFF} - set(map(ord, characters))))
    ids, known = vocabulary.encode_known(others + characters)
    assert ids.tolist() == [0, 1]
    assert known.tolist() == [False] * len(others) + [True, True]
