"""A batch under every error that the system can give, at every step of a picture's way.

Whatever happens: each picture has one row and a result only where the row says so, no temporary
file stays, the neighbours are done unless the run had to end, the exit code is the documented one
(never 70), and the same command completes the run once the trouble is over.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bgx.errors import BgxError, ExitCode
from bgx.image.preview import PREVIEW_SIZE, SIDE
from bgx.run.batch import run_batch
from bgx.run.plan import plan_batch
from bgx.run.report import Report
from bgx.storage import open_folder
from support.containers import container, run_in
from support.fakes import CrashingNetwork, FakeNetwork, cpu_plan, draw_photo, gpu_plan, save_photo
from support.faults import failing, no_threads
from support.rights import mounted, remount_read_only
from support.running import make_engine, make_recipe
from support.shell import PATIENCE, Result, bgx, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan
    from bgx.run.outcome import Job
    from bgx.run.picture import Network
    from bgx.run.recipe import Recipe
    from bgx.storage.base import File, Source

CULPRIT = "in/sub/c.png"
"""The photo that meets the error, alone in its folder."""

SIZE = (60, 44)
"""Of the culprit alone."""

NEIGHBOURS = [f"in/{name}.png" for name in "abd"]
PHOTOS = [*NEIGHBOURS, CULPRIT]


def system_error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


NAMES = ["EACCES", "EPERM", "ENAMETOOLONG", "ENOENT", "EIO", "ENOSPC", "EROFS", "ESTALE", "EMFILE"]
DISK = {errno.EIO, errno.ENOSPC, errno.EROFS}
"""What every later picture would meet too when it is written."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(params=[*NAMES, "MemoryError"])
def error(request: pytest.FixtureRequest) -> Exception:
    """Each error that the system can give. A new one: it keeps what it was raised through."""
    return MemoryError() if request.param == "MemoryError" else system_error(request.param)


