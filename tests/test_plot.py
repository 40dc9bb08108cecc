import re
import struct
import xml.etree.ElementTree as ET

import pytest

from chargen.plot import curves
from tests.conftest import chargen, invoke

RECORDS = [
    {"characters": 1000 * n, "seconds": 2.0 * n, "training_bpc": 4 / n, "validation_bpc": 5 / n, "step": n}
    for n in range(1, 6)
]


def test_a_picture_shows_runs_as_svg_or_png():
    drawn = curves([("one", RECORDS), ("two", RECORDS[:1])], "svg")
    ET.fromstring(drawn)
    assert curves([("one", RECORDS)], "png")[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", curves([("one", RECORDS)], "png")[16:24])
    assert width > height > 300


def test_the_command_draws_runs_and_refuses_other_files(trained, here):
    done = chargen("plot", str(trained), str(trained), "--output", "curves.svg", cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "curves.svg").read_bytes().startswith(b"<?xml")
    again = invoke("plot", trained, "--output", "curves.svg")
    assert again.exit_code == 1
    assert "exists and is left as it is" in again.stderr
    other = invoke("plot", trained, "--output", "curves.gif")
    assert other.exit_code == 2
    assert "neither .svg nor .png" in other.stderr
    (here / "none").mkdir()
    assert "is not a run" in invoke("plot", "none", "--output", "a.svg").stderr


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_error_without_matplotlib_says_how_to_install_it(monkeypatch, kind):
    import sys

    from chargen import ChargenError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ChargenError, match=r"pip install 'chargen\[plot\]'"):
        curves([("one", RECORDS)], kind)


RECORD = {"characters": 1000, "seconds": 2.0, "training_bpc": 2.4, "validation_bpc": 2.5, "step": 1}


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_picture_names_every_run_as_it_is_called(kind):
    names = ["_x", r"$\foo$", "a$b$", "r\udcff", "e\x1b[0m", "_", "$$"]
    drawn = curves([(name, [RECORD]) for name in names], kind)
    if kind == "svg":
        told = re.findall(r"<!-- (.*): 2\.500 at best -->", drawn.decode())
        assert told == ["_x", r"$\foo$", "a$b$", r"r\udcff", r"e\u001b[0m", "_", "$$"]
