"""`Clone.alternatives`: different continuations with their probabilities, on a model of seven characters."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.store.modelfile import weight_shapes
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed
from chargen.writing.clone import Clone
from chargen.writing.sampler import probabilities

LETTERS = Vocabulary("\n '.abc")
SHAPE = ModelConfig(units=8, embedding=4)


@pytest.fixture
def clone():
    random = np.random.default_rng(5)
    shapes = weight_shapes(len(LETTERS), SHAPE)
    weights = {name: random.normal(0, 0.8, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["dense/bias"][[0, 1, 3]] += 0.7  # words and sentences end often
    one = Clone(weights, LETTERS, (packed(["ab", "abc", "b", "cab"]), None))
    one.feed("ab. a")
    return one


def probability(clone, text, ends=None):
    """The exact probability of a text as the next one, and that one of ``ends`` follows."""
    one = clone.repeat(1)
    total = 1.0
    for c in text:
        total *= probabilities(one.logits[0].astype(float))[LETTERS.id_of(c)]
        one.feed(c)
    if ends is None:
        return total
    return total * sum(probabilities(one.logits[0].astype(float))[LETTERS.id_of(c)] for c in ends)


@pytest.mark.parametrize("temperature", [0, 0.7, 1.5])
def test_words_differ_and_have_the_probability_of_the_word_and_its_end(clone, temperature):
    found = clone.alternatives(6, temperature=temperature, random_seed=1)
    assert len({" ".join(one.text.split()) for one in found}) == len(found) >= 4
    assert found == sorted(found, key=lambda one: -one.probability)
    for text, expected in found:
        assert text.lstrip("\n '.").replace("'", "").isalpha()
        assert expected == pytest.approx(probability(clone, text, "\n ."), rel=1e-4)


def test_at_temperature_0_they_are_the_most_probable(clone):
    texts = ["".join(t) for t in product(LETTERS.characters, repeat=3)]
    best = sorted(texts, key=lambda text: -probability(clone, text))[:3]
    found = clone.alternatives(60, 3, temperature=0)
    assert [one.text for one in found[:3]] == best
    assert len({one.text for one in found}) == 60
    assert found[0].probability == pytest.approx(probability(clone, best[0]), rel=1e-4)


def test_the_first_is_drawn_by_the_probabilities(clone):
    draws = 2000
    counts = Counter(clone.alternatives(1, 1, temperature=1, random_seed=k)[0].text for k in range(draws))
    for c in LETTERS.characters:
        expected = draws * probability(clone, c)
        assert abs(counts[c] - expected) < 4 * np.sqrt(expected) + 1


def test_all_that_there_are_sum_to_one(clone):
    found = clone.alternatives(100, 1, random_seed=1)
    assert {one.text for one in found} == {*LETTERS.characters}
    assert sum(one.probability for one in found) == pytest.approx(1)


def test_a_sentence_ends_before_the_space_after_it(clone):
    for one in clone.alternatives(5, "sentence", temperature=1, random_seed=2):
        assert one.text.rstrip("'").endswith(".")
        assert ". " not in one.text
        assert ".\n" not in one.text
        assert one.probability == pytest.approx(probability(clone, one.text, "\n "), rel=1e-3)


def test_the_clone_is_unchanged_and_the_draw_reproducible(clone):
    logits, recalled = clone.logits.copy(), clone.recalled
    first = clone.alternatives(3, "sentence", random_seed=7)
    assert (clone.logits == logits).all()
    assert clone.recalled == recalled
    assert clone.alternatives(3, "sentence", random_seed=7) == first
    assert clone.alternatives(3, "sentence", random_seed=8) != first


def test_the_filters_of_sampling_apply(clone):
    found = {one.text.strip("\n '.") for one in clone.alternatives(9, words="book", temperature=0)}
    assert {"b", "bc"} <= found
    assert found <= {"b", "bc", "ab", "abc", "cab", "Ab"}
    assert all("b" not in one.text for one in clone.alternatives(5, 4, forbid="b", random_seed=1))
    texts = ["ab. a" + one.text for one in clone.alternatives(5, 20, no_repeat=3, random_seed=1)]
    assert all(text.index(text[i : i + 3]) == i for text in texts for i in range(len(text) - 2))


def test_where_nothing_is_left_there_are_fewer(clone):
    assert len(clone.alternatives(9, 2, no_repeat=1)) == 6  # b or c or a line feed or an apostrophe ...


@pytest.mark.parametrize("until", ["line", 0, -1])
def test_another_end_is_refused(clone, until):
    with pytest.raises(ChargenError, match="until: give"):
        clone.alternatives(3, until)


def test_a_fresh_clone_begins_a_text(clone):
    clone.reset_states()
    assert len(clone.alternatives(3, random_seed=1)) == 3
    assert clone.is_fresh
