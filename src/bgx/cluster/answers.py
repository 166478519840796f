"""Answers: what a worker's process sends to producers. Outcomes, refusals and heartbeats."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from bgx.cluster.broker import open_connection, reply_queue, troubles

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats of a task that a process works on."""

_FLUSH_S = 20.0
"""Longest time that an ending process tries to send its last answers, seconds."""


@dataclass(eq=False, slots=True)
class RunningTask:
    """A task that the process works on.

    id: Celery's. reply: name of the producer's queue for answers. started: seconds of the monotonic
    clock. references: of its unfinished pictures, and one of the task itself while its pictures are
    handed to the engine; at 0 the task is finished.
    """

    id: str
    reply: str
    started: float = field(default_factory=time.monotonic)
    references: int = 1


class Answers:
    """Sends answers on a thread of its own, at once and again until the broker takes them.

    device: device and precision of the process's network; None until it is loaded. Thread-safe.
    """

    def __init__(self, app: Celery) -> None:
        self.device: tuple[str, str] | None = None
        self._app = app
        self._worker = f"{platform.node()}-{os.getpid()}"
        self._queue: SimpleQueue[tuple[str, dict[str, Any]] | None] = SimpleQueue()
        self._tasks: set[RunningTask] = set()
        self._changed = threading.Condition()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def oldest_start(self) -> float:
        """When the oldest running task was started, seconds of the monotonic clock; infinite if
        none is running."""
        with self._changed:
            return min((task.started for task in self._tasks), default=float("inf"))

    def start_task(self, task_id: str, reply: str) -> RunningTask:
        """Tell the producer that a task is started, and send heartbeats until it is finished."""
        task = RunningTask(task_id, reply)
        with self._changed:
            self._tasks.add(task)
        self.send(task)
        return task

    def retain(self, task: RunningTask) -> None:
        """Add a reference to a task: one more of its pictures is in work."""
        with self._changed:
            task.references += 1

    def release(self, task: RunningTask) -> None:
        """Give up a reference; without any, the task is finished."""
        with self._changed:
            task.references -= 1
            if not task.references:
                self._tasks.remove(task)
            self._changed.notify_all()

    def wait_for_pictures(self, task: RunningTask) -> None:
        """Wait until no picture of the task is in work."""
        with self._changed:
            self._changed.wait_for(lambda: task.references == 1)

    def wait_for_others(self, task: RunningTask) -> None:
        """Wait until all other tasks are finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks == {task})

    def send(self, task: RunningTask, **content: Any) -> None:
        """Send an answer about a task; without content it is a heartbeat."""
        self._queue.put((task.reply, self._sign(task) | content))

    def close(self) -> None:
        """Wait until all answers are sent; give up if the broker does not answer in time."""
        self._deadline = time.monotonic() + _FLUSH_S
        self._queue.put(None)
        self._thread.join()

    def _sign(self, task: RunningTask) -> dict[str, Any]:
        return {"task": task.id, "worker": self._worker, "device": self.device}

    def _run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody would answer any more
            end_process(f"cannot send its answers: unexpected {error!r}")

    def _send_all(self) -> None:
        connection = open_connection(self._app)
        heartbeat = time.monotonic() + HEARTBEAT_S
        closing = False
        while not closing:
            messages: dict[str, list[dict[str, Any]]] = defaultdict(list)
            closing = self._collect(messages, heartbeat)
            if time.monotonic() >= heartbeat:
                heartbeat = time.monotonic() + HEARTBEAT_S
                with self._changed:
                    for task in self._tasks:
                        messages[task.reply].append(self._sign(task))
            for reply, answers in messages.items():
                self._publish(connection, reply, answers)
        connection.release()

    def _collect(self, messages: dict[str, list[dict[str, Any]]], until: float) -> bool:
        """Wait for answers until a time of the monotonic clock; add all that are there to messages.

        messages: answers by reply queue. Returns whether these are the last ones.
        """
        try:
            item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            while item is not None:
                messages[item[0]].append(item[1])
                item = self._queue.get_nowait()
        except Empty:
            return False
        return True

    def _publish(self, connection: Connection, reply: str, answers: list[dict[str, Any]]) -> None:
        """Try again until the broker takes the answers, or the process has to end."""
        pause = 0.2
        while time.monotonic() < self._deadline:
            try:
                publish(connection, reply, answers)
            except troubles(connection) as error:
                log.info("the broker does not answer: %s", error)
                connection.collect()
                time.sleep(pause)
                pause = min(2 * pause, HEARTBEAT_S)
            else:
                return


def end_process(reason: str) -> NoReturn:
    """Kill this process; its parent tells the producers of its tasks, and starts another."""
    log.error("process %d %s: it is ended", os.getpid(), reason)
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


def publish(connection: Connection, reply: str, answers: list[dict[str, Any]]) -> None:
    """Send answers to a producer's queue. Raises the errors that :func:`troubles` lists."""
    producer = connection.Producer(serializer="json")
    producer.publish(
        {"answers": answers}, exchange="", routing_key=reply, declare=[reply_queue(reply)]
    )
