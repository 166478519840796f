"""Threads when the system refuses more, and waits that Ctrl-C interrupts, also on Windows."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

from bgx.api import Remover
from bgx.threads import Workers, begin, map_at_once, wait_for
from support.fakes import FakeNetwork, draw_photo, gpu_plan, save_photo
from support.faults import no_threads
from support.running import make_engine, make_job, make_recipe
from support.shell import bgx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

PATIENCE = 60  # seconds until a test that hangs fails


def test_as_many_tasks_as_threads_are_at_work_at_once() -> None:
    workers = Workers(3, "test")
    meeting = threading.Barrier(3)

    futures = [workers.submit(lambda: meeting.wait(PATIENCE)) for _ in range(3)]

    assert not wait(futures, PATIENCE).not_done
    assert sorted(future.result() for future in futures) == [0, 1, 2]
    workers.close()


def test_a_pool_without_threads_does_its_tasks_itself() -> None:
    workers = Workers(4, "test")

    with no_threads():
        assert [workers.submit(lambda: 7).result(0) for _ in range(3)] == [7, 7, 7]
    workers.close()


def test_items_have_their_results_in_order() -> None:
    for threads in (1, 2, 8):
        assert map_at_once(lambda item: 2 * item, [1, 2, 3], threads, "test") == [2, 4, 6]
    with no_threads():
        assert map_at_once(lambda item: 2 * item, [1, 2, 3], 2, "test") == [2, 4, 6]


def test_a_task_without_a_thread_is_done_at_once() -> None:
    with no_threads():
        assert begin(threading.current_thread, "test").result(0) is threading.current_thread()
    assert (
        begin(threading.current_thread, "test").result(PATIENCE) is not threading.current_thread()
    )


def long_waits(work: Callable[[], object]) -> set[str]:
    """Functions in which this thread waited for more than a second at once, or without a timeout.

    Windows heeds Ctrl-C between such waits, not within one.
    """
    found = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code, caller = frame.f_code, frame.f_back
        if event != "call" or not code.co_filename.endswith("threading.py"):
            return
        if code.co_qualname not in {"Thread.join", "Condition.wait"}:
            return
        timeout = frame.f_locals["timeout"]
        if timeout is None or timeout > 1:
            while caller is not None and caller.f_code.co_filename == code.co_filename:
                if caller.f_code.co_qualname == "Thread.start":
                    return  # until it runs: Python's own, and short
                caller = caller.f_back
            found.add(caller.f_code.co_qualname if caller else "?")

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def test_a_wait_without_end_is_found() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    assert long_waits(thread.join) == {"long_waits"}


def test_the_command_line_waits_in_short_steps(stocked_home: Path, tmp_path: Path) -> None:
    for number in range(4):
        save_photo(tmp_path / f"in/{number}.png")
    batch = [str(word) for word in ("batch", tmp_path / "in", "-o", tmp_path / "out")]
    remove = [str(word) for word in ("remove", tmp_path / "in/0.png", tmp_path / "one.png")]

    assert long_waits(lambda: bgx(*batch)) == set()
    assert long_waits(lambda: bgx(*remove)) == set()
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert (tmp_path / "one.png").is_file()


def test_a_wait_may_have_a_timeout() -> None:
    never: Future[int] = Future()

    with pytest.raises(TimeoutError):
        wait_for(never, 0.01)
    never.set_result(7)
    assert wait_for(never, 0) == 7


def test_the_library_waits_in_short_steps(stocked_home: Path) -> None:
    remover = Remover("u2netp")
    photos = [draw_photo() for _ in range(4)]

    assert long_waits(lambda: remover.cut(photos[0])) == set()
    assert long_waits(lambda: list(remover.cut_many(photos))) == set()
    assert long_waits(lambda: next(remover.cut_many(photos))) == set()


def test_an_engine_that_is_closed_waits_in_short_steps(tmp_path: Path) -> None:
    engine = make_engine(FakeNetwork(gpu_plan(4)))
    engine.submit(make_job(save_photo(tmp_path / "in.png")), make_recipe())

    assert long_waits(engine.close) == set()
