"""The thread that steps the batch of a model, and the way from it to the event loop that answers the clients."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue

from threadpoolctl import ThreadpoolController

from chargen import ChargenError
from chargen.machine import threads_for
from chargen.serving.batch import Batch
from chargen.serving.texts import Job, Part
from chargen.writing.clone import Clone

MOST_JOBS = 512  # that run or wait: twice the rows of a batch


class BusyError(ChargenError):
    """Too many texts run or wait."""


class StoppedError(ChargenError):
    """The thread has ended by an error."""


class Mail:
    """The parts of a request's texts, put in by the thread and taken out by the event loop."""

    def __init__(self, texts: int, *, whole: bool) -> None:
        """Take the number of texts. With ``whole``, they are taken when all have ended."""
        self._loop, self._ready = asyncio.get_running_loop(), asyncio.Event()
        self._parts = deque[tuple[int, Part]]()
        self._left, self._whole = texts, whole
        self._called = self.failed = False

    def put(self, job: int, part: Part) -> None:
        """Put in a part of a job, which has a number; in any thread."""
        self._parts.append((job, part))
        self._left -= part.piece.stopped_by is not None
        if not self._whole or not self._left:
            self._call()

    def fail(self) -> None:
        """Say that nothing more will come; in any thread."""
        self.failed = True
        self._call()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            with suppress(RuntimeError):  # the event loop has ended, and all clients with it
                self._loop.call_soon_threadsafe(self._ready.set)

    async def take(self) -> list[tuple[int, Part]]:
        """Wait for parts, and return them with the numbers of their jobs; there may be none.

        Raises StoppedError if the texts cannot be finished.
        """
        await self._ready.wait()
        self._ready.clear()
        self._called = False  # before the parts are taken: one that comes meanwhile calls again
        if self.failed:
            raise StoppedError("the model stopped by an error, which the server's log shows: start the server again")
        return [self._parts.popleft() for _ in range(len(self._parts))]


class Threads:
    """The threads of NumPy's products, of which many rows need more than a few: see `machine.blas_threads`."""

    def __init__(self) -> None:
        self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self._most = max([library.num_threads for library in self._libraries], default=1)
        self._set = self._most

    def suit(self, rows: int) -> None:
        """Set the number of threads that suits a batch of so many rows, at most that of the start."""
        wanted = min(self._most, threads_for(rows))
        if wanted != self._set:
            self._set = wanted
            for library in self._libraries:
                library.set_num_threads(wanted)


class Worker:
    """The thread of a model. It waits, and uses no processor time, while there is no job."""

    def __init__(self, clone: Clone) -> None:
        """Take a clone of one row that has read nothing, and start the thread."""
        self._batch, self._inbox = Batch(clone), SimpleQueue[Job]()
        self.most_rows, self.failed = self._batch.most_rows, False
        self._jobs, self._mails = 0, set[Mail]()
        threading.Thread(target=self._run, name="batch", daemon=True).start()

    @contextmanager
    def running(self, jobs: Sequence[Job], mail: Mail) -> Iterator[None]:
        """Let jobs run while entered; afterwards their rows are free. Called in the event loop.

        Raises BusyError if there are more than MOST_JOBS, StoppedError if the thread has ended.
        """
        if self.failed:
            mail.fail()
        elif self._jobs + len(jobs) > MOST_JOBS:
            raise BusyError(f"{self._jobs} texts are being written or wait already: try again in a moment")
        self._jobs += len(jobs)
        self._mails.add(mail)
        try:
            for job in jobs:
                self._inbox.put(job)
            yield
        finally:
            for job in jobs:
                job.cancelled = True
            self._jobs -= len(jobs)
            self._mails.discard(mail)

    def _run(self) -> None:
        threads = Threads()
        try:
            while True:
                while not self._batch.busy or not self._inbox.empty():
                    self._batch.add(self._inbox.get())
                threads.suit(self._batch.rows)
                self._batch.step()
        finally:  # only an error leads here
            self.failed = True
            for mail in [*self._mails]:
                mail.fail()
