"""Errors of the system, by the hook that Python calls before it asks the system for something.

The hook (:func:`sys.addaudithook`) may raise, which the caller meets as if the system had refused.
What it is called with for each event is in the table of audit events of Python's documentation.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class _Fault:
    events: tuple[str, ...]
    error: BaseException
    meant: Callable[..., bool]
    after: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in self.events or not self.meant(*arguments):
            return
        with self.lock:
            self.after -= 1
            if self.after >= 0:
                return
        raise self.error


_faults: list[_Fault] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _faults:
        for fault in tuple(_faults):
            fault.meet(event, arguments)


@contextmanager
def failing(
    events: str,
    error: BaseException,
    meant: Callable[..., bool] = lambda *_: True,
    *,
    after: int = 0,
) -> Iterator[None]:
    """Have what events announce fail, in every thread of this process.

    events: their names, with spaces between. meant: of an event's arguments, whether this one
    fails. after: how many of those are let through first.
    """
    if not _installed:
        sys.addaudithook(_hook)  # it cannot be taken away again
        _installed.append(True)
    fault = _Fault(tuple(events.split()), error, meant, after)
    _faults.append(fault)
    try:
        yield
    finally:
        _faults.remove(fault)


@contextmanager
def no_threads() -> Iterator[None]:
    """Have the system refuse every new thread: no address space holds such a stack."""
    before = threading.stack_size(1 << 50)
    try:
        yield
    finally:
        threading.stack_size(before)
