"""Files and temporary folders when something goes wrong: at a write, by a signal, or in several processes at once."""

import errno
import fcntl
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from chargen import ChargenError
from chargen.files.disk import PREFIX, keep, made, move, sweep, temporary, write_beside
from tests.conftest import contents
from tests.files.conftest import AT_ONCE, at_once, failing, left, mode, names

# ---- files -------------------------------------------------------------------------------------------------------


def test_files_of_the_users_and_links_are_left_whatever_their_names(tmp_path):
    (tmp_path / "poem").write_text("roses")
    (tmp_path / ".a.txt.new").write_text("mine")
    (tmp_path / ".b.txt.new").symlink_to("poem")
    for name in ("a.txt", "b.txt", "lock", "file", "work"):
        write_beside(tmp_path / name, b"drawn")
        assert (tmp_path / name).read_bytes() == b"drawn"
    assert (tmp_path / "poem").read_text() == "roses"
    assert (tmp_path / ".a.txt.new").read_text() == "mine"
    assert names(tmp_path) == [".a.txt.new", ".b.txt.new", "a.txt", "b.txt", "file", "lock", "poem", "work"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    write_beside(tmp_path / ("n" * 255), b"drawn")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_ordinary_permissions_and_one_that_replaces_another_has_that_ones(tmp_path):
    write_beside(tmp_path / "a", b"1")
    assert mode(tmp_path / "a") == 0o640
    for permissions in (0o600, 0o664, 0o444):
        (tmp_path / "a").chmod(permissions)
        write_beside(tmp_path / "a", b"2")
        assert mode(tmp_path / "a") == permissions


def test_what_becomes_a_file_is_nobody_elses_to_read_before(tmp_path):
    with temporary(tmp_path) as folder:
        assert mode(folder) == 0o700


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_replaces_nothing_not_even_what_came_meanwhile(tmp_path, monkeypatch, links):
    if not links:

        def link(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("os.link", link)
    write_beside(tmp_path / "new", b"drawn", new=True)
    assert (tmp_path / "new").read_bytes() == b"drawn"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "broken", "folder"):
        with pytest.raises(ChargenError, match=f"{name} exists and is left as it is"):
            write_beside(tmp_path / name, b"drawn", new=True)
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["broken", "file", "folder", "new"]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "poem").write_text("roses")
    (tmp_path / "a").symlink_to("poem")
    write_beside(tmp_path / "a", b"drawn")
    assert (tmp_path / "poem").read_text() == "roses"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ["_sync", "_replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name):
    write_beside(tmp_path / "f", b"old")
    failing(monkeypatch, name, 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ChargenError, match="f can't be written: No space left on device; what was there before"):
        write_beside(tmp_path / "f", b"new")
    assert contents(tmp_path) == {"f": b"old"}


def test_files_are_brought_to_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: order.append("sync"))
    monkeypatch.setattr("os.replace", lambda *names: order.append("rename"))
    write_beside(tmp_path / "a", b"1")
    assert order == ["sync", "rename"]


# ---- temporary folders -------------------------------------------------------------------------------------------


def test_a_temporary_folder_goes_in_the_end_with_all_that_is_in_it_unless_it_is_kept(tmp_path):
    for one, stays in ((False, []), (True, ["log"])):
        with temporary(tmp_path) as folder:
            (folder / "deep" / "deeper").mkdir(parents=True)
            (folder / "deep" / "link").symlink_to(tmp_path)
            (folder / "link").symlink_to(tmp_path)
            (folder / "log").write_text("words")
            if one:
                keep(folder)
        assert [path for path in stays if not (folder / path).exists()] == []
        assert folder.exists() == one
    sweep(tmp_path)
    assert (folder / "log").read_text() == "words"


def test_what_a_kill_has_left_is_removed_and_only_that(tmp_path):
    left(tmp_path)
    (tmp_path / f"{PREFIX}{1:016x}").mkdir()  # a kill between two operations
    others = {f"{PREFIX}poems", "chargen-0123456789abcdef", ".chargen", f"{PREFIX}{2:016x}.txt", f"{PREFIX}{'F' * 16}"}
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    (tmp_path / f"{PREFIX}{3:016x}").write_text("a file")
    (tmp_path / f"{PREFIX}{4:016x}").symlink_to(tmp_path / ".chargen")
    (tmp_path / f"{PREFIX}{5:016x}").mkdir()
    (tmp_path / f"{PREFIX}{5:016x}" / "poem").write_text("one without a lock is none of ours, or kept")
    before = set(names(tmp_path))
    with temporary(tmp_path):
        pass
    assert before - set(names(tmp_path)) == {f"{PREFIX}{0:016x}", f"{PREFIX}{1:016x}"}
    assert (tmp_path / ".chargen" / "lock").exists()


def test_the_folder_of_a_process_that_lives_stays(tmp_path):
    program = (
        "import sys; from pathlib import Path; from chargen.files.disk import temporary\n"
        "with temporary(Path(sys.argv[1])) as folder: print(folder, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    sweep(tmp_path)
    assert folder.exists()
    process.kill()
    process.communicate()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_of_another_users_folders_none_is_touched(tmp_path, monkeypatch):
    folder = left(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    sweep(tmp_path)
    assert folder.exists()


def test_where_there_are_no_locks_files_are_written_and_nothing_is_swept(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    folder = left(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    write_beside(tmp_path / "a", b"1")
    assert names(tmp_path) == [folder.name, "a"]


def test_a_folder_that_another_process_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    touch = Path.touch
    swept: list[Path] = []

    def touching(path, **settings):
        touch(path, **settings)
        if len(swept) < 2:
            swept.append(path)
            sweep(tmp_path)

    monkeypatch.setattr(Path, "touch", touching)
    write_beside(tmp_path / "a", b"1")
    assert contents(tmp_path) == {"a": b"1"}
    assert len(swept) == 2


def test_processes_that_write_and_sweep_at_once_disturb_nobody(tmp_path):
    numbers = itertools.count()

    def work():
        number = next(numbers)
        for count in range(40):
            write_beside(tmp_path / f"{number}", b"%d" % count)

    assert at_once(work) == [None] * AT_ONCE
    assert contents(tmp_path) == {str(number): b"39" for number in range(AT_ONCE)}


def test_folders_that_were_made_for_nothing_are_removed_again(tmp_path):
    (tmp_path / "before").mkdir()
    for name in ("a/b/c", "before", "before/d"):
        with made(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert names(tmp_path) == ["before"]
    assert names(tmp_path / "before") == []
    with made(tmp_path / "a" / "b"):
        (tmp_path / "a" / "poem").write_text("roses")
    assert contents(tmp_path) == {"a/poem": b"roses"}
    assert not (tmp_path / "a" / "b").exists()
    with pytest.raises(NotADirectoryError), made(tmp_path / "a" / "poem"):
        pass


def test_a_folder_takes_a_name_only_if_nothing_but_an_empty_folder_has_it(tmp_path):
    for name in ("one", "two", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "poem").write_text("roses")
    move(tmp_path / "one", tmp_path / "empty", new=True)
    for name in ("full", "poem"):
        with pytest.raises(FileExistsError):
            move(tmp_path / "two", tmp_path / name, new=True)
    assert (tmp_path / "poem").read_text() == "roses"
