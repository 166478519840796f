"""stdin and stdout as the source and the target of a picture."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from bgx.cli.console import write_stdout
from bgx.errors import OutputError, UsageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from bgx.storage.base import File


class Stdin:
    """stdin as the source of a picture."""

    def __str__(self) -> str:
        return "-"

    def link(self, page: File) -> str:
        """Empty: there is no file to link to."""
        return ""

    def open(self) -> BinaryIO:
        """Read all of it into memory. Raises UsageError if stdin is closed or cannot be read."""
        return io.BytesIO(read_stdin())


class Stdout:
    """stdout as the target of a picture."""

    def __str__(self) -> str:
        return "-"

    def link(self, page: File) -> str:
        """Empty: there is no file to link to."""
        return ""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        """Write the picture. Raises OutputError if that fails or the reader went away."""
        try:
            write_stdout(*pieces)
        except BrokenPipeError as error:
            raise OutputError("stdout: its reader went away") from error
        return True

    def is_there(self) -> bool:
        """Always False: stdout never has an earlier result."""
        return False


def read_stdin() -> bytes:
    """Read all of stdin. Raises UsageError if it is closed or cannot be read."""
    if sys.stdin is None:
        raise UsageError("stdin: is closed; redirect a file into it")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"stdin: cannot be read: {error.strerror}") from error
