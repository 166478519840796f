"""Threads for pictures: as many as are asked for, or as the system gives."""

from __future__ import annotations

import logging
import threading
import weakref
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")
_Queue = SimpleQueue["tuple[Future[Any], Callable[[], Any]] | None"]

log = logging.getLogger(__name__)


class Workers:
    """A thread pool that does with fewer threads where the system refuses more.

    concurrent.futures' own pool fails then, with the task left in its queue. Threads are started
    when tasks wait for one. Without a single thread, :meth:`submit` does the task itself.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._tasks: _Queue = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # Threads end with the pool: when it is closed, forgotten, or Python ends.
        self._end = weakref.finalize(self, _end, self._tasks, self._threads)

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Have a task done; a cancelled future's task is not begun."""
        future: Future[_Result] = Future()
        with self._lock:
            # First, or a thread that starts would find nothing to do and count as idle.
            self._tasks.put((future, task))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                self._start()
            if not self._threads:
                self._tasks.get()
                _carry_out(future, task)
        return future

    def close(self) -> None:
        """Wait until all tasks are done; none may be submitted afterwards."""
        self._end()

    def _start(self) -> None:
        thread = threading.Thread(
            target=_work, args=(self._tasks, self._idle), name=self._name, daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._limit = len(self._threads)
            log.warning(
                "%s: %d of the threads wanted are running; going on with them (raise the limit of "
                "processes, or lower --workers)",
                str(error) or "no memory for a thread",
                len(self._threads),
            )
        else:
            self._threads.append(thread)


def _work(tasks: _Queue, idle: threading.Semaphore) -> None:
    while True:
        try:
            item = tasks.get_nowait()
        except Empty:
            idle.release()
            item = tasks.get()
        if item is None:
            return
        _carry_out(*item)
        del item  # the task holds a picture


def _carry_out(future: Future[Any], task: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task()
    except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(error)
    else:
        future.set_result(result)


def _end(tasks: _Queue, threads: list[threading.Thread]) -> None:
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()
