import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.text.vocabulary import Vocabulary
from chargen.text.words import packed
from chargen.writing.repeats import NoRepeat
from chargen.writing.sampler import (
    allow,
    draw,
    filters,
    generators,
    min_p,
    nats_of,
    probabilities,
    repeated,
    started,
    temperature,
    top_k,
    top_p,
)
from chargen.writing.words import Words

# Four symbols, a to d, with probabilities that are easy to add up.
P = np.array([0.1, 0.4, 0.3, 0.2])
LOGITS = np.log(P)[None]
ABCD = Vocabulary("abcd")


def left(logits):
    return "".join(c for c, kept in zip("abcd", np.isfinite(logits[0]), strict=True) if kept)


def test_allow_keeps_what_is_allowed():
    assert left(allow(LOGITS, np.array([True, False, False, True]))) == "ad"


def test_temperature_raises_probabilities_to_its_inverse():
    np.testing.assert_allclose(probabilities(temperature(LOGITS, 0.5))[0], P**2 / (P**2).sum())


@pytest.mark.parametrize(("k", "kept"), [(1, "b"), (2, "bc"), (3, "bcd"), (4, "abcd"), (9, "abcd")])
def test_top_k_keeps_the_k_most_likely(k, kept):
    assert left(top_k(LOGITS, k)) == kept


def test_top_k_keeps_the_first_of_equals_and_no_more():
    assert left(top_k(np.zeros((1, 4)), 2)) == "ab"


@pytest.mark.parametrize(
    ("p", "kept"), [(0.0, "b"), (0.39, "b"), (0.41, "bc"), (0.69, "bc"), (0.71, "bcd"), (0.95, "abcd"), (1.0, "abcd")]
)
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    assert left(top_p(LOGITS, p)) == kept


@pytest.mark.parametrize(
    ("p", "kept"), [(0.0, "abcd"), (0.25, "abcd"), (0.3, "bcd"), (0.6, "bc"), (0.8, "b"), (1.0, "b")]
)
def test_min_p_keeps_those_near_the_most_likely(p, kept):
    assert left(min_p(LOGITS, p)) == kept


def names(chosen):
    return [f.func for f in chosen]


def test_the_filters_apply_in_their_order():
    chosen = filters(SampleConfig(top_k=2, top_p=0.6, forbid="b", temperature=0.5, min_p=0.1), ABCD)
    assert names(chosen) == [allow, temperature, top_k, top_p, min_p]
    logits = LOGITS
    kept = []
    for one in chosen:
        logits = one(logits)
        kept.append(left(logits))
    # Without b the rest are .1 .3 .2, squared .01 .09 .04; two of them .69 and .31.
    assert kept == ["acd", "acd", "cd", "c", "c"]


def test_another_order_of_the_filters_would_keep_other_characters():
    weights = np.array([93, 55, 20, 19, 18, 17])
    config = SampleConfig(forbid="a", temperature=0.5, top_k=4, top_p=0.79, min_p=0.11)
    chosen = filters(config, Vocabulary("abcdef"))

    def kept(order):
        logits = np.log(weights)[None]
        for one in order:
            logits = one(logits)
        return "".join(c for c, finite in zip("abcdef", np.isfinite(logits[0]), strict=True) if finite)

    # Squared, b to e are 3025, 400, 361 and 324: b has 0.74 of their sum, b and c 0.83. Min-p keeps what is above 333.
    assert kept(chosen) == "bc"
    allowing, heating, by_rank, by_sum, by_ratio = chosen
    assert kept([heating, by_rank, allowing, by_sum, by_ratio]) == "b"
    assert kept([allowing, by_rank, by_sum, heating, by_ratio]) == "bcd"
    assert kept([allowing, heating, by_sum, by_rank, by_ratio]) == "bcd"
    assert kept([allowing, heating, by_rank, by_ratio, by_sum]) == "b"  # of b, c and d, b has 0.80
    # Temperature does not change the ranks, so the neighbours that are left can change places.
    assert kept([heating, allowing, by_rank, by_sum, by_ratio]) == "bc"
    assert kept([allowing, by_rank, heating, by_sum, by_ratio]) == "bc"


LETTERS = Vocabulary(" abcde")


def test_the_filters_that_follow_the_text_stand_between_allow_and_temperature():
    config = SampleConfig(forbid="e", words="book", no_repeat=3, temperature=0.5, top_k=2, top_p=0.9, min_p=0.1)
    chosen = filters(config, LETTERS, packed(["aa", "ab", "abc", "abd", "abe", "b", "c"]))
    assert names([chosen[0], *chosen[3:]]) == [allow, temperature, top_k, top_p, min_p]
    # The text is "aa ab", and "a", of which no word is to be made that repeats "aa " or " ab".
    chosen, following = repeated(started(chosen, LETTERS.encode("aa ab a").tolist()), 2, None)
    assert [type(one) for one in following] == [type(one) for one in chosen[1:3]] == [Words, NoRepeat]
    logits, kept = np.log([[2, 3, 4, 5, 6, 7]] * 2), []
    for one in chosen:
        logits = one(logits)
        kept.append("".join(c for c, z in zip(LETTERS.characters, logits[1], strict=True) if np.isfinite(z)))
    # After "a" only a and b go on in a word; "b" would repeat " ab".
    assert kept == [" abcd", "ab", "a", "a", "a", "a", "a"]


