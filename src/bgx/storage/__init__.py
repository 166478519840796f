"""Where pictures are: listed, read, written whole or not at all."""

from __future__ import annotations

import glob
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.storage.local import local_file, local_folder

if TYPE_CHECKING:
    from bgx.storage.base import File, Folder

_OBJECTS = ("s3://", "gs://", "az://")


def is_object(name: str | Path) -> bool:
    """Whether a name is one of an object store: ``s3://BUCKET/KEY``, also ``gs`` and ``az``."""
    return isinstance(name, str) and name.startswith(_OBJECTS)


def open_file(name: str | Path) -> File:
    """The file of that name, there or not. Raises UsageError for a name that cannot be one."""
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import open_object

        return open_object(str(name))
    return local_file(_to_path(name))


def open_folder(name: str | Path) -> Folder:
    """The folder of that name, there or not. Raises UsageError for a name that cannot be one."""
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import open_prefix

        return open_prefix(str(name))
    return local_folder(_to_path(name))


def find_folder(name: str | Path) -> Folder | None:
    """The folder of that name if there is one.

    Raises UsageError for a name that cannot be one, and where an object store cannot be asked.
    """
    if is_object(name):
        _need_objects(name)
        from bgx.storage.objects import find_prefix

        return find_prefix(str(name))
    folder = open_folder(name)
    status = folder.status()
    return folder if status is not None and status.kind == "folder" else None


def match(pattern: str) -> list[str]:
    """The name itself where it is that of a file or folder, else the names that it matches.

    Object stores have no patterns. Raises as :func:`find_folder`.
    """
    if is_object(pattern):
        _need_objects(pattern)
        from bgx.storage.objects import is_there

        return [pattern] if is_there(pattern) else []
    if os.path.lexists(_to_path(pattern)):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute ones too


def explain_missing(name: str) -> str:
    """What to say of a name that a person gave and that is not there."""
    if "://" in name and not is_object(name):
        return f"{name}: is an address; bgx reads files and buckets (s3://): download it first"
    if name == "-":
        return "-: no such file or folder; to read names from stdin use --files-from -"
    return f"{name}: no such file or folder"


def _need_objects(name: str | Path) -> None:
    if find_spec("obstore") is None:
        from bgx.install import install_hint

        raise UsageError(f"{name}: bgx has no object stores here; run: {install_hint('objects')}")


def _to_path(name: str | Path) -> Path:
    if not name:
        # Path("") is the working directory, which an empty variable in a script must not stand for.
        raise UsageError("an empty name is no file or folder; is a variable of the command unset?")
    if "\0" in str(name):
        raise UsageError(f"{name!r}: a name holds no NUL character")
    path = Path(name)
    # Alone it stands for stdin or stdout in reports and messages.
    return path.absolute() if str(path) == "-" else path
