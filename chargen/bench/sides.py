"""Sides of a benchmark: processes whose rounds alternate, and the protocol between them.

A side is a function ``module.function`` of this folder. It runs in a process of its own (``python -m chargen.bench SIDE
SETTINGS``), with the number of threads that suits it best. It prepares its work, answers with its first figures as a
line of JSON, and then measures one round for each line of standard input. The rounds of all sides alternate, because
the speed of a shared machine drifts. A side that waits for its turn uses no processor time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self

from chargen import ChargenError

ROUND_SECONDS = 0.5  # short rounds, so that every side meets a shared machine in its fast state
LOG_TAIL = 10_000  # bytes at the end of a process's log that are searched for its last line

Settings = dict[str, Any]


def interleaved(sides: Mapping[str, tuple[str, Settings]], rounds: int) -> dict[str, dict[str, Any]]:
    """Run the sides, name -> (``module.function``, settings), in turn; return the figures of each side's best round.

    The figures are those of the side's first answer, ``per_second`` (units of work per second) and ``peak_memory``
    (bytes) of its process. A side that cannot start has only the reason, under ``failed``. Raises ChargenError if that
    is the first side, with which the others are compared, or if a side fails in a round.
    """
    figures: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        ready: dict[str, Side] = {}
        for name, (function, settings) in sides.items():
            side = stack.enter_context(Side(name, command(function, settings)))
            try:
                figures[name] = side.answer()
            except ChargenError as error:
                if not ready:
                    raise
                figures[name] = {"failed": str(error)}
                continue
            ready[name] = side
        for _ in range(rounds):
            for name, side in ready.items():
                round_ = side.round()
                if round_["per_second"] > figures[name].get("per_second", 0):
                    figures[name] |= round_
    return figures


def command(function: str, settings: Settings) -> list[str]:
    """Return the command that starts the process of a side."""
    return [sys.executable, "-m", "chargen.bench", function, json.dumps(settings)]


class Side:
    """The process of a side, which runs while this is entered.

    Its standard error goes to a file, because a full pipe would block the process.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self._command = name, command

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):  # from a line that the process never read
            self._process.__exit__(None, None, None)
        self._log.close()

    def answer(self) -> dict[str, Any]:
        """Return the next answer of the process. Raises ChargenError with the last line of its log if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChargenError(f"{self.name} failed in the benchmark: {last_line(self._log)}")
        return dict(json.loads(line))

    def round(self) -> dict[str, Any]:
        """Let the process measure a round; return its answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended, which `answer` reports
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self.answer()


def last_line(log: IO[bytes]) -> str:
    """Return the last line of a process's log."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it wrote no error message"


def serve(step: Callable[[], Any], work: float, figures: Settings, more: Callable[[], Settings] = dict) -> None:
    """Answer with ``figures``, then measure a round of steps for each line of standard input.

    ``work`` is the number of units of work that one call of ``step`` does. ``more`` returns further figures of the
    calls since it was called last.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that what a library prints is not taken for an answer
    step()
    started = time.perf_counter()
    step()
    steps = max(1, round(ROUND_SECONDS / (time.perf_counter() - started)))

    def answer(values: Settings) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer(figures)
    more()
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - started
        answer({"per_second": steps * work / seconds, "peak_memory": peak_memory(), **more()})


def peak_memory() -> int | None:
    """Return the peak memory of this process in bytes; None where the system does not tell it."""
    with suppress(OSError):
        # On Linux, getrusage counts the peak of the parent process too; this file does not.
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, where the unit is a byte
