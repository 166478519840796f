"""Batches and single pictures from buckets and to them, against moto's S3 server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bgx import Remover
from bgx.errors import ExitCode
from bgx.storage import open_file, open_folder
from support.fakes import draw_photo, save_photo
from support.services import Line, ObjectStore
from support.shell import PATIENCE, bgx, command, read_rows

BUCKET = "s3://shop"


@pytest.fixture
def store(
    object_store: ObjectStore, stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    """In an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return object_store


def upload(key: str, size: tuple[int, int] = (48, 36)) -> None:
    content = io.BytesIO()
    draw_photo(size).save(content, "png")
    assert open_file(f"{BUCKET}/{key}").write(content.getvalue())


def upload_forty(size: tuple[int, int] = (48, 36)) -> list[str]:
    """Names of their results below the output folder."""
    names = ["ä b+c.png", *(f"{number % 3}/{number:02}.png" for number in range(39))]
    for name in names:
        upload(f"in/{name}", size)
    return sorted(names)


def listed(folder: str) -> list[str]:
    return sorted(found.below for found in open_folder(folder).walk())


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a report in the bucket, without the last one."""
    with open_file(name).open() as stream:
        *rows, _ = map(json.loads, stream.read().decode().splitlines())
    return rows


def assert_whole(name: str) -> None:
    with open_file(name).open() as stream, Image.open(stream) as image:
        image.load()
        assert image.mode == "RGBA"


def test_a_bucket_to_a_bucket_and_again(store: ObjectStore) -> None:
    names = upload_forty()
    arguments = ("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/cut", "--report", f"{BUCKET}/report")

    first = bgx(*arguments, "--review", f"{BUCKET}/look", "--sheet", f"{BUCKET}/sheet.html")

    assert (first.code, first.err.count("\n")) == (0, 1), first.err
    assert listed(f"{BUCKET}/cut") == names
    for name in names:
        assert_whole(f"{BUCKET}/cut/{name}")
    rows = rows_of(f"{BUCKET}/report")
    assert sorted(row["target"] for row in rows) == [f"{BUCKET}/cut/{name}" for name in names]
    doubtful = {row["target"] for row in rows if row["doubtful"]}
    assert {f"{BUCKET}/cut/{name}" for name in listed(f"{BUCKET}/look")} == doubtful
    with open_file(f"{BUCKET}/sheet.html").open() as page:
        assert b'href="in/%C3%A4%20b%2Bc.png"' in page.read()

    assert bgx(*arguments).code == 0
    assert {row["reason"] for row in rows_of(f"{BUCKET}/report")} == {"exists"}


def test_a_bucket_to_a_folder_and_a_folder_to_a_bucket(store: ObjectStore) -> None:
    names = upload_forty()

    assert bgx("batch", f"{BUCKET}/in/", "-o", "cut").code == 0
    found = sorted(path.relative_to("cut").as_posix() for path in Path("cut").rglob("*.png"))
    assert found == names

    assert bgx("batch", "cut", "-o", f"{BUCKET}/again", "--report", "report").code == 0
    assert listed(f"{BUCKET}/again") == names
    assert read_rows(Path("report"))[-1]["done"] == 40


def test_inputs_of_both_kinds_and_a_list_in_the_bucket(store: ObjectStore) -> None:
    upload("in/1.png")
    upload("in/2.png")
    save_photo(Path("here/3.png"))
    open_file(f"{BUCKET}/list.txt").write(f"{BUCKET}/in/2.png\nhere/3.png\n".encode())

    done = bgx(
        *("batch", f"{BUCKET}/in/1.png", "-o", f"{BUCKET}/cut"),
        *("--files-from", f"{BUCKET}/list.txt", "--report", "-"),
    )

    assert done.code == 0
    assert [row["source"] for row in sorted(done.rows[:-1], key=lambda row: row["target"])] == [
        f"{BUCKET}/in/1.png",
        f"{BUCKET}/in/2.png",
        "here/3.png",
    ]
    assert listed(f"{BUCKET}/cut") == ["1.png", "2.png", "3.png"]


def test_names_that_would_be_one_target_are_kept_apart(store: ObjectStore) -> None:
    upload("in/a.png")
    draw_photo().save("a.jpg")
    open_file(f"{BUCKET}/in/a.jpg").write(Path("a.jpg").read_bytes())

    done = bgx("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/cut")

    assert done.code == 0
    assert "2 sources would share a target" in done.err
    assert listed(f"{BUCKET}/cut") == ["a.jpg.png", "a.png.png"]


def test_the_output_folder_is_not_read_and_no_input_is_overwritten(store: ObjectStore) -> None:
    upload("in/1.png")

    assert bgx("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/in/cut").code == 0
    assert bgx("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/in/cut", "--report", "-").code == 0
    assert listed(BUCKET) == ["in/1.png", "in/cut/1.png"]

    onto = bgx("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/in")
    assert (onto.code, "is the input folder too" in onto.err) == (ExitCode.USAGE, True)
    itself = bgx("remove", f"{BUCKET}/in/1.png", f"{BUCKET}/in/1.png")
    assert (itself.code, "would overwrite an input" in itself.err) == (ExitCode.USAGE, True)


def test_update_makes_what_is_older_than_its_photo(store: ObjectStore) -> None:
    """The store's clock counts whole seconds: what is as old as its photo is current."""
    upload("in/1.png")
    draw_photo().save("old.png")
    arguments = ("batch", f"{BUCKET}/in", "-o", "cut", "--existing", "update", "--report", "-")
    assert [row["status"] for row in bgx(*arguments).rows[:-1]] == ["done"]
    assert [row["reason"] for row in bgx(*arguments).rows[:-1]] == ["current"]
    made = Path("cut/1.png")
    hour_ago = made.stat().st_mtime - 3600
    os.utime(made, (hour_ago, hour_ago))

    assert [row["status"] for row in bgx(*arguments).rows[:-1]] == ["done"]


