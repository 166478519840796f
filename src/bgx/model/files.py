"""What the folders of models hold, as far as this user may see it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LEFT_S = 3600.0
"""What nobody has written to for so long is left over, seconds."""


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
