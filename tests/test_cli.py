"""The command line as its users script against it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pytest
from PIL import Image

from bgx import __version__
from bgx.cli.main import Commands
from bgx.cli.main import bgx as commands
from bgx.errors import ExitCode
from bgx.image.matte import upsample_matte
from bgx.install import install_hint
from support.fakes import save_photo
from support.networks import plain_network, tiny_network
from support.shell import Result, bgx, bgx_process, command, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell or file system")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's files and devices")


@pytest.fixture(autouse=True)
def _workplace(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, and a network that needs no name."""
    monkeypatch.chdir(tmp_path)


def photo(name: str, **options: Any) -> Path:
    return save_photo(Path(name), **options)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, every folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def names(folder: str | Path) -> list[str]:
    """Every file below."""
    return sorted(name for name, content in tree(Path(folder)).items() if content is not None)


def mode_and_size(path: str | Path) -> tuple[str, tuple[int, int]]:
    with Image.open(path) as image:
        image.load()
        return image.mode, image.size


# remove -------------------------------------------------------------------------------------------


def test_remove_writes_a_cut_out_and_says_nothing() -> None:
    photo("in.jpg", size=(90, 60))

    result = bgx("remove", "in.jpg", "out.png")

    assert (result.code, result.out, result.err) == (0, b"", "")
    assert mode_and_size("out.png") == ("RGBA", (90, 60))
    with Image.open("out.png") as image:
        assert image.getchannel("A").getpixel((45, 30)) == 255
        assert image.getpixel((1, 1)) == (0, 0, 0, 0)


def test_remove_without_output_writes_beside_the_photo() -> None:
    photo("shoes/red.jpg")

    assert bgx("remove", "shoes/red.jpg").code == 0
    assert names("shoes") == ["red-cut.png", "red.jpg"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.webp", "WEBP"), ("a.JPG", "JPEG"), ("a.tif", "TIFF"), ("a.avif", "AVIF")],
)
def test_the_suffix_names_the_format(name: str, expected: str) -> None:
    photo("in.jpg")

    assert bgx("remove", "in.jpg", name).code == 0

    with Image.open(name) as image:
        assert image.format == expected


def test_format_helps_where_the_suffix_names_none() -> None:
    photo("in.jpg")

    assert bgx("remove", "in.jpg", "out.part", "--format", "webp").code == 0

    with Image.open("out.part") as image:
        assert image.format == "WEBP"


def test_the_matte_is_refined_unless_asked_otherwise() -> None:
    photo("in.png", size=(400, 300), subject=200)

    def alpha(*options: str, source: str = "in.png") -> bytes:
        assert bgx("remove", source, "out.png", "--existing", "overwrite", *options).code == 0
        with Image.open("out.png") as image:
            return image.tobytes() if image.mode == "L" else image.getchannel("A").tobytes()

    refined, plain = alpha(), alpha("--no-refine")
    assert refined == alpha("--refine") != plain
    assert alpha("--mask-only") == refined
    assert alpha("--mask-only", "--no-refine") == plain

    # A photo that is cut out already has edges of its own.
    with Image.open("in.png") as image:
        image.putalpha(image.getchannel("R").point([0] * 60 + [180] * 196))
        image.save("cut.png")
    assert alpha(source="cut.png") == alpha("--no-refine", source="cut.png")


def test_a_background_is_exact_and_opaque() -> None:
    photo("in.jpg")

    assert bgx("remove", "in.jpg", "out.png", "--background", "#0c2238").code == 0

    with Image.open("out.png") as image:
        assert image.mode == "RGB"
        assert image.getpixel((1, 1)) == (12, 34, 56)


def test_the_mask_alone() -> None:
    photo("in.jpg")

    assert bgx("remove", "in.jpg", "out.png", "--mask-only").code == 0
    assert mode_and_size("out.png")[0] == "L"


def test_remove_leaves_an_existing_target_and_says_so() -> None:
    photo("in.jpg")
    Path("out.png").write_bytes(b"yesterday's")

    result = bgx("remove", "in.jpg", "out.png")

    assert result.code == 0
    assert result.err == "bgx: out.png: exists; to redo it use --existing overwrite\n"
    assert Path("out.png").read_bytes() == b"yesterday's"


@pytest.mark.parametrize(
    ("existing", "newer", "redone"),
    [
        ("skip", "in.jpg", False),
        ("update", "in.jpg", True),
        ("update", "out.png", False),
        ("overwrite", "out.png", True),
    ],
)
def test_existing(existing: str, newer: str, redone: bool) -> None:
    photo("in.jpg")
    Path("out.png").write_bytes(b"yesterday's")
    for name in ("in.jpg", "out.png"):
        os.utime(name, (1000, 2000 if name == newer else 1000))

    assert bgx("remove", "in.jpg", "out.png", "--existing", existing).code == 0
    assert (Path("out.png").read_bytes() != b"yesterday's") == redone


@pytest.mark.parametrize("link", [None, os.link, pytest.param(os.symlink, marks=posix)])
def test_a_photo_is_never_written_over(link: Callable[[str, str], None] | None) -> None:
    photo("x.png")
    before = Path("x.png").read_bytes()
    target = "x.png"
    if link:
        target = "y.png"
        link("x.png", target)

    result = bgx("remove", "x.png", target, "--existing", "overwrite")

    assert result.code == 2
    assert "would overwrite an input" in result.err
    assert Path("x.png").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["remove", "in.jpg", "out.png", "--report", "in.jpg"],
        ["remove", "in.jpg", "out.png", "--report", "sub/../out.png"],
        ["remove", "in.jpg", "out.png", "--report", "back.png", "--background", "back.png"],
        ["remove", "in.jpg", "back.png", "--background", "back.png"],
        ["remove", "in.jpg", "out.png", "--report", "net.onnx", "--model", "net.onnx"],
        ["batch", "in.jpg", "-o", "out", "--report", "in.jpg"],
        ["batch", "in.jpg", "-o", "out", "--report", "out/in.png"],
        ["batch", "in.jpg", "-o", "out", "--report", "s.html", "--sheet", "s.html"],
        ["batch", "in.jpg", "-o", ".", "--background", "in.png"],
        ["batch", "--files-from", "list", "-o", "out", "--report", "list"],
    ],
)
def test_nothing_that_is_read_is_written_and_nothing_is_written_twice(arguments: list[str]) -> None:
    for name in ("in.jpg", "back.png", "in.png"):
        photo(name)
    Path("list").write_text("in.jpg\n")
    Path("sub").mkdir()
    tiny_network(Path("net.onnx"))
    before = tree(Path.cwd())

    result = bgx(*arguments, "--existing", "overwrite")

    assert result.code == ExitCode.USAGE
    assert "would overwrite an input" in result.err or "would be written twice" in result.err
    assert tree(Path.cwd()) == before


