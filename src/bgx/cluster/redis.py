"""kombu's transport for Redis, except that it drops malformed messages.

Celery does not check the form of messages: a worker ends at a malformed one, which then goes back
to the queue and to the next worker.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from kombu.transport import redis

log = logging.getLogger(__name__)

_UNUSED = ("compression", "eta", "expires", "group", "shadow")
"""Headers that bgx never sets in a task."""

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Raised by kombu, or here, for a message whose parts have the wrong types."""


class _Message(redis.Channel.Message):  # type: ignore[misc]
    """A message; making one raises one of _UNREADABLE unless it has the form of bgx's own."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        super().__init__(payload, channel=channel, **options)
        if not self._is_well_formed(payload):
            raise ValueError("not a message of bgx")

    def _is_well_formed(self, payload: Any) -> bool:
        info = self.properties["delivery_info"]
        texts = (*map(payload.get, ("body", "content-type", "content-encoding")), self.delivery_tag)
        return (
            all(isinstance(text, str) for text in (*texts, info["exchange"], info["routing_key"]))
            and isinstance(self.properties.get("priority", 0), int)
            and self.content_type == "application/json"
            and (self._is_task() if self.headers else json.loads(self.body).keys() == {"answers"})
        )

    def _is_task(self) -> bool:
        """Whether it calls a task with one argument, and no task or callback after it."""
        headers = self.headers
        [_], keywords, chain = json.loads(self.body)
        return (
            isinstance(headers["task"], str)
            and isinstance(headers["id"], str)
            and type(headers.get("retries", 0)) is int
            and headers.get("timelimit") in (None, [None, None])
            and all(headers.get(name) is None for name in _UNUSED)
            and keywords == {}
            and all(value is None for value in chain.values())
        )


class _Channel(redis.Channel):  # type: ignore[misc]
    Message = _Message

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver a message to its consumer, as kombu's event loop does."""
        try:
            return super()._brpop_read(**options)
        except _UNREADABLE as error:
            return _drop(error)

    def _get(self, queue: str) -> Any:
        """Fetch a message. Raises Empty."""
        while True:
            try:
                payload = super()._get(queue)
                self.Message(payload, channel=self)
            except _UNREADABLE as error:
                _drop(error)
            else:
                return payload


class Transport(redis.Transport):  # type: ignore[misc]
    """Like kombu's own, with the channel above."""

    Channel = _Channel


def _drop(error: Exception) -> bool:
    log.warning("a malformed message of the broker was dropped: %r", error)
    return True
