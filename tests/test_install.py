"""What is installed where, and what works where TensorFlow is not installed."""

import configparser
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import HANG, SMALL, chargen, invoke

ROOT = Path(__file__).parents[1]
WITHOUT = "import sys; sys.modules.update(tensorflow=None, keras=None); from chargen.__main__ import main; main()"


def requirements():
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", "utf-8")
    return [Requirement(line) for line in metadata["options"]["install_requires"].split("\n") if line]


@pytest.mark.parametrize(
    ("system", "machine", "python", "with_tensorflow"),
    [
        ("linux", "x86_64", "3.11", True),
        ("linux", "aarch64", "3.13", True),
        ("darwin", "arm64", "3.12", True),
        ("win32", "AMD64", "3.13", True),
        ("linux", "x86_64", "3.14", False),
        ("linux", "riscv64", "3.13", False),
        ("darwin", "x86_64", "3.13", False),
        ("win32", "ARM64", "3.13", False),
    ],
)
def test_tensorflow_is_required_where_there_is_one(system, machine, python, with_tensorflow):
    here = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    required = {r.name for r in requirements() if r.marker is None or r.marker.evaluate(here)}
    assert {"numpy", "click", "safetensors", "msgspec", "tqdm", "platformdirs"} <= required
    assert required & {"tensorflow", "keras"} == ({"tensorflow", "keras"} if with_tensorflow else set())


@pytest.mark.parametrize(
    "words",
    [
        ["train", "book.txt", *SMALL, "--steps", "5"],
        ["train", "book.txt", "--distribute", "workers"],
        ["eval", "book.txt", "--model", "model"],
        ["export", "--model", "model", "--output", "exports"],
        ["lab", "memory"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_command_that_needs_tensorflow_says_in_one_line_that_it_is_missing(words, trained, here):
    words = [str(trained) if word == "model" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=here, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: this command needs TensorFlow, which is not installed: ")
    assert [file.name for file in here.iterdir()] == ["book.txt"]


def test_training_says_that_tensorflow_is_missing_before_it_reads_the_text(monkeypatch, here):
    read = []
    monkeypatch.setattr("chargen.training.jobs.new", lambda *request: read.append(request))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    result = invoke("train", "book.txt")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: this command needs TensorFlow, which is not installed: ")
    assert not read


@pytest.mark.long
def test_a_wheel_installed_without_tensorflow_samples_draws_and_exports(tmp_path, trained):
    built = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        copy = tmp_path / "source" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / file).read_bytes())
    subprocess.run([*built, "--wheel-dir", tmp_path, tmp_path / "source"], check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=True)
    bin = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = tmp_path.glob("*.whl")
    numpy_side = [str(r).split(";")[0] for r in requirements() if r.name not in ("tensorflow", "keras")]
    pip = [bin / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *numpy_side, "matplotlib>=3.9,<4"], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True, capture_output=True)

    def run(*words):
        return subprocess.run(
            [bin / "chargen", *words], cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False
        )

    model = ["--model", str(trained)]
    sampled = ["sample", *model, "--seed", "the ", "--length", "50", "--random-seed", "1"]
    for words in (
        ["--help"],
        sampled,
        ["plot", str(trained), "--output", "curves.svg"],
        ["export", *model, "--format", "numpy", "--format", "html", "--output", "exports"],
    ):
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert run(*sampled).stdout == chargen(*sampled, cwd=tmp_path).stdout
    (tmp_path / "book.txt").write_text("a text to learn from " * 500)
    done = run("train", "book.txt", "--steps", "5")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this command needs TensorFlow")
    assert done.stderr.count("\n") == 1
