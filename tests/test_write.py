"""Files are complete or not there at all, and nothing is left behind."""

from __future__ import annotations

import errno
import io
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bgx.errors import OutputError, UnwritableError
from bgx.image import write
from bgx.image.write import remove_leftovers, write_file


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "ünï 写真.png"
    write_file(target, b"first")
    write_file(target, b"sec", b"ond")
    assert target.read_bytes() == b"second"
    assert entries(target.parent) == ["ünï 写真.png"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_what_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "out.png", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "out.png").stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="the whole path is limited there")
def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".png")
    write_file(target, b"data")
    assert target.read_bytes() == b"data"


def test_a_name_too_long_is_this_picture_s_trouble_alone(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match=r"xxx\.png: cannot be written: "):
        write_file(tmp_path / ("x" * 300 + ".png"), b"data")
    assert entries(tmp_path) == []


def test_a_folder_in_the_target_s_place(tmp_path: Path) -> None:
    (tmp_path / "out.png").mkdir()
    with pytest.raises(UnwritableError, match=r"out\.png: cannot be written: "):
        write_file(tmp_path / "out.png", b"data")
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.parametrize("deeper", ["", "below", "below/it"])
def test_a_file_in_the_folder_s_place(tmp_path: Path, deeper: str) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(OutputError, match=r"its folder is a file; .*another output folder"):
        write_file(tmp_path / "out" / deeper / "photo.png", b"data")
    assert (tmp_path / "out").read_bytes() == b"a file"


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, OutputError),
        (errno.EROFS, OutputError),
        (errno.EACCES, OutputError),
        (errno.EPERM, OutputError),
        (errno.EIO, OutputError),
        (errno.ENAMETOOLONG, UnwritableError),
        (errno.EFBIG, UnwritableError),
        (errno.EINVAL, UnwritableError),
    ],
)
@pytest.mark.parametrize("step", ["mkdir", "open", "write"])
def test_trouble_before_the_file_is_whole_leaves_the_old_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    error: type[Exception],
) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    with monkeypatch.context() as broken:
        _break(broken, step, OSError(number, os.strerror(number)))
        with pytest.raises(error, match=rf"out\.png: cannot be written: {os.strerror(number)}"):
            write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        # The folder takes files: it is the target that is open elsewhere, or protected.
        (errno.EACCES, UnwritableError),
        (errno.EPERM, UnwritableError),
        (errno.EISDIR, UnwritableError),
        (errno.ENOSPC, OutputError),
        (errno.EROFS, OutputError),
    ],
)
def test_trouble_while_replacing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    _break(monkeypatch, "replace", OSError(number, os.strerror(number)))
    with pytest.raises(error, match=r"out\.png: cannot be written: "):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert entries(tmp_path) == ["out.png"]


@pytest.mark.parametrize("step", ["open", "write", "replace"])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    _break(monkeypatch, step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "out.png", b"new")
    assert entries(tmp_path) == []


