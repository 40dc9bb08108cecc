import json
import re
from pathlib import Path

import numpy as np
import pytest

from chargen.store.run import Run
from tests.conftest import chargen, invoke


def figures_of(*arguments):
    done = invoke("eval", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_without_files_it_scores_the_validation_text_as_training_did(trained, here):
    done = chargen("eval", "--model", str(trained), "--json", cwd=here)  # as a process of its own, once
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    best = min(record["validation_bpc"] for record in Run(trained).metrics())
    assert figures["bpc"] == pytest.approx(best, abs=0.005)  # training may have computed in bfloat16
    assert figures["unknown_characters"] == 0
    assert figures["protocol"] == "stream"
    assert set(figures) == {
        "nats_per_character", "bpc", "perplexity", "characters", "unknown_characters", "protocol",
    }  # fmt: skip
    assert figures_of("--model", str(trained), "--split", "training")["characters"] > 8 * figures["characters"]


@pytest.mark.long
def test_a_file_is_scored_by_every_method(trained, here):
    text = "the cat sat on a mat and saw what it was " * 20 + "\né!"
    (here / "new.txt").write_text(text, "utf-8")
    figures = figures_of("new.txt", "--model", str(trained), "--dynamic", "--baseline", "xz")
    assert figures["characters"] == len(text) - 1
    assert figures["unknown_characters"] == 2
    assert figures["dynamic"]["bpc"] < figures["bpc"]
    assert figures["baseline"]["compressor"] == "xz"
    assert 0 < figures["baseline"]["bpc"] < 8
    zero = figures_of("new.txt", "--model", str(trained), "--protocol", "nanogpt")
    assert zero["protocol"] == "nanogpt"
    assert zero["nats_per_character"] != figures["nats_per_character"]


def test_the_table_names_unknown_characters_and_the_text_is_shown_whole(trained, here):
    (here / "new.txt").write_text("the cat sät on a mat", "utf-8")
    done = invoke("eval", "new.txt", "--model", trained, "--surprisal", "--html", "new.html", color=True)
    assert done.exit_code == 0, done.stderr
    assert "new.txt: 19 characters predicted" in done.stdout
    assert "(1 x " in done.stdout
    assert "ä (U+00E4)" in done.stdout
    assert "\x1b[38;5;16;48;5;197mä\x1b[0m" in done.stdout
    assert re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()[-1] == "the cat sät on a mat"
    assert "on a mat" in re.sub("<[^>]*>", "", (here / "new.html").read_text("utf-8"))
    again = invoke("eval", "new.txt", "--model", trained, "--html", "new.html")
    assert again.exit_code == 1
    assert "exists and is left as it is" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["book.txt", "--split", "validation"], "--split", 2),
        (["--surprisal", "--json"], "--surprisal", 2),
        (["--baseline", "xz", "--split", "training"], "--baseline", 2),
        (["empty.txt"], "empty.txt is empty", 1),
        (["unknown.txt"], "unknown.txt has fewer than two characters that the model knows", 1),
        (["book.txt", "--html", "none/page.html"], "there is no folder", 1),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(trained, here, arguments, message, code):
    (here / "empty.txt").touch()
    (here / "unknown.txt").write_text("漢字", "utf-8")
    done = invoke("eval", *arguments, "--model", trained)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_a_model_file_scores_files_but_has_no_text_of_its_own(trained, here):
    (here / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    assert figures_of("book.txt", "--model", "model.safetensors")["characters"] > 6000
    done = invoke("eval", "--model", "model.safetensors")
    assert done.exit_code == 1
    assert re.fullmatch("Error: .*is not a run.*\n", done.stderr)


FIGURES = ("nats_per_character", "bpc", "perplexity", "characters", "unknown_characters")


@pytest.fixture
def counted(monkeypatch):
    """Protocols for which each character costs as many nats as it is characters away from its document's start."""

    def protocol(model):
        def evaluate(ids, starts=()):
            return np.array([n - max(start for start in (0, *starts) if start < n) for n in range(1, len(ids))])

        return evaluate

    monkeypatch.setattr("chargen.training.evaluate.PROTOCOLS", {"stream": protocol, "nanogpt": protocol})
    monkeypatch.setattr("chargen.training.evaluate.dynamic", protocol)


def check_each_file(trained, texts, *arguments):
    """Check that each file is scored as if it were alone, and that the figure of all is the mean over characters."""
    for name, text in texts.items():
        Path(name).write_text(text, "utf-8")
    alone = [figures_of(name, "--model", trained, *arguments) for name in texts]
    figures = figures_of(*texts, "--model", trained, *arguments)
    assert [file["file"] for file in figures["files"]] == [*texts]
    for name, own, file in zip(texts, alone, figures["files"], strict=True):
        assert [file[key] for key in FIGURES] == pytest.approx([own[key] for key in FIGURES], rel=1e-4)
        assert file["characters"] == len(texts[name]) - 1  # all but the first: no line's end is added
    assert figures["characters"] == sum(own["characters"] for own in alone)
    assert figures["unknown_characters"] == sum(own["unknown_characters"] for own in alone)
    nats = sum(own["nats_per_character"] * own["characters"] for own in alone)
    assert figures["nats_per_character"] == pytest.approx(nats / figures["characters"], rel=1e-4)


def test_each_file_is_scored_as_if_it_were_alone_and_all_as_their_mean(trained, here, counted):
    check_each_file(trained, {"a.txt": "the cat", "b.txt": "thé", "c.txt": "it\n", "d.txt": "ßß on"})
    assert figures_of("a.txt", "--model", trained)["nats_per_character"] == 3.5  # of 1 to 6
    figures = figures_of("a.txt", "c.txt", "--model", trained, "--dynamic")
    assert figures["nats_per_character"] == figures["dynamic"]["nats_per_character"] == (21 + 3) / 8
    assert [file["dynamic"]["nats_per_character"] for file in figures["files"]] == [3.5, 1.5]


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["stream", "nanogpt"])
def test_each_file_is_scored_by_a_model_as_if_it_were_alone(trained, here, text, protocol):
    texts = {"a.txt": text[:700], "b.txt": "the old hé", "c.txt": text[900:1300] + "\nß"}
    check_each_file(trained, texts, "--protocol", protocol)


def test_several_files_are_shown_each_in_a_line_with_all_that_was_asked_for(trained, here, counted):
    (here / "texts").mkdir()
    for name in ("a", "b", "c", "d"):
        (here / "texts" / f"{name}.txt").write_text(f"the cat sat on a mat {name}", "utf-8")
    (here / "texts" / "picture.jpg").write_bytes(b"\0")
    (here / "texts" / "short.txt").write_text("té", "utf-8")
    arguments = ("eval", "texts", "--model", trained, "--dynamic", "--baseline", "xz", "--html", "page.html")
    done = invoke(*arguments, "--surprisal")
    assert done.exit_code == 0, done.stderr
    assert "picture.jpg is binary: left out" in done.stderr
    assert "short.txt has fewer than two characters that the model knows: left out" in done.stderr
    assert "4 files: 84 characters predicted" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[-2:] for line in lines if line and line[-1].endswith(".txt")] == [
        ["21", str(Path("texts", f"{name}.txt"))] for name in ("a", "b", "c", "d")
    ]
    assert all(any(line[:1] == [row] for line in lines) for row in ("in", "dynamic", "xz"))
    shown = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()[-1]
    assert shown == "".join(f"the cat sat on a mat {name}" for name in ("a", "b", "c", "d"))
    assert "4 files" in (here / "page.html").read_text("utf-8")
