"""Programs that people use speak to the server."""

import json
import os
import shutil
import subprocess
import sys

import openai
import pytest

from tests.conftest import HANG
from tests.serving.conftest import until

pytestmark = pytest.mark.xdist_group("server")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_completes_and_streams(server):
    def curl(*options):
        command = ["curl", "--silent", "--show-error", "--no-buffer", f"{server.url}/completions", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
        return done.stdout

    request = {"prompt": "the ", "max_tokens": 30, "seed": 1}
    expected = server.texts(max_tokens=30, seed=1)[0]
    assert json.loads(curl("--json", json.dumps(request)))["choices"][0]["text"] == expected
    events = curl("-d", json.dumps({**request, "stream": True})).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-2]]
    assert "".join(pieces) == expected


@pytest.mark.long
def test_openai(server):
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["book"]
        assert client.models.retrieve("book").id == "book"

        def complete(**fields):
            return client.completions.create(model="book", prompt="the ", seed=1, **fields)

        expected = server.texts(max_tokens=100, seed=1, n=2)
        whole = complete(max_tokens=100, n=2, logprobs=3)
        assert [choice.text for choice in whole.choices] == expected
        assert whole.usage.completion_tokens == 200
        scores = whole.choices[1].logprobs
        assert scores.tokens == list(expected[1])
        assert all(
            value <= max(best.values())
            for value, best in zip(*(scores.token_logprobs, scores.top_logprobs), strict=True)
        )
        pieces = list(complete(max_tokens=100, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces) == expected[0]
        assert pieces[-1].choices[0].finish_reason == "length"
        stop = expected[0][20:22]
        ended = complete(max_tokens=100, stop=[stop], extra_body={"no_repeat": 60}).choices[0]
        assert (ended.text, ended.finish_reason) == (expected[0][: expected[0].index(stop)], "stop")
        with pytest.raises(openai.BadRequestError, match="temperature: expected float >= 0"):
            complete(temperature=-1)
        with pytest.raises(openai.NotFoundError, match="choose from book"):
            client.completions.create(model="other", prompt="the ")


@pytest.mark.long
def test_llm(server, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f'- model_id: mine\n  model_name: book\n  api_base: "{server.url}"\n  completion: true\n'
    )
    env = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for options in ([], ["--no-stream"]):
        words = ["-m", "llm", "prompt", "-m", "mine", "the ", "-o", "max_tokens", "40", "-o", "seed", "1", *options]
        done = subprocess.run(
            [sys.executable, *words], env=env, capture_output=True, text=True, timeout=HANG, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.removesuffix("\n") == server.texts(max_tokens=40, seed=1)[0]


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="needs a browser and its driver: apt-get install chromium chromium-driver",
)
def test_a_browser_writes_on_the_page_and_sees_a_run_grow(server):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,1200"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        root = server.url.removesuffix("v1")
        driver.get(root)
        until(lambda: driver.find_element("id", "parity").get_attribute("data-result") == "equal")
        until(lambda: driver.find_element("id", "continue").is_enabled())
        driver.find_element("id", "continue").click()
        until(lambda: len(driver.find_element("id", "text").get_property("value")) > 100)
        driver.get(f"{root}runs")
        driver.find_element("link text", "book").click()
        until(lambda: driver.find_element("css selector", "svg polyline"))
        rows = len(driver.find_elements("css selector", "tr"))
        metrics = server.folder / "runs" / "book" / "metrics.jsonl"
        text = metrics.read_text("utf-8")
        last = json.loads(text.splitlines()[-1])
        later = {**last, "step": 2 * last["step"], "characters": 2 * last["characters"]}
        metrics.write_text(f"{text}{json.dumps(later)}\n", "utf-8")
        until(lambda: len(driver.find_elements("css selector", "tr")) == rows + 1)
        metrics.write_text(text, "utf-8")
    finally:
        driver.quit()
