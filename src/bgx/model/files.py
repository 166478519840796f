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
    """An empty file in `folder`, which is made, that is gone afterwards unless it was moved.

    It has the permissions of a file made in the ordinary way, not those of a private one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".bgx-", suffix=suffix, dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        allow(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def allow(path: Path) -> None:
    """Give a private temporary file the permissions the umask leaves."""
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def move(source: Path, target: Path) -> None:
    """Put `source` in the place of `target` in one step."""
    try:
        source.replace(target)
    except PermissionError:
        # Windows replaces no file that is open. Files here are named by their content or hash, so
        # the one that is in use serves as well.
        if os.name == "posix" or not target.is_file():
            raise


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with temporary(path.parent, path.suffix) as private:
        private.write_bytes(content)
        move(private, path)
