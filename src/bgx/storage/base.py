"""What a place for pictures must be able to do, whether it is a folder or a bucket.

Everything above :mod:`bgx.storage` holds these references, never paths. Why they are as they are:

- Names below a folder are text with ``/`` between their parts, not paths: a path would make one
  name of the two keys ``a//b`` and ``a/b``.
- A file that came with others (:meth:`Folder.walk`, :meth:`Folder.files`) may know its status from
  then: an object store answers for all of them with one listing instead of a request a file.
- :meth:`Target.write` replaces the whole file, or with ``create`` leaves one alone that is there,
  decided in the same step as the writing: a target that somebody else made since the plan was made
  (a second run, a worker that got the task again, a person) is never written over.
- Trouble with reading is an OSError, which the reader of pictures words; trouble with writing is
  bgx's own, because only the storage knows whether other pictures would meet it too.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator
    from typing import BinaryIO

    from PIL import Image


_SYSTEM = frozenset(
    {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"}  # file servers
    | {"$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found"}
)


def fold(name: str) -> str:
    """Equal for names that are one file on a system that ignores case or Unicode's forms."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_system(name: str) -> bool:
    """Whether systems keep copies, thumbnails and what was deleted in a folder of this name.

    Those with a dot before their name are hidden anyway.
    """
    return name.lower() in _SYSTEM


@dataclass(frozen=True, slots=True)
class Status:
    """What lies under a name.

    kind: ``file``, ``folder`` or ``other`` (a pipe, a device). size: bytes. modified: when its
    content was last changed, nanoseconds since the epoch. arrived: when it came to lie there under
    this name, or later; in an object store the same as modified.
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
        """The address of this place in an HTML page that is stored as ``page``, URL-quoted.

        Relative where the two can be moved together; empty where there is none.
        """


class Source(Place, Protocol):
    """Something that a picture can be read from."""

    def open(self) -> BinaryIO | Image.Image:
        """The file from its start, seekable and to be closed; or a picture that is in memory.

        Raises OSError.
        """


class Target(Place, Protocol):
    """Something that a picture can be written to."""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        """Write the pieces, one after the other, as the whole file or not at all.

        create: leave a file that is there as it is, unless it is empty. Returns whether it was
        written, which is always so without ``create``. Raises UnwritableError where this target
        cannot be written, OutputError where no other could be either (no space, read-only).
        """

    def is_there(self) -> bool:
        """Whether a file that is not empty is there now. Never raises."""


class File(Source, Target, Protocol):
    """One file or object by its name, there or not. Hashable; equal to another of its location."""

    @property
    def location(self) -> str:
        """The absolute name, ``/`` between its parts."""

    @property
    def name(self) -> str:
        """The last part of the location."""

    @property
    def suffix(self) -> str:
        """Of the name, with its dot, in lower case; empty where it has none."""

    @property
    def folder(self) -> Folder:
        """Where it lies."""

    def open(self) -> BinaryIO: ...

    def head(self, size: int) -> bytes:
        """The first bytes, fewer where the file is shorter. Raises OSError."""

    def status(self) -> Status | None:
        """What is there; None for nothing, or nothing this user may know of. Never raises.

        Of a file that :meth:`Folder.walk` or :meth:`Folder.files` gave it may be as of then.
        """

    def identity(self) -> Hashable | None:
        """Equal for two names of one thing, whatever links or spelling lead to it.

        None where nothing is there; an object's is its location, whether it is there or not.
        """


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk met: a file, or a folder that it could not search.

    below: the name below the folder walked, empty for itself. error: why the folder could not be
    searched; None for a file.
    """

    below: str
    file: File
    error: OSError | None = None


class Folder(Protocol):
    """A folder, or the objects of one prefix, there or not. Hashable; equal by location."""

    def __str__(self) -> str: ...

    @property
    def location(self) -> str:
        """The absolute name, ``/`` between its parts."""

    def status(self) -> Status | None:
        """As :meth:`File.status`."""

    def identity(self) -> Hashable | None:
        """As :meth:`File.identity`."""

    def file(self, below: str) -> File:
        """The file of that name below it."""

    def contains(self, other: Folder) -> bool:
        """Whether the other one is this one or lies below it."""

    def walk(self, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        """Everything below it that is not a folder, in an order that is always the same.

        Hidden files and folders, folders that systems keep for themselves (``@eaDir``), links to
        folders and what lies below ``leave_out`` are passed over. A folder that cannot be searched
        is found with its error, this one too; never raises.
        """

    def files(self, names: Iterable[str]) -> Iterator[File]:
        """As :meth:`file` for many names, in their order. Raises OutputError."""

    def is_system(self) -> bool:
        """Whether its name is of those where systems keep copies and deleted files."""

    def make(self) -> None:
        """Make it unless it is there. Raises OutputError."""

    def check_writable(self) -> None:
        """Raise UnwritableError or OutputError where a file in it could not be written now.

        Makes no folder; of one that is not there the nearest above it is tried.
        """

    def remove_leftovers(self) -> int:
        """Delete what killed runs left in it, not below it; returns how many files."""
