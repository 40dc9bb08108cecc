import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chargen.text.corpus import read
from chargen.writing.originality import DEPTH, LENGTHS, build, compare, index, random_place


def texts(symbols, most):
    return st.lists(st.integers(0, symbols - 1), max_size=most).map(lambda ids: np.array(ids, np.uint8))


@given(texts(3, 300).filter(len))
def test_the_index_is_the_places_sorted_by_what_follows(corpus):
    data = bytes(corpus)
    assert [data[p : p + DEPTH] for p in build(corpus)] == sorted(data[p : p + DEPTH] for p in range(len(data)))


@given(texts(3, 200).filter(len), texts(4, 60), st.integers(0, 100), st.integers(0, 90))
def test_copied_passages_are_those_that_a_plain_search_finds(corpus, text, start, length):
    text = np.concatenate([text, corpus[start : start + length], text[::-1]])  # with a copied passage
    found = compare(text, corpus, build(corpus))
    data, sample = bytes(corpus), bytes(text)
    longest = max(
        (n for i in range(len(sample)) for n in range(len(sample) - i + 1) if sample[i : i + n] in data), default=0
    )
    assert found.longest == longest
    copied = sample[found.start : found.start + longest]
    assert data[found.place : found.place + longest] == copied
    assert data.find(copied) == found.place or not longest
    for n in LENGTHS:
        all_of_n = [sample[i : i + n] for i in range(len(sample) - n + 1)]
        assert found.shares[n] == (sum(s in data for s in all_of_n) / len(all_of_n) if all_of_n else None)


def test_the_index_is_cached_and_built_again_for_another_text(here, text):
    corpus = read(["book.txt"])
    places = index(corpus, here / "cache")
    written = (here / "cache").stat().st_mtime_ns
    assert (index(corpus, here / "cache") == places).all()
    assert (here / "cache").stat().st_mtime_ns == written
    (here / "book.txt").write_text(text + "more")
    assert len(index(read(["book.txt"]), here / "cache")) == len(text) + 4


def test_a_random_place_has_a_whole_passage_after_it():
    places = {random_place(120, 100, n) for n in range(300)}
    assert min(places) >= 0
    assert max(places) < 20
    assert len(places) > 15
    assert random_place(50, 100, 1) == 0
