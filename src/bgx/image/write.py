"""From bytes to a file: written beside the target, then moved.

A target that exists is therefore complete. Temporary files carry the names of this machine and
process, so that the next run can tell what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
from typing import TYPE_CHECKING

from bgx.errors import OutputError, UnwritableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# What stops every later picture as well: the disk, or the folder and the right to write in it.
_DISK = _numbers("ENOSPC", "EDQUOT", "EROFS", "EIO")
_FOLDER = _numbers("EACCES", "EPERM", "ENOTDIR", "EEXIST")
_NO_FOLDER = _numbers("ENOTDIR", "EEXIST")

_PROCESS = os.urandom(4).hex()
"""This process among all that had or will have its number: in a container all have the same."""

_TEMPORARY = re.compile(
    r"\.(?P<host>[0-9a-z-]*)\.(?P<number>\d{1,9})\.(?P<process>[0-9a-f]{8})[0-9a-f]{8}\.bgx-tmp"
)


def write_file(target: Path, *pieces: bytes) -> None:
    """Write or replace target in one step; its folder is made where it is missing.

    pieces: of the file, one behind the other. Raises OutputError where no further picture could be
    written either (disk full, read-only folder) and UnwritableError where it is this target's own
    trouble. Nothing half-written stays.
    """
    # Not the target's name: with anything added it could become too long.
    temporary = target.with_name(
        f".{_host()}.{os.getpid()}.{_PROCESS}{os.urandom(4).hex()}.bgx-tmp"
    )
    try:
        with _explained(target, _DISK | _FOLDER):
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not tempfile: that makes files private; here the umask decides, as for any output.
            with temporary.open("xb") as stream:
                stream.writelines(pieces)
        # The folder takes files: what stands in the way now is the target's own.
        with _explained(target, _DISK):
            temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Delete the temporary files that killed runs left in these folders; returns how many."""
    removed = 0
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".bgx-tmp")]
        except OSError:
            continue
        for name in filter(_is_leftover, names):
            with contextlib.suppress(OSError):  # in use, on Windows: then it is no leftover
                (folder / name).unlink()
                removed += 1
    return removed


@contextlib.contextmanager
def _explained(target: Path, run_wide: frozenset[int]) -> Iterator[None]:
    """Raise an OSError as OutputError where its number is in run_wide, else UnwritableError."""
    try:
        yield
    except OSError as error:
        reason = "its folder is a file" if error.errno in _NO_FOLDER else error.strerror
        if error.errno in run_wide:
            raise OutputError(
                f"{target}: cannot be written: {reason}; "
                "free space or choose another output folder, then run the same command again"
            ) from error
        raise UnwritableError(f"{target}: cannot be written: {reason}") from error


def _host() -> str:
    return re.sub(r"[^0-9a-z-]", "", platform.node().lower())[:64]


def _is_leftover(name: str) -> bool:
    match = _TEMPORARY.fullmatch(name)
    if match is None or match["host"] != _host():
        return False
    number = int(match["number"])
    if number == os.getpid():
        return match["process"] != _PROCESS
    return not _is_running(number)


def _is_running(number: int) -> bool:
    if os.name == "nt":
        return False  # os.kill would end it; a file in use cannot be deleted there anyway
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
