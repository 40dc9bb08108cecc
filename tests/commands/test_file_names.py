"""Files whose names are not UTF-8."""

import json
import os
import shutil
from pathlib import Path

from tests.conftest import SMALL, invoke


def test_a_name_that_is_not_utf_8_is_written_into_no_artefact(trained, here):
    run = Path(shutil.copytree(trained, Path(os.fsdecode(b"r\xff"))))
    done = invoke("export", "--model", run, "--format", "numpy")
    assert done.exit_code == 1
    assert "is not UTF-8" in done.stderr
    assert not (run / "exports").exists()
    done = invoke("export", "--model", run, "--format", "numpy", "--output", "out")
    assert done.exit_code == 0, done.stderr
    (note,) = Path("out").glob("*.md")
    assert r"A character model of r\udcff:" in note.read_text("utf-8")
    done = invoke("plot", run, "--output", "curves.svg")
    assert done.exit_code == 0, done.stderr


def test_a_text_whose_name_is_not_utf_8_is_trained_on_and_scored(here, fake):
    (here / "book.txt").rename(os.fsdecode(b"b\xff.txt"))
    done = invoke("train", os.fsdecode(b"b\xff.txt"), *SMALL, "--steps", 20)
    assert done.exit_code == 0, done.stderr
    assert r"chargen sample --model 'runs/b\udcff'" in done.stdout
    done = invoke("sample", "--model", os.fsdecode(b"runs/b\xff"), "--json", "--length", 5)
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["text"]) == 5
