"""What every command shares: options made from a configuration, errors of one line, stopping, a quiet start."""

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
MESSAGE = 300  # characters of a line on standard error, at the most
UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}  # why output is refused


def say(text: str = "", *, indent: int | None = 2, err: bool = False) -> None:
    """Write lines for a person, as `fitted` makes them.

    On standard error a long line loses its middle: what to do stands at its end. That it is full or gone is no reason
    to end.
    """
    stream = sys.stderr if err else sys.stdout
    if err:
        text = "\n".join(map(_short, text.split("\n")))
    if getattr(stream, "errors", None) == "strict":  # a stream that is not chargen's ends at a name that is not UTF-8
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    with suppress(*[OSError] * err):
        click.echo(fitted(text, stream, indent), stream, color=True)  # else click takes sequences out of it


def _short(line: str) -> str:
    return line if len(line) <= MESSAGE else f"{line[: MESSAGE // 2]} ... {line[5 - MESSAGE // 2 :]}"


@contextmanager
def in_one_line() -> Iterator[None]:
    """Make a foreseen error, and one of the system's, a ClickException of one line."""
    try:
        yield
    except ChargenError as error:
        raise click.ClickException(" ".join(str(error).split())) from None
    except BrokenPipeError:
        raise
    except OSError as error:  # one of a file that is open has no name: whatever reads files names them itself
        why = error.strerror or str(error)
        if error.filename is not None:
            why = f"{os.fsdecode(error.filename)}: {why}"
        elif why == os.strerror(errno.ENOENT):
            why = f"the working folder: {why}"
        elif error.errno in UNWRITTEN:
            why = f"cannot write the output: {why}"
        raise click.ClickException(why) from None


class Unstripped(io.StringIO):
    """Text from which click takes no escape sequences, as it does where a stream is no terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def tell(error: click.ClickException) -> None:
    """Write an error on standard error."""
    text = Unstripped()
    error.show(text)
    say(text.getvalue().removesuffix("\n"), indent=None, err=True)


class Command(click.Command):
    """A command whose examples stay as they are written."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, a line each."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Finite(click.FloatRange):
    """A number within a range, which infinity and nan are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; refuse what is none, or out of range."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Texts(click.Path):
    """A file, a folder or a pattern that is there, or ``-``; the shell may have left the pattern to us."""

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or pattern; refuse one that stands for nothing."""
        from chargen.text.documents import expanded

        super().convert(str(expanded(value)[0]), param, ctx)
        return value


class Encoding(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """The name of a text encoding that Python knows."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the encoding's usual name; refuse what is none."""
        try:
            "text".encode(value)
            return codecs.lookup(value).name.removesuffix("-sig")  # a mark is removed in any case
        except (LookupError, UnicodeError):
            self.fail(f"{value!r} is not a text encoding: try utf-8, cp1252, latin-1 or utf-16", param, ctx)


def options(
    config: type[Config], only: Collection[str] = (), *, planning: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a configuration, with the field's name, type, range and help.

    ``only`` names the fields, if not all. ``planning`` leaves those that can be planned without a default.
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
    """Return the configuration whose fields are among a command's values; one without a value has its default."""
    fields = {f.name: f.default for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**{n: default if values[n] is None else values[n] for n, default in fields.items()})


def typed(parameters: Collection[str]) -> str:
    """Return options of the running command as they are typed, by the names of its parameters."""
    declared = click.get_current_context().command.params
    return ", ".join(sorted(max(p.opts, key=len) for p in declared if p.name in parameters))


def read_file(path: str) -> bytes:
    """Return the bytes of a file, or of standard input for ``-``."""
    if path == "-" and sys.stdin is None:
        raise ChargenError("standard input is closed: name a file")
    try:
        with click.open_file(path, "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise ChargenError(f"cannot read {'standard input' if path == '-' else path}: {error.strerror}") from None


def run_of(model: Path | None) -> Run:
    """Return the run that a model is of. Raises ChargenError for a model file by itself."""
    from chargen.store.run import Run, newest

    path = model or newest()
    return Run(path if path.is_dir() else path.parent)


def refuse_output(path: Path) -> None:
    """Raise ChargenError if a new file can't be made at ``path``, before anything is drawn for it."""
    if path.exists():
        raise ChargenError(f"{path} exists and is left as it is: name a new file")
    if not path.absolute().parent.is_dir():
        raise ChargenError(f"{path} can't be written: there is no folder {path.parent}")


class Stop:
    """While entered, Ctrl-C, SIGTERM and SIGHUP are only noted, in ``signal``; a second one ends the program."""

    def __init__(self) -> None:
        self.signal: int = 0

    def __enter__(self) -> Stop:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Windows has no SIGHUP; where it is ignored, as by nohup, it stays so.
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
    """Keep TensorFlow's start-up log from the terminal: it writes to the file descriptor, whatever it is told.

    What it wrote is shown after all if starting fails. In a process that is not chargen's own, nothing is redirected.
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
            started = True  # and found what is told in a line, or was stopped
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if not started:
                log.seek(0)
                click.echo(shown(log.read().decode(errors="replace"), sys.stderr), nl=False, err=True, color=True)
