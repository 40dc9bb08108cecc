"""Files appear whole or not at all, temporary folders go with their process, and locks admit one process at a time.

Everything is written in a temporary folder beside its place, ``.chargen-`` and 16 hexadecimal digits, and renamed from
there. So no name that a user would choose is used, and a half-written file never has a name that is read. The process
holds a lock on a file in the folder. A folder whose file is not locked was left by a process that was killed, and
`sweep` removes it.
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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from chargen import ChargenError, process

PREFIX, LOCK = ".chargen-", "lock"
_TEMPORARY_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")
_NO_LOCK_ERRORS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of a disk without locks
_NO_LINK_ERRORS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
_TAKEN_ERRORS = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # of renaming a folder to a name that is taken


def write_beside(path: Path, data: bytes | Iterable[bytes], *, new: bool = False) -> None:
    """Write a file, given whole or in blocks, beside ``path``, then rename it into place.

    So a kill leaves either the old or the new file. The new file has the permissions of the one that it replaces. With
    ``new``, it replaces none. Raises ChargenError, and leaves an old file intact, if the disk is full, the folder
    cannot be written, or ``new`` is given and ``path`` exists.
    """
    try:
        with temporary(path.parent) as folder:
            beside = folder / "file"
            with beside.open("xb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
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
    """Rename a file or folder into place, in one step. The permissions of a file that is replaced are kept.

    With ``new``, raises FileExistsError if ``target`` exists; only an empty folder may be replaced, by a folder.
    """
    if new and not source.is_dir():
        try:
            os.link(source, target)  # unlike a rename, this replaces nothing
            return
        except OSError as error:
            if error.errno not in _NO_LINK_ERRORS | {errno.EEXIST}:
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
        if new and error.errno in _TAKEN_ERRORS:
            raise _taken(target) from None
        raise


@contextmanager
def temporary(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder in ``parent``, or in the system's folder for temporary files, and remove it at the end.

    What is moved out of it stays, and so does a folder that was given to `keep`. Folders in ``parent`` that processes
    left when they were killed are removed first.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent)
    with _exit_on_signals(), ExitStack() as stack:
        folder = _locked_folder(parent, stack)
        while folder is None:
            folder = _locked_folder(parent, stack)
        yield folder


def keep(folder: Path) -> None:
    """Make a temporary folder permanent."""
    (folder / LOCK).unlink()


def sweep(parent: Path) -> None:
    """Remove the temporary folders in ``parent`` that this user's processes left when they were killed.

    They stay where there are no locks, on Windows and some network disks: they may belong to living processes.
    """
    left: list[Path] = []
    with suppress(OSError), os.scandir(parent) as entries:
        left += [Path(entry.path) for entry in entries if _TEMPORARY_NAME.fullmatch(entry.name) and _own_folder(entry)]
    for folder in left:
        with suppress(OSError):  # BlockingIOError: its process lives
            with suppress(FileNotFoundError), locked(folder / LOCK, wait=False) as held:
                if held:
                    _empty(folder)
            folder.rmdir()  # fails if anything is left in it


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents if they are missing; at the end, remove those that were made and are still empty.

    Raises OSError if the folder cannot be made.
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
    """Hold the lock of an existing file or folder while entered; the end of the process releases it too.

    Yields whether the lock is held: false where there are no locks. If another process holds it, waits for it, or
    raises BlockingIOError if ``wait`` is false.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield False
        return
    held = True
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks only writable files
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCK_ERRORS:
                raise
            held = False
        yield held
    finally:
        os.close(opened)  # this releases the lock


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _sync(file: IO[bytes]) -> None:
    """Write an open file's buffers to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    os.replace(source, target)  # noqa: PTH105  # tests replace this function and `_sync`


def _locked_folder(parent: Path, stack: ExitStack) -> Path | None:
    """Make and lock a folder; return None if another process swept it away before it was locked."""
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
    """Remove everything in a temporary folder, the lock file last, because a folder without it is never swept."""
    if not (folder / LOCK).exists():  # a folder given to `keep`
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
    """Return whether an entry is a folder of this user's, and no link."""
    if not entry.is_dir(follow_symlinks=False):
        return False
    return not hasattr(os, "geteuid") or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP raise SystemExit, so that temporary folders are removed.

    Only in chargen's own process, and only for signals that have no handler.
    """
    numbers = []
    if process.owned() and threading.current_thread() is threading.main_thread():
        known = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        numbers = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> Any:
    sys.exit(128 + number)
