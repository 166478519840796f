"""Local files and folders as places for pictures: read, written, told apart, searched."""

from __future__ import annotations

import errno
import io
import os
import threading
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bgx import files
from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.storage import find_folder, match, open_file, open_folder
from bgx.storage.memory import InMemory
from support.rights import mounted, ordinary_user, remount_read_only

if TYPE_CHECKING:
    from pathlib import Path


posix = pytest.mark.skipif(os.name != "posix", reason="POSIX pipes, permissions and names")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Names --------------------------------------------------------------------------------------------


def test_files_are_equal_by_their_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to("a.jpg")

    names = ["a.jpg", "./a.jpg", "x/../a.jpg", str(tmp_path / "a.jpg")]
    assert {open_file(name) for name in names} == {open_file("a.jpg")}
    assert open_folder("x").file("a.jpg") == open_file("x/a.jpg")
    # A link is another file of the same content.
    assert open_file("link.jpg") != open_file("a.jpg")
    assert open_file("link.jpg").identity() == open_file("a.jpg").identity() is not None


def test_a_file_knows_its_name(tmp_path: Path) -> None:
    file = open_file(tmp_path / "sub" / "Hat.JPG")

    assert (file.name, file.suffix, str(file)) == ("Hat.JPG", ".jpg", str(tmp_path / "sub/Hat.JPG"))
    assert file.location == (tmp_path / "sub/Hat.JPG").as_posix()
    assert file.folder == open_folder(tmp_path / "sub")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_cannot_be_one_is_a_usage_error(name: str) -> None:
    for use in (open_file, open_folder, find_folder, match):
        with pytest.raises(UsageError, match="name"):
            use(name)


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("sheet.html", "cut/a%20%23%C3%BC.png"),
        ("cut/sheet.html", "a%20%23%C3%BC.png"),
        ("x/y/sheet.html", "../../cut/a%20%23%C3%BC.png"),
    ],
)
def test_a_page_links_to_a_file_relative_to_itself(tmp_path: Path, page: str, link: str) -> None:
    assert open_file(tmp_path / "cut/a #ü.png").link(open_file(tmp_path / page)) == link


@posix
def test_a_link_holds_the_bytes_of_a_name_that_is_no_text(tmp_path: Path) -> None:
    file = open_file(tmp_path / os.fsdecode(b"\xff.png"))

    assert file.link(open_file(tmp_path / "sheet.html")) == "%FF.png"


# Reading ------------------------------------------------------------------------------------------


def test_a_file_is_read_from_its_start_and_back_and_forth(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = open_file(tmp_path / "a")

    with file.open() as stream:
        assert stream.read(3) == b"012"
        stream.seek(0)
        assert stream.read() == b"0123456789"
    assert (file.head(4), file.head(99)) == (b"0123", b"0123456789")


@posix
def test_a_pipe_can_be_read_back_and_forth(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"0123456789",))
    writer.start()
    with open_file(tmp_path / "pipe").open() as stream:
        assert stream.read(3) == b"012"
        stream.seek(-2, io.SEEK_END)
        assert stream.read() == b"89"
    writer.join()


def test_what_cannot_be_read_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "gone").open()
    with pytest.raises(OSError, match=r"Is a directory|Permission denied"):
        open_file(tmp_path).open()


def test_what_lies_under_a_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123")
    os.utime(tmp_path / "a", ns=(5, 7_000_000_000))
    status = open_file(tmp_path / "a").status()

    assert status is not None
    assert (status.kind, status.size, status.modified) == ("file", 4, 7_000_000_000)
    folder = open_folder(tmp_path).status()
    assert folder is not None
    assert folder.kind == "folder"
    assert open_file(tmp_path / "gone").status() is None
    assert open_file(tmp_path / ("x" * 300)).status() is None


@posix
def test_a_pipe_is_no_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    status = open_file(tmp_path / "pipe").status()

    assert status is not None
    assert status.kind == "other"


def test_a_picture_in_memory_is_a_source() -> None:
    page = open_file("sheet.html")
    image = Image.new("RGB", (2, 2))

    assert InMemory(image).open() is image
    stream = InMemory(b"0123", "photo").open()
    assert not isinstance(stream, Image.Image)
    assert stream.read() == b"0123"
    assert str(InMemory(b"", "photo")) == "photo"
    assert InMemory(b"").link(page) == ""


