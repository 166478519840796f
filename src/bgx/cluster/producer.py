"""In the place of an engine: jobs become tasks for other machines, their answers outcomes.

One thread talks with the broker and decides what happens to each picture in flight:

- An answer with its outcome has come: the outcome counts once the storage shows the result too.
- A worker works on its task: the worker's process sends a heartbeat every few seconds. If the
  heartbeats stop or the process ends, the task is lost. Its pictures are sent again unless their
  results exist, in smaller tasks, in the end one by one, so that a picture that makes its process
  crash takes no other along.
- No worker has started its task: it waits in the broker's queue, or the broker has lost it. To find
  out, the producer takes its own tasks out of the queue and sends them again.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bgx.cluster.answers import HEARTBEAT_S
from bgx.cluster.connection import ProducerConnection
from bgx.cluster.inflight import MAX_ATTEMPTS, InFlight, PendingPicture
from bgx.cluster.order import MAX_PICTURES, MIN_PICTURES, Picture, make_refusal, read_outcome
from bgx.errors import BgxError, CrashedError, UnreadableError, amount
from bgx.run.outcome import Failed
from bgx.threads import begin, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bgx.cluster.inflight import SentTask
    from bgx.cluster.order import Order
    from bgx.run.outcome import Job, Outcome
    from bgx.run.recipe import Recipe
    from bgx.storage.base import File

log = logging.getLogger(__name__)

SILENCE_S = 20.0
"""Seconds without a heartbeat after which a started task is lost. While no worker works on a task,
the queue is searched for the tasks after the same time."""

_WAITING_TASKS = 32
"""Tasks that wait for a worker, in addition to those that workers work on."""

_SUSPECT_SIZES = {1: MAX_PICTURES, 2: 8, 3: 1}
"""Pictures of a task by their attempt, after their last task was lost with its process."""

_IDLE_S = 0.25
"""Longest wait for answers, seconds; with a shorter one, waiting would take a percent of a core."""

_BUSY_S = 0.02
"""The same while pictures are being submitted or results looked up, seconds."""

_CHECK_S = 1.0
"""Seconds between two checks for lost tasks and missing results."""

_FAREWELL_S = 5.0
"""Seconds without an answer of the broker after which a run that is to stop does so."""

_LONGEST_SEARCH_S = 300.0
"""Longest pause between two searches of the queue, seconds."""


class Cluster:
    """Takes a batch's jobs as an :class:`bgx.run.engine.Engine` does; workers do them.

    broker: its URL. queue: name of the task queue. order: how pictures are made. warn: called with
    messages for the user.

    Raises UsageError, and BrokerError if the broker does not answer.
    """

    def __init__(
        self, broker: str, queue: str, order: Order, *, warn: Callable[[str], None]
    ) -> None:
        self._order = order
        self._warn = warn
        self._warned: set[object] = set()
        self._connection = ProducerConnection(
            broker, queue, order.reply, self._receive, warn=self._warn_once
        )
        self._in_flight = InFlight()
        self._devices: set[tuple[str, str]] = set()
        self._submitted = 0
        self._inbox: deque[PendingPicture] = deque()
        self._lock = threading.Lock()  # of the inbox
        self._inbox_before = 0  # its length when it was last found too short for a task
        self._started = 0  # tasks that workers work on
        self._refusals = 0
        self._any_outcome = False
        self._stopping = False
        self._withdrawn = False
        self._closing = False
        self._ended = False
        self._stepped = time.monotonic()
        self._next_check = 0.0
        self._search_after = SILENCE_S
        self._thread = begin(self._run, "cluster")

    @property
    def _task_size(self) -> int:
        """Pictures of a task: small runs get a few tasks for each worker, large ones few messages.

        It grows with the number of submitted pictures.
        """
        return min(max(MIN_PICTURES, self._submitted // _WAITING_TASKS), MAX_PICTURES)

    def places(self) -> int:
        """Pictures that may be in flight at once.

        That is more than workers work on: an autoscaler that starts workers by the length of the
        queue must see enough tasks in it.
        """
        return self._task_size * (_WAITING_TASKS + 2 * self._started)

    def submit(self, job: Job, recipe: Recipe) -> Future[Outcome]:
        """Have a picture cut out as the order says."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._submitted += 1
            picture = PendingPicture(job, future, self._submitted)
            if self._ended:
                picture.cancel()
            else:
                self._inbox.append(picture)
        return future

    def withdraw(self, futures: Iterable[Future[Outcome]]) -> None:
        """Take back all tasks that no worker has started, and send no more."""
        self._stopping = True

    def ran_on(self) -> tuple[str, str]:
        """Devices and precisions that workers have used so far, for the report."""
        devices = {device for device, _ in self._devices}
        precisions = {precision for _, precision in self._devices}
        return ", ".join(sorted(devices)), ", ".join(sorted(precisions))

    def close(self) -> None:
        """Take back the tasks that no worker has started, wait for the others, and disconnect."""
        self._stopping = self._closing = True
        with suppress(BgxError):
            wait_for(self._thread)
        self._in_flight.lookup.close()

    # The thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while not (self._closing and not self._in_flight.pictures and not self._inbox):
                self._step()
        except BaseException as error:
            failure = error
            raise
        finally:
            self._end(failure)

    def _step(self) -> None:
        self._excuse_silence()
        with self._connection.reconnecting():
            self._connection.receive(self._choose_timeout())
            self._in_flight.look_up_results()
            if self._stopping:
                self._take_back_tasks()
            self._send_tasks()
            if time.monotonic() >= self._next_check:
                self._next_check = time.monotonic() + _CHECK_S
                self._in_flight.recheck_missing_results()
                self._find_lost_tasks()
        if self._stopping and self._connection.silence > _FAREWELL_S:
            # Tasks cannot be taken back, nor can answers come.
            self._cancel_submitted()
            for picture in self._in_flight.pictures:
                self._in_flight.cancel(picture)

    def _excuse_silence(self) -> None:
        """After a pause of this process or of the broker, give all tasks their full time again."""
        now = time.monotonic()
        if now - self._stepped > HEARTBEAT_S:
            for task in self._in_flight.tasks.values():
                task.heard = now
        self._stepped = now

    def _choose_timeout(self) -> float:
        busy = self._in_flight.lookup.pending or len(self._inbox) != self._inbox_before
        return _BUSY_S if busy else _IDLE_S

    def _warn_once(self, message: str, about: object = None) -> None:
        """Warn the user. about: a later warning about an equal thing is dropped; by default, the
        same message."""
        if (about or message) not in self._warned:
            self._warned.add(about or message)
            self._warn(message)

    def _end(self, failure: BaseException | None) -> None:
        """Give every picture an outcome: the first one the failure, the others are cancelled."""
        with self._lock:
            self._ended = True
            rest = [*self._in_flight.pictures, *self._inbox]
            self._inbox.clear()
        if failure is not None and rest:
            first = rest.pop(0)
            if isinstance(failure, BgxError):
                first.settle(Failed(first.job, failure))
            elif not first.future.done():
                first.future.set_exception(failure)
        for picture in rest:
            picture.cancel()
        self._connection.close()

    # Answers --------------------------------------------------------------------------------------

    def _receive(self, content: object) -> None:
        answers = content.get("answers") if isinstance(content, dict) else None
        for answer in answers if isinstance(answers, list) else []:
            try:
                self._handle(answer)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                log.warning("an answer that cannot be understood was dropped: %r", error)

    def _handle(self, answer: dict[str, Any]) -> None:
        task = self._in_flight.tasks.get(str(answer["task"]))
        if task is not None and "lost" in answer:
            self._lose_process(task, f"its process ended ({answer['lost']})")
            return
        for number, row in answer.get("rows", ()):
            self._any_outcome = True
            # Also of a task that was given up in the meantime.
            if picture := self._in_flight.find(number):
                self._in_flight.report(picture, read_outcome(picture.job, row))
        if task is None:
            return
        task.heard = time.monotonic()
        if not task.worker:
            task.worker = str(answer["worker"])
            self._search_after = SILENCE_S
        if device := answer.get("device"):
            device, precision = device
            self._devices.add((str(device), str(precision)))
        if "refused" in answer:
            self._handle_refusal(task, make_refusal(answer["refused"]))
        for number in answer.get("back", ()):
            if returned := task.pictures.get(number):
                self._in_flight.requeue(returned)

    def _lose_process(self, task: SentTask, reason: str) -> None:
        """All tasks of the process that worked on this one are lost."""
        same = [one for one in self._in_flight.started if one.worker == task.worker]
        for one in same or [task]:
            self._in_flight.lose(one, reason)

    def _handle_refusal(self, task: SentTask, error: BgxError) -> None:
        worker = task.worker.rpartition("-")[0]
        self._warn_once(f"worker {worker} refuses a task: {error}", about=(worker, error.code))
        self._refusals += 1
        others = [one for one in self._in_flight.started if one is not task]
        if self._refusals >= MAX_ATTEMPTS and not self._any_outcome and not others:
            # No worker can do any task: it is useless to try each one three times.
            for picture in task.pictures.values():
                picture.attempts = MAX_ATTEMPTS
        self._in_flight.give_up(task, error)

    # Tasks ----------------------------------------------------------------------------------------

    def _send_tasks(self) -> None:
        self._in_flight.remove_finished_tasks()
        self._started = len(self._in_flight.started)
        self._resend()
        while pictures := self._take_submitted():
            sendable = []
            for picture in pictures:
                if error := _explain_unsendable(picture.job):
                    picture.settle(Failed(picture.job, error))
                if not picture.future.done():
                    sendable.append(picture)
            if sendable:
                self._send(sendable)

    def _resend(self) -> None:
        """Send pictures again, in tasks of pictures with the same history."""

        def history(picture: PendingPicture) -> tuple[int, bool]:
            return picture.attempts, picture.suspect

        waiting = self._in_flight.to_resend
        if self._stopping:
            for picture in waiting:
                self._in_flight.cancel(picture)
        waiting[:] = sorted((one for one in waiting if not one.future.done()), key=history)
        while waiting:
            attempts, suspect = first = history(waiting[0])
            size = _SUSPECT_SIZES[min(attempts + 1, MAX_ATTEMPTS)] if suspect else self._task_size
            some = [picture for picture in waiting[:size] if history(picture) == first]
            # One task at a time: if sending it fails, the others stay here.
            del waiting[: len(some)]
            self._send(some)

    def _take_submitted(self) -> list[PendingPicture]:
        """Submitted pictures for one task; empty if there are none, or more may come.

        There are fewer than usual if no more have come lately and workers have nothing else to do.
        """
        with self._lock:
            count = len(self._inbox)
            waiting = len(self._in_flight.tasks) - self._started
            hurry = count and count == self._inbox_before and waiting < 2
            if count < self._task_size and not hurry:
                self._inbox_before = count
                return []
            return [self._inbox.popleft() for _ in range(min(count, self._task_size))]

    def _send(self, pictures: Sequence[PendingPicture]) -> None:
        order = replace(self._order, alone=any(picture.suspect for picture in pictures))
        message = order.to_json([_describe(picture) for picture in pictures])
        task_id = uuid.uuid4().hex
        # Noted first: if sending fails, the task is found to be lost later.
        self._in_flight.add(task_id, pictures)
        self._connection.send(task_id, message, amount(len(pictures), "picture"))

    def _find_lost_tasks(self) -> None:
        now = time.monotonic()
        tasks, started = self._in_flight.tasks.values(), self._in_flight.started
        for task in started:
            if now - task.heard > SILENCE_S:
                self._in_flight.lose(task, f"its worker fell silent for {SILENCE_S:g} s")
        if not started and tasks and now - max(task.heard for task in tasks) > self._search_after:
            self._search_after = min(2 * self._search_after, _LONGEST_SEARCH_S)
            self._search_queue()

    def _search_queue(self) -> None:
        """Send tasks again that no worker has started: as they are, if they were in the queue."""
        found = self._connection.take_back(self._in_flight.tasks)
        for task_id, task in list(self._in_flight.tasks.items()):
            if task.worker:
                continue
            if task_id in found:
                for picture in list(task.pictures.values()):
                    self._in_flight.requeue(picture)
            else:
                self._in_flight.give_up(task, CrashedError("its task was lost by the broker"))
        if found:
            self._warn_once(
                "no worker takes a task; start one: bgx worker --broker "
                f"{self._connection.url} (waiting for it)"
            )

    def _take_back_tasks(self) -> None:
        """Cancel all pictures that no worker has started on."""
        self._cancel_submitted()
        if self._withdrawn:
            return
        for task_id in self._connection.take_back(self._in_flight.tasks):
            for picture in list(self._in_flight.tasks[task_id].pictures.values()):
                self._in_flight.cancel(picture)
        self._withdrawn = True

    def _cancel_submitted(self) -> None:
        """Cancel the pictures that were never sent."""
        with self._lock:
            rest = list(self._inbox)
            self._inbox.clear()
        for picture in rest:
            picture.cancel()


def _describe(picture: PendingPicture) -> Picture:
    job = picture.job
    review = None if job.review is None else _locate(job.review)
    return Picture(picture.number, _locate(job.source), _locate(job.target), review)


def _locate(place: Any) -> str:
    """The absolute name, by which workers on all machines find the file."""
    file: File = place
    return file.location


def _explain_unsendable(job: Job) -> BgxError | None:
    """The error of a source that is no file, such as a folder that cannot be searched; or None."""
    if hasattr(job.source, "location"):
        return None
    try:
        job.source.open()
    except OSError as error:
        return UnreadableError(f"{job.source}: cannot be read: {error.strerror or error}")
    return UnreadableError(f"{job.source}: cannot be read by other machines")
