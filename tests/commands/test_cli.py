"""The command as a person meets it: what it says, and with which exit code."""

import gzip
import json
import re
import shutil
from dataclasses import asdict

import click
import pytest

from chargen import __version__
from chargen.cli import main
from chargen.config import TrainConfig
from chargen.files.arrays import read_arrays, write_arrays
from chargen.store.modelfile import ModelFile
from chargen.store.run import Run, newest
from chargen.writing.clone import StateHeader
from tests.conftest import SMALL, commands_of, contents
from tests.conftest import invoke as run


def commands(group=main, before=()):
    for name, command in sorted(commands_of(group).items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


def test_the_version_is_told():
    assert run("--version").output == f"chargen, version {__version__}\n"


@pytest.mark.parametrize(("names", "command"), list(commands()))
def test_every_command_and_option_has_help_and_every_command_an_example(names, command):
    output = run(*names, "--help").output
    assert "Examples:\n  chargen " in output
    assert command.help
    assert all(p.help for p in command.params if p.param_type_name == "option")


def test_options_have_the_ranges_of_the_configuration():
    for arguments in (["--layers", "0"], ["--validation", "1"], ["--dropout", "0.96"], ["--epochs", "0"]):
        result = run("train", *arguments)
        assert result.exit_code == 2
        assert f"{' '.join(arguments)}: give a " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--no-such-option"], "No such option"),
        (["train", "none.txt"], "'none.txt' does not exist"),
        (["train", "--encoding", "klingon"], "not a text encoding"),
        (["train", "book.txt", "--encoding", "base64"], "not a text encoding"),
        (["train", "book.txt", "--epochs", "1", "--steps", "1"], "exclude each other"),
        (["train", "book.txt", "--minutes", "1", "--epochs", "1"], "exclude each other"),
        (["train", "--resume", "r", "--units", "5", "--dropout", "0"], "--dropout, --units cannot be changed"),
        (["train", "--resume", "r", "--run", "s"], "--run cannot be changed"),
        (["sample", "--model", "none"], "'none' does not exist"),
        (["sample", "--length", "-1"], "--length -1: give a whole number of at least 0"),
    ],
)
def test_wrong_usage_exits_2(here, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def write(path, data):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (b"", ["train", "bad"], "bad is empty"),
        (b"a\0b", ["train", "bad"], "bad is a binary file"),
        (b"ab\xff", ["train", "bad"], "bad is not utf-8: byte 0xff at offset 2 .*--encoding"),
        (b"ab", ["train", "bad"], "2 characters"),
        (
            b"abc" * 40,
            ["train", "bad", "--batch-size", "9", "--seq-length", "64", "--from", "scratch"],
            "108 characters.*--batch-size 2 --seq-length 53 would fit",
        ),
        (b"", ["train", "--resume"], "no run here yet: make one with"),
        (b"", ["train", "--resume", "bad"], "bad is not a run"),
        (b"", ["sample"], "no run here yet: make one with `chargen train`"),
        (b"text", ["sample", "--model", "bad"], "bad is cut short, or not a file of chargen's"),
        (b"text", ["train", "book.txt", "--run", "bad"], "bad exists and is left as it is"),
        (b"text", ["train", "book.txt", "--run", "bad/run"], "can't be made: Not a directory"),
    ],
)
def test_what_cannot_be_done_exits_1_with_one_line(here, data, arguments, message):
    write(here / "bad", data)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert re.search(message, result.stderr)
    assert not (here / "runs").exists()
    assert (here / "bad").read_bytes() == data


def test_a_run_from_the_text_to_the_sample(here, text):
    result = run("train", "book.txt", *SMALL, "--steps", "20")
    assert result.exit_code == 0, result.output
    assert f"{len(text):,} characters" in result.stdout
    assert "parameters" in result.stdout
    assert result.stdout.count("  best") >= 1
    assert result.stderr == ""
    opened = Run(here / "runs" / "book")
    assert opened.metrics()[-1]["step"] == 20
    sampled = run("sample", "--seed", "the ", "--length", "30", "--random-seed", "5")
    assert sampled.stdout.startswith("the ")
    assert len(sampled.stdout) == 34
    assert sampled.stdout == run("sample", "--seed", "the ", "--length", 30, "--random-seed", 5).stdout
    assert sampled.stderr == ""


