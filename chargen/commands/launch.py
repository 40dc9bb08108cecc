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
from chargen.commands.common import Command, Stop, say
from chargen.commands.train import train
from chargen.files.disk import keep, temporary

PATIENCE = 10  # seconds that the others have to end, once a worker has failed, before they are killed
POLL = 0.05


@click.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    epilog="""
    chargen launch --workers 2 -- train book.txt --steps 200
    chargen launch --workers 4 -- train --resume runs/book
    """,
)
@click.option("--workers", type=click.IntRange(1, 1000), required=True, help="How many to start.")
@click.option("--logs", type=click.Path(path_type=Path), help="New folder for what all but the first of them say.")
@click.argument("words", nargs=-1, required=True, metavar="-- train [OPTIONS] [FILES]...")
@click.pass_context
def launch(ctx: click.Context, workers: int, logs: Path | None, words: tuple[str, ...]) -> None:
    """Train by several workers on this machine, to try out what will be done on several.

    The command after -- is given to each of them, with --distribute workers. The first is the chief, and says here what
    it has to say. When one fails, all are ended. Ctrl-C stops them together, with a checkpoint from which any number of
    workers can go on.
    """
    if words[0] != "train":
        raise click.UsageError(f"train is what can be launched, not {words[0]}")
    with train.make_context("chargen train", list(words[1:])) as parsed:  # refuses what is wrong with them, once
        if parsed.params["distribute"] == "mirrored":
            raise click.UsageError("--distribute mirrored is for the GPUs of one process: train without launch")
        own = parsed.get_parameter_source("distribute") == ParameterSource.COMMANDLINE
        if own and parsed.params["distribute"] == "none":
            raise click.UsageError("--distribute none lets each train by itself: train without launch")
    if workers == 1 and logs is not None:
        raise click.UsageError("--logs is for what all workers but the first say: one alone says it here")
    command = [sys.executable, "-m", "chargen", "train", *words[1:]]
    if parsed.params["distribute"] != "workers":
        command[4:4] = ["--distribute", "workers"]
    with ExitStack() as stack:
        folder = stack.enter_context(log_folder(logs))
        stop = stack.enter_context(Stop())
        if workers > 1:
            say(f"workers   {workers}; what all but the first of them say is in {folder}", indent=10)
        started = [stack.enter_context(worker(command, n, place, folder)) for n, place in enumerate(places(workers))]
        failed = watch(started, stop)
        if failed is not None and logs is None and workers > 1:
            keep(folder)
    if workers == 1 and started[0].returncode > 0 and not stop.signal:
        ctx.exit(started[0].returncode)  # it has said here why
    if failed is not None:
        told = failure(failed, started[failed].returncode, folder)
        if not stop.signal:
            raise ChargenError(told)
        say(told, err=True)
    if stop.signal:
        ctx.exit(128 + stop.signal)


@contextmanager
def log_folder(path: Path | None) -> Iterator[Path]:
    """Yield the new folder ``path``, or a temporary one. Raises ChargenError if it can't be made."""
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


def places(workers: int) -> list[str]:
    """Return a TF_CONFIG for each of so many workers, on free ports of this machine."""
    with ExitStack() as stack:  # all at once, so that they differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    cluster = {"worker": addresses}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": n}}) for n in range(workers)]


@contextmanager
def worker(command: Sequence[str], number: int, place: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker on its share of the cores; it is ended when this is left.

    It is in a process group of its own, so that Ctrl-C comes to it from here alone, once.
    """
    workers = len(json.loads(place)["cluster"]["worker"])
    with ExitStack() as stack:
        log = stack.enter_context((folder / f"worker-{number}.log").open("xb")) if number else None
        with some_cores(number, workers):
            process = subprocess.Popen(
                command,
                env={**os.environ, "TF_CONFIG": place},
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
    """While entered, what is started gets one worker's share of the cores, if there is a way to tell it."""
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows
        yield
        return
    everything = os.sched_getaffinity(0)
    cores = sorted(everything)
    own = cores[len(cores) * number // workers : len(cores) * (number + 1) // workers]
    os.sched_setaffinity(0, own or [cores[number % len(cores)]])
    try:
        yield
    finally:
        os.sched_setaffinity(0, everything)


def watch(workers: Sequence[subprocess.Popen[bytes]], stop: Stop) -> int | None:
    """Wait until all workers have ended; pass on a signal; if one fails, end the others and return which it was."""
    told, failed, deadline = False, None, 0.0
    while any(process.poll() is None for process in workers):
        time.sleep(POLL)
        if stop.signal and not told:
            told = True
            send(workers, stop.signal)
        codes = [process.poll() or 0 for process in workers]
        wrong = [n for n, code in enumerate(codes) if code not in (0, 128 + stop.signal)]
        if wrong and failed is None:
            failed, deadline = min(wrong, key=lambda n: codes[n]), time.monotonic() + PATIENCE  # a killed one first
        if failed is not None:
            # Again and again, as the first signal only stops a worker after the step it is at, which may never end.
            send(workers, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(1 if time.monotonic() < deadline else 0)
    return failed


def send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Send a signal to the workers that are still there."""
    for process in workers:
        if process.poll() is None:
            process.send_signal(number)


def failure(number: int, code: int, folder: Path) -> str:
    """Return what is to be said of the worker that failed first."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    if number == 0:
        others = f"; the others were ended, and what they said is in {folder}"
        return f"worker 0 {how}{others * any(folder.glob('*.log'))}"
    log = folder / f"worker-{number}.log"
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    last = f", its last words: {lines[-1]}" if lines else ""
    return f"worker {number} {how} ({log}); the others were ended{last}"