def test_another_place_of_the_filters_that_follow_the_text_would_keep_other_characters():
    chosen = filters(SampleConfig(words="book", no_repeat=2, top_k=2, temperature=1), LETTERS, packed(["ab", "ac"]))
    words, repeats, by_rank = repeated(started(chosen, LETTERS.encode("ab a").tolist()), 1, None)[0]

    def kept(order):
        logits = np.log([[2, 3, 9, 4, 6, 7]])
        for one in order:
            logits = one(logits)
        return "".join(c for c, z in zip(LETTERS.characters, logits[0], strict=True) if np.isfinite(z))

    assert kept([words, repeats, by_rank]) == "c"
    assert kept([by_rank, words, repeats]) == "b"  # the two likeliest are b and e: only b goes on, and it must repeat
    assert isinstance(repeats, NoRepeat)
    assert repeats.stuck is not None


def test_temperature_0_has_no_filter_but_those_that_come_before_it():
    assert names(filters(SampleConfig(top_k=2, allow="[ab]", temperature=0), ABCD)) == [allow]
    chosen = filters(SampleConfig(top_k=2, words="book", no_repeat=3, temperature=0), LETTERS, packed(["ab"]))
    assert [type(one) for one in chosen] == [Words, NoRepeat]


def test_allow_and_forbid_match_single_characters_and_the_newline_too():
    lines = Vocabulary("\n ab")
    (chosen,) = filters(SampleConfig(allow=".", forbid=r"\s", temperature=1), lines)
    assert np.isfinite(chosen(np.zeros((1, 4)))).tolist() == [[False, False, True, True]]
    with pytest.raises(ChargenError, match="--allow or --forbid"):
        filters(SampleConfig(allow="x"), ABCD)


def test_greedy_takes_the_most_likely_and_the_first_of_equals():
    assert draw(np.array([[0, 2, 1], [1, 1, 0]]), [], None).tolist() == [1, 0]


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 2},
    {"top_p": 0.6},
    {"min_p": 0.6},
    {"allow": "[ad]"},
    {"forbid": "b", "temperature": 1.5, "top_k": 2, "top_p": 0.9, "min_p": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_hundred_thousand_draws_have_the_probabilities_that_the_filters_leave(settings):
    chosen = filters(SampleConfig(**{"temperature": 1.0, **settings}), ABCD)
    rows, calls = 1000, 100
    drawing = generators(7, rows)
    counts = np.zeros(4, int)
    for _ in range(calls):
        counts += np.bincount(draw(np.repeat(LOGITS, rows, 0), chosen, drawing), minlength=4)
    logits = LOGITS
    for one in chosen:
        logits = one(logits)
    expected = probabilities(logits)[0] * rows * calls
    assert not counts[expected == 0].any()
    some = expected > 0
    chi_squared = ((counts[some] - expected[some]) ** 2 / expected[some]).sum()
    # The critical values at one in a thousand, by degrees of freedom; the generators are fixed.
    assert chi_squared < [1e-9, 10.83, 13.82, 16.27][some.sum() - 1]


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8), st.integers(0, 2))
def test_every_combination_of_filters_keeps_a_character(values, number):
    logits = np.array([values])
    for one in [lambda z: top_k(z, 1), lambda z: top_p(z, 0.0), lambda z: min_p(z, 1.0)][number:]:
        logits = one(temperature(logits, 0.01))
    ids = draw(logits, [], generators(number, 1))
    assert values[int(ids[0])] >= max(values) - 1e-9


def test_extreme_logits_do_not_overflow():
    drawing = generators(3, 1)
    assert draw(np.array([[-3e38, 3e38]], np.float32), [], drawing).tolist() == [1]
    hot = filters(SampleConfig(temperature=1e-6), ABCD)
    assert draw(np.array([[1e4, -1e4, 0, 5]], np.float32), hot, drawing).tolist() == [0]


def test_the_nats_of_a_character_are_the_negative_logarithm_of_the_probability():
    np.testing.assert_allclose(nats_of(LOGITS + 5, np.array([2])), [-np.log(0.3)])


def test_sample_k_has_its_own_generator_from_random_seed_and_k():
    first = [g.random() for g in generators(1, 3)]
    assert first == [g.random() for g in generators(1, 5)][:3]
    assert len({*first, *(g.random() for g in generators(2, 3))}) == 6


def test_the_unknown_character_is_never_allowed():
    with pytest.raises(ChargenError, match="may be drawn"):
        filters(SampleConfig(allow="\ufffd"), Vocabulary("ab\ufffd", "\ufffd"))
