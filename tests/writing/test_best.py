"""--best-of N: of N continuations of a sentence, the one as predictable as the book."""

from pathlib import Path

import numpy as np
import pytest

from chargen import ChargenError
from chargen.bits import bits
from chargen.config import ModelConfig, SampleConfig
from chargen.store.modelfile import weight_shapes
from chargen.text.vocabulary import Vocabulary
from chargen.writing.best import Branch, Choice, best_of, best_samples, branches, choice_of, ends_sentence
from chargen.writing.clone import Clone
from chargen.writing.generate import Until, generate
from chargen.writing.sampler import filters, generators, started

LETTERS = Vocabulary(" .abcde")
SHAPE = ModelConfig(units=8, embedding=4)


@pytest.fixture
def clone():
    """A clone that has learnt nothing, with its own opinion of each character."""
    random = np.random.default_rng(5)
    shapes = weight_shapes(len(LETTERS), SHAPE)
    weights = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["dense/bias"][:2] = 1.5  # sentences end often
    one = Clone(weights, LETTERS, validation_bpc=2.0)
    one.feed("ab. ")
    return one


def written(clone, length=200, stops=(), branching=4, random_seed=1, **settings):
    chosen = filters(SampleConfig(temperature=1, **settings), clone.vocabulary)
    drawing = (generators(random_seed, 1)[0], Choice(branching, 2.0))
    pieces = list(best_of(clone, Until(length, stops), chosen, drawing))
    assert all(len(p.text) == len(p.nats) for p in pieces)
    return pieces


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        *(("a. ", True), ("a.\n", True), ('a?" ', True), ("a!’)\n", True), ("a… ", True)),
        *(("a.", False), ("a ", False), ("a, ", False), (". a ", False), ("\n", False), ("3.5 ", False)),
    ],
)
def test_where_a_sentence_ends(text, ends):
    assert ends_sentence(text) == ends


def test_each_sentence_is_the_one_nearest_to_the_books_bits(clone):
    state, generator = clone.state, generators(1, 1)[0]
    first = written(clone)[0]
    clone.state = state
    drawing = [np.random.Generator(np.random.PCG64(int(s))) for s in generator.integers(2**63, size=4)]
    found = branches(clone, Until(200), [], drawing)
    distances = [abs(bits(float(np.mean(one.nats))) - 2.0) for one in found]
    assert first.text == LETTERS.decode(found[int(np.argmin(distances))].ids)
    assert first.text.endswith(". ")
    assert len({one.distance(2.0) for one in found}) > 1


def test_the_length_is_exact_and_pieces_are_sentences(clone):
    pieces = written(clone)
    assert sum(len(p.text) for p in pieces) == 200
    assert [p.stopped_by for p in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert all(p.text.endswith(". ") for p in pieces[:-1])
    assert [p.text for p in written(clone, 0)] == [""]


def test_the_text_is_reproducible_and_the_state_is_that_after_it(clone):
    state = clone.state
    text = "".join(p.text for p in written(clone))
    logits = clone.logits.copy()
    clone.state = state
    assert "".join(p.text for p in written(clone)) == text
    clone.state = state
    assert "".join(p.text for p in written(clone, random_seed=2)) != text
    clone.state = state
    clone.feed(text)
    np.testing.assert_allclose(clone.logits, logits, rtol=1e-4, atol=1e-5)
    assert LETTERS.decode(clone.recalled) == "ab. " + text


def test_of_one_branch_the_text_is_one_of_the_model(clone):
    state = clone.state
    nats = [n for p in written(clone, branching=1) for n in p.nats]
    clone.state = state
    free = [n for p in generate(clone, Until(200), (), generators(9, 1)) for n in p.nats]
    assert abs(np.mean(nats) - np.mean(free)) < 0.2


@pytest.mark.parametrize("stop", ["e", ". e", ". ", "cc"])
def test_a_text_ends_before_a_stop_text_that_has_been_read(clone, stop):
    state = clone.state
    pieces = written(clone, 4000, (stop,))
    text = "".join(p.text for p in pieces)
    assert pieces[-1].stopped_by == stop
    assert stop not in text
    logits = clone.logits.copy()
    clone.state = state
    clone.feed(text + stop)
    np.testing.assert_allclose(clone.logits, logits, rtol=1e-4, atol=1e-5)


def test_filters_that_follow_the_text_go_on_from_sentence_to_sentence(clone):
    pieces = written(clone, 1000, no_repeat=4)
    text = "ab. " + "".join(p.text for p in pieces)
    assert len(text) > 500
    assert all(text.index(text[i : i + 4]) == i for i in range(len(text) - 3))
    last = written(clone, 10_000, no_repeat=2)[-1]
    assert last.stopped_by == "no-repeat"


def test_samples_are_reproducible_one_by_one(clone):
    def texts(count):
        drawing = (lambda n, first: generators(3, n, first)), Choice(3, 2.0)
        pieces = list(best_samples(clone, count, Until(60), started((), []), drawing))
        return ["".join(p.text for p in pieces if p.sample == k) for k in range(count)]

    three = texts(3)
    assert len(set(three)) == 3
    assert texts(2) == three[:2]


def test_a_signal_ends_the_text_within_the_sentence(clone):
    calls: list[int] = []

    def stopping():
        calls.append(1)
        return len(calls) > 5

    pieces = list(best_of(clone, Until(500, (), stopping), [], (generators(1, 1)[0], Choice(3, 2.0))))
    assert pieces[-1].stopped_by == "signal"
    assert len("".join(p.text for p in pieces)) <= 6


def test_what_it_needs_is_said(clone):
    with pytest.raises(ChargenError, match="--temperature above 0"):
        choice_of(clone, SampleConfig(best_of=4, temperature=0))
    clone.validation_bpc = None
    with pytest.raises(ChargenError, match="does not tell its bits"):
        choice_of(clone, SampleConfig(best_of=4))


def test_a_branch_that_is_stuck_comes_last():
    assert min([Branch(nats=[1.0], stuck=True), Branch(nats=[9.0])], key=lambda one: one.distance(1)).nats == [9.0]


def test_python_takes_the_same_settings(clone, tmp_path: Path):
    clone.words = None
    text = "".join(clone.generate(80, temperature=1, random_seed=1, best_of=3, no_repeat=9))
    assert len(text) == 80
    (tmp_path / "list").write_text("abc dad bee", "utf-8")
    text = "".join(clone.generate(300, temperature=1, random_seed=1, words=str(tmp_path / "list")))
    assert {*text.replace(".", " ").split()[1:-1]} <= {"abc", "dad", "bee"}
    assert len(text.replace(".", " ").split()) > 20
