"""Everything bgx prints: messages on stderr, what was asked for on stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bgx.errors import OutputError, show_text

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(line: str) -> None:
    """One line on stderr. A stderr that is gone is no reason to end a batch."""
    stream = sys.stderr
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    line = show_text(line).encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError):
        stream.write(line + "\n")
        stream.flush()


def shorten(text: str, width: int = 32) -> str:
    """A long name loses its middle: its end often tells it from others."""
    half = width // 2
    return text if len(text) <= width else f"{text[:half]}…{text[1 - half :]}"


def put(line: str) -> None:
    """One line on stdout, names of files byte for byte. Raises as :func:`put_bytes`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        data = line.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = line.encode(encoding, "backslashreplace")
    put_bytes(data + b"\n")


def put_bytes(*pieces: bytes) -> None:
    """To stdout. Raises OutputError, and BrokenPipeError where the reader went away."""
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
    """Messages and the progress bar, which share one terminal.

    quiet: errors alone. The bar is drawn only on a terminal.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._total = 0

    def tell(self, line: str) -> None:
        """A notice; not with ``--quiet``."""
        if not self._quiet:
            self.complain(line)

    def complain(self, line: str) -> None:
        """What the user must see."""
        if self._bar is not None:
            self._bar.clear()
        say(f"bgx: {line}")

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show the bar for as long as the block runs."""
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
        """So many more are to be done."""
        self._total += pictures
        if self._bar is not None:
            self._bar.total = self._total

    def advance(self, name: str) -> None:
        """One picture is finished."""
        if self._bar is not None:
            self._bar.set_postfix_str(shorten(show_text(name)), refresh=False)
            self._bar.update()


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._console.complain(line)


def set_up_logging(console: Console, verbose: int) -> None:
    """Show bgx's log: warnings, with ``-v`` information, with ``-vv`` everything."""
    logger = logging.getLogger("bgx")
    logger.handlers = [_Handler(console)]
    logger.setLevel([logging.WARNING, logging.INFO][verbose] if verbose < 2 else logging.DEBUG)
