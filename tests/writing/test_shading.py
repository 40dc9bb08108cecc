import re
from html.parser import HTMLParser

from chargen.writing.shading import LEVELS, TERMINAL_COLOURS, page, shade


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.inside, self.text, self.classes, self.links = False, "", [], []

    def handle_starttag(self, tag, attributes):
        self.inside = self.inside or tag == "pre"
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if self.inside and tag == "span":
            self.classes.append(dict(attributes)["class"])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        self.text += data if self.inside else ""


def test_a_page_holds_the_exact_text_and_no_links():
    text = 'a <b> & "é" 漢\n😀'
    parser = Text()
    parser.feed(page("x & y", "1 < 2", [(c, 0.1) for c in text]))
    assert (parser.text, parser.links, parser.classes) == (text, [], [])


def test_a_character_is_shaded_by_its_bits_and_equal_neighbours_together():
    parser = Text()
    parser.feed(page("", "", [("a", 0.0), ("b", 0.7), ("c", 1.0), ("d", 2.1), ("e", 99.0)]))
    assert parser.classes == ["b1", "b3", "b12"]  # 1.01 and 1.44 bits, 3.03, and what is off the scale


def test_the_more_surprising_is_the_redder():
    assert shade("a", 0.1) == "a"
    shades = [re.findall(r"48;5;(\d+)m", shade("a", nats)) for nats in (1, 2, 4, 9)]
    assert [len(found) for found in shades] == [1] * 4
    assert len({found[0] for found in shades}) == 4
    assert shade("\n", 9.0) == "\n"
    assert len(TERMINAL_COLOURS) == LEVELS + 1
