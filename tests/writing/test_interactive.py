import numpy as np
import pytest

from chargen import ChargenError
from chargen.config import SampleConfig
from chargen.writing.clone import Clone
from chargen.writing.interactive import Conversation


@pytest.fixture
def conversation(trained):
    return Conversation(Clone.open(trained), SampleConfig(length=30, temperature=0.9), np.random.default_rng(1))


def answer(conversation, line):
    return "".join(said if isinstance(said, str) else said.text for said in conversation.answer(line))


def test_the_model_continues_each_line(conversation):
    assert len(answer(conversation, "the ")) == 30
    assert len(answer(conversation, "")) == 30


def test_undo_takes_back_the_last_turn_and_its_draws(conversation):
    answer(conversation, "the ")
    first = answer(conversation, "cat ")
    assert answer(conversation, "/undo") == "taken back"
    assert answer(conversation, "cat ") == first


def test_a_saved_state_can_be_restored(conversation, tmp_path):
    answer(conversation, "the ")
    answer(conversation, f"/save {tmp_path / 'state'}")
    first = answer(conversation, "cat ")
    answer(conversation, f"/load {tmp_path / 'state'}")
    assert answer(conversation, "cat ") == first


def test_settings_change_and_everything_can_be_forgotten(conversation):
    answer(conversation, "/length 12")
    answer(conversation, "/temperature 0")
    first = answer(conversation, "the ")
    assert len(first) == 12
    answer(conversation, "/restart")
    assert answer(conversation, "the ") == first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nothing", "no command /nothing"),
        ("/temperature hot", "/temperature needs a number"),
        ("/temperature -1", "temperature: expected float >= 0.0"),
        ("/temperature nan", "temperature: expected float >= 0.0"),
        ("/undo", "no turn to take back"),
        ("/save", "name a file"),
        ("/load none", "none can't be read"),
    ],
)
def test_a_command_that_fails_says_why_and_changes_nothing(conversation, line, message):
    before = conversation.config
    with pytest.raises(ChargenError, match=message):
        answer(conversation, line)
    assert conversation.config == before


def test_unknown_characters_are_named_and_two_slashes_are_text(conversation):
    said = [piece for piece in conversation.answer("//the §") if isinstance(piece, str)]
    assert said == ["never seen, left out: / (U+002F), § (U+00A7)"]