@posix
def test_a_file_may_be_called_as_a_pipe_is() -> None:
    photo("in.png").rename("-")

    assert bgx("remove", "./-", "out.png", stdin=b"not this").code == ExitCode.OK
    assert Path("out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch.jpg", "out.png"], "nosuch.jpg: no such file"),
        (["x" * 300, "out.png"], "no such file"),
        (["folder", "out.png"], "folder: is a folder; use: bgx batch folder -o FOLDER"),
        (["in.jpg", "folder"], "folder: is a folder; name a file, or use: bgx batch"),
        (["in.jpg", "out"], "--format"),
        (["in.jpg", "folder", "--format", "png"], "folder: is a folder; name a file"),
        (["in.jpg", "out.gif"], "out.gif: unknown suffix; use .png"),
        (["in.jpg", "out.png", "--format", "jpg"], "the suffix does not match --format jpg"),
        (["in.jpg", "out.png", "--quality", "80"], "--quality has no meaning for png"),
        (["in.jpg", "-", "--report", "-"], "choose a file for one of them"),
        (["in.jpg", "out.png", "--background", "whitish"], "--background whitish: use a colour"),
        (["in.jpg", "out.png", "--background", "b.jpg"], "--background b.jpg: no such file"),
        (["in.jpg", "out.png", "--mask-only", "-b", "red"], "--mask-only writes the matte"),
        (["in.jpg", "out.png", "--device", "gpu"], "--device gpu: use one of auto, cpu"),
        (["in.jpg", "out.png", "--threads", "0"], "--threads 0: use 1 to 1024"),
        (["in.jpg", "out.png", "--max-size", "1"], "--max-size 1: use 64 or more"),
        (["in.jpg", "out.png", "--existing", "maybe"], "'maybe' is not one of"),
        (["in.jpg", "out.png", "--no-such-option"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_usage_errors_of_remove(arguments: list[str], message: str) -> None:
    photo("in.jpg")
    Path("folder").mkdir()
    before = tree(Path.cwd())

    result = bgx("remove", *arguments)

    assert result.code == ExitCode.USAGE
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == b""
    assert tree(Path.cwd()) == before


@posix
def test_a_device_is_no_output_file() -> None:
    """Replacing it would break the machine where bgx may."""
    photo("in.jpg")
    Path("out.png").symlink_to("/dev/null")

    result = bgx("remove", "in.jpg", "out.png", "--existing", "overwrite")

    assert result.code == 2
    assert result.err == "bgx: out.png: not a regular file; for stdout use -\n"


# Pipes --------------------------------------------------------------------------------------------


def test_a_pipe_carries_the_picture_and_nothing_else() -> None:
    photo("in.jpg", size=(90, 60))

    result = bgx_process("remove", "-", "-", stdin=Path("in.jpg").read_bytes())

    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(b"\x89PNG\r\n\x1a\n")
    assert result.out.endswith(b"IEND\xaeB`\x82")
    Path("out.png").write_bytes(result.out)
    assert mode_and_size("out.png") == ("RGBA", (90, 60))


def test_stdin_goes_to_stdout_where_no_output_is_named() -> None:
    photo("in.jpg")

    result = bgx("remove", "-", "--format", "jpg", stdin=Path("in.jpg").read_bytes())

    assert result.code == 0
    assert result.out.startswith(b"\xff\xd8\xff")


def test_stdin_to_a_file_and_a_file_to_stdout_give_the_same() -> None:
    data = photo("in.png").read_bytes()

    assert bgx("remove", "-", "out.png", stdin=data).code == 0
    assert bgx("remove", "in.png", "-").out == Path("out.png").read_bytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "stdin: is empty"), (b"text", "stdin: not a picture")],
)
def test_what_is_no_picture_on_stdin(data: bytes, message: str) -> None:
    result = bgx("remove", "-", "-", stdin=data)

    assert (result.code, result.out) == (1, b"")
    assert message in result.err


