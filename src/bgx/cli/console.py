"""Everything that bgx prints: messages on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bgx.errors import OutputError, show_text

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_stderr(line: str) -> None:
    """Print a line on stderr. An error in doing so is ignored: it must not end a batch."""
    stream = sys.stderr
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    line = show_text(line).encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError):
        stream.write(line + "\n")
        stream.flush()


def shorten(text: str) -> str:
    """Replace the middle of a long name by "…"; its end often distinguishes it from others."""
    return text if len(text) <= 32 else f"{text[:16]}…{text[-15:]}"


def print_result(line: str) -> None:
    """Print a line on stdout; file names keep their bytes. Raises as :func:`write_stdout`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        data = line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = line.encode(encoding, "backslashreplace")
    write_stdout(data + b"\n")


def write_stdout(*pieces: bytes) -> None:
    """Write bytes to stdout. Raises OutputError; BrokenPipeError if the reader went away."""
    if sys.stdout is None:
        raise OutputError("stdout: cannot be written: it is closed")
    try:
        sys.stdout.buffer.writelines(pieces)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: cannot be written: {error.strerror}") from error


class Console:
    """Messages and the progress bar, which share stderr.

    quiet: print only errors and warnings. The bar is drawn only on a terminal.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._total = 0

    def print_note(self, line: str) -> None:
        """Print a message that ``--quiet`` suppresses."""
        if not self._quiet:
            self.print_error(line)

    def print_error(self, line: str) -> None:
        """Print an error, or another message that ``--quiet`` does not suppress."""
        if self._bar is not None:
            self._bar.clear()
        write_stderr(f"bgx: {line}")

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show the progress bar while the block runs."""
        if self._quiet or sys.stderr is None or not sys.stderr.isatty():
            yield
            return
        from tqdm import tqdm

        with tqdm(total=self._total, unit="photo", dynamic_ncols=True, file=sys.stderr) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def expect(self, pictures: int) -> None:
        """Add to the number of pictures that the bar counts up to."""
        self._total += pictures
        if self._bar is not None:
            self._bar.total = self._total

    def advance(self, name: str) -> None:
        """Count one picture as finished."""
        if self._bar is not None:
            self._bar.set_postfix_str(shorten(show_text(name)), refresh=False)
            self._bar.update()


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._console.print_error(line)


def set_up_logging(console: Console, verbose: int) -> None:
    """Print bgx's log: warnings; with ``-v`` also information; with ``-vv`` everything."""
    logger = logging.getLogger("bgx")
    logger.handlers = [_Handler(console)]
    logger.setLevel([logging.WARNING, logging.INFO][verbose] if verbose < 2 else logging.DEBUG)
