"""The interface to storage: files and folders, which may be local or objects in a bucket.

Everything above :mod:`bgx.storage` uses these references, never paths. Reasons for their design:

- Names relative to a folder are text with ``/`` between their parts, not paths: as paths, the two
  keys ``a//b`` and ``a/b`` would be the same.
- A file that :meth:`Folder.walk` or :meth:`Folder.files` returned may remember its status from
  then: an object store gives it for many files with one listing instead of one request each.
- :meth:`Target.write` replaces the whole file, or with ``create`` keeps an existing one. Checking
  and writing are one atomic step, so that a target that was created since the batch was planned (by
  another run, another worker or a user) is never overwritten.
- Errors of reading are OSErrors, which the photo reader turns into messages. Errors of writing are
  bgx's own, because only the storage knows whether they concern other pictures too.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator
    from typing import BinaryIO

    from PIL import Image


_SYSTEM = frozenset(
    {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}  # file servers
    | {"~snapshot", "network trash folder", "temporary items"}
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "__macosx"}
    | {"lost+found", "found.000"}
)


def fold(name: str) -> str:
    """The same text for names that are one file where case or Unicode normalisation is ignored."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_system(name: str) -> bool:
    """Whether systems keep thumbnails, snapshots or deleted files in folders of this name.

    Names that begin with a dot are not included: hidden folders are never searched.
    """
    return name.lower() in _SYSTEM


class Status(NamedTuple):
    """What exists under a name.

    kind: ``file``, ``folder`` or ``other`` (a pipe, a device). size: bytes. modified: when the
    content was last changed, nanoseconds since the epoch. arrived: a time at or after which it came
    to this place under this name; in an object store the same as modified.
    """

    kind: Literal["file", "folder", "other"]
    size: int
    modified: int
    arrived: int


class Place(Protocol):
    """Something with a name."""

    def __str__(self) -> str:
        """The name that reports and messages show."""

    def link(self, page: File) -> str:
        """URL of this place for an HTML page that is stored as ``page``; empty if it has none.

        It is relative if both are on the same drive or in the same bucket.
        """


class Source(Place, Protocol):
    """Something that a picture can be read from."""

    def open(self) -> BinaryIO | Image.Image:
        """A seekable stream, which the caller closes, or a picture that is in memory already.

        Raises OSError.
        """


class Target(Place, Protocol):
    """Something that a picture can be written to."""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        """Write the pieces in order as the file's content, completely or not at all.

        create: keep an existing file, unless it is empty. Returns whether the file was written,
        always True without ``create``. Raises UnwritableError if this target cannot be written, and
        OutputError if no other one can be written either (disk full, read-only).
        """

    def is_there(self) -> bool:
        """Whether a non-empty file exists now. Never raises."""


class File(Source, Target, Protocol):
    """A file or object, whether it exists or not. Hashable; files of one location are equal."""

    @property
    def location(self) -> str:
        """The absolute name, with ``/`` between its parts."""

    @property
    def name(self) -> str:
        """The last part of the location."""

    @property
    def suffix(self) -> str:
        """The name's suffix in lower case, with its dot; empty if it has none."""

    @property
    def folder(self) -> Folder:
        """The folder that it is in."""

    def open(self) -> BinaryIO: ...

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer if the file is shorter. Raises OSError."""

    def status(self) -> Status | None:
        """What exists there; None for nothing, or if the user may not look. Never raises.

        For a file from :meth:`Folder.walk` or :meth:`Folder.files` it may be the status at that
        time.
        """

    def identity(self) -> Hashable | None:
        """A value that is equal for all names of one file, such as links and other spellings.

        None if nothing exists there. For an object it is its location, whether it exists or not.
        """


class Found(NamedTuple):
    """What a walk found: a file, or a folder that it could not search.

    below: the name relative to the folder walked; empty for that folder itself. error: why the
    folder could not be searched; None for a file.
    """

    below: str
    file: File
    error: OSError | None = None


class Folder(Protocol):
    """A folder, or all objects below a prefix, whether it exists or not.

    Hashable; folders of one location are equal.
    """

    def __str__(self) -> str: ...

    @property
    def location(self) -> str:
        """The absolute name, with ``/`` between its parts."""

    def status(self) -> Status | None:
        """Like :meth:`File.status`."""

    def identity(self) -> Hashable | None:
        """Like :meth:`File.identity`."""

    def file(self, below: str) -> File:
        """The file of this name, relative to the folder."""

    def contains(self, other: Folder) -> bool:
        """Whether the other folder is this one or is inside it."""

    def walk(self, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        """Everything in it and its subfolders that is not a folder, always in the same order.

        Leaves out hidden files and folders, folders of the system (``@eaDir``), links to folders,
        and everything in the folders ``leave_out``. A folder that cannot be searched, which may be
        this one, is yielded with its error; never raises.
        """

    def files(self, names: Iterable[str]) -> Iterator[tuple[str, File]]:
        """Each name with its file; those that a listing shows to be missing are left out.

        Raises OutputError.
        """

    def is_system(self) -> bool:
        """Whether it has a name for which :func:`is_system` is true."""

    def make(self) -> None:
        """Create the folder if it does not exist. Raises OutputError."""

    def check_writable(self) -> None:
        """Raise UnwritableError or OutputError if no file could be written in it now.

        Creates no folder; if it does not exist, the nearest existing parent is checked.
        """

    def remove_leftovers(self) -> int:
        """Delete temporary files of killed runs in it, not in its subfolders; returns how many."""
