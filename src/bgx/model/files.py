"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
