"""Everything people read while bgx works: stderr, never stdout."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(line: str) -> None:
    """One line on stderr. Names of files that are not valid text are shown escaped."""
    stream = sys.stderr
    encoding = stream.encoding or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


class Console:
    """Messages and the progress bar, which share one terminal.

    quiet: errors alone. The bar is drawn only on a terminal.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None

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
    def progress(self, total: int) -> Iterator[None]:
        """Show the bar for as long as the block runs."""
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        from tqdm import tqdm

        with tqdm(total=total, unit="photo", dynamic_ncols=True, file=sys.stderr) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def advance(self, name: str) -> None:
        """One picture is finished."""
        if self._bar is not None:
            self._bar.set_postfix_str(name, refresh=False)
            self._bar.update()


class _Handler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.complain(self.format(record))


def set_up_logging(console: Console, verbose: int) -> None:
    """Show bgx's log: warnings, with ``-v`` information, with ``-vv`` everything."""
    logger = logging.getLogger("bgx")
    logger.handlers = [_Handler(console)]
    logger.setLevel([logging.WARNING, logging.INFO][verbose] if verbose < 2 else logging.DEBUG)
    # Pillow warns of odd metadata; a row of the report says what matters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
