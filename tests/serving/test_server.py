"""`chargen serve` as other programs see it: a real process, and requests by HTTP."""

import json
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import HANG, invoke
from tests.serving.conftest import running, until

pytestmark = pytest.mark.xdist_group("server")


def sampled(trained, *arguments):
    """The text that `chargen sample` writes."""
    result = invoke("sample", "--model", trained, *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def drawn(trained, *arguments):
    """The texts that `chargen sample` writes as JSON, without the seed."""
    return [json.loads(line)["text"] for line in sampled(trained, "--json", *arguments).splitlines()]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ([], {}),
        (["--temperature", "1.2", "--top-p", "0.9"], {"temperature": 1.2, "top_p": 0.9}),
        (["--temperature", "0"], {"temperature": 0}),
        (["--top-k", "3", "--min-p", "0.1"], {"top_k": 3, "min_p": 0.1}),
        (["--words", "book", "--no-repeat", "9"], {"words": "book", "no_repeat": 9}),
        (["--best-of", "3"], {"best_of": 3}),
        (["--forbid", "[aeiou]"], {"forbid": "[aeiou]"}),
    ],
)
def test_the_same_seed_gives_the_text_of_sample(server, trained, options, fields):
    expected = sampled(trained, "--no-seed", "--seed", "the ", "--length", "60", "--random-seed", "3", *options)
    assert server.texts(max_tokens=60, seed=3, **fields) == [expected.removesuffix("\n")]


def test_each_prompt_has_the_texts_of_sample_in_their_order(server, trained):
    found = server.complete(["the ", "", "on a"], n=2, max_tokens=20, seed=5)
    assert [choice["index"] for choice in found["choices"]] == list(range(6))
    options = ("--length", "20", "--random-seed", "5", "--count", "2")
    expected = [text for seed in ("the ", "", "on a") for text in drawn(trained, "--seed", seed, *options)]
    assert [choice["text"] for choice in found["choices"]] == expected
    assert found["usage"] == {"prompt_tokens": 8, "completion_tokens": 120, "total_tokens": 128}
    assert found["model"] == "book"
    assert {choice["finish_reason"] for choice in found["choices"]} == {"length"}


