"""In the place of an engine: jobs become tasks for other machines, their answers outcomes.

All that talks with the broker is one thread. What it knows of a picture that is out:

- An answer came: the outcome, once the storage shows its result too.
- Its task is at work as long as its worker's process says so every few seconds. One that falls
  silent, or whose process ended, is lost: its pictures are sent again unless their results are
  there, in smaller tasks, in the end one by one, so that a picture that ends its process takes no
  other along.
- Its task has not begun: it waits in the broker, or the broker has lost it. That is told by
  taking this producer's tasks out of the queue and sending them again.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from bgx.cluster.answers import BEAT_S
from bgx.cluster.broker import TASK, connect, make_app, open_connection, reply_queue, show, troubles
from bgx.cluster.order import LEAST, MOST, Picture, make_refusal, read_outcome
from bgx.errors import BgxError, BrokerError, CrashedError, UnreadableError, UnwritableError
from bgx.run.outcome import Failed, Skipped
from bgx.threads import Workers, begin, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery import Celery
    from kombu import Connection, Consumer

    from bgx.cluster.order import Order
    from bgx.run.outcome import Job, Outcome
    from bgx.run.recipe import Recipe
    from bgx.storage.base import File

log = logging.getLogger(__name__)

TRIES = 3
"""So often a picture is sent."""

QUIET_S = 20.0
"""Of what is not heard of for so long something is wrong, seconds."""

_AHEAD = 32
"""Tasks that wait for a worker, beside those at work."""

_PIECES = {1: MOST, 2: 8, 3: 1}
"""Pictures of a task by their try, where their last task ended its process."""

_PATIENCE_S = 600.0
"""A broker that does not answer for so long in mid-run ends it, seconds."""

_IDLE_S = 0.25
"""A turn waits so long for answers; shorter would cost a percent of a core."""

_BUSY_S = 0.02
"""While something else is expected: pictures to send, results that are looked for."""

_LOOK_S = 1.0
_LONGEST_LOOK_S = 300.0
_LOOKERS = 16
"""Results that are looked for at once: an object store takes some milliseconds for each."""


@dataclass(eq=False, slots=True)
class _Out:
    """A picture that is out. tries: so often it was sent. suspect: its last task ended its process.
    outcome: what a worker told. error: why it was sent again. unseen: since when its result has
    been looked for in vain."""

    job: Job
    future: Future[Outcome]
    number: int
    task: _Task | None = None
    tries: int = 0
    suspect: bool = False
    outcome: Outcome | None = None
    error: BgxError | None = None
    unseen: float | None = None

    def leave(self) -> None:
        """Belong to no task."""
        if self.task is not None:
            self.task.pictures.pop(self.number, None)
            self.task = None


@dataclass(eq=False, slots=True)
class _Task:
    """A task that is out. heard: when it was heard of last. worker: the process at work on it."""

    pictures: dict[int, _Out]
    heard: float
    worker: str = ""


class Cluster:
    """Takes a batch's jobs as an :class:`bgx.run.engine.Engine` does; workers do them.

    broker: its URL. queue: of the tasks. order: how pictures are made. warn: is called with what a
    person should know.

    Raises UsageError, and BrokerError where the broker does not answer.
    """

    def __init__(
        self, broker: str, queue: str, order: Order, *, warn: Callable[[str], None]
    ) -> None:
        self._devices: set[tuple[str, str]] = set()
        self._url = show(broker)
        self._app: Celery = make_app(broker, [queue])
        [self._queue] = self._app.conf.task_queues
        self._order = order
        self._warn = warn
        self._told: set[object] = set()
        self._inbox: deque[_Out] = deque()
        self._lock = threading.Lock()
        self._numbers = 0
        self._outs: dict[int, _Out] = {}
        self._tasks: dict[str, _Task] = {}
        self._again: list[_Out] = []
        self._unseen: set[_Out] = set()
        self._to_look: list[_Out] = []
        self._looking = 0
        self._looked: SimpleQueue[tuple[_Out, bool]] = SimpleQueue()
        self._lookers = Workers(_LOOKERS, "look")
        self._begun = 0
        self._refusals = 0
        self._worked = False
        self._stopping = False
        self._pulled = False
        self._closing = False
        self._ended = False
        self._grown = 0
        self._answered = self._turned = time.monotonic()
        self._look_next = 0.0
        self._pull_next = 0.0
        self._pull_pause = QUIET_S
        self._connection: Connection | None = connect(self._app)
        self._consumer: Consumer | None = None
        self._thread = begin(self._run, "cluster")

    @property
    def _size(self) -> int:
        """Pictures of a task: a few tasks for each worker of a small run, few messages in a large
        one."""
        return min(max(LEAST, self._numbers // _AHEAD), MOST)

    def places(self) -> int:
        """Pictures that may be out at once: in the tasks at work, and in more that wait, so that
        whoever starts workers by the length of the queue starts enough."""
        return self._size * (_AHEAD + 2 * self._begun)

    def submit(self, job: Job, recipe: Recipe) -> Future[Outcome]:
        """Have a picture cut out as the order says."""
        future: Future[Outcome] = Future()
        with self._lock:
            if self._ended:
                _cancel(future)
                return future
            self._numbers += 1
            self._inbox.append(_Out(job, future, self._numbers))
        return future

    def withdraw(self, futures: Iterable[Future[Outcome]]) -> None:
        """Take back all tasks that no worker has begun; no other is sent."""
        self._stopping = True

    def ran_on(self) -> tuple[str, str]:
        """Devices and precisions of the workers that did something, for the report."""
        devices, precisions = (
            ({*words} for words in zip(*self._devices, strict=True))
            if (self._devices)
            else (set(), set())
        )
        return ", ".join(sorted(devices)), ", ".join(sorted(precisions))

    def close(self) -> None:
        """Take back what is out, and end."""
        self._stopping = self._closing = True
        with suppress(BgxError):
            wait_for(self._thread)
        self._lookers.close()

    # The thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        trouble: BaseException | None = None
        try:
            while not (self._closing and not self._outs and not self._inbox):
                self._turn()
        except BaseException as error:
            trouble = error
            raise
        finally:
            self._end(trouble)

    def _turn(self) -> None:
        self._forgive()
        connection = self._connection
        try:
            if connection is None:
                connection = open_connection(self._app)
            if self._consumer is None:
                self._connection = connection
                self._listen(connection)
            self._hear(connection)
            self._see()
            if self._stopping:
                self._withdraw(connection)
            self._send(connection)
            if time.monotonic() >= self._look_next:
                self._look_next = time.monotonic() + _LOOK_S
                self._look_after(connection)
            self._answered = time.monotonic()
        except troubles(connection or open_connection(self._app)) as error:
            self._reconnect(error)

    def _forgive(self) -> None:
        """Nobody was silent while this process stood still itself, or its broker did."""
        now = time.monotonic()
        if now - self._turned > BEAT_S:
            for task in self._tasks.values():
                task.heard = now
        self._turned = now

    def _listen(self, connection: Connection) -> None:
        queue = reply_queue(self._order.reply)
        self._consumer = connection.Consumer(
            [queue], no_ack=True, accept=["json"], callbacks=[self._receive]
        )
        self._consumer.consume()

    def _reconnect(self, error: Exception) -> None:
        silent = time.monotonic() - self._answered
        log.debug("broker: %r", error)
        self._say(f"{self._url}: the broker does not answer; trying again")
        if silent > _PATIENCE_S:
            raise BrokerError(
                f"{self._url}: the broker has not answered for {silent:.0f} s; when it does, run "
                "the same command again"
            ) from None
        if self._connection is not None:
            self._connection.collect()
        self._connection = self._consumer = None
        time.sleep(min(5.0, 0.5 + silent / 4))

    def _say(self, message: str, about: object = None) -> None:
        """Once about a thing, which is the message where nothing else is named."""
        if (about or message) not in self._told:
            self._told.add(about or message)
            self._warn(message)

    def _end(self, trouble: BaseException | None) -> None:
        """No picture stays without an outcome."""
        with self._lock:
            self._ended = True
            rest = [*self._outs.values(), *self._inbox]
            self._inbox.clear()
        for number, out in enumerate(rest):
            if trouble is not None and not number:
                if isinstance(trouble, BgxError):
                    _settle(out, Failed(out.job, trouble))
                elif not out.future.done():
                    out.future.set_exception(trouble)
            else:
                _cancel(out.future)
        if self._connection is not None:
            with suppress(Exception):
                if self._consumer is not None:
                    self._consumer.cancel()
                # What comes for this run from now on has no reader.
                reply_queue(self._order.reply)(self._connection.default_channel).delete()
            self._connection.release()

    # Answers --------------------------------------------------------------------------------------

    def _hear(self, connection: Connection) -> None:
        """Take what has come; wait a moment where nothing has."""
        busy = self._looking or len(self._inbox) != self._grown
        timeout = _BUSY_S if busy else _IDLE_S
        with suppress(socket.timeout, TimeoutError):
            for _ in range(1000):
                connection.drain_events(timeout=timeout)
                timeout = 0.001

    def _receive(self, body: object, _: object) -> None:
        answers = body.get("answers") if isinstance(body, dict) else None
        for answer in answers if isinstance(answers, list) else []:
            try:
                self._take(answer)
            except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
                log.warning("an answer that cannot be understood was dropped: %r", error)

    def _take(self, answer: dict[str, Any]) -> None:
        task = self._tasks.get(str(answer["task"]))
        if task is not None and "lost" in answer:
            lost = [
                one for one in self._tasks.values() if task.worker and one.worker == task.worker
            ]
            for one in lost or [task]:
                self._lose(one, f"its process ended ({answer['lost']})")
            return
        for number, row in answer.get("rows", ()):
            self._worked = True
            out = self._outs.get(number)
            if out is not None and not out.future.done():
                out.outcome = read_outcome(out.job, row)
                self._confirm(out)
        if task is None:
            return
        task.heard = time.monotonic()
        if not task.worker:
            task.worker = str(answer["worker"])
            self._pull_pause = QUIET_S
        if device := answer.get("device"):
            device, precision = device
            self._devices.add((str(device), str(precision)))
        if "refused" in answer:
            self._take_refusal(task, make_refusal(answer["refused"]))
        for number in answer.get("back", ()):
            if out := task.pictures.get(number):
                out.leave()
                out.tries -= 1
                self._again.append(out)

    def _take_refusal(self, task: _Task, error: BgxError) -> None:
        name = task.worker.rpartition("-")[0]
        self._say(f"worker {name} refuses a task: {error}", about=(name, error.code))
        self._refusals += 1
        others = [one for one in self._tasks.values() if one.worker and one is not task]
        if self._refusals >= TRIES and not self._worked and not others:
            # Nobody can do it: not each task needs to learn that.
            for out in task.pictures.values():
                out.tries = TRIES
        self._give_up(task, error)

    def _confirm(self, out: _Out) -> None:
        """An outcome counts once its result is seen here too."""
        if isinstance(out.outcome, Failed):
            self._resolve(out, out.outcome)
        else:
            self._look(out)

    def _look(self, out: _Out) -> None:
        """Have its result looked for."""
        self._to_look.append(out)

    def _see(self) -> None:
        """Take what was found of results, and have others looked for."""
        some, self._to_look = self._to_look, []
        self._looking += len(some)
        for first in range(min(len(some), _LOOKERS)):
            self._lookers.submit(partial(self._look_for, some[first::_LOOKERS]))
        with suppress(Empty):
            while True:
                out, there = self._looked.get_nowait()
                self._looking -= 1
                if out.future.done():
                    continue
                if there:
                    self._resolve(out, out.outcome or Skipped(out.job, "exists"))
                elif out.outcome is None:
                    self._retry(out)
                else:
                    out.unseen = out.unseen or time.monotonic()
                    self._unseen.add(out)

    def _look_for(self, outs: Sequence[_Out]) -> None:
        for out in outs:
            target = out.job.target
            self._looked.put((out, target is not None and target.is_there()))

    def _resolve(self, out: _Out, outcome: Outcome) -> None:
        self._drop(out)
        _settle(out, outcome)

    def _drop(self, out: _Out) -> None:
        """It is out no longer."""
        self._outs.pop(out.number, None)
        self._unseen.discard(out)
        out.leave()

    # Tasks ----------------------------------------------------------------------------------------

    def _send(self, connection: Connection) -> None:
        self._tasks = {name: task for name, task in self._tasks.items() if task.pictures}
        self._begun = sum(1 for task in self._tasks.values() if task.worker)
        again, self._again = self._again, []
        for out in again:
            if self._stopping:
                self._drop(out)
                _cancel(out.future)
        again = [out for out in again if not out.future.done()]
        for tries in sorted({(out.tries, out.suspect) for out in again}):
            some = [out for out in again if (out.tries, out.suspect) == tries]
            size = _PIECES[min(tries[0] + 1, TRIES)] if tries[1] else self._size
            for first in range(0, len(some), size):
                self._publish(connection, some[first : first + size])
        while outs := self._next():
            for out in outs:
                if error := _explain_unsearched(out.job):
                    _settle(out, Failed(out.job, error))
            outs = [out for out in outs if not out.future.done()]
            self._outs |= {out.number: out for out in outs}
            if outs:
                self._publish(connection, outs)

    def _next(self) -> list[_Out]:
        """Pictures of a task; fewer than usual where no more come and workers have nothing else."""
        with self._lock:
            count = len(self._inbox)
            waiting = len(self._tasks) - self._begun
            if count < self._size and not (count and count == self._grown and waiting < 2):
                self._grown = count
                return []
            return [self._inbox.popleft() for _ in range(min(count, self._size))]

    def _publish(self, connection: Connection, outs: Sequence[_Out]) -> None:
        order = replace(self._order, alone=any(out.suspect for out in outs))
        pictures = [_describe(out) for out in outs]
        name = uuid.uuid4().hex
        task = self._tasks[name] = _Task({out.number: out for out in outs}, time.monotonic())
        for out in outs:
            out.leave()
            out.task = task
            out.tries += 1
            out.outcome = out.unseen = None
        self._app.send_task(
            TASK,
            args=[order.to_json(pictures)],
            task_id=name,
            # Shown by programs that watch; Celery would write out all of it.
            argsrepr=f"{len(outs)} pictures",
            queue=self._queue,
            producer=self._app.amqp.Producer(connection, auto_declare=False),
            retry=False,
        )

    def _look_after(self, connection: Connection) -> None:
        """Find what is lost."""
        now = time.monotonic()
        for out in list(self._unseen):
            if out.unseen is not None and now - out.unseen > QUIET_S:
                self._unseen.discard(out)
                out.error = UnwritableError(
                    f"{out.job.target}: was written by a worker and cannot be seen here; is its "
                    "folder the same one on all machines?"
                )
                out.outcome = None
                self._retry(out)
            else:
                self._look(out)
        begun = [task for task in self._tasks.values() if task.worker]
        for task in begun:
            if now - task.heard > QUIET_S:
                self._lose(task, f"its worker fell silent for {QUIET_S:g} s")
        if not begun and self._tasks and now > self._pull_next:
            newest = max(task.heard for task in self._tasks.values())
            if now - newest > self._pull_pause:
                self._pull_pause = min(2 * self._pull_pause, _LONGEST_LOOK_S)
                self._find_waiting(connection)

    def _find_waiting(self, connection: Connection) -> None:
        """What waits for a worker is sent again as it is; what does not was lost."""
        found = self._pull(connection)
        for name, task in list(self._tasks.items()):
            if task.worker:
                continue
            if name in found:
                for out in list(task.pictures.values()):
                    out.leave()
                    out.tries -= 1
                    self._again.append(out)
            else:
                self._give_up(task, CrashedError("its task was lost by the broker"))
        if found:
            self._say(
                "no worker takes a task; start one: bgx worker --broker "
                f"{self._url} (waiting for it)"
            )

    def _pull(self, connection: Connection) -> set[str]:
        """Take this producer's tasks out of the queue; which they were."""
        mine: set[str] = set()
        others = []
        with connection.channel() as channel:
            queue = self._queue(channel)
            for _ in range(queue.queue_declare().message_count):
                message = queue.get(no_ack=False)
                if message is None:
                    break
                name = str(message.headers.get("id"))
                if name in self._tasks:
                    mine.add(name)
                    message.ack()
                else:
                    others.append(message)
            for message in others:
                message.requeue()
        return mine

    def _withdraw(self, connection: Connection) -> None:
        """Take back what no worker has begun."""
        with self._lock:
            rest = list(self._inbox)
            self._inbox.clear()
        for out in rest:
            _cancel(out.future)
        if self._pulled:
            return
        for name in self._pull(connection):
            for out in list(self._tasks[name].pictures.values()):
                self._drop(out)
                _cancel(out.future)
        self._pulled = True

    def _lose(self, task: _Task, how: str) -> None:
        """Its pictures go to another worker, or have failed."""
        for out in task.pictures.values():
            out.suspect = True
        self._give_up(task, CrashedError(how))

    def _give_up(self, task: _Task, error: BgxError) -> None:
        """Send its pictures again, but for those that are done."""
        for out in list(task.pictures.values()):
            out.leave()
            out.error = error
            if out.outcome is not None:
                continue  # it is being looked for
            if out.job.create:
                self._look(out)
            else:
                self._retry(out)

    def _retry(self, out: _Out) -> None:
        """Send it again, unless that was done often enough."""
        if out.tries < TRIES:
            self._again.append(out)
            return
        error = out.error or CrashedError("it got lost")
        if isinstance(error, CrashedError):
            error = CrashedError(f"{out.job.source}: given up after {TRIES} tries: {error}")
        self._resolve(out, Failed(out.job, error))


def _describe(out: _Out) -> Picture:
    job = out.job
    review = None if job.review is None else _locate(job.review)
    return Picture(out.number, _locate(job.source), _locate(job.target), review)


def _locate(place: Any) -> str:
    """The name by which any machine finds it."""
    file: File = place
    return file.location


def _explain_unsearched(job: Job) -> BgxError | None:
    """The error of a folder in a picture's place, which only this machine can tell."""
    if hasattr(job.source, "location"):
        return None
    try:
        job.source.open()
    except OSError as error:
        return UnreadableError(f"{job.source}: cannot be read: {error.strerror or error}")
    return UnreadableError(f"{job.source}: cannot be read by other machines")


def _settle(out: _Out, outcome: Outcome) -> None:
    with suppress(Exception):  # cancelled by who left
        out.future.set_result(outcome)


def _cancel(future: Future[Any]) -> None:
    """Cancelled, and seen as such by those who wait."""
    if future.cancel():
        future.set_running_or_notify_cancel()
