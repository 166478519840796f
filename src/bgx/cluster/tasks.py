"""Functions that Celery calls: the task, and handlers of its signals.

Celery's worker has a parent process, which talks with the broker, and child processes, which run
the tasks.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import billiard
from celery import shared_task, signals

from bgx.cluster.broker import TASK, open_connection, troubles
from bgx.cluster.order import reply_of

if TYPE_CHECKING:
    from bgx.cluster.process import WorkerProcess

log = logging.getLogger(__name__)

_processes: list[WorkerProcess] = []
"""That of this process; empty before its first task."""


@shared_task(name=TASK, bind=True)
def cut(self: Any, message: object) -> None:
    """Cut out the pictures of a task."""
    if not _processes:
        _processes.append(_make_process(self.app))
    _processes[0].cut(self.request.id, message)


def _make_process(app: Any) -> WorkerProcess:
    # Imported here: it takes a second, and the worker's parent process does not need it.
    from bgx.cluster.process import WorkerProcess

    number = getattr(billiard.current_process(), "index", 0)
    return WorkerProcess(app, app.conf.bgx_worker, number)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """Connected to keep Celery from configuring logging; :func:`set_up_logging` does it."""


@signals.worker_process_init.connect
def _begin_process(**_: Any) -> None:
    """Have SIGTERM end the process only when its pictures are finished."""
    from celery import current_app

    set_up_logging(current_app.conf.bgx_worker.level)
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: object) -> None:
    for process in _processes:
        process.stop()


@signals.worker_process_shutdown.connect
def _end_process(**_: Any) -> None:
    while _processes:
        _processes.pop().close()


@signals.task_failure.connect
def _tell_lost(
    sender: Any = None, task_id: str = "", exception: object = None, args: Any = (), **_: Any
) -> None:
    """In the parent process: tell the producer that a child process ended in the middle of a task.

    The producer then sends the task's pictures again.
    """
    reply = reply_of(args[0]) if args else None
    if reply is None:
        return
    from bgx.cluster.answers import publish

    app = sender.app
    with open_connection(app) as connection:
        try:
            publish(connection, reply, [{"task": task_id, "lost": _explain(exception)}])
        except troubles(connection) as error:
            log.info("the broker does not answer: %s", error)


def _explain(exception: object) -> str:
    """The exception's text without the job number that billiard appends."""
    return str(exception).partition(" Job:")[0]


def set_up_logging(level: int) -> None:
    """Log to stderr: bgx from this level on, Celery from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("bgx: %(message)s"))
    for name, least in (("bgx", level), ("celery", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False
