import json
import os

import numpy as np
import pytest

from chargen import ChargenError
from chargen.lab import LESSONS, Setting, lesson
from chargen.text import corpus
from tests.conftest import chargen, invoke


@pytest.fixture(scope="module")
def setting():
    read = corpus.read([])
    return Setting(read.vocabulary.decode(read.ids), corpus.voices(), quick=True)


@pytest.mark.long
@pytest.mark.parametrize("name", LESSONS)
def test_the_conclusions_of_a_quick_lesson_hold_on_the_bundled_texts(setting, name):
    found = lesson(name).answer(setting)
    assert [one.text for one in found.conclusions if not one.holds] == []
    assert found.conclusions
    assert found.tables
    assert found.pictures


def test_the_conclusions_are_made_from_the_numbers():
    from chargen.lab.stateful import compare

    ways = ("carried", "reset", "shuffled")
    means = {("carried", 16): [2.0, 2.1], ("reset", 16): [2.2, 2.3], ("shuffled", 16): [2.4, 2.2]}
    assert compare(means, 16, ways) == ("With windows of 16, carrying the state is better: 2.050 bits per character "
                                        "against 2.250.", True)  # fmt: skip
    means["reset", 16] = [2.2, 2.05]
    text, holds = compare(means, 16, ways)
    assert "not always better" in text
    assert not holds


def test_a_correlation_is_that_of_numpy_and_0_for_a_constant():
    from chargen.lab.state import correlate, features

    random = np.random.default_rng(0)
    cells, values = random.normal(size=(50, 3)), random.normal(size=50)
    cells[:, 2] = 1
    expected = [np.corrcoef(cells[:, k], values)[0, 1] for k in range(2)]
    np.testing.assert_allclose(correlate(cells, values), [*expected, 0], atol=1e-12)
    found = features('a "b\nc" d\n\n"e\n\nf')
    assert "".join(map(str, found["a quotation is open"].astype(int))) == "0011110000011100"
    assert found["characters in the line"][:6].tolist() == [1, 2, 3, 4, 0, 1]
    assert found["letters in the word"][:5].tolist() == [1, 0, 0, 1, 0]


def test_the_lessons_are_listed(here):
    done = chargen("lab", cwd=here)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(LESSONS)


@pytest.mark.long
def test_a_lesson_is_shown_on_the_terminal_and_on_a_page_that_is_never_overwritten(here):
    done = invoke("lab", "lengths", "--quick", "--output", "out")
    assert done.exit_code == 0, done.stderr
    assert "padded, with a mask" in done.stdout
    assert "->" in done.stdout
    page = (here / "out" / "index.html").read_text("utf-8")
    assert LESSONS["lengths"] in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "http" not in page
    again = invoke("lab", "lengths", "--quick", "--output", "out")
    assert again.exit_code == 1
    assert "exists and is left as it is" in again.stderr


@pytest.mark.long
def test_a_lesson_that_is_not_as_expected_is_named_and_exits_with_1(here):
    # Two equal texts cannot be distinguished.
    for name in ("one", "two"):
        (here / f"{name}.txt").write_text("the cat sat on a mat and saw what it was\n" * 200, "utf-8")
    texts = ["--texts", "one.txt", "--texts", "two.txt"]
    done = invoke("lab", "author", "--quick", "--json", *texts)
    assert done.exit_code == 1
    assert "not as expected: author" in done.stderr
    (record,) = json.loads(done.stdout)
    assert record["lesson"] == "author"
    assert not all(one["holds"] for one in record["conclusions"])
    assert record["tables"][0]["rows"]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["everything"], "'streams'", 2),
        (["author", "--texts", "book.txt"], "--texts needs two or more texts", 1),
        (["author", "--texts", "book.txt", "--texts", "small.txt"], "3,200 characters or more", 1),
        (["streams", "--text", "small.txt"], "too few", 1),
        (["streams", "--output", "book.txt/here"], "name another folder", 1),
    ],
)
def test_a_lesson_that_is_not_possible_is_refused_in_one_line(here, arguments, message, code):
    (here / "small.txt").write_text("a b", "utf-8")
    done = invoke("lab", "--quick", *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_a_missing_matplotlib_is_reported_before_any_experiment(monkeypatch, tmp_path):
    import sys

    from chargen.commands.lab import check_output

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ChargenError, match="pip install"):
        check_output(tmp_path / "index.html")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
