"""Files that appear whole or not at all: the one writer of the project.

A file is written under a temporary name beside its target, brought to the disk, and renamed. What a
killed process leaves behind is told from what another one is writing by a lock on it, which the
system gives up with the process: names of machines and numbers of processes mean nothing among
containers that share a folder.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

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
"""Errors that may be gone in a moment: a virus scanner, a sync client or a file server has the file
open, somebody tidied up the folder."""

_MOMENT_S = 0.25


def write_whole(target: Path, *pieces: bytes, create: bool = False) -> bool:
    """Write or replace a file in one step; its folder is made where it is missing.

    pieces: of the file, one after the other. create: leave a file that is there as it is, unless it
    is empty; that nobody makes one meanwhile is certain where the file system has hard links.
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
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target.parent) as (temporary, stream):
        stream.writelines(pieces)
        stream.flush()
        # Whoever sees the name relies on the content, after a power cut too. The name itself may
        # get lost in one: then the file is made again.
        os.fsync(stream.fileno())
        if fcntl is None:
            stream.close()  # Windows renames no open file
        if create:
            return _move_unless_there(temporary, target)
        temporary.replace(target)
        return True


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file, locked while it is open, and gone afterwards unless it was renamed."""
    while True:
        # Not the target's name: with anything added it could become too long.
        path = folder / f".{os.urandom(8).hex()}.bgx-tmp"
        # Not tempfile: that makes files private; here the umask decides, as for any output.
        stream = path.open("xb")
        try:
            with stream:
                if _hold(stream):
                    yield path, stream
                    return
        finally:
            with suppress(OSError):
                path.unlink()


def _hold(stream: BinaryIO) -> bool:
    """Lock a file just made; False where somebody who cleans up came between."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here: its age protects it
    return os.fstat(stream.fileno()).st_nlink > 0


def _move_unless_there(temporary: Path, target: Path) -> bool:
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError:  # no hard links here
        if not target.exists():
            temporary.replace(target)
            return True
    else:
        return True
    if target.is_file() and target.stat().st_size == 0:
        temporary.replace(target)
        return True
    return False


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files that killed processes left in a folder; returns how many."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return 0
    return sum(_remove_leftover(folder / name) for name in names)


def _remove_leftover(path: Path) -> bool:
    try:
        with path.open("r+b") as stream:
            if _is_left(stream):
                if fcntl is None:
                    stream.close()
                path.unlink()
                return True
    except OSError:
        pass  # somebody else's, or gone
    return False


def _is_left(stream: BinaryIO) -> bool:
    """Whether nobody writes to a temporary file; where it is locked now, nobody will."""
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks here
        else:
            return True
    return time.time() - os.fstat(stream.fileno()).st_mtime > _LEFT_S
