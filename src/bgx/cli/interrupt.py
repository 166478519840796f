"""Ctrl-C and the signals that mean the same: the first one stops a run, the second one ends bgx."""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgx.errors import ExitCode
from bgx.signals import HANGUP, handling_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


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

        It takes no lock: the interrupted code may hold it.
        """
        if self.stopped():
            if number != HANGUP:
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

    On any thread but the main one, no signal is handled.
    """
    interruption = Interruption(notice)
    main = threading.current_thread() is threading.main_thread()
    with handling_stop(interruption.handle) if main else contextlib.nullcontext():
        yield interruption
