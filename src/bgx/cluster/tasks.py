"""What Celery calls: in the worker's processes the task, in the worker itself when one is lost."""

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
    from bgx.cluster.hand import Hand

log = logging.getLogger(__name__)

_hands: list[Hand] = []
"""The one of this process, once it has begun."""


@shared_task(name=TASK, bind=True)
def cut(self: Any, message: object) -> None:
    """Cut out the pictures of a task."""
    if not _hands:
        _hands.append(_make_hand(self.app))
    _hands[0].cut(self.request.id, message)


def _make_hand(app: Any) -> Hand:
    # What it imports takes a second, which the worker itself need not spend.
    from bgx.cluster.hand import Hand

    number = getattr(billiard.current_process(), "index", 0)
    return Hand(app, app.conf.bgx_worker, number)


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    """bgx does it: without this Celery would."""


@signals.worker_process_init.connect
def _begin_process(**_: Any) -> None:
    """A process asked to end finishes its pictures, by whomever it is asked."""
    from celery import current_app

    set_up_logging(current_app.conf.bgx_worker.level)
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: object) -> None:
    for hand in _hands:
        hand.stop()


@signals.worker_process_shutdown.connect
def _end_process(**_: Any) -> None:
    while _hands:
        _hands.pop().close()


@signals.task_failure.connect
def _tell_lost(
    sender: Any = None, task_id: str = "", exception: object = None, args: Any = (), **_: Any
) -> None:
    """In the worker: a process ended in mid-task. The producer sends its pictures again."""
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
    """Without Celery's own number of the task."""
    return str(exception).partition(" Job:")[0]


def set_up_logging(level: int) -> None:
    """bgx's lines and Celery's warnings, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("bgx: %(message)s"))
    for name, least in (("bgx", level), ("celery", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(least)
        logger.propagate = False
