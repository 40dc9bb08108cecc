"""What is written appears whole or not at all; what is temporary goes with its process; one process at a time.

Everything is written in a temporary folder beside its place, ``.chargen-`` and 16 hexadecimal digits, and renamed from
there. So no name of the user's is ever taken, and a half-written file is never at a name that is read. The folder holds
a lock file as long as its process lives; one whose lock nobody holds was left by a kill, and `sweep` removes it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from chargen import ChargenError, process

PREFIX, LOCK = ".chargen-", "lock"
_OURS = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of a disk that has none
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}  # likewise
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # where a folder is renamed to a name that something has


def write_beside(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a whole file beside ``path``, then rename it into place, so that a kill leaves the old or the new one.

    The file has the permissions of the one that it replaces, or those of any new file. With ``new`` it replaces none.
    Raises ChargenError, with any earlier file intact, if the disk is full, the folder can't be written, or ``new`` is
    given and something has the name.
    """
    try:
        with temporary(path.parent) as folder:
            beside = folder / "file"
            with beside.open("xb") as file:
                file.write(data)
                _sync(file)
            move(beside, path, new=new)
    except FileExistsError:
        raise ChargenError(f"{path} exists and is left as it is: name a new file") from None
    except OSError as error:
        raise ChargenError(
            f"{path} can't be written: {error.strerror}; what was there before is intact, "
            "make room or name another folder, then go on"
        ) from error


def move(source: Path, target: Path, *, new: bool = False) -> None:
    """Rename a file or folder of ours into place, in one step. A file passes its permissions on to what replaces it.

    With ``new`` nothing is replaced but an empty folder by a folder: raises FileExistsError if the name is taken.
    """
    if new and not source.is_dir():
        try:
            os.link(source, target)  # which replaces nothing, as a rename would
            return
        except OSError as error:
            if error.errno not in _NO_LINKS | {errno.EEXIST}:
                raise
        if os.path.lexists(target):
            raise _taken(target)
    with suppress(FileNotFoundError):
        before = target.lstat().st_mode
        if stat.S_ISREG(before):
            source.chmod(stat.S_IMODE(before))
    try:
        _replace(source, target)
    except OSError as error:
        if new and error.errno in _TAKEN:
            raise _taken(target) from None
        raise


@contextmanager
def temporary(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder of this process's in ``parent``, or among the temporary files; it is removed in the end.

    What is moved out of it stays; so does the folder if it was told to `keep` itself. Whatever is left there by
    processes that were killed is removed first.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    with _in_order(), ExitStack() as stack:
        folder = _locked_folder(parent, stack)
        while folder is None:
            folder = _locked_folder(parent, stack)
        yield folder


def keep(folder: Path) -> None:
    """Let a temporary folder stay for good."""
    (folder / LOCK).unlink()


def sweep(parent: Path) -> None:
    """Remove the temporary folders in ``parent`` that this user's processes left when they were killed.

    Where there are no locks, on Windows and some network disks, nothing tells them from others, and they stay.
    """
    left: list[Path] = []
    with suppress(OSError), os.scandir(parent) as entries:
        left += [Path(entry.path) for entry in entries if _OURS.fullmatch(entry.name) and _own_folder(entry)]
    for folder in left:
        with suppress(OSError):  # BlockingIOError is that of a process that lives
            with suppress(FileNotFoundError), locked(folder / LOCK, wait=False) as held:
                if held:
                    _empty(folder)
            folder.rmdir()  # which spares what has anything in it


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder, with its parents, where it is missing; those of them that are empty in the end are removed again.

    Raises OSError if it can't be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with ExitStack() as stack:
        for path in reversed(missing):
            stack.callback(_remove_if_empty, path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        yield


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Keep a file or folder that exists to this process while it is entered; it ends with the process, however that.

    Yields whether it is kept, which it is not where there are no locks. Raises BlockingIOError if another process has
    it and ``wait`` is false.
    """
    try:
        import fcntl
    except ImportError:  # Windows, which has no locks on folders
        yield False
        return
    held = True
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks only what can be written
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = False
        yield held
    finally:
        os.close(opened)  # which unlocks it


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _sync(file: IO[bytes]) -> None:
    """Bring a file that is open to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    os.replace(source, target)  # noqa: PTH105  # with `_sync`, all that a run's files pass through


def _locked_folder(parent: Path, stack: ExitStack) -> Path | None:
    """Make and lock a folder; return None if another process took it for one that was left, before it was locked."""
    folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
    folder.mkdir(0o700)
    stack.callback(_remove_if_empty, folder)
    try:
        (folder / LOCK).touch(exist_ok=False)
        stack.enter_context(locked(folder / LOCK, wait=False))
    except (FileNotFoundError, BlockingIOError):
        return None
    if not (folder / LOCK).exists():
        return None
    stack.callback(_empty, folder)
    return folder


def _empty(folder: Path) -> None:
    """Remove all that is in a temporary folder, the lock file last, without which it would be spared for good."""
    if not (folder / LOCK).exists():  # it is to be kept
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            with suppress(OSError):
                entry.unlink()
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _own_folder(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir(follow_symlinks=False):
        return False
    return not hasattr(os, "geteuid") or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


@contextmanager
def _in_order() -> Iterator[None]:
    """While entered, SIGTERM and a terminal's end raise SystemExit, where they would end the process as it stands.

    Only in a process of chargen's own, and only where nobody has other plans for them.
    """
    numbers = []
    if process.owned() and threading.current_thread() is threading.main_thread():
        known = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        numbers = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> Any:
    sys.exit(128 + number)
