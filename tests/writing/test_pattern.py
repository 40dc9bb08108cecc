import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import ModelConfig
from chargen.network.model import CharLM
from chargen.text.vocabulary import Vocabulary
from chargen.writing.clone import Clone
from chargen.writing.pattern import Pattern, fill, parse, scores
from chargen.writing.sampler import nats_of

ABC = Vocabulary(" abc")


@pytest.fixture(scope="module")
def weights():
    return CharLM(len(ABC), ModelConfig(units=8, embedding=4), random_seed=2).arrays()


@pytest.fixture
def clone(weights):
    clone = Clone(weights, ABC)
    clone.feed("ab")
    return clone


def cost(weights, before, text):
    """The plain way to the cost of a text: a clone reads one character after the other."""
    clone = Clone(weights, ABC)
    logits = [clone.feed(before)]
    ids = ABC.encode(text)
    logits += [clone.feed([i]) for i in ids[:-1]]
    return float(nats_of(np.array(logits), ids).sum())


def test_a_line_is_a_slot_and_tabs_separate_its_alternatives():
    assert parse("the\ta\n\ncat\tdog\tcat and dog\n", "p") == [["the", "a"], ["cat", "dog", "cat and dog"]]


@pytest.mark.parametrize(("text", "message"), [("a\tb\nc\t\td", "p, line 2: .*empty"), ("\n\n", "no alternatives")])
def test_an_incomplete_pattern_is_refused(text, message):
    with pytest.raises(ChargenError, match=message):
        parse(text, "p")


def test_scores_are_exact_and_do_not_change_the_clone(clone, weights):
    before = clone.logits.copy()
    texts = ["a ", "ab ", "cab ", "c"]
    np.testing.assert_allclose(scores(clone, texts), [cost(weights, "ab", t) for t in texts], atol=1e-4)
    assert (clone.logits == before).all()


def test_the_draw_has_the_normalised_probabilities_with_the_separator(clone, weights):
    generator = np.random.default_rng(0)
    alternatives, draws = ["a", "ab", "cab"], 1000
    kept = clone.state
    counts = dict.fromkeys(alternatives, 0)
    for _ in range(draws):
        clone.state = kept
        (piece,) = fill(clone, Pattern([alternatives], " "), generator)
        counts[piece.text] += 1
    expected = np.exp([-cost(weights, "ab", a + " ") for a in alternatives])
    expected *= draws / expected.sum()
    chi_squared = ((np.array(list(counts.values())) - expected) ** 2 / expected).sum()
    assert chi_squared < 13.82  # 2 degrees of freedom, one in a thousand


def test_temperature_0_takes_the_most_likely_and_the_clone_has_read_the_text(clone, weights):
    slots = [["a", "bc"], ["c", "ab"], ["b"]]
    pieces = list(fill(clone, Pattern(slots, "  ", 0), np.random.default_rng(0)))
    text, read = "".join(p.text for p in pieces), "ab"
    for slot, following in zip(slots, ["  ", "  ", ""], strict=True):
        best = min(slot, key=lambda a: cost(weights, read, a + "  "))
        read += best + following
    assert "ab" + text == read
    other = Clone(weights, ABC)
    np.testing.assert_allclose(other.feed(read), clone.logits[0], atol=1e-5)
    assert [p.stopped_by for p in pieces] == [None, None, "pattern"]
    np.testing.assert_allclose(sum(n for p in pieces for n in p.nats), cost(weights, "ab", text), atol=1e-4)


def test_characters_that_the_model_never_saw_are_named(clone):
    with pytest.raises(ChargenError, match=r"é \(U\+00E9\)"):
        list(fill(clone, Pattern([["a", "é"]], " "), np.random.default_rng(0)))
