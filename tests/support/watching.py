"""A real ``bgx watch`` in a process of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from support.processes import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Watch(Running):
    """A running ``bgx watch``."""

    patience = 120

    def wait_for_line(self, part: str) -> None:
        self.wait_for(lambda: any(part in line for line in list(self.lines)), part)


@contextlib.contextmanager
def watching(*arguments: str | Path) -> Iterator[Watch]:
    """Run ``bgx watch``, and wait until it watches."""
    with running(Watch, "watch", *arguments) as watch:
        watch.wait_for_line("watching ")
        yield watch
