"""Atomic file writing: a file appears complete or not at all. All of bgx writes files with this.

A file is written under a temporary name in the folder of its target, and renamed. While it is being
written it is locked, and the system releases the lock when the process ends: a temporary file that
is not locked was left by a killed process and can be deleted. (Host names and process numbers would
not tell: containers that share a folder may have the same ones.)
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from itertools import count
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
"""Without locks: the age, in seconds, from which a temporary file counts as left behind."""

_PASSING = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EBUSY", "ETXTBSY", "ENOENT", "ESTALE")
    if hasattr(errno, name)
)
"""Errors worth a second try: a virus scanner, a sync client or a file server held the file, or
somebody deleted it."""

_MOMENT_S = 0.25

_TRIES = 20


def write_whole(target: Path, *pieces: bytes, create: bool = False, private: bool = False) -> bool:
    """Create or replace a file atomically; a missing folder is created.

    pieces: the file's content, in parts. create: do not replace an existing file, unless it is
    empty; on file systems with hard links, this includes a file that another process creates at the
    same time. private: only the owner may read it; otherwise the umask decides. Returns whether the
    file was written. Raises OSError; no partial file remains.
    """
    try:
        return _write_once(target, pieces, create=create, private=private)
    except OSError as error:
        if error.errno not in _PASSING:
            raise
        time.sleep(_MOMENT_S)
        return _write_once(target, pieces, create=create, private=private)


def _write_once(target: Path, pieces: tuple[bytes, ...], *, create: bool, private: bool) -> bool:
    make_folder(target.parent)
    with temporary(target.parent) as path:
        if private:
            path.chmod(0o600)
        # Without fsync, which takes 13 ms for a 12-megapixel picture: a tenth of a batch's time
        # with a small network. A power cut can leave an empty file, which counts as missing.
        with path.open("wb") as stream:
            stream.writelines(pieces)
        if create:
            return _move_unless_there(path, target)
        path.replace(target)
        return True


def make_folder(folder: Path) -> None:
    """Create a folder and its parents where they are missing. Raises OSError."""
    missing = []
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112 - Path's own raises
        missing.append(folder)
        folder = folder.parent
    # Not mkdir(parents=True), which recurses: a tree can be deeper than Python's recursion limit.
    for path in reversed(missing):
        path.mkdir(exist_ok=True)


def _move_unless_there(source: Path, target: Path) -> bool:
    with suppress(OSError):  # the target exists, or the file system has no hard links
        target.hardlink_to(source)
        return True
    if target.is_file() and target.stat().st_size:
        return False
    source.replace(target)  # replaces an empty file or a dangling link; a folder raises
    return True


def move_aside(source: Path, target: Path) -> Path:
    """Move a file to a name that is free: ``a.jpg``, else ``a-2.jpg`` and so on.

    The folder is made if it is missing. No file is overwritten, and the source is deleted only when
    the whole file is in its new place. Returns the new path; raises OSError.
    """
    make_folder(target.parent)
    for number in count(1):
        path = target if number == 1 else target.with_stem(f"{target.stem}-{number}")
        if not os.path.lexists(path):
            with suppress(FileExistsError):  # somebody was faster
                _move(source, path)
                return path
    raise AssertionError("numbers do not end")


def _move(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno != errno.EXDEV:  # there are no hard links
            source.rename(target)
            return
        with temporary(target.parent) as path:
            shutil.copy2(source, path)
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())
            if not _move_unless_there(path, target):
                raise FileExistsError(errno.EEXIST, "is there", str(target)) from None
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new empty file in an existing folder; deleted at the end unless it was moved away.

    Until then :func:`remove_leftovers` keeps it, in this and any other process. Raises OSError.
    """
    for _ in range(_TRIES):
        # Not the target's name with a suffix: that could be too long for the file system.
        path = folder / f".{os.urandom(8).hex()}.bgx-tmp"
        # Not tempfile, whose files are private: permissions are to follow the umask.
        stream = path.open("xb")
        try:
            with stream:
                if fcntl is None:
                    stream.close()  # Windows moves no open file
                elif not lock(stream) or not os.path.lexists(path):
                    continue  # another process's remove_leftovers was faster than our lock
                yield path
                return
        finally:
            with suppress(OSError):
                path.unlink()
    raise FileNotFoundError(errno.ENOENT, "temporary files disappear", str(folder))


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
        pass  # it belongs to another user, or is gone
    return False


def lock(stream: IO[Any], *, otherwise: bool = True) -> bool:
    """Try to lock an open file exclusively, until it is closed; returns whether that worked.

    otherwise: returned where there are no locks, on Windows and some network file systems.
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
