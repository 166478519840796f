"""A producer's connection to the broker: tasks out, answers in, and a new one when it breaks."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from bgx.cluster.broker import TASK, connect, make_app, open_connection, reply_queue, show, troubles
from bgx.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from celery import Celery
    from kombu import Connection, Consumer

log = logging.getLogger(__name__)

_PATIENCE_S = 600.0
"""Seconds without an answer of the broker after which the run ends."""

_MESSAGES = 1000
"""Messages taken in a row, at most, before the producer does its other work."""


class ProducerConnection:
    """Sends tasks and receives their answers. All methods are for one thread.

    broker: its URL. queue: name of the task queue. reply: name of the queue for answers. receive:
    called with the content of each message from it. warn: called with messages for the user.

    Raises UsageError, and BrokerError if the broker does not answer.
    """

    def __init__(
        self,
        broker: str,
        queue: str,
        reply: str,
        receive: Callable[[object], None],
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._app: Celery = make_app(broker, [queue])
        self.url = show(broker)
        [self._queue] = self._app.conf.task_queues
        self._reply = reply_queue(reply)
        self._receive = receive
        self._warn = warn
        self._connection: Connection = connect(self._app)
        self._consumer: Consumer | None = None
        self._answered = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the broker last did what it was asked."""
        return time.monotonic() - self._answered

    @contextmanager
    def reconnecting(self) -> Iterator[None]:
        """Use the broker within the block. If it fails there, wait a moment and reconnect later.

        Raises BrokerError once the broker has not answered for ten minutes.
        """
        try:
            yield
            self._answered = time.monotonic()
        except troubles(self._connection) as error:
            self._disconnect(error)

    def receive(self, timeout: float) -> None:
        """Take the messages that have come; wait up to `timeout` seconds for the first."""
        if self._consumer is None:
            self._consumer = self._subscribe()
        with suppress(socket.timeout, TimeoutError):
            for _ in range(_MESSAGES):
                self._connection.drain_events(timeout=timeout)
                timeout = 0.001

    def send(self, task_id: str, message: dict[str, Any], summary: str) -> None:
        """Put a task into the queue. summary: its arguments as monitoring programs show them."""
        self._app.send_task(
            TASK,
            args=[message],
            task_id=task_id,
            argsrepr=summary,  # Celery's own would be the whole message
            queue=self._queue,
            producer=self._app.amqp.Producer(self._connection, auto_declare=False),
            retry=False,
        )

    def take_back(self, task_ids: Container[str]) -> set[str]:
        """Remove these tasks from the queue; returns the ids of those that were still in it."""
        taken: set[str] = set()
        others = []
        with self._connection.channel() as channel:
            queue = self._queue(channel)
            for _ in range(queue.queue_declare().message_count):
                message = queue.get(no_ack=False)
                if message is None:
                    break
                task_id = str(message.headers.get("id"))
                if task_id in task_ids:
                    taken.add(task_id)
                    message.ack()
                else:
                    others.append(message)
            for message in others:
                message.requeue()
        return taken

    def close(self) -> None:
        """Delete the queue for answers, which has no reader any more, and disconnect."""
        if self._consumer is not None:
            with suppress(Exception):
                self._consumer.cancel()
                self._reply(self._connection.default_channel).delete()
        self._connection.release()

    def _subscribe(self) -> Consumer:
        consumer = self._connection.Consumer(
            [self._reply],
            no_ack=True,
            accept=["json"],
            callbacks=[lambda content, _: self._receive(content)],
        )
        consumer.consume()
        return consumer

    def _disconnect(self, error: Exception) -> None:
        silent = self.silence
        log.debug("broker: %r", error)
        self._warn(f"{self.url}: the broker does not answer; trying again")
        if silent > _PATIENCE_S:
            raise BrokerError(
                f"{self.url}: the broker has not answered for {silent:.0f} s; when it does, run "
                "the same command again"
            ) from None
        self._connection.collect()
        self._connection, self._consumer = open_connection(self._app), None
        time.sleep(min(5.0, 0.5 + silent / 4))
