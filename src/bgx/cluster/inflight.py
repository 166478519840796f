"""The pictures that were sent to workers and have no outcome yet, and the tasks that hold them.

A reported outcome counts only when the storage shows the result too. A picture whose task was lost
is sent again, at most three times, unless its result exists.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bgx.cluster.lookup import ResultLookup
from bgx.errors import BgxError, CrashedError, UnwritableError
from bgx.run.outcome import Failed, Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from bgx.run.outcome import Job, Outcome

MAX_ATTEMPTS = 3
"""How often a picture is sent before it has failed."""

_VISIBLE_S = 20.0
"""Seconds after which a result that a worker reported must be visible in the storage."""


@dataclass(eq=False, slots=True)
class PendingPicture:
    """A picture without an outcome.

    number: of the picture in its run. task: the one that holds it now. attempts: how often it was
    sent. suspect: its last task was lost with its worker's process, perhaps because of this
    picture. reported: the outcome that a worker reported, while its result is looked up. error: why
    it was sent again. missing_since: when the lookup of a reported result first found nothing,
    seconds of the monotonic clock.
    """

    job: Job
    future: Future[Outcome]
    number: int
    task: SentTask | None = None
    attempts: int = 0
    suspect: bool = False
    reported: Outcome | None = None
    error: BgxError | None = None
    missing_since: float | None = None

    def leave_task(self) -> None:
        """Take it out of its task, if it is in one."""
        if self.task is not None:
            self.task.pictures.pop(self.number, None)
            self.task = None

    def settle(self, outcome: Outcome) -> None:
        """Give the future its outcome, unless its owner has cancelled it."""
        with suppress(Exception):
            self.future.set_result(outcome)

    def cancel(self) -> None:
        """Cancel the future, and wake those who wait for it."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()


@dataclass(eq=False, slots=True)
class SentTask:
    """A task that was sent.

    pictures: those without an outcome, by number. heard: when it was sent or its worker last
    reported, seconds of the monotonic clock. worker: the process that works on it; empty until one
    reports.
    """

    pictures: dict[int, PendingPicture]
    heard: float
    worker: str = ""


class InFlight:
    """Pictures in flight, and what happens to them. All methods are for one thread.

    tasks: those that still hold pictures, by Celery's task id. to_resend: pictures to be sent
    again. lookup: of results in the storage.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, SentTask] = {}
        self.to_resend: list[PendingPicture] = []
        self.lookup = ResultLookup()
        self._pictures: dict[int, PendingPicture] = {}
        self._missing: set[PendingPicture] = set()

    @property
    def pictures(self) -> list[PendingPicture]:
        """All pictures in flight."""
        return list(self._pictures.values())

    @property
    def started(self) -> list[SentTask]:
        """Tasks that a worker works on."""
        return [task for task in self.tasks.values() if task.worker]

    def find(self, number: int) -> PendingPicture | None:
        """The picture of this number, if it has no outcome yet."""
        picture = self._pictures.get(number)
        return None if picture is None or picture.future.done() else picture

    def add(self, task_id: str, pictures: Sequence[PendingPicture]) -> None:
        """Note that a task with these pictures is being sent."""
        task = SentTask({picture.number: picture for picture in pictures}, time.monotonic())
        self.tasks[task_id] = task
        for picture in pictures:
            picture.leave_task()
            picture.task = task
            picture.attempts += 1
            picture.reported = picture.missing_since = None
            self._pictures[picture.number] = picture

    def report(self, picture: PendingPicture, outcome: Outcome) -> None:
        """Take the outcome that a worker reported; a failure is final at once."""
        picture.reported = outcome
        if isinstance(outcome, Failed):
            self._resolve(picture, outcome)
        else:
            self.lookup.request(picture)

    def requeue(self, picture: PendingPicture) -> None:
        """Send a picture again that no worker has started on; this attempt does not count."""
        picture.leave_task()
        picture.attempts -= 1
        self.to_resend.append(picture)

    def lose(self, task: SentTask, reason: str) -> None:
        """Send the pictures of a task again whose worker's process ended or stopped reporting."""
        for picture in task.pictures.values():
            picture.suspect = True
        self.give_up(task, CrashedError(reason))

    def give_up(self, task: SentTask, error: BgxError) -> None:
        """Send the pictures of a task again, except those that turn out to be done."""
        for picture in list(task.pictures.values()):
            picture.leave_task()
            picture.error = error
            if picture.reported is not None:
                continue  # its result is being looked up
            if picture.job.create:
                self.lookup.request(picture)
            else:
                self._retry(picture)

    def cancel(self, picture: PendingPicture) -> None:
        """Forget a picture and cancel its future."""
        self._remove(picture)
        picture.cancel()

    def remove_finished_tasks(self) -> None:
        """Forget tasks that hold no picture any more."""
        self.tasks = {task_id: task for task_id, task in self.tasks.items() if task.pictures}

    def look_up_results(self) -> None:
        """Start the requested lookups, and act on those that have finished."""
        self.lookup.start()
        for picture, exists in self.lookup.collect():
            if picture.future.done():
                continue
            if exists:
                self._resolve(picture, picture.reported or Skipped(picture.job, "exists"))
            elif picture.reported is None:
                self._retry(picture)
            else:
                picture.missing_since = picture.missing_since or time.monotonic()
                self._missing.add(picture)

    def recheck_missing_results(self) -> None:
        """Look up missing results again; send pictures again whose results stay missing."""
        now = time.monotonic()
        for picture in self._missing - self.lookup.pending:
            if picture.missing_since is not None and now - picture.missing_since > _VISIBLE_S:
                self._missing.discard(picture)
                picture.error = UnwritableError(
                    f"{picture.job.target}: was written by a worker and cannot be seen here; is "
                    "its folder the same one on all machines?"
                )
                picture.reported = None
                self._retry(picture)
            else:
                self.lookup.request(picture)

    def _retry(self, picture: PendingPicture) -> None:
        """Send a picture again; it has failed if this was its last attempt."""
        if picture.attempts < MAX_ATTEMPTS:
            self.to_resend.append(picture)
            return
        error = picture.error or CrashedError("it got lost")
        if isinstance(error, CrashedError):
            error = CrashedError(
                f"{picture.job.source}: given up after {MAX_ATTEMPTS} tries: {error}"
            )
        self._resolve(picture, Failed(picture.job, error))

    def _resolve(self, picture: PendingPicture, outcome: Outcome) -> None:
        self._remove(picture)
        picture.settle(outcome)

    def _remove(self, picture: PendingPicture) -> None:
        self._pictures.pop(picture.number, None)
        self._missing.discard(picture)
        picture.leave_task()
