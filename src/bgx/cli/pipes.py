"""stdin and stdout as the source and the target of a picture."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bgx.cli.console import write_stdout
from bgx.errors import OutputError, UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from bgx.storage.base import File


@dataclass(frozen=True, slots=True)
class Stdin:
    """What comes in on stdin, as a picture's source."""

    def __str__(self) -> str:
        return "-"

    def link(self, page: File) -> str:
        """Empty: it lies nowhere."""
        return ""

    def open(self) -> BinaryIO:
        """All of it, in memory. Raises UsageError where stdin is closed, and OSError."""
        return io.BytesIO(read_stdin())


@dataclass(frozen=True, slots=True)
class Stdout:
    """stdout, as a picture's target."""

    def __str__(self) -> str:
        return "-"

    def link(self, page: File) -> str:
        """Empty: it lies nowhere."""
        return ""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        """Raises OutputError where it cannot be written, or its reader went away."""
        try:
            write_stdout(*pieces)
        except BrokenPipeError as error:
            raise OutputError("stdout: its reader went away") from error
        return True

    def is_there(self) -> bool:
        """Never: it has nothing before it is written."""
        return False


def read_stdin() -> bytes:
    """All of it. Raises UsageError where stdin is closed or cannot be read."""
    if sys.stdin is None:
        raise UsageError("stdin: is closed; redirect a file into it")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"stdin: cannot be read: {error.strerror}") from error
