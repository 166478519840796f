"""A run that is killed or interrupted, and the same command again.

How far a run is shows in its report: a picture's row is on the disk as soon as it is finished. One
picture takes seconds, so that no run is over before it is met.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bgx.errors import ExitCode
from support.fakes import save_photo
from support.shell import PATIENCE, bgx, command, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PHOTOS = 40
SLOW = "2/99"
REPORT = Path("report.jsonl")

ENDING = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _photos(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small photos, and one at the end that --png-level small works on for seconds."""
    monkeypatch.chdir(tmp_path)
    for number in range(PHOTOS - 1):
        save_photo(Path(f"in/{number % 3}/{number:02}.png"), size=(350, 250))
    save_noise(Path(f"in/{SLOW}.png"))


def save_noise(path: Path) -> None:
    Image.effect_noise((3000, 2000), 90).convert("RGB").save(path, compress_level=0)


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts batches, and ends those that still run."""
    started = []

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = command("batch", "in", "-o", "out", "--report", REPORT, *options)
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return as soon as it holds; fail if the process ends before."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the run was over before it could be met"
        assert time.monotonic() < end
        time.sleep(0.005)


def finished() -> int:
    """Rows of the report on the disk."""
    return REPORT.read_bytes().count(b"\n") if REPORT.exists() else 0


def outputs() -> dict[str, int]:
    """Every file below the output folder with the time it was written."""
    return {
        path.as_posix(): path.stat().st_mtime_ns
        for path in Path("out").rglob("*")
        if path.is_file()
    }


def assert_all_done() -> None:
    """Every photo has its cut-out, whole, and nothing else is there."""
    assert set(outputs()) == {f"out/{path.relative_to('in').as_posix()}" for path in sources()}
    for path in sources():
        with Image.open(path) as photo, Image.open(Path("out") / path.relative_to("in")) as image:
            image.load()
            assert (image.mode, image.size) == ("RGBA", photo.size)


def sources() -> list[Path]:
    return sorted(Path("in").rglob("*.png"))


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_killed_run_is_finished_by_the_same_command(
    run: Callable[..., subprocess.Popen[str]], after: int
) -> None:
    process = run("--png-level", "small")
    wait_until(lambda: finished() >= after, process)
    process.kill()
    process.wait()
    before = {path: written for path, written in outputs().items() if not path.endswith(".bgx-tmp")}
    assert 1 <= len(before) < PHOTOS
    for path in before:
        with Image.open(path) as image:
            image.load()

    again = bgx("batch", "in", "-o", "out", "--report", REPORT)

    assert again.code == 0
    assert_all_done()
    after_it = outputs()
    assert {path: after_it[path] for path in before} == before
    *rows, last = read_rows(REPORT)
    assert len(rows) == PHOTOS
    assert (last["done"], last["skipped"]) == (PHOTOS - len(before), len(before))


def test_files_that_a_killed_run_left_are_cleared_away() -> None:
    """It is killed when a file is written and not yet in its place."""
    killed = (
        "import os, pathlib, sys; from bgx.cli.main import run;"
        "pathlib.Path.hardlink_to = lambda *_: os.kill(os.getpid(), 9);"
        "run(sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-c", killed, "batch", "in", "-o", "out"], timeout=PATIENCE)
    [*left] = outputs()
    assert left
    assert all(path.endswith(".bgx-tmp") for path in left)

    assert bgx("batch", "in", "-o", "out").code == 0
    assert_all_done()


def interrupt(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal; what the process says until it ends."""
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    return err


