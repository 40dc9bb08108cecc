import pytest

from chargen.clone import Clone
from chargen.generate import generate, opening
from chargen.vocabulary import Vocabulary


@pytest.fixture
def clone(trained):
    return Clone.open(trained)


def test_the_length_is_exact_and_the_seed_is_not_in_it(clone):
    for length in (0, 1, 37):
        assert len("".join(generate(clone, "the ", length, 0.7, 1))) == length


def test_the_random_seed_decides_the_text(clone):
    def text(random_seed):
        clone.reset_states()
        return "".join(generate(clone, "the ", 100, 1.0, random_seed))

    assert text(1) == text(1) != text(2)


def test_greedy_text_is_the_likeliest_character_each_time(clone):
    text = "".join(generate(clone, "the ", 20, 0, 1))
    clone.reset_states()
    ids = clone.vocabulary.encode("the " + text)
    likeliest = clone.vocabulary.decode(clone.read(ids[:-1]).argmax(-1))
    assert likeliest[3:] == text


def test_a_model_that_has_learnt_its_text_writes_its_words(clone, text):
    words = "".join(generate(clone, "the ", 300, 0.5, 1)).split()[:-1]
    assert sum(word in text.split() for word in words) > 0.8 * len(words)


@pytest.mark.parametrize(("characters", "first"), [("\n ab", "\n\n"), (" ab", "  "), ("ab", "a")])
def test_an_empty_seed_starts_as_a_paragraph_does(characters, first):
    assert opening(Vocabulary(characters)) == first
