"""Runs Celery's worker with bgx's task, and checks what a worker needs (``--check``)."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import billiard
from celery.apps.worker import Worker
from celery.platforms import SecurityWarning
from celery.worker import state

from bgx.cluster.answers import publish
from bgx.cluster.broker import connect, make_app, reply_queue, show, troubles
from bgx.cluster.order import make_reply_name
from bgx.errors import BgxError, BrokerError, ExitCode, UsageError, amount
from bgx.storage import is_object, open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bgx.cluster.settings import WorkerSettings
    from bgx.settings import DeviceSettings

log = logging.getLogger(__name__)

_SOFT = 0.7
"""A process that uses more than this fraction of its memory is replaced after its task."""

_REPEAT_S = 60.0
"""Least time between two equal messages of Celery in the log, seconds."""


def run_worker(
    broker: str, queues: Sequence[str], settings: WorkerSettings, tell: Callable[[str], None]
) -> int:
    """Run a worker until a signal ends it; returns its exit code.

    broker: its URL. queues: names of the task queues. tell: called with messages for the user.

    Raises UsageError, and BrokerError if the broker does not answer.
    """
    for place in settings.allow:
        _check_place(place)
    count = len(settings.devices)
    app = make_app(
        broker,
        queues,
        task_limit=settings.task_limit,
        include=["bgx.cluster.tasks"],
        worker_max_memory_per_child=int(_SOFT * settings.memory / 1024),
        bgx_worker=settings,
    )
    connect(app).release()
    celery = logging.getLogger("celery")
    celery.handlers = [_CeleryLog(max(settings.level, logging.WARNING))]
    celery.propagate = False
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        tell("runs as root, and takes orders from whoever reaches the broker: use another user")
    tell(
        f"takes tasks of {', '.join(queues)} from {show(broker)}, in {count} "
        f"process{'es' if count > 1 else ''}; Ctrl-C ends it when its pictures are done"
    )
    # Billiard's semaphore tracker, a process of its own, would warn of leaked semaphores after the
    # worker's end; the system has freed them by then.
    quiet = "ignore:semaphore_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), quiet]))
    # bgx's workers do not listen to each other, so they need not exchange messages.
    worker = _Worker(
        app=app, concurrency=count, quiet=True, without_gossip=True, without_mingle=True
    )
    worker.start()
    return int(worker.exitcode or ExitCode.OK)


class _CeleryLog(logging.Handler):
    """Passes on what Celery logs in the parent process, as one line and without a traceback.

    While the broker refuses or does not answer, Celery says so several times a second.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._next: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._next.get(record.msg, 0.0):
            self._next[record.msg] = now + _REPEAT_S
            log.log(record.levelno, "%s", " ".join(record.getMessage().split()))


class _Worker(Worker):  # type: ignore[misc]
    """Celery's worker, which SIGINT and SIGTERM end alike: gently, and the second one at once."""

    def on_before_init(self, **options: Any) -> None:
        # Billiard would log the start of each process.
        billiard.util.get_logger().setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # said by run_worker
            super().on_before_init(**options)

    def install_platform_tweaks(self, worker: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        """Have the processes finish their pictures; at the second signal, kill them."""
        if state.should_stop is not None:
            for process in billiard.active_children():
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL)
            os._exit(ExitCode.INTERRUPTED)
        state.should_stop = int(ExitCode.OK)
        for process in billiard.active_children():
            with suppress(OSError):
                os.kill(process.pid, signal.SIGTERM)


def check_worker(
    broker: str, queues: Sequence[str], settings: WorkerSettings
) -> Iterator[tuple[str, str | BgxError]]:
    """Check what a worker needs: yields each thing's name, and its description or its error."""

    def attempt(check: Callable[[], str]) -> str | BgxError:
        try:
            return check()
        except BgxError as error:
            return error

    yield "broker", attempt(lambda: _check_broker(broker, queues))
    for place in settings.allow:
        yield "storage", attempt(lambda place=place: _check_place(place))  # type: ignore[misc]
    if not settings.allow:
        yield "storage", "all buckets that the environment has credentials for, and no folder"
    for device in settings.devices:
        yield "network", attempt(lambda device=device: _check_network(settings, device))  # type: ignore[misc]


def _check_broker(broker: str, queues: Sequence[str]) -> str:
    """Raises UsageError and BrokerError."""
    app = make_app(broker, queues)
    counts = []
    with connect(app) as connection:
        try:
            for queue in app.conf.task_queues:
                waiting = queue(connection.default_channel).queue_declare().message_count
                counts.append(f"{amount(waiting, 'task')} in {queue.name}")
            # Only writing shows that tasks can be taken and answered: a replica refuses it.
            answers = reply_queue(make_reply_name())(connection.default_channel)
            publish(connection, answers.name, [])
            answers.get(no_ack=True)
            answers.delete()
        except troubles(connection) as error:
            raise BrokerError(f"--broker {show(broker)}: refuses to serve ({error})") from None
    return f"{show(broker)}, {', '.join(counts)}"


def _check_place(name: str) -> str:
    """Raises UsageError, OutputError and UnwritableError."""
    folder = open_folder(name)
    if is_object(name):
        folder.make()
    else:
        status = folder.status()
        if status is None or status.kind != "folder":
            raise UsageError(f"--allow {name}: no such folder; make it or mount it first")
    folder.check_writable()
    return str(folder)


def _check_network(settings: WorkerSettings, device: DeviceSettings) -> str:
    # Imported here: a worker's parent process loads no network.
    from bgx.cluster.process import load_network

    return load_network(settings, device)
