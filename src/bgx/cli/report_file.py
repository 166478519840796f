"""The file of ``--report``: on disk and locked for this run, in an object store, or stdout."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import BgxError, OutputError, UsageError
from bgx.files import lock
from bgx.storage import is_object, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from bgx.run.report import Stream

_REPORT_S = 60.0
"""Seconds between two uploads of a report in an object store."""

_REPORT_BYTES = 64 << 20
"""Size at which a report is renamed, bytes: some 150,000 rows."""

_ROW_BYTES = 1 << 20
"""Longest possible row, bytes."""


@contextmanager
def open_report(name: str | None) -> Iterator[Stream | None]:
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
    with contextlib.closing(stream):
        yield stream


class _ObjectReport(io.StringIO):
    """A report in an object store, where nothing can be appended: it is uploaded repeatedly."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
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


class _LocalReport:
    """A report on this machine. It ends with a complete row, even where the disk is full."""

    def __init__(self, name: str, file: FileIO) -> None:
        self.name = name
        self._file = file

    @property
    def closed(self) -> bool:
        return self._file.closed

    def status(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def write(self, text: str) -> None:
        """Write a row at once. Raises OSError; the file is then as it was."""
        size = self.status().st_size
        rest = text.encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a pipe has no size
                self._file.truncate(size)
            raise

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a row; it has been raised already
            self._file.close()


class RollingReport:
    """The report of an endless run. Rows are appended; a large file is renamed.

    ``report.jsonl`` becomes ``report.jsonl.1``, the next one ``report.jsonl.2`` and so on. If it is
    moved away or deleted, it is made again. Raises UsageError and OutputError.
    """

    def __init__(self, name: str) -> None:
        if is_object(name):
            raise UsageError(f"--report {name}: bgx watch adds to its report; name a local file")
        self.name = name
        self._stream = _open_locked(name, keep=True)

    def write(self, text: str) -> None:
        """Raises OSError, and OutputError and UsageError if the file has to be made again."""
        if self._is_gone():
            self._stream.close()
            self._stream = _open_locked(self.name, keep=True)
        self._stream.write(text)

    def _is_gone(self) -> bool:
        """Whether the file was put aside, or somebody has moved or deleted it."""
        if self._stream.closed:
            return True
        status = self._stream.status()
        try:
            return stat.S_ISREG(status.st_mode) and not os.path.samestat(
                Path(self.name).stat(), status
            )
        except OSError:
            return True

    def flush(self) -> None:
        """Put the file aside if it is large."""
        status = self._stream.status()
        if stat.S_ISREG(status.st_mode) and status.st_size > _REPORT_BYTES:
            path = Path(self.name)
            aside = (Path(f"{path}.{number}") for number in count(1))
            self._stream.close()  # Windows renames no open file
            with contextlib.suppress(OSError):  # it is tried again after the next row
                path.rename(next(name for name in aside if not os.path.lexists(name)))

    def close(self) -> None:
        self._stream.close()


def _open_locked(name: str, *, keep: bool = False) -> _LocalReport:
    """Open the file, and lock it for this run. Pipes and devices are not locked.

    keep: append to the rows that are there; otherwise they are deleted. An incomplete last row,
    left by a killed run, is deleted in any case.
    """
    if not name:
        raise UsageError("--report: the name is empty; is a variable of the command unset?")
    try:
        # Not "w", which would empty the file of another run.
        file = Path(name).open("ab", buffering=0)  # noqa: SIM115 - closed by the caller
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            if not lock(file):
                file.close()
                raise UsageError(f"--report {name}: another run writes to it; name another file")
            file.truncate(_find_end(name) if keep else 0)
    except OSError as error:
        raise OutputError(f"--report {name}: cannot be written: {error.strerror}") from error
    return _LocalReport(name, file)


def _find_end(name: str) -> int:
    """Size of a report up to the end of its last complete row, bytes."""
    with Path(name).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        start = max(0, size - _ROW_BYTES)
        stream.seek(start)
        return start + stream.read().rfind(b"\n") + 1
