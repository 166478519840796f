"""Paths as scripts use them: folders without permissions, pipes, odd names, reports."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bgx import files
from bgx.errors import ExitCode
from support.fakes import save_photo
from support.pictures import difference, encode
from support.rights import ordinary_user
from support.shell import bgx, bgx_process, read_rows
from support.writing import start_writing

if TYPE_CHECKING:
    from support.shell import Result

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and pipes")


@pytest.fixture(autouse=True)
def _workplace(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photos(*names: str) -> None:
    for name in names:
        save_photo(Path(name), size=(64, 48))


def written(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*"))


def outcomes(result: Result) -> dict[str, str]:
    """The status of each picture of the report on stdout."""
    *rows, _ = result.rows
    assert len({row["source"] for row in rows}) == len(rows)
    return {Path(row["source"]).as_posix(): row["status"] for row in rows}


# Folders ------------------------------------------------------------------------------------------


def test_one_folder_that_cannot_be_written_fails_its_pictures_alone() -> None:
    photos("in/a.jpg", "in/locked/b.jpg", "in/locked/c.jpg", "in/z/d.jpg")
    Path("out/locked").mkdir(parents=True)
    Path("out/locked").chmod(0o555)

    with ordinary_user():
        first = bgx("batch", "in", "-o", "out", "--report", "-")
        second = bgx("batch", "in", "-o", "out", "--report", "-")
    Path("out/locked").chmod(0o755)
    third = bgx("batch", "in", "-o", "out", "--report", "-")

    failing = {"in/locked/b.jpg": "failed", "in/locked/c.jpg": "failed"}
    assert (first.code, second.code, third.code) == (ExitCode.PICTURES, ExitCode.PICTURES, 0)
    assert outcomes(first) == {"in/a.jpg": "done", "in/z/d.jpg": "done", **failing}
    assert {row["error"]["code"] for row in first.rows if "error" in row} == {"unwritable"}
    assert outcomes(second) == {"in/a.jpg": "skipped", "in/z/d.jpg": "skipped", **failing}
    assert written() == ["a.png", "locked/b.png", "locked/c.png", "z/d.png"]


def test_an_output_folder_that_cannot_be_written_ends_the_run() -> None:
    photos("in/a.jpg", "in/sub/b.jpg")
    Path("out").mkdir(mode=0o555)

    with ordinary_user():
        result = bgx("batch", "in", "-o", "out")

    assert result.code == ExitCode.OUTPUT
    assert "bgx: out: cannot be written: Permission denied" in result.err


def test_a_folder_that_cannot_be_entered_is_a_row() -> None:
    photos("in/a.jpg", "in/sub/deeper/b.jpg")
    Path("in/sub").chmod(0o644)  # what chmod -R 644 leaves

    with ordinary_user():
        result = bgx("batch", "in", "-o", "out", "--report", "-")

    assert result.code == ExitCode.PICTURES
    assert outcomes(result) == {"in/a.jpg": "done", "in/sub/deeper": "failed"}
    assert "bgx: in/sub/deeper: cannot be read: Permission denied\n" in result.err


def test_what_is_left_out_is_counted_and_named_with_v() -> None:
    photos("in/a.jpg", "in/@eaDir/a.jpg")
    Path("in/notes.txt").write_text("notes")
    Path("in/b.jpg.part").write_bytes(b"\xff\xd8\xff")

    said = bgx("batch", "in", "-o", "out", "--report", "report.jsonl")
    verbose = bgx("batch", "in", "-o", "out", "-v")

    assert read_rows(Path("report.jsonl"))[-1]["ignored"] == 2
    assert "2 files in the folders are not pictures; -v names them\n" in said.err
    for name in ("@eaDir", "notes.txt", "b.jpg.part"):
        assert name not in said.err
        assert str(Path("in") / name) in verbose.err


def test_one_is_not_several() -> None:
    photos("in/a.jpg")
    bgx("batch", "in", "-o", "out")
    photos("in/a.png")
    Path("in/notes.txt").write_text("notes")

    said = bgx("batch", "in", "-o", "out")

    assert "1 source would share a target; each got its own: " in said.err
    assert "1 file in the folders is not a picture; -v names it\n" in said.err


def test_a_photo_added_between_two_runs_moves_no_result() -> None:
    photos("in/b.jpg")
    bgx("batch", "in", "-o", "out")
    before = Path("out/b.png").stat()
    photos("in/b.png")

    second = bgx("batch", "in", "-o", "out", "--report", "-")
    third = bgx("batch", "in", "-o", "out", "--report", "-")

    assert outcomes(second) == {"in/b.jpg": "skipped", "in/b.png": "done"}
    assert outcomes(third) == {"in/b.jpg": "skipped", "in/b.png": "skipped"}
    assert written() == ["b.png", "b.png.png"]
    assert Path("out/b.png").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "arguments",
    [
        ["batch", "in", "-o", ""],
        ["batch", "", "-o", "out"],
        ["batch", "in", "-o", "out", "--review", ""],
        ["batch", "in", "-o", "out", "--sheet", ""],
        ["batch", "in", "-o", "out", "--report", ""],
        ["batch", "-o", "out", "--files-from", ""],
        ["remove", ""],
        ["remove", "", "out.png"],
        ["models", "add", "mine", ""],
        ["train", "in", "-o", ""],
    ],
)
def test_an_empty_name_is_a_usage_error_and_writes_nothing(arguments: list[str]) -> None:
    """A variable of the script is not set."""
    photos("in/a.jpg")

    result = bgx(*arguments)

    assert result.code == ExitCode.USAGE
    assert "is a variable of the command unset?" in result.err
    assert [path for path in Path().rglob("*.png") if path.is_file()] == []


@posix
def test_what_another_run_is_writing_is_left_to_it_and_removed_when_it_was_killed() -> None:
    """The other run may be in a container of the same host name and process numbers."""
    photos("in/a.jpg", "in/b.jpg")
    Path("out").mkdir()
    with start_writing(Path("out")) as other:
        [temporary] = Path("out").iterdir()
        os.utime(temporary, (1000, 1000))

        first = bgx("batch", "in/a.jpg", "-o", "out")
        kept = temporary.exists()
        other.kill()
    second = bgx("batch", "in/b.jpg", "-o", "out")

    assert (first.code, second.code, kept) == (0, 0, True)
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


# Pipes --------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "bmp", "gif"])
def test_a_pipe_with_a_name_is_read(suffix: str) -> None:
    photos(f"a.{suffix}")
    os.mkfifo("pipe")
    content = Path(f"a.{suffix}").read_bytes()
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(content,))
    writer.start()

    result = bgx("remove", "pipe", "out.png")

    writer.join()
    assert (result.code, result.err) == (0, "")
    assert Path("out.png").is_file()


@posix
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_a_background_may_come_from_a_pipe(suffix: str) -> None:
    photos("in/a.jpg", "in/b.jpg")
    red = encode(
        Image.new("RGB", (64, 48), "red"), {"jpg": "JPEG", "tif": "TIFF", "webp": "WEBP"}[suffix]
    )
    os.mkfifo(f"pipe.{suffix}")
    writer = threading.Thread(target=Path(f"pipe.{suffix}").write_bytes, args=(red,))
    writer.start()

    result = bgx("batch", "in", "-o", "out", "--background", f"pipe.{suffix}")

    writer.join()
    assert result.code == 0, result.err
    for name in written():
        with Image.open(f"out/{name}") as image:
            assert difference(image.getpixel((2, 2)), (255, 0, 0)) <= 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/stdin")
def test_stdin_by_its_name_is_read() -> None:
    photos("a.webp")

    result = bgx_process("remove", "/dev/stdin", "out.png", stdin=Path("a.webp").read_bytes())

    assert (result.code, result.err) == (0, "")


# Reports ------------------------------------------------------------------------------------------


@posix
def test_a_report_that_another_run_writes_is_left_to_it() -> None:
    photos("in/a.jpg")
    with Path("report.jsonl").open("w", encoding="utf-8") as other:
        assert files.lock(other)
        print('{"row": 1}', file=other, flush=True)

        result = bgx("batch", "in", "-o", "out", "--report", "report.jsonl")

        assert result.code == ExitCode.USAGE
        assert "--report report.jsonl: another run writes to it; name another file" in result.err
        assert read_rows(Path("report.jsonl")) == [{"row": 1}]

    assert bgx("batch", "in", "-o", "out", "--report", "report.jsonl").code == 0
    assert len(read_rows(Path("report.jsonl"))) == 2


@posix
def test_a_device_is_a_report_of_any_number_of_runs() -> None:
    photos("in/a.jpg")
    with Path("/dev/null").open("w", encoding="utf-8") as other:
        assert files.lock(other)

        assert bgx("batch", "in", "-o", "out", "--report", "/dev/null").code == 0
