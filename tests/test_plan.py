"""Plans: every picture is found, every target is unique, nothing is overwritten."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from bgx.errors import OutputError, UsageError
from bgx.run.existing import skip_existing
from bgx.run.naming import fold
from bgx.run.outcome import Skipped
from bgx.run.plan import Plan, plan_batch
from bgx.run.sources import expand_patterns
from bgx.storage import open_file, open_folder
from support.rights import mounted, ordinary_user

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bgx.settings import Existing

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and file names")

JPEG = b"\xff\xd8\xff"


def plan(*inputs: Path, out: Path, existing: Existing = "skip", **options: Any) -> Plan:
    return plan_batch(
        map(str, inputs),
        open_folder(out),
        suffix=".png",
        existing=existing,
        **options,
    )


def pairs(made: Plan, base: Path) -> list[tuple[str, str]]:
    """Sources and targets of the jobs below base."""
    return [(below(str(job.source), base), below(str(job.target), base)) for job in made.jobs]


def make(made: Plan) -> None:
    """Every target."""
    for job in made.jobs:
        assert job.target is not None
        job.target.write(b"x")


def sources(made: Plan, base: Path) -> list[str]:
    return [below(str(job.source), base) for job in made.jobs]


def below(path: str, base: Path) -> str:
    return Path(path).relative_to(base).as_posix()


def touch(base: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# Folders ------------------------------------------------------------------------------------------


@posix
def test_a_pipe_in_a_folder_is_no_picture(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    os.mkfifo(tmp_path / "in/b.jpg")
    made = plan(tmp_path / "in", out=tmp_path / "out")
    assert sources(made, tmp_path / "in") == ["a.jpg"]
    assert made.ignored == 1


def test_the_tree_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.jpg", "in/sub/a.JPEG", "in/sub/deep/c.png")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [
        ("in/b.jpg", "out/b.png"),
        ("in/sub/a.JPEG", "out/sub/a.png"),
        ("in/sub/deep/c.png", "out/sub/deep/c.png"),
    ]
    assert made.notes == []
    assert not (tmp_path / "out").exists()


def test_what_is_no_picture_is_counted_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/notes.txt", "in/Thumbs.db", "in/.hidden.jpg", "in/.git/x.jpg")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("in/a.jpg", "out/a.png")]
    assert made.ignored == 2


def test_a_file_named_by_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "photo", "raw.data")

    made = plan(tmp_path / "photo", tmp_path / "raw.data", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("photo", "out/photo.png"), ("raw.data", "out/raw.png")]


def test_a_name_of_a_list_that_is_not_there_is_a_job(tmp_path: Path) -> None:
    """Reading it fails, and that is reported as any broken picture is."""
    made = plan(tmp_path / "gone.jpg", tmp_path / ("x" * 300 + ".jpg"), out=tmp_path / "out")

    assert len(made.jobs) == 2


def test_a_picture_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/sub/a.jpg")
    inputs = [tmp_path / "in", tmp_path / "in/sub/a.jpg", tmp_path / "in/./sub/a.jpg"]

    made = plan(*inputs, tmp_path / "in" / "sub", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("in/sub/a.jpg", "out/sub/a.png")]


def test_the_notes_name_the_sources_that_were_moved(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/b.jpg")

    [note] = plan(tmp_path / "in", out=tmp_path / "out").notes

    assert note.startswith("2 sources would share a target")
    assert "a.jpg.png" in note
    assert "b.jpg" not in note


def test_files_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "may/1.jpg", "june/1.jpg", "june/2.jpg")
    named = [tmp_path / name for name in ("may/1.jpg", "june/1.jpg", "june/2.jpg")]

    made = plan(*named, out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == [
        "out/may/1.png",
        "out/june/1.png",
        "out/june/2.png",
    ]
    assert str(tmp_path) in made.notes[0]


def test_folders_that_hold_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "shop/may/1.jpg", "shop/june/1.jpg", "shop/june/sub/2.jpg")

    made = plan(tmp_path / "shop/may", tmp_path / "shop/june", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == [
        "out/may/1.png",
        "out/june/1.png",
        "out/june/sub/2.png",
    ]
    assert len(made.notes) == 1


def test_folders_that_share_no_name_are_poured_together(tmp_path: Path) -> None:
    touch(tmp_path, "may/1.jpg", "june/2.jpg")

    made = plan(tmp_path / "may", tmp_path / "june", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == ["out/1.png", "out/2.png"]
    assert made.notes == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells case apart")
def test_names_of_one_folder_that_differ_by_case_are_no_two_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "A.jpg")

    made = plan(tmp_path / "a.jpg", tmp_path / "A.jpg", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == ["out/a.jpg.png", "out/A.jpg-2.png"]
    assert len(made.notes) == 1


@posix
def test_links_to_files_are_taken_and_links_to_folders_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "elsewhere/b.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert sources(made, tmp_path) == ["in/a.jpg", "in/gone.jpg"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'in' / name}: not searched: is a link to a folder; to search it, name it"
        for name in ("circle", "more")
    ]


def test_a_folder_that_cannot_be_searched_is_a_picture_that_fails(tmp_path: Path) -> None:
    """Whether it may not be read or not be entered; what lies beside it is done."""
    touch(tmp_path, "in/a.jpg", "in/closed/b.jpg", "in/shut/deeper/c.jpg", "in/shut/d.jpg")
    touch(tmp_path, "in/shut/notes.txt", "in/z.jpg")
    (tmp_path / "in/closed").chmod(0o000)
    (tmp_path / "in/shut").chmod(0o644)
    try:
        with ordinary_user():
            made = plan(tmp_path / "in", out=tmp_path / "out")
            errors = {}
            for job in made.jobs:
                try:
                    cast("BinaryIO", job.source.open()).close()
                except OSError as error:
                    errors[below(str(job.source), tmp_path)] = error.strerror
            with pytest.raises(UsageError, match="closed: cannot be searched: Permission denied"):
                plan(tmp_path / "in/closed", out=tmp_path / "out")
    finally:
        for name in ("closed", "shut"):
            (tmp_path / "in" / name).chmod(0o755)

    assert pairs(made, tmp_path) == [
        ("in/a.jpg", "out/a.png"),
        ("in/z.jpg", "out/z.png"),
        ("in/closed", "out/closed"),
        ("in/shut/d.jpg", "out/shut/d.png"),
        ("in/shut/deeper", "out/shut/deeper"),
    ]
    assert errors == dict.fromkeys(
        ["in/closed", "in/shut/d.jpg", "in/shut/deeper"], "Permission denied"
    )
    assert made.ignored == 1


@posix
def test_a_folder_too_deep_for_the_system_is_a_picture_that_fails(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    deepest = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        for _ in range(40):
            os.mkdir("x" * 200, dir_fd=deepest)
            inner = os.open("x" * 200, os.O_RDONLY, dir_fd=deepest)
            os.close(deepest)
            deepest = inner
        made = plan(tmp_path / "in", out=tmp_path / "out")
    finally:
        os.close(deepest)
        shutil.rmtree(tmp_path / "in")

    assert sources(made, tmp_path / "in")[0] == "a.jpg"
    [failing] = made.jobs[1:]
    with pytest.raises(OSError, match="File name too long"):
        failing.source.open()


@posix
def test_a_tree_deeper_than_pythons_stack_is_searched(tmp_path: Path) -> None:
    deep = "in/" + "d/" * (sys.getrecursionlimit() + 100)
    try:
        open_file(tmp_path / f"{deep}a.jpg").write(b"x")

        assert sources(plan(tmp_path / "in", out=tmp_path / "out"), tmp_path) == [f"{deep}a.jpg"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "in"], check=True)  # Python's own recurses


@posix
def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named in full is done; what is named from there is not there."""
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()

    assert len(plan(tmp_path / "in", out=tmp_path / "out").jobs) == 1
    with pytest.raises(UsageError, match="no such file or folder"):
        list(expand_patterns(["in"]))
    with pytest.raises(OutputError, match="out: cannot be created"):
        plan(tmp_path / "in", out=Path("out")).prepare()
    monkeypatch.chdir(tmp_path)


