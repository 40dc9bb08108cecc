import numpy as np
import pytest

from chargen import ChargenError
from chargen.bits import bits
from chargen.config import Execution, ModelConfig
from chargen.network.model import CharLM
from chargen.store.modelfile import with_temperature
from chargen.store.run import open_model
from chargen.text.vocabulary import Vocabulary
from chargen.training.evaluate import (
    DYNAMIC_STEP,
    NANOGPT_CONTEXT,
    NO_STARTS,
    ROWS,
    RUN_IN,
    dynamic,
    in_order,
    in_windows,
    reading_time,
    score,
)
from chargen.writing.clone import Clone

LONG = pytest.mark.long  # a graph is traced for each
pytestmark = pytest.mark.xdist_group("evaluate")


@pytest.fixture(scope="module")
def model():
    return CharLM(5, ModelConfig(layers=2, units=8, embedding=4), random_seed=1)


def alone(model, ids):
    """The plain way: one row, from the first character to the last, by the clone."""
    logits = Clone(model.arrays(), Vocabulary("abcdefghijklmnopqrstuvwxyz"[: len(model.arrays()["embedding"])])).read(
        ids[:-1]
    )
    return np.logaddexp.reduce(logits, -1) - logits[np.arange(len(logits)), ids[1:]]


def drawn(characters):
    return np.random.default_rng(characters).integers(0, 5, characters).astype(np.uint8)


@pytest.mark.parametrize("characters", [2, 3, 64, 65, 100, 1030, 2049, 5000])
def test_every_character_but_the_first_has_its_own_cost(model, characters):
    ids = drawn(characters)
    # A new model forgets fast, so the run-in leaves no trace: side by side costs the same as alone.
    np.testing.assert_allclose(in_order(model)(ids), alone(model, ids), rtol=1e-4)


def test_a_trained_model_scores_the_same_side_by_side_as_alone(trained, text):
    file = open_model(trained)
    model, ids = CharLM.of(file), file.vocabulary.encode(text)
    assert len(ids) > 4 * 4 * RUN_IN  # so that several rows read it
    assert bits(in_order(model)(ids).mean()) == pytest.approx(bits(alone(model, ids).mean()), abs=0.002)


@pytest.mark.parametrize("characters", [100, pytest.param(2, marks=LONG), pytest.param(2049, marks=LONG)])
def test_what_characters_cost_at_a_temperature_is_what_they_cost_the_model_of_it(model, characters):
    ids, temperatures = drawn(characters), (0.8, 1.0, 1.5)
    costs = in_order(model, temperatures=temperatures)(ids)
    assert costs.shape == (3, characters - 1)
    np.testing.assert_allclose(costs[1], in_order(model)(ids), rtol=1e-5)
    for temperature, at_it in zip(temperatures, costs, strict=True):
        other = CharLM(5, model.config)
        other.assign(with_temperature(model.arrays(), temperature))
        np.testing.assert_allclose(in_order(other)(ids), at_it, rtol=1e-5)
        x, state = ids[None, :60].astype(np.int32), model.zero_state(1)
        np.testing.assert_allclose(other(x, state)[0], model(x, state)[0] / temperature, rtol=1e-5, atol=1e-6)


def test_a_short_text_is_read_by_one_row_and_a_long_one_by_many(model):
    rows = []
    zero_state = model.zero_state

    def noted(batch_size):
        rows.append(batch_size)
        return zero_state(batch_size)

    model.zero_state = noted
    try:
        in_order(model)(np.zeros(4 * RUN_IN, np.uint8))
        in_order(model)(np.zeros(4 * RUN_IN * ROWS + 1, np.uint8))
    finally:
        del model.zero_state
    assert rows == [1, ROWS]


@pytest.mark.parametrize("starts", [[], [1], [399_000]])
@pytest.mark.parametrize("characters", [2, 5000, 65_537, 111_540, 400_000])
def test_how_long_a_text_takes_to_read_is_told_by_its_beginning(model, monkeypatch, characters, starts):
    now, kinds = 0, set()

    def reads_in_a_second(model, temperatures):
        def window(x, y, begins, state, restarts):
            nonlocal now
            now += 1
            kinds.add(restarts is None)
            return np.zeros(x.shape), state

        return window

    monkeypatch.setattr("chargen.training.evaluate._window", reads_in_a_second)
    monkeypatch.setattr("time.monotonic", lambda: now)
    evaluate, ids = in_order(model), np.zeros(characters, np.uint8)
    starts = np.array([start for start in starts if start < characters], int)
    evaluate(ids, starts)
    takes, all_kinds, now, kinds = now, kinds, 0, set()
    assert reading_time(evaluate, ids, starts) == pytest.approx(takes)
    assert kinds == all_kinds
    assert now == (2 * takes if characters <= 65_537 else 40)


