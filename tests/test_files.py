"""Files are complete or not there at all, and nothing is left behind."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bgx import files
from bgx.files import remove_leftovers, temporary, write_whole
from support.writing import start_writing

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions, locks and names")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_step(
    monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, *, times: int = 99
) -> None:
    """Let one step of writing a file fail for some times: that of writing, after half of it."""
    left = [times]

    def fails() -> bool:
        left[0] -= 1
        return left[0] >= 0

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            if not fails():
                return super().write(data)
            super().write(bytes(data)[: len(data) // 2])
            raise error

    if step == "write":
        opened = Path.open

        def open_on_disk(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            return Disk(path, mode) if mode == "wb" else opened(path, mode, *arguments, **options)

        monkeypatch.setattr(Path, "open", open_on_disk)
        return
    original: Callable[..., Any] = getattr(Path, step)

    def attempt(*arguments: Any, **options: Any) -> Any:
        if fails():
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(Path, step, attempt)


STEPS = ["mkdir", "open", "write", "replace"]


# Whole or not at all ------------------------------------------------------------------------------


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "ünï 写真.png"
    assert write_whole(target, b"first")
    assert write_whole(target, b"sec", b"ond")
    assert target.read_bytes() == b"second"
    assert entries(target.parent) == ["ünï 写真.png"]


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_what_the_umask_says(
    tmp_path: Path, umask: int, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process's umask is left alone meanwhile: another thread may be making a file."""
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
            write_whole(tmp_path / "out.png", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "out.png").stat().st_mode & 0o777 == mode


@posix
def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".png")
    write_whole(target, b"data")
    assert target.read_bytes() == b"data"
    with pytest.raises(OSError, match="name too long"):
        write_whole(tmp_path / ("x" * 300 + ".png"), b"data")
    assert entries(tmp_path) == [target.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EINVAL])
