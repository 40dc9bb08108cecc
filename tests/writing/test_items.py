"""Whole items: each from a document's beginning to the end that the model writes."""

import json

import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import ModelConfig, TrainConfig
from chargen.store.modelfile import ModelFile
from chargen.text.corpus import read
from chargen.text.vocabulary import END, Vocabulary
from chargen.writing.alternatives import alternatives
from chargen.writing.best import Choice, best_of
from chargen.writing.clone import Clone
from chargen.writing.generate import WHOLE, Until, generate, opening
from chargen.writing.items import Seen, Wanted, items
from chargen.writing.sampler import generators
from tests.conftest import invoke

LETTERS = Vocabulary("\nab\uffff", None, END)


@pytest.fixture(scope="module")
def model():
    """A model with random weights, which ends an item at about every fourth character."""
    random, config = np.random.default_rng(3), ModelConfig(layers=2, units=5, embedding=3)
    from chargen.store.modelfile import weight_shapes

    shapes = weight_shapes(len(LETTERS), config)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return ModelFile(weights, LETTERS, config, {"validation_bpc": 2.0}, {})


@pytest.fixture
def clone(model):
    clone = Clone(model.weights, LETTERS)
    clone.feed(opening(LETTERS))
    return clone


def drawing(count, first):
    return generators(7, count, first)


def texts(pieces):
    return [piece.text for piece in pieces]


def test_the_state_restarts_where_the_end_is_read_at_once_in_steps_and_in_rows(model):
    ids = LETTERS.encode("ab\uffffba\uffffa")
    once, fresh, steps = (Clone(model.weights, LETTERS) for _ in range(3))
    after = once.read(ids)
    np.testing.assert_array_equal(after[2:6], fresh.read(ids[2:6]))
    np.testing.assert_allclose([steps.step(ids[n : n + 1])[0].copy() for n in range(len(ids))], after, atol=1e-5)
    rows = Clone(model.weights, LETTERS).repeat(2)
    rows.step(np.array([1, 2]))
    rows.step(np.array([3, 1]))
    np.testing.assert_allclose(rows.logits[0], after[2], atol=1e-5)
    assert not np.allclose(rows.logits[1], after[2], atol=1e-2)


def test_a_sample_ends_where_the_model_writes_the_end_which_is_not_shown(clone):
    pieces = list(generate(clone.repeat(20), Until(1000), [], drawing(20, 0)))
    last = [piece for piece in pieces if piece.stopped_by is not None]
    assert [piece.stopped_by for piece in last] == [WHOLE] * 20
    assert not any(END in piece.text for piece in pieces)
    assert len({piece.sample for piece in last}) == 20


def test_a_stop_text_that_was_held_back_is_shown_when_the_end_comes(clone):
    plain, held = (
        [
            "".join(p.text for p in generate(clone.repeat(20), Until(99, stops), [], drawing(20, 0)) if p.sample == k)
            for k in range(20)
        ]
        for stops in ((), ("ab" * 50,))
    )
    assert plain == held
    assert any(text.endswith("a") for text in plain)


def test_best_of_and_alternatives_end_there_too(clone):
    pieces = list(best_of(clone.repeat(1), Until(500), [], (np.random.default_rng(1), Choice(3, 2.0))))
    assert pieces[-1].stopped_by == WHOLE
    assert END not in "".join(texts(pieces))
    for until in ("word", "sentence", 5):
        found = alternatives(clone, 4, until, [], None)
        assert found
        assert not any(END in one.text for one in found)


def test_the_items_are_whole_and_do_not_depend_on_how_many_are_drawn(clone):
    many = texts(items(clone, Wanted(30), Until(4), [], drawing))
    assert len(many) == 30
    assert texts(items(clone, Wanted(7), Until(4), [], drawing)) == many[:7]
    single = [list(generate(clone.repeat(1), Until(4), [], drawing(1, k))) for k in range(90)]
    whole = ["".join(texts(pieces)) for pieces in single if pieces[-1].stopped_by == WHOLE]
    assert 30 <= len(whole) < 90
    whole = [text for text in whole if text.strip()]
    assert many == whole[:30]


def test_new_items_are_not_in_the_text_and_come_once(clone, tmp_path):
    usual = texts(items(clone, Wanted(200), Until(50), [], drawing))
    (tmp_path / "text").write_text("\n".join(sorted({text for text in usual if text.strip()})[::2]))
    seen = Seen(corpus := read([str(tmp_path / "text")], TrainConfig(document="line")))
    known = set(corpus.vocabulary.decode(corpus.ids).split(END))
    expected = [text for text in dict.fromkeys(text.rstrip() for text in usual) if text not in known]
    assert len(expected) >= 5
    new = texts(items(clone, Wanted(len(expected), "", seen), Until(50), [], drawing))
    assert [text.rstrip() for text in new] == expected


def test_a_seed_is_part_of_the_item(tmp_path):
    (tmp_path / "text").write_text("abba\nb")
    seen = Seen(read([str(tmp_path / "text")], TrainConfig(document="line")))
    assert [seen.add(text) for text in ("abba", "b", "ba", "ba", "abb")] == [False, False, True, False, True]


def test_a_model_that_writes_no_new_items_is_given_up(clone):
    with pytest.raises(ChargenError, match=r"only 1 of 1,000 items drawn are whole and new.*--temperature"):
        list(items(clone, Wanted(2, "", _one(clone)), Until(50), [], None))


def _one(clone):
    """Return what has seen nothing."""
    seen = Seen.__new__(Seen)
    seen._hashes, seen._added = np.zeros(0, np.int64), set()
    return seen


def test_a_model_file_keeps_the_end_and_one_without_is_as_before(model, tmp_path):
    model.write(tmp_path / "model")
    assert ModelFile.read(tmp_path / "model").vocabulary == LETTERS
    plain = ModelFile(model.weights, Vocabulary("\nab\uffff"), model.config, {}, {})
    plain.write(tmp_path / "plain")
    assert b'"end"' not in (tmp_path / "plain").read_bytes()
    assert Clone(plain.weights, plain.vocabulary).fingerprint != Clone(model.weights, LETTERS).fingerprint


def test_the_command_writes_items_apart_and_as_json(model, tmp_path):
    model.write(tmp_path / "model")
    given = ["--model", tmp_path / "model", "--random-seed", 1, "--temperature", 1]
    result = invoke("sample", *given, "--items", 5, "--seed", "ab")
    assert result.exit_code == 0
    written = [
        json.loads(line)
        for line in invoke("sample", *given, "--items", 5, "--seed", "ab", "--json").output.splitlines()
    ]
    assert [one["stopped_by"] for one in written] == ["end"] * 5
    assert result.output == "".join(f"ab{one['text']}\n\n" for one in written)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--items", "3", "--count", "2"], "--items does not go with --count"),
        (["--items", "3", "--stop", "x"], "--items does not go with --stop"),
        (["--new"], "--new is for --items"),
        (["--items", "0"], "0"),
    ],
)
def test_what_does_not_go_with_items_is_refused(model, tmp_path, options, message):
    model.write(tmp_path / "model")
    result = invoke("sample", "--model", tmp_path / "model", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_that_has_not_learnt_an_end_is_refused(model, tmp_path):
    ModelFile(model.weights, Vocabulary("\nabc"), model.config, {}, {}).write(tmp_path / "model")
    result = invoke("sample", "--model", tmp_path / "model", "--items", 3)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has not learnt where an item ends" in result.stderr
