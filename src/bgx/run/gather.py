"""Collects pictures of several threads into batches for a GPU (dynamic batching)."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bgx.run.outcome import ends_run
from bgx.threads import join_all, start, wait_for

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Self

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan
    from bgx.model.registry import ModelEntry
    from bgx.run.picture import Network

log = logging.getLogger(__name__)

_PATIENCE = 0.01
"""Seconds that an incomplete batch waits for pictures that are still being read."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A picture for the network. tensor: (1, 3, height, width). answer: the network's output."""

    tensor: NDArray[np.float32]
    answer: Future[NDArray[np.float32]] = field(default_factory=Future)


class _Queue:
    """Requests for the network. expected: announced pictures that are still being read."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.requests: deque[_Request] = deque()
        self.expected = 0
        self.closed = False


class Gatherer:
    """Runs pictures of several threads as one batch.

    A batch is run when it is full, when no further picture is announced, or when it has waited for
    one for ``patience`` seconds. If no thread for this can be started, each picture is run alone on
    its own thread.
    """

    def __init__(self, network: Network, *, patience: float = _PATIENCE) -> None:
        self._network = network
        self._queue = _Queue()
        self._threads: list[threading.Thread] = []
        for _ in range(network.plan.runs):
            thread = threading.Thread(
                target=_serve, args=(self._queue, network, patience), name="gather", daemon=True
            )
            if not start(thread):
                break
            self._threads.append(thread)
        self._end = weakref.finalize(self, _end, self._queue, self._threads)

    def expect(self, slots: AbstractContextManager[object]) -> Expected:
        """Announce a picture that is being read.

        slots: a slot for work on the CPU that the calling thread holds; it is released while the
        picture waits for the network.
        """
        queue = self._queue if self._threads else None
        return Expected(self._network, queue, slots)

    def close(self) -> None:
        """End the threads. No picture may be announced or waiting."""
        self._end()


class Expected:
    """The network for one announced picture: batches wait for it until it is run or withdrawn."""

    def __init__(
        self, network: Network, queue: _Queue | None, slots: AbstractContextManager[object]
    ) -> None:
        self._network = network
        self._queue = queue
        self._slots = slots
        self._expected = queue is not None
        if queue is not None:
            with queue.changed:
                queue.expected += 1

    @property
    def entry(self) -> ModelEntry:
        """The network's registry entry."""
        return self._network.entry

    @property
    def plan(self) -> EnginePlan:
        """How the network is run."""
        return self._network.plan

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Like :meth:`Network.run`, for this one picture. It may be called again."""
        if self._queue is None:
            return self._network.run(batch)
        request = _Request(batch)
        with self._queue.changed:
            self._queue.requests.append(request)
            self._arrive()
            # Also if it is run again: then :meth:`_arrive` does nothing.
            self._queue.changed.notify_all()
        self._slots.__exit__(None, None, None)
        try:
            return wait_for(request.answer)
        finally:
            self._slots.__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Withdraw the announcement if the picture has not been run."""
        if self._queue is not None:
            with self._queue.changed:
                self._arrive()

    def _arrive(self) -> None:
        if self._queue is not None and self._expected:
            self._expected = False
            self._queue.expected -= 1
            self._queue.changed.notify_all()


def _serve(queue: _Queue, network: Network, patience: float) -> None:
    """Run batches until the queue is closed."""
    size = network.plan.batch_size
    while True:
        with queue.changed:
            queue.changed.wait_for(lambda: queue.requests or queue.closed)
            queue.changed.wait_for(
                lambda: len(queue.requests) >= size or not queue.expected, patience
            )
            count = min(size, len(queue.requests))
            requests = [queue.requests.popleft() for _ in range(count)]
            if not requests and queue.closed:
                return
        if requests:
            _answer(requests, network)


def _answer(requests: list[_Request], network: Network) -> None:
    """Run a batch; if it fails, run its pictures one by one."""
    try:
        tensors = [request.tensor for request in requests]
        values = network.run(np.concatenate(tensors) if len(tensors) > 1 else tensors[0])
    except Exception as error:  # noqa: BLE001 - raised on the picture's own thread
        if len(requests) == 1 or ends_run(error):
            for request in requests:
                request.answer.set_exception(error)
            return
        log.info("batch of %d failed (%r); trying its pictures one by one", len(requests), error)
        for request in requests:
            _answer([request], network)
        return
    for number, request in enumerate(requests):
        request.answer.set_result(values[number : number + 1])


def _end(queue: _Queue, threads: list[threading.Thread]) -> None:
    with queue.changed:
        queue.closed = True
        queue.changed.notify_all()
    join_all(threads)
