"""`chargen text`: what a training reads, and the report on it."""

import json
import textwrap

import pytest

from chargen.terminal import columns
from tests.commands.test_terminal_faults import in_terminal
from tests.conftest import invoke
from tests.text import making
from tests.text.test_report import PROSE, TEXT


def test_the_text_is_what_a_training_reads(here):
    (here / "a.txt").write_text("One\r\ntwo", "utf-8")
    (here / "b.epub").write_bytes(making.epub(["Three & four."]))
    (here / "c.txt").write_bytes(b"\0\1\2")
    (here / "d.txt").write_text("cafe\u0301\n", "utf-8")
    result = invoke("text", "a.txt", "b.epub", "d.txt")
    assert (result.exit_code, result.stdout) == (0, "One\ntwo\nThree & four.\ncaf\u00e9\n")
    assert "--normalize none keeps them" in result.stderr
    result = invoke("text", "d.txt", "--normalize", "none")
    assert (result.stdout, result.stderr) == ("cafe\u0301\n", "")
    result = invoke("text", "c.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "c.txt is a binary file" in result.stderr


def test_without_files_it_is_the_bundled_book(here):
    assert invoke("text").stdout.startswith("A YARD AND TWO INCHES\n")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "A heading\n\nSome words.\n"),
        (["--keep-markup"], "# A heading\n\nSome *words*.\n"),
        (["--min-count", "2"], "\ufffd heading\n\n\ufffdo\ufffde \ufffdords\ufffd\n"),
    ],
)
def test_its_options_are_those_of_a_training(here, options, text):
    (here / "a.md").write_text("# A heading\n\nSome *words*.\n")
    found = invoke("text", "a.md", *options).stdout
    assert len(found) == len(text)
    if "--min-count" not in options:
        assert found == text
    else:
        assert "\ufffd" in found


def test_a_new_file_appears_whole_and_none_is_overwritten(here):
    (here / "a.txt").write_text(TEXT)
    result = invoke("text", "a.txt", "--output", "b.txt")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (here / "b.txt").read_text() == TEXT
    assert f"b.txt written: {len(TEXT):,} characters" in result.stderr
    result = invoke("text", "book.txt", "--output", "b.txt")
    assert result.exit_code == 1
    assert "b.txt exists and is left as it is" in result.stderr
    assert (here / "b.txt").read_text() == TEXT
    assert "there is no folder" in invoke("text", "a.txt", "--output", "none/b.txt").stderr
    assert sorted(path.name for path in here.iterdir()) == ["a.txt", "b.txt", "book.txt"]


def test_unwrapped_text(here):
    (here / "a.txt").write_text("\n\n".join(PROSE))
    (here / "b.txt").write_text("\n\n".join(textwrap.fill(one, 60, break_on_hyphens=False) for one in PROSE))
    assert invoke("text", "b.txt", "--unwrap").stdout == (here / "a.txt").read_text()


@pytest.fixture
def fast(monkeypatch):
    """A machine on which ten minutes read a text of 200,000 characters some fifty times."""
    monkeypatch.setattr("chargen.training.plan.training_speed", lambda train: 2e11)


@pytest.mark.usefixtures("fast")
def test_the_report_fits_a_terminal_and_is_whole_as_json(here):
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text(TEXT * 9)
    (here / "texts" / "b.txt").touch()
    for n in range(12):
        (here / "texts" / f"c{n}.md").write_text(f"# Heading {n}\n")
    result = invoke("text", "texts", "--report")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("characters ")
    assert "           and 4 more (--json lists all)" in lines
    assert f"not read   {'texts/b.txt'}: empty" in lines
    assert any("lines that repeat earlier ones" in line for line in lines)
    found = json.loads(invoke("text", "texts", "--json").stdout)
    assert found["characters"] == len(TEXT * 9) + 12 * len("Heading ") + 10 + 2 * 2 + 12
    assert found["documents"] == 13
    assert len(found["left_out"]) == 12
    assert found["not_read"] == [{"file": "texts/b.txt", "what": "empty"}]


def test_the_report_on_a_terminal_fits_it(here):
    (here / "a.txt").write_text(TEXT[:5000] + "".join(map(chr, range(0x3400, 0x3480))))
    code, lines = in_terminal("text", "a.txt", "--report", cwd=here)
    assert code == 0
    assert max(map(columns, lines)) <= 80
    assert any(line.startswith("rare ") for line in lines)


@pytest.mark.usefixtures("fast")
def test_too_little_text_for_the_time(here):
    (here / "a.txt").write_text(TEXT[:9000])
    result = invoke("text", "a.txt", "--report")
    assert "trouble    too little text for 10 minutes, in which a training reads it about" in result.stdout
    minutes = result.stdout.partition("--minutes ")[2].split()[0]
    assert "too little" not in invoke("text", "a.txt", "--report", "--minutes", minutes).stdout
    assert "trouble    none found" in invoke("text", "a.txt", "--report", "--minutes", "0.01").stdout


def test_output_and_report_exclude_each_other(here):
    for option in ("--report", "--json"):
        result = invoke("text", "book.txt", "--output", "b.txt", option)
        assert result.exit_code == 2
        assert "--output is for the text" in result.stderr


def test_a_text_is_read_from_standard_input_and_kept_in_the_cache(here):
    result = invoke("text", "-", "--cache", "cache", stdin="Some words.\n")
    assert result.stdout == "Some words.\n"
    assert len(list((here / "cache").glob("*/ids.npy"))) == 1
