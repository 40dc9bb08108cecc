"""The page of ``chargen export --format html``, in a real browser, by clicks and typing."""

import re
import shutil
import time

import pytest

from chargen import ChargenError
from chargen.export import FORMATS
from chargen.export.html import verify_in_browser
from chargen.export.verify import GREEDY_CHARACTERS
from chargen.writing.clone import Clone
from tests.conftest import HANG
from tests.export.test_export import exported, greedy, random_model

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("chromium") is None or shutil.which("chromedriver") is None,
        reason="needs a browser and its driver: apt-get install chromium chromium-driver",
    ),
    pytest.mark.xdist_group("browser"),  # one browser for all
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,1200"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def model():
    return random_model(3)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return exported(model, "html", "none", tmp_path_factory.mktemp("page"))[0]


@pytest.fixture
def page(browser, path):
    return Page(browser, path)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return exported(random_model(2, 400), "html", "int8", tmp_path_factory.mktemp("large"))[0]


@pytest.fixture
def slow(browser, large):
    """The page of a model that is large enough to be stopped."""
    return Page(browser, large)


class Page:
    """A person who uses the page."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.wait(lambda: self.attribute("parity", "data-result"))

    def element(self, name):
        return self.browser.find_element("id", name)

    def attribute(self, name, attribute):
        return self.element(name).get_attribute(attribute)

    def wait(self, true):
        end = time.monotonic() + HANG
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    def slide(self, name, value):
        """Move a slider by its keys, as somebody without a mouse does."""
        from selenium.webdriver.common.keys import Keys

        slider = self.element(name)
        slider.send_keys(Keys.HOME)
        least, step = float(slider.get_attribute("min")), float(slider.get_attribute("step"))
        slider.send_keys(Keys.ARROW_RIGHT * round((value - least) / step))
        assert float(slider.get_attribute("value")) == pytest.approx(value)

    def type(self, name, text):
        self.element(name).clear()
        # Chromium's driver can't type characters beyond 16 bits, which are pasted.
        if max(map(ord, text), default=0) < 0x10000:
            self.element(name).send_keys(text)
        else:
            self.browser.execute_script("arguments[0].value = arguments[1]", self.element(name), text)

    def generate(self):
        self.element("generate").click()
        self.finished()

    def finished(self):
        self.wait(
            lambda: self.attribute("text", "aria-busy") == "false" and self.element("stop").get_attribute("disabled")
        )

    @property
    def text(self):
        return self.attribute("text", "textContent")


def test_the_page_verifies_itself_when_it_opens(page):
    assert page.attribute("parity", "data-result") == "equal"
    assert "Verified" in page.element("parity").text
    assert page.element("name").text == "book"
    assert "3 x 20 LSTM" in page.element("description").text


@pytest.mark.parametrize("numbers", FORMATS["html"].quantizations)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_browser_that_export_finds_verifies_the_page_of_every_model(tmp_path, layers, numbers):
    _, found = exported(random_model(layers), "html", numbers, tmp_path)
    assert f"which wrote the same {GREEDY_CHARACTERS} greedy characters" in found[0]


def test_a_page_with_damaged_weights_says_so(browser, path, tmp_path):
    damaged = tmp_path / path.name
    text = path.read_text("utf-8")
    at = text.index('id="vectors">') + 13
    damaged.write_text(
        text[:at] + "AACAQQAAgEEAAIBBAACAQQAAgEEAAIBB" + text[at + 32 :], "utf-8"
    )  # some biases become 16
    assert Page(browser, damaged).attribute("parity", "data-result") == "different"
    with pytest.raises(ChargenError, match="does not agree with the model"):
        verify_in_browser(damaged)


def test_a_browser_without_webassembly_writes_the_same(browser, path, tmp_path):
    without = tmp_path / path.name
    without.write_text(re.sub(r'(id="product">)[^<]*', r"\1", path.read_text("utf-8")), "utf-8")
    assert Page(browser, without).attribute("parity", "data-result") == "equal"


def test_a_page_that_cannot_start_says_so(browser, path, tmp_path):
    broken = tmp_path / path.name
    broken.write_text(path.read_text("utf-8").replace('id="about">{', 'id="about">'), "utf-8")
    assert Page(browser, broken).attribute("parity", "data-result") == "broken"
    with pytest.raises(ChargenError, match="does not agree with the model"):
        verify_in_browser(broken)


def test_the_page_stays_responsive_while_it_writes(slow):
    slow.slide("length", 5000)
    slow.type("seed", "The gray " * 100)
    slow.browser.execute_script(
        "window.longest = 0; let last = performance.now(); (function frame() { const now = performance.now();"
        "longest = Math.max(longest, now - last); last = now; requestAnimationFrame(frame); })()"
    )
    slow.generate()
    assert slow.browser.execute_script("return longest") < 500


@pytest.mark.parametrize("seed", ["The gray ", "é漢字😀ß"])
def test_its_greedy_text_equals_that_of_the_clone(page, model, seed):
    page.type("seed", seed)
    page.slide("temperature", 0)
    page.slide("length", 300)
    page.generate()
    assert page.text == greedy(model, seed, 300)
    assert "300 characters written" in page.element("status").text


def test_texts_are_equal_only_with_equal_random_seeds(page):
    texts = []
    for random_seed in ("1", "1", "2"):
        page.type("random-seed", random_seed)
        page.generate()
        texts.append(page.text)
    assert texts[0] == texts[1] != texts[2]
    assert all(len(text) == len("The") + 1000 for text in texts)


def test_a_draw_follows_the_models_probabilities_and_top_p_narrows_it(page, model):
    import numpy as np

    page.type("seed", "T")
    logits = Clone(model.weights, model.vocabulary).feed("T").astype(float)
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()

    def counts(temperature, top_p):
        drawn = page.browser.execute_script(
            "const random = generator(5), logits = [...arguments[0]];"
            "return Array.from({length: 4000}, () => draw(logits, arguments[1], arguments[2], random))",
            logits.tolist(), temperature, top_p,
        )  # fmt: skip
        return np.bincount(drawn, minlength=len(expected)) / 4000

    assert np.abs(counts(1, 1) - expected).max() < 0.04
    sharp = expected**2 / (expected**2).sum()
    assert np.abs(counts(0.5, 1) - sharp).max() < 0.04
    order = np.argsort(-expected, kind="stable")
    kept = order[: int((np.cumsum(expected[order]) < 0.5).sum()) + 1]
    narrowed = counts(1, 0.5)
    assert set(np.flatnonzero(narrowed)) == set(kept)


def test_a_text_is_stopped_and_continued(slow):
    slow.slide("length", 5000)
    slow.type("random-seed", "3")
    slow.element("generate").click()
    slow.element("stop").click()
    slow.finished()
    stopped = slow.text
    assert len(stopped) < 5003
    slow.element("continue").click()
    slow.finished()
    assert slow.text.startswith(stopped)
    assert len(slow.text) == len(stopped) + 5000
    slow.generate()
    assert slow.text.startswith(stopped[:100])
    assert len(slow.text) == 5003


def test_the_keyboard_alone_writes_and_stops(slow):
    from selenium.webdriver.common.keys import Keys

    slow.type("seed", "The")
    slow.slide("length", 5000)
    slow.element("seed").send_keys(Keys.CONTROL, Keys.ENTER)
    slow.wait(lambda: len(slow.text) > 100)
    slow.element("seed").send_keys(Keys.ESCAPE)
    slow.finished()
    assert 100 < len(slow.text) < 5003


def test_surprisal_is_shaded_on_request(page):
    page.generate()
    plain = page.text
    assert not page.browser.find_elements("css selector", "#text [class^=b]")
    page.element("shade").click()
    assert page.browser.find_elements("css selector", "#text [class^=b]")
    assert page.element("legend").is_displayed()
    assert page.text == plain


def test_unknown_characters_are_repaired_or_reported(page):
    page.type("seed", "Жthe’ É?")
    page.generate()
    assert page.text.startswith("the' é")
    assert "Ж ?" in page.element("status").text


def test_every_control_has_a_name_that_a_screen_reader_reads(page):
    for control in page.browser.find_elements("css selector", "input, textarea, button, main"):
        assert control.accessible_name


def test_the_page_fits_a_phone(browser, path):
    browser.set_window_size(375, 740)
    try:
        page = Page(browser, path)
        page.generate()
        width = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
    finally:
        browser.set_window_size(900, 1200)
