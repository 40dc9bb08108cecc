"""A list of items from the training to the evaluation."""

import json

import numpy as np
import pytest

from chargen.bits import bits
from chargen.commands.eval import Read, inner_starts, items_of
from chargen.text.vocabulary import END, Vocabulary
from chargen.training.evaluate import score_each
from tests.conftest import SMALL, chargen, contents, invoke

NAMES = [a + b for a in ("Ann", "Bert", "Cor", "Dor", "El") for b in ("a", "ina", "ie", "elle", "o", "us", "ian", "y")]


def test_the_bits_of_an_item_are_those_of_its_characters_and_its_end():
    texts = ("\uffffab\uffffa\uffff", "\uffffbxb\uffff")  # x is unknown
    seen = []

    def evaluate(ids, starts=()):
        seen.append((ids.tolist(), starts.tolist()))
        return np.arange(1, len(ids), dtype=np.float32)

    read = Read("two", texts, ("1", "2"), tuple(map(inner_starts, texts)))
    scores = read.score(Vocabulary("ab\uffff", None, END), evaluate)
    assert seen == [([2, 0, 1, 2, 0, 2, 2, 1, 1, 2], [3, 6])]
    escape = scores[1].unknown_nats
    found = items_of(read, scores)
    assert [one["item"] for one in found] == ["ab", "a", "bxb"]
    assert [one["characters"] for one in found] == [2, 1, 3]
    assert [one["bits"] for one in found] == pytest.approx([bits(n) for n in (1 + 2 + 3, 4 + 5, 7 + escape + 8 + 9)])


def test_texts_without_items_are_scored_as_before():
    def evaluate(ids, starts=()):
        assert starts.tolist() == [3]
        return np.ones(len(ids) - 1, np.float32)

    assert [score.costs.tolist() for score in score_each(["aba", "bb"], Vocabulary("ab"), evaluate)] == [
        [0, 1, 1],
        [0, 1],
    ]


def test_options_that_contradict_each_other_are_refused(here):
    for options in (
        ["--document", "line", "--join"],
        ["--document", "line", "--column", "x"],
        ["--column", "x", "--join"],
    ):
        result = invoke("train", "book.txt", *options)
        assert result.exit_code == 2
        assert "exclude each other" in result.stderr


@pytest.mark.long
def test_a_list_is_learnt_the_same_each_time_and_its_items_are_written_and_scored(tmp_path):
    (tmp_path / "names.csv").write_text("name,n\n" + "".join(f"{name},1\n" for name in NAMES))
    (tmp_path / "more.txt").write_text("Annina\nElo")
    train = ["train", "names.csv", "--column", "name", *SMALL, "--learning-rate", "0.02", "--from", "scratch"]
    for run, steps in (("whole", "60"), ("again", "60")):
        done = chargen(*train, "--steps", steps, "--run", run, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "--items 20" in done.stdout
    first, second = (contents(tmp_path / run)["model.safetensors"] for run in ("whole", "again"))
    assert first == second
    done = chargen("sample", "--model", "whole", "--items", "8", "--new", "--temperature", "1.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = done.stdout.splitlines()
    assert len({*written} - {*NAMES}) == len(written) == 8
    done = chargen("eval", "--model", "whole", "--items", "--json", cwd=tmp_path)
    figures = json.loads(done.stdout)
    listed = figures["items"]
    assert [one["item"] for one in listed] == NAMES[-len(listed) :]
    assert sum(one["bits"] for one in listed) == pytest.approx(figures["bpc"] * figures["characters"], rel=1e-4)
    assert figures["characters"] == sum(one["characters"] + 1 for one in listed)
    done = chargen("eval", "more.txt", "--model", "whole", "--items", cwd=tmp_path)
    assert "has no column name" in done.stderr