def test_a_single_picture(store: ObjectStore) -> None:
    upload("in/a b.png")

    assert bgx("remove", f"{BUCKET}/in/a b.png").code == 0
    assert bgx("remove", f"{BUCKET}/in/a b.png", f"{BUCKET}/cut/1.webp").code == 0
    assert bgx("remove", f"{BUCKET}/in/a b.png", "here.png").code == 0
    assert bgx("remove", "here.png", f"{BUCKET}/cut/2.png").code == 0

    assert listed(BUCKET) == ["cut/1.webp", "cut/2.png", "in/a b-cut.png", "in/a b.png"]
    for name in listed(BUCKET)[:3]:
        assert_whole(f"{BUCKET}/{name}")
    again = bgx("remove", f"{BUCKET}/in/a b.png")
    assert (again.code, "exists; to redo it use" in again.err) == (0, True)


def test_a_cut_out_is_saved_in_the_bucket(store: ObjectStore) -> None:
    upload("in.png")

    Remover("u2netp", device="cpu").cut(f"{BUCKET}/in.png").save(f"{BUCKET}/new/1.png")

    assert_whole(f"{BUCKET}/new/1.png")
    assert not list(Path().iterdir())


def test_a_broken_object_is_a_row(store: ObjectStore) -> None:
    upload("in/1.png")
    open_file(f"{BUCKET}/in/2.png").write(b"no picture")

    done = bgx("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/cut", "--report", "-")

    assert done.code == ExitCode.PICTURES
    [broken] = (row for row in done.rows if row.get("status") == "failed")
    assert broken["error"]["code"] == "unreadable"
    assert broken["error"]["message"].startswith(f"{BUCKET}/in/2.png: not a picture")


