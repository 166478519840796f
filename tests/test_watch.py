"""Hot folders, with real files that are written slowly, renamed, replaced and removed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bgx import files
from bgx.cli.report_file import RollingReport
from bgx.errors import ExitCode, OutputError, UnreadableError
from bgx.run.arrivals import SETTLE_S, Arrivals, mark
from bgx.run.hot import open_hot_folder
from bgx.run.outcome import Failed
from bgx.storage import open_folder
from bgx.storage.local import LocalFolder
from support.fakes import draw_photo, save_photo
from support.shell import bgx, read_rows
from support.watching import watching

IN, OUT, DONE, BAD = Path("Eingang Süd"), Path("out"), Path("done"), Path("bad")
REPORT = Path("report.jsonl")

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _place(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    IN.mkdir()


def save_large(path: Path, seed: int) -> None:
    """A photo of 57 kB, so that there is something to write slowly. Each seed gives another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = draw_photo((160, 120), 200)
    image.putpixel((seed % 160, seed // 160), (9, 9, 9))
    image.save(path, compress_level=0)


def write_slowly(path: Path, data: bytes) -> None:
    """In pieces, with pauses; some are longer than bgx takes for the end of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pause = len(path.as_posix()) % 40
    with path.open("wb") as stream:
        for number, start in enumerate(range(0, len(data), 6000)):
            stream.write(data[start : start + 6000])
            stream.flush()
            time.sleep(0.8 if number == pause else 0.02)


def widths(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            found[path.name] = image.width
    return found


def rows_by_status() -> Counter[str]:
    return Counter(row.get("status") for row in read_rows(REPORT))


@pytest.mark.slow
def test_pictures_that_arrive_in_every_way_are_each_done_once_and_none_is_read_half(
    tmp_path: Path,
) -> None:
    names = [f"{number % 7}/Öl {number:03}.png" for number in range(500)]
    for number, name in enumerate(names):
        save_large(Path("originals") / name, number)
    assert bgx("batch", "originals", "-o", "expected", "--no-refine").code == ExitCode.OK
    torn = (Path("originals") / names[0]).read_bytes()[:9000]

    def arrive(first: int) -> None:
        for number in range(first, len(names), 10):
            name, data = names[number], (Path("originals") / names[number]).read_bytes()
            if first < 6:
                write_slowly(IN / name, data)
            elif first < 8:
                hidden = Path("elsewhere") / name
                write_slowly(hidden, data)
                (IN / name).parent.mkdir(exist_ok=True)
                hidden.rename(IN / name)
        if first >= 8:
            folder = Path(f"folder {first}")
            for number in range(first, len(names), 10):
                (folder / names[number]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path("originals") / names[number], folder / names[number])
            if first == 8:
                shutil.copytree(folder, IN, dirs_exist_ok=True)
            else:
                folder.rename(IN / folder)

    options = ("--no-refine", "--report", REPORT)
    with watching(IN, "-o", OUT, "--done", DONE, "--failed", BAD, *options) as watch:
        (IN / "torn.png").write_bytes(torn)
        writers = [threading.Thread(target=arrive, args=(first,)) for first in range(10)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        watch.wait_for((BAD / "torn.png").is_file, "the torn one is given up")
        watch.wait_for(lambda: not any(p.is_file() for p in IN.rglob("*")), "all are done")
        assert watch.stop() == ExitCode.OK

    *rows, last = read_rows(REPORT)
    assert rows_by_status() == {"done": 500, "failed": 1, None: 1}
    assert len({row["source"] for row in rows}) == 501
    assert (last["done"], last["failed"], last["skipped"]) == (500, 1, 0)
    for number, name in enumerate(names):
        below = Path("folder 9") / name if number % 10 == 9 else Path(name)
        assert (OUT / below).read_bytes() == (Path("expected") / name).read_bytes()
        assert (DONE / below).read_bytes() == (Path("originals") / name).read_bytes()
    assert len([path for path in OUT.rglob("*") if path.is_file()]) == 500


@posix
def test_a_killed_watch_is_gone_on_with_by_the_same_command() -> None:
    for number in range(60):
        save_large(IN / f"{number}.png", number)
    command = (IN, "-o", OUT, "--done", DONE, "--report", REPORT)
    with watching(*command) as watch:
        watch.wait_for(lambda: REPORT.read_bytes().count(b"\n") >= 5, "some are done")
        watch.stop(signal.SIGKILL)
    assert 0 < len(list(IN.glob("*.png"))) < 60

    with watching(*command) as watch:
        save_photo(IN / "late.png")
        watch.wait_for(lambda: not list(IN.glob("*.png")), "all are done")
        assert watch.stop() == ExitCode.OK

    expected = {"late.png", *(f"{number}.png" for number in range(60))}
    assert {path.name for path in OUT.iterdir()} == expected
    assert {path.name for path in DONE.iterdir()} == expected
    rows = [row for row in read_rows(REPORT) if "status" in row]
    # One that was killed between its result and its row, or after it, is there already.
    assert {Path(row["source"]).name for row in rows} >= expected - {"late.png"} - {
        Path(row["source"]).name for row in rows if row["status"] == "skipped"
    }
    assert max(Counter(row["source"] for row in rows if row["status"] == "done").values()) == 1


def test_a_picture_whose_end_comes_late_is_done_and_not_failed() -> None:
    save_large(Path("whole.png"), 1)
    data = Path("whole.png").read_bytes()
    with watching(IN, "-o", OUT, "--report", REPORT, "-v") as watch:
        with (IN / "slow.png").open("wb") as stream:
            stream.write(data[:9000])
            stream.flush()
            watch.wait_for_line("slow.png: cannot be read yet")
            stream.write(data[9000:])
        watch.wait_for_line("slow.png -> ")
        watch.stop()

    assert rows_by_status() == {"done": 1, None: 1}


def test_a_picture_that_gets_its_content_between_two_tries_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bgx.run.hot.RETRY_S", (600.0,))
    (IN / "late.png").touch()
    hot = open_hot_folder(
        str(IN), open_folder(str(OUT)), print, suffix=".png", existing="skip", poll=True
    )
    with hot:
        parts = hot.parts()
        [job] = next(part for part in parts if part)
        assert hot.settle(Failed(job, UnreadableError("empty"))) is None
        save_photo(IN / "late.png")
        end = time.monotonic() + 30
        while not (part := next(parts)):
            assert time.monotonic() < end, "it is not tried again"
    assert part == [job]


def test_a_name_that_comes_again_takes_nothing_from_the_first_one() -> None:
    with watching(IN, "-o", OUT, "--done", DONE) as watch:
        for name, width in (("front.png", 40), ("front-2.png", 50), ("front-3.png", 60)):
            save_photo(Path("new.png"), size=(width, 50))
            Path("new.png").rename(IN / "front.png")
            watch.wait_for((DONE / name).is_file, "it is moved")
        watch.stop()

    assert widths(DONE) == {"front.png": 40, "front-2.png": 50, "front-3.png": 60}
    assert widths(OUT) == {"front.png": 40, "front.png.png": 50, "front.png-2.png": 60}


def test_a_picture_beside_one_of_the_same_name_gets_a_result_of_its_own() -> None:
    save_photo(IN / "a.png")
    with watching(IN, "-o", OUT) as watch:
        watch.wait_for((OUT / "a.png").is_file, "the first one")
        save_photo(IN / "a.jpg")
        watch.wait_for((OUT / "a.jpg.png").is_file, "the second one")
        watch.stop()

    assert bgx("batch", IN, "-o", OUT, "--report", "-").rows[-1]["skipped"] == 2


@pytest.mark.parametrize(("existing", "again"), [("skip", 0), ("update", 1), ("overwrite", 1)])
def test_a_picture_that_is_replaced_is_made_again_if_that_is_asked_for(
    existing: str, again: int
) -> None:
    save_photo(IN / "a.png")
    with watching(IN, "-o", OUT, "--existing", existing, "--report", REPORT) as watch:
        watch.wait_for(lambda: REPORT.read_bytes().count(b"\n") == 1, "the first one")
        save_photo(Path("new.png"), size=(60, 50))
        Path("new.png").replace(IN / "a.png")
        watch.wait_for(lambda: REPORT.read_bytes().count(b"\n") == 2, "the second one")
        watch.stop()

    with Image.open(OUT / "a.png") as image:
        assert (image.size == (60, 50)) == bool(again)
    assert any("use --existing update" in line for line in watch.lines) == (not again)


def test_a_network_folder_is_polled() -> None:
    with watching(IN, "-o", IN / "out", "--poll", "--done", IN / "done") as watch:
        save_photo(Path("tray/über.png"))
        Path("tray").rename(IN / "tray")
        watch.wait_for((IN / "done/tray/über.png").is_file, "it is moved")
        watch.stop()

    assert [path.as_posix() for path in Path(IN / "out").rglob("*.png")] == [
        f"{IN}/out/tray/über.png"
    ]


@posix
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.OK)],
)
def test_it_ends_when_it_is_asked_to(number: signal.Signals, code: ExitCode) -> None:
    save_photo(IN / "a.png")
    with watching(IN, "-o", OUT, "--report", REPORT) as watch:
        watch.wait_for((OUT / "a.png").is_file, "the picture")
        assert watch.stop(number) == code

    assert read_rows(REPORT)[-1]["done"] == 1
    assert not list(OUT.glob(".*"))


def test_a_folder_that_is_replaced_by_another_one_is_watched_too() -> None:
    with watching(IN, "-o", OUT) as watch:
        IN.rename("old")
        save_photo(IN / "a.png")
        watch.wait_for((OUT / "a.png").is_file, "the picture in the new one")
        watch.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nix", "-o", "out"], "nix: no such file or folder"),
        (["file", "-o", "out"], "file: is a file"),
        (["s3://a/b", "-o", "out"], "needs a local folder"),
        ([str(IN), "-o", str(IN)], "is the input folder too"),
        ([str(IN), "-o", "out", "--done", "out"], "out: is used twice"),
        ([str(IN), "-o", "out", "--done", str(IN)], "choose another output folder"),
        ([str(IN), "-o", "out", "--report", "s3://a/b.jsonl"], "name a local file"),
        ([str(IN), "-o", "out", "--report", f"{IN}/a.png"], "would overwrite an input"),
    ],
)
def test_what_cannot_be_watched_is_refused(arguments: list[str], message: str) -> None:
    Path("file").touch()
    save_photo(IN / "a.png")
    before = (IN / "a.png").read_bytes()

    result = bgx("watch", *arguments)

    assert result.code == ExitCode.USAGE
    assert message in result.err
    assert (IN / "a.png").read_bytes() == before
    assert not OUT.exists()


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.delitem(__import__("sys").modules, "bgx.cli.watch", raising=False)

    result = bgx("watch", IN, "-o", OUT)

    assert result.code == ExitCode.USAGE
    assert "[watch]" in result.err
    assert "--poll" in result.err


@pytest.mark.parametrize("name", ["out", "done", "bad"])
def test_a_folder_that_cannot_be_written_to_ends_it_at_once(name: str) -> None:
    Path(name).touch()

    result = bgx("watch", IN, "-o", OUT, "--done", DONE, "--failed", BAD)

    assert result.code == ExitCode.OUTPUT
    assert f"{name}: is a file" in result.err


def test_a_report_is_added_to_and_put_aside_when_it_is_large() -> None:
    large = b'{"status": "done"}\n'
    with REPORT.open("wb") as stream:
        stream.seek(64 << 20)
        stream.write(large + b'{"status": "do')
    Path("report.jsonl.1").write_text("another")
    with watching(IN, "-o", OUT, "--report", REPORT) as watch:
        save_photo(IN / "a.png")
        watch.wait_for(lambda: Path("report.jsonl.2").is_file(), "it is put aside")
        watch.stop()

    aside = Path("report.jsonl.2").read_bytes()[(64 << 20) :].splitlines(keepends=True)
    assert aside[0] == large
    assert len(aside) == 2
    assert b"a.png" in aside[1]
    assert [row["done"] for row in read_rows(REPORT)] == [1]
    assert Path("report.jsonl.1").read_text() == "another"


def test_a_report_that_cannot_be_made_again_is_told_at_each_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put_aside(path: Path, target: Path) -> None:
        path.replace(target)
        path.mkdir()

    report = RollingReport(str(REPORT))
    monkeypatch.setattr(Path, "rename", put_aside)
    with REPORT.open("ab") as stream:
        stream.truncate(65 << 20)
    report.write("a row\n")
    report.flush()
    for _ in range(2):
        with pytest.raises(OutputError, match=r"--report .*: cannot be written"):
            report.write("a row\n")
    report.close()


@posix
def test_a_report_that_is_moved_away_or_deleted_is_made_again() -> None:
    with watching(IN, "-o", OUT, "--report", REPORT) as watch:
        save_photo(IN / "a.png")
        watch.wait_for(lambda: len(read_rows(REPORT)) == 1, "its row")
        REPORT.rename("yesterday.jsonl")
        save_photo(IN / "b.png")
        watch.wait_for(lambda: REPORT.exists() and len(read_rows(REPORT)) == 1, "its row")
        moved = read_rows(REPORT)
        REPORT.unlink()
        assert watch.stop() == ExitCode.OK

    assert [Path(row["source"]).name for row in read_rows(Path("yesterday.jsonl"))] == ["a.png"]
    assert [Path(row["source"]).name for row in moved] == ["b.png"]
    assert [row["done"] for row in read_rows(REPORT)] == [2]


NAMES = ["a.png", "b.png", "sub/a.png", "sub/deep/c.png", ".hidden.png", "@eaDir/a.png"]
SEEN = {"a.png", "b.png", "sub/a.png", "sub/deep/c.png"}
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["create", "append", "delete"]), st.sampled_from(NAMES)),
    st.tuples(st.just("move"), st.sampled_from(["sub", "sub/deep"])),
    st.tuples(st.just("look"), st.sampled_from([SETTLE_S / 4, SETTLE_S])),
    st.tuples(st.just("look at all"), st.sampled_from([SETTLE_S / 4, SETTLE_S])),
)
_fresh = count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, max_size=30))
def test_a_file_is_given_once_for_each_state_that_two_looks_have_seen(
    tmp_path: Path, actions: list[tuple[str, str | float]]
) -> None:
    root = tmp_path / f"folder {next(_fresh)}"
    root.mkdir()
    save_photo(tmp_path / "photo.png")
    folder = open_folder(str(root))
    assert isinstance(folder, LocalFolder)
    now, seen, given_marks, hints = 0.0, {}, [], set[str]()
    arrivals = Arrivals(folder, clock=lambda: now)
    for action, value in [*actions, *[("look at all", SETTLE_S)] * 3]:
        path = root / str(value)
        if action == "create":
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "photo.png", path)
        elif action == "append" and path.is_file():
            with path.open("ab") as stream:
                stream.write(b"more")
        elif action == "delete":
            path.unlink(missing_ok=True)
        elif action == "move" and path.is_dir():
            path.rename(tmp_path / f"away {next(_fresh)}")
        if isinstance(value, str):
            hints.add(value)
            continue
        now += value
        arrivals.look(None if action == "look at all" else sorted(hints))
        hints.clear()
        for arrival in arrivals.take(99, wait=False):
            below = arrival.item.below
            since, before = seen[below]
            assert before == arrival.mark == mark(arrival.item.file)
            assert now - since >= SETTLE_S
            given_marks.append((below, arrival.mark))
        for name in SEEN:
            here = mark(folder.file(name))
            if here is None or seen.get(name, (0, None))[1] != here:
                seen[name] = (now, here)

    there = {(name, mark(folder.file(name))) for name in SEEN if (root / name).is_file()}
    assert there <= set(given_marks)
    assert {below for below, _ in given_marks} <= SEEN
    assert sorted(arrivals.names()) == sorted(name for name, _ in there)


def test_a_file_moves_to_a_free_name_and_over_nothing(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "to/sub/a.jpg", "to/sub/a-2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    moved = files.move_aside(tmp_path / "in/a.jpg", tmp_path / "to/sub/a.jpg")

    assert moved == tmp_path / "to/sub/a-3.jpg"
    assert moved.read_text() == "in/a.jpg"
    assert not (tmp_path / "in/a.jpg").exists()
    assert (tmp_path / "to/sub/a.jpg").read_text() == "to/sub/a.jpg"


def test_a_file_moves_to_another_disk(tmp_path: Path) -> None:
    from support.rights import mounted

    source = tmp_path / "a.jpg"
    source.write_text("photo")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    with mounted(tmp_path / "disk", "-t", "tmpfs", "none") as disk:
        moved = files.move_aside(source, disk / "sub/a.jpg")

        assert moved.read_text() == "photo"
        assert moved.stat().st_mtime == 1_000_000_000
        assert not source.exists()
        assert [path.name for path in (disk / "sub").iterdir()] == ["a.jpg"]