def test_a_stream_has_the_same_text_in_pieces(server):
    fields = {"max_tokens": 300, "seed": 1, "n": 2, "logprobs": 1, "echo": True}
    with server.stream(**fields, stream_options={"include_usage": True}) as events:
        *events, last = events
    assert last == "[DONE]"
    *pieces, usage = map(json.loads, events)
    whole = server.complete(**fields)
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [one for piece in pieces for one in piece["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in own) == choice["text"]
        assert [one["finish_reason"] for one in own] == [None] * (len(own) - 1) + ["length"]
        for name, values in choice["logprobs"].items():
            found = [value for one in own for value in one["logprobs"][name]]
            if name == "top_logprobs":
                found, values = ([best and list(best) for best in bests] for bests in (found, values))
            assert found == (pytest.approx(values, abs=1e-4) if name == "token_logprobs" else values)
    assert len({piece["id"] for piece in pieces}) == 1


def test_a_text_ends_before_a_stop_text(server):
    whole = server.texts(max_tokens=200, seed=2)[0]
    stop = whole[40:43]
    (choice,) = server.complete(max_tokens=200, seed=2, stop=["zzz", stop], logprobs=0)["choices"]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"] == list(choice["text"])
    assert server.texts(max_tokens=200, seed=2, stop=stop) == [choice["text"]]


def test_characters_come_with_the_likeliest_alternatives(server):
    (choice,) = server.complete("the ", max_tokens=5, temperature=0, logprobs=2)["choices"]
    found = choice["logprobs"]
    assert found["tokens"] == list(choice["text"])
    assert found["text_offset"] == [4, 5, 6, 7, 8]
    for character, value, best in zip(*(found[k] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True):
        assert len(best) == 2
        assert best[character] == value == max(best.values())


def test_a_prompt_can_be_scored_alone(server):
    (choice,) = server.complete("the cat", max_tokens=0, echo=True, logprobs=1)["choices"]
    assert choice["text"] == "the cat"
    values = choice["logprobs"]["token_logprobs"]
    assert values[0] is None
    assert all(value < 0 for value in values[1:])
    assert choice["logprobs"]["text_offset"] == list(range(7))


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        (b"{", 400, None, "not valid JSON"),
        (b"[]", 400, None, "not a JSON object"),
        (b'{"prompt": "\xff"}', 400, None, "not valid JSON"),
        ({"prompt": [1, 2]}, 400, "prompt[0]", "expected str"),
        ({"prompt": []}, 400, "prompt", "at least one"),
        ({"prompt": "漢"}, 400, "prompt", "the model has never seen 漢 (U+6F22)"),
        ({"prompt": "the", "max_tokens": -1}, 400, "max_tokens", "expected"),
        ({"prompt": "the", "max_tokens": 10**6}, 400, "max_tokens", "<= 100000"),
        ({"prompt": "the", "temperature": -1}, 400, "temperature", ">= 0"),
        ({"prompt": "the", "temperature": float("nan")}, 400, "temperature", "expected"),
        ({"prompt": "the", "n": 0}, 400, "n", ">= 1"),
        ({"prompt": "the", "n": 200, "best_of": 200}, 400, "n", "fewer"),
        ({"prompt": "the", "stop": ""}, 400, "stop", "empty"),
        ({"prompt": "the", "words": "/etc/passwd"}, 400, "words", "give any, book or base"),
        ({"prompt": "the", "best_of": 2, "temperature": 0}, 400, None, "--temperature above 0"),
        ({"prompt": "the", "allow": "("}, 400, None, "--allow is not a regular expression"),
        ({"prompt": "the", "presence_penalty": 1}, 400, "presence_penalty", "no_repeat"),
        ({"prompt": "the", "model": "gpt-5"}, 404, "model", "choose from book"),
        ({"prompt": "the " * 20_000}, 413, "prompt", "65,536 characters"),
        ({"prompt": "the " * 300_000}, 413, None, "1,048,576 bytes"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_the_form_of_the_protocol(server, fields, status, param, words):
    found, headers, body = server.ask("POST", "/v1/completions", fields)
    error = json.loads(body)["error"]
    assert (found, error["param"]) == (status, param)
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert headers["content-type"] == "application/json"


def test_fields_that_are_null_or_unknown_are_left_alone(server):
    expected = server.texts(max_tokens=9, seed=1)
    nothing = dict.fromkeys(["n", "stop", "top_p", "temperature", "logprobs", "suffix", "words", "stream", "user"])
    assert server.texts(max_tokens=9, seed=1, **nothing, unknown=[{}], presence_penalty=0) == expected


def test_the_models_are_listed(server):
    listed = json.loads(server.ask("GET", "/v1/models")[2])
    assert [model["id"] for model in listed["data"]] == ["book"]
    assert json.loads(server.ask("GET", "/v1/models/book")[2]) == listed["data"][0]
    assert server.ask("GET", "/v1/models/other")[0] == 404
    assert server.ask("GET", "/healthz")[2] == '{"status":"ok"}'


def test_other_addresses_and_methods_name_the_right_ones(server):
    for method, path, status in (("POST", "/v1/chat/completions", 404), ("GET", "/v1/completions", 405)):
        found, _, body = server.ask(method, path, b"" if method == "POST" else None)
        assert found == status
        assert "/v1/completions" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "LOCALHOST:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1.attacker.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_page_of_another_site_cannot_use_the_server(server, headers, status):
    found, answered, _ = server.ask("GET", "/v1/models", **headers)
    assert found == status
    assert not [name for name in answered if name.lower().startswith("access-control")]


def test_bytes_that_are_no_request_do_no_harm(server):
    for data in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=HANG) as connection:
            connection.sendall(data)
            assert b" 400 " in connection.recv(1000)
    assert server.ask("GET", "/healthz")[0] == 200


def test_a_client_that_goes_away_frees_its_rows(server):
    for fields in ({}, {"best_of": 256}):
        with server.stream(n=256 if not fields else 1, max_tokens=100_000, temperature=1, **fields) as events:
            next(events)
        started = time.monotonic()
        server.texts(n=256, max_tokens=1)
        assert time.monotonic() - started < 30


def test_requests_wait_for_rows_and_too_many_are_refused(server):
    many = ["the"] * 300
    with server.stream(many, max_tokens=100_000) as events:
        next(events)
        status, headers, body = server.ask("POST", "/v1/completions", {"prompt": many, "max_tokens": 1})
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(body)["error"]["type"] == "rate_limit_error"
    until(lambda: server.ask("POST", "/v1/completions", {"prompt": many, "max_tokens": 1})[0] == 200)


def test_clients_that_ask_at_once_each_get_their_own_text(server):
    alone = [server.texts(max_tokens=100, seed=seed, temperature=1)[0] for seed in range(8)]
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda seed: server.texts(max_tokens=100, seed=seed % 8, temperature=1)[0], range(32))
    assert list(found) == alone * 4


def test_the_page_at_the_root_holds_the_model(server):
    status, headers, page = server.ask("GET", "/")
    assert status == 200
    assert "<title>book</title>" in page
    assert '"vocabulary": ' in page
    assert headers["x-frame-options"] == "DENY"
    assert server.ask("GET", "/write/book")[2] == page


def test_the_runs_are_shown_and_nothing_else_is(server):
    overview = server.ask("GET", "/runs")[2]
    assert '<a href="/runs/book">book</a>' in overview
    page = server.ask("GET", "/runs/book")[2]
    assert "<svg" in page
    assert "<polyline" in page
    for name in ("other", "..", "%2e%2e", "..%2f..%2fruns%2fbook", "book%2fconfig.json", ".hidden"):
        assert server.ask("GET", f"/runs/{name}")[0] == 404


def test_a_signal_lets_texts_end_that_are_being_written(trained, tmp_path):
    with running("--model", trained, cwd=tmp_path) as own, own.stream(max_tokens=2000, seed=1) as events:
        first = next(events)
        own.process.send_signal(signal.SIGTERM)
        *rest, last = events
        assert last == "[DONE]"
        assert sum(len(json.loads(event)["choices"][0]["text"]) for event in [first, *rest]) == 2000
        assert own.process.wait(HANG) == 143
        assert own.process.stderr.read() == ""


def test_other_machines_need_a_key_and_other_sites_an_origin(trained, tmp_path):
    result = invoke("serve", "--model", trained, "--host", "0.0.0.0", "--port", "0")
    assert result.exit_code == 1
    assert "--api-key-file FILE or CHARGEN_API_KEY" in result.stderr
    (tmp_path / "key").write_text("s3cret\n")
    options = ("--host", "0.0.0.0", "--api-key-file", "key", "--allow-origin", "https://a.example")
    with running("--model", trained, *options, cwd=tmp_path) as own:
        for given, status in (
            (None, 401),
            ("Bearer s3cre", 401),
            ("Bearer s3cret", 200),
            ("Basic OnMzY3JldA==", 200),
            ("Basic !", 401),
        ):
            for path in ("/v1/models", "/runs"):
                headers = {} if given is None else {"Authorization": given}
                found, answered, _ = own.ask("GET", path, Host="any.example", **headers)
                assert found == status
                assert ("www-authenticate" in answered) == (status == 401)
        assert own.ask("GET", "/healthz")[0] == 200
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        status, headers, _ = own.ask("OPTIONS", "/v1/completions", **asked)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
        asked["Origin"] = "https://b.example"
        assert own.ask("OPTIONS", "/v1/completions", **asked)[0] == 403


def test_a_port_that_is_taken_is_named(server, trained):
    result = invoke("serve", "--model", trained, "--port", server.port)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: cannot listen on port {server.port} of 127.0.0.1: Address already in use; choose another --port or "
        "--host\n"
    )


def test_two_models_need_two_names(trained, tmp_path):
    result = invoke("serve", "--model", trained, "--model", trained)
    assert (result.exit_code, result.stderr) == (1, "Error: two models are named book: rename one of them\n")


def test_a_missing_package_is_reported_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = invoke("serve")
    message = "Error: chargen serve needs packages of its own: pip install 'chargen[serve]'\n"
    assert (result.exit_code, result.stderr) == (1, message)