@pytest.fixture(autouse=True)
def _photos(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for photo in NEIGHBOURS:
        save_photo(Path(photo))
    unsure = draw_photo(SIZE, subject=128)
    unsure.putpixel((30, 22), (255, 255, 255))  # the network's white, beside which grey is half
    Path("in/sub").mkdir()
    unsure.save(CULPRIT)


# What is checked ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """How the run ends. code: of the process. status, error: of the culprit's row."""

    code: ExitCode
    status: str = "done"
    error: str | None = None


def unreadable(error: Exception) -> Expected:
    if isinstance(error, MemoryError):
        return Expected(ExitCode.PICTURES, "failed", "too-large")
    return Expected(ExitCode.PICTURES, "failed", "unreadable")


def unwritable(error: Exception) -> Expected:
    if isinstance(error, MemoryError):
        return Expected(ExitCode.PICTURES, "failed", "too-large")
    if isinstance(error, OSError) and error.errno in DISK:
        return Expected(ExitCode.OUTPUT, "failed", "output")
    return Expected(ExitCode.PICTURES, "failed", "unwritable")


def check(rows: list[dict[str, Any]], code: int, expected: Expected) -> None:
    """One row a picture, the culprit's and its neighbours' as expected, and files as the rows say.

    rows: with the last one, which has the run's figures.
    """
    *pictures, last = rows
    by_source = {Path(row["source"]).as_posix(): row for row in pictures}
    assert len(pictures) == len(by_source)
    culprit = by_source.pop(CULPRIT, None) or by_source.pop("in/sub")
    assert sorted(by_source) == NEIGHBOURS

    assert code == expected.code
    assert culprit["status"] == expected.status, culprit
    assert culprit.get("error", {}).get("code") == expected.error, culprit
    for row in by_source.values():
        ended = expected.code in {ExitCode.OUTPUT, ExitCode.MODEL, ExitCode.DEVICE, ExitCode.USAGE}
        assert row["status"] == "done" or (ended and row["reason"] == "stopped"), row

    done = {row["target"] for row in pictures if row["status"] == "done"}
    assert {str(path) for path in Path("out").rglob("*") if path.is_file()} == done
    for target in done:
        with Image.open(target) as image:
            image.load()
    assert (last["done"], last["failed"], last["unfinished"]) == (
        len(done),
        sum(row["status"] == "failed" for row in pictures),
        sum(row["status"] == "skipped" for row in pictures),
    )
    assert not list(Path().rglob("*.bgx-tmp"))


def check_second(rows: list[dict[str, Any]], code: int, first: list[dict[str, Any]]) -> None:
    """The same command without the error does what is left, and that alone."""
    *pictures, last = rows
    assert code == ExitCode.OK
    assert sorted(Path(row["source"]).as_posix() for row in pictures) == PHOTOS
    assert last["skipped"] == first[-1]["done"]
    assert last["done"] == len(PHOTOS) - last["skipped"]
    assert len([path for path in Path("out").rglob("*") if path.is_file()]) == len(PHOTOS)


def batch(*options: str) -> tuple[Result, list[dict[str, Any]]]:
    """The command, and the rows of its report."""
    result = bgx("batch", "in", "-o", "out", "--report", "report.jsonl", *options)
    assert "unexpected" not in result.err
    assert "Traceback" not in result.err
    return result, read_rows(Path("report.jsonl"))


def check_batch(fault: AbstractContextManager[None], expected: Expected, *options: str) -> Result:
    """A batch with an error, and the same command after it."""
    with fault:
        result, rows = batch(*options)
    check(rows, result.code, expected)
    again, second = batch(*options)
    check_second(second, again.code, rows)
    return result


# The command line ---------------------------------------------------------------------------------


def ends_with(name: str) -> Callable[..., bool]:
    """Whether the event's first argument is a path that ends so."""

    def meant(path: object, *_: object) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and posix(path).endswith(name)

    return meant


def posix(path: Any) -> str:
    return Path(os.fsdecode(path)).as_posix()


def moved_to(name: str) -> Callable[..., bool]:
    """Of ``os.rename``: whether the new name ends so."""
    return lambda _, target, *__: posix(target).endswith(name)


def made_in(folder: str) -> Callable[..., bool]:
    """Of ``open``: whether a temporary file is made in that folder."""

    def meant(path: object, *_: object) -> bool:
        named = posix(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return named.endswith(".bgx-tmp") and named.rpartition("/")[0].endswith(folder)

    return meant


Fault = tuple[str, "Callable[..., bool]", "Callable[[Exception], Expected]"]
"""Names of events, which of them are meant, and how the run ends."""

STEPS: dict[str, Fault] = {
    "listing": ("os.scandir", ends_with("in/sub"), unreadable),
    "opening": ("open", ends_with(CULPRIT), unreadable),
    "the target's folder": ("os.mkdir", ends_with("out/sub"), unwritable),
    "the temporary file": ("open", made_in("out/sub"), unwritable),
    "the target": ("os.link os.rename", moved_to("out/sub/c.png"), unwritable),
    "the review folder": ("os.mkdir", ends_with("look/sub"), unwritable),
    "the copy for review": ("os.rename", moved_to("look/sub/c.png"), unwritable),
}


@pytest.mark.parametrize("step", STEPS)
def test_one_pictures_error(step: str, error: Exception) -> None:
    events, meant, expected = STEPS[step]
    if step == "listing" and isinstance(error, MemoryError):
        pytest.skip("there is no plan then, and no row")

    check_batch(failing(events, error, meant), expected(error), "--review", "look")


@contextmanager
def failing_encoder(
    file_format: str, error: Exception, meant: Callable[[Image.Image], bool]
) -> Iterator[None]:
    """One of Pillow's, which fails with the images that are meant."""
    Image.init()
    encode = Image.SAVE[file_format]

    def fail(image: Image.Image, *arguments: Any) -> None:
        if meant(image):
            raise error
        encode(image, *arguments)

    Image.register_save(file_format, fail)
    try:
        yield
    finally:
        Image.register_save(file_format, encode)


def test_encoding(error: Exception) -> None:
    kind = "too-large" if isinstance(error, MemoryError) else "unwritable"
    fault = failing_encoder("WEBP", error, lambda image: image.size == SIZE)

    check_batch(fault, Expected(ExitCode.PICTURES, "failed", kind), "--format", "webp")


@pytest.mark.parametrize("sheet", ["sheet.html", "sheet.jpg"])
def test_the_picture_for_the_sheet(sheet: str, error: Exception) -> None:
    """No target is there without it, so that the same command makes both."""
    kind = "too-large" if isinstance(error, MemoryError) else "inference"
    # Where the culprit reaches beside its neighbours, which are smaller.
    place = (SIDE - SIZE[0]) // 2 + 1, SIDE // 2
    fault = failing_encoder(
        "JPEG",
        error,
        lambda image: image.size == PREVIEW_SIZE and image.getpixel(place) == (0, 0, 0),
    )

    check_batch(fault, Expected(ExitCode.PICTURES, "failed", kind), "--sheet", sheet)


def test_a_folder_that_is_named_and_cannot_be_listed(error: Exception) -> None:
    """The others that are named are done."""
    with failing("os.scandir", error, ends_with("in/sub")):
        result = bgx("batch", *NEIGHBOURS, "in/sub", "-o", "out", "--report", "-")
    assert "unexpected" not in result.err

    if isinstance(error, MemoryError):
        assert (result.code, result.out) == (ExitCode.DEVICE, b"")
        assert not Path("out").exists()
    else:
        check(result.rows, result.code, unreadable(error))
    again = bgx("batch", *NEIGHBOURS, "in/sub", "-o", "out")
    assert again.code == ExitCode.OK
    assert len(list(Path("out").rglob("*.png"))) == len(PHOTOS)


def test_no_memory_or_no_right_to_list_anything(error: Exception) -> None:
    with failing("os.scandir", error, ends_with("in")):
        result = bgx("batch", "in", "-o", "out")

    assert result.code == (ExitCode.DEVICE if isinstance(error, MemoryError) else ExitCode.USAGE)
    assert "unexpected" not in result.err
    assert not list(Path().rglob("*.bgx-tmp"))
    again, rows = batch()
    assert (again.code, rows[-1]["done"]) == (ExitCode.OK, len(PHOTOS))


def test_the_report_that_cannot_be_opened(error: Exception) -> None:
    with failing("open", error, ends_with("report.jsonl")):
        result = bgx("batch", "in", "-o", "out", "--report", "report.jsonl")

    assert result.code == (ExitCode.DEVICE if isinstance(error, MemoryError) else ExitCode.OUTPUT)
    assert "unexpected" not in result.err
    assert not list(Path("out").iterdir())
    again, rows = batch()
    assert (again.code, rows[-1]["done"]) == (ExitCode.OK, len(PHOTOS))


def test_the_network_that_cannot_be_read(error: Exception, stocked_home: Path) -> None:
    def meant(path: object, *_: object) -> bool:
        return isinstance(path, str | os.PathLike) and posix(path).startswith(posix(stocked_home))

    code = ExitCode.DEVICE if isinstance(error, MemoryError) else ExitCode.MODEL
    result = check_batch(failing("open", error, meant), Expected(code, "skipped"))

    assert str(stocked_home) in result.err or "memory" in result.err


def test_the_background_that_cannot_be_read(error: Exception) -> None:
    draw_photo().save("paper.png")

    check_batch(
        failing("open", error, ends_with("paper.png")),
        Expected(ExitCode.USAGE, "skipped"),
        "--background",
        "paper.png",
    )


def test_the_output_folder_that_cannot_be_made(error: Exception) -> None:
    with failing("os.mkdir", error, ends_with("out")):
        result = bgx("batch", "in", "-o", "out", "--report", "report.jsonl")

    assert result.code == (ExitCode.DEVICE if isinstance(error, MemoryError) else ExitCode.OUTPUT)
    assert "unexpected" not in result.err
    assert not Path("out").exists()
    again, rows = batch()
    assert (again.code, rows[-1]["done"]) == (ExitCode.OK, len(PHOTOS))


def test_without_a_single_thread() -> None:
    check_batch(no_threads(), Expected(ExitCode.OK))


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_where_threads_are_refused_every_picture_is_done(most: int) -> None:
    """most: threads of the process, its first one counted."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    words = ("-m", "bgx", "batch", "in", "-o", "out", "--report", "report.jsonl")
    with container("pids", {"pids.max": str(most)}) as group:
        done = run_in(group, sys.executable, *words, env=environment, timeout=PATIENCE)

    check(read_rows(Path("report.jsonl")), done.returncode, Expected(ExitCode.OK))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_where_threads_are_refused_other_formats_are_not_called_damaged(most: int) -> None:
    """AVIF is read and written; HEIC needs a thread of its own."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    for path in Path("in").rglob("*.png"):
        path.unlink()
    for name in ("1.avif", "2.heic"):
        draw_photo((400, 300)).save(f"in/{name}")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
    words = ("-m", "bgx", "batch", "in", "-o", "out", "-f", "avif", "--report", "report.jsonl")
    with container("pids", {"pids.max": str(most)}) as group:
        done = run_in(group, sys.executable, *words, env=environment, timeout=PATIENCE)

    *rows, _ = read_rows(Path("report.jsonl"))
    by_source = {Path(row["source"]).name: row for row in rows}
    assert by_source["1.avif"]["status"] == "done", done.stderr
    heic = by_source["2.heic"]
    if heic["status"] != "done":
        assert "the system refuses more threads; raise the limit" in heic["error"]["message"]


@linux
def test_a_photo_that_breaks_off_while_it_is_read() -> None:
    """Its first byte lies on a page that is not there."""
    Path(CULPRIT).rename("kept.png")
    Path(CULPRIT).symlink_to("/proc/self/mem")
    expected = Expected(ExitCode.PICTURES, "failed", "unreadable")

    result, rows = batch()

    check(rows, result.code, expected)
    assert f"{CULPRIT}: cannot be read: Input/output error" in result.err
    Path(CULPRIT).unlink()
    Path("kept.png").rename(CULPRIT)
    again, second = batch()
    check_second(second, again.code, rows)


@linux
@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_disk_that_takes_no_more(tmp_path: Path, what: str) -> None:
    """The culprit's folder is a disk of its own."""
    Path("out").mkdir()
    with mounted(tmp_path / "out/sub", "-t", "tmpfs", "-o", "size=4k", "none") as disk:
        if what == "full":
            (disk / "filler").write_bytes(b"x" * 4096)
        else:
            remount_read_only(disk)
        result, rows = batch()
    assert "unexpected" not in result.err

    check(rows, result.code, Expected(ExitCode.OUTPUT, "failed", "output"))
    again, second = batch()
    check_second(second, again.code, rows)


@linux
def test_a_report_that_no_longer_can_be_written(tmp_path: Path) -> None:
    """What was in work is finished, and the same command does the rest."""
    for number in range(40):
        save_photo(Path(f"in/{number:02}.png"))
    with mounted(tmp_path / "rows", "-t", "tmpfs", "-o", "size=4k", "none") as disk:
        result = bgx("batch", "in", "-o", "out", "--report", str(disk / "report.jsonl"))
        told = read_rows(disk / "report.jsonl")

    assert result.code == ExitCode.OUTPUT
    assert "rows/report.jsonl: cannot be written: No space left on device" in result.err
    assert told
    done = len(list(Path("out").rglob("*.png")))
    assert 0 < done < 40
    assert not list(Path().rglob("*.bgx-tmp"))
    again, rows = batch()
    assert (again.code, rows[-1]["done"], rows[-1]["skipped"]) == (0, 44 - done, done)


def test_the_sheet_that_cannot_be_begun(error: Exception) -> None:
    fault = failing("os.rename", error, moved_to("sheet.html"))

    check_batch(fault, Expected(ExitCode.OUTPUT, "skipped"), "--sheet", "sheet.html")


def test_the_sheet_that_cannot_be_finished(error: Exception) -> None:
    fault = failing("os.rename", error, moved_to("sheet.html"), after=1)

    check_batch(fault, Expected(ExitCode.OUTPUT), "--sheet", "sheet.html")


@linux
def test_a_photo_that_does_not_fit_into_the_address_space() -> None:
    """The limit is that of ``ulimit -v``, a little above what the neighbours take."""
    limited = (
        "import resource, sys; limit = int(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "from bgx.cli.main import run; code = run(sys.argv[2:]);"
        "status = open('/proc/self/status').read();"
        "print(status.partition('VmPeak:')[2].split()[0], file=sys.stderr);"
        "sys.exit(code)"
    )

    def run_limited(limit: int, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", limited, str(limit), "batch", *words, "--workers", "1"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    small = run_limited(1 << 40, *NEIGHBOURS, "-o", "small", "--quiet")
    assert small.returncode == 0, small.stderr
    draw_photo((6000, 5000)).save(CULPRIT, compress_level=1)
    limit = 1024 * int(small.stderr) + (50 << 20)

    done = run_limited(limit, "in", "-o", "out", "--report", "report.jsonl")

    rows = read_rows(Path("report.jsonl"))
    check(rows, done.returncode, Expected(ExitCode.PICTURES, "failed", "too-large"))
    again, second = batch()
    check_second(second, again.code, rows)


REMOVING: dict[str, Fault] = {
    "opening": ("open", ends_with(CULPRIT), unreadable),
    "the temporary file": ("open", made_in("new"), unwritable),
    "the target's folder": ("os.mkdir", ends_with("new"), unwritable),
    "the target": ("os.link os.rename", moved_to("new/c.png"), unwritable),
}


@pytest.mark.parametrize("step", REMOVING)
def test_one_picture_alone(step: str, error: Exception) -> None:
    events, meant, expected = REMOVING[step]
    words = ("remove", CULPRIT, "new/c.png", "--report", "-")

    with failing(events, error, meant):
        result = bgx(*words)

    [row, last] = result.rows
    assert result.code == expected(error).code
    assert row["error"]["code"] == expected(error).error
    assert (last["done"], last["failed"]) == (0, 1)
    assert "unexpected" not in result.err
    assert not list(Path().rglob("*.bgx-tmp"))
    assert not Path("new/c.png").exists()
    assert bgx(*words).code == ExitCode.OK
    assert Path("new/c.png").is_file()


def test_one_picture_alone_without_a_single_thread() -> None:
    large = draw_photo((1200, 900))
    large.save("large.png")

    with no_threads():
        result = bgx("remove", "large.png", "new.png")

    assert result.code == ExitCode.OK, result.err
    with Image.open("new.png") as image:
        image.load()


# Sources, networks and settings of the test's own -------------------------------------------------


class BreakingStream(io.BytesIO):
    """A file of which only the beginning can be read."""

    def __init__(self, content: bytes, most: int, error: Exception) -> None:
        super().__init__(content)
        self._most = most
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or self.tell() + size > self._most:
            raise self._error
        return super().read(size)


@dataclass(frozen=True)
class BreakingSource:
    """A photo that breaks off after so many bytes, or cannot be opened where that is none."""

    file: Source
    most: int
    error: Exception

    def __str__(self) -> str:
        return str(self.file)

    def link(self, page: File) -> str:
        return self.file.link(page)

    def open(self) -> io.BytesIO:
        if not self.most:
            raise self.error
        return BreakingStream(Path(str(self)).read_bytes(), self.most, self.error)


class BreakingFinisher:
    """Composes every picture but the culprit's."""

    def __init__(self, recipe: Recipe, error: Exception) -> None:
        self._finisher = recipe.finisher
        self._error = error

    def finish(self, photo: Any, *arguments: Any, **options: Any) -> Any:
        if photo.size == SIZE:
            raise self._error
        return self._finisher.finish(photo, *arguments, **options)


def is_culprit(picture: NDArray[Any]) -> bool:
    """By its grey."""
    return 0.4 < float(picture[:, 12, 12].mean()) < 0.6


PLANS = pytest.mark.parametrize(
    "network_plan", [pytest.param(cpu_plan(), id="cpu"), pytest.param(gpu_plan(), id="gpu")]
)


def run(
    network: Network,
    recipe: Recipe,
    change: Callable[[Job], Job] = lambda job: job,
) -> tuple[list[dict[str, Any]], int]:
    """A batch as the command line does it; change: of each job. Rows and exit code."""
    plan = plan_batch(["in"], open_folder("out"), suffix=".png", existing="skip")
    rows = io.StringIO()
    report = Report("fake", stream=rows)
    for skipped in plan.skipped:
        report.add(skipped)
    engine = make_engine(network, workers=2)
    ended = None
    try:
        for outcome in run_batch([list(map(change, plan.jobs))], recipe, engine):
            report.add(outcome)
    except BgxError as error:
        ended = error
    engine.close()
    report.close()
    code = ended.exit_code if ended else report.exit_code
    return [json.loads(row) for row in rows.getvalue().splitlines()], code


def check_twice(
    expected: Expected,
    network: Network,
    recipe: Recipe | None = None,
    change: Callable[[Job], Job] = lambda job: job,
) -> None:
    """A batch with an error, and the same one without it."""
    rows, code = run(network, recipe or make_recipe(), change)
    check(rows, code, expected)
    second, code = run(FakeNetwork(network.plan), make_recipe())
    check_second(second, code, rows)


@PLANS
@pytest.mark.parametrize("most", [0, 8, 40, 100])
def test_a_source_that_breaks_off(most: int, error: Exception, network_plan: EnginePlan) -> None:
    def change(job: Job) -> Job:
        is_meant = posix(str(job.source)) == CULPRIT
        return job._replace(source=BreakingSource(job.source, most, error)) if is_meant else job

    check_twice(unreadable(error), FakeNetwork(network_plan), change=change)


@PLANS
def test_a_network_that_fails(error: Exception, network_plan: EnginePlan) -> None:
    code = "too-large" if isinstance(error, MemoryError) else "inference"
    network = CrashingNetwork(network_plan, refuse=is_culprit, error=error)

    check_twice(Expected(ExitCode.PICTURES, "failed", code), network)


@PLANS
def test_composing(error: Exception, network_plan: EnginePlan) -> None:
    code = "too-large" if isinstance(error, MemoryError) else "inference"
    recipe = make_recipe()
    recipe.finisher = BreakingFinisher(recipe, error)  # type: ignore[assignment]

    check_twice(Expected(ExitCode.PICTURES, "failed", code), FakeNetwork(network_plan), recipe)


@PLANS
def test_an_engine_without_a_single_thread(network_plan: EnginePlan) -> None:
    with no_threads():
        check_twice(Expected(ExitCode.OK), FakeNetwork(network_plan))
