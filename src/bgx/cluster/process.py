"""A worker's process: one engine with one network, which it keeps from task to task.

To Celery a task is done when its last picture has a place in the engine: Celery then delivers the
next task while the last pictures are finished, and no core is idle in between.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bgx.allocator import keep_memory
from bgx.cluster.answers import Answers, end_process
from bgx.cluster.order import make_job, read_order, reply_of, write_outcome
from bgx.errors import BgxError, BugError, ModelError, UsageError
from bgx.image.read import prepare_process
from bgx.machine import count_cores, memory_used
from bgx.model.opening import open_session
from bgx.model.registry import find_entry
from bgx.model.store import Store
from bgx.run.engine import Engine
from bgx.run.memory import plan_memory
from bgx.run.recipe import Recipe
from bgx.storage import is_object, open_folder
from bgx.threads import POLL

if TYPE_CHECKING:
    from concurrent.futures import Future

    from celery import Celery

    from bgx.cluster.answers import RunningTask
    from bgx.cluster.order import Order
    from bgx.cluster.settings import WorkerSettings
    from bgx.model.session import Session
    from bgx.model.store import ModelFile
    from bgx.run.outcome import Job, Outcome
    from bgx.settings import DeviceSettings

log = logging.getLogger(__name__)

_GIVE_BACK = 3
"""After the time limit divided by this, pictures that are not in work go back to the producer."""

_REFUSED_S = 3.0
"""Pause of a process that has refused a task, seconds: another worker may take the next one."""

_WATCH_S = 0.5
"""Seconds between two checks of the process's memory and time."""


def check_allowed(job: Job, allow: tuple[str, ...]) -> None:
    """Raise UsageError if the job reads or writes outside of the places in ``allow``.

    An empty ``allow`` permits all buckets, and no local folder.
    """
    for file in (job.source, job.target, job.review):
        if file is None:
            continue
        name = str(file)
        if not allow and is_object(name):
            continue
        # Reading follows a link at the end of the name, writing replaces it: of a file that is
        # written, only the folder's links count.
        place = open_folder(name if file is job.source else name.rpartition("/")[0] or "/")
        if not any(open_folder(root).contains(place) for root in allow):
            raise UsageError(
                f"{name}: the worker may not go there; start it with --allow and a place around it"
            )


