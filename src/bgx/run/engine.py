"""What owns the network, the threads and the admission: pictures in, futures of outcomes out."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from bgx.machine import count_cores
from bgx.run.memory import Memory, plan_memory
from bgx.run.picture import process
from bgx.threads import POLL, Workers, holding

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from bgx.run.gather import Gatherer
    from bgx.run.outcome import Job, Outcome
    from bgx.run.picture import Network
    from bgx.run.recipe import Recipe

    Load = Callable[[bool], Network]

_AHEAD = 2
"""Pictures that wait for a worker, so that none has to wait for a picture."""

_WAITING = 2
"""For each picture in work, so many more that wait for an object store."""


class Full(Exception):  # noqa: N818 - not an error: the caller asked not to wait
    """There is no place for another picture now."""


class Engine:
    """Cuts out pictures for any number of threads at once.

    Pictures in work are limited in number (one a worker, and a few that wait) and in memory. On a
    CPU a worker takes its picture all the way, so that pixels stay in its cache; on a GPU pictures
    are gathered into batches between reading and composing.

    One picture alone runs on all cores; once two have met, all pictures share a network that runs
    one on each core.

    load: opens the network, when it is first needed; its argument is whether one picture is to run
    alone. workers: pictures in work at once (beside a GPU: pictures read or composed at once), None
    as suits the network. memory: bytes that pictures in work may take, None as the machine has.
    remote: pictures come from an object store or go to one; while some wait for it, others are in
    work.
    """

    def __init__(
        self,
        load: Load,
        *,
        workers: int | None = None,
        memory: int | None = None,
        remote: bool = False,
    ) -> None:
        self._load = load
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
        """Pictures that wait for a worker or are in work."""
        return self._admitted

    def places(self) -> int:
        """Pictures that are admitted at once; loads the network."""
        return self._share().places

    def submit(
        self, job: Job, recipe: Recipe, *, wait: bool = True, alone: bool = False
    ) -> Future[Outcome]:
        """Have a picture cut out.

        wait: for a place; if False, raises Full where there is none. alone: the caller has no
        other picture; it runs on all cores if nothing else is in work. Raises ModelError and
        DeviceError where the network cannot be loaded.
        """
        crew = self._go_alone() if alone and not self._admitted else self._share()
        with self._changed:
            while self._admitted >= crew.places:
                if not wait:
                    raise Full
                self._changed.wait(POLL)
            self._admitted += 1
        try:
            future = crew.submit(job, recipe)
        except BaseException:
            self._release()
            raise
        future.add_done_callback(lambda _: self._release())
        return future

    def close(self) -> None:
        """Finish what was submitted, then end the threads. No picture may be submitted after it."""
        for crew in (self._alone, self._shared):
            if crew:
                crew.close()

    def _release(self) -> None:
        with self._changed:
            self._admitted -= 1
            self._changed.notify()

    def _go_alone(self) -> _Crew:
        """The crew for one picture alone, unless pictures have met already."""
        with holding(self._loading):
            self._alone = self._alone or self._shared or self._open(alone=True)
            return self._alone

    def _share(self) -> _Crew:
        with holding(self._loading):
            self._shared = self._shared or self._open(alone=False)
            # The other network's memory is given back when its picture is finished.
            self._alone = self._shared
            return self._shared

    def _open(self, *, alone: bool) -> _Crew:
        network = self._load(alone)
        if self._memory is None:
            most = self._workers or count_cores()
            self._memory = Memory(self._size or plan_memory(most, network.entry.input))
        return _Crew(network, self._workers, self._memory, alone=alone, remote=self._remote)


class _Crew:
    """Workers around one network."""

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
            # A picture that waits for the network or for storage has a thread, but no core.
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
        # Where it is cancelled before it begins, no batch waits for it.
        future.add_done_callback(lambda _: expected.__exit__())
        return future

    def close(self) -> None:
        self._workers.close()
        if self._gatherer:
            self._gatherer.close()

    def _process(self, job: Job, recipe: Recipe, network: Network) -> Outcome:
        return process(job, recipe, network, self._memory, self._cores)
