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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chargen import ChargenError, process
from chargen.commands.manual import topic_of
from chargen.config import Config
from chargen.terminal import fitted, shown

if TYPE_CHECKING:
    from chargen.store.run import Run


C = TypeVar("C", bound=Config)
UNROLLS = {"keras": "Keras's layers", "loop": "compiled loops", "onednn": "compiled loops with oneDNN's products"}
NAMES_WIDTH = 19  # columns of an option's names in help; longer ones have a line of their own
NO_BREAK = "\N{NO-BREAK SPACE}"  # keeps a default on one line while help is wrapped
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


def show_error(error: click.ClickException) -> None:
    """Write an error to standard error."""
    text = Unstripped()
    error.show(text)
    say(text.getvalue().removesuffix("\n"), indent=None, err=True)


class Option(click.Option):
    """An option of a configuration, which --help lists in its field's group."""

    def __init__(self, *args: Any, group: str = "", **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.group = group


class Command(click.Command):
    """A command whose help lists its options in groups, and its examples without wrapping them.

    ``groups`` maps a group's title to the parameters in it, in a text; an `Option` is added to its own group. The
    groups are listed in this order, and then the options of none.
    """

    def __init__(self, *args: Any, groups: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        of = {name: title for title, names in self._groups.items() for name in names.split()}
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in [*self._groups, "Options"]}
        for option in self.params:
            if isinstance(option, click.Option):
                title = of.get(option.name or "") or getattr(option, "group", "") or "Options"
                groups.setdefault(title, []).append(_help_record(option))
        groups["Options"] = groups.pop("Options")  # the last one
        names = (name for records in groups.values() for name, _ in records)
        widest = max((len(name) for name in names if len(name) <= NAMES_WIDTH), default=0)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(widest), text) for name, text in records], col_max=widest)
        formatter.buffer[:] = [text.replace(NO_BREAK, " ") for text in formatter.buffer]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each example on its own line, and the topic of the manual to read on in."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").strip().splitlines():
                formatter.write(f"  {line.strip()}\n")
        write_topic(ctx, formatter)


class Group(click.Group):
    """A group whose help lists its commands in the order in which they were added, before its options."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line of its own, if it has one, and the topic of the manual to read on in."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")
        write_topic(ctx, formatter)


def write_topic(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the topic of the manual about a command, or about the commands of a group."""
    if topic := topic_of(" ".join(path(ctx))):
        formatter.write(f"\nRead on in: chargen help {topic}\n")


def path(ctx: click.Context) -> list[str]:
    """Return the names that lead from the program to a command, such as bench and train."""
    return [] if ctx.parent is None else [*path(ctx.parent), ctx.info_name or ""]


def _help_record(option: click.Option) -> tuple[str, str]:
    """Return an option's names with its metavar, and its help with its default."""
    names = ", ".join(sorted(option.opts, key=len))
    notes = ["required"] if option.required else []
    if isinstance(option.show_default, str):
        notes.append(option.show_default)
    elif option.show_default:
        default = option.default
        notes.append(f"default: {format(default, {int: ',', float: 'g'}.get(type(default), ''))}")
    return " ".join(filter(None, [names, _metavar(option)])), " ".join(
        [option.help or "", *(f"[{n}]".replace(" ", NO_BREAK) for n in notes)]
    )


def _metavar(option: click.Option) -> str:
    """Return what stands for an option's value in help."""
    kind = option.type
    if option.is_flag or option.metavar is not None:
        return option.metavar or ""
    if isinstance(kind, click.Choice):
        return "|".join(kind.choices)
    if isinstance(kind, click.Path):
        return "PATH" if kind.file_okay and kind.dir_okay else "FILE" if kind.file_okay else "FOLDER"
    return "N" if isinstance(kind, (click.IntRange, click.FloatRange)) else kind.name.upper()


class Whole(click.IntRange):
    """A whole number within a range whose ends are included."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail if it is not one, or out of range."""
        with suppress(click.BadParameter):
            return super().convert(value, param, ctx)
        ends = f"of at least {self.min}" if self.max is None else f"from {self.min} to {self.max}"
        raise _number_error(value, param, f"a whole number {ends}")


class Finite(click.FloatRange):
    """A finite number within a range of two ends, which are both included, or both excluded."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail if it is not one, not finite, or out of range."""
        with suppress(click.BadParameter):
            if isfinite(number := super().convert(value, param, ctx)):
                return number
        low, high = (f"{end:.12g}" for end in (self.min, self.max) if end is not None)
        ends = f"above {low} and below {high}" if self.min_open else f"from {low} to {high}"
        raise _number_error(value, param, f"a number {ends}")


def _number_error(value: Any, param: click.Parameter | None, wanted: str) -> click.UsageError:
    """Return the error for an option's value, such as ``--units 0: give a whole number from 1 to 65536``."""
    assert param is not None
    text = str(value)
    given = text if text.strip() and text.isprintable() else repr(text)
    return click.UsageError(f"{max(param.opts, key=len)} {given}: give {wanted}")


class Texts(click.Path):
    """An existing file or folder, a glob pattern that the shell has not expanded, or ``-``."""

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or pattern; fail if nothing matches."""
        from chargen.text.sources import expanded

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
    config: type[Config], only: Collection[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds an option for each field of a configuration to a command.

    An option has the field's name, type, range and help. ``only`` limits the fields. The fields that `plan` can choose
    have no default but that in ``defaults``, so that their value is None unless they are given.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        types = config.types()
        for f in reversed(dataclasses.fields(config)):  # type: ignore[arg-type]
            if only and f.name not in only:
                continue
            low, high, exclusive = (f.metadata[key] for key in ("minimum", "maximum", "exclusive"))
            kind, _ = types[f.name]
            name, shown_as = f"--{f.name.replace('_', '-')}", {"cls": Option, "group": f.metadata["group"]}
            value_type: Any = Encoding() if f.name == "encoding" else click.STRING
            if kind is bool:
                command = click.option(name, is_flag=True, help=f.metadata["help"], **shown_as)(command)
                continue
            if kind is int:
                value_type = Whole(low, high)
            elif f.metadata["choices"]:
                value_type = click.Choice(f.metadata["choices"])
            elif kind is float:
                value_type = Finite(low, high, min_open=exclusive, max_open=exclusive)
            default = defaults.get(f.name, None if f.metadata["planned"] else f.default)
            command = click.option(
                name,
                type=value_type,
                default=default,
                show_default=default is not None or (f.metadata["planned"] and "chosen"),
                metavar=f.metadata["metavar"] or None,
                help=f.metadata["help"],
                **shown_as,
            )(command)
        return command

    return decorate


def configured(config: type[C], values: dict[str, Any]) -> C:
    """Return a configuration from the values of a command's options; None means the field's default."""
    fields = {f.name: f.default for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    return config(**{n: default if values[n] is None else values[n] for n, default in fields.items()})


def option_names(parameters: Collection[str]) -> str:
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
