"""Files and folders of this machine's file systems."""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bgx import files
from bgx.errors import BgxError, OutputError, UnwritableError
from bgx.storage.base import Found, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import BinaryIO

    from bgx.storage.base import File, Folder

log = logging.getLogger(__name__)


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_DISK = _numbers("ENOSPC", "EDQUOT", "EROFS", "EIO")
"""What every later picture would meet as well."""

_NO_FOLDER = _numbers("ENOTDIR", "EEXIST")

_SYSTEM = frozenset(
    {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}  # file servers
    | {"$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found"}
)
"""Folders, lower case, where systems keep copies, thumbnails and what was deleted. Those with a
dot before their name are hidden anyway."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file by its path; see :class:`bgx.storage.base.File`."""

    path: Path = field(compare=False)
    location: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", _locate(self.path))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def folder(self) -> LocalFolder:
        return LocalFolder(self.path.parent)

    def open(self) -> BinaryIO:
        """A pipe is read whole: decoders go back and forth."""
        stream = self.path.open("rb")
        if stream.seekable():
            return stream
        with stream:
            return io.BytesIO(stream.read())

    def head(self, size: int) -> bytes:
        with self.path.open("rb") as stream:
            return stream.read(size)

    def status(self) -> Status | None:
        return _status(self.path)

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        with _explained(self.path):
            return files.write_whole(self.path, *pieces, create=create)

    def link(self, page: File) -> str:
        if not isinstance(page, LocalFile):
            return self.path.absolute().as_uri()
        try:
            relative = os.path.relpath(self.location, page.folder.location)
        except ValueError:  # on another drive
            return Path(self.location).as_uri()
        return quote(os.fsencode(Path(relative).as_posix()))


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder by its path; see :class:`bgx.storage.base.Folder`."""

    path: Path = field(compare=False)
    location: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", _locate(self.path))

    def __str__(self) -> str:
        return str(self.path)

    def status(self) -> Status | None:
        return _status(self.path)

    def file(self, below: str) -> LocalFile:
        return LocalFile(self.path / below)

    def contains(self, other: Folder) -> bool:
        if not isinstance(other, LocalFolder):
            return False
        # Not resolve(): that raises where links lead in a circle.
        return Path(os.path.realpath(other.path)).is_relative_to(os.path.realpath(self.path))

    def walk(self, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        errors: list[OSError] = []
        left_out = {status.identity for folder in leave_out if (status := folder.status())}
        for parent, folders, names in os.walk(self.path, onerror=errors.append):
            here = Path(parent)
            folders[:] = [name for name in sorted(folders) if _is_walked(here / name, left_out)]
            for name in sorted(names):
                if not name.startswith("."):
                    file = LocalFile(here / name)
                    yield Found(file.path.relative_to(self.path).as_posix(), file)
        for error in errors:
            file = LocalFile(Path(error.filename))
            if file.location == self.location:
                raise error
            yield Found(file.path.relative_to(self.path).as_posix(), file, error)

    def existing(self, names: Iterable[str]) -> dict[str, Status]:
        statuses = ((name, _status(self.path / name)) for name in names)
        return {name: status for name, status in statuses if status is not None}

    def make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self}: cannot be made: {error.strerror}; choose another output folder"
            ) from error

    def check_writable(self) -> None:
        here = next(path for path in (self.path, *self.path.parents) if os.path.lexists(path))
        with _explained(self.path), files.temporary(here):
            pass

    def remove_leftovers(self) -> int:
        return files.remove_leftovers(self.path)


def _is_walked(folder: Path, left_out: Collection[object]) -> bool:
    if folder.name.startswith("."):
        return False
    if folder.name.lower() in _SYSTEM:
        log.info("%s: is a folder of the system's and was not searched", folder)
        return False
    if os.path.islink(folder):  # noqa: PTH114 - Path's own raises where a folder is closed
        log.warning("%s: is a link to a folder; to search it, name it", folder)
        return False
    status = _status(folder)
    return status is None or status.identity not in left_out


def _locate(path: Path) -> str:
    try:
        return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 - resolve() would merge links
    except OSError:  # the working directory is gone
        return path.as_posix()


def _status(path: Path) -> Status | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "other"
    return Status(
        "file" if stat.S_ISREG(found.st_mode) else kind,  # type: ignore[arg-type]
        found.st_size,
        found.st_mtime_ns,
        # POSIX: of the last change to name, content or permissions; Windows: of its creation.
        found.st_ctime_ns,
        (found.st_dev, found.st_ino),
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise an OSError met in writing as bgx's own."""
    try:
        yield
    except OSError as error:
        raise _explain(path, error) from error


def _explain(path: Path, error: OSError) -> BgxError:
    if error.errno in _DISK:
        return OutputError(
            f"{path}: cannot be written: {error.strerror}; "
            "free space or choose another output folder, then run the same command again"
        )
    reason = "its folder is a file" if error.errno in _NO_FOLDER else error.strerror
    return UnwritableError(f"{path}: cannot be written: {reason}")