def _break(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    """Let one step of writing a file fail, the one that writes when half is written."""
    if step != "write":

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(Path, step, fail)
        return
    opened = Path.open

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[: len(data) // 2])
            raise error

    def open_on_disk(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return Disk(path, mode) if "x" in mode else opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_on_disk)


def test_a_folder_without_permission_ends_the_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("may write everywhere")
        with pytest.raises(OutputError, match="Permission denied"):
            write_file(tmp_path / "out.png", b"data")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64k", "bgx-test", str(disk)],
        capture_output=True,
        check=False,
    )
    if not made or made.returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        write_file(disk / "out.png", b"old")
        with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
            write_file(disk / "out.png", bytes(200_000))
        assert (disk / "out.png").read_bytes() == b"old"
        assert entries(disk) == ["out.png"]
        write_file(disk / "out.png", b"small enough")
        subprocess.run([mount, "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
            write_file(disk / "out.png", b"new")
        assert (disk / "out.png").read_bytes() == b"small enough"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    wholes = [bytes([number]) * 300_000 for number in range(3)]
    write_file(target, wholes[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def watch() -> None:
        while not done.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=watch)
    reader.start()
    for number in range(30):
        try:
            write_file(target, wholes[number % 3])
        except UnwritableError:
            assert os.name == "nt"  # what is being read cannot be replaced there
    done.set()
    reader.join()
    assert seen <= set(wholes)
    assert entries(tmp_path) == ["out.png"]


# Leftovers --------------------------------------------------------------------------------------


_KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from bgx.image.write import write_file
Path.replace = lambda *_: os._exit(9)
write_file(Path(sys.argv[1]) / "photo.png", b"half")
"""


def leave(folder: Path) -> str:
    """The temporary file of a process that ended in the middle of writing."""
    command = [sys.executable, "-c", _KILLED_WHILE_WRITING, str(folder)]
    assert subprocess.run(command, check=False).returncode == 9
    [name] = (name for name in entries(folder) if name.endswith(".bgx-tmp"))
    return name


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"old")
    name = leave(tmp_path)
    assert name.startswith(".")
    assert remove_leftovers([tmp_path, tmp_path / "missing", tmp_path / "photo.png"]) == 1
    assert entries(tmp_path) == ["photo.png"]
    assert (tmp_path / "photo.png").read_bytes() == b"old"


def test_what_a_running_process_writes_is_kept(tmp_path: Path) -> None:
    dead = leave(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        number = dead.split(".")[-3]
        (tmp_path / dead).rename(tmp_path / dead.replace(f".{number}.", f".{alive.pid}."))
        if os.name != "nt":
            assert remove_leftovers([tmp_path]) == 0
        alive.communicate(b"\n")
    assert remove_leftovers([tmp_path]) == 1


def test_what_another_machine_writes_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(platform, "node", lambda: "another-machine")
        assert remove_leftovers([tmp_path]) == 0
    assert remove_leftovers([tmp_path]) == 1


def test_what_an_earlier_process_of_our_number_left_is_removed(tmp_path: Path) -> None:
    """In a container every run has the same process number."""
    name = leave(tmp_path)
    number = name.split(".")[-3]
    (tmp_path / name).rename(tmp_path / name.replace(f".{number}.", f".{os.getpid()}."))
    assert remove_leftovers([tmp_path]) == 1


def test_what_another_thread_of_ours_is_writing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def clean_first(path: Path, target: Path) -> Path:
        assert remove_leftovers([tmp_path]) == 0
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", clean_first)
    write_file(tmp_path / "photo.png", b"data")
    assert entries(tmp_path) == ["photo.png"]


def test_windows_asks_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.kill would end it there. What is in use cannot be deleted anyway."""
    leave(tmp_path)

    def kill(*_: object) -> None:
        pytest.fail("os.kill ends a process on Windows")

    paths = [tmp_path]
    with monkeypatch.context() as windows:
        windows.setattr(write.os, "kill", kill)
        windows.setattr(write.os, "name", "nt")
        removed = remove_leftovers(paths)
    assert removed == 1


@pytest.mark.parametrize(
    "name",
    [
        "photo.png",
        ".bgx-tmp",
        "notes.bgx-tmp",
        ".photo.png.bgx-tmp",
        ".HOST.x.0123456789abcdef.bgx-tmp",
        ".HOST.99999999999999999999.0123456789abcdef.bgx-tmp",
        ".HOST.999999999.0123456789abcdef.bgx-tmp.png",
    ],
)
def test_files_of_other_names_are_nobody_s_leftovers(tmp_path: Path, name: str) -> None:
    _, host, *_ = leave(tmp_path).split(".")
    name = name.replace("HOST", host)
    (tmp_path / name).write_bytes(b"mine")
    assert remove_leftovers([tmp_path]) == 1
    assert entries(tmp_path) == [name]


def test_leftovers_that_cannot_be_deleted_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path)

    def unlink(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "unlink", unlink)
    assert remove_leftovers([tmp_path]) == 0