def test_a_random_seed_that_was_not_given_is_told(trained):
    first = run("sample", "--model", trained, "--length", 50)
    told = first.stderr.removeprefix("random seed: ").strip()
    assert run("sample", "--model", trained, "--length", 50, "--random-seed", told).stdout == first.stdout


def test_an_unknown_character_is_left_out_with_a_warning_and_nothing_else_is_an_error(trained):
    result = run("sample", "--model", trained, "--seed", "The c§t", "--length", 5, "--temperature", 0)
    assert result.exit_code == 0
    assert result.stdout.startswith("the ct")
    assert "never seen § (U+00A7): left out" in result.stderr
    result = run("sample", "--model", trained, "--seed", "§¶", "--length", 5)
    assert result.exit_code == 1
    assert "§ (U+00A7), ¶ (U+00B6)" in result.stderr
    assert result.stdout == ""


def test_an_empty_seed_writes_as_a_text_starts(trained):
    result = run("sample", "--model", trained, "--seed", "", "--length", 25, "--temperature", 0)
    assert len(result.stdout) == 25


def test_a_small_text_gets_smaller_sizes_and_is_told_so(fake, here):
    (here / "small.txt").write_text("A small text, hardly more than a line or two.\n" * 3)
    result = run("train", "small.txt", "--units", 4, "--embedding", 2, "--epochs", 1)
    assert result.exit_code == 0, result.output
    config = Run(here / "runs" / "small").config.train
    assert config.batch_size < TrainConfig().batch_size
    assert f"{config.batch_size} streams x {config.seq_length} characters" in result.stdout


def test_the_sizes_are_told_with_their_reason_and_left_alone_where_they_were_asked_for(fake, here):
    result = run("train", "book.txt", "--steps", 1, "--batch-size", 2, "--from", "scratch")
    assert "64 units pay off from" in result.stdout
    assert "1 x 64 LSTM" in result.stdout
    result = run("train", "book.txt", "--steps", 1, "--batch-size", 2, "--units", 3)
    assert "units pay" not in result.stdout
    assert "1 x 3 LSTM" in result.stdout


def test_a_run_given_minutes_tells_the_speed_and_the_steps_that_fit(fake, here, monkeypatch):
    monkeypatch.setattr("chargen.training.schedule.CHANGED_SHARE", 1e9)  # whatever the clock says
    result = run("train", "book.txt", *SMALL, "--minutes", 0.02)
    assert result.exit_code == 0, result.output
    (steps,) = re.findall(r"characters a second: ([\d,]+) steps", result.stdout)
    assert Run(here / "runs" / "book").metrics()[-1]["step"] == int(steps.replace(",", ""))


def test_a_text_from_standard_input_is_kept_and_gone_on_with(fake, here, text):
    result = run("train", "-", *SMALL, "--steps", 15, stdin=text)
    assert result.exit_code == 0, result.output
    assert (here / "runs" / "stdin" / "corpus" / "ids.npy").exists()
    result = run("train", "--resume", "--steps", 5)
    assert result.exit_code == 0, result.output
    assert Run(here / "runs" / "stdin").metrics()[-1]["step"] == 20


def test_a_finished_run_names_the_command_that_trains_it_further(trained):
    result = run("train", "--resume", trained)
    assert result.exit_code == 0
    assert "at step 200: there is nothing left to do" in result.stdout
    assert f"chargen train --resume {trained} --epochs 5" in result.stdout


def test_a_text_that_moved_is_found_where_it_is_named(fake, copied, here):
    (here / "book.txt").rename(here / "moved.txt")
    refused = run("train", "--resume", "runs/book", "--steps", 5)
    assert refused.exit_code == 1
    assert "is gone" in refused.stderr
    assert run("train", "moved.txt", "--resume", "runs/book", "--steps", 5).exit_code == 0
    assert json.loads((here / "runs/book/config.json").read_text())["files"] == [str(here / "moved.txt")]


def test_a_damaged_checkpoint_is_refused_and_left(copied):
    checkpoint = copied / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    before = contents(copied)
    result = run("train", "--resume", "--steps", 5)
    assert result.exit_code == 1
    assert "cut short" in result.stderr
    assert contents(copied) == before


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-inf"])
def test_a_number_that_is_not_finite_is_refused(here, value):
    for option in ("--learning-rate", "--epochs", "--dropout", "--clip-norm", "--validation"):
        result = run("train", "book.txt", option, value)
        assert result.exit_code == 2, option
    assert run("sample", "--temperature", value).exit_code == 2
    assert not (here / "runs").exists()