# Writing ------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("what", ["a name too long", "a folder in its place", "its folder a file"])
def test_a_target_that_cannot_be_written_is_this_one_s_trouble(tmp_path: Path, what: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    names = {
        "a name too long": "x" * 300,
        "a folder in its place": "there",
        "its folder a file": "file/below/it.png",
    }

    with pytest.raises(UnwritableError, match=f"{names[what]}: cannot be written: "):
        open_file(tmp_path / names[what]).write(b"data")
    assert entries(tmp_path) == ["file", "there"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_folder_without_permission_is_its_pictures_trouble(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)

    with ordinary_user():
        with pytest.raises(UnwritableError, match="Permission denied; make its folder writable"):
            open_file(tmp_path / "locked/a.png").write(b"data")
        assert open_file(tmp_path / "beside/a.png").write(b"data")


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, OutputError),
        (errno.EDQUOT, OutputError),
        (errno.EROFS, OutputError),
        (errno.EIO, OutputError),
        (errno.EACCES, UnwritableError),
        (errno.EPERM, UnwritableError),
        (errno.ENAMETOOLONG, UnwritableError),
        (errno.EFBIG, UnwritableError),
        (errno.EMFILE, UnwritableError),
        (errno.ESTALE, UnwritableError),
    ],
)
def test_what_every_other_picture_would_meet_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "write_whole", fail)
    with pytest.raises(error, match=rf"a\.png: cannot be written: {os.strerror(number)}"):
        open_file(tmp_path / "a.png").write(b"data")


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k", "bgx-test") as disk:
        file = open_file(disk / "out.png")
        file.write(b"old")
        with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
            file.write(bytes(200_000))
        assert (disk / "out.png").read_bytes() == b"old"
        assert entries(disk) == ["out.png"]
        file.write(b"small enough")
        remount_read_only(disk)
        with pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
            file.write(b"new")
        with pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
            file.folder.check_writable()
        assert (disk / "out.png").read_bytes() == b"small enough"


def test_only_where_nothing_is(tmp_path: Path) -> None:
    file = open_file(tmp_path / "a.png")

    assert file.write(b"first", create=True)
    assert not file.write(b"second", create=True)
    assert (tmp_path / "a.png").read_bytes() == b"first"
    assert file.write(b"third")


# Folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outer", "inner", "inside"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a/b", "a", False),
        ("a", "ab", False),
        ("link", "a/b", True),
        ("a", "link/b", True),
        ("a", "circle", False),
    ],
)
@posix
def test_a_folder_contains_what_lies_below_it(
    tmp_path: Path, outer: str, inner: str, inside: bool
) -> None:
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "circle").symlink_to("circle")

    assert open_folder(tmp_path / outer).contains(open_folder(tmp_path / inner)) is inside


def test_making_a_folder(tmp_path: Path) -> None:
    open_folder(tmp_path / "a/b").make()
    open_folder(tmp_path / "a/b").make()
    (tmp_path / "file").write_bytes(b"")

    assert (tmp_path / "a/b").is_dir()
    with pytest.raises(
        OutputError, match=r"file: cannot be created: .*choose another output folder"
    ):
        open_folder(tmp_path / "file").make()


def test_a_folder_that_is_not_there_yet_is_writable_if_the_one_above_is(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)

    with ordinary_user():
        open_folder(tmp_path / "new/deeper").check_writable()
        with pytest.raises(UnwritableError, match="Permission denied"):
            open_folder(tmp_path / "locked/new").check_writable()
    assert entries(tmp_path) == ["locked"]


def test_finding_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    assert find_folder(tmp_path) == open_folder(tmp_path)
    assert find_folder(tmp_path / "file") is None
    assert find_folder(tmp_path / "gone") is None


def test_a_walk_goes_by_name(tmp_path: Path) -> None:
    names = ["b/2.jpg", "b/1.jpg", "z.jpg", "a.jpg", "b/c/3.jpg", "B.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    found = [(found.below, found.file) for found in open_folder(tmp_path).walk()]

    assert [below for below, _ in found] == [
        "B.txt",
        "a.jpg",
        "z.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "b/c/3.jpg",
    ]
    assert all(file == open_file(tmp_path / below) for below, file in found)


def test_a_folder_that_vanishes_during_a_walk_is_found_with_its_error(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    met: list[tuple[str, int | None]] = []

    for found in open_folder(tmp_path).walk():
        met.append((found.below, found.error.errno if found.error else None))
        if found.below == "a/1.jpg":
            (tmp_path / "b/2.jpg").unlink()
            (tmp_path / "b").rmdir()

    assert met == [("a/1.jpg", None), ("b", errno.ENOENT), ("c/3.jpg", None)]


def test_a_folder_that_is_not_there_is_found_with_its_error(tmp_path: Path) -> None:
    [found] = open_folder(tmp_path / "gone").walk()

    assert (found.below, found.file) == ("", open_file(tmp_path / "gone"))
    assert isinstance(found.error, FileNotFoundError)


def test_files_of_many_names(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    names = ["a.jpg", "x/b.jpg"]

    assert list(folder.files(names)) == [(name, folder.file(name)) for name in names]