# What looks like a picture, and what belongs to the system ----------------------------------------


def test_what_is_a_picture_by_its_first_bytes_is_one(tmp_path: Path) -> None:
    names = ["DSC1.HIF", "IMG_0002", "a.jpg?v=1", "c.MPO", "d.jpg (1)", "e.jpg_large"]
    touch(tmp_path, *(f"in/{name}" for name in names), content=JPEG)

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert sources(made, tmp_path / "in") == names
    assert made.ignored == 0


def test_what_is_left_out_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Copies, unfinished downloads and raw files too, although they begin as pictures do."""
    names = [
        "a.jpg.part",
        "a.jpg.filepart",
        "a.jpg.opdownload",
        "a.jpg_original",
        "a.jpg~",
        "b.NEF",
        "c.bak",
        "v.THM",
    ]
    touch(tmp_path, "in/a.jpg", *(f"in/{name}" for name in names), content=JPEG)
    touch(tmp_path, "in/notes.txt", "in/empty", content=b"")
    caplog.set_level(logging.INFO)

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert sources(made, tmp_path / "in") == ["a.jpg"]
    assert made.ignored == len(names) + 2
    assert {record.getMessage() for record in caplog.records} == {
        f"{tmp_path / 'in' / name}: left out: not a picture"
        for name in [*names, "notes.txt", "empty"]
    }


def test_folders_of_the_system_are_not_searched(tmp_path: Path) -> None:
    folders = ["@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information"]
    folders += ["__MACOSX", "lost+found", ".Trash-1000", ".@__thumb", ".thumbnails", "@Recycle"]
    folders += ["RECYCLER", "RECYCLED", "FOUND.000", "@tmp", "@Recently-Snapshot", "~snapshot"]
    folders += ["Network Trash Folder", "Temporary Items", ".Spotlight-V100", ".AppleDouble"]
    touch(tmp_path, "in/a.jpg", "in/._a.jpg", *(f"in/sub/{folder}/a.jpg" for folder in folders))

    assert sources(plan(tmp_path / "in", out=tmp_path / "out"), tmp_path / "in") == ["a.jpg"]


def test_a_folder_of_the_system_is_searched_where_it_is_named_alone(tmp_path: Path) -> None:
    """A shell's star names it beside others."""
    touch(tmp_path, "in/a.jpg", "in/#recycle/b.jpg")

    alone = plan(tmp_path / "in/#recycle", out=tmp_path / "out")
    starred = plan(*sorted((tmp_path / "in").iterdir()), out=tmp_path / "out")

    assert sources(alone, tmp_path / "in") == ["#recycle/b.jpg"]
    assert sources(starred, tmp_path / "in") == ["a.jpg"]
    [note] = starred.notes
    assert note.startswith(f"{tmp_path / 'in/#recycle'}: not searched: belongs to the system")