def test_a_name_with_a_space_is_quoted_in_the_commands_that_are_printed(fake, here, text):
    (here / "my book.txt").write_text(text)
    result = run("train", "my book.txt", *SMALL, "--steps", 5)
    assert "chargen sample --model 'runs/my book'" in result.stdout


def test_a_checkpoint_that_is_gone_is_not_begun_anew(copied):
    (copied / "checkpoint.safetensors").unlink()
    before = contents(copied)
    result = run("train", "--resume")
    assert result.exit_code == 1
    assert "is gone" in result.stderr
    assert contents(copied) == before


def test_the_checkpoint_of_another_run_is_refused(fake, here):
    for units in (8, 9):
        assert run("train", "book.txt", *SMALL, "--units", units, "--steps", 10).exit_code == 0
    first, second = here / "runs" / "book", here / "runs" / "book-2"
    (second / "checkpoint.safetensors").write_bytes((first / "checkpoint.safetensors").read_bytes())
    result = run("train", "--resume", second, "--steps", 5)
    assert result.exit_code == 1
    assert "is of another run" in result.stderr


def test_a_folder_with_its_runs_in_it_stays_the_same_text(fake, here):
    assert run("train", ".", *SMALL, "--steps", 10).exit_code == 0
    assert run("train", "--resume", "--steps", 5).exit_code == 0


def test_an_empty_folder_can_be_the_run_even_the_one_we_are_in(fake, here, text, monkeypatch):
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    assert run("train", "../book.txt", *SMALL, "--steps", 5, "--run", ".").exit_code == 0
    assert (here / "empty" / "model.safetensors").exists()


def test_json_has_a_line_for_each_sample_with_what_it_cost(trained):
    arguments = ["sample", "--model", trained, "--seed", "the ", "--length", 30, "--random-seed", 3, "--json"]
    result = run(*arguments, "--count", 3, "--stop", "w")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["index"] for r in records] == [0, 1, 2]
    keys = "seed text log_probabilities bits_per_character random_seed index stopped_by settings"
    for r in records:
        assert list(r) == keys.split()
        assert len(r["log_probabilities"]) == len(r["text"])
        assert (r["stopped_by"] == "length") == (len(r["text"]) == 30)
        assert "w" not in r["text"]
    assert records[0]["settings"]["stop"] == ["w"]
    assert [json.loads(line)["text"] for line in run(*arguments, "--stop", "w").stdout.splitlines()] == [
        records[0]["text"]
    ]


def test_several_samples_are_told_apart(trained):
    result = run("sample", "--model", trained, "--seed", "the ", "--length", 10, "--count", 2, "--random-seed", 1)
    ((first, second),) = re.findall(r"^--- 1 of 2 ---\n(.*)\n--- 2 of 2 ---\n(.*)\n$", result.stdout, re.S)
    assert len(first) == len(second) == 14


def test_the_seed_can_be_left_out_or_come_from_a_file_or_from_the_book(trained, here, text):
    (here / "seed").write_bytes(b"the cat \r\n")
    base = ["sample", "--model", trained, "--length", 5, "--temperature", 0]
    assert run(*base, "--seed-file", "seed").stdout.startswith("the cat \n")
    assert run(*base, "--seed-file", "-", stdin="the hat").stdout.startswith("the hat")
    assert len(run(*base, "--seed-file", "seed", "--no-seed").stdout) == 5
    book = run(*base, "--seed-from-book", "--random-seed", 4).stdout
    assert book[:-5] in text
    assert book == run(*base, "--seed-from-book", "--random-seed", 4).stdout
    assert book != run(*base, "--seed-from-book", "--random-seed", 5).stdout


def test_a_saved_state_makes_of_two_commands_one_long_draw(trained, here):
    base = ["sample", "--model", trained]
    whole = run(*base, "--seed", "the ", "--length", 50, "--random-seed", 8).stdout
    first = run(*base, "--seed", "the ", "--length", 20, "--random-seed", 8, "--save-state", "state").stdout
    second = run(*base, "--length", 30, "--load-state", "state", "--save-state", "state").stdout
    assert first + second == whole


