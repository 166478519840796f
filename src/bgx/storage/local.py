"""Storage on this machine's file systems."""

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
from bgx.storage.base import Found, Status, is_system

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator
    from typing import BinaryIO

    from bgx.storage.base import File, Folder

log = logging.getLogger(__name__)


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_DISK = _numbers("ENOSPC", "EDQUOT", "EROFS", "EIO", "ENODEV", "ENOTCONN", "EHOSTDOWN")
"""Errors that would occur for every later picture too."""

_NO_FOLDER = _numbers("ENOTDIR", "EEXIST")
_CLOSED = _numbers("EACCES", "EPERM", "EBUSY")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file; see :class:`bgx.storage.base.File`.

    path: a str, not a Path, which is three times as slow: a plan may have millions of files.
    """

    path: str = field(compare=False)
    location: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        return os.path.basename(self.path)  # noqa: PTH119

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()  # noqa: PTH122

    @property
    def folder(self) -> LocalFolder:
        folder = os.path.dirname(self.path) or "."  # noqa: PTH120
        return LocalFolder(folder, self.location.rpartition("/")[0] or "/")

    def open(self) -> BinaryIO:
        """A pipe is read into memory, because decoders need a seekable stream."""
        stream = Path(self.path).open("rb")  # noqa: SIM115 - closed by the caller
        if stream.seekable():
            return stream
        with stream:
            return io.BytesIO(stream.read())

    def head(self, size: int) -> bytes:
        with Path(self.path).open("rb") as stream:
            return stream.read(size)

    def status(self) -> Status | None:
        return _status(self.path)

    def identity(self) -> Hashable | None:
        return _identify(self.path)

    def is_there(self) -> bool:
        status = _status(self.path)
        return status is not None and status.kind == "file" and status.size > 0

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        with _explained(self.path):
            return files.write_whole(Path(self.path), *pieces, create=create)

    def link(self, page: File) -> str:
        if not isinstance(page, LocalFile):
            return Path(self.location).as_uri()
        try:
            relative = os.path.relpath(self.location, page.folder.location)
        except ValueError:  # on another drive
            return Path(self.location).as_uri()
        return quote(os.fsencode(Path(relative).as_posix()))


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A local folder; see :class:`bgx.storage.base.Folder`."""

    path: str = field(compare=False)
    location: str

    def __str__(self) -> str:
        return self.path

    def status(self) -> Status | None:
        return _status(self.path)

    def identity(self) -> Hashable | None:
        return _identify(self.path)

    def file(self, below: str) -> LocalFile:
        return LocalFile(*self._join(below))

    def contains(self, other: Folder) -> bool:
        if not isinstance(other, LocalFolder):
            return False
        return Path(_resolve(other.path)).is_relative_to(_resolve(self.path))

    def walk(self, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        """Sorted by name; the files of a folder come before its subfolders."""
        left_out = {folder.identity() for folder in leave_out} - {None}
        # Not os.walk(), which recurses: a tree can be deeper than Python's recursion limit.
        waiting: list[tuple[str, frozenset[Hashable]]] = [("", frozenset())]
        while waiting:
            below, above = waiting.pop()
            here = LocalFolder(*self._join(below)) if below else self
            folders, names, error = _list(here.path)
            if error is not None:
                yield Found(below, LocalFile(here.path, here.location), error)
            prefix = f"{below}/" if below else ""
            for name in names:
                yield Found(prefix + name, here.file(name))
            above |= {here.identity()} - {None}
            inner = [name for name in folders if _is_searched(here.file(name), above, left_out)]
            waiting += [(prefix + name, above) for name in reversed(inner)]

    def find(self, below: str, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        """Yield what :meth:`walk` finds at one name: a file, there or not, or a folder's files."""
        parts = below.split("/")
        if any(part.startswith(".") for part in parts):
            return
        above = {self.identity()}
        left_out = {folder.identity() for folder in leave_out} - {None}
        for count in range(1, len(parts) + 1):
            here = self.file("/".join(parts[:count]))
            if not os.path.isdir(here.path):  # noqa: PTH112 - Path's own raises
                yield Found(below, self.file(below))
                return
            if not _is_searched(here, above, left_out):
                return
        for found in LocalFolder(*self._join(below)).walk(leave_out):
            yield found._replace(below=f"{below}/{found.below}" if found.below else below)

    def files(self, names: Iterable[str]) -> Iterator[tuple[str, File]]:
        return ((name, self.file(name)) for name in names)

    def is_system(self) -> bool:
        return is_system(Path(self.path).name)

    def make(self) -> None:
        try:
            files.make_folder(Path(self.path))
        except OSError as error:
            raise OutputError(
                f"{self}: cannot be created: {error.strerror}; choose another output folder"
            ) from error

    def check_writable(self) -> None:
        folder = Path(self.path)
        here = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        with _explained(self.path), files.temporary(here):
            pass

    def remove_leftovers(self) -> int:
        return files.remove_leftovers(Path(self.path))

    def _join(self, below: str) -> tuple[str, str]:
        """Path and location of the file of that name in this folder."""
        path = below if self.path == "." else os.path.join(self.path, below)  # noqa: PTH118
        return path.replace("/", os.sep), f"{self.location.rstrip('/')}/{below}"


def local_file(path: Path) -> LocalFile:
    """The file of that path, absolute or relative to the working directory."""
    return LocalFile(str(path), _locate(path))


def local_folder(path: Path) -> LocalFolder:
    """The folder of that path, absolute or relative to the working directory."""
    return LocalFolder(str(path), _locate(path))


def _is_searched(
    folder: LocalFile, above: Collection[object], left_out: Collection[object]
) -> bool:
    """Whether a walk searches this subfolder. above: the folders that it is in."""
    if is_system(folder.name):
        log.info("%s: not searched: belongs to the system", folder)
        return False
    if os.path.islink(folder.path):  # noqa: PTH114 - Path's own raises where a folder is closed
        log.warning("%s: not searched: is a link to a folder; to search it, name it", folder)
        return False
    identity = folder.identity()
    if identity is None:
        return True  # searching it will report what is wrong
    if identity in above:
        log.warning("%s: not searched again: is one of the folders that it is in", folder)
        return False
    return identity not in left_out


def _list(folder: str) -> tuple[list[str], list[str], OSError | None]:
    """Names of its subfolders and files that are not hidden, and the error if there was one."""
    folders: list[str] = []
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else names).append(entry.name)
    except OSError as error:
        return sorted(folders), sorted(names), error
    return sorted(folders), sorted(names), None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # circular links, or no permission: reading it will report that
        return False


def _locate(path: Path) -> str:
    try:
        return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 - resolve() would merge links
    except OSError:  # the working directory is gone
        return path.as_posix()


def _resolve(path: str) -> str:
    """The absolute path with all links resolved."""
    try:
        return os.path.realpath(path)  # not resolve(), which raises for circular links
    except OSError:  # the working directory is gone
        return path


def _status(path: str) -> Status | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    is_file, is_folder = stat.S_ISREG(found.st_mode), stat.S_ISDIR(found.st_mode)
    return Status(
        "file" if is_file else "folder" if is_folder else "other",
        found.st_size,
        found.st_mtime_ns,
        # On POSIX the last change of name, content or permissions; on Windows the creation.
        found.st_ctime_ns,
    )


def _identify(path: str) -> Hashable | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - faster than a Path
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn an OSError of writing into one of bgx's own exceptions."""
    try:
        yield
    except OSError as error:
        raise _explain(path, error) from error


def _explain(path: str, error: OSError) -> BgxError:
    if error.errno in _DISK:
        return OutputError(
            f"{path}: cannot be written: {error.strerror}; "
            "free space or choose another output folder, then run the same command again"
        )
    reason = error.strerror
    if error.errno in _NO_FOLDER:
        reason = "its folder's name belongs to a file"
    elif error.errno in _CLOSED:
        reason = f"{reason}; make its folder writable, or close the program that has it open"
    return UnwritableError(f"{path}: cannot be written: {reason}")