@pytest.mark.parametrize("step", STEPS)
def test_trouble_at_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    target = tmp_path / "new" / "out.png" if step == "mkdir" else tmp_path / "out.png"
    (tmp_path / "out.png").write_bytes(b"old")
    with monkeypatch.context() as broken:
        break_step(broken, step, OSError(number, os.strerror(number)))
        with pytest.raises(OSError, match=os.strerror(number)):
            write_whole(target, b"new")
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.parametrize("step", STEPS)
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "new" / "out.png" if step == "mkdir" else tmp_path / "out.png"
    break_step(monkeypatch, step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_whole(target, b"new")
    assert entries(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("step", [*STEPS, "hardlink_to"])
def test_what_is_in_the_way_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, create: bool, number: int
) -> None:
    """A virus scanner or a sync client has the file open."""
    target = tmp_path / "new" / "out.png"
    break_step(monkeypatch, step, OSError(number, os.strerror(number)), times=1)
    assert write_whole(target, b"new", create=create)
    assert target.read_bytes() == b"new"
    assert entries(target.parent) == ["out.png"]


def test_a_temporary_file_that_somebody_deleted_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def lose_the_first(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        path.unlink()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", lose_the_first)
    assert write_whole(tmp_path / "out.png", b"data")
    assert (tmp_path / "out.png").read_bytes() == b"data"


@posix
def test_a_file_larger_than_the_process_may_write(tmp_path: Path) -> None:
    import resource

    write_whole(tmp_path / "out.png", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            write_whole(tmp_path / "out.png", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert entries(tmp_path) == ["out.png"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    wholes = [bytes([number]) * 300_000 for number in range(3)]
    write_whole(target, wholes[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def watch() -> None:
        while not done.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=watch)
    reader.start()
    for number in range(30):
        try:
            write_whole(target, wholes[number % 3])
        except PermissionError:
            assert os.name == "nt"  # what is being read cannot be replaced there
    done.set()
    reader.join()
    assert seen <= set(wholes)
    assert entries(tmp_path) == ["out.png"]


# Only where nothing is ----------------------------------------------------------------------------


@pytest.fixture(params=["hard links", "no hard links"])
def _hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system may have none, as FAT."""
    if request.param == "no hard links":

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.mark.usefixtures("_hard_links")
@pytest.mark.parametrize(("before", "written"), [(None, True), (b"", True), (b"another's", False)])
def test_a_file_that_is_there_is_left_alone(
    tmp_path: Path, before: bytes | None, written: bool
) -> None:
    """Unless it is empty, as some file systems leave a file after a power cut."""
    target = tmp_path / "out.png"
    if before is not None:
        target.write_bytes(before)
    assert write_whole(target, b"mine", create=True) is written
    assert target.read_bytes() == (b"mine" if written else before)
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.usefixtures("_hard_links")
@pytest.mark.parametrize("create", [False, True])
def test_a_folder_in_the_file_s_place_is_an_error(tmp_path: Path, create: bool) -> None:
    """It is no file that somebody else made first: the picture would be missing for good."""
    (tmp_path / "out.png" / "inner").mkdir(parents=True)
    with pytest.raises(OSError):  # noqa: PT011 - each system's own
        write_whole(tmp_path / "out.png", b"mine", create=create)
    assert entries(tmp_path) == ["out.png"]
    assert entries(tmp_path / "out.png") == ["inner"]


@posix
@pytest.mark.usefixtures("_hard_links")
@pytest.mark.parametrize("create", [False, True])
def test_a_link_to_nothing_is_no_file(tmp_path: Path, create: bool) -> None:
    (tmp_path / "out.png").symlink_to("gone.png")
    assert write_whole(tmp_path / "out.png", b"mine", create=create)
    assert (tmp_path / "out.png").read_bytes() == b"mine"
    assert entries(tmp_path) == ["out.png"]


def test_of_many_at_once_one_makes_the_file(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    together = threading.Barrier(8)
    winners: list[int] = []

    def write(number: int) -> None:
        together.wait()
        if write_whole(target, bytes([number]) * 1000, create=True):
            winners.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = winners
    assert target.read_bytes() == bytes([winner]) * 1000
    assert entries(tmp_path) == ["out.png"]


# Leftovers ----------------------------------------------------------------------------------------


def leave(folder: Path, *, age: float = 0) -> str:
    """The temporary file of a process that was killed. age: seconds since it was written to."""
    with start_writing(folder) as process:
        process.kill()
    [name] = (name for name in entries(folder) if name.endswith(".bgx-tmp"))
    then = time.time() - age
    os.utime(folder / name, (then, then))
    return name


@posix
def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"old")
    name = leave(tmp_path)
    assert name.startswith(".")
    assert remove_leftovers(tmp_path) == 1
    assert entries(tmp_path) == ["photo.png"]
    assert (tmp_path / "photo.png").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["missing", "photo.png"])
def test_where_there_is_no_folder_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "photo.png").write_bytes(b"old")
    assert remove_leftovers(tmp_path / name) == 0


@posix
def test_what_another_process_writes_is_kept_however_long_it_takes(tmp_path: Path) -> None:
    """It may be in another container: nothing but the lock tells that it lives."""
    with start_writing(tmp_path) as process:
        [name] = entries(tmp_path)
        os.utime(tmp_path / name, (1000, 1000))
        assert remove_leftovers(tmp_path) == 0
        process.communicate(b"\n")
    assert entries(tmp_path) == []


@posix
def test_what_another_thread_writes_is_kept(tmp_path: Path) -> None:
    with temporary(tmp_path) as path:
        assert remove_leftovers(tmp_path) == 0
        assert path.exists()


def test_writing_and_cleaning_at_once_loses_nothing(tmp_path: Path) -> None:
    done = threading.Event()

    def clean() -> None:
        while not done.is_set():
            remove_leftovers(tmp_path)

    def write(first: int) -> None:
        for number in range(first, first + 40):
            write_whole(tmp_path / f"{number:03}", bytes([number]) * 1000)

    cleaners = [threading.Thread(target=clean) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 40, 80, 120)]
    for thread in [*cleaners, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in cleaners:
        thread.join()
    assert entries(tmp_path) == [f"{number:03}" for number in range(160)]
    assert all((tmp_path / f"{n:03}").read_bytes() == bytes([n]) * 1000 for n in range(160))


@pytest.fixture(params=["a network file system", "Windows"])
def _no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Windows":
        monkeypatch.setattr(files, "fcntl", None)
        return
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.parametrize(("age", "removed"), [(0, 0), (60, 0), (7200, 1)])
def test_without_locks_age_tells_what_is_left(tmp_path: Path, age: float, removed: int) -> None:
    leave(tmp_path, age=age)
    assert remove_leftovers(tmp_path) == removed
    assert len(entries(tmp_path)) == 1 - removed


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_files_are_written_as_ever(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "out.png", b"data")
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.parametrize(
    "name",
    [
        "photo.png",
        ".bgx-tmp",
        "notes.bgx-tmp",
        ".photo.png.bgx-tmp",
        ".0123456789abcdef.bgx-tmp.png",
        ".0123456789ABCDEF.bgx-tmp",
        "0123456789abcdef.bgx-tmp",
    ],
)
def test_files_of_other_names_are_nobody_s_leftovers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    os.utime(tmp_path / name, (1000, 1000))
    assert remove_leftovers(tmp_path) == 0
    assert entries(tmp_path) == [name]


@posix
def test_leftovers_that_cannot_be_deleted_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path)

    def unlink(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "unlink", unlink)
    assert remove_leftovers(tmp_path) == 0
