"""What several tests share: small texts, a small trained run, and the command as a real process."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
# Texts are kept where the platform keeps caches, which is not for tests to fill.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="chargen-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# Two test processes on two cores: each does with one.
for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SMALL = ["--units", "12", "--embedding", "6", "--batch-size", "4", "--seq-length", "8"]


@pytest.fixture(scope="session")
def text() -> str:
    """Some 6,000 characters that a small model can learn something of, without being periodic."""
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "saw",
        "what",
        "it",
        "was",
        "that",
        "the",
        "old",
        "hat",
        "had",
        "in",
        "it\n",
    ]
    return " ".join(words[(i * i + i // 7) % len(words)] for i in range(1700))


@pytest.fixture
def here(tmp_path, monkeypatch, text) -> Path:
    """An empty working directory with book.txt in it."""
    (tmp_path / "book.txt").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory, text) -> Path:
    """A finished run of a small 2-layer model that has learnt something, made by the real command."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text(text, "utf-8")
    done = chargen(
        "train", "book.txt", *SMALL, "--layers", "2", "--units", "24", "--steps", "200", "--learning-rate", "0.014",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "book"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "chargen", *arguments]


def chargen(*arguments: str, cwd: Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    done = subprocess.run(command(*arguments), cwd=cwd, input=stdin, capture_output=True, timeout=120, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
