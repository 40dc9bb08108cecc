"""The server's addresses: completions, models, health, and the pages that people see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from chargen import ChargenError
from chargen.serving.guard import Guard, KeyGuard
from chargen.serving.protocol import Completion, RequestError, Served, encoded, error_of, read
from chargen.serving.runs import Runs
from chargen.serving.worker import BusyError, Mail, StoppedError

MOST_BODY = 2**20  # bytes of a request
BODY_SECONDS = 30  # in which it must have been sent
EVENT_SECONDS = 0.05  # between the events of a stream, which have all characters written meanwhile
ADDRESSES = "/v1/completions, /v1/models, /healthz, / and /runs"


@dataclass(frozen=True)
class Access:
    """Who may use the server."""

    hosts: Collection[str] | None  # names for the Host header; None: any
    key: str | None = None
    origins: Sequence[str] = ()  # of pages of other sites that may use it


class Server:
    """The ASGI application."""

    def __init__(self, models: Sequence[Served], pages: Mapping[str, Callable[[], str]], runs: Runs) -> None:
        """Take the models, at least one; a function that makes the page of each, by its name; and the runs."""
        self._models = {served.name: served for served in models}
        self._pages, self._runs = pages, runs
        self._made: dict[str, asyncio.Task[str]] = {}

    def app(self, access: Access) -> ASGIApp:
        """Return the application, which only those with access may use."""
        routes = [
            Route("/v1/completions", Completions(self._models), methods=["POST"]),
            Route("/v1/models", self._list),
            Route("/v1/models/{name:path}", self._about),
            Route("/healthz", self._health),
            Route("/", self._index),
            Route("/write/{name:path}", self._write),
            Route("/runs", self._show_runs),
            Route("/runs/{name:path}", self._show_runs),
        ]
        handlers: dict[Any, Any] = {HTTPException: _http_error, RequestError: _request_error, ChargenError: _own_error}
        app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
        if access.key is not None:
            app = KeyGuard(app, access.key)
        if access.origins:
            app = CORSMiddleware(app, access.origins, allow_methods=["GET", "POST"], allow_headers=["*"])
        return Guard(app, access.hosts, access.origins)

    async def _list(self, request: HttpRequest) -> Response:
        return _json({"object": "list", "data": [served.about() for served in self._models.values()]})

    async def _about(self, request: HttpRequest) -> Response:
        return _json(_found(self._models, request.path_params["name"]).about())

    async def _health(self, request: HttpRequest) -> Response:
        failed = [served.name for served in self._models.values() if served.worker.failed]
        return _json({"status": "failed", "models": failed} if failed else {"status": "ok"}, 503 if failed else 200)

    async def _index(self, request: HttpRequest) -> Response:
        if len(self._models) == 1:
            return await self._page(next(iter(self._models)))
        links = "".join(f'<li><a href="/write/{quote(name, safe="")}">{escape(name)}</a>' for name in self._models)
        return _html(f'<!DOCTYPE html><meta charset="utf-8"><title>chargen</title><h1>Models</h1><ul>{links}</ul>')

    async def _write(self, request: HttpRequest) -> Response:
        return await self._page(_found(self._models, request.path_params["name"]).name)

    async def _page(self, name: str) -> Response:
        if name not in self._made:  # once: it takes a second for a large model
            self._made[name] = asyncio.create_task(asyncio.to_thread(self._pages[name]))
        return _html(await asyncio.shield(self._made[name]))

    async def _show_runs(self, request: HttpRequest) -> Response:
        found = await asyncio.to_thread(self._runs.page, request.path_params.get("name"))
        if found is None:
            raise HTTPException(404)
        return _html(found)


class Completions:
    """The address that continues texts."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Its rows are free as soon as the client has gone."""
        try:
            request, config = read(await _body(HttpRequest(scope, receive)))
            name = next(iter(self._models)) if request.model is None else request.model
            completion = Completion(request, config, _found(self._models, name))
            mail = Mail(completion.texts, whole=not request.stream)
            with completion.served.worker.running(completion.jobs(mail), mail):
                work = _stream if request.stream else _answer
                await _while_connected(receive, work(completion, mail, scope, receive, send))
        except BusyError as error:
            wait = {"Retry-After": "1"}
            await Response(error_of(str(error), 429), 429, wait, media_type="application/json")(scope, receive, send)
        except ClientDisconnect:
            pass


async def _answer(completion: Completion, mail: Mail, *asgi: Any) -> None:
    await Response(completion.whole(await mail.take()), media_type="application/json")(*asgi)


async def _stream(completion: Completion, mail: Mail, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the events of a stream, the first as soon as there is a character."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = completion.texts
    try:
        while left:
            choices = completion.choices(await mail.take())
            if not choices:
                continue
            await send({"type": "http.response.body", "body": completion.event(choices), "more_body": True})
            left -= sum(choice["finish_reason"] is not None for choice in choices)
            if left:
                await asyncio.sleep(EVENT_SECONDS)
        last = completion.last_events()
    except StoppedError as error:
        last = b"data: " + error_of(str(error), 500) + b"\n\n"
    await send({"type": "http.response.body", "body": last})


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; stop it when the client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with _task(work) as working, _task(gone()) as leaving:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run work while entered."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _body(request: HttpRequest) -> bytes:
    """Return the body of a request. Raises RequestError if it is too large, or too long on its way."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY:
                    raise RequestError(f"the request has more than {MOST_BODY:,} bytes", 413)
    except TimeoutError:
        raise RequestError(f"the request was not complete after {BODY_SECONDS} seconds", 408) from None
    return bytes(body)


def _found(models: Mapping[str, Served], name: str) -> Served:
    """Return the model of a name. Raises RequestError if there is none."""
    if name not in models:
        names = ", ".join(models)
        raise RequestError(f"there is no model {name!r} here: choose from {names}", 404, "model", "model_not_found")
    return models[name]


def _json(value: object, status: int = 200) -> Response:
    return Response(encoded(value), status, media_type="application/json")


def _html(text: str) -> Response:
    headers = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return HTMLResponse(text, headers=headers)


async def _request_error(request: HttpRequest, error: RequestError) -> Response:
    text = error_of(str(error), error.status, error.param, error.code)
    return Response(text, error.status, media_type="application/json")


async def _own_error(request: HttpRequest, error: ChargenError) -> Response:
    return Response(error_of(str(error), 500), 500, media_type="application/json")


async def _http_error(request: HttpRequest, error: HTTPException) -> Response:
    what = f"there is no {request.method} {request.url.path} here: the addresses are {ADDRESSES}"
    return Response(error_of(what, error.status_code), error.status_code, error.headers, media_type="application/json")
