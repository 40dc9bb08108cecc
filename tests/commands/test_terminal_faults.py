"""The command with a terminal, a pipe, a closed stream and Ctrl-C; and its effects on its process."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from chargen import ChargenError, process
from chargen.cli import main
from chargen.commands.common import MESSAGE_LENGTH, in_one_line
from chargen.commands.lab import lines_of
from chargen.commands.screen import TITLES, replanned_line, table_line
from chargen.config import ModelConfig
from chargen.store.modelfile import ModelFile, weight_shapes
from chargen.terminal import columns, cut, fitted, shown
from chargen.text.vocabulary import Vocabulary
from chargen.training.loop import Validation
from chargen.training.schedule import Replanned
from chargen.writing import interactive
from tests.conftest import HANG, SMALL, chargen, command, commands_of

HOSTILE = "a\x1b[31m\x07\x7f\x9b\u202e"
FULL = Path("/dev/full")
VISIBLE = r"a\u001b[31m\u0007\u007f\u009b\u202e"


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, [*map(str, arguments)], input=stdin)


def model_of(characters, path):
    """Write the file of a model of these characters with random weights."""
    vocabulary, config, generator = (
        Vocabulary("".join(sorted(characters))),
        ModelConfig(layers=1, units=4, embedding=2),
        np.random.default_rng(1),
    )
    shapes = weight_shapes(len(vocabulary), config)
    weights = {name: generator.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(weights, vocabulary, config, {}, {}).write(path)
    return path


def started(words: list[str], **options: Any) -> Any:
    """Start a process whose output and error streams are pipes."""
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def in_terminal(*arguments, cwd, wide=80, **environment):
    """Run the command in a pseudo-terminal; return its exit code and the lines that it showed."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, wide, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | environment
    words = command(*map(str, arguments))
    with subprocess.Popen(
        words, cwd=cwd, env=env, start_new_session=True, stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 1 << 16)
            except OSError:  # on Linux, the other end is closed
                break
        os.close(ours)
    return child.returncode, written.decode(errors="surrogateescape").replace("\r\n", "\n").split("\n")


# ---- the process ------------------------------------------------------------------------------------------------


def test_a_command_inside_another_program_leaves_its_process_unchanged(trained, monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    assert run("sample", "--model", trained, "--length", 5).exit_code == 0
    assert not process.owned()
    assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before


def test_the_command_line_program_owns_its_process(tmp_path):
    program = "import os, sys, chargen.__main__ as it\nsys.argv = ['chargen', '--version']\n"
    program += "try: it.main()\nfinally: print(it.process.owned(), os.environ['KERAS_BACKEND'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True tensorflow"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_command_works_with_missing_streams(trained, tmp_path, closed):
    words = command("sample", "--model", str(trained), "--seed", "the ", "--length", "30", "--temperature", "0.5")
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *words]
    done = subprocess.run([*shell, "--output", "text"], cwd=tmp_path, capture_output=True, timeout=HANG, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert re.fullmatch(rb"|random seed: \d+\n", done.stderr)
    text = (tmp_path / "text").read_text()
    assert text.startswith("the ")
    assert len(text) == 34  # no message is in the file
    assert subprocess.run(shell, cwd=tmp_path, capture_output=True, timeout=HANG, check=False).returncode == 0


def test_a_conversation_without_a_standard_input_ends_at_once(trained):
    words = command("sample", "--model", str(trained), "--interactive")
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, timeout=HANG, check=False)
    assert done.returncode == 0
    assert b"Error" not in done.stderr


@pytest.mark.long
def test_training_works_without_streams(here):
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command("train", "book.txt", *SMALL, "--steps", "20")]
    assert subprocess.run(shell, timeout=HANG, check=False).returncode == 0
    assert len(list(here.glob("runs/*/model.safetensors"))) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["lab"]])
def test_output_that_cannot_be_written_is_reported_in_one_line(arguments):
    with FULL.open("wb") as full:
        done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (1, b"Error: cannot write the output: No space left on device\n")


def test_a_full_standard_error_does_not_end_the_command(trained):
    words = command("sample", "--model", str(trained), "--length", "5")
    with FULL.open("wb") as full:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=full, timeout=HANG, check=False)
    assert (done.returncode, len(done.stdout)) == (0, 5)


def test_a_closed_pipe_ends_the_command_quietly(trained):
    words = command("sample", "--model", str(trained), "--length", "1000000", "--random-seed", "1")
    with started(words) as child:
        assert child.stdout.read(1)
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------

WAITING = "import os, time\nos.write(1, b'x')\ntry: time.sleep(60)\n{}: raise ImportError('what was it')\n"


@pytest.mark.parametrize("how", ["except BaseException", "finally"])
@pytest.mark.parametrize(("module", "arguments"), [("click", ["--help"]), ("numpy", ["sample"])])
def test_ctrl_c_during_an_import_prints_no_traceback(tmp_path, module, arguments, how):
    (tmp_path / f"{module}.py").write_text(WAITING.format(how))
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    with started(command(*arguments), env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path) as child:
        assert child.stdout.read(1) == b"x"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b""
    assert child.returncode == 130