class WorkerProcess:
    """Does the tasks of one process, which come one after the other.

    number: of the process in its worker, from 0; it chooses the device.
    """

    def __init__(self, app: Celery, settings: WorkerSettings, number: int) -> None:
        prepare_process()
        keep_memory()
        self._settings = settings
        self._device = settings.devices[number % len(settings.devices)]
        self._store = Store(settings.models)
        self._stopped = False
        self._session: tuple[tuple[str, str], Session] | None = None
        self._engine: Engine | None = None
        self._remote = False
        self._recipe: tuple[object, Recipe] | None = None
        self._answers = Answers(app)
        self._watch = _Watch(self._answers, settings.memory, settings.task_limit)

    def stop(self) -> None:
        """Start no more pictures; those in work are finished.

        It is called by a signal handler and takes no lock: the interrupted code may hold it.
        """
        self._stopped = True

    def close(self) -> None:
        """Finish the pictures in work, and send their outcomes."""
        self.stop()
        if self._engine is not None:
            self._engine.close()
        self._answers.close()

    def cut(self, task_id: str, message: object) -> None:
        """Cut out a task's pictures. Never raises: an error is sent to the producer."""
        reply = reply_of(message)
        if reply is None:
            log.warning("a task that names no queue for its answers was dropped")
            return
        task = self._answers.start_task(task_id, reply)
        try:
            self._cut(task, message)
        except Exception as error:  # noqa: BLE001 - sent to the producer
            if not isinstance(error, BgxError):
                error = BugError(f"unexpected {error!r}; please report this as a bug")
            log.warning("a task was refused: %s", error)
            self._answers.send(task, refused={"code": error.code, "message": str(error)})
            end = time.monotonic() + _REFUSED_S
            while not self._stopped and time.monotonic() < end:
                time.sleep(POLL)
        finally:
            self._answers.release(task)

    def _cut(self, task: RunningTask, message: object) -> None:
        order, pictures = read_order(message)
        output = order.output
        jobs = [(picture.number, make_job(picture, order, output)) for picture in pictures]
        for _, job in jobs:
            check_allowed(job, self._settings.allow)
        places = [place for _, job in jobs for place in (job.source, job.target)]
        engine = self._open(order, remote=any(is_object(str(place)) for place in places))
        recipe = self._make_recipe(order)
        if order.alone:
            self._answers.wait_for_others(task)
        end = time.monotonic() + self._settings.task_limit / _GIVE_BACK
        for place, (number, job) in enumerate(jobs):
            if self._stopped or time.monotonic() > end:
                self._answers.send(task, back=[number for number, _ in jobs[place:]])
                break
            self._answers.retain(task)
            future = engine.submit(job, recipe)
            future.add_done_callback(partial(self._send_outcome, task, number))
        if order.alone:
            self._answers.wait_for_pictures(task)

    def _send_outcome(self, task: RunningTask, number: int, future: Future[Outcome]) -> None:
        self._answers.send(task, rows=[[number, write_outcome(future.result())]])
        self._answers.release(task)

    def _make_recipe(self, order: Order) -> Recipe:
        key = (order.layers, order.read, order.preview)
        if self._recipe is None or self._recipe[0] != key:
            self._recipe = key, Recipe(order.read, order.output, preview=order.preview)
        return self._recipe[1]

    def _open(self, order: Order, *, remote: bool) -> Engine:
        """The engine for a task; a new one if this task differs. Raises ModelError and DeviceError.

        remote: as for :class:`bgx.run.engine.Engine`.
        """
        key = (order.hash, order.precision)
        if self._session is None or self._session[0] != key:
            device = replace(self._device, precision=order.precision)
            session = open_session(self._find(order), device, self._store)
            self._answers.device = session.device, session.precision
            self._close_engine()
            self._session = key, session
        if self._engine is None or remote != self._remote:
            self._close_engine()
            session = self._session[1]
            most = self._device.workers or count_cores()
            memory = plan_memory(most, session.entry.largest, limit=self._settings.memory)
            self._remote = remote
            self._engine = Engine(
                lambda _: session, workers=self._device.workers, memory=memory, remote=remote
            )
        return self._engine

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _find(self, order: Order) -> ModelFile:
        """The task's network on this machine. Raises ModelError, also for a wrong hash."""
        registry = self._store.registry()
        if self._settings.model is not None:
            file = self._store.resolve(self._settings.model, registry)
        else:
            # Not `resolve`, which would also open a file of that name.
            file = self._store.download(find_entry(registry, order.model))
        if order.hash not in (file.digest, file.entry.hash):
            raise ModelError(
                f"{order.model}: the task is for a network of hash {order.hash}, this worker's is "
                f"{file.digest}; start the worker with the same file: bgx worker --model FILE.onnx"
            )
        return file


def load_network(settings: WorkerSettings, device: DeviceSettings) -> str:
    """Load the network as a process does, and describe it. Raises ModelError and DeviceError."""
    prepare_process()
    store = Store(settings.models)
    file = store.resolve(settings.model, store.registry())
    session = open_session(file, device, store)
    return f"{file.entry.name} {file.digest} on {session.device} in {session.precision}"


class _Watch:
    """Kills the process when it exceeds its memory or time: a call that hangs cannot be stopped."""

    def __init__(self, answers: Answers, memory: int, limit: float) -> None:
        self._answers = answers
        self._memory = memory
        self._limit = limit
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            used = memory_used()
            if used > self._memory:
                end_process(f"takes {used:,} bytes of memory, more than --memory {self._memory:,}")
            if time.monotonic() > self._answers.oldest_start + self._limit:
                end_process(f"takes more than {self._limit:g} s for a task; see --task-limit")