def test_a_folder_mounted_in_itself_is_searched_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "in/sub/a.jpg")
    with mounted(tmp_path / "in/sub/again", "--bind", str(tmp_path / "in")):
        made = plan(tmp_path / "in", out=tmp_path / "out")

    assert sources(made, tmp_path / "in") == ["sub/a.jpg"]
    assert "not searched again: is one of the folders that it is in" in caplog.text


def test_nothing_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    with pytest.raises(UsageError, match="no pictures found"):
        plan(tmp_path / "in", out=tmp_path / "out")
    with pytest.raises(UsageError, match="no pictures found"):
        plan(out=tmp_path / "out")


# The output folder --------------------------------------------------------------------------------


def test_the_output_folder_inside_the_input_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/sub/cut/old.png", "in/sub/b.jpg")

    made = plan(tmp_path / "in", out=tmp_path / "in/sub/cut")

    assert sources(made, tmp_path) == ["in/a.jpg", "in/sub/b.jpg"]


@posix
def test_the_output_folder_is_known_by_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/cut/old.png")
    (tmp_path / "link").symlink_to(tmp_path / "in/cut")

    made = plan(tmp_path / "in", out=tmp_path / "link")

    assert sources(made, tmp_path) == ["in/a.jpg"]


def test_a_shells_star_names_the_output_folder_on_the_second_run(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in/cut/a.png")

    made = plan(*sorted((tmp_path / "in").iterdir()), out=tmp_path / "in/cut")

    assert sources(made, tmp_path) == ["in/b.jpg"]
    assert [str(skipped.job.source) for skipped in made.skipped] == [str(tmp_path / "in/a.jpg")]
    assert made.notes == [f"{tmp_path / 'in/cut'}: not searched: is the output folder"]


def test_results_beside_their_sources_are_not_read_by_a_shells_star(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")

    with pytest.raises(UsageError, match=r"a\.png: lies in the output folder"):
        plan(tmp_path / "a.jpg", tmp_path / "a.png", out=tmp_path)


def test_sources_beside_their_results_may_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")

    assert pairs(plan(tmp_path / "a.jpg", out=tmp_path), tmp_path) == [("a.jpg", "a.png")]


def test_the_input_folder_is_no_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")

    with pytest.raises(UsageError, match="is the input folder too"):
        plan(tmp_path / "in", out=tmp_path / "in" / ".." / "in")
    with pytest.raises(UsageError, match="in: is the input folder too"):
        plan(tmp_path / "in", out=tmp_path / "out", review=open_folder(tmp_path / "in"))


def test_the_output_folder_may_not_hold_the_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")

    with pytest.raises(UsageError, match="lies inside the output folder"):
        plan(tmp_path / "in", out=tmp_path)


def test_no_target_is_a_source(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "out/sub/a.png")
    (tmp_path / "in/sub").mkdir()
    os.link(tmp_path / "out/sub/a.png", tmp_path / "in/sub/a.jpg")

    with pytest.raises(UsageError, match="would overwrite an input"):
        plan(tmp_path / "in", out=tmp_path / "out", existing="overwrite")


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "out")

    with pytest.raises(OutputError, match="is a file, not a folder"):
        plan(tmp_path / "in", out=tmp_path / "out")


@posix
def test_links_in_a_circle_are_no_crash(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    assert len(plan(tmp_path / "in", out=tmp_path / "circle").jobs) == 1


# What exists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("existing", "newer", "reason"),
    [
        ("skip", "source", "exists"),
        ("skip", "target", "exists"),
        ("update", "source", None),
        ("update", "target", "current"),
        ("overwrite", "target", None),
    ],
)
def test_existing_targets(
    tmp_path: Path, existing: Existing, newer: str, reason: str | None
) -> None:
    touch(tmp_path, "source", "target")
    os.utime(tmp_path / "source", (1000, 2000 if newer == "source" else 1000))
    os.utime(tmp_path / "target", (1000, 1500))

    source, target = open_file(tmp_path / "source"), open_file(tmp_path / "target")

    assert skip_existing(source, target, existing) == reason


def test_equal_times_are_current(tmp_path: Path) -> None:
    touch(tmp_path, "source", "target")
    for name in ("source", "target"):
        os.utime(tmp_path / name, (1000, 1000))

    source, target = open_file(tmp_path / "source"), open_file(tmp_path / "target")

    assert skip_existing(source, target, "update") == "current"


@pytest.mark.parametrize("existing", ["skip", "update", "overwrite"])
def test_an_empty_target_or_a_folder_in_its_place_is_not_done(
    tmp_path: Path, existing: Existing
) -> None:
    touch(tmp_path, "source")
    touch(tmp_path, "empty", content=b"")
    (tmp_path / "folder").mkdir()

    for name in ("empty", "folder"):
        source, target = open_file(tmp_path / "source"), open_file(tmp_path / name)
        assert skip_existing(source, target, existing) is None


def test_a_second_plan_finds_the_first_ones_targets(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/sub/a.jpg")
    first = plan(tmp_path / "in", out=tmp_path / "out")
    make(first)

    second = plan(tmp_path / "in", out=tmp_path / "out")

    assert second.jobs == []
    assert second.skipped == [Skipped(job, "exists") for job in first.jobs]


def test_a_photo_added_beside_another_leaves_its_result(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.jpg")
    make(plan(tmp_path / "in", out=tmp_path / "out"))
    touch(tmp_path, "in/b.png")

    for existing in ("skip", "update", "overwrite"):
        made = plan(tmp_path / "in", out=tmp_path / "out", existing=existing)
        targets = dict(pairs(made, tmp_path))
        assert targets.pop("in/b.png") == "out/b.png.png"
        assert targets == ({"in/b.jpg": "out/b.png"} if existing == "overwrite" else {})


def test_a_photo_added_in_another_folder_leaves_all_results(tmp_path: Path) -> None:
    touch(tmp_path, "may/1.jpg", "may/2.jpg", "june/3.jpg")
    folders = tmp_path / "may", tmp_path / "june"
    make(plan(*folders, out=tmp_path / "out"))
    touch(tmp_path, "june/1.jpg")

    made = plan(*folders, out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("june/1.jpg", "out/june/1.png")]
    assert len(made.skipped) == 3


@posix
def test_a_delivery_that_replaces_all_photos_takes_no_older_result(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.jpg")
    make(plan(tmp_path / "in", out=tmp_path / "out"))
    os.utime(tmp_path / "out/b.png", (1000, 1000))
    shutil.rmtree(tmp_path / "in")
    touch(tmp_path, "in/b.jpg", "in/b.png")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == ["out/b.jpg.png", "out/b.png.png"]


# Before the run -----------------------------------------------------------------------------------


def test_what_killed_runs_left_goes_from_every_folder_of_results(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/sub/b.jpg")
    left = [f"{folder}/.0123456789abcdef.bgx-tmp" for folder in ("out", "out/sub", "again", "else")]
    touch(tmp_path, *left)

    plan(tmp_path / "in", out=tmp_path / "out", review=open_folder(tmp_path / "again")).prepare()

    assert [name for name in left if (tmp_path / name).exists()] == [left[-1]]


def test_preparing_makes_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")

    plan(tmp_path / "in", out=tmp_path / "new/out").prepare()

    assert list((tmp_path / "new/out").iterdir()) == []


def test_an_output_folder_that_takes_no_files_ends_the_run(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/sub/b.jpg")
    (tmp_path / "out").mkdir(mode=0o555)
    made = plan(tmp_path / "in", out=tmp_path / "out")

    with ordinary_user(), pytest.raises(OutputError, match=r"out: cannot be written: Permission"):
        made.prepare()


def test_one_folder_that_takes_files_is_enough(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/sub/b.jpg")
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out").chmod(0o555)

    with ordinary_user():
        plan(tmp_path / "in", out=tmp_path / "out").prepare()

    assert list((tmp_path / "out/sub").iterdir()) == []


def test_a_run_with_nothing_to_do_needs_no_right_to_write(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    make(plan(tmp_path / "in", out=tmp_path / "out"))
    (tmp_path / "out").chmod(0o555)

    with ordinary_user():
        plan(tmp_path / "in", out=tmp_path / "out").prepare()


# Patterns -----------------------------------------------------------------------------------------


def test_patterns_are_expanded_where_the_shell_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "sub/c.jpg", "d.png", "odd[1].jpg")
    monkeypatch.chdir(tmp_path)

    def expand(pattern: str) -> list[str]:
        return [Path(name).as_posix() for name in expand_patterns([pattern])]

    assert expand("[ab].jpg") == ["a.jpg", "b.jpg"]
    assert expand("**/*.jpg") == ["a.jpg", "b.jpg", "odd[1].jpg", "sub/c.jpg"]
    assert expand("odd[1].jpg") == ["odd[1].jpg"]
    assert expand("sub") == ["sub"]


@pytest.mark.parametrize("name", ["nosuch.jpg", "*.gif", "x" * 300])
def test_what_matches_nothing_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="no such file or folder"):
        list(expand_patterns([name]))


@pytest.mark.parametrize("what", ["input", "pattern", "out", "review", "sheet", "read"])
def test_an_empty_name_is_a_usage_error(tmp_path: Path, what: str) -> None:
    """And not the working directory: a variable of the script is empty."""
    touch(tmp_path, "in/a.jpg")
    named = [""] if what == "input" else [str(tmp_path / "in")]

    with pytest.raises(UsageError, match="name is empty"):
        plan_batch(
            expand_patterns([""]) if what == "pattern" else named,
            open_folder("" if what == "out" else tmp_path / "out"),
            suffix=".png",
            existing="skip",
            review=open_folder("") if what == "review" else None,
            sheet=open_file("") if what == "sheet" else None,
            read=[""] if what == "read" else [],
        )


# In parts -----------------------------------------------------------------------------------------


def touch_many(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:05}.jpg").touch()


def targets_of(parts: Iterable[Plan]) -> list[str]:
    return [str(job.target) for part in parts for job in part.jobs]


def test_a_large_folder_is_planned_in_parts(tmp_path: Path) -> None:
    touch_many(tmp_path / "in", 5000)

    first, *others = plan(tmp_path / "in", out=tmp_path / "out").parts()

    assert len(first.jobs) == 2000
    assert targets_of([first, *others]) == [
        str(tmp_path / "out" / f"{number:05}.png") for number in range(5000)
    ]


def test_names_that_meet_in_different_parts_are_kept_apart_in_every_run(tmp_path: Path) -> None:
    touch_many(tmp_path / "in" / "A", 2500)
    touch_many(tmp_path / "in" / "a", 2500)
    (tmp_path / "in" / "a" / "00007.webp").touch()

    targets = targets_of(plan(tmp_path / "in", out=tmp_path / "out").parts())

    assert len({fold(target) for target in targets}) == 5001
    for target in targets:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(b"made")
    again = [
        str(skipped.job.target)
        for part in plan(tmp_path / "in", out=tmp_path / "out").parts()
        for skipped in part.skipped
    ]
    assert again == targets


def test_a_part_is_not_cut_within_names_that_could_be_one_target(tmp_path: Path) -> None:
    touch_many(tmp_path / "in", 1999)
    for suffix in ("bmp", "jpg", "webp"):
        (tmp_path / "in" / f"x.{suffix}").touch()
    (tmp_path / "in" / "y.jpg").touch()

    first, second = plan(tmp_path / "in", out=tmp_path / "out").parts()

    assert [Path(target).name for target in targets_of([first])[1999:]] == [
        "x.bmp.png",
        "x.jpg.png",
        "x.webp.png",
    ]
    assert [Path(target).name for target in targets_of([second])] == ["y.png"]


def test_no_picture_of_a_later_part_is_overwritten(tmp_path: Path) -> None:
    touch_many(tmp_path / "in", 2500)

    with pytest.raises(UsageError, match=r"02400\.jpg: would overwrite an input"):
        plan(tmp_path / "in", out=tmp_path / "out", written=[tmp_path / "in" / "02400.jpg"])


def test_what_is_no_picture_is_counted_by_part(tmp_path: Path) -> None:
    touch_many(tmp_path / "in", 2500)
    (tmp_path / "in" / "0.txt").touch()
    (tmp_path / "in" / "z.txt").touch()

    parts = list(plan(tmp_path / "in", out=tmp_path / "out").parts())

    assert [part.ignored for part in parts] == [1, 1]
