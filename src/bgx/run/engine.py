"""The engine: owns the network and the worker threads, and limits how many pictures are in work."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from bgx.machine import count_cores
from bgx.run.memory import Memory, plan_memory
from bgx.run.picture import process
from bgx.threads import POLL, Workers, holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from bgx.run.gather import Gatherer
    from bgx.run.outcome import Job, Outcome
    from bgx.run.picture import Network
    from bgx.run.recipe import Recipe

    Load = Callable[[bool], Network]

_AHEAD = 2
"""Pictures that are queued, so that no worker has to wait for one."""

_WAITING = 2
"""Pictures that may wait for an object store, per picture in work."""


class Engine:
    """Cuts out pictures for any number of threads at once.

    Pictures in work are limited in number (one per worker, and a few that are queued) and in
    memory. On a CPU a worker does every step of its picture, so that pixels stay in its cache; on a
    GPU pictures are gathered into batches between reading and composing.

    A single picture runs on all cores. As soon as a second one comes, further pictures share a
    session that runs one picture per core.

    load: opens the network when it is first needed; its argument is True for the session that runs
    a single picture on all cores. workers: pictures in work at once (with a GPU: pictures that are
    read or composed at once); None chooses to suit the network. memory: bytes that pictures in work
    may take; None is what the machine has. remote: pictures are in an object store; more are taken
    on, because some always wait for it. both: keep both sessions, for a caller whose pictures come
    sometimes alone and sometimes not; otherwise the first one is freed when the other is needed.
    """

    def __init__(
        self,
        load: Load,
        *,
        workers: int | None = None,
        memory: int | None = None,
        remote: bool = False,
        both: bool = False,
    ) -> None:
        self._load = load
        self._both = both
        self._workers = workers
        self._remote = remote
        self._size = memory
        self._memory: Memory | None = None
        self._alone: _Crew | None = None
        self._shared: _Crew | None = None
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Number of pictures that are queued or in work."""
        return self._admitted

    def places(self) -> int:
        """Number of pictures that can be queued or in work at once. Loads the network."""
        return self._share().places

    def submit(self, job: Job, recipe: Recipe, *, alone: bool = False) -> Future[Outcome]:
        """Queue a picture; wait for a free place if there is none.

        alone: the caller has only this picture; it runs on all cores if no other is in work. Raises
        ModelError or DeviceError if the network cannot be loaded.
        """
        crew = self._go_alone() if alone and not self._admitted else self._share()
        with self._changed:
            while self._admitted >= crew.places:
                self._changed.wait(POLL)
            self._admitted += 1
        try:
            future = crew.submit(job, recipe)
        except BaseException:
            self._release()
            raise
        future.add_done_callback(lambda _: self._release())
        return future

    def withdraw(self, futures: Iterable[Future[Outcome]]) -> None:
        """Cancel those of these pictures that are not in work yet."""
        for future in futures:
            future.cancel()

    def close(self) -> None:
        """Finish all submitted pictures and end the threads; nothing may be submitted after it."""
        for crew in (self._alone, self._shared):
            if crew:
                crew.close()

    def _release(self) -> None:
        with self._changed:
            self._admitted -= 1
            self._changed.notify()

    def _go_alone(self) -> _Crew:
        """The crew for a single picture; unless both are kept, the shared one if that is open."""
        with holding(self._loading):
            if self._alone is None and not self._both:
                self._alone = self._shared
            self._alone = self._alone or self._open(alone=True)
            return self._alone

    def _share(self) -> _Crew:
        with holding(self._loading):
            self._shared = self._shared or self._open(alone=False)
            if not self._both:
                # The other session is freed when its picture is finished.
                self._alone = self._shared
            return self._shared

    def _open(self, *, alone: bool) -> _Crew:
        network = self._load(alone)
        if self._memory is None:
            most = self._workers or count_cores()
            self._memory = Memory(self._size or plan_memory(most, network.entry.largest))
        return _Crew(network, self._workers, self._memory, alone=alone, remote=self._remote)


class _Crew:
    """The worker threads of one session."""

    def __init__(
        self,
        network: Network,
        workers: int | None,
        memory: Memory,
        *,
        alone: bool,
        remote: bool,
    ) -> None:
        self._network = network
        self._memory = memory
        count = 1 if alone else network.plan.count_workers(workers, count_cores())
        self._gatherer: Gatherer | None = None
        self._cores: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        threads = count + (_WAITING * count if remote else 0)
        if not alone and network.plan.batch_size > 1:
            # Only a GPU needs it.
            from bgx.run.gather import Gatherer

            self._gatherer = Gatherer(network)
            threads += 2 * network.plan.batch_size
        if threads > count:
            # A picture that waits for the network or for storage occupies a thread but no core.
            self._cores = threading.BoundedSemaphore(count)
        self._workers = Workers(threads, "picture")
        self.places = threads + _AHEAD

    def submit(self, job: Job, recipe: Recipe) -> Future[Outcome]:
        if self._gatherer is None:
            return self._workers.submit(lambda: self._process(job, recipe, self._network))
        expected = self._gatherer.expect(self._cores)

        def work() -> Outcome:
            with expected:
                return self._process(job, recipe, expected)

        future = self._workers.submit(work)
        # If it is cancelled before it begins, no batch may wait for it.
        future.add_done_callback(lambda _: expected.__exit__())
        return future

    def close(self) -> None:
        self._workers.close()
        if self._gatherer:
            self._gatherer.close()

    def _process(self, job: Job, recipe: Recipe, network: Network) -> Outcome:
        return process(job, recipe, network, self._memory, self._cores)
