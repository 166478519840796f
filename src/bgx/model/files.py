"""What the folders of models hold, as far as this user may see it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether a file is there that this user may know of."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises where a folder is closed


def found(folder: Path, pattern: str) -> list[Path]:
    """What a folder that this user may look into holds, by name."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
