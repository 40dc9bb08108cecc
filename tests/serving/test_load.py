"""`chargen serve` under load: many requests, many connections, and clients that don't read what they asked for."""

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.conftest import HANG

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("server")]
REQUESTS = 10_000
CLIENTS = 16
CONNECTIONS = 1000
BODY = {"prompt": "the ", "max_tokens": 5}


def memory(server):
    """Return the resident memory of the server, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def request(server, **fields):
    """Return a connection on which a request was sent."""
    body = json.dumps({**BODY, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=HANG)
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
    connection.sendall(body)
    return connection


def ask(server, count):
    """Make a number of requests on one connection."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=HANG)) as connection:
        for seed in range(count):
            connection.request("POST", "/v1/completions", json.dumps({**BODY, "seed": seed}))
            answer = connection.getresponse()
            assert (answer.status, len(json.loads(answer.read())["choices"][0]["text"])) == (200, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_ten_thousand_requests_take_no_more_memory_than_the_first_ones(server):
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, [server] * CLIENTS, [REQUESTS // CLIENTS // 4] * CLIENTS))
        before = memory(server)
        list(pool.map(ask, [server] * CLIENTS, [REQUESTS // CLIENTS * 3 // 4] * CLIENTS))
    assert memory(server) < before + 5


def test_a_thousand_connections_do_not_keep_out_one_more(server):
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=HANG))
        assert len(server.texts(max_tokens=5)[0]) == 5
    with ExitStack() as stack:
        asked = [stack.enter_context(request(server)) for _ in range(300)]
        statuses = {connection.recv(12)[-3:] for connection in asked}
    assert statuses <= {b"200", b"429"}
    assert b"200" in statuses


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_client_that_does_not_read_delays_nobody_and_takes_little_memory(server):
    before = memory(server)
    with ExitStack() as stack:
        for seed in range(8):
            stack.enter_context(request(server, stream=True, logprobs=5, max_tokens=100_000, seed=seed))
        began = time.monotonic()
        for _ in range(20):
            assert len(server.texts(max_tokens=50)[0]) == 50
            time.sleep(0.2)
        assert time.monotonic() - began < 60
        assert memory(server) < before + 100


def test_requests_in_pieces_and_without_an_end_do_no_harm(server):
    with ExitStack() as stack:
        for head in (
            b"POST /v1/completions HTTP/1.1\r\n",
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9",
        ):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=HANG)).sendall(head)
        for body in (b"", b"{", b"[]", b'{"prompt": 1}', b"\xff" * 99, b"[" * 100_000, b'{"prompt": "' + b"a" * 2**21):
            status, _, text = server.ask("POST", "/v1/completions", body)
            assert status in (400, 413)
            assert json.loads(text)["error"]["message"]
        assert len(server.texts(max_tokens=5)[0]) == 5
