import pytest

from chargen.config import SampleConfig
from chargen.text.vocabulary import Vocabulary
from chargen.writing.clone import Clone
from chargen.writing.generate import LENGTH, Held, Until, generate, opening
from chargen.writing.sampler import filters, generators


@pytest.fixture
def clone(trained):
    return Clone.open(trained)


def written(clone, length, stops=(), random_seed=1, count=1, **settings):
    clone.reset_states()
    clone.feed("the ")
    config = SampleConfig(**{"temperature": 1.0, **settings})
    drawing = generators(random_seed, count) if config.temperature else None
    pieces = list(generate(clone.repeat(count), Until(length, stops), filters(config, clone.vocabulary), drawing))
    texts = ["".join(p.text for p in pieces if p.sample == k) for k in range(count)]
    ends = [[p.stopped_by for p in pieces if p.sample == k][-1] for k in range(count)]
    costs = [[n for p in pieces if p.sample == k for n in p.nats] for k in range(count)]
    assert [len(c) for c in costs] == [len(t) for t in texts]
    return texts, ends


@pytest.mark.parametrize("length", [0, 1, 37])
def test_the_length_is_exact_and_the_seed_is_not_in_it(clone, length):
    texts, ends = written(clone, length)
    assert (len(texts[0]), ends) == (length, ["length"])


def test_the_random_seed_decides_the_text(clone):
    assert written(clone, 100)[0] == written(clone, 100)[0] != written(clone, 100, random_seed=2)[0]


def test_greedy_text_is_the_most_likely_character_each_time(clone):
    (text,), _ = written(clone, 20, temperature=0)
    clone.reset_states()
    ids = clone.vocabulary.encode("the " + text)
    likeliest = clone.vocabulary.decode(clone.read(ids[:-1]).argmax(-1))
    assert likeliest[3:] == text


def test_a_model_that_has_learnt_its_text_writes_its_words(clone, text):
    words = written(clone, 300, temperature=0.5)[0][0].split()[:-1]
    assert sum(word in text.split() for word in words) > 0.8 * len(words)


def test_only_what_is_allowed_is_written(clone):
    assert set(written(clone, 200, allow="[aeh ]")[0][0]) <= set("aeh ")


def test_samples_differ_and_each_is_its_own(clone):
    texts, _ = written(clone, 60, count=4)
    assert len(set(texts)) == 4
    assert written(clone, 60, count=2)[0] == texts[:2]


@pytest.mark.parametrize("stops", [("at",), ("t s", "w"), ("at on", "hat")])
@pytest.mark.parametrize("random_seed", range(3))
def test_a_text_ends_before_the_first_stop_text_in_it(clone, stops, random_seed):
    (free,), _ = written(clone, 200, random_seed=random_seed)
    (text,), (end,) = written(clone, 200, stops, random_seed)
    places = {stop: free.index(stop) for stop in stops if stop in free}
    if not places:
        assert (text, end) == (free, "length")
        return
    first = min(places, key=lambda stop: (places[stop] + len(stop), places[stop]))
    assert (text, end) == (free[: places[first]], first)


def test_samples_that_stop_early_do_not_affect_the_others(clone):
    free, _ = written(clone, 80, count=5)
    texts, ends = written(clone, 80, ("w",), count=5)
    assert texts == [t.split("w")[0] for t in free]
    assert ends == ["w" if "w" in t else "length" for t in free]


def test_only_what_may_begin_a_stop_text_is_held_back():
    held = Held(("abc", "bd"))
    given = [held.add(0, c, 1.0) for c in "xabababd"]
    assert [p.text for p in given] == ["x", "", "", "ab", "", "ab", "", "a"]
    assert given[-1].stopped_by == "bd"
    held = Held(("abc",))
    pieces = [held.add(0, c, 1.0) for c in "ab"]
    assert [p.text for p in pieces] == ["", ""]
    last = held.release(pieces[-1], LENGTH)
    assert (last.text, last.nats, last.stopped_by) == ("ab", (1.0, 1.0), "length")


@pytest.mark.parametrize(("characters", "first"), [("\n ab", "\n\n"), (" ab", " "), ("ab", "a")])
def test_an_empty_seed_starts_as_a_paragraph_does(characters, first):
    assert opening(Vocabulary(characters)) == first
