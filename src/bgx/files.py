"""Files that appear whole or not at all: the one writer of the project.

A file is written under a temporary name beside its target, and renamed. What a
killed process leaves behind is told from what another one is writing by a lock, which the system
gives up with the process; names of machines and numbers of processes mean nothing among containers
that share a folder.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.bgx-tmp")

_LEFT_S = 3600.0
"""Where there are no locks: what nobody has written to for so long is left over, seconds."""

_PASSING = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EBUSY", "ETXTBSY", "ENOENT", "ESTALE")
    if hasattr(errno, name)
)
"""Errors that may be gone in a moment: a virus scanner, a sync client or a file server holds the
file, somebody tidied up the folder."""

_MOMENT_S = 0.25

_TRIES = 20


def write_whole(target: Path, *pieces: bytes, create: bool = False) -> bool:
    """Write or replace a file in one step; its folder is made where it is missing.

    pieces: of the file, one after the other. create: leave a file that is there as it is, unless it
    is empty; where the file system has hard links this holds against one made at the same time too.
    Returns whether the file was written. Raises OSError; nothing half-written stays.
    """
    try:
        return _write_once(target, pieces, create=create)
    except OSError as error:
        if error.errno not in _PASSING:
            raise
        time.sleep(_MOMENT_S)
        return _write_once(target, pieces, create=create)


def _write_once(target: Path, pieces: tuple[bytes, ...], *, create: bool) -> bool:
    make_folder(target.parent)
    with temporary(target.parent) as path:
        # Without fsync: 13 ms for the file of a 12-megapixel picture, a tenth of a batch with a
        # small network. What a power cut can leave is an empty file, which counts as none.
        with path.open("wb") as stream:
            stream.writelines(pieces)
        if create:
            return _move_unless_there(path, target)
        path.replace(target)
        return True


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, where it is missing. Raises OSError."""
    missing = []
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112 - Path's own raises
        missing.append(folder)
        folder = folder.parent
    # Not mkdir(parents=True), which recurses: a tree can be deeper than Python's stack.
    for path in reversed(missing):
        path.mkdir(exist_ok=True)


def _move_unless_there(source: Path, target: Path) -> bool:
    with suppress(OSError):  # it is there, or there are no hard links
        target.hardlink_to(source)
        return True
    if target.is_file() and target.stat().st_size:
        return False
    source.replace(target)  # an empty file, or a link to nothing; a folder raises
    return True


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """An empty file in a folder that is there, gone afterwards unless it was moved.

    :func:`remove_leftovers` lets it be, in this and in every other process. Raises OSError.
    """
    for _ in range(_TRIES):
        # Not named after its target: with anything added that could become too long.
        path = folder / f".{os.urandom(8).hex()}.bgx-tmp"
        # Not tempfile: that makes files private; here the umask decides, as for any output.
        stream = path.open("xb")
        try:
            with stream:
                if fcntl is None:
                    stream.close()  # Windows moves no open file
                elif not lock(stream) or not os.path.lexists(path):
                    continue  # somebody who cleans up came before the lock
                yield path
                return
        finally:
            with suppress(OSError):
                path.unlink()
    raise FileNotFoundError(errno.ENOENT, "temporary files vanish", str(folder))


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files that killed processes left in a folder; returns how many."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return 0
    return sum(_remove_if_left(folder / name) for name in names)


def _remove_if_left(path: Path) -> bool:
    try:
        with path.open("r+b") as stream:
            old = time.time() - os.fstat(stream.fileno()).st_mtime > _LEFT_S
            if fcntl is None:
                stream.close()  # Windows deletes no open file
            if lock(stream, otherwise=old):
                path.unlink()
                return True
    except OSError:
        pass  # another user's, or gone
    return False


def lock(stream: IO[Any], *, otherwise: bool = True) -> bool:
    """Whether this process has the file to itself from now on, until it closes it.

    otherwise: the answer where there are no locks, on Windows and on some network file systems.
    """
    if fcntl is None:
        return otherwise
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True
