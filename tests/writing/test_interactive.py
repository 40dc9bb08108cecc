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
    answer(conversation, f"/save-state {tmp_path / 'state'}")
    first = answer(conversation, "cat ")
    answer(conversation, f"/load-state {tmp_path / 'state'}")
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
        ("/undo", "no step to take back"),
        ("/save", "name a file"),
        ("/save-state", "name a file"),
        ("/words many", "/words needs a number"),
        ("/words 0", "a number from 1 to 50"),
        ("/load-state none", "none can't be read"),
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


def offered(conversation, line):
    """What is said to a line, and the alternatives by their numbers."""
    said = [one if isinstance(one, str) else one.text for one in conversation.answer(line)]
    lines = {int(s[:3]): s[5:].rpartition("  (")[0] for s in said if s[:3].strip().isdigit()}
    return [s for s in said if not s[:3].strip().isdigit()], lines


def test_a_number_takes_an_alternative_and_other_text_goes_in_between(conversation):
    answer(conversation, "/temperature 0")
    answer(conversation, "the c")
    written = conversation.text
    _, first = offered(conversation, "/words 3")
    assert list(first) == [1, 2, 3]
    said, second = offered(conversation, "2")
    assert conversation.text == written + first[2].replace(r"\n", "\n")
    assert said == [conversation.text.split("\n")[-1]]
    offered(conversation, " saw ")
    assert conversation.text == written + first[2].replace(r"\n", "\n") + " saw "
    answer(conversation, "/undo")
    answer(conversation, "/undo")
    assert conversation.text == written
    assert offered(conversation, "/words 3")[1] == first
    assert offered(conversation, "2")[1] == second


def test_an_empty_line_goes_on_and_turns_end_the_offer(conversation):
    answer(conversation, "the ")
    answer(conversation, "/words")
    before = len(conversation.text)
    offered(conversation, "")
    assert len(conversation.text) == before + 30
    answer(conversation, "/turns")
    answer(conversation, "1")  # "1" is text again, which this model has never seen
    assert len(conversation.text) == before + 60


def test_a_number_that_is_not_offered_is_refused(conversation):
    answer(conversation, "/sentences 2")
    before = conversation.text
    with pytest.raises(ChargenError, match="there are 2 alternatives"):
        answer(conversation, "3")
    assert conversation.text == before


def test_the_text_is_saved_in_a_new_file(conversation, tmp_path):
    answer(conversation, "the ")
    answer(conversation, f"/save {tmp_path / 'text'}")
    assert (tmp_path / "text").read_text("utf-8") == conversation.text
    assert conversation.text.startswith("the ")
    with pytest.raises(ChargenError, match="exists and is left as it is"):
        answer(conversation, f"/save {tmp_path / 'text'}")