@posix
@pytest.mark.parametrize("number", ENDING)
def test_an_interrupted_run_finishes_what_is_in_work_and_reports(
    run: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    process = run("--png-level", "small")
    wait_until(lambda: finished() >= 2, process)

    err = interrupt(process, number)

    assert process.returncode == ExitCode.INTERRUPTED
    assert "bgx: interrupted: finishing what is in work; press Ctrl-C again" in err
    assert "Traceback" not in err
    *rows, last = read_rows(REPORT)
    assert len(rows) == len({row["source"] for row in rows}) == PHOTOS
    done = {row["target"] for row in rows if row["status"] == "done"}
    assert set(outputs()) == done
    assert 2 <= len(done) < PHOTOS
    assert {row.get("reason") for row in rows if row["status"] == "skipped"} == {"interrupted"}
    assert last["unfinished"] == PHOTOS - len(done)
    assert f"bgx: {len(done)} done, {PHOTOS - len(done)} not finished in " in err

    assert bgx("batch", "in", "-o", "out").code == 0
    assert_all_done()


@posix
@pytest.mark.parametrize("number", ENDING)
def test_a_run_that_ends_before_its_first_picture_reports_too(
    run: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """While it waits for a network from a server that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        monkeypatch.setenv("BGX_HOME", str(tmp_path / "empty"))
        monkeypatch.setenv("BGX_MODEL_MIRROR", f"http://127.0.0.1:{server.getsockname()[1]}")
        process = run("--model", "u2netp")
        connection, _ = server.accept()
        with connection:
            err = interrupt(process, number)

    assert process.returncode == ExitCode.INTERRUPTED
    assert err.endswith("bgx: interrupted\n")
    *rows, last = read_rows(REPORT)
    assert [row["reason"] for row in rows] == ["interrupted"] * PHOTOS
    assert last["unfinished"] == PHOTOS


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, ENDING[2]])
def test_a_signal_that_is_ignored_stays_ignored(
    run: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    """SIGHUP after nohup, Ctrl-C in a script's background."""
    signal.signal(number, signal.SIG_IGN)
    process = run("--png-level", "small")
    wait_until(lambda: finished() >= 2, process)

    interrupt(process, number)

    assert process.returncode == 0
    assert_all_done()


@posix
def test_a_second_ctrl_c_ends_it_at_once(run: Callable[..., subprocess.Popen[str]]) -> None:
    """Nobody waits for the slow picture, and nothing of it is kept."""
    save_noise(Path("in/0/01.png"))
    process = run("--png-level", "small", "--workers", "1")
    wait_until(lambda: finished() == 1, process)

    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "finishing what is in work" in process.stderr.readline()
    err = interrupt(process, signal.SIGINT)

    assert (process.returncode, err) == (ExitCode.INTERRUPTED, "")
    assert not {"in/0/01.png", f"in/{SLOW}.png"} & {row["source"] for row in read_rows(REPORT)}
    assert "out/0/01.png" not in outputs()


@posix
def test_a_terminal_that_is_closed_ends_the_run_as_ctrl_c_does() -> None:
    """Its progress bar has nowhere to go, and the signal comes again: the shell sends it, too."""
    terminal, line = os.openpty()
    start = (
        "import fcntl, os, signal, sys, termios; os.setsid();"
        "fcntl.ioctl(2, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    arguments = command("batch", "in", "-o", "out", "--report", REPORT, "--png-level", "small")
    process = subprocess.Popen([sys.executable, "-c", start, *arguments], stderr=line, text=True)
    os.close(line)
    wait_until(lambda: finished() >= 2, process)

    os.close(terminal)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGHUP)

    assert process.wait(PATIENCE) == ExitCode.INTERRUPTED
    *rows, last = read_rows(REPORT)
    assert len(rows) == len({row["source"] for row in rows}) == PHOTOS
    assert {row["target"] for row in rows if row["status"] == "done"} == set(outputs())
    assert 2 <= last["done"] < PHOTOS


@posix
def test_a_signal_may_come_at_any_line_of_the_handling_of_another() -> None:
    script = """
import signal, sys
from bgx.cli.interrupt import interruptible

def at_line(number):
    lines = 0
    def trace(*_):
        nonlocal lines
        lines += 1
        if lines == number:
            signal.raise_signal(signal.SIGHUP)
        return trace
    return trace

for number in range(1, 50):
    with interruptible(lambda _: None) as interruption:
        sys.settrace(at_line(number))
        signal.raise_signal(signal.SIGHUP)
        sys.settrace(None)
    assert interruption.stopped()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)


@posix
def test_ctrl_c_while_the_rows_of_earlier_results_are_written_loses_none() -> None:
    """They are more than the pipe takes before anybody reads."""
    for number in range(150):
        below = f"{'x' * 200}/{'y' * 200}/{number:03}.png"
        save_photo(Path("many") / below, size=(2, 2))
        if number:
            save_photo(Path("out") / below, size=(2, 2))
    os.mkfifo("rows")
    process = subprocess.Popen(
        command("batch", "many", "-o", "out", "--report", "rows"), stderr=subprocess.PIPE, text=True
    )
    with open("rows", encoding="utf-8") as reader:
        first = reader.readline()
        process.send_signal(signal.SIGINT)
        *rows, last = [json.loads(line) for line in [first, *reader]]
    _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == ExitCode.INTERRUPTED, err
    assert len({row["source"] for row in rows}) == len(rows) == 150
    assert (last["skipped"], last["unfinished"]) == (149, 1)


@posix
def test_ctrl_c_while_nobody_reads_the_report(run: Callable[..., subprocess.Popen[str]]) -> None:
    os.mkfifo(REPORT)
    process = run()
    wait_until(lambda: Path("out").is_dir(), process)

    assert interrupt(process, signal.SIGINT).strip() == "bgx: interrupted"
    assert process.returncode == ExitCode.INTERRUPTED


def test_ctrl_c_while_bgx_is_being_loaded_is_an_interruption_too() -> None:
    script = """
import sys
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "bgx.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from bgx.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "bgx: interrupted\n")