@pytest.mark.parametrize("characters", [2, NANOGPT_CONTEXT, NANOGPT_CONTEXT + 1, 3 * NANOGPT_CONTEXT + 7])
def test_in_windows_of_256_each_begins_from_a_zero_state(model, characters):
    ids = drawn(characters)
    parts = [
        alone(model, ids[start : start + NANOGPT_CONTEXT + 1]) for start in range(0, characters - 1, NANOGPT_CONTEXT)
    ]
    np.testing.assert_allclose(in_windows(model)(ids), np.concatenate(parts), rtol=1e-4)


def test_a_dynamic_evaluation_learns_only_from_what_it_has_scored(model):
    """A text's beginning costs the same whatever its end is, and its first stretch what it costs without learning."""
    short, ids = drawn(300)[: 3 * DYNAMIC_STEP + 1], drawn(300)
    costs = dynamic(model)(ids)
    np.testing.assert_array_equal(costs[: 3 * DYNAMIC_STEP], dynamic(model)(short))
    np.testing.assert_allclose(costs[:DYNAMIC_STEP], alone(model, ids)[:DYNAMIC_STEP], rtol=1e-4)
    assert np.abs(costs - alone(model, ids)).max() > 1e-3


@LONG
def test_a_dynamic_evaluation_can_not_foretell_chance(model):
    assert dynamic(model)(drawn(4000)).mean() > np.log(5) - 0.01


@pytest.mark.parametrize("unroll", ["loop", pytest.param("keras", marks=LONG)])
@pytest.mark.long
def test_a_dynamic_evaluation_gains_on_a_text_that_repeats_and_leaves_the_weights_as_they_were(trained, unroll):
    file = open_model(trained)
    model = CharLM.of(file, Execution(unroll))
    ids = np.tile(drawn(60), 40)
    assert dynamic(model)(ids)[1000:].mean() < 0.9 * in_order(model)(ids)[1000:].mean()
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, file.weights[name])


def test_unknown_characters_cost_what_it_takes_to_name_them(model):
    vocabulary = Vocabulary("abcde")
    known = score("abcabc", vocabulary, in_order(model))
    assert (known.characters, known.unknown_characters, known.unknown) == (5, 0, "")
    mixed = score("aébcébcß", vocabulary, in_order(model))
    assert (mixed.characters, mixed.unknown_characters, mixed.unknown) == (7, 3, "éß")
    # The known characters cost what they cost without the others in between.
    alone = score("abcbc", vocabulary, in_order(model))
    assert mixed.costs.sum() == pytest.approx(alone.costs.sum() + vocabulary.escape_nats(3, 8))
    assert mixed.nats_per_character > 3 * np.log(1_000_000) / 7
    assert set(mixed.to_json()) >= {"nats_per_character", "bpc", "perplexity", "characters", "unknown_characters"}


def test_a_text_of_nothing_known_is_refused(model):
    with pytest.raises(ChargenError, match="fewer than two characters that the model knows"):
        score("éßa", Vocabulary("abcde"), in_order(model))


@pytest.mark.parametrize(
    ("evaluation", "characters"),
    [
        (in_order, 3000),
        *(pytest.param(*p, marks=LONG) for p in ((in_order, 300), (dynamic, 300), (dynamic, 3000))),
    ],
)
def test_a_document_costs_the_same_whatever_stood_before_it(model, evaluation, characters):
    before, after = drawn(characters), drawn(characters + 77)
    both, starts = np.concatenate([before, after]), np.array([characters])
    costs = evaluation(model)(both, starts)
    if evaluation is in_order:
        np.testing.assert_allclose(costs[characters:], alone(model, after), rtol=1e-4)
        assert abs(in_order(model)(both)[characters:] - costs[characters:]).max() > 1e-3
    np.testing.assert_allclose(costs[: characters - 1], evaluation(model)(before), rtol=1e-4)


def test_unknown_characters_are_read_as_the_unknown_one_and_cost_what_naming_them_does():
    model = CharLM(3, ModelConfig(units=8, embedding=4), random_seed=1)
    vocabulary = Vocabulary("ab\ufffd", "\ufffd")
    result = score("abxa\ufffdb", vocabulary, in_order(model))
    read = in_order(model)(np.array([0, 1, 2, 0, 2, 1], np.uint8))
    escape = vocabulary.escape_nats(2, 6)
    assert result.unknown == "x\ufffd"
    np.testing.assert_allclose(result.costs, [0, read[0], escape / 2, read[2], escape / 2, read[4]], rtol=1e-5)


def test_places_of_documents_are_those_of_the_text_with_its_unknown_characters(model):
    told = []

    def noted(ids, starts=NO_STARTS):
        told.append(starts.tolist())
        return np.zeros(len(ids) - 1, np.float32)

    score("abxxcab", Vocabulary("abc"), noted, np.array([2, 4, 5]))
    assert told == [[2, 2, 3]]


def test_a_last_document_without_a_known_character_is_scored(model):
    result = score("abcabxx", Vocabulary("abc"), in_order(model), np.array([5]))
    assert result.unknown_characters == 2
