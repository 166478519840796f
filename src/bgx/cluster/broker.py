"""Celery as bgx sets it up, and connections to the broker."""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery import Celery
from celery.exceptions import OperationalError
from kombu import Exchange, Queue
from kombu.utils.url import maybe_sanitize_url

from bgx.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kombu import Connection

TASK = "bgx.cut"

_SCHEMES = ("redis", "rediss", "redis+socket", "amqp", "amqps")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_ANSWER_S = 5.0
"""A broker that takes longer to answer is asked again, seconds."""

_REPLIES_S = 3600.0
"""Answers that nobody fetches, of a producer that was killed, are kept for so long, seconds."""

_FOREVER_S = 7 * 24 * 3600.0


def make_app(
    url: str, queues: Sequence[str], *, task_limit: float | None = None, **settings: Any
) -> Celery:
    """Celery with everything set that bgx relies on.

    task_limit: seconds after which a task is ended; None for a producer, which ends none. settings:
    more of Celery's. Raises UsageError for a URL of no broker and for names of no queues.
    """
    scheme = urlsplit(url).scheme
    for name in queues:
        if not _QUEUE.fullmatch(name):
            raise UsageError(f"queue {name!r}: use letters, digits, dot, underscore and hyphen")
    if scheme not in _SCHEMES:
        raise UsageError(f"--broker {show(url)}: use redis://HOST, rediss:// or amqp(s)://")
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        os.environ.pop(name, None)  # to Celery these would stand above --broker
    app = Celery("bgx", loader="app", set_as_current=True)
    app.conf.update(
        broker_url=url,
        broker_transport_options={"confirm_publish": True}
        if scheme.startswith("amqp")
        else _redis_options(task_limit),
        # What is open for longer would be cut by routers that forget quiet connections.
        broker_heartbeat=30,
        broker_connection_timeout=_ANSWER_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Nothing but JSON is read: a message carries no code.
        accept_content=["json"],
        task_serializer="json",
        task_queues=[_task_queue(name, scheme) for name in queues],
        task_default_queue=queues[0],
        # Answers go to the producer's own queue, see producer.py.
        task_ignore_result=True,
        task_create_missing_queues=False,
        # A task stays with the broker until it is done; one that is taken is worked on at once.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_time_limit=task_limit,
        # A forked copy of a process that has loaded a network hangs.
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=120.0,
        # Whoever reaches the broker could shut workers down with these.
        worker_enable_remote_control=False,
        worker_send_task_events=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        **settings,
    )
    if scheme in {"rediss", "amqps"} and "ssl_cert_reqs" not in url:
        # Celery's own default is to take any certificate.
        named = "ssl_cert_reqs" if scheme == "rediss" else "cert_reqs"
        app.conf.broker_use_ssl = {named: ssl.CERT_REQUIRED}
    return app


def _redis_options(task_limit: float | None) -> dict[str, Any]:
    return {
        # Beyond it Redis' clients give a task to the next worker: later than one can run. The
        # producer, which may be older or newer than the workers, gives none away.
        "visibility_timeout": _FOREVER_S if task_limit is None else 1.1 * task_limit + 5,
        "unacked_restore_limit": 100,
        "socket_connect_timeout": _ANSWER_S,
        "socket_timeout": 30.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _task_queue(name: str, scheme: str) -> Queue:
    """A queue of tasks; it needs nothing of the broker that an emptied one would lack."""
    arguments = {"x-queue-type": "quorum"} if scheme.startswith("amqp") else None
    return Queue(name, Exchange(""), routing_key=name, queue_arguments=arguments)


def reply_queue(name: str) -> Queue:
    """The queue that a producer gets its answers from."""
    return Queue(name, Exchange(""), routing_key=name, expires=_REPLIES_S)


def open_connection(app: Celery) -> Connection:
    """It connects when it is used; without heartbeats, for nobody sends them while it waits."""
    return app.connection_for_write(heartbeat=0)


def connect(app: Celery) -> Connection:
    """A connection that works. Raises BrokerError within half a minute."""
    connection = open_connection(app)
    try:
        connection.ensure_connection(max_retries=2, interval_start=1, timeout=20)
        connection.default_channel  # noqa: B018 - Redis is asked for the first time
    except (OperationalError, *troubles(connection)) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokerError(
            f"--broker {show(str(app.conf.broker_url))}: does not answer ({reason}); "
            "start it or correct the address"
        ) from None
    return connection


def troubles(connection: Connection) -> tuple[type[Exception], ...]:
    """What is raised where a broker cannot be reached or breaks off."""
    return (*connection.connection_errors, *connection.channel_errors, OperationalError, OSError)


def show(url: str) -> str:
    """The URL without its password."""
    return str(maybe_sanitize_url(url))
