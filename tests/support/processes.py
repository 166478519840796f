"""A command of bgx that runs until it is told to end, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeVar

from support.containers import enter
from support.shell import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass
class Running:
    """lines: of stderr, so far. patience: seconds until a wait fails its test."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    patience: ClassVar[float]

    def take(self, line: str) -> None:
        """Handle a line of stderr."""
        self.lines.append(line)

    def wait_for(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds."""
        end = time.monotonic() + self.patience
        while not reached():
            assert time.monotonic() < end, f"never: {what}; {self.lines[-20:]}"
            assert self.process.poll() is None, self.lines[-20:]
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(self.patience)


_Kind = TypeVar("_Kind", bound=Running)


@contextlib.contextmanager
def running(
    kind: type[_Kind],
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    group: Path | None = None,
) -> Iterator[_Kind]:
    """Run a command; it is killed where it has not ended.

    env: added to this process's. group: a control group to run in.
    """
    words = command(*arguments)
    process = subprocess.Popen(
        enter(group, *words) if group else words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    one = kind(process)

    def read() -> None:
        for line in process.stderr or ():
            one.take(line.rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield one
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()
