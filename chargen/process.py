"""What is set for the whole process: Ctrl-C, missing streams, encodings, the environment, where standard error goes.

Only the program that owns its process sets it: the ``chargen`` command, and each side of a benchmark. A command that
runs inside another program leaves that program's process as it is.

This module is imported first, and imports little: until `own` has run, Ctrl-C is a traceback.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to import
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT
REPLACE = "chargen.replace"  # name of the error handler of standard output

_owned = False
_warned = False


def own() -> None:
    """Make the process chargen's: set what it needs, before click, NumPy or TensorFlow is imported."""
    global _owned
    _owned = True
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job of a script ignores it
        signal.signal(signal.SIGINT, _interrupt)
    _open_missing_streams()
    _set_encodings()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Keras imports it, where it is installed, for a picture that is not drawn here: half a second of every start.
    sys.modules["matplotlib.pyplot"] = None  # type: ignore[assignment]


def owned() -> bool:
    """Tell whether the process is chargen's own."""
    return _owned


def finish() -> None:
    """Write what the streams still hold. Where that fails, it has been told, and Python is not to tell it once more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while Python ends, Ctrl-C would be a traceback
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but end at once while a module is imported, which may lose or change the exception."""
    outer = frame
    while outer is not None:
        if outer.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(INTERRUPTED)
        outer = outer.f_back
    raise KeyboardInterrupt


def _open_missing_streams() -> None:
    """Put the null device in place of each missing stream, so that no file of ours gets its descriptor."""
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free descriptor, which is this one
        setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _set_encodings() -> None:
    """Write UTF-8 to files and pipes, as is written with --output, unless PYTHONIOENCODING names an encoding.

    A terminal keeps its own. A character that standard output can't show becomes ``?``, with one warning.
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
    if 0xDC80 <= character <= 0xDCFF and not wide:  # a byte of a file name that is not UTF-8
        return bytes([character - 0xDC00]), after
    if not _warned and not 0xD800 <= character <= 0xDFFF:
        _warned = True
        with suppress(OSError):  # of a standard error that is full
            sys.stderr.write(
                f"Warning: standard output is in {sys.stdout.encoding}, and each character that it lacks becomes ?; "
                "set PYTHONIOENCODING=utf-8 to write all\n"
            )
    return "?", after
