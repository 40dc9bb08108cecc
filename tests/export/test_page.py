"""The page of ``chargen export --format html``, in a real browser, by clicks and typing."""

import re
import shutil
import time

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from chargen import ChargenError
from chargen.export import FORMATS
from chargen.export.html import verify_in_browser
from chargen.export.verify import GREEDY_CHARACTERS
from chargen.writing.clone import Clone
from chargen.writing.sampler import nats_of
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
def browser():
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
    """A person who uses the page, and finds it empty."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get("about:blank")  # a page that is left keeps its text
        browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "local_storage"})
        self.open(path)

    def open(self, path):
        self.browser.get(path.as_uri())
        self.wait(lambda: self.attribute("parity", "data-result"))
        if self.attribute("parity", "data-result") == "equal":
            self.finished()
            if self.attribute("settings", "open") is None:
                self.browser.find_element("css selector", "summary").click()

    def element(self, name):
        return self.browser.find_element("id", name)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def attribute(self, name, attribute):
        return self.element(name).get_attribute(attribute)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def result(self, script, *arguments):
        """Return what an asynchronous function of the page returns."""
        call = f"const done = arguments[arguments.length - 1]; (async () => {{ {script} }})().then(done)"
        return self.browser.execute_async_script(call, *arguments)

    def wait(self, true):
        end = time.monotonic() + HANG
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    def slide(self, name, value):
        """Move a slider by its keys, as somebody without a mouse does."""
        slider = self.element(name)
        slider.send_keys(Keys.HOME)
        least, step = float(slider.get_attribute("min")), float(slider.get_attribute("step"))
        slider.send_keys(Keys.ARROW_RIGHT * round((value - least) / step))
        assert float(slider.get_attribute("value")) == pytest.approx(value)

    def press(self, *keys):
        self.element("text").send_keys(*keys)

    def paste(self, text):
        """Replace the text by another one. Chromium's driver can't type characters beyond 16 bits."""
        change = "field.focus(); field.select(); document.execCommand('insertText', false, arguments[0])"
        self.run(change, text)
        assert self.text == text

    def cursor(self, place):
        self.run("field.focus(); field.setSelectionRange(arguments[0], arguments[0])", place)

    def generate(self):
        self.element("continue").click()
        self.finished()

    def finished(self):
        self.wait(lambda: self.attribute("text", "aria-busy") == "false" and self.element("words").is_enabled())

    def ask(self):
        """Ask for alternatives by the keyboard, and return their texts."""
        self.press(Keys.CONTROL, Keys.SPACE)
        return self.offered()

    def offered(self):
        self.wait(lambda: self.run("return offers.isOpen"))
        return self.run("return offers.options.map(option => option.text)")

    def click_on(self, word):
        """Click on the middle of a word of the text."""
        place = self.text.index(word)
        x, y = self.run(
            "const {left, top, width, height} = rangeOf(arguments[0], arguments[1]).getBoundingClientRect();"
            "return [left + width / 2, top + height / 2].map(Math.round)",
            place, place + len(word),
        )  # fmt: skip
        webdriver.ActionChains(self.browser).move_by_offset(x, y).click().move_by_offset(-x, -y).perform()

    @property
    def text(self):
        text = self.run("return field.value")
        assert text == self.run("return draft.text")
        assert text + "\u200b" == self.attribute("mirror", "textContent")  # so that marks are at their places
        return text

    @property
    def marked(self):
        """The text of the model that is not accepted yet."""
        return self.run("return Array.from(mirror.querySelectorAll('.model'), one => one.textContent).join('')")


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
    slow.slide("length", 2000)
    slow.paste("The gray " * 100)
    slow.run(
        "window.longest = 0; let last = performance.now(); (function frame() { const now = performance.now();"
        "longest = Math.max(longest, now - last); last = now; requestAnimationFrame(frame); })()"
    )
    slow.generate()
    assert slow.run("return longest") < 500


@pytest.mark.parametrize("seed", ["The gray ", "é漢字😀ß"])
def test_its_greedy_text_equals_that_of_the_clone(page, model, seed):
    page.paste(seed)
    page.slide("temperature", 0)
    page.slide("length", 300)
    page.generate()
    assert page.text == greedy(model, seed, 300)
    assert "300 characters written" in page.element("status").text


def test_texts_are_equal_only_with_equal_random_seeds(page):
    texts = []
    for random_seed in ("1", "1", "2"):
        page.paste("The")
        page.element("random-seed").clear()
        page.element("random-seed").send_keys(random_seed)
        page.generate()
        texts.append(page.text)
    assert texts[0] == texts[1] != texts[2]
    assert all(len(text) >= len("The") + 300 for text in texts)


def test_a_draw_follows_the_models_probabilities_and_top_p_narrows_it(page, model):
    logits = Clone(model.weights, model.vocabulary).feed("T").astype(float)
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()

    def counts(temperature, top_p):
        drawn = page.run(
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
    slow.element("continue").click()
    slow.element("stop").click()
    slow.finished()
    stopped = slow.text
    assert len(stopped) < 5000
    slow.slide("length", 100)
    slow.generate()
    assert slow.text.startswith(stopped)
    assert slow.marked == slow.text
    assert len(slow.run("return Array.from(field.value)")) == len(stopped) + 100


def test_the_keyboard_alone_writes_stops_and_accepts(slow):
    slow.slide("length", 5000)
    slow.press("The", Keys.CONTROL, Keys.ENTER)
    slow.wait(lambda: len(slow.run("return field.value")) > 100)
    slow.press(Keys.ESCAPE)
    slow.finished()
    assert 100 < len(slow.text) < 5000
    assert "The" + slow.marked == slow.text
    slow.press(Keys.CONTROL, Keys.SHIFT, Keys.ENTER)
    assert not slow.marked
    slow.press(Keys.CONTROL, "z")
    assert "The" + slow.marked == slow.text
    slow.press(Keys.CONTROL, "z")
    assert slow.text == "The"


def test_typing_stops_the_model_and_accepts_what_it_wrote(slow):
    slow.slide("length", 5000)
    slow.press(Keys.CONTROL, Keys.ENTER)
    slow.wait(lambda: len(slow.run("return field.value")) > 100)
    assert slow.marked
    slow.press("The")
    slow.finished()
    assert slow.text.endswith("The")
    assert len(slow.text) < 5000
    assert not slow.marked


def test_the_reading_of_a_long_text_is_stopped(slow):
    text = "The gray " * 2000
    slow.run("refresh = async () => {}")
    slow.paste(text)
    slow.press(Keys.CONTROL, Keys.ENTER)
    slow.press(Keys.ESCAPE)
    slow.finished()
    assert slow.text == text
    assert slow.run("return reader.before(Infinity, true).place") < len(text) - 32


def test_surprisal_is_shaded_on_request(page):
    page.press("The gray ")
    page.generate()
    plain = page.text
    assert not page.all("#mirror [class*=b]")
    page.element("shade").click()
    page.wait(lambda: page.all("#mirror [class*=b]"))
    assert page.element("legend").is_displayed()
    assert page.text == plain


def test_the_surprisal_is_that_of_the_clone(page, model):
    text = "The gray goat lay there. " * 9
    page.paste(text)
    page.result("while (!await reader.refresh(() => {}));")
    ids = model.vocabulary.encode(model.vocabulary.repair(text)[0])
    expected = nats_of(Clone(model.weights, model.vocabulary).read(ids)[:-1], ids[1:]) / np.log(2)
    assert np.allclose(page.run("return reader.bits.slice(1)"), expected, atol=1e-4)


def test_characters_are_read_as_the_command_reads_them(page, model):
    texts = ["The", "Жthe’ É?", "e\u0301", "a\u0301\u0301", "😀🧑\u200d😀", "“É”\u00a0仮 ж\tA\u0301Ω", ""]
    for text in texts:
        read, skipped = page.run(
            "const {ids, skipped} = encode(arguments[0]); return [ids, skipped.map(one => one.character)]", text
        )
        expected, unknown = model.vocabulary.repair(text)
        assert ("".join(model.vocabulary.characters[id] for id in read), set(skipped)) == (expected, set(unknown))
    page.press("Жthe?")
    assert "Ж ?" in page.element("status").text
    assert [one.get_attribute("textContent") for one in page.all("#mirror .unknown")] == ["Ж", "?"]


def test_a_person_writes_with_the_model_and_finds_the_text_again(page, path):
    page.press("The gray ")
    first = page.ask()
    assert len(first) == len(set(first)) == 5
    page.press("2")
    one = "The gray " + first[1]
    assert page.text == one
    second = page.offered()
    page.press(Keys.TAB)
    two = one + second[0]
    assert page.text == two
    third = page.offered()
    page.element("option-5").click()
    three = two + third[4]
    assert page.text == three
    page.offered()
    page.press(Keys.ESCAPE)
    assert not page.element("offer").is_displayed()
    page.press("1 hat")
    four = f"{three}1 hat"  # a number is a number while no list is open
    assert page.text == four

    page.cursor(4)
    page.press("t", Keys.BACKSPACE, "hot ")
    five = "The hot " + four[4:]
    assert page.text == five
    page.click_on("gray")
    others = page.offered()
    assert page.element("offer-title").text.startswith("Instead of “gray” (")
    assert "gray" not in others
    page.press("1")
    six = five.replace("gray", others[0], 1)
    assert page.text == six

    for text in (five, "The " + four[4:]):
        page.press(Keys.CONTROL, "z")
        assert page.text == text
    for text in (five, six):
        page.press(Keys.CONTROL, Keys.SHIFT, "z")
        assert page.text == text
    while page.element("undo").is_enabled():
        page.press(Keys.CONTROL, "z")
    assert page.text == ""
    while page.element("redo").is_enabled():
        page.element("redo").click()
    page.generate()
    written, marked = page.text, page.marked
    assert marked
    page.open(path)
    assert (page.text, page.marked) == (written, marked)


def test_words_come_by_themselves_after_a_pause_unless_that_is_turned_off(page):
    page.press("The ")
    page.offered()
    page.press(Keys.ARROW_LEFT)  # the arrows are the text's
    assert not page.run("return offers.isOpen")
    assert page.run("return field.selectionStart") == 3
    page.element("offers").click()
    page.press("y ")
    time.sleep(1)
    assert not page.run("return offers.isOpen")


def test_sentences_are_offered_when_asked_again(page):
    page.press("The ")
    page.ask()
    page.press(Keys.CONTROL, Keys.SPACE)
    page.wait(lambda: page.run("return offers.kind") == "sentences" and page.element("offer").is_displayed())
    sentences = page.offered()
    assert max(map(len, sentences)) > 20
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.attribute("text", "aria-activedescendant") == "option-2"
    page.press(Keys.ENTER)
    assert page.text == "The " + sentences[1].replace("\r", "\n")


@pytest.mark.parametrize("seed", ["The gray ", "Th", "a '", "é漢"])
def test_the_words_are_those_of_the_clone(page, model, seed):
    clone = Clone(model.weights, model.vocabulary)
    clone.feed(seed)
    expected = clone.alternatives(60, temperature=0)[:5]  # of so many rows, the search forgets none of the best
    page.paste(seed)
    found = page.result("return likelyWords(5, await reader.at(encoded.ids.length, true))")
    assert [one["text"] for one in found] == [one.text for one in expected]
    assert [one["probability"] for one in found] == pytest.approx([one.probability for one in expected], rel=1e-3)


def test_the_state_anywhere_is_that_of_the_text_as_it_is(page):
    differences = page.result(
        """
        const random = generator(7), among = count => Math.floor(random() * count), found = [];
        const some = count => Array.from({length: count}, () => among(characters.length));
        let text = some(1500);
        const one = new Reader();
        one.opening = reader.opening;
        for (let n = 0; n < 40; n++) {
          text = text.toSpliced(among(text.length + 1), among(100), ...some(among(120)));
          one.update(text);
          if (n % 3 === 0) await one.at(among(text.length + 1));
          if (n % 4 === 0) await one.refresh(() => {});
          const place = 1 + among(text.length), {logits} = await one.at(place, true);
          const expected = (await step(text.slice(0, place), zeroState)).logits.at(-1);
          found.push(Math.max(...logits.map((logit, v) => Math.abs(logit - expected[v]))));
        }
        await one.refresh(() => {});
        const {logits} = await step(text, zeroState), bits = text.slice(1).map((id, n) => bitsOf(logits[n], id));
        found.push(Math.max(...bits.map((bit, n) => Math.abs(bit - one.bits[n + 1]))));
        return found;
        """
    )
    assert len(differences) == 41
    assert max(differences) == 0


def test_an_edit_anywhere_in_20_000_characters_is_answered_after_reading_few(page):
    text = ("The gray goat lay there. " * 800)[:20_000]
    page.paste(text)
    page.result("while (!await reader.refresh(() => {}));")
    assert page.run("return reader.kept.length") <= 20_000 / 32 + 1
    page.element("offers").click()
    page.run("refresh = async () => {}")
    for place in (19_000, 25, 10_003, 15_000):  # the last two are behind an edit whose consequences are not read yet
        page.cursor(place)
        page.press("the ")
        page.ask()
        assert page.run("return reader.count") <= 32 + 4 + 64 + 32  # to the change, the change, to a state behind it
        page.press(Keys.ESCAPE)
        assert page.text[place : place + 4] == "the "


def test_any_edits_are_taken_back_step_by_step_and_done_again(page):
    assert page.run(
        """
        const random = generator(3), among = count => Math.floor(random() * count);
        for (let round = 0; round < 50; round++) {
          const one = new Draft("abc def", [[2, 5]]), seen = JSON.stringify([one.text, one.marks]), states = [seen];
          for (let n = 0; n < 30; n++) {
            const at = among(one.text.length + 1), removed = one.text.slice(at, at + among(4) * among(2));
            const by = ["typing", "choice", n >> 2][among(3)];
            if (n % 7 === 6) one.accept();
            else one.replace({at, removed, inserted: "xy z".slice(0, among(5))}, by, 1000 * n);
            const [{length}, marks] = [one.text, one.marks.flat()];
            if (marks.some((place, n) => place > length || place < (marks[n - 1] ?? 0))) return false;
          }
          const end = JSON.stringify([one.text, one.marks]);
          while (one.undo());
          if (JSON.stringify([one.text, one.marks]) !== seen) return false;
          while (one.redo());
          if (JSON.stringify([one.text, one.marks]) !== end) return false;
        }
        return true;
        """
    )


def test_a_word_is_a_step_and_so_is_a_run_of_the_model(page):
    page.press("The gray goat")
    page.generate()
    for text in ("The gray goat", "The gray ", "The ", ""):
        page.press(Keys.CONTROL, "z")
        assert page.text == text
    page.press(Keys.CONTROL, "y")
    assert page.text == "The "


def test_the_text_is_saved_as_a_file(page, tmp_path):
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.press("The gray\ngoat")
    page.element("save").click()
    page.wait((tmp_path / "book.txt").exists)
    assert (tmp_path / "book.txt").read_text("utf-8") == "The gray\ngoat"


def test_a_screen_reader_is_told_what_everything_is(page):
    for control in page.all("input, textarea, button:not([hidden]), summary"):
        assert control.accessible_name
    assert page.element("text").aria_role == "textbox"
    page.press("The ")
    page.ask()
    assert page.attribute("text", "aria-controls") == "list"
    assert page.element("list").aria_role == "listbox"
    assert page.element("list").accessible_name == "Next word"
    options = page.all("#list > *")
    assert [option.aria_role for option in options] == ["option"] * 5
    assert [option.get_attribute("aria-selected") for option in options] == ["false"] * 5
    assert options[0].accessible_name.startswith("1")
    assert page.element("told").aria_role == "status"  # which is polite
    assert page.attribute("told", "textContent").startswith("Next word: 1 ")
    page.press(Keys.ARROW_UP)
    assert page.attribute("text", "aria-activedescendant") == "option-5"
    assert options[4].get_attribute("aria-selected") == "true"
    page.press(Keys.ESCAPE)
    assert page.attribute("text", "aria-activedescendant") is None
    page.press(Keys.ESCAPE, Keys.SHIFT, Keys.TAB)  # nothing holds the focus back
    assert page.browser.switch_to.active_element.get_attribute("id") == "save"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_have_enough_contrast(page, scheme):
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.press("The ")
    page.generate()
    page.ask()
    script = """
        const canvas = new OffscreenCanvas(1, 1).getContext("2d"), style = getComputedStyle(document.body);
        const pixel = (...colours) => {
          for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
          return Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3));
        };
        const of = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
        const shade = document.querySelector("#legend :last-child");
        const pairs = [["ink", "paper"], ["faint", "paper"], ["accent", "paper"], ["good", "paper"], ["bad", "paper"],
          ["on-accent", "accent"], ["ink", "raised"], ["faint", "raised"], ["ink", "chosen"], ["faint", "chosen"]];
        return [...pairs.map(([ink, ground]) => [`${ink} on ${ground}`, pixel(of(ink)), pixel(of(ground))]),
          ["ink on the model's", pixel(of("ink")), pixel(of("paper"), of("model"))],
          ["ink on the deepest shade", pixel(of("ink")), pixel(of("paper"), getComputedStyle(shade).backgroundColor)]];
    """

    def luminance(colour):
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    try:
        for name, *pair in page.run(script):
            low, high = sorted(map(luminance, pair))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name  # WCAG 2, level AA
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_page_fits_a_phone(browser, path):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        page = Page(browser, path)
        page.press("The ")
        page.generate()
        page.ask()
        assert page.run("return document.documentElement.scrollWidth") <= 360
        small = page.run(
            "return Array.from(document.querySelectorAll('button, summary, input, label.check, li')).filter(one => "
            "one.offsetParent && (one.closest('label') ?? one).getBoundingClientRect().height < 44).map(one => one.id)"
        )
        assert small == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
