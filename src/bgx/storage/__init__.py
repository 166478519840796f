"""Where pictures are: listed, read, written whole or not at all."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.storage.local import LocalFile, LocalFolder

if TYPE_CHECKING:
    from bgx.storage.base import File, Folder


def open_file(text: str | Path) -> File:
    """The file of that name, there or not. Raises UsageError for an empty name."""
    return LocalFile(_to_path(text))


def open_folder(text: str | Path) -> Folder:
    """The folder of that name, there or not. Raises UsageError for an empty name."""
    return LocalFolder(_to_path(text))


def open_place(text: str | Path) -> File | Folder:
    """The folder of that name where there is one, else the file, there or not."""
    folder = open_folder(text)
    status = folder.status()
    return folder if status is not None and status.kind == "folder" else open_file(text)


def find(text: str) -> list[File | Folder]:
    """What a name or a glob pattern stands for: itself if it is there, else all that it matches."""
    if not text or os.path.lexists(text):
        return [open_place(text)]
    # Shells of Windows leave patterns to the program.
    matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute ones too
    return [open_place(match) for match in matches]


def _to_path(text: str | Path) -> Path:
    if not text:
        # Else an empty variable in a script would stand for the working directory.
        raise UsageError("an empty name is no file or folder; is a variable in the command empty?")
    return Path(text)
