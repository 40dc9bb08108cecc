"""``chargen launch``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from chargen import ChargenError
from chargen.commands.common import Command, Stop, Whole, say
from chargen.commands.train import train
from chargen.files.disk import keep, temporary

STOP_SECONDS = 10  # that the other workers have to stop after one has failed, before they are killed
POLL_SECONDS = 0.05


@click.command(
    cls=Command,
    short_help="Train with several workers on this machine.",
    context_settings={"allow_interspersed_args": False},
    epilog="""
    chargen launch --workers 2 -- train book.txt --steps 200
    chargen launch --workers 4 -- train --resume runs/book
    """,
)
@click.option("--workers", type=Whole(1, 1000), required=True, help="Number of workers.")
@click.option(
    "--logs",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="New folder for the output of all workers but the first.",
)
@click.argument("words", nargs=-1, required=True, metavar="-- train [OPTIONS] [FILES]...")
@click.pass_context
def launch(ctx: click.Context, workers: int, logs: Path | None, words: tuple[str, ...]) -> None:
    """Train with several workers on this machine, to try out training on several machines.

    Each worker runs the command after -- with --distribute workers. The first worker writes to this terminal. If a
    worker fails, the others are stopped. Ctrl-C stops all of them, with a checkpoint from which any number of workers
    can resume.
    """
    if words[0] != "train":
        raise click.UsageError(f"only train can be launched, not {words[0]}")
    with train.make_context("chargen train", list(words[1:])) as parsed:  # reports errors once
        if parsed.params["distribute"] == "mirrored":
            raise click.UsageError("--distribute mirrored uses the GPUs of one process: train without launch")
        own = parsed.get_parameter_source("distribute") == ParameterSource.COMMANDLINE
        if own and parsed.params["distribute"] == "none":
            raise click.UsageError("--distribute none trains without other workers: train without launch")
    if workers == 1 and logs is not None:
        raise click.UsageError("--logs is for the output of all workers but the first: one worker has none")
    command = [sys.executable, "-m", "chargen", "train", *words[1:]]
    if parsed.params["distribute"] != "workers":
        command[4:4] = ["--distribute", "workers"]
    with ExitStack() as stack:
        folder = stack.enter_context(log_folder(logs))
        stop = stack.enter_context(Stop())
        if workers > 1:
            say(f"workers   {workers}; the output of all but the first is in {folder}", indent=10)
        configs = enumerate(tf_configs(workers))
        started = [stack.enter_context(worker(command, n, config, folder)) for n, config in configs]
        failed = watch(started, stop)
        if failed is not None and logs is None and workers > 1:
            keep(folder)
    if workers == 1 and started[0].returncode > 0 and not stop.signal:
        ctx.exit(started[0].returncode)  # it has written the reason to this terminal
    if failed is not None:
        message = failure(failed, started[failed].returncode, folder)
        if not stop.signal:
            raise ChargenError(message)
        say(message, err=True)
    if stop.signal:
        ctx.exit(128 + stop.signal)


@contextmanager
def log_folder(path: Path | None) -> Iterator[Path]:
    """Create and yield the folder ``path``, or a temporary one. Raises ChargenError if that is not possible."""
    if path is None:
        with temporary() as folder:
            yield folder
        return
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise ChargenError(f"{path} exists and is left as it is: name a new folder with --logs") from None
    except OSError as error:
        raise ChargenError(f"{path} can't be made: {error.strerror}; name another folder with --logs") from None
    yield path


def tf_configs(workers: int) -> list[str]:
    """Return the TF_CONFIG of each worker, on free ports of this machine."""
    with ExitStack() as stack:  # all open at once, so that the ports differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    cluster = {"worker": addresses}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": n}}) for n in range(workers)]


@contextmanager
def worker(command: Sequence[str], number: int, config: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker on its share of the cores; kill it on exit.

    It has a process group of its own, so that Ctrl-C reaches it only through this process, once.
    """
    workers = len(json.loads(config)["cluster"]["worker"])
    with ExitStack() as stack:
        log = stack.enter_context((folder / f"worker-{number}.log").open("xb")) if number else None
        with some_cores(number, workers):
            process = subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": config},
                stdin=subprocess.DEVNULL if number else None,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def some_cores(number: int, workers: int) -> Iterator[None]:
    """While entered, new processes get the cores of one worker, where the platform can limit them."""
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows
        yield
        return
    available = os.sched_getaffinity(0)
    cores = sorted(available)
    own = cores[len(cores) * number // workers : len(cores) * (number + 1) // workers]
    os.sched_setaffinity(0, own or [cores[number % len(cores)]])
    try:
        yield
    finally:
        os.sched_setaffinity(0, available)


def watch(workers: Sequence[subprocess.Popen[bytes]], stop: Stop) -> int | None:
    """Wait until all workers have ended, passing on a signal; if one fails, stop the others and return its number."""
    passed_on, failed, deadline = False, None, 0.0
    while any(process.poll() is None for process in workers):
        time.sleep(POLL_SECONDS)
        if stop.signal and not passed_on:
            passed_on = True
            send(workers, stop.signal)
        codes = [process.poll() or 0 for process in workers]
        wrong = [n for n, code in enumerate(codes) if code not in (0, 128 + stop.signal)]
        if wrong and failed is None:
            failed = min(wrong, key=lambda n: codes[n])  # one that was killed first
            deadline = time.monotonic() + STOP_SECONDS
        if failed is not None:
            # Repeatedly, because a worker stops at the first signal only after its step, which may never end.
            send(workers, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(1 if time.monotonic() < deadline else 0)
    return failed


def send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Send a signal to the workers that still run."""
    for process in workers:
        if process.poll() is None:
            process.send_signal(number)


def failure(number: int, code: int, folder: Path) -> str:
    """Return the message about the worker that failed first."""
    how = f"was stopped by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    if number == 0:
        others = f"; the others were stopped, and their output is in {folder}"
        return f"worker 0 {how}{others * any(folder.glob('*.log'))}"
    log = folder / f"worker-{number}.log"
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    last = f"; last line of its log: {lines[-1]}" if lines else ""
    return f"worker {number} {how} ({log}); the others were stopped{last}"
