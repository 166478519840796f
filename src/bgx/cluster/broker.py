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
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import maybe_sanitize_url

from bgx.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kombu import Connection

TASK = "bgx.cut"

_SCHEMES = ("redis", "rediss", "redis+socket", "amqp", "amqps")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_CONNECT_S = 5.0
"""Timeout of one attempt to connect, seconds."""

_REPLIES_S = 3600.0
"""Seconds after which the broker deletes an unused queue for answers: its producer was killed."""

_PRODUCER_S = 7 * 24 * 3600.0
"""Visibility timeout of a producer, seconds: longer than any worker's."""


def make_app(
    url: str, queues: Sequence[str], *, task_limit: float | None = None, **settings: Any
) -> Celery:
    """Celery's application with all the settings that bgx relies on.

    url: the broker's. queues: names of the task queues; a producer sends to the first. task_limit:
    seconds after which a worker ends a task; None for a producer. settings: further settings of
    Celery. Raises UsageError for an unknown kind of URL, and a malformed URL or queue name.
    """
    scheme = _read_scheme(url)
    for name in queues:
        if not _QUEUE.fullmatch(name):
            raise UsageError(f"queue {name!r}: use letters, digits, dot, underscore and hyphen")
    if scheme not in _SCHEMES:
        raise UsageError(f"--broker {show(url)}: use redis://HOST, rediss:// or amqp(s)://")
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        os.environ.pop(name, None)  # Celery prefers these to --broker
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "bgx.cluster.redis:Transport"))
    app = Celery("bgx", loader="app", set_as_current=True)
    app.conf.update(
        broker_url=url,
        broker_transport_options={"confirm_publish": True}
        if scheme.startswith("amqp")
        else _redis_options(task_limit),
        # Routers drop connections that are quiet for longer.
        broker_heartbeat=30,
        broker_connection_timeout=_CONNECT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Redis without memory refuses even acknowledgements, at which a worker would end. What
        # RabbitMQ refuses, it always refuses.
        broker_channel_error_retry=not scheme.startswith("amqp"),
        # Only JSON is accepted: unlike pickle, it cannot contain code.
        accept_content=["json"],
        task_serializer="json",
        task_queues=[_task_queue(name, scheme) for name in queues],
        task_default_queue=queues[0],
        # Answers go to a queue of the producer (reply_queue), not to a result backend.
        task_ignore_result=True,
        task_create_missing_queues=False,
        # Acknowledged when done, and none is prefetched: a killed worker loses no task.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_time_limit=task_limit,
        # ONNX Runtime hangs in a process that was forked after it was loaded.
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=120.0,
        # Remote control would let anybody who reaches the broker shut workers down.
        worker_enable_remote_control=False,
        worker_send_task_events=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        **settings,
    )
    if scheme in {"rediss", "amqps"} and "ssl_cert_reqs" not in url:
        # Celery's default accepts any certificate.
        named = "ssl_cert_reqs" if scheme == "rediss" else "cert_reqs"
        app.conf.broker_use_ssl = {named: ssl.CERT_REQUIRED}
    return app


def _read_scheme(url: str) -> str:
    """The scheme of the broker's URL. Raises UsageError, without the URL, if it is malformed."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # What is taken for the port may be a part of the password.
        raise UsageError(
            "--broker: cannot be read as a URL; use redis://:PASSWORD@HOST:PORT, and write / # ? @ "
            "of a password as %2F %23 %3F %40"
        ) from None
    return parts.scheme


def _redis_options(task_limit: float | None) -> dict[str, Any]:
    return {
        # Every client of Redis redelivers tasks that are not acknowledged for so long. For workers
        # that is longer than a task can run. A producer does not know their limit, and redelivers
        # none.
        "visibility_timeout": _PRODUCER_S if task_limit is None else 1.1 * task_limit + 5,
        "unacked_restore_limit": 100,
        "socket_connect_timeout": _CONNECT_S,
        "socket_timeout": 30.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _task_queue(name: str, scheme: str) -> Queue:
    """A task queue. It uses the default exchange, which exists even in a broker without data."""
    arguments = {"x-queue-type": "quorum"} if scheme.startswith("amqp") else None
    return Queue(name, Exchange(""), routing_key=name, queue_arguments=arguments)


def reply_queue(name: str) -> Queue:
    """The queue of this name, from which a producer gets its answers."""
    return Queue(name, Exchange(""), routing_key=name, expires=_REPLIES_S)


def open_connection(app: Celery) -> Connection:
    """A connection that connects when it is first used.

    It has no AMQP heartbeats: nothing would send them while its thread does other work. Raises
    UsageError for an unknown parameter in the URL.
    """
    try:
        return app.connection_for_write(heartbeat=0)
    except TypeError:
        raise UsageError(f"--broker {_named(app)}: a parameter after the ? is unknown") from None


def connect(app: Celery) -> Connection:
    """Connect at once. Raises UsageError for a part of the URL that cannot be, BrokerError after at
    most half a minute.
    """
    connection = open_connection(app)
    try:
        connection.ensure_connection(max_retries=2, interval_start=1, timeout=20)
        connection.default_channel  # noqa: B018 - only this contacts Redis
    except ValueError as error:  # a database that is no number
        raise UsageError(f"--broker {_named(app)}: {error}") from None
    except (OperationalError, *troubles(connection)) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokerError(
            f"--broker {_named(app)}: does not answer ({reason}); start it or correct the address"
        ) from None
    return connection


def _named(app: Celery) -> str:
    return show(str(app.conf.broker_url))


def troubles(connection: Connection) -> tuple[type[Exception], ...]:
    """The exceptions raised if the broker cannot be reached or the connection breaks."""
    return (*connection.connection_errors, *connection.channel_errors, OperationalError, OSError)


def show(url: str) -> str:
    """The URL without its password."""
    return str(maybe_sanitize_url(url))
