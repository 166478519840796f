"""Work through items in overlapping stages.

A stage is an operation and its number of workers. Items are admitted one by one, only when the
caller pulls, and never more than a count and a weight (pixels) allow; that one bound at the
entrance is what keeps every queue behind it short. One thread, the caller's, moves items from
stage to stage; there are no sentinels and nothing that could wait for itself.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Stage:
    """operate: takes up to ``batch`` values and returns as many, in order. A value that is an
    exception leaves the flow there and then; an exception it raises ends the run."""

    name: str
    operate: Callable[[list[Any]], list[Any]]
    workers: int
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """items: at most so many in work. weight: at most so much in sum, but always one item."""

    items: int
    weight: int


@dataclass(slots=True)
class Occupancy:
    """How full a stage is, summed over seconds. busy: workers at work. queued: batches and values
    that wait for one."""

    workers: int
    seconds: float = 0.0
    busy: float = 0.0
    queued: float = 0.0

    def add(self, seconds: float, started: int, waiting: int) -> None:
        """started: batches handed to the stage's pool. waiting: values not yet handed to it."""
        self.seconds += seconds
        self.busy += seconds * min(started, self.workers)
        self.queued += seconds * (max(0, started - self.workers) + waiting)


@dataclass(slots=True)
class _Item:
    index: int
    weight: int
    value: Any


def run_stages(
    values: Iterable[Any],
    stages: Sequence[Stage],
    bound: Bound,
    *,
    weigh: Callable[[Any], int] = lambda _: 0,
    stop: threading.Event | None = None,
    in_order: bool = False,
    meter: dict[str, Occupancy] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the value, what the last stage made of it or the exception it ended as).

    As they are finished, or in the order of the values; the bound counts what is finished but not
    yet yielded too. When ``stop`` is set, or a stage raises, nothing more is started; what is in
    work is finished and yielded, then the exception is raised. Values that were not started are
    not yielded. ``meter`` receives each stage's occupancy.
    """
    flow = _Flow(values, stages, bound, weigh, stop, meter)
    try:
        yield from flow.in_order() if in_order else flow.as_finished()
    finally:
        flow.close()
    if flow.error is not None:
        raise flow.error


class _Flow:
    def __init__(
        self,
        values: Iterable[Any],
        stages: Sequence[Stage],
        bound: Bound,
        weigh: Callable[[Any], int],
        stop: threading.Event | None,
        meter: dict[str, Occupancy] | None,
    ) -> None:
        self._occupancy = [Occupancy(stage.workers) for stage in stages]
        if meter is not None:
            names = [stage.name for stage in stages]
            meter.update(zip(names, self._occupancy, strict=True))
        self._observed = time.perf_counter()
        self._values = enumerate(values)
        self._stages = stages
        self._bound = bound
        self._weigh = weigh
        self._stop = stop
        self._pools = [ThreadPoolExecutor(stage.workers, stage.name) for stage in stages]
        self._waiting: list[deque[_Item]] = [deque() for _ in stages]
        self._running: dict[Future[list[Any]], tuple[int, list[_Item]]] = {}
        self._next: _Item | None = None
        self._admitted = 0
        self._weight = 0
        self.error: BaseException | None = None

    def as_finished(self) -> Iterator[tuple[int, Any]]:
        while items := self._advance():
            for item in items:
                self._release(item)
                yield item.index, item.value

    def in_order(self) -> Iterator[tuple[int, Any]]:
        held: dict[int, _Item] = {}
        due = 0
        while True:
            while due in held:
                item = held.pop(due)
                due += 1
                self._release(item)
                yield item.index, item.value
            finished = self._advance()
            if not finished:
                break
            held.update((item.index, item) for item in finished)
        # Only after a stop: what was dropped before these leaves gaps.
        for index in sorted(held):
            yield index, held[index].value

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _advance(self) -> list[_Item]:
        """Items that left the flow since the last call, at least one; none at the end."""
        finished: list[_Item] = []
        while not finished:
            self._admit()
            self._submit()
            if not self._running:
                break
            if self._stopping:
                for future, (number, _) in self._running.items():
                    if number == 0:
                        future.cancel()
            done = wait(self._running, return_when=FIRST_COMPLETED).done
            self._observe()
            for future in done:
                finished += self._collect(future)
        return finished

    def _observe(self) -> None:
        """Account for the time since the last call; what is in work has not changed in it."""
        now = time.perf_counter()
        started = Counter(number for number, _ in self._running.values())
        for number, occupancy in enumerate(self._occupancy):
            occupancy.add(now - self._observed, started[number], len(self._waiting[number]))
        self._observed = now

    @property
    def _stopping(self) -> bool:
        return self.error is not None or (self._stop is not None and self._stop.is_set())

    def _admit(self) -> None:
        while not self._stopping and self._admitted < self._bound.items:
            if self._next is None:
                following = next(self._values, None)
                if following is None:
                    return
                index, value = following
                self._next = _Item(index, self._weigh(value), value)
            if self._admitted and self._weight + self._next.weight > self._bound.weight:
                return
            self._admitted += 1
            self._weight += self._next.weight
            self._waiting[0].append(self._next)
            self._next = None

    def _release(self, item: _Item) -> None:
        self._admitted -= 1
        self._weight -= item.weight

    def _submit(self) -> None:
        """Start every full batch; a partial one only where nothing before it can fill it."""
        upstream = 0
        for number, stage in enumerate(self._stages):
            waiting = self._waiting[number]
            if self._stopping and number == 0:
                waiting.clear()
            while len(waiting) >= stage.batch or (waiting and not upstream):
                items = [waiting.popleft() for _ in range(min(stage.batch, len(waiting)))]
                future = self._pools[number].submit(stage.operate, [item.value for item in items])
                self._running[future] = number, items
            upstream += len(waiting)
            upstream += sum(len(items) for at, items in self._running.values() if at == number)

    def _collect(self, future: Future[list[Any]]) -> list[_Item]:
        number, items = self._running.pop(future)
        if future.cancelled():
            return []
        error = future.exception()
        if error is not None:
            self.error = self.error or error
            return []
        finished = []
        for item, value in zip(items, future.result(), strict=True):
            item.value = value
            if isinstance(value, Exception) or number + 1 == len(self._stages):
                finished.append(item)
            else:
                self._waiting[number + 1].append(item)
        return finished
