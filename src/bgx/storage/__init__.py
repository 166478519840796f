"""Where pictures are: local folders and object stores, behind one interface."""

from __future__ import annotations

import glob
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.storage.local import local_file, local_folder

if TYPE_CHECKING:
    from bgx.storage.base import File, Folder, Status

_OBJECTS = ("s3://", "gs://", "az://")


def is_object(name: str | Path) -> bool:
    """Whether the name is in an object store: ``s3://BUCKET/KEY``, also ``gs`` and ``az``."""
    return isinstance(name, str) and name.startswith(_OBJECTS)


def open_file(name: str | Path) -> File:
    """The file of that name, whether it exists or not. Raises UsageError for an invalid name."""
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import open_object

        return open_object(str(name))
    return local_file(to_path(name))


def open_folder(name: str | Path) -> Folder:
    """The folder of that name, whether it exists or not. Raises UsageError for an invalid name."""
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import open_prefix

        return open_prefix(str(name))
    return local_folder(to_path(name))


def find_folder(name: str | Path) -> Folder | None:
    """The folder of that name; None if there is none.

    Raises UsageError for an invalid name, and if an object store cannot be reached.
    """
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import find_prefix

        return find_prefix(str(name))
    folder = open_folder(name)
    status = folder.status()
    return folder if status is not None and status.kind == "folder" else None


def look(name: str) -> Status | None:
    """What exists under the name of a file that is to be read; None for nothing.

    Raises as :func:`find_folder`.
    """
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import look_at

        return look_at(name)
    return open_file(name).status()


def match(pattern: str) -> list[str]:
    """The name itself if it exists, else the names that match it as a glob pattern.

    Patterns do not work in object stores. Raises as :func:`find_folder`.
    """
    if is_object(pattern):
        _need_objects(pattern)
        from bgx.storage.objects import is_there

        return [pattern] if is_there(pattern) else []
    if os.path.lexists(to_path(pattern)):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too


def explain_missing(name: str) -> str:
    """The error message for a name that does not exist."""
    if "://" in name and not is_object(name):
        return f"{name}: is a web address; bgx reads files and buckets (s3://): download it first"
    if name == "-":
        return "-: no such file or folder; to read names from stdin use --files-from -"
    return f"{name}: no such file or folder"


def _need_objects(name: str | Path) -> None:
    if find_spec("obstore") is None:
        from bgx.install import install_hint

        hint = install_hint("objects")
        raise UsageError(f"{name}: object stores need one more package; run: {hint}")


def to_path(name: str | Path) -> Path:
    """The local path of that name. Raises UsageError for an invalid name."""
    if not name:
        # Path("") would be the working directory: not what an unset variable in a script means.
        raise UsageError("a file or folder name is empty; is a variable of the command unset?")
    if "\0" in str(name):
        raise UsageError(f"{name!r}: a name cannot contain a NUL character")
    path = Path(name)
    # "-" alone stands for stdin or stdout in reports and messages.
    return path.absolute() if str(path) == "-" else path
