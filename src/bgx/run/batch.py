"""Runs many pictures through an engine; yields outcomes as they finish, or in the jobs' order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from bgx.errors import BgxError
from bgx.run.outcome import Done, Failed, Job, Skipped, ends_run
from bgx.threads import POLL, wait_for, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from bgx.run.engine import Engine
    from bgx.run.outcome import Outcome
    from bgx.run.recipe import Recipe
    from bgx.run.sheet import Sheet

_PIXELS_AHEAD = 50_000_000
"""Largest total size of finished cut-outs that the caller has not taken yet, pixels."""


class Admission(Protocol):
    """What cuts out a batch's pictures: an :class:`bgx.run.engine.Engine`, or other machines."""

    def places(self) -> int:
        """As :meth:`bgx.run.engine.Engine.places`."""

    def submit(self, job: Job, recipe: Recipe) -> Future[Outcome]:
        """As :meth:`bgx.run.engine.Engine.submit`."""

    def withdraw(self, futures: Sequence[Future[Outcome]]) -> None:
        """As :meth:`bgx.run.engine.Engine.withdraw`."""


def run_batch(
    parts: Iterable[Sequence[Job | Skipped]],
    recipe: Recipe,
    engine: Admission,
    *,
    stop: Callable[[], bool] | None = None,
    sheet: Sheet | None = None,
) -> Iterator[Outcome]:
    """Cut out and write pictures; yields exactly one outcome per job, in the order they finish.

    parts: lists of jobs, each taken when the one before has been started; jobs that are already
    skipped are yielded as they are. An empty list means that there is nothing to do now; the next
    one is asked for a moment later. stop: once it is true, pictures in work are finished, the other
    jobs of the current part are yielded as skipped, and no further part is taken. sheet: gets every
    outcome; it is written at the end, and once without pictures at the start, to find out early if
    it cannot be written.

    An error that concerns the whole run (network, device, output, or while taking a part) ends the
    run in the same way and is raised at the end. If the network cannot be loaded, that is raised
    before the first outcome.
    """
    fatal: BgxError | None = None

    def stopped() -> bool:
        return fatal is not None or (stop is not None and stop())

    def take() -> Iterator[Job | Skipped | None]:
        nonlocal fatal
        try:
            for part in parts:
                if not part:
                    yield None
                yield from part
                if stopped():
                    return
        except BgxError as error:
            fatal = error

    if sheet is not None:
        try:
            sheet.write(finished=False)
        except BgxError as error:
            fatal, sheet = error, None
    try:
        for outcome in _cut_as_finished(take(), recipe, engine, stopped):
            if isinstance(outcome, Job):
                yield Skipped(outcome, "stopped" if fatal else "interrupted")
                continue
            if isinstance(outcome, Failed) and ends_run(outcome.error):
                fatal = fatal or outcome.error
            if sheet is not None and not isinstance(outcome, Skipped):
                sheet.add(outcome)
            yield outcome
    finally:
        if sheet is not None:
            try:
                sheet.write()
            except BgxError as error:
                fatal = fatal or error
    if fatal is not None:
        raise fatal


def cut_in_order(jobs: Iterable[Job], recipe: Recipe, engine: Engine) -> Iterator[Outcome]:
    """Cut out pictures; yields outcomes in the jobs' order.

    Jobs are taken ahead of the results only as far as the engine and the memory have room.
    """
    waiting: deque[Future[Outcome]] = deque()
    jobs = iter(jobs)
    try:
        while True:
            while len(waiting) < engine.places() and _count_held(waiting) < _PIXELS_AHEAD:
                job = next(jobs, None)
                if job is None:
                    break
                waiting.append(engine.submit(job, recipe))
            if not waiting:
                return
            yield wait_for(waiting.popleft())
    finally:
        _abandon(engine, waiting)


def _cut_as_finished(
    jobs: Iterator[Job | Skipped | None],
    recipe: Recipe,
    engine: Admission,
    stopped: Callable[[], bool],
) -> Iterator[Outcome | Job]:
    """Yield outcomes in the order in which pictures are finished.

    A job is taken only when the engine has a place for it; None means that there is none now. Once
    ``stopped`` returns True, pictures in work are finished and their outcomes yielded; all other
    jobs are yielded themselves.
    """
    ended = False
    waiting: dict[Future[Outcome], Job] = {}
    finished: SimpleQueue[Future[Outcome]] = SimpleQueue()
    try:
        while True:
            while not stopped() and len(waiting) < engine.places():
                try:
                    job = next(jobs)
                except StopIteration:
                    ended = True
                    break
                if job is None:
                    break
                if isinstance(job, Skipped):
                    yield job
                    continue
                future = engine.submit(job, recipe)
                waiting[future] = job
                future.add_done_callback(finished.put)
            if stopped():
                engine.withdraw(list(waiting))
            if not waiting:
                if ended or stopped():
                    break
                continue
            with suppress(Empty):
                future = finished.get(timeout=POLL)
                job = waiting.pop(future)
                yield job if future.cancelled() else future.result()
        yield from (job for job in jobs if job is not None)
    finally:
        _abandon(engine, waiting)


def _abandon(engine: Admission, futures: Iterable[Future[Outcome]]) -> None:
    """Cancel jobs that have not begun and wait for the others: none may write after this."""
    futures = list(futures)
    engine.withdraw(futures)
    wait_for_all([future for future in futures if not future.cancelled()])


def _count_held(futures: Iterable[Future[Outcome]]) -> int:
    """Pixels of finished cut-outs that the caller has not taken yet."""
    outcomes = [future.result() for future in futures if future.done()]
    images = [o.cutout.image for o in outcomes if isinstance(o, Done) and o.cutout]
    return sum(image.width * image.height for image in images)