def test_ctrl_c_while_waiting_for_a_seed_prints_no_traceback(trained):
    words = command("sample", "--model", str(trained), "--seed-file", "-")
    with started(words, stdin=subprocess.PIPE) as child:
        assert child.stderr.readline().startswith(b"random seed")
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b"\n"
    assert child.returncode == 130


# ---- encodings --------------------------------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
WARNING = r"Warning: standard output is in {}, and each character that it lacks becomes \?; .*PYTHONIOENCODING=utf-8"


def sampled(model, **environment):
    words = command("sample", "--model", str(model), "--length", "30", "--random-seed", "1", "--temperature", "1")
    return subprocess.run(words, env={**os.environ, **environment}, capture_output=True, timeout=HANG, check=True)


def test_a_pipe_gets_utf8_whatever_the_locale_is(tmp_path):
    done = sampled(model_of("абв", tmp_path / "model"), **ASCII)
    assert set(done.stdout.decode()) == set("абв")
    assert done.stderr == b""


def test_an_encoding_that_lacks_characters_causes_one_warning(tmp_path):
    done = sampled(model_of("éабв", tmp_path / "model"), PYTHONIOENCODING="cp1252")
    assert set(done.stdout.decode("cp1252")) == {"é", "?"}
    assert re.fullmatch(WARNING.format("cp1252") + ".*\n", done.stderr.decode())


def test_a_terminal_that_is_not_utf8_causes_one_warning(tmp_path):
    model = model_of("aбв", tmp_path / "model")
    code, lines = in_terminal(
        "sample", "--model", model, "--length", 30, "--random-seed", 1, "--temperature", 1, cwd=tmp_path, **ASCII
    )
    assert code == 0
    assert len(re.findall(WARNING.format("ascii"), "\n".join(lines))) == 1
    assert len(re.sub("Warning.*\n", "", "\n".join(lines)).strip()) == 30


def test_a_file_name_that_is_not_utf8_is_written_unchanged():
    error = UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "")
    assert process._replaced(error) == (b"\xff", 2)


# ---- escape sequences -------------------------------------------------------------------------------------------


def test_control_characters_are_escaped_on_a_terminal_only():
    assert shown(HOSTILE, Terminal()) == VISIBLE
    assert shown(HOSTILE, io.StringIO()) == HOSTILE
    assert shown("tab\tline\nשלום é 👩\u200d🚀\u200f", Terminal()) == "tab\tline\nשלום é 👩\u200d🚀\u200f"
    assert shown("\r\udcff\x00\x85", Terminal()) == r"\u000d\udcff\u0000\u0085"


def test_what_a_model_writes_cannot_control_the_terminal(tmp_path):
    model = model_of(HOSTILE, tmp_path / "model")
    base = ["sample", "--model", str(model), "--length", "400", "--random-seed", "1", "--temperature", "1"]
    raw = chargen(*base, cwd=tmp_path).stdout
    assert set(raw) == set(HOSTILE)
    code, lines = in_terminal(*base, cwd=tmp_path)
    assert code == 0
    assert "\n".join(lines) == shown(raw, Terminal()) + "\n"
    code, lines = in_terminal(*base, "--json", cwd=tmp_path)
    assert json.loads(lines[0])["text"] == raw
    assert lines[0].isprintable()


def test_a_name_in_a_message_cannot_control_the_terminal(tmp_path):
    (tmp_path / HOSTILE).mkdir()
    code, lines = in_terminal("sample", "--model", HOSTILE, cwd=tmp_path)
    assert code == 1
    assert lines[0].startswith(f"Error: {VISIBLE} has no model yet")
    told = chargen("sample", "--model", HOSTILE, cwd=tmp_path).stderr
    assert told.startswith(f"Error: {HOSTILE} has no model yet")
    code, lines = in_terminal("sample", f"--{HOSTILE}", cwd=tmp_path)
    assert code == 2
    assert "\n".join(lines).isprintable() or "\x1b" not in "\n".join(lines)


# ---- 80 columns -------------------------------------------------------------------------------------------------


def test_lines_are_wrapped_at_words_on_a_terminal_only(narrow, monkeypatch):
    line = "text      " + " ".join(f"{n}-character" for n in range(20))
    wrapped = fitted(line, narrow, indent=10)
    assert max(map(len, wrapped.split("\n"))) <= 80
    assert wrapped.split() == line.split()
    assert all(part.startswith(" " * 10) for part in wrapped.split("\n")[1:])
    assert fitted(line, io.StringIO()) == fitted(line, narrow, indent=None) == line
    assert fitted("run       " + "x" * 200, narrow, indent=10) == "run       " + "x" * 200  # a path stays whole
    assert fitted("字" * 30 + " " + "字" * 30, narrow) == "字" * 30 + "\n  " + "字" * 30
    monkeypatch.setenv("COLUMNS", "300")
    assert fitted(line, narrow, indent=10) == line


