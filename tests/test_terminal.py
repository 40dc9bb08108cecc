import pytest

from chargen.terminal import Clusters


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
def test_clusters_are_whole_however_the_text_is_split(text, wanted):
    one_by_one, at_once = Clusters(), Clusters()
    clusters = [c for character in text for c in one_by_one.add(character, (1.0,))] + one_by_one.release()
    assert [c for c, _ in clusters] == wanted
    assert [n for _, n in clusters] == [float(len(c)) for c in wanted]
    assert at_once.add(text, (1.0,) * len(text)) + at_once.release() == clusters
