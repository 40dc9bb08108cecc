"""``chargen bench serve``: a server with several clients at once, beside the batch of ``chargen sample``."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from chargen import ChargenError
from chargen.bench.sides import Settings, last_line, serve

CHARACTERS = 200  # of each request
CLIENTS = (1, 8, 64)
TRIALS = 500  # times to connect to a server that starts, 10 ms apart


class Started(NamedTuple):
    """A server that answers."""

    port: int
    seconds: float  # from its start to its first answer


@contextmanager
def started(model: str) -> Iterator[Started]:
    """Run ``chargen serve`` in a process of its own while entered.

    Raises ChargenError with the last line of the command's error output if it does not answer.
    """
    command = [sys.executable, "-m", "chargen", "serve", "--port", "0", "--model", model]
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            found = re.search(rb"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                process.wait()
                raise ChargenError(f"chargen serve failed in the benchmark: {last_line(log)}")
            port = int(found[1])
            for _ in range(TRIALS):
                with suppress(OSError):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request("GET", "/healthz")
                    connection.getresponse().read()
                    break
                time.sleep(0.01)
            yield Started(port, time.perf_counter() - begun)
        finally:
            process.terminate()


def sides(model: str, port: int) -> dict[str, tuple[str, Settings]]:
    """Return the sides, by name, for a server of the model file at a path."""
    found: dict[str, tuple[str, Settings]] = {}
    for count in (64, 1):
        found[f"sample --count {count}"] = ("sample.clone", {"model": model, "count": count})
    for count in CLIENTS:
        name = f"{count} client{'s' * (count > 1)}"
        found[name] = ("serve.clients", {"port": port, "clients": count})
    return found


def clients(settings: Settings) -> None:
    """Measure clients that each ask for a text at the same time, over connections of their own."""
    waits: list[float] = []
    seeds = iter(range(10**9))

    async def ask_all() -> None:
        asked = [ask(settings["port"], next(seeds)) for _ in range(settings["clients"])]
        waits.extend(await asyncio.gather(*asked))

    def figures() -> Settings:
        ordered = sorted(waits)
        waits.clear()
        p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99))
        return {"first_p50_seconds": p50, "first_p99_seconds": p99}

    serve(lambda: asyncio.run(ask_all()), CHARACTERS * settings["clients"], {}, figures)


async def ask(port: int, seed: int) -> float:
    """Ask for a text in a stream; return the seconds to its first character, the connection included.

    Raises ChargenError if the text is not whole.
    """
    fields: dict[str, Any] = {"prompt": "The ", "max_tokens": CHARACTERS, "seed": seed, "stream": True}
    body = json.dumps({**fields, "stream_options": {"include_usage": True}}).encode()
    begun, first, written = time.perf_counter(), 0.0, 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async for line in reader:
        if line.startswith(b"data: [DONE]"):
            break
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - begun
            if usage := re.search(rb'"completion_tokens":(\d+)', line):
                written = int(usage[1])
    writer.close()
    if written != CHARACTERS:
        raise ChargenError(f"a client got {written} of {CHARACTERS} characters")
    return first
