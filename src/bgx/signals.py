"""The signals that ask a program to stop."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed or the connection to it is lost. Windows has no such signal."""


@contextmanager
def handling_stop(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGINT (Ctrl-C), SIGTERM and SIGHUP while the block runs.

    Signals that are ignored already, as SIGHUP is with nohup, stay ignored. Only for the main
    thread.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = {number: was for number, was in before.items() if was != signal.SIG_IGN}
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in handled.items():
            signal.signal(number, was)