def test_a_key_that_cannot_be_read_stops_no_other(store: ObjectStore) -> None:
    upload("in/1.png")
    upload("in/2/3.png")
    store.fill("shop", ["in//0.png"])

    done = bgx("batch", f"{BUCKET}/in", "-o", "cut", "--report", "-")

    assert done.code == ExitCode.PICTURES
    [odd] = (row for row in done.rows if row.get("status") == "failed")
    assert odd["source"] == f"{BUCKET}/in"
    assert "holds a name with an empty part" in odd["error"]["message"]
    assert {path.as_posix() for path in Path("cut").rglob("*.png")} == {"cut/1.png", "cut/2/3.png"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("batch", "s3://none/in", "-o", "cut"), 2, "s3://none/in: cannot be searched: there is"),
        (("batch", f"{BUCKET}/none", "-o", "cut"), 2, "no such file or folder"),
        (("batch", "in.png", "-o", "s3://none/cut"), 5, "cannot be written: there is no bucket"),
        (("remove", f"{BUCKET}/none.png"), 2, f"{BUCKET}/none.png: no such file"),
        (("remove", "in.png", "s3://none/1.png"), 5, "cannot be written: there is no bucket"),
        (("remove", "in.png", "1.png", "--report", "s3://none/r"), 5, "--report s3://none/r: cann"),
    ],
)
def test_what_is_not_there_is_told(
    store: ObjectStore, arguments: tuple[str, ...], code: int, message: str
) -> None:
    save_photo(Path("in.png"))

    result = bgx(*arguments)

    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("batch", f"{BUCKET}/in", "-o", "cut"), 2, f"{BUCKET}/in: cannot be searched"),
        (("batch", "in.png", "in2.png", "-o", f"{BUCKET}/cut"), 5, f"{BUCKET}/cut: cannot be writ"),
        (("batch", "in.png", "-o", "cut", "--review", f"{BUCKET}/look"), 5, f"{BUCKET}/look: cann"),
        (("batch", "in.png", "-o", "cut", "--sheet", f"{BUCKET}/1.html"), 5, f"{BUCKET}: cannot b"),
        (("remove", f"{BUCKET}/in.png", "cut.png"), 2, f"{BUCKET}/in.png: cannot be read"),
        (("remove", "in.png", f"{BUCKET}/cut.png"), 5, f"{BUCKET}/cut.png: cannot be written"),
        (("watch", "in", "-o", f"{BUCKET}/cut"), 5, f"{BUCKET}/cut: cannot be written"),
    ],
)
def test_a_bucket_that_cannot_be_asked_is_told_in_one_line(
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # Where a cloud's machine has credentials; nobody listens here.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254:1")
    for name in ("in.png", "in2.png", "in/1.png"):
        save_photo(Path(name))

    result = bgx(*arguments)

    assert result.code == code
    assert result.err.startswith(f"bgx: {message}")
    assert "no credentials; set AWS_ACCESS_KEY_ID and" in result.err
    assert result.err.count("\n") == 1


def test_two_batches_at_once_make_each_picture_once(store: ObjectStore) -> None:
    names = upload_forty(size=(900, 700))
    runs = [
        subprocess.Popen(
            command("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/cut", "--report", f"{number}.jsonl")
        )
        for number in range(2)
    ]

    assert [run.wait(PATIENCE) for run in runs] == [0, 0]

    assert listed(f"{BUCKET}/cut") == names
    reports = [read_rows(Path(f"{number}.jsonl"))[:-1] for number in range(2)]
    assert [len(rows) for rows in reports] == [40, 40]
    made = [row["target"] for rows in reports for row in rows if row["status"] == "done"]
    assert sorted(made) == [f"{BUCKET}/cut/{name}" for name in names]
    assert {row.get("reason") for rows in reports for row in rows} <= {None, "exists"}


def test_a_line_that_is_cut_in_mid_run_loses_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = upload_forty(size=(900, 700))
    report = Path("report.jsonl")
    with Line(store.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        run = subprocess.Popen(
            command("batch", f"{BUCKET}/in", "-o", f"{BUCKET}/cut", "--report", report),
            stderr=subprocess.PIPE,
            text=True,
        )
        while not report.exists() or report.read_bytes().count(b"\n") < 5:
            assert run.poll() is None
            time.sleep(0.01)
        line.cut()
        threading.Timer(10.0, line.mend).start()
        _, err = run.communicate(timeout=PATIENCE)

    assert run.returncode == 0, err
    assert "the object store does not answer; trying again" in err
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.environment["AWS_ENDPOINT_URL"])
    assert listed(f"{BUCKET}/cut") == names
    assert [row["status"] for row in read_rows(report)[:-1]] == ["done"] * 40


def test_without_the_extra_the_remedy_is_told() -> None:
    script = (
        "import sys; sys.modules['obstore'] = None; from bgx.cli.main import run;"
        "sys.exit(run(['batch', 's3://shop/in', '-o', 'cut']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("bgx: s3://shop/in: object stores need one more package; run: pi")
    assert '[objects]"' in done.stderr


def test_a_plain_batch_loads_no_object_store(stocked_home: Path, tmp_path: Path) -> None:
    save_photo(tmp_path / "in.png")
    script = (
        "import sys; from bgx.cli.main import run; code = run(sys.argv[1:]);"
        "sys.exit(code or int('obstore' in sys.modules))"
    )
    done = [sys.executable, "-c", script, "batch", str(tmp_path / "in.png"), "-o", str(tmp_path)]

    assert subprocess.run([*done, "--format", "webp"], capture_output=True).returncode == 0
