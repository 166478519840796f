"""What `remove` and `batch` have in common: opening the report and the network, and Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bgx.cli.memory import keep_memory
from bgx.errors import BgxError, ExitCode, OutputError, UsageError
from bgx.files import lock
from bgx.storage import is_object, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from bgx.cli.options import Request
    from bgx.model.opening import PendingSession
    from bgx.model.session import Session
    from bgx.run.report import Report


_REPORT_S = 60.0
"""Seconds between two uploads of a report in an object store."""

_REPORT_BYTES = 64 << 20
"""A report larger than this is renamed: some 150,000 rows."""

_ROW_BYTES = 1 << 20
"""No row is longer than this."""

_HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed or the connection to it is lost. Windows has no such signal."""


@contextmanager
def open_report(name: str | None) -> Iterator[TextIO | None]:
    """Open the stream for ``--report``: a file, stdout for ``-``, None without the option."""
    if name is None:
        yield None
        return
    if name == "-":
        if sys.stdout is None:
            raise OutputError("--report -: cannot be written: stdout is closed")
        yield sys.stdout
        return
    stream = _ObjectReport(name) if is_object(name) else _open_locked(name)
    try:
        yield stream
    finally:
        # Rows are flushed one by one; an error in writing one has been raised already.
        with contextlib.suppress(OSError):
            stream.close()


class _ObjectReport(io.StringIO):
    """A report in an object store, where nothing can be appended: it is uploaded repeatedly."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._file = open_file(name)
        self._put()

    def flush(self) -> None:
        if time.monotonic() - self._last > _REPORT_S:
            self._put()

    def close(self) -> None:
        """Raises OutputError."""
        if not self.closed:
            self._put()
            super().close()

    def _put(self) -> None:
        try:
            self._file.write(self.getvalue().encode())
        except BgxError as error:
            raise OutputError(f"--report {error}") from error
        self._last = time.monotonic()


class RollingReport:
    """The report of a run without an end. Rows are appended; a large file is renamed.

    ``report.jsonl`` becomes ``report.jsonl.1``, the next one ``report.jsonl.2`` and so on. Raises
    UsageError and OutputError.
    """

    def __init__(self, name: str) -> None:
        if is_object(name):
            raise UsageError(f"--report {name}: bgx watch adds to its report; name a local file")
        self._name = name
        self._stream = _open_locked(name, keep=True)

    def write(self, text: str) -> None:
        """Raises OSError."""
        self._stream.write(text)

    def flush(self) -> None:
        """Raises OSError."""
        self._stream.flush()
        status = os.fstat(self._stream.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size > _REPORT_BYTES:
            path = Path(self._name)
            aside = (Path(f"{path}.{number}") for number in count(1))
            self._stream.close()  # Windows renames no open file
            with contextlib.suppress(OSError):  # it is tried again after the next row
                path.rename(next(name for name in aside if not os.path.lexists(name)))
            self._stream = _open_locked(self._name, keep=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()


def _open_locked(name: str, *, keep: bool = False) -> TextIO:
    """Open the file, and lock it for this run. Pipes and devices are not locked.

    keep: append to the rows that are there; otherwise they are deleted. An incomplete last row,
    left by a killed run, is deleted in any case.
    """
    if not name:
        raise UsageError("--report: the name is empty; is a variable of the command unset?")
    try:
        # Not "w", which would empty the file of another run.
        stream = Path(name).open("a", encoding="utf-8")  # noqa: SIM115 - closed by the caller
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            if not lock(stream):
                stream.close()
                raise UsageError(f"--report {name}: another run writes to it; name another file")
            stream.truncate(_find_end(name) if keep else 0)
    except OSError as error:
        raise OutputError(f"--report {name}: cannot be written: {error.strerror}") from error
    return stream


def _find_end(name: str) -> int:
    """Size of a report up to the end of its last complete row, bytes."""
    with Path(name).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = max(0, size - _ROW_BYTES)
        stream.seek(start)
        return start + stream.read().rfind(b"\n") + 1


def open_network(request: Request, *, pictures: int | None) -> PendingSession:
    """Find or download the network, and begin to load it on the requested device.

    pictures: how many will be processed, None if unknown.
    """
    from bgx.model.opening import PendingSession
    from bgx.model.store import Store

    keep_memory()
    store = Store(request.models)
    file = store.resolve(request.model, store.registry(), progress=not request.quiet)
    network = PendingSession(file, request.device, store, pictures=pictures)
    # While it loads, Pillow and all that reads pictures.
    from bgx.image.read import prepare_process

    prepare_process()
    return network


def note_network(report: Report, request: Request, session: Session) -> None:
    """Set the report's model, device and precision."""
    report.model = request.model or session.entry.name
    report.device, report.precision = session.device, session.precision


class Interruption:
    """Handles Ctrl-C and the signals that mean the same.

    stop: set by the first signal. number: of the first signal. A second one ends bgx at once,
    unless it is SIGHUP, which may be sent twice when a terminal is closed.
    """

    def __init__(self, notice: Callable[[str], None]) -> None:
        self.stop = threading.Event()
        self.number: int | None = None
        self._notice = notice
        self._raises = False

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In this block no picture is in work: the first signal raises KeyboardInterrupt."""
        self._raises = True
        try:
            if self.stop.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.stop.is_set():
            if number != _HANGUP:
                os._exit(ExitCode.INTERRUPTED)
            return
        self.number = number
        self.stop.set()
        if self._raises:
            raise KeyboardInterrupt
        with contextlib.suppress(RuntimeError):  # the signal came while stderr was being written
            self._notice(
                "interrupted: finishing what is in work; press Ctrl-C again to stop at once"
            )


@contextmanager
def interruptible(notice: Callable[[str], None]) -> Iterator[Interruption]:
    """Handle Ctrl-C, SIGTERM and SIGHUP with an :class:`Interruption` while the block runs.

    Signals that bgx was started to ignore, as with nohup, stay ignored.
    """
    interruption = Interruption(notice)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: was for number, was in before.items() if was != signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, was in heeded.items():
            signal.signal(number, was)
