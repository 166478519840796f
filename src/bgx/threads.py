"""Threads that cope with a limit on their number, and waits that Ctrl-C can interrupt."""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Queue = SimpleQueue["tuple[Future[Any], Callable[[], Any]] | None"]

log = logging.getLogger(__name__)

POLL = 0.5
"""Longest single wait, seconds: on Windows, Ctrl-C is handled only between waits."""


def wait_for(future: Future[_Result], timeout: float = math.inf) -> _Result:
    """The future's result. Raises what its task raised; TimeoutError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not wait([future], min(POLL, max(0, end - time.monotonic()))).done:
        if time.monotonic() >= end:
            raise TimeoutError
    return future.result()


def wait_for_all(futures: Iterable[Future[Any]]) -> None:
    """Wait until all are done or cancelled."""
    waiting = set(futures)
    while waiting:
        waiting = wait(waiting, POLL).not_done


@contextmanager
def holding(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock that another thread may hold for seconds."""
    while not lock.acquire(timeout=POLL):
        pass
    try:
        yield
    finally:
        lock.release()


def join_all(threads: Iterable[threading.Thread]) -> None:
    """Wait until all threads have ended, except the calling one."""
    for thread in threads:
        while thread is not threading.current_thread() and thread.is_alive():
            thread.join(POLL)


def start(thread: threading.Thread) -> bool:
    """Start a thread; if the system refuses, log a warning and return False."""
    error = _try_to_start(thread)
    if error is None:
        return True
    log.warning(
        "%s: continuing with fewer threads; raise the limit on processes or on memory",
        str(error) or "no memory for a thread",
    )
    return False


def is_refused() -> bool:
    """Whether the system refuses to start a thread now."""
    thread = threading.Thread(target=int, name="try", daemon=True)
    if _try_to_start(thread):
        return True
    thread.join()
    return False


def _try_to_start(thread: threading.Thread) -> Exception | None:
    """Start a thread; return the error if the system refuses."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        return error
    return None


def begin(task: Callable[[], _Result], name: str) -> Future[_Result]:
    """Run a task on a new daemon thread.

    If no thread can be started, the task is run on the calling thread before this returns.
    """
    future: Future[_Result] = Future()
    if not start(threading.Thread(target=_carry_out, args=(future, task), name=name, daemon=True)):
        _carry_out(future, task)
    return future


class Workers:
    """A thread pool that works with fewer threads if the system refuses to start more.

    In that case the pool of concurrent.futures raises and leaves the task in its queue. Threads are
    started as tasks need them. If not even one can be started, :meth:`submit` runs the task itself.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._tasks: _Queue = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # The threads end when the pool is closed or garbage-collected, or when Python exits.
        self._end = weakref.finalize(self, _end, self._tasks, self._threads)

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Queue a task. Cancelling its future before it starts prevents it from running."""
        future: Future[_Result] = Future()
        with self._lock:
            # Before a thread is started: it would find an empty queue and count itself as idle.
            self._tasks.put((future, task))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                self._start()
            if not self._threads:
                self._tasks.get()
                _carry_out(future, task)
        return future

    def close(self) -> None:
        """Wait until all tasks are done. No task may be submitted afterwards."""
        self._end()

    def _start(self) -> None:
        thread = threading.Thread(
            target=_work, args=(self._tasks, self._idle), name=self._name, daemon=True
        )
        if start(thread):
            self._threads.append(thread)
        else:
            self._limit = len(self._threads)


def map_at_once(
    task: Callable[[_Item], _Result], items: Sequence[_Item], threads: int, name: str
) -> list[_Result]:
    """Apply the task to the items, as many at once as there are threads; the results in order.

    Raises what the first failing task, in that order, raised.
    """
    if min(threads, len(items)) <= 1:
        return [task(item) for item in items]
    workers = Workers(min(threads, len(items)), name)
    try:
        futures = [workers.submit(partial(task, item)) for item in items]
        return [wait_for(future) for future in futures]
    finally:
        workers.close()


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
        del item  # it keeps a picture in memory


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
    join_all(threads)
