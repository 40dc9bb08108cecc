"""What the commands share: options from a configuration, errors in one line, stopping, a quiet start."""

from __future__ import annotations

import codecs
import dataclasses
import errno
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chargen import ChargenError, process
from chargen.config import Config
from chargen.terminal import fitted, shown

if TYPE_CHECKING:
    from chargen.store.run import Run


C = TypeVar("C", bound=Config)
UNROLLS = {"keras": "Keras's layers", "loop": "compiled loops", "onednn": "compiled loops with oneDNN's products"}
MESSAGE_LENGTH = 300  # most characters of a line on standard error
NO_TENSORFLOW = (
    "this command needs TensorFlow, which is not installed: install chargen with Python 3.11 to 3.13 on Linux, macOS "
    "(Apple silicon) or Windows (x86-64); chargen help start tells what works without it"
)
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}  # errors of a write to an open file


def say(text: str = "", *, indent: int | None = 2, err: bool = False) -> None:
    """Write lines for a person, wrapped by `fitted`.

    On standard error, a long line is shortened in its middle, because its end says what to do, and errors of the stream
    are ignored.
    """
    stream = sys.stderr if err else sys.stdout
    if err:
        text = "\n".join(map(_short, text.split("\n")))
    if getattr(stream, "errors", None) == "strict":  # another program's stream: file names may not be UTF-8
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    with suppress(*[OSError] * err):
        click.echo(fitted(text, stream, indent), stream, color=True)  # without color, click removes escape sequences


def _short(line: str) -> str:
    half = MESSAGE_LENGTH // 2
    return line if len(line) <= MESSAGE_LENGTH else f"{line[:half]} ... {line[5 - half :]}"


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn a ChargenError, an OSError or the absence of TensorFlow into a ClickException of one line."""
    try:
        yield
    except ChargenError as error:
        raise click.ClickException(" ".join(str(error).split())) from None
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise click.ClickException(NO_TENSORFLOW) from None
    except BrokenPipeError:
        raise
    except OSError as error:  # an error of an open file has no name, so what reads files names them itself
        why = error.strerror or str(error)
        if error.filename is not None:
            why = f"{os.fsdecode(error.filename)}: {why}"
        elif why == os.strerror(errno.ENOENT):
            why = f"the working folder: {why}"
        elif error.errno in WRITE_ERRORS:
            why = f"cannot write the output: {why}"
        raise click.ClickException(why) from None


class Unstripped(io.StringIO):
    """Text from which click does not remove escape sequences, because it claims to be a terminal."""

    def isatty(self) -> bool:
        """Claim to be a terminal."""
        return True


def tell(error: click.ClickException) -> None:
    """Write an error to standard error."""
    text = Unstripped()
    error.show(text)
    say(text.getvalue().removesuffix("\n"), indent=None, err=True)


class Command(click.Command):
    """A command whose examples are not wrapped."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each example on its own line."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Finite(click.FloatRange):
    """A finite number within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail if it is not finite or out of range."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Texts(click.Path):
    """An existing file or folder, a glob pattern that the shell has not expanded, or ``-``."""

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or pattern; fail if nothing matches."""
        from chargen.text.documents import expanded

        super().convert(str(expanded(value)[0]), param, ctx)
        return value


class Encoding(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """The name of a text encoding of Python."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the encoding's canonical name; fail if there is none."""
        try:
            "text".encode(value)
            return codecs.lookup(value).name.removesuffix("-sig")  # a byte order mark is removed with any encoding
        except (LookupError, UnicodeError):
            self.fail(f"{value!r} is not a text encoding: try utf-8, cp1252, latin-1 or utf-16", param, ctx)


def options(
    config: type[Config], only: Collection[str] = (), *, planning: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds an option for each field of a configuration to a command.

    An option has the field's name, type, range and help. ``only`` limits the fields. With ``planning``, the fields that
    `plan` can choose have no default, so that their value is None unless they are given.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        types = config.types()
        for f in reversed(dataclasses.fields(config)):  # type: ignore[arg-type]
            if only and f.name not in only:
                continue
            low, high, exclusive = (f.metadata[key] for key in ("minimum", "maximum", "exclusive"))
            kind, _ = types[f.name]
            value_type: Any = Encoding() if f.name == "encoding" else click.STRING
            if kind is bool:
                command = click.option(f"--{f.name.replace('_', '-')}", is_flag=True, help=f.metadata["help"])(command)
                continue
            if kind is int:
                value_type = click.IntRange(low, high)
            elif f.metadata["choices"]:
                value_type = click.Choice(f.metadata["choices"])
            elif kind is float:
                value_type = Finite(low, high, min_open=exclusive, max_open=exclusive and high is not None)
            planned = planning and f.metadata["planned"]
            command = click.option(
                f"--{f.name.replace('_', '-')}",
                type=value_type,
                default=None if planned else f.default,
                show_default="to suit text and time" if planned else f.default is not None,
                help=f.metadata["help"],
            )(command)
        return command

    return decorate


def configured(config: type[C], values: dict[str, Any]) -> C:
    """Return a configuration from the values of a command's options; None means the field's default."""
    fields = {f.name: f.default for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**{n: default if values[n] is None else values[n] for n, default in fields.items()})


def typed(parameters: Collection[str]) -> str:
    """Return options of the running command as people type them (``--top-k, --top-p``), from their parameter names."""
    declared = click.get_current_context().command.params
    return ", ".join(sorted(max(p.opts, key=len) for p in declared if p.name in parameters))


def read_file(path: str) -> bytes:
    """Return the bytes of a file, or of standard input for ``-``. Raises ChargenError if they can't be read."""
    if path == "-" and sys.stdin is None:
        raise ChargenError("standard input is closed: name a file")
    try:
        with click.open_file(path, "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise ChargenError(f"cannot read {'standard input' if path == '-' else path}: {error.strerror}") from None


def run_of(model: Path | None) -> Run:
    """Return the run of a model, by default the newest. Raises ChargenError for a model file outside of a run."""
    from chargen.store.run import Run, newest

    path = model or newest()
    return Run(path if path.is_dir() else path.parent)


def refuse_output(path: Path) -> None:
    """Raise ChargenError if ``path`` exists or has no parent folder, before work is done for it."""
    if path.exists():
        raise ChargenError(f"{path} exists and is left as it is: name a new file")
    if not path.absolute().parent.is_dir():
        raise ChargenError(f"{path} can't be written: there is no folder {path.parent}")


class Stop:
    """While entered, the first Ctrl-C, SIGTERM or SIGHUP is only noted, in ``signal``; a second one exits."""

    def __init__(self) -> None:
        self.signal: int = 0

    def __enter__(self) -> Stop:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Windows has no SIGHUP. Where it is ignored, as with nohup, it stays ignored.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            sys.exit(128 + number)
        self.signal = number


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow's start-up log off the terminal by redirecting the file descriptor of standard error.

    No option of TensorFlow suppresses all of it. The log is shown if an unexpected error occurs. In a process that
    chargen does not own, nothing is redirected.
    """
    if not process.owned():
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log:
        terminal = os.dup(2)
        os.dup2(log.fileno(), 2)
        started = False
        try:
            yield
            started = True
        except (ChargenError, KeyboardInterrupt, SystemExit):
            started = True  # the error is shown in one line, or the user stopped the program
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if not started:
                log.seek(0)
                click.echo(shown(log.read().decode(errors="replace"), sys.stderr), nl=False, err=True, color=True)
