"""``chargen serve``."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen import ChargenError, process
from chargen.commands.common import Command, Stop, Whole, read_file, say
from chargen.machine import blas_threads

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from chargen.serving.app import Access
    from chargen.serving.protocol import Served
    from chargen.store.modelfile import ModelFile

KEY = "CHARGEN_API_KEY"
CONNECTIONS = 2000  # at once; further ones are refused
LAST_SECONDS = 60  # in which what runs has to end after a signal
ROWS = 64  # for which the threads of the products are chosen


@click.command(
    cls=Command,
    short_help="Serve models to other programs.",
    groups={
        "What is served": "models",
        "Where": "host port",
        "Who may use it": "api_key_file allow_origin",
    },
    epilog="""
    chargen serve
    chargen serve --model runs/book --model runs/letters --port 9000
    chargen serve --host 0.0.0.0 --api-key-file key.txt
    """,
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A run or a model file; can be repeated. [default: the newest run]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=Whole(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False),
    help=f"File with the key that clients must send; else it is {KEY}, if set.",
)
@click.option(
    "--allow-origin", multiple=True, metavar="URL", help="A site whose pages may use the server; can be repeated."
)
@click.pass_context
def serve(ctx: click.Context, /, models: tuple[Path, ...], host: str, port: int, **access: Any) -> None:
    """Serve models over HTTP, as OpenAI's completions, until Ctrl-C.

    The page at / writes with a model, and the page /runs shows the runs in this folder.
    """
    if process.owned():
        blas_threads(ROWS)
    try:
        import uvicorn  # noqa: F401  - missing packages are reported before models are read

        from chargen.serving.app import Server
        from chargen.serving.runs import Runs
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "threadpoolctl"):
            raise
        raise ChargenError("chargen serve needs packages of its own: pip install 'chargen[serve]'") from None
    allowed = access_to(host, **access)
    files = named_models(models)
    with listening(host, port) as opened:
        served = [serving(name, file) for name, file in files.items()]
        pages = {name: partial(page_of, name, file) for name, file in files.items()}
        app = Server(served, pages, Runs()).app(allowed)
        say(f"serving {', '.join(files)} at {address(host, opened)}; Ctrl-C stops")
        sys.stdout.flush()
        if stopped := run(app, opened):
            ctx.exit(128 + stopped)


def run(app: ASGIApp, opened: socket.socket) -> int:
    """Serve an application until a signal, and return it; what runs is finished first."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # a malformed request is answered with 400, and not worth a line here
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    server = uvicorn.Server(config)
    with Stop() as stop:
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, server.handle_exit)  # the server handles the other signals by itself
        server.run(sockets=[opened])
    return stop.signal


def access_to(host: str, api_key_file: str | None, allow_origin: tuple[str, ...]) -> Access:
    """Return who may use a server at a host. Raises ChargenError if other machines reach it and there is no key."""
    from chargen.serving.app import Access
    from chargen.serving.guard import LOOPBACK_NAMES, is_loopback

    key = api_key(api_key_file)
    if is_loopback(host):
        return Access({*LOOPBACK_NAMES, host.lower()}, key, allow_origin)
    if key is None:
        raise ChargenError(
            f"--host {host} is reached by other machines: give a key that they must send, --api-key-file FILE or {KEY}"
        )
    return Access(None, key, allow_origin)


def api_key(path: str | None) -> str | None:
    """Return the key that clients must send; None if there is none. Raises ChargenError for an impossible one."""
    key = os.environ.get(KEY) if path is None else read_file(path).decode("utf-8", "replace").strip()
    source = KEY if path is None else path
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise ChargenError(f"{source} is no API key: give one line of visible ASCII characters")
    return key


def named_models(paths: tuple[Path, ...]) -> dict[str, ModelFile]:
    """Read the models; return them by the names of their runs or files. Raises ChargenError if two have one name."""
    from chargen.store.modelfile import ModelFile
    from chargen.store.run import CHECKPOINT, MODEL, find_model

    found: dict[str, ModelFile] = {}
    chosen: tuple[Path | None, ...] = paths or (None,)
    for given in chosen:
        path = find_model(given).absolute()
        name = path.parent.name if path.name in (MODEL, CHECKPOINT) else path.stem
        if name in found:
            raise ChargenError(f"two models are named {name}: rename one of them")
        found[name] = ModelFile.read(path).for_inference()
    return found


def serving(name: str, file: ModelFile) -> Served:
    """Return a model as it is served."""
    from chargen.serving.protocol import Served
    from chargen.writing.clone import Clone

    clone = Clone(file.weights, file.vocabulary, (file.words, file.base_words), file.summary.get("validation_bpc"))
    return Served(name, clone)


def page_of(name: str, file: ModelFile) -> str:
    """Return the page that writes with a model."""
    from chargen.export import FORMATS, Export
    from chargen.export.html import page
    from chargen.terminal import escaped

    return page(Export(file, escaped(name), "html", FORMATS["html"].quantizations[0]))


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ChargenError if it can't."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = error.strerror.partition(" (while")[0] if error.strerror else error
        raise ChargenError(f"cannot listen on port {port} of {host}: {why}; choose another --port or --host") from None


def address(host: str, opened: socket.socket) -> str:
    """Return the base URL for clients."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}/v1"