def test_a_preview_is_cut_to_a_terminal(narrow):
    assert cut("a" * 100, io.StringIO()) == "a" * 100
    assert cut("a" * 100, narrow) == "a" * 80
    assert columns(cut("字" * 100, narrow)) == 80
    assert columns(cut("e\u0301" * 100, narrow)) == 80
    assert cut("\x1b" * 100, narrow) == r"\u001b" * 13 + r"\u"


def test_the_table_of_a_training_fits_80_columns():
    record = {"step": 999_999, "epoch": 999.99, "seconds": 59_999, "training_bpc": 12.345, "validation_bpc": 12.345}
    line = table_line(Validation({**record, "learning_rate": 0.012345, "characters_per_second": 99_999_999}, True))
    assert line.endswith("  best")
    assert max(map(len, [line, *TITLES.split("\n")])) < 80
    ends = [found.end() for found in re.finditer(r"\S+", line)][:7]
    assert [found.end() for found in re.finditer(r"\S+", TITLES.split("\n")[-1])] == ends


def test_a_change_of_the_number_of_steps_is_a_line_that_fits_80_columns():
    assert replanned_line(Replanned(1840, 2600)) == "training is slower than planned: 1,840 steps instead of 2,600"
    assert replanned_line(Replanned(2600, 1840)) == "training is faster than planned: 2,600 steps instead of 1,840"
    assert len(replanned_line(Replanned(10**9, 10**9 - 1))) <= 80


def test_help_texts_fit_80_columns():
    def helps(group, *before):
        for name, one in commands_of(group).items():
            yield run(*before, name, "--help").stdout
            if isinstance(one, click.Group):
                yield from helps(one, *before, name)

    texts = [run("--help").stdout, interactive.HELP, *helps(main)]
    assert [line for text in texts for line in text.split("\n") if len(line) > 80] == []


def test_the_lessons_fit_a_terminal(tmp_path):
    code, lines = in_terminal("lab", cwd=tmp_path)
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split() == chargen("lab", cwd=tmp_path).stdout.split()


def test_titles_of_a_wide_table_are_wrapped():
    titles, rows = ["training", "between the best and the worst " * 3], [["a" * 30, "0.013"], ["b", "0.019"]]
    assert len(lines_of(titles, rows, 0)) == 3
    lines = lines_of(titles, rows, 80)
    assert max(map(len, lines)) <= 80
    assert " ".join(line[32:] for line in lines[:-2]).split() == titles[1].split()
    assert lines_of(titles[:1], [row[:1] for row in rows], 80) == ["training", *(row[0] for row in rows)]


@pytest.mark.long
def test_a_training_fits_a_terminal_whatever_its_text_is(tmp_path, text):
    name = f"a folder/{HOSTILE} of words that are many.txt"
    (tmp_path / "a folder").mkdir()
    (tmp_path / name).write_text(text.replace("t", "\x1b[31m"), "utf-8")
    code, lines = in_terminal("train", name, *SMALL, "--minutes", "0.02", cwd=tmp_path, TMPDIR=str(tmp_path))
    shown_lines = [line.rpartition("\r")[2] for line in lines]  # without the progress bar
    assert code == 0
    assert [line for line in shown_lines if columns(line) > 80 and "done; write with" not in line] == []
    assert VISIBLE in "\n".join(shown_lines)
    assert not re.search(r"\x1b(?!\[A)", "\n".join(lines))  # which tqdm writes
    assert TITLES in "\n".join(shown_lines)


# ---- messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write the output: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No usable folder"), "No usable folder"),
        (OSError("odd"), "odd"),
        (ChargenError("two\n lines"), "two lines"),
    ],
)
def test_an_operating_system_error_names_its_file(error, line):
    with pytest.raises(click.ClickException) as raised, in_one_line():
        raise error
    assert raised.value.message == line


def test_a_file_that_cannot_be_read_is_named(trained, tmp_path):
    (tmp_path / "out").touch()
    for option in ("--seed-file", "--pattern"):
        result = run("sample", "--model", trained, option, "/proc/self/mem")
        assert result.exit_code == 1
        assert result.stderr.endswith("Error: cannot read /proc/self/mem: Input/output error\n")
    for arguments in (["train", "-"], ["sample", "--model", str(trained), "--seed-file", "-"]):
        with (tmp_path / "out").open("ab") as unreadable:
            done = subprocess.run(
                command(*arguments), stdin=unreadable, capture_output=True, text=True, timeout=HANG, check=False
            )
        assert done.returncode == 1
        assert "standard input" in done.stderr
        assert "written" not in done.stderr
        assert done.stderr.endswith("Bad file descriptor\n")


@pytest.mark.parametrize("option", ["--model", "--length", "--seed-file", "--no-such"])
def test_a_message_is_short_whatever_was_given(option):
    result = run("sample", option, "x" * 100_000)
    assert result.exit_code == 2
    assert all(len(line) <= MESSAGE_LENGTH for line in result.stderr.splitlines())