def test_a_pattern_writes_one_alternative_of_each_line(trained, here):
    (here / "words").write_text("the\ta\ncat\that\tmat\nsat\tsaw\n")
    base = ["sample", "--model", trained, "--pattern", "words"]
    text = run(*base, "--random-seed", 1).stdout
    assert re.fullmatch("(the|a) (cat|hat|mat) (sat|saw)", text)
    joined = run(*base, "--separator", " and ", "--count", 3, "--json").stdout.splitlines()
    assert all(json.loads(line)["text"].count(" and ") == 2 for line in joined)
    assert run(*base, "--top-k", 2).exit_code == 2


def test_originality_tells_what_stands_in_the_book_and_caches_its_index(copied):
    base = ["sample", "--model", copied, "--seed", "the ", "--length", 60, "--random-seed", 1, "--originality"]
    result = run(*base)
    assert re.search(r"longest passage copied from the book: \d+ characters, at character", result.stderr)
    assert re.search(r"8: [\d.]+%, 16: [\d.]+%, 32: [\d.]+%", result.stderr)
    assert (copied / "originality.safetensors").exists()
    found = json.loads(run(*base, "--json").stdout)["originality"]
    assert f"book: {found['longest']} characters" in result.stderr


def test_colours_shade_what_was_drawn_and_leave_the_text(trained):
    base = ["sample", "--model", trained, "--seed", "the ", "--length", 80, "--random-seed", 1, "--temperature", 1.5]
    plain = run(*base).stdout
    shaded = run(*base, "--color", color=True).stdout
    assert "\x1b[38;5;16;48;5;" in shaded
    assert re.sub(r"\x1b\[[\d;]*m", "", shaded) == plain


