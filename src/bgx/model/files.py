"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEFT_S = 3600.0
"""What nobody has written to for so long is left over, seconds."""


@contextmanager
def temporary(folder: Path, suffix: str) -> Iterator[Path]:
    """An empty file in `folder`, which is made, that is gone afterwards unless it was moved."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".bgx-", suffix=suffix, dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        open_up(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def remove_old(folder: Path, pattern: str) -> None:
    """Delete the temporary folders of that pattern that killed processes left there.

    By age, since machines may share a folder: whoever works in one writes to it all the time.
    """
    for path in found(folder, pattern):
        with suppress(OSError):
            newest = max(entry.stat().st_mtime for entry in (path, *path.glob("*")))
            if time.time() - newest > _LEFT_S:
                shutil.rmtree(path)


def is_file(path: Path) -> bool:
    """Whether a file is there that this user may know of."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises where a folder is closed


def found(folder: Path, pattern: str) -> list[Path]:
    """What a folder that this user may look into holds, by name."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def open_up(path: Path) -> None:
    """Give a temporary file, which is private, the permissions of an ordinary new one."""
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def write(path: Path, content: bytes) -> None:
    """Write a file in one step. Raises OSError."""
    with temporary(path.parent, path.suffix) as private:
        with private.open("wb") as file:
            file.write(content)
            file.flush()
            # Else a power cut may leave the new name on content that never reached the disk.
            os.fsync(file.fileno())
        private.replace(path)
