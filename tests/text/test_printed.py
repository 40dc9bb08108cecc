"""Printed lines, as a PDF has them, become paragraphs; no PDF is read here."""

import pytest

from chargen.text.formats.printed import Line, cleaned, paragraphs, without_heads


def page(*lines, indent=20.0, top=700.0, leading=12.0, width=6.0, right=400.0):
    """Lines in letters of one width: "  x" is indented, "|x" ends at the right margin, "x~" is divided, "" is a gap."""
    found, base = [], top
    for text in lines:
        if text:
            written = text.strip(" |~")
            left = indent if text.startswith("  ") else 0.0
            ends = right if text.startswith("|") else left + width * len(written)
            found.append(Line(written, left, ends, base, 10.0, text.endswith("~")))
        base -= leading
    return found


def joined(*pages):
    return "".join(paragraphs(pages))


def test_full_lines_are_joined_and_gaps_and_indents_begin_paragraphs():
    assert joined(page("|one two", "|three", "four", "", "|five", "six")) == "one two three four\n\nfive six\n"
    assert joined(page("|one", "two.", "  three", "|four", "five", "|six")) == "one two.\n\nthree\nfour five\nsix\n"


def test_a_dialogue_of_indented_lines_is_a_paragraph_each():
    lines = ["|He went on", "|and on to her.", "  “Yes.”", "  “No.”", "|and then they", "went."]
    assert joined(page(*lines)).count("\n\n") == 2


def test_lines_that_end_early_end_where_they_did():
    assert joined(page("|a long line of a paragraph", "verse", "verse two", "|another")) == (
        "a long line of a paragraph verse\nverse two\nanother\n"
    )


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["|the gen~", "eral"], "the general"),
        (["|general", "|the gen~", "eral"], "general the general"),
        (["|a lock and keepers", "|the lock~", "keepers"], "a lock and keepers the lock-keepers"),
        (["|well-known", "|a well~", "known one"], "well-known a well-known one"),
        (["|the Anglo~", "Saxons"], "the Anglo-Saxons"),
        (["|in 1914~", "18"], "in 1914-18"),
        (["|漢字の", "文字"], "漢字の文字"),
    ],
)
def test_divided_words_are_whole_again(lines, found):
    assert joined(page(*lines)) == found + "\n"


def test_verse_that_is_indented_stays_in_lines():
    prose = [Line(f"The paragraph goes on in its line {n}, which is long.", 72, 400, 700 - 12 * n) for n in range(5)]
    verse = [
        Line(text, 100, 300, 630 - 12 * n)
        for n, text in enumerate(["The lamp is lit,", "it burns;", "the lock is shut."])
    ]
    assert "".join(paragraphs([[*prose, *verse]])).endswith("\n\nThe lamp is lit,\nit burns;\nthe lock is shut.\n")


def test_running_heads_and_page_numbers_are_left_out_where_they_repeat():
    bodies = [f"{a} {b} and so on" for a, b in zip("abcdefghij", "klmnopqrst", strict=True)]
    pages = [page(f"A HEAD {n}", "", "|" + bodies[n], bodies[n + 5], "", f"- {n} -") for n in range(5)]
    assert [[line.text for line in one] for one in without_heads(pages)] == [
        [bodies[n], bodies[n + 5]] for n in range(5)
    ]


def test_a_title_that_the_heads_repeat_is_kept_once():
    pages = [page("THE BOOK", "", *(["THE BOOK", ""] if n == 0 else []), "|" + "xyz"[n] * 9) for n in range(3)]
    assert [len(one) for one in without_heads(pages)] == [2, 1, 1]
    assert [len(one) for one in without_heads(pages[:2])] == [3, 2]


def test_a_paragraph_goes_on_over_pages_and_columns():
    assert joined(page("|one", "|two"), page("|three", "four.", "  five")) == "one two three four.\n\nfive\n"
    assert joined(page("|one", "two."), page("  three", "|four", "|five")) == "one two.\n\nthree\nfour five\n"
    columns = [*page("|one", "|two"), *(line._replace(left=500.0, right=900.0) for line in page("|three", "four"))]
    assert joined(columns) == "one two three four\n"


def test_headings_in_larger_letters_stand_alone():
    lines = page("|Heading", "|text", "goes on")
    lines[0] = lines[0]._replace(size=14.0)
    assert joined(lines) == "Heading\n\ntext goes on\n"


def test_ligatures_and_characters_that_are_no_text_are_cleaned():
    assert cleaned("o\ufb03ce \x02 the\u00a0\ufb01\u00adrst\ufffe") == "office the first"
