import re

import pytest

from chargen.terminal import Clusters, shade


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("abc", ["a", "b", "c"]),
        ("e\u0301a", ["e\u0301", "a"]),
        ("字宽", ["字", "宽"]),
        ("👩\u200d🚀!", ["👩\u200d🚀", "!"]),
        ("👍🏽x", ["👍🏽", "x"]),
        ("\u0301a", ["\u0301", "a"]),
        ("नि", ["नि"]),
        ("🇫🇷🇩🇪x", ["🇫🇷", "🇩🇪", "x"]),
        ("", []),
    ],
)
def test_characters_leave_in_whole_clusters_however_they_come(text, wanted):
    one_by_one, at_once = Clusters(), Clusters()
    clusters = [c for character in text for c in one_by_one.add(character, (1.0,))] + one_by_one.release()
    assert [c for c, _ in clusters] == wanted
    assert [n for _, n in clusters] == [float(len(c)) for c in wanted]
    assert at_once.add(text, (1.0,) * len(text)) + at_once.release() == clusters


def test_the_less_expected_is_the_redder():
    assert shade("a", 0.1) == "a"
    shades = [re.findall(r"48;5;(\d+)m", shade("a", nats)) for nats in (1, 2, 4, 9)]
    assert [len(found) for found in shades] == [1] * 4
    assert len({found[0] for found in shades}) == 4
    assert shade("\n", 9.0) == "\n"
