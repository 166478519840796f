"""A real ``bgx watch`` in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.shell import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 120


@dataclass
class Watch:
    """lines: of stderr, so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def wait_for(self, reached: Callable[[], bool], what: str) -> None:
        """Ask again and again until something holds."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < end, f"never: {what}; {self.lines[-20:]}"
            assert self.process.poll() is None, self.lines[-20:]
            time.sleep(0.02)

    def wait_for_line(self, part: str) -> None:
        self.wait_for(lambda: any(part in line for line in list(self.lines)), part)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def watching(*arguments: str | Path) -> Iterator[Watch]:
    """Run ``bgx watch``, and wait until it watches."""
    process = subprocess.Popen(
        command("watch", *arguments), stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    watch = Watch(process)

    def read() -> None:
        for line in process.stderr or ():
            watch.lines.append(line.rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        watch.wait_for_line("watching ")
        yield watch
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()
