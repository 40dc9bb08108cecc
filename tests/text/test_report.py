"""The report: counts, what was left out, and each sign of trouble on a small text, without false alarms."""

import textwrap
import tracemalloc
from pathlib import Path

import pytest

from chargen.config import TrainConfig
from chargen.text.report import examine
from chargen.text.survey import MOST_LINES, Lines
from tests.text import making
from tests.text.test_formats import BOOK, archive, paragraphs
from tests.text.test_text_faults import HEADER, LICENCE

PROSE = paragraphs()[4:60]
TEXT = "\n\n".join(PROSE) + "\n"
GERMAN = (
    "Der alte Mann ging mit dem Hund auf die Straße und sah nicht, dass es schon dunkel war. Er hatte auch das Brot "
    "vergessen, und so musste er noch einmal in das Haus, um es zu holen, bevor die anderen kamen.\n\n"
)
GERMAN = "".join(f"{n}. {GERMAN}" for n in range(40))


def report(tmp_path, text, encoding="utf-8", **settings):
    (tmp_path / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return examine([str(tmp_path / "a.txt")], TrainConfig(**settings))


def trouble(tmp_path, text, encoding="utf-8", **settings):
    return [f"{what}: {mend}" for what, mend in report(tmp_path, text, encoding, **settings).trouble]


def test_characters_words_and_documents_are_counted(tmp_path):
    for name, text in (("a.txt", "Two words.\n"), ("b.txt", "é and\tthree\n\nmore\n" * 5)):
        (tmp_path / name).write_text(text, "utf-8")
    found = examine([str(tmp_path)], TrainConfig())
    assert (found.survey.characters, found.survey.words, found.documents) == (11 + 18 * 5, 2 + 4 * 5, 2)
    assert found.rare == [(".", 1), ("T", 1), ("s", 1), ("w", 2)]
    assert found.to_json()["rare"] == dict(found.rare)
    assert found.to_json()["distinct"] == len({*"Two words.\né and\tthree\n\nmore\n"})


@pytest.mark.long
def test_a_long_text_is_counted_whole_in_little_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        for n in range(60_000):
            file.write(f"{n} is the number of this line, which nobody has written before it.\n")
    examine([str(path)], TrainConfig())
    tracemalloc.start()
    found = examine([str(path)], TrainConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.survey.characters, found.survey.words) == (path.stat().st_size, 60_000 * 13)
    assert peak < 20_000_000


def test_what_was_left_out_and_not_read_is_told_with_its_place(tmp_path):
    (tmp_path / "pg.txt").write_text(HEADER + TEXT + LICENCE)
    (tmp_path / "notes.md").write_text("# A heading\n\nSome *words*.\n")
    (tmp_path / "book.epub").write_bytes(making.epub(["A paragraph of the book."]))
    deleted = "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    (tmp_path / "letter.docx").write_bytes(making.docx(["Kept."], deleted))
    (tmp_path / "old.rtf").write_bytes(making.rtf(["Kept."], "{\\header Page head}{\\annotation hm}{\\v secret}"))
    (tmp_path / "page.html").write_bytes(making.html(["Kept."]))
    (tmp_path / "bad.docx").write_bytes(making.docx(["Kept."])[:-30])
    (tmp_path / "empty.txt").touch()
    found = examine([str(tmp_path)], TrainConfig())
    assert {(Path(one.file).name, one.what, one.characters) for one in found.left_out} == {
        ("pg.txt", "Project Gutenberg's header and licence", len(HEADER + LICENCE)),
        ("notes.md", "marks of Markdown", 4),
        ("book.epub", "contents, covers and navigation", len("CoverPart 0")),
        ("letter.docx", "comments, deleted and hidden text", len("gone")),
        ("old.rtf", "running heads, footers and page numbers", len("Page head")),
        ("old.rtf", "comments, deleted and hidden text", len("hmsecret")),
        ("page.html", "contents, covers and navigation", len("Home")),
    }
    assert [(Path(file).name, what) for file, what in found.not_read] == [
        ("bad.docx", "a damaged Word file"),
        ("empty.txt", "empty"),
    ]
    assert found.documents == 6


def test_the_heads_of_a_pdf_are_counted(tmp_path):
    pytest.importorskip("pypdfium2")
    (tmp_path / "a.pdf").write_bytes(making.printed(PROSE))
    (one,) = examine([str(tmp_path / "a.pdf")], TrainConfig()).left_out
    pages = -(-one.characters // len("A YARD AND TWO INCHES1"))
    assert one.what == "running heads, footers and page numbers"
    assert one.characters == pages * len("A YARD AND TWO INCHES") + sum(len(str(n)) for n in range(1, pages + 1))


@pytest.mark.parametrize(("right", "wrong"), [("utf-8", "cp1252"), ("utf-8", "latin-1"), ("utf-8", "mac_roman")])
def test_debris_of_a_wrong_encoding(tmp_path, right, wrong):
    text = TEXT + "It’s a café “near” the müde Bäume — “et très loin”, he’d said, and she’d smiled.\n" * 9
    (found,) = trouble(tmp_path, text.encode(right).decode(wrong, "ignore"))
    assert found.startswith("the debris of a wrong encoding")
    assert "ftfy" in found


def test_debris_of_the_encoding_that_was_given(tmp_path):
    found = trouble(tmp_path, TEXT + "It’s a café, he’d say.\n" * 9, encoding="utf-8")
    assert found == []
    (tmp_path / "a.txt").write_text(TEXT + "It’s a café, he’d say.\n" * 9, "utf-8")
    (one,) = examine([str(tmp_path / "a.txt")], TrainConfig(encoding="cp1252")).trouble
    assert one.mend == "leave out --encoding cp1252"
    (tmp_path / "a.txt").write_text(TEXT + "It’s a café, he’d say.\n" * 9, "cp1252")
    (one,) = examine([str(tmp_path / "a.txt")], TrainConfig(encoding="iso8859-1")).trouble
    assert one.mend == "--encoding cp1252"


@pytest.mark.parametrize(
    "text",
    [
        "« À l’été, É… ! » disait-elle, « ÉTÉ » ; la forêt, où l’âne brait, est là. " * 40,
        "NÃO, disse a MANHÔ; não é São João, irmã? “MANHÔ! " * 40,
        "√2 is a root, and ‚so‘ is quoted; Γ is a capital. " * 40,
        "Þá sagði hann: „Það er ekki satt“ – “ÁÐUR”. Íslensk «orð» á íslensku. " * 40,
        "Мороз и солнце; день чудесный! «Ещё ты дремлешь…» " * 40,
    ],
)
def test_what_is_no_debris(tmp_path, text):
    assert not [one for one in trouble(tmp_path, text) if "debris" in one]


def test_lost_characters(tmp_path):
    assert trouble(tmp_path, TEXT + "a caf\ufffd " * 5) == [
        "5 characters were lost (\ufffd) when the text was saved: find a better copy"
    ]


def test_several_encodings(tmp_path):
    for n in range(3):
        said = f"“It’s the {n}th café — naïve,” he didn’t say. “It’s the {n}st café — naïve,” she’d say.\n"
        (tmp_path / f"{n}.txt").write_bytes(f"{PROSE[n]}\n{said}".encode("cp1252"))
    assert examine([str(tmp_path)], TrainConfig()).trouble == []
    (tmp_path / "9.txt").write_text("\n\n".join(PROSE[9:]))
    (one,) = examine([str(tmp_path)], TrainConfig()).trouble
    assert one.what == "several encodings: not UTF-8, and read by a guess, 3 as cp1252"


def test_hard_wrapped_lines(tmp_path):
    wrapped = "\n\n".join(textwrap.fill(one, 70) for one in PROSE)
    assert trouble(tmp_path, wrapped) == [
        "the text is hard-wrapped, and a model learns where the lines end: --unwrap joins them"
    ]
    assert trouble(tmp_path, wrapped, unwrap=True) == []
    (tmp_path / "b.txt").write_text(TEXT)
    (one,) = examine([str(tmp_path)], TrainConfig()).trouble
    assert one.what.startswith(f"1 of 2 documents, as {tmp_path / 'a.txt'}, are hard-wrapped")


def test_a_second_language(tmp_path):
    (one,) = trouble(tmp_path, TEXT + GERMAN)
    assert "is German, most is English: give texts in one language" in one
    assert trouble(tmp_path, TEXT + GERMAN[:1500]) == []


def test_a_repeated_line(tmp_path):
    pages = "\n".join(f"{one}\nTHE STORY OF A YARD, BY R. OTTAWAY\n" for one in PROSE)
    (one,) = trouble(tmp_path, pages)
    assert 'lines that repeat earlier ones, as "THE STORY OF A YARD, BY R. OTTAWAY", 56 times' in one
    (one,) = trouble(tmp_path, TEXT * 2)
    assert one.startswith("50.0% of the text are lines that repeat earlier ones")
    assert trouble(tmp_path, "\n".join(f"First Citizen:\n{one}\n-----------------------------" for one in PROSE)) == []


def test_capitals(tmp_path):
    (one,) = trouble(tmp_path, TEXT.upper())
    assert one.startswith("100% of the letters are capitals")


def test_rare_characters(tmp_path):
    (one,) = trouble(tmp_path, TEXT + "".join(map(chr, range(0x4E00, 0x4E40))))
    assert one.endswith("distinct characters occur fewer than 5 times: --min-count 5 makes them one unknown character")


def test_the_lines_that_are_remembered_are_bounded_and_a_frequent_one_is_among_them():
    lines = Lines()
    for n in range(3 * MOST_LINES):
        lines.add(f"line {n // 2} of many")
    assert len(lines._counts) <= MOST_LINES
    share, most, _, times = lines.repeated()
    assert abs(share - 0.5) < 0.02
    assert times == 2
    assert most < 0.001


@pytest.mark.parametrize("name", ["book", "letters", "log", "manual"])
def test_the_bundled_texts_are_hard_wrapped_and_nothing_else(name):
    found = examine([str(BOOK.parent / f"{name}.txt")], TrainConfig()).trouble
    assert [one.mend for one in found] == ["--unwrap joins them"]


def test_an_archive_is_examined_file_by_file(tmp_path):
    path = archive(tmp_path, "a.zip", {"a.txt": TEXT.encode(), "b.bin": b"\0\1"})
    found = examine([str(path)], TrainConfig())
    assert found.documents == 1
    assert found.not_read == [(f"{path}/b.bin", "binary")]