@linux
def test_a_shells_substitution_is_a_photo_too() -> None:
    photo("in.jpg")
    script = f"{sys.executable} -m bgx remove <(cat in.jpg) out.png"

    done = subprocess.run(["bash", "-c", script], capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert mode_and_size("out.png")[0] == "RGBA"


@linux
@pytest.mark.parametrize(
    "arguments",
    [
        ["remove", "in.jpg", "-"],
        ["batch", "in.jpg", "-o", "out", "--dry-run"],
        ["batch", "in.jpg", "-o", "out", "--report", "-"],
        ["models", "list", "--json"],
        ["batch", "--help"],
    ],
)
def test_a_full_stdout_is_exit_5(arguments: list[str]) -> None:
    photo("in.jpg")

    with Path("/dev/full").open("wb") as full:
        result = bgx_process(*arguments, stdout=full)

    assert result.code == ExitCode.OUTPUT
    assert "No space left on device" in result.err
    assert "Traceback" not in result.err
    assert "Exception ignored" not in result.err


@posix
@pytest.mark.parametrize(
    "arguments", [["remove", "in.jpg", "-"], ["models", "list"], ["batch", "--help"]]
)
def test_a_reader_that_goes_away_is_no_bug(arguments: list[str]) -> None:
    photo("in.jpg")
    reading, writing = os.pipe()
    os.close(reading)

    result = bgx_process(*arguments, stdout=writing)
    os.close(writing)

    assert (result.code, result.err) == (ExitCode.OUTPUT, "")


@linux
def test_a_picture_that_stdout_does_not_take_has_its_row() -> None:
    photo("in.jpg")
    with open("/dev/full", "wb") as full:
        result = bgx_process("remove", "in.jpg", "-", "--report", "full.jsonl", stdout=full)
    assert result.code == ExitCode.OUTPUT
    row, _ = read_rows(Path("full.jsonl"))
    assert row["error"]["code"] == "output"

    reading, writing = os.pipe()
    os.close(reading)
    result = bgx_process("remove", "in.jpg", "-", "--report", "gone.jsonl", stdout=writing)
    os.close(writing)
    assert result.code == ExitCode.OUTPUT
    row, _ = read_rows(Path("gone.jsonl"))
    assert row["reason"] == "stopped"


@posix
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("{bgx} batch in.jpg -o out >&-", 0),
        ("{bgx} batch in.jpg -o out 2>&-", 0),
        ("{bgx} batch in.jpg -o out 2>/dev/full", 0),
        ("{bgx} batch in.jpg broken.jpg -o out 2>&- >&-", 1),
        ("{bgx} remove - out.png <&-", 2),
        ("{bgx} batch -o out --files-from - <&-", 2),
        ("{bgx} remove in.jpg - >&-", 5),
        ("{bgx} batch in.jpg -o out --report - >&-", 5),
        ("{bgx} remove - out.png 0>in.png", 2),
    ],
)
def test_streams_that_are_closed(script: str, code: int) -> None:
    photo("in.jpg")
    Path("broken.jpg").write_bytes(b"")

    done = subprocess.run(
        ["sh", "-c", script.format(bgx=f"{sys.executable} -m bgx")],
        capture_output=True,
        text=True,
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# batch --------------------------------------------------------------------------------------------


def test_batch_keeps_the_tree_and_writes_nothing_to_stdout() -> None:
    for name in ("in/a.jpg", "in/sub/b.png", "in/sub/deep/c.webp"):
        photo(name)

    result = bgx("batch", "in", "-o", "out")

    assert (result.code, result.out) == (0, b"")
    assert names("out") == ["a.png", "sub/b.png", "sub/deep/c.png"]
    assert result.err.startswith("bgx: 3 done in ")
    assert result.err.count("\n") == 1


def test_a_second_run_does_nothing_and_needs_no_network() -> None:
    photo("in/a.jpg")
    bgx("batch", "in", "-o", "out")
    before = tree(Path.cwd())

    result = bgx("batch", "in", "-o", "out", "--model", "nosuch")

    assert result.code == 0
    assert result.err.startswith("bgx: 0 done, 1 skipped in ")
    assert tree(Path.cwd()) == before


def test_three_sources_of_one_name_give_three_outputs() -> None:
    """A file system that ignores case has two."""
    for name in ("in/a.jpg", "in/a.png", "in/A.JPG"):
        photo(name)
    sources = len(names("in"))

    result = bgx("batch", "in", "-o", "out")

    assert result.code == 0
    assert f"bgx: {sources} sources would share a target; each got its own: " in result.err
    outputs = names("out")
    assert len(outputs) == sources
    assert {"a.png.png"} < set(outputs)
    assert len({name.casefold() for name in outputs}) == sources


@pytest.mark.parametrize("way", ["plain", pytest.param("link", marks=posix)])
def test_the_output_folder_may_lie_in_the_input_folder(way: str) -> None:
    photo("in/a.jpg")
    Path("in/cut").mkdir()
    out = "in/cut"
    if way == "link":
        Path("link").symlink_to("in/cut")
        out = "link"

    first = bgx("batch", "in", "-o", out)
    second = bgx("batch", "in", "-o", out)

    assert (first.code, second.code) == (0, 0)
    assert "0 done, 1 skipped" in second.err
    assert names("in") == ["a.jpg", "cut/a.png"]


def test_the_same_star_may_be_given_again() -> None:
    photo("a.jpg")
    photo("b.jpg")
    first = bgx("batch", *sorted(Path().iterdir()), "-o", "cut")
    second = bgx("batch", *sorted(Path().iterdir()), "-o", "cut")

    assert (first.code, second.code) == (0, 0)
    assert "0 done, 2 skipped" in second.err
    assert names("cut") == ["a.png", "b.png"]


def make_bomb(path: str) -> None:
    """A PNG that claims 30,000 x 30,000 pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_broken_photos_are_named_and_the_others_are_done() -> None:
    for number in range(25):
        photo(f"in/{number:02}.jpg", size=(60, 40))
    whole = photo("whole.jpg", size=(400, 300)).read_bytes()
    Path("in/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    Path("in/text.jpg").write_text("no picture", encoding="utf-8")
    Path("in/zero.jpg").write_bytes(b"")
    make_bomb("in/bomb.png")
    broken = ["bomb.png", "secret.jpg", "text.jpg", "truncated.jpg", "zero.jpg"]
    if os.name == "posix" and os.geteuid() != 0:
        photo("in/secret.jpg").chmod(0)
    else:
        Path("in/secret.jpg").write_bytes(b"\xff\xd8\xff" + bytes(1000))

    result = bgx("batch", "in", "-o", "out", "--report", "report.jsonl")

    assert result.code == ExitCode.PICTURES
    assert names("out") == [f"{number:02}.png" for number in range(25)]
    *rows, last = read_rows(Path("report.jsonl"))
    failed = sorted(
        (row for row in rows if row["status"] == "failed"), key=lambda row: str(row["source"])
    )
    assert [Path(row["source"]).name for row in failed] == broken
    for row in failed:
        assert row["source"] in row["error"]["message"]
        assert f"bgx: {row['error']['message']}\n" in result.err
    codes = {Path(row["source"]).name: row["error"]["code"] for row in failed}
    assert codes.pop("bomb.png") == "too-large"
    assert set(codes.values()) == {"unreadable"}
    assert len(rows) == 30
    assert (last["done"], last["failed"], last["skipped"]) == (25, 5, 0)
    assert "25 done, 5 failed in" in result.err


def test_formats_and_masks_of_a_batch() -> None:
    photo("in/a.png")

    assert bgx("batch", "in", "-o", "out", "--format", "webp", "--quality", "80").code == 0
    assert bgx("batch", "in", "-o", "mask", "--mask-only").code == 0
    assert bgx("batch", "in", "-o", "white", "--format", "jpg").code == 0

    assert mode_and_size("out/a.webp")[0] == "RGBA"
    assert mode_and_size("mask/a.png")[0] == "L"
    assert mode_and_size("white/a.jpg")[0] == "RGB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--output'"),
        (["-o", "out"], "nothing to do; name files or folders"),
        (["nosuch", "-o", "out"], "nosuch: no such file or folder"),
        (["*.gif", "-o", "out"], "*.gif: no such file or folder"),
        (["empty", "-o", "out"], "no pictures found"),
        (["in", "-o", "in"], "in: is the input folder too"),
        (["in", "-o", "."], "in: lies inside the output folder"),
        (["in", "-o", "out", "-0"], "-0 needs --files-from"),
        (["-o", "out", "--files-from", "nosuch"], "--files-from nosuch: cannot be read"),
        (["-o", "out", "--files-from", "zeros"], "the list is NUL-separated; add -0"),
        (["in", "-o", "out", "--workers", "0"], "--workers 0: use 1 to 1024"),
        (
            ["in", "-o", "out", "--workers", "64", "--threads", "64"],
            "--workers 64 --threads 64: use at most 1024 threads together",
        ),
        (["in", "-o", "out", "--quality", "80"], "--quality has no meaning for png"),
    ],
)
def test_usage_errors_of_batch(arguments: list[str], message: str) -> None:
    photo("in/a.jpg")
    Path("empty").mkdir()
    Path("zeros").write_bytes(b"in/a.jpg\0in/b.jpg\0")
    before = tree(Path.cwd())

    result = bgx("batch", *arguments)

    assert result.code == ExitCode.USAGE
    assert message in result.err
    assert tree(Path.cwd()) == before


def test_a_dry_run_writes_nothing() -> None:
    photo("in/a.jpg")
    photo("in/sub/b.jpg")
    photo("in/c.jpg")
    bgx("batch", "in/c.jpg", "-o", "out")
    before = tree(Path.cwd())

    result = bgx("batch", "in", "-o", "out", "--dry-run", "--report", "r", "--model", "nosuch")

    assert result.code == 0
    assert result.out.decode().splitlines() == [
        f"{Path('in/a.jpg')} -> {Path('out/a.png')}",
        f"{Path('in/sub/b.jpg')} -> {Path('out/sub/b.png')}",
    ]
    assert result.err == "bgx: 2 to do, 1 to skip\n"
    assert tree(Path.cwd()) == before


# Lists --------------------------------------------------------------------------------------------

ODD_NAMES = ["größe.jpg", "two  spaces .jpg", "-dash.jpg", "$HOME.jpg"]
LINUX_NAMES = ["new\nline.jpg", "tab\t.jpg", 'quote".jpg', "back\\slash.jpg"]


def odd_names() -> list[bytes]:
    listed = ODD_NAMES + (LINUX_NAMES if sys.platform == "linux" else [])
    return [os.fsencode(name) for name in listed] + (
        [b"latin-\xfc.jpg"] if sys.platform == "linux" else []
    )


def test_a_nul_separated_list_takes_any_name() -> None:
    sources = odd_names()
    for name in sources:
        photo(os.fsdecode(name))

    result = bgx(
        "batch", "--files-from", "-", "-0", "-o", "out", "--report", "-", stdin=b"\0".join(sources)
    )

    assert result.code == 0
    *rows, last = result.rows
    assert sorted(os.fsencode(row["source"]) for row in rows) == sorted(sources)
    assert {row["status"] for row in rows} == {"done"}
    assert last["done"] == len(sources)
    outputs = {os.fsencode(path.name) for path in Path("out").iterdir()}
    assert outputs == {name.removesuffix(b".jpg") + b".png" for name in sources}


@linux
def test_find_and_a_pipe_in_a_real_shell() -> None:
    for name in odd_names():
        photo("photos/" + os.fsdecode(name))
    bgx_batch = f"{sys.executable} -m bgx batch --files-from - -0 -o cut"
    script = f"find photos -type f -print0 | {bgx_batch}"

    done = subprocess.run(["sh", "-c", script], capture_output=True)

    assert (done.returncode, done.stdout) == (0, b"")
    assert len(names("cut")) == len(odd_names())


def test_an_empty_list_leaves_nothing_to_do() -> None:
    result = bgx("batch", "--files-from", "-", "-o", "out", "--report", "-")

    assert result.code == ExitCode.OK
    assert "the list is empty" in result.err
    [last] = result.rows
    assert last["done"] == last["failed"] == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_as_powershell_writes_it(encoding: str) -> None:
    photo("schön.jpg")
    Path("list.txt").write_text("schön.jpg\r\n", encoding=encoding)

    assert bgx("batch", "--files-from", "list.txt", "-o", "out").code == ExitCode.OK
    assert names("out") == ["schön.png"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_list_of_lines(end: bytes) -> None:
    photo("a b.jpg")
    photo("sub/c.jpg")
    Path("list.txt").write_bytes(end.join([b"a b.jpg", b"", b"sub/c.jpg", b"gone.jpg"]))

    result = bgx("batch", "--files-from", "list.txt", "-o", "out")

    assert result.code == ExitCode.PICTURES
    assert names("out") == ["a b.png", "c.png"]
    assert "gone.jpg: cannot be read: No such file or directory" in result.err


def test_folders_and_arguments_go_with_a_list() -> None:
    photo("a.jpg")
    photo("sub/b.jpg")
    photo("more/c.jpg")

    assert (
        bgx("batch", "a.jpg", "--files-from", "-", "-o", "out", stdin=b"sub\nmore/c.jpg").code == 0
    )
    assert names("out") == ["a.png", "b.png", "c.png"]


@linux
def test_names_that_are_no_text_are_shown_escaped_and_passed_on() -> None:
    name = b"latin-\xfc\nline.jpg"
    Path(os.fsdecode(name)).write_bytes(b"")

    failed = bgx_process("batch", name, "-o", "out")
    planned = bgx_process("batch", name, "-o", "out", "--dry-run")
    removed = bgx_process("remove", name, "out.png")

    assert failed.code == removed.code == 1
    shown = "bgx: latin-\\udcfc\\nline.jpg: is empty (0 bytes)\n"
    assert failed.err.startswith(shown)
    assert removed.err == shown
    assert planned.out == name + b" -> out/latin-\xfc\nline.png\n"


# Report -------------------------------------------------------------------------------------------


def test_a_report_has_a_row_for_every_picture_and_a_last_one() -> None:
    photo("in/a.jpg", size=(90, 60))
    photo("in/b.jpg")
    bgx("batch", "in/b.jpg", "-o", "out")
    Path("in/c.jpg").write_bytes(b"")

    result = bgx("batch", "in", "-o", "out", "--report", "-")

    *rows, last = result.rows
    by_name = {Path(row["source"]).name: row for row in rows}
    assert len(rows) == len(by_name) == 3
    done = by_name["a.jpg"]
    assert (done["status"], done["target"]) == ("done", str(Path("out/a.png")))
    assert (done["width"], done["height"], done["subject"]) == (90, 60, True)
    assert done["coverage"] == pytest.approx(0.25, abs=0.1)
    assert done["bbox"] == pytest.approx([22, 15, 68, 45], abs=6)
    assert set(done["seconds"]) == {"read", "infer", "compose", "write"}
    assert (by_name["b.jpg"]["status"], by_name["b.jpg"]["reason"]) == ("skipped", "exists")
    assert by_name["c.jpg"]["error"]["code"] == "unreadable"
    assert (last["done"], last["skipped"], last["failed"], last["unfinished"]) == (1, 1, 1, 0)
    assert (last["model"], last["device"], last["version"]) == ("u2netp", "cpu", __version__)


@pytest.mark.parametrize(
    ("data", "arguments", "code", "status"),
    [
        (None, [], 0, "done"),
        (b"", [], 1, "failed"),
        (None, ["--model", "nosuch"], 3, "skipped"),
    ],
)
def test_remove_reports_too(
    data: bytes | None, arguments: list[str], code: int, status: str
) -> None:
    photo("in.jpg")
    if data is not None:
        Path("in.jpg").write_bytes(data)

    result = bgx("remove", "in.jpg", "out.png", "--report", "-", *arguments)

    assert result.code == code
    [row, last] = result.rows
    assert (row["source"], row["status"]) == ("in.jpg", status)
    assert last["done"] + last["failed"] + last["unfinished"] == 1


def test_the_time_of_writing_to_stdout_is_reported() -> None:
    photo("in.jpg")

    assert bgx("remove", "in.jpg", "-", "--report", "r.jsonl").code == ExitCode.OK

    [row, _] = read_rows(Path("r.jsonl"))
    assert set(row["seconds"]) == {"read", "infer", "compose", "write"}


def test_remove_reports_what_it_skipped() -> None:
    photo("in.jpg")
    photo("out.png")

    [row, last] = bgx("remove", "in.jpg", "out.png", "--report", "-").rows

    assert (row["reason"], last["skipped"]) == ("exists", 1)


def test_a_run_that_cannot_begin_reports_every_picture() -> None:
    photo("in/a.jpg")
    photo("in/b.jpg")

    result = bgx("batch", "in", "-o", "out", "--model", "nosuch", "--report", "-")

    assert result.code == ExitCode.MODEL
    *rows, last = result.rows
    assert [(row["status"], row["reason"]) for row in rows] == [("skipped", "stopped")] * 2
    assert last["unfinished"] == 2
    assert "bgx: 0 done, 2 not finished in " in result.err


@pytest.mark.parametrize(
    "arguments", [["batch", "in", "-o", "out"], ["remove", "in/a.jpg", "out.png"]]
)
def test_ctrl_c_before_the_first_picture(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    photo("in/a.jpg")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bgx.cli.loading.open_network", interrupt)

    result = bgx(*arguments, "--report", "-")

    assert result.code == ExitCode.INTERRUPTED
    assert result.err.endswith("bgx: interrupted\n")
    [row, last] = result.rows
    assert (row["reason"], last["unfinished"]) == ("interrupted", 1)


@pytest.mark.parametrize("name", ["folder", "nosuch/report.jsonl"])
def test_a_report_that_cannot_be_opened_is_exit_5_before_anything_is_done(name: str) -> None:
    photo("in/a.jpg")
    Path("folder").mkdir()

    result = bgx("batch", "in", "-o", "out", "--report", name)

    assert result.code == ExitCode.OUTPUT
    assert f"--report {name}: cannot be written" in result.err
    assert names("out") == []


@linux
def test_a_report_that_cannot_be_written_is_exit_5() -> None:
    photo("in/a.jpg")

    result = bgx_process("batch", "in", "-o", "out", "--report", "/dev/full")

    assert result.code == ExitCode.OUTPUT
    assert result.err.endswith(
        "bgx: --report /dev/full: cannot be written: No space left on device\n"
    )
    assert "Traceback" not in result.err


# The output folder --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "file/sub", "x" * 300])
def test_an_output_folder_that_cannot_be_is_exit_5(name: str) -> None:
    photo("in/a.jpg")
    Path("file").write_bytes(b"")

    result = bgx("batch", "in", "-o", name)

    assert result.code == ExitCode.OUTPUT
    assert "choose another output folder" in result.err


def bgx_on_a_disk(options: str, *arguments: str) -> Result:
    """Run bgx where the folder `out` is a small disk of its own, mounted with these options."""
    Path("out").mkdir()
    mount = f"mount -t tmpfs -o {options} none out"
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*prefix, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a disk")
    script = f'{mount} && "$0" "$@"; code=$?; ls -A out; exit $code'
    done = subprocess.run([*prefix, script, *command(*arguments)], capture_output=True)
    return Result(done.returncode, done.stdout, done.stderr.decode())


@linux
def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written() -> None:
    for number in range(12):
        photo(f"in/{number:02}.png", size=(64, 48))
    noise = np.random.default_rng(0).integers(0, 255, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save("in/05.png")

    result = bgx_on_a_disk(
        *("size=200k", "batch", "in", "-o", "out", "--workers", "1", "--background", "white"),
        *("--report", "report.jsonl"),
    )

    assert result.code == ExitCode.OUTPUT
    *rows, last = read_rows(Path("report.jsonl"))
    assert len(rows) == 12
    assert last["failed"] == 1
    assert last["unfinished"] > 0
    [message] = [line for line in result.err.splitlines() if "05.png" in line]
    assert message.startswith("bgx: out/05.png: cannot be written: No space left on device; free")
    done = sorted(Path(row["target"]).name for row in rows if row["status"] == "done")
    assert result.out.decode().split() == done


@linux
@pytest.mark.parametrize(
    "arguments", [["batch", "in", "-o", "out"], ["remove", "in/a.jpg", "out/a.png"]]
)
def test_a_read_only_disk_is_exit_5(arguments: list[str]) -> None:
    photo("in/a.jpg")

    result = bgx_on_a_disk("ro", *arguments)

    assert result.code == ExitCode.OUTPUT
    assert "cannot be written: Read-only file system" in result.err
    assert result.err.count("cannot be written") == 1


# Network and device -------------------------------------------------------------------------------


def test_an_unknown_model_is_exit_3_and_the_nearest_name_is_told() -> None:
    photo("in.jpg")

    result = bgx("remove", "in.jpg", "out.png", "--model", "u2nett")

    assert result.code == ExitCode.MODEL
    assert result.err == "bgx: u2nett: no such model; did you mean u2net?\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["remove", "s3://shop/a.jpg", "a.png"],
        ["remove", "a.jpg", "s3://shop/a.png"],
        ["batch", "s3://shop/photos", "-o", "out"],
        ["batch", "photos", "-o", "s3://shop/cut"],
        ["batch", "photos", "-o", "out", "--broker", "redis://broker"],
        ["batch", "photos", "-o", "out", "--report", "s3://shop/report.jsonl"],
        ["watch", "photos", "-o", "s3://shop/cut"],
        ["serve", "--fetch-urls"],
    ],
    ids=" ".join,
)
def test_offline_nothing_on_the_network_is_asked_for(arguments: list[str]) -> None:
    result = bgx(*arguments, "--offline")
    assert result.code == ExitCode.USAGE
    assert "--offline" in result.err


def test_a_missing_model_offline_is_exit_3_with_the_remedy() -> None:
    photo("in.jpg")

    result = bgx("remove", "in.jpg", "out.png", "--model", "silueta", "--offline")

    assert result.code == ExitCode.MODEL
    assert "bgx models download silueta" in result.err
    assert "bgx models add silueta FILE.onnx" in result.err


def test_a_file_that_is_no_network_is_exit_3() -> None:
    photo("in.jpg")
    Path("bad.onnx").write_bytes(b"no network")

    result = bgx("remove", "in.jpg", "out.png", "--model", "bad.onnx")

    assert result.code == ExitCode.MODEL
    assert "bad.onnx" in result.err
    assert result.err.count("\n") == 1


def test_a_file_may_be_named_as_the_model() -> None:
    photo("in.jpg")
    tiny_network(Path("mine.onnx"), note="mine")

    assert bgx("remove", "in.jpg", "out.png", "--model", "mine.onnx").code == 0


def test_a_device_that_is_not_there_is_exit_4_with_the_remedy() -> None:
    import onnxruntime

    absent = {"CUDAExecutionProvider": "cuda", "DmlExecutionProvider": "directml"}
    listed = onnxruntime.get_available_providers()
    device = next(name for provider, name in absent.items() if provider not in listed)
    photo("in/a.jpg")

    result = bgx("batch", "in", "-o", "out", "--device", device)

    assert result.code == ExitCode.DEVICE
    assert f"bgx: --device {device}: " in result.err
    assert install_hint("gpu" if device == "cuda" else device) in result.err


def test_without_a_runtime_is_exit_4_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in.jpg")

    monkeypatch.setattr("bgx.model.providers.find_flavours", dict)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    result = bgx("remove", "in.jpg", "out.png")

    assert result.code == ExitCode.DEVICE
    assert result.err.endswith(f"{install_hint('cpu')}\n")
    assert result.err.count("\n") == 1


def test_a_runtime_that_does_not_load_is_exit_4() -> None:
    photo("in.jpg")
    Path("blocked").mkdir()
    Path("blocked/onnxruntime.py").write_text("raise ImportError('a library is missing')")

    result = bgx_process("remove", "in.jpg", "out.png", env={"PYTHONPATH": "blocked"})

    assert result.code == ExitCode.DEVICE
    assert "a library is missing" in result.err
    assert result.err.count("\n") == 1


# Settings from the environment --------------------------------------------------------------------


def options_of(name: str) -> list[click.Option]:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    return [
        parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name != "help"
    ]


@pytest.mark.parametrize("name", ["remove", "batch"])
def test_every_option_has_its_variable(name: str) -> None:
    for parameter in options_of(name):
        long = next(text for text in parameter.opts if text.startswith("--"))
        assert parameter.envvar == "BGX_" + long[2:].upper().replace("-", "_")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("BGX_FORMAT", "webp", ["a.webp"]),
        ("BGX_FORMAT", "", ["a.png"]),
        ("BGX_DRY_RUN", "1", None),
        ("BGX_DRY_RUN", "0", ["a.png"]),
        ("BGX_MAX_PIXELS", "100", []),
        ("BGX_EXISTING", "overwrite", ["a.png"]),
    ],
)
def test_variables_are_options(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: list[str] | None
) -> None:
    photo("in/a.jpg")
    monkeypatch.setenv(variable, value)

    bgx("batch", "in", "-o", "out")

    assert (names("out") if Path("out").exists() else None) == expected


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("BGX_MODEL", "nosuch", 3),
        ("BGX_DEVICE", "nosuch", 2),
        ("BGX_WORKERS", "0", 2),
        ("BGX_WORKERS", "1", 0),
        ("BGX_THREADS", "many", 2),
        ("BGX_BATCH_SIZE", "-1", 2),
        ("BGX_MODELS", "nosuch.toml", 2),
        ("BGX_MODEL_MIRROR", "ftp://x", 2),
        ("BGX_MODEL_MIRROR", "http://[", 2),
        ("BGX_OFFLINE", "1", 0),
        ("BGX_OFFLINE", "on", 0),
        ("BGX_OFFLINE", "perhaps", 2),
        ("BGX_MODELS", "~nobody-of-this-name/x.toml", 2),
        ("BGX_PRESETS", "~nobody-of-this-name/x.toml", 0),
        ("BGX_BACKGROUND", "~nobody-of-this-name", 2),
        ("BGX_BACKGROUND", "x" * 5000, 2),
        ("BGX_MAX_BYTES", "9" * 400, 2),
        ("BGX_THREADS", "99999999999", 2),
        ("BGX_PNG_LEVEL", "huge", 2),
    ],
)
def test_variables_of_the_network(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int
) -> None:
    photo("in/a.jpg")
    monkeypatch.setenv(variable, value)

    result = bgx("batch", "in", "-o", "out")

    assert result.code == code
    assert "Traceback" not in result.err


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in.jpg")
    monkeypatch.setenv("BGX_MODEL", "nosuch")
    monkeypatch.setenv("BGX_OUTPUT", "elsewhere")

    assert bgx("batch", "in.jpg", "-o", "out", "--model", "u2netp").code == 0
    assert names("out") == ["in.png"]
    assert not Path("elsewhere").exists()


def test_training_does_not_take_what_is_meant_for_cutting_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo("in/a.jpg")
    monkeypatch.setenv("BGX_OUTPUT", "out")
    monkeypatch.setenv("BGX_DEVICE", "openvino")

    result = bgx("train", "in", "in")
    assert (result.code, "--output" in result.err) == (ExitCode.USAGE, True)
    result = bgx("train", "in", "in", "-o", "mine.onnx", "--from", "nosuch.onnx")
    assert "openvino" not in result.err


def test_the_output_folder_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in.jpg")
    monkeypatch.setenv("BGX_OUTPUT", "out")
    monkeypatch.setenv("BGX_REPORT", "report.jsonl")

    assert bgx("batch", "in.jpg").code == 0
    assert names("out") == ["in.png"]
    assert len(read_rows(Path("report.jsonl"))) == 2


# How much is said ---------------------------------------------------------------------------------


def test_quiet_says_nothing_but_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/a.jpg")
    photo("in/a.png")
    Path("in/notes.txt").write_text("")
    Path("in/b.jpg").write_bytes(b"")

    assert bgx("batch", "in/a.jpg", "-o", "alone", "--quiet").err == ""
    loud = bgx("batch", "in", "-o", "out", "--existing", "overwrite").err
    monkeypatch.setenv("BGX_QUIET", "1")
    quiet = bgx("batch", "in", "-o", "out", "--existing", "overwrite").err

    error = f"bgx: {Path('in/b.jpg')}: is empty (0 bytes)\n"
    assert quiet == error
    assert error in loud
    assert len(loud.splitlines()) == 4


def test_verbose_says_more() -> None:
    photo("in.jpg")

    said = bgx("remove", "in.jpg", "out.png", "-v").err

    assert "u2netp.onnx" in said
    assert " on cpu: 1 at once" in said


def test_something_unexpected_is_exit_70_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo("in.jpg")

    def crash(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("bgx.run.plan.plan_batch", crash)

    result = bgx("batch", "in.jpg", "-o", "out")
    assert result.code == ExitCode.BUG
    assert result.err == (
        "bgx: unexpected KeyError('x'); please report this as a bug (BGX_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("BGX_DEBUG", "1")
    result = bgx("batch", "in.jpg", "-o", "out")
    assert result.code == ExitCode.BUG
    assert "Traceback" in result.err
    assert "in crash" in result.err


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_while_one_picture_is_cut_out_has_its_row(
    monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    photo("in.jpg")

    def crash(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("bgx.run.picture.upsample_matte", crash)
    if debug:
        monkeypatch.setenv("BGX_DEBUG", "1")
    for arguments in (("remove", "in.jpg", "out.png"), ("batch", "in.jpg", "-o", "out")):
        result = bgx(*arguments, "--no-refine", "--report", "-")
        assert result.code == ExitCode.BUG
        row, last = result.rows
        assert (row["status"], row["error"]["code"], last["failed"]) == ("failed", "bug", 1)
        assert ("in crash" in result.err) == debug


def test_a_bug_on_one_picture_is_exit_70_and_the_others_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo("in/a.jpg", size=(60, 40))
    photo("in/b.jpg", size=(50, 40))

    def crash(matte: Any, size: tuple[int, int]) -> Image.Image:
        return upsample_matte(matte, {(60, 40): size}[size])

    monkeypatch.setattr("bgx.run.picture.upsample_matte", crash)

    result = bgx("batch", "in", "-o", "out", "--no-refine")

    assert result.code == ExitCode.BUG
    assert names("out") == ["a.png"]
    assert f"{Path('in/b.jpg')}: unexpected KeyError" in result.err


# The command itself -------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert bgx("--version").out.decode() == f"bgx {__version__}\n"
    for arguments in ([], ["remove"], ["batch"], ["models"], ["models", "list"], ["info"]):
        result = bgx(*arguments, "--help")
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(b"Usage: bgx")


def test_every_command_is_explained() -> None:
    text = bgx("--help").out.decode()

    commands = Commands()
    for name, said in Commands.names.items():
        assert f"\n  {name} " in text
        command = commands.get_command(click.Context(commands), name)
        assert command is not None
        assert (command.help or "").startswith(said.rstrip("."))
    assert "Exit codes: 0 all done" in text


def test_an_unknown_command_is_a_usage_error() -> None:
    assert bgx("remvoe", "in.jpg").code == ExitCode.USAGE


def test_the_console_script_is_the_module() -> None:
    script = shutil.which("bgx", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("bgx is not installed beside this Python")

    done = subprocess.run([script, "--version"], capture_output=True)

    assert done.stdout == subprocess.run(command("--version"), capture_output=True).stdout
    assert done.returncode == 0


# models and info ----------------------------------------------------------------------------------


def test_models_list() -> None:
    table = bgx("models", "list").out.decode().splitlines()
    rows = {row["name"]: row for row in json.loads(bgx("models", "list", "--json").out)}

    header = ["NAME", "SIZE", "INPUT", "LICENCE", "HERE", "COPIES", "TRIED", "QUALITY", "COST"]
    assert table[0].split() == header
    assert [line.split()[0] for line in table[1:]] == list(rows)
    assert (rows["u2netp"]["present"], rows["u2netp"]["state"]) == (True, "added")
    assert (rows["u2net"]["present"], rows["u2net"]["path"]) == (False, None)
    assert rows["u2net"]["input"] == [320, 320]


def test_a_file_without_a_table_is_named_on_stderr_and_as_names_its_family(tmp_path: Path) -> None:
    file = plain_network(tmp_path / "übung 1.onnx", logits=True)
    photo("in.jpg")
    guessed = bgx("remove", "in.jpg", "out.png", "--model", file)
    assert guessed.code == 0
    [line] = guessed.err.splitlines()
    assert "übung 1.onnx: unknown family, usual settings, 512 x 512" in line
    named = bgx("remove", "in.jpg", "named.png", "--model", file, "--as", "birefnet")
    assert (named.code, named.err) == (0, "")
    wrong = bgx("remove", "in.jpg", "wrong.png", "--model", file, "--as", "unet")
    assert wrong.code == ExitCode.USAGE
    assert "--as unet: use one of u2net" in wrong.err
    by_name = bgx("remove", "in.jpg", "wrong.png", "--model", "lite", "--as", "isnet")
    assert by_name.code == ExitCode.USAGE
    assert not Path("wrong.png").exists()


def test_models_add_path_verify_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))
    file = tiny_network(tmp_path / "file.onnx", note="new")

    added = bgx("models", "add", "mine", file)
    assert added.code == 0
    path = bgx("models", "path", "mine").out.decode().strip()
    assert added.out.decode().startswith(path)
    assert Path(path).read_bytes() == file.read_bytes()
    assert bgx("models", "verify", "mine").out.decode().startswith("mine  ok  sha256:")
    photo("in.jpg")
    assert bgx("remove", "in.jpg", "out.png", "--model", "mine").code == 0

    Path(path).write_bytes(b"damaged")
    damaged = bgx("models", "verify")
    assert damaged.code == ExitCode.MODEL
    lite, mine = damaged.out.decode().splitlines()
    assert lite.startswith("lite  ok  sha256:")
    assert mine == "mine  BAD"

    assert bgx("models", "remove", "mine").code == 0
    assert not Path(path).exists()
    assert bgx("models", "path", "mine").code == ExitCode.MODEL


@pytest.mark.parametrize(
    "arguments",
    [
        ["download", "silueta", "--offline"],
        ["download", "nosuch"],
        ["path", "silueta"],
        ["verify", "silueta"],
        ["remove", "silueta"],
        ["add", "mine", "nosuch.onnx"],
    ],
)
def test_models_that_are_not_there_are_exit_3(arguments: list[str]) -> None:
    result = bgx("models", *arguments)

    assert (result.code, result.out) == (ExitCode.MODEL, b"")
    assert result.err.count("\n") == 1


def test_info() -> None:
    facts = json.loads(bgx("info", "--json").out)
    text = bgx("info").out.decode()

    assert facts["version"] == __version__
    assert facts["cores"] >= 1
    assert "cpu" in facts["runtime"]["loads"]
    assert facts["models"] == ["u2netp", "lite"]
    assert facts["default"] == "u2netp"
    assert facts["folder"] in text
    assert f"auto takes {facts['runtime']['auto']} " in text


# The real network ---------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_authors_masks(
    tmp_path: Path, weights: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))
    images, masks = shared / "u2netp_authors/images", shared / "u2netp_authors/masks"

    assert bgx("models", "add", "u2netp", weights).code == 0
    options = ("--model", "u2netp", "--mask-only", "--no-refine")
    assert bgx("batch", images, "-o", "out", *options).code == 0

    differences = []
    for path in sorted(masks.iterdir()):
        with Image.open(path) as mask, Image.open(f"out/{path.stem}.png") as made:
            expected = np.asarray(mask.convert("L").resize(made.size), np.float64)
            differences.append(np.abs(np.asarray(made, np.float64) - expected).mean() / 255)
    assert len(differences) == 18
    assert np.mean(differences) <= 0.0062


def test_presets_are_listed_with_their_rules() -> None:
    listed = bgx("presets").out.decode()
    assert "amazon: " in listed
    assert "--canvas 2000x2000 --fill 85%" in listed
    rows = {row["name"]: row for row in json.loads(bgx("presets", "--json").out)}
    assert rows["amazon"]["options"]["max-bytes"] == "10MB"
    assert rows["amazon"]["rule"]
    assert len(rows["amazon"]["written"]) == len("2026-01-31")


def test_a_preset_gives_way_to_options_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/shoe.png", size=(400, 300))
    done = bgx("batch", "in", "-o", "a", "--preset", "amazon", "--report", "-")
    row = done.rows[0]
    assert done.code == ExitCode.OK
    assert row["target"] == str(Path("a/shoe.jpg"))
    assert row["notes"][0].startswith("not enlarged without --upscale: ")
    assert mode_and_size("a/shoe.jpg") == ("RGB", (row["width"], row["height"]))
    left, top, right, bottom = row["bbox"]
    assert max(right - left, bottom - top) / row["width"] == pytest.approx(0.85, abs=0.01)
    monkeypatch.setenv("BGX_CANVAS", "200x150")
    options = ("--preset", "amazon", "--format", "webp", "--fill", "50%")
    assert bgx("batch", "in", "-o", "b", *options).code == ExitCode.OK
    assert mode_and_size("b/shoe.webp") == ("RGB", (200, 150))
    monkeypatch.setenv("BGX_PRESET", "amazon")
    assert bgx("remove", "in/shoe.png", "c.jpg").code == ExitCode.OK
    assert mode_and_size("c.jpg") == ("RGB", (200, 150))


@pytest.mark.parametrize(
    "options",
    [
        ["--margin", "3%"],
        ["--mask-only"],
        ["--format", "png"],
        ["--no-refine"],
        ["--resize", "40"],
        ["--resize", "40x30", "--canvas", "3:2"],
    ],
)
def test_an_option_beside_a_preset_never_contradicts_it(options: list[str]) -> None:
    photo("in/a.png", size=(60, 50))
    result = bgx("batch", "in", "-o", "out", "--preset", "amazon", *options)
    assert (result.code, len(names("out"))) == (ExitCode.OK, 1)


def test_a_target_s_suffix_comes_before_a_format_that_is_not_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo("in/a.png", size=(60, 50))
    assert bgx("remove", "in/a.png", "a.png", "--preset", "amazon").code == ExitCode.OK
    assert mode_and_size("a.png")[0] == "RGB"
    monkeypatch.setenv("BGX_FORMAT", "jpg")
    monkeypatch.setenv("BGX_QUALITY", "90")
    assert bgx("remove", "in/a.png", "b.png").code == ExitCode.OK
    assert mode_and_size("b.png")[0] == "RGBA"
    assert bgx("batch", "in", "-o", "out").code == ExitCode.OK
    assert names("out") == ["a.jpg"]
    assert bgx("batch", "in", "-o", "out", "--format", "png").code == ExitCode.OK
    typed = bgx("batch", "in", "-o", "out", "--format", "png", "--quality", "90")
    assert typed.code == ExitCode.USAGE
    assert bgx("remove", "in/a.png", "c.png", "--format", "jpg").code == ExitCode.USAGE


def test_an_unknown_preset_is_a_usage_error() -> None:
    photo("shoe.png")
    done = bgx("remove", "shoe.png", "out.jpg", "--preset", "amazone")
    assert done.code == ExitCode.USAGE
    assert "did you mean amazon?" in done.err


def test_framing_options_work_together() -> None:
    photo("shoe.png", size=(400, 300))
    framing = ("--margin", "10px", "--shadow", "soft", "--background", "blur:3")
    assert bgx("remove", "shoe.png", "a.png", *framing).code == ExitCode.OK
    mode, (width, height) = mode_and_size("a.png")
    assert mode == "RGB"
    smaller = ("--resize", "100", "--align", "bottom", "--colour", "srgb", "--keep-metadata")
    assert bgx("remove", "shoe.png", "b.png", "--crop", *smaller).code == ExitCode.OK
    mode, size = mode_and_size("b.png")
    assert mode == "RGBA"
    assert max(size) == 100
    assert size[0] / size[1] == pytest.approx((width - 20) / (height - 20), rel=0.03)


@pytest.mark.parametrize(
    "options",
    [
        ("--canvas", "huge"),
        ("--margin", "3%", "--fill", "80%"),
        ("--background", "missing.jpg"),
        ("--shadow", "soft", "--mask-only"),
        ("--max-bytes", "small"),
        ("--region", "10,10"),
        ("--threshold", "2"),
        ("--shift", "-1000"),
    ],
)
def test_options_that_make_no_sense_stop_before_anything_is_read(options: tuple[str, ...]) -> None:
    photo("shoe.png")
    done = bgx("batch", "shoe.png", "-o", "out", *options)
    assert done.code == ExitCode.USAGE
    assert options[0] in done.err
    assert not Path("out").exists()


def test_a_region_beyond_a_photo_is_its_row_and_the_rest_is_done() -> None:
    photo("in/large.png", size=(96, 72))
    photo("in/small.png")
    done = bgx("batch", "in", "-o", "out", "--region", "0,0,90,70", "--report", "-")
    assert done.code == ExitCode.PICTURES
    rows = {Path(row["source"]).stem: row for row in done.rows if "source" in row}
    assert rows["small"]["error"]["code"] == "region"
    assert "small.png: --region 0px,0px,90px,70px" in rows["small"]["error"]["message"]
    assert rows["large"]["status"] == "done"
    assert names("out") == ["large.png"]


def test_an_edge_is_moved_from_the_command_line_the_environment_and_a_preset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo("shoe.png", size=(400, 300))
    bgx("remove", "shoe.png", "plain.png")
    bgx("remove", "shoe.png", "typed.png", "--shift", "-3px")
    Path("own.toml").write_text(
        '[tight]\nrule = "no fringe"\nwritten = 2026-01-31\n[tight.options]\nshift = "-3px"\n'
    )
    monkeypatch.setenv("BGX_PRESETS", "own.toml")
    bgx("remove", "shoe.png", "preset.png", "--preset", "tight")
    monkeypatch.setenv("BGX_SHIFT", "-3px")
    bgx("remove", "shoe.png", "environment.png")
    typed = Path("typed.png").read_bytes()
    assert typed == Path("environment.png").read_bytes() == Path("preset.png").read_bytes()
    assert typed != Path("plain.png").read_bytes()


def test_no_subject_is_a_row_and_the_rest_is_done() -> None:
    photo("in/dark.png", subject=0)
    photo("in/light.png")
    done = bgx("batch", "in", "-o", "out", "--canvas", "square", "--report", "-")
    assert done.code == ExitCode.PICTURES
    rows = {Path(row["source"]).stem: row for row in done.rows if "source" in row}
    assert rows["dark"]["error"]["code"] == "no-subject"
    assert rows["light"]["status"] == "done"
    assert names("out") == ["light.png"]


def test_a_background_that_cannot_be_read_leaves_a_row_for_each_picture() -> None:
    photo("in/a.png")
    Path("shelf.jpg").write_bytes(b"nothing")
    done = bgx("batch", "in", "-o", "out", "--background", "shelf.jpg", "--report", "-")
    assert done.code == ExitCode.USAGE
    assert "--background shelf.jpg" in done.err
    assert [row["reason"] for row in done.rows if "source" in row] == ["stopped"]


# Habits of other programs' users ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.jpg"], "in.jpg is not a command; use: bgx remove in.jpg"),
        (["in.jpg", "out.png"], "use: bgx remove in.jpg"),
        (["folder"], "folder is not a command; use: bgx batch folder -o FOLDER"),
        (["i", "in.jpg", "out.png"], "use: bgx remove INPUT OUTPUT"),
        (["p", "folder", "out"], "use: bgx batch FOLDER -o FOLDER"),
        (["nosuch"], "No such command 'nosuch'"),
        (["remove", "in.jpg", "folder"], "folder: is a folder; name a file, or use: bgx batch"),
        (["remove", "https://shop.example/a.jpg", "a.png"], "is a web address; bgx reads files"),
        (["batch", "https://shop.example/a.jpg", "-o", "out"], "is a web address; bgx reads files"),
        (["batch", "-", "-o", "out"], "to read names from stdin use --files-from -"),
    ],
)
def test_what_was_meant_is_told(arguments: list[str], message: str) -> None:
    photo("in.jpg")
    Path("folder").mkdir()

    result = bgx(*arguments)

    assert result.code == ExitCode.USAGE
    assert message in result.err
    assert sorted(path.name for path in Path().iterdir()) == ["folder", "in.jpg"]


@linux
@pytest.mark.parametrize("arguments", [["in.jpg", "-"], ["-"]])
def test_no_picture_is_written_to_a_terminal(arguments: list[str]) -> None:
    content = photo("in.jpg").read_bytes()
    terminal, line = os.openpty()

    result = bgx_process("remove", *arguments, stdin=content, stdout=line)

    os.close(line)
    os.close(terminal)
    assert result.code == ExitCode.USAGE
    assert "stdout is a terminal; name a file, or redirect it: > FILE" in result.err


def test_a_folder_in_a_result_s_place_is_no_result() -> None:
    photo("in/a.jpg")
    Path("out/a.png").mkdir(parents=True)

    for words in (["batch", "in", "-o", "out"], ["batch", "in/a.jpg", "-o", "out"]):
        result = bgx(*words, "--report", "-")
        assert result.code == ExitCode.PICTURES
        assert result.rows[0]["error"]["code"] == "unwritable"


@linux
@pytest.mark.parametrize(
    "words", [["batch", "in", "-o", "out"], ["remove", "in/a.jpg", "out/a.png"]]
)
def test_a_link_to_nothing_in_a_result_s_place_is_no_result(words: list[str]) -> None:
    photo("in/a.jpg")
    Path("out").mkdir()
    Path("out/a.png").symlink_to("gone.png")

    assert bgx(*words, "--report", "-").rows[0]["status"] == "done"
    with Image.open("out/a.png") as image:
        image.load()
    assert bgx(*words, "--report", "-").rows[0]["status"] == "skipped"


def test_a_file_of_a_list_may_be_called_as_stdin_is() -> None:
    photo("in.png").rename("-")

    result = bgx("batch", "--files-from", "-", "-o", "out", "--report", "-", stdin=b"-\nnosuch\n")

    assert sorted(row["status"] for row in result.rows[:-1]) == ["done", "failed"]
    assert "stdin" not in result.err
    assert names("out") == ["-.png"]


def test_a_photo_from_the_future_is_done_once() -> None:
    """A camera's clock or a file server's was wrong."""
    os.utime(photo("in/a.jpg"), (4e9, 4e9))
    words = ("batch", "in", "-o", "out", "--existing", "update", "--report", "-")

    assert bgx(*words).rows[0]["status"] == "done"
    assert bgx(*words).rows[0].get("reason") == "current"
