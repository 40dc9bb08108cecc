"""The command as a person meets it: what it says, and with which exit code."""

import json
import re

import pytest
from click.testing import CliRunner

from chargen import __version__
from chargen.cli import main
from chargen.config import TrainConfig
from chargen.run import Run
from tests.conftest import SMALL


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, [*map(str, arguments)], input=stdin)


def commands():
    return sorted(main.commands.items())


def test_the_version_is_told():
    assert run("--version").output == f"chargen, version {__version__}\n"


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_has_help_and_every_command_an_example(name, command):
    output = run(name, "--help").output
    assert "Examples:\n  chargen " in output
    assert command.help
    assert all(p.help for p in command.params if p.param_type_name == "option")


def test_options_have_the_ranges_of_the_configuration():
    for arguments in (["--layers", "0"], ["--validation", "1"], ["--dropout", "0.96"], ["--epochs", "0"]):
        result = run("train", *arguments)
        assert result.exit_code == 2
        assert f"Invalid value for '{arguments[0]}'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--no-such-option"], "No such option"),
        (["train", "none.txt"], "'none.txt' does not exist"),
        (["train", "--encoding", "klingon"], "not a text encoding"),
        (["train", "book.txt", "--encoding", "base64"], "not a text encoding"),
        (["train", "book.txt", "--epochs", "1", "--steps", "1"], "exclude each other"),
        (["train", "--resume", "r", "--units", "5", "--dropout", "0"], "--dropout, --units can't be changed"),
        (["train", "--resume", "r", "--run", "s"], "--run can't be changed"),
        (["sample", "--model", "none"], "'none' does not exist"),
        (["sample", "--length", "-1"], "Invalid value for '--length'"),
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
            ["train", "bad", "--batch-size", "9", "--seq-length", "64"],
            "108 characters.*--batch-size 2 --seq-length 53 would fit",
        ),
        (b"", ["train", "--resume"], "no run here yet: make one with"),
        (b"", ["train", "--resume", "bad"], "bad is not a run"),
        (b"", ["sample"], "no run here yet: make one with `chargen train book.txt`"),
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


def test_a_small_text_gets_smaller_sizes_and_is_told_so(here):
    (here / "small.txt").write_text("A small text, hardly more than a line or two.\n" * 3)
    result = run("train", "small.txt", "--units", 4, "--embedding", 2, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "the sizes suit a text of 138 characters" in result.stdout
    config = Run(here / "runs" / "small").config.train
    assert config.batch_size < TrainConfig().batch_size


def test_a_text_from_standard_input_is_kept_and_gone_on_with(here, text):
    result = run("train", "-", *SMALL, "--steps", 15, stdin=text)
    assert result.exit_code == 0, result.output
    assert (here / "runs" / "stdin" / "corpus.safetensors").exists()
    result = run("train", "--resume", "--steps", 5)
    assert result.exit_code == 0, result.output
    assert Run(here / "runs" / "stdin").metrics()[-1]["step"] == 20


def test_a_finished_run_names_the_command_that_trains_it_further(trained):
    result = run("train", "--resume", trained)
    assert result.exit_code == 1
    assert f"chargen train --resume {trained} --epochs 5" in result.stderr


def test_a_text_that_moved_is_found_where_it_is_named(here, text):
    assert run("train", "book.txt", *SMALL, "--steps", 10).exit_code == 0
    (here / "book.txt").rename(here / "moved.txt")
    refused = run("train", "--resume", "runs/book", "--steps", 5)
    assert refused.exit_code == 1
    assert "is gone" in refused.stderr
    assert run("train", "moved.txt", "--resume", "runs/book", "--steps", 5).exit_code == 0
    assert json.loads((here / "runs/book/config.json").read_text())["files"] == [str(here / "moved.txt")]


def test_a_damaged_checkpoint_is_refused_and_left(here):
    assert run("train", "book.txt", *SMALL, "--steps", 10).exit_code == 0
    checkpoint = here / "runs" / "book" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    before = {f.name: f.read_bytes() for f in checkpoint.parent.iterdir()}
    result = run("train", "--resume", "--steps", 5)
    assert result.exit_code == 1
    assert "cut short" in result.stderr
    assert {f.name: f.read_bytes() for f in checkpoint.parent.iterdir()} == before
