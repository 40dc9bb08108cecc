"""A server process, and the least of a client for it."""

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import closing, contextmanager

import pytest

from tests.conftest import HANG, command


class Running:
    """A server in a process of its own."""

    def __init__(self, process):
        self.process = process
        line = process.stdout.readline()
        found = re.search(r"http://.*:(\d+)/v1", line)
        assert found, (line, process.stderr.read())
        self.url, self.port = found[0], int(found[1])

    def ask(self, method, path, body=None, **headers):
        """Return the status, the headers and the body of an answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)) as connection:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def complete(self, prompt="the ", **fields):
        """Return the answer to a request that succeeds."""
        status, _, text = self.ask("POST", "/v1/completions", {"prompt": prompt, **fields})
        assert status == 200, text
        return json.loads(text)

    def texts(self, *arguments, **fields):
        return [choice["text"] for choice in self.complete(*arguments, **fields)["choices"]]

    @contextmanager
    def stream(self, prompt="the ", **fields):
        """Yield the events of a stream, one by one, as the server sends them."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)) as connection:
            body = json.dumps({"prompt": prompt, "stream": True, **fields})
            connection.request("POST", "/v1/completions", body)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield (line[6:-1].decode() for line in answer if line != b"\n")


@contextmanager
def running(*arguments, cwd, **environment):
    words = command("serve", "--port", "0", *map(str, arguments))
    pipe = subprocess.PIPE
    env = {**os.environ, **environment}
    with subprocess.Popen(words, cwd=cwd, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """A server of the run that all tests share, in a folder that has a copy of it."""
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(trained, folder / "runs" / "book")
    with running("--model", trained, cwd=folder) as found:
        found.folder = folder
        yield found
        assert found.ask("GET", "/healthz")[0] == 200
        found.process.terminate()
        assert found.process.wait(HANG) == 143
        assert found.process.stderr.read() == ""


def until(true, seconds=HANG):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
