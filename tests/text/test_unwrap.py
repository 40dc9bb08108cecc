"""Hard-wrapped paragraphs become lines; what is no paragraph stays."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.config import TrainConfig
from chargen.text import unwrap
from chargen.text.corpus import read
from chargen.text.unwrap import unwrapped, wrapped_lines
from tests.text.test_formats import BOOK, paragraphs

WORDS = st.lists(st.sampled_from(["a", "the", "lamp", "yesterday", "remembering", "of", "salt,", "Ruth", "river."]))
PROSE = (
    "It was a cold morning and nobody had thought to bring the lamp, so that they walked the whole way to the lock in "
    "the dark, and talked about the barge. None of them had seen it since the winter before, when it was painted green."
)
VERSE = "The lock is shut, the lamp is lit,\nThe barge is by the weir;\nand we who wait, we wait for it\nanother year."
LIST = "- a lamp that was mended\n- two ropes, which somebody had left lying in the rain\n- nails"
NUMBERED = "1. Bring the lamp and the two ropes to the barge before the morning.\n2. Go.\n3. Return by the weir."
TABLE = "lamp    3   brass, which was bought at the fair\nrope    2   hemp\nnail    144 iron, for the gate of the lock"
INDENTED = "    for lamp in lamps:\n        light the lamp that stands in the window of the house\n    go home"


def wrapped(text, width=60):
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def joined(*parts):
    return "".join(unwrapped(["\n\n".join([*parts, *map(wrapped, [PROSE] * 3), ""])])).split("\n\n")[: len(parts)]


@pytest.mark.parametrize("width", [40, 60, 72, 100])
def test_wrapped_paragraphs_become_lines_again(width):
    text = "\n\n".join(wrapped(one, width) for one in paragraphs())
    assert "".join(unwrapped([text])).split("\n\n") == paragraphs()


@pytest.mark.parametrize("kept", [VERSE, LIST, NUMBERED, TABLE, INDENTED, "CHAPTER ONE\nThe Barrel", "-----\n* * *"])
def test_what_is_no_paragraph_stays_as_it_is(kept):
    assert joined(kept) == [kept]


@pytest.mark.parametrize("text", ["", "\n", "One line", "a\n\n\nb\n", "\n\n a\n", VERSE, PROSE + "\n" + PROSE])
def test_a_text_that_is_not_wrapped_stays_as_it_is(text):
    assert "".join(unwrapped([text])) == text


def test_paragraphs_without_blank_lines_between_them_stay_apart():
    speeches = [f'"{PROSE[n:]}"' for n in (0, 7, 20)] + ["No.", PROSE]
    indented = "\n".join("   " + wrapped(one) for one in speeches)
    assert "".join(unwrapped([indented])).split("\n") == ["   " + one for one in speeches]


def test_a_hyphen_goes_only_where_the_word_is_known_without_it():
    def line(end, start):
        return f"{PROSE[: 60 - len(end)].rpartition(' ')[0]} {end}\n{start} {PROSE[:40].lower()}"

    assert "remember-ing it was" in joined(line("remember-", "ing"))[0]
    assert "remembering it was" in joined(line("remember-", "ing") + "\n\nHe is remembering it.")[0]
    assert "well-known it was" in joined(line("well-", "known"))[0]
    assert "two- and three-sided it was" in joined(line("two-", "and three-sided"))[0]
    assert "so--he it was" in joined(line("so--", "he"))[0]
    assert "wonder it was" in joined(line("won\u00ad", "der"))[0]


def test_chinese_is_joined_without_spaces():
    sentence = "船在早晨到達水閘繩索上結着冰甲板上放着一隻沒有人想到要綁好的木桶。" * 6
    lines = "\n".join(sentence[n : n + 37] for n in range(0, len(sentence), 37))
    assert "".join(unwrapped([f"{lines}\n\n{lines}\n"])) == f"{sentence}\n\n{sentence}\n"


@given(st.lists(WORDS, max_size=12), st.integers(30, 80), st.integers(1, 50))
def test_no_word_is_lost_and_the_parts_do_not_matter(made, width, size):
    text = "\n\n".join(wrapped(" ".join(words), width) for words in made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unwrap, "WINDOW", 400)
        found = "".join(unwrapped([text]))
        assert found.split() == text.split()
        assert "".join(unwrapped(text[n : n + size] for n in range(0, len(text), size))) == found


def test_windows_end_between_paragraphs(monkeypatch):
    text = "\n\n".join(wrapped(one) for one in paragraphs()[:60])
    monkeypatch.setattr(unwrap, "WINDOW", 3000)
    assert "".join(unwrapped([text])).split("\n\n") == paragraphs()[:60]


def test_the_lines_that_were_wrapped_are_counted():
    wrapped, followed = wrapped_lines(BOOK.read_text("utf-8"))
    assert 0.9 * followed < wrapped < followed
    assert wrapped_lines("\n\n".join([VERSE] * 20)) == (0, 60)
    assert wrapped_lines("\n\n".join(paragraphs())) == (0, 0)


def test_a_training_reads_the_text_unwrapped(tmp_path):
    text = "\n\n".join(map(wrapped, [PROSE] * 4)) + "\n"
    for name in ("a.txt", "a.md", "a.html"):
        (tmp_path / name).write_text(text if name != "a.html" else f"<html><pre>{text}</pre>")
        plain, joined = (read([str(tmp_path / name)], TrainConfig(unwrap=unwrap)) for unwrap in (False, True))
        assert plain.vocabulary.decode(plain.ids).strip() == text.strip()
        kept = text if name == "a.html" else (PROSE + "\n\n") * 4  # what another program has laid out is kept
        assert joined.vocabulary.decode(joined.ids).strip() == kept.strip()


def test_the_cache_keeps_a_text_and_the_text_unwrapped_apart(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(map(wrapped, [PROSE] * 4)))
    lengths = [
        len(read([str(tmp_path / "a.txt")], TrainConfig(unwrap=u), cache=tmp_path / "c").starts) for u in (False, True)
    ]
    assert lengths == [1, 1]
    assert len(list((tmp_path / "c").glob("*/ids.npy"))) == 2
