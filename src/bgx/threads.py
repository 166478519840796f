"""Threads, as many as the system gives, and waits that Ctrl-C interrupts on every system."""

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
"""Seconds of one wait: on Windows, Ctrl-C is not heeded within one."""


def wait_for(future: Future[_Result], timeout: float = math.inf) -> _Result:
    """The future's result; raises what its task raised, TimeoutError after `timeout` seconds."""
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
    """Wait until the threads have ended, but for the one that this is called on."""
    for thread in threads:
        while thread is not threading.current_thread() and thread.is_alive():
            thread.join(POLL)


def start(thread: threading.Thread) -> bool:
    """Whether the thread could be started; the log says so where it could not."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        log.warning(
            "%s: going on with fewer threads; raise the limit of processes or of memory",
            str(error) or "no memory for a thread",
        )
        return False
    return True


def begin(task: Callable[[], _Result], name: str) -> Future[_Result]:
    """Have a task done on a thread of its own, which ends with the process.

    It is done before this returns where no thread is to be had.
    """
    future: Future[_Result] = Future()
    if not start(threading.Thread(target=_carry_out, args=(future, task), name=name, daemon=True)):
        _carry_out(future, task)
    return future


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
        if start(thread):
            self._threads.append(thread)
        else:
            self._limit = len(self._threads)


def map_at_once(
    task: Callable[[_Item], _Result], items: Sequence[_Item], name: str
) -> list[_Result]:
    """What the task gives for each item, a thread for each; raises what the first one raised."""
    workers = Workers(len(items), name)
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
    join_all(threads)
