"""Ctrl-C and the signals that mean the same: the first one stops a run, the second one ends bgx."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgx.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed or the connection to it is lost. Windows has no such signal."""


class Interruption:
    """Handles Ctrl-C and the signals that mean the same.

    number: of the first signal. A second one ends bgx at once, unless it is SIGHUP, which may be
    sent twice when a terminal is closed.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.number: int | None = None
        self._notice = notice
        self._raises = False

    def stopped(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In this block no picture is in work: the first signal raises KeyboardInterrupt."""
        self._raises = True
        try:
            if self.stopped():
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler.

        It takes no lock: the thread that it interrupts, or a handler that it interrupts, may hold
        the same one.
        """
        if self.stopped():
            if number != _HANGUP:
                os._exit(ExitCode.INTERRUPTED)
            return
        self.number = number
        if self._raises:
            raise KeyboardInterrupt
        with contextlib.suppress(RuntimeError):  # the signal came while stderr was being written
            self._notice(
                "interrupted: finishing what is in work; press Ctrl-C again to stop at once"
            )


@contextmanager
def interruptible(notice: Callable[[str], None]) -> Iterator[Interruption]:
    """Handle Ctrl-C, SIGTERM and SIGHUP with an :class:`Interruption` while the block runs.

    Signals that bgx was started to ignore, as with nohup, stay ignored.
    """
    interruption = Interruption(notice)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: was for number, was in before.items() if was != signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, was in heeded.items():
            signal.signal(number, was)