def test_an_output_file_is_new_and_whole(trained, here):
    base = ["sample", "--model", trained, "--seed", "the ", "--length", 30, "--random-seed", 1]
    result = run(*base, "--output", "text")
    assert result.stdout == ""
    assert (here / "text").read_text() == run(*base).stdout
    (here / "text").write_text("mine")
    result = run(*base, "--output", "text")
    assert result.exit_code == 1
    assert "exists and is left as it is" in result.stderr
    assert (here / "text").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "a", "--seed-from-book"], "--seed does not go with --seed-from-book"),
        (["--pattern", "book.txt", "--stop", "x"], "--pattern does not go with --stop"),
        (["--load-state", "book.txt", "--count", "2"], "does not go with --count"),
        (["--separator", "-"], "--separator is for --pattern"),
        (["--interactive", "--color"], "--interactive does not go with --color"),
        (["--json", "--color"], "--json does not go with --color"),
        (["--interactive", "--count", "2"], "--interactive does not go with --count"),
        (["--allow", "["], "is not a regular expression"),
        (["--stop", ""], "is empty"),
    ],
)
def test_options_that_make_no_sense_together_exit_2(trained, here, arguments, message):
    result = run("sample", "--model", trained, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_file_by_itself_has_no_book(trained, here):
    (here / "model").write_bytes((trained / "model.safetensors").read_bytes())
    assert run("sample", "--model", "model", "--length", 5).exit_code == 0
    result = run("sample", "--model", "model", "--length", 5, "--originality")
    assert result.exit_code == 1
    assert "is not a run" in result.stderr


def test_interactive_answers_lines_until_the_input_ends(trained):
    result = run(
        "sample", "--model", trained, "--interactive", "--length", 10, stdin="the \n/temperature 0\ncat\n/no\n"
    )
    assert result.exit_code == 0
    assert "temperature 0" in result.stdout
    assert "there is no command /no" in result.stderr


def test_interactive_offers_words_in_a_pipe(trained, here):
    lines = "the \n/words 2\n1\n saw\n\n/undo\n/save out.txt\n/save out.txt\n9\n"
    result = run("sample", "--model", trained, "--interactive", "--length", 9, "--temperature", 0, stdin=lines)
    assert result.exit_code == 0
    assert re.search(r"^  1  \S", result.stdout, re.M)
    assert re.search(r"^  2  ", result.stdout, re.M)
    assert (here / "out.txt").read_text("utf-8").endswith(" saw")
    assert "exists and is left as it is" in result.stderr
    assert "there are 2 alternatives" in result.stderr
    assert max(map(len, result.stdout.replace("> ", "").split("\n"))) <= 120


def test_words_and_repetition(trained, here):
    book = set((here / "book.txt").read_text("utf-8").split())
    fixed = ["--model", trained, "--seed", "the ", "--random-seed", 3, "--length", 400]
    text = run("sample", *fixed, "--temperature", 1.5, "--words", "book", "--no-seed").stdout
    assert set(text.split()[:-1]) <= book
    assert (
        text != run("sample", *fixed, "--temperature", 1.5, "--words", "book", "--new-words", 0.5, "--no-seed").stdout
    )
    (here / "list").write_text("hat cat", "utf-8")
    text = run("sample", *fixed, "--words", "list", "--no-seed").stdout
    assert set(text.split()[:-1]) <= {"hat", "cat"}
    text = run("sample", *fixed, "--no-repeat", 9).stdout
    assert len({text[i : i + 9] for i in range(396)}) == 396
    made = run("sample", *fixed, "--best-of", 3, "--count", 2, "--json", "--no-repeat", 2).stdout
    assert [json.loads(line)["stopped_by"] for line in made.splitlines()] == ["no-repeat"] * 2
    made = run("sample", *fixed, "--best-of", 3, "--json").stdout
    assert json.loads(made)["settings"]["best_of"] == 3
    assert run("sample", *fixed, "--best-of", 3, "--json").stdout == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--new-words", "0.1"], "--new-words is a probability of --words"),
        (["--best-of", "2", "--temperature", "0"], "--best-of chooses among draws"),
        (["--words", "none.txt"], "none.txt"),
        (["--words", "book", "--allow", "[a-z]"], "--words needs a character between words"),
    ],
)
def test_words_that_cannot_be_had_are_one_line(trained, here, arguments, message):
    result = run("sample", "--model", trained, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("Error") == 1


def test_what_would_fail_at_the_end_fails_before_anything_is_drawn(trained, here):
    (here / "poem").write_text("roses")
    for options in (["--output", "nowhere/text"], ["--save-state", "poem"], ["--save-state", "nowhere/state"]):
        result = run("sample", "--model", trained, "--length", 20, *options)
        assert result.exit_code == 1
        assert result.stdout == ""
    assert (here / "poem").read_text() == "roses"


def test_a_damaged_state_is_refused_with_one_line(trained, here):
    base = ["sample", "--model", trained, "--length", 5]
    assert run(*base, "--save-state", "state").exit_code == 0
    whole = (here / "state").read_bytes()
    read, arrays = read_arrays(here / "state", StateHeader, advice="")
    header = asdict(read)
    write_arrays(here / "rows", {name: array.repeat(3, 0) for name, array in arrays.items()}, StateHeader, header)
    write_arrays(here / "empty", {}, StateHeader, header)
    write_arrays(here / "generator", arrays, StateHeader, {**header, "generator": {"state": 1}})
    (here / "cut").write_bytes(whole[:-1])
    for name in ("rows", "empty", "generator", "cut"):
        result = run(*base, "--load-state", name)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), name


