"""Looks into the folders of model files; a folder without permission counts as empty."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether the file exists, as far as this user may see."""
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises where a folder is closed


def found(folder: Path, pattern: str) -> list[Path]:
    """The paths in a folder that match a pattern, sorted; empty without permission."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
