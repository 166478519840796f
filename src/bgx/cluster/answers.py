"""What a worker's process tells the producers: what was done, and that it is at work."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from bgx.cluster.broker import open_connection, reply_queue, troubles

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

log = logging.getLogger(__name__)

BEAT_S = 5.0
"""So often a process says that it is at work on a task, seconds."""

_FLUSH_S = 20.0
"""When the process ends, it tries so long to tell what it has done, seconds."""


@dataclass(eq=False, slots=True)
class Work:
    """A task that is not done. since: by the monotonic clock. parts: pictures in work, and one for
    the task itself."""

    task: str
    reply: str
    since: float = field(default_factory=time.monotonic)
    parts: int = 1


class Answers:
    """Sends them from a thread of its own, each as soon as the broker takes it.

    device: what the network runs on and in which precision, once it does.
    """

    def __init__(self, app: Celery) -> None:
        self.device: tuple[str, str] | None = None
        self._app = app
        self._worker = f"{platform.node()}-{os.getpid()}"
        self._queue: SimpleQueue[tuple[str, dict[str, Any]] | None] = SimpleQueue()
        self._works: set[Work] = set()
        self._changed = threading.Condition()
        self._end = float("inf")
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def oldest(self) -> float:
        """Since when the oldest task is in work; infinite without one."""
        with self._changed:
            return min((work.since for work in self._works), default=float("inf"))

    def begin(self, task: str, reply: str) -> Work:
        work = Work(task, reply)
        with self._changed:
            self._works.add(work)
        self.put(work)
        return work

    def hold(self, work: Work) -> None:
        """One more picture of it is in work."""
        with self._changed:
            work.parts += 1

    def end(self, work: Work) -> None:
        """One less, or the task itself."""
        with self._changed:
            work.parts -= 1
            if not work.parts:
                self._works.remove(work)
            self._changed.notify_all()

    def wait_for(self, work: Work) -> None:
        """Until none of its pictures is in work."""
        with self._changed:
            self._changed.wait_for(lambda: work.parts == 1)

    def wait_for_others(self, work: Work) -> None:
        """Until no other task is in work."""
        with self._changed:
            self._changed.wait_for(lambda: self._works == {work})

    def put(self, work: Work, **content: Any) -> None:
        """Tell of a task; without content, that it is in work."""
        self._queue.put((work.reply, self._sign(work) | content))

    def close(self) -> None:
        """Returns once everything is told, or the broker does not answer for long."""
        self._end = time.monotonic() + _FLUSH_S
        self._queue.put(None)
        self._thread.join()

    def _sign(self, work: Work) -> dict[str, Any]:
        return {"task": work.task, "worker": self._worker, "device": self.device}

    def _run(self) -> None:
        connection = open_connection(self._app)
        beat = time.monotonic() + BEAT_S
        closing = False
        while not closing:
            messages: dict[str, list[dict[str, Any]]] = defaultdict(list)
            closing = self._collect(messages, beat)
            if time.monotonic() >= beat:
                beat = time.monotonic() + BEAT_S
                with self._changed:
                    for work in self._works:
                        messages[work.reply].append(self._sign(work))
            for reply, answers in messages.items():
                self._publish(connection, reply, answers)
        connection.release()

    def _collect(self, messages: dict[str, list[dict[str, Any]]], until: float) -> bool:
        """What is to be told, by its receiver; whether there will be nothing more."""
        try:
            item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            while item is not None:
                messages[item[0]].append(item[1])
                item = self._queue.get_nowait()
        except Empty:
            return False
        return True

    def _publish(self, connection: Connection, reply: str, answers: list[dict[str, Any]]) -> None:
        """Until the broker has them, or the process has to end."""
        pause = 0.2
        while time.monotonic() < self._end:
            try:
                publish(connection, reply, answers)
            except troubles(connection) as error:
                log.info("the broker does not answer: %s", error)
                connection.collect()
                time.sleep(pause)
                pause = min(2 * pause, BEAT_S)
            else:
                return


def publish(connection: Connection, reply: str, answers: list[dict[str, Any]]) -> None:
    """Send answers to a producer. Raises as of :func:`bgx.cluster.broker.troubles`."""
    producer = connection.Producer(serializer="json")
    producer.publish(
        {"answers": answers}, exchange="", routing_key=reply, declare=[reply_queue(reply)]
    )