def test_a_random_seed_can_be_given_with_a_state_and_is_told_where_it_decides_something(trained, here):
    base = ["sample", "--model", trained, "--length", 20]
    assert run(*base, "--seed", "the ", "--save-state", "state").exit_code == 0
    assert run(*base, "--load-state", "state").stderr == ""
    texts = [run(*base, "--load-state", "state", "--random-seed", n).stdout for n in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert run(*base, "--seed-from-book", "--temperature", 0).stderr.startswith("random seed: ")


def test_asking_for_originality_does_not_make_a_run_the_newest(fake, here):
    for _ in range(2):
        assert run("train", "book.txt", *SMALL, "--steps", 5).exit_code == 0
    assert run("sample", "--model", "runs/book", "--length", 5, "--originality").exit_code == 0
    assert str(newest()) == "runs/book-2"


def test_a_stop_text_that_the_model_never_writes_is_warned_of(trained):
    result = run("sample", "--model", trained, "--length", 5, "--stop", "§")
    assert result.exit_code == 0
    assert "never writes § (U+00A7)" in result.stderr


@pytest.mark.long
def test_a_model_goes_on_with_a_text_of_other_characters_and_tells_what_it_forgot(here, trained):
    (here / "new.txt").write_text("Ça va? " * 300 + "a cat\n" * 100, "utf-8")
    arguments = ["--batch-size", "4", "--seq-length", "8", "--steps", "12"]
    result = run("train", "new.txt", "--from", trained, *arguments)
    assert result.exit_code == 0, result.stderr
    [(before, after)] = re.findall(r"old text .* ([0-9.]+) bpc before, ([0-9.]+) now", result.output)
    opened = Run(here / "runs" / "new")
    assert opened.config.model == Run(trained).config.model
    own = json.loads(run("eval", "--model", trained, "--json").output)
    assert float(before) == pytest.approx(own["bpc"], abs=2e-3)
    assert float(after) > float(before)
    vocabulary = ModelFile.read(opened.model_path).vocabulary
    assert set("Çv?") < set(vocabulary.characters)
    assert set(Run(trained).corpus().vocabulary.characters) < set(vocabulary.characters)
    more = run("train", "--resume", "runs/new", "--steps", "4")
    assert more.exit_code == 0, more.stderr
    assert "old text" in more.output
    for file in ("--units", "--layers"):
        result = run("train", "new.txt", "--from", trained, file, "3")
        assert f"{file} cannot be changed with --from" in result.stderr
    result = run("train", "--resume", "runs/new", "--from", trained)
    assert "--from cannot be changed with --resume" in result.stderr


def test_a_text_of_very_many_characters_is_trained_written_and_gone_on_from(fake, here):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 2500))) * 3
    (here / "many.txt").write_text(text, "utf-8")
    sizes = ["--units", "12", "--batch-size", "4", "--seq-length", "8", "--steps", "3"]
    result = run("train", "many.txt", *sizes)
    assert result.exit_code == 0, result.stderr
    assert "12 LSTM, an output layer of rank 2," in result.output
    assert len(run("sample", "--length", "9", "--random-seed", "1").stdout.strip()) == 9
    assert json.loads(run("eval", "--json").output)["bpc"] < 12
    (here / "more.txt").write_text("new text " * 100)
    result = run("train", "more.txt", "--from", "runs/many", "--batch-size", "4", "--steps", "3")
    assert result.exit_code == 0, result.stderr
    assert "an output layer of rank 2," in result.output
    assert "bpc before" in result.output
    assert run("train", "many.txt", *sizes, "--output-rank", "0").exit_code == 0
    assert Run(newest()).config.model.output_rank == 0


def test_a_model_file_by_itself_can_be_gone_on_from_though_its_text_is_not_known(fake, here, trained):
    shutil.copy(trained / "model.safetensors", here / "alone.safetensors")
    result = run("train", "book.txt", "--from", "alone.safetensors", "--batch-size", "4", "--steps", "3")
    assert result.exit_code == 0, result.stderr
    assert "old text  not compared: it cannot be read" in result.output


def test_files_are_documents_and_patterns_and_compressed_ones_are_read(here, text):
    folder = here / "books"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt.gz").write_bytes(gzip.compress(text[number * 900 : number * 900 + 800].encode()))
    result = run("train", "books/*.gz", *SMALL, "--steps", "30", "--cache", "kept")
    assert result.exit_code == 0, result.stderr
    corpus = Run(here / "runs" / "books").corpus()
    assert corpus.starts.tolist() == [0, *(800 * n + n for n in (1, 2, 3))]
    assert len(list((here / "kept").glob("*/ids.npy"))) == 1
    recorded = Run(here / "runs" / "books").metrics()[-1]["validation_bpc"]
    assert json.loads(run("eval", "--json").output)["bpc"] == pytest.approx(recorded, abs=5e-3)
    more = run("train", "--resume", "--steps", "3")
    assert more.exit_code == 0, more.stderr
    (folder / "1.txt.gz").write_bytes(gzip.compress(b"another text"))
    assert "the text has changed" in run("train", "--resume", "--steps", "3").stderr
    assert "does not exist" in run("train", "books/*.bz2").stderr


def test_rare_characters_are_trained_as_one_that_is_never_written(fake, here, text):
    (here / "rare.txt").write_text(text + "".join(map(chr, range(0x4E00, 0x4E80))) * 2, "utf-8")
    result = run("train", "rare.txt", *SMALL, "--steps", "30", "--min-count", "5")
    assert result.exit_code == 0, result.stderr
    assert "128 characters, 256 times in all" in result.output
    drawn = run("sample", "--length", "400", "--temperature", "5", "--random-seed", "1").output
    assert "\ufffd" not in drawn
    assert json.loads(run("eval", "--json").output)["unknown_characters"] > 0
