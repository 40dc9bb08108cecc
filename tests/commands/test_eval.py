import json
import re

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
