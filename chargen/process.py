"""Settings of the whole process: the handling of Ctrl-C, missing standard streams, encodings, the environment.

They are made only by a program that owns its process: the ``chargen`` command, and each side of a benchmark. A command
that runs inside another program leaves the process of that program unchanged.

This module is imported first, and imports little: until `own` has run, Ctrl-C prints a traceback.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False  # as in typing, whose import takes 5 ms
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT
REPLACE = "chargen.replace"  # the codec error handler of standard output

_owned = False
_warned = False


def own() -> None:
    """Make the settings. It is called before click, NumPy or TensorFlow is imported."""
    global _owned
    _owned = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in a script's background jobs
        signal.signal(signal.SIGINT, _interrupt)
    _open_missing_streams()
    _set_encodings()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Keras would import it if it is installed, which takes half a second; the feature that needs it isn't used here.
    sys.modules["matplotlib.pyplot"] = None  # type: ignore[assignment]


def owned() -> bool:
    """Return whether `own` has been called."""
    return _owned


def finish() -> None:
    """Flush standard output and error. A failure has been reported already, so it is hidden from Python's own flush."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while Python shuts down, Ctrl-C would print a traceback
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but while a module is imported, exit at once: an import may swallow the exception."""
    outer = frame
    while outer is not None:
        if outer.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(INTERRUPTED)
        outer = outer.f_back
    raise KeyboardInterrupt


def _open_missing_streams() -> None:
    """Replace each missing standard stream by the null device, so that no file opened later gets its descriptor."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free descriptor, this one
        setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _set_encodings() -> None:
    """Make files and pipes UTF-8, as --output is, unless PYTHONIOENCODING is set; a terminal keeps its encoding.

    A character that the encoding of standard output lacks is written as ``?``, with a warning at the first.
    """
    codecs.register_error(REPLACE, _replaced)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ours = not (stream.isatty() or os.environ.get("PYTHONIOENCODING"))
            errors = REPLACE if stream is sys.stdout else stream.errors if stream is sys.stderr else "strict"
            stream.reconfigure(encoding="utf-8" if ours else stream.encoding, errors=errors)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    global _warned
    assert isinstance(error, UnicodeEncodeError)
    character, after = ord(error.object[error.start]), error.start + 1
    wide = error.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
    if 0xDC80 <= character <= 0xDCFF and not wide:  # a byte of a file name that is not UTF-8, as surrogateescape has it
        return bytes([character - 0xDC00]), after
    if not _warned and not 0xD800 <= character <= 0xDFFF:
        _warned = True
        with suppress(OSError):  # standard error may be full
            sys.stderr.write(
                f"Warning: standard output is in {sys.stdout.encoding}, and each character that it lacks becomes ?; "
                "set PYTHONIOENCODING=utf-8 to write all characters\n"
            )
    return "?", after
