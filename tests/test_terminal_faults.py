"""What a terminal, a pipe, a closed stream or Ctrl-C does to the command, and what the command does to its process."""

import os

from click.testing import CliRunner

from chargen import process
from chargen.cli import main


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, [*map(str, arguments)], input=stdin)


def test_a_command_inside_another_program_leaves_its_environment_alone(trained, monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    assert run("sample", "--model", trained, "--length", 5).exit_code == 0
    assert not process.owned()
    assert dict(os.environ) == before
