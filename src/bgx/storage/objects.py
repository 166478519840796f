"""Storage in buckets: ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``, ``az://CONTAINER/KEY``.

A bucket has no real folders: a folder is the set of keys that begin with its name and ``/``.
"""

from __future__ import annotations

import errno
import io
import logging
import mimetypes
import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import obstore
from obstore.exceptions import AlreadyExistsError, InvalidPathError

from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.storage.base import Found, Status, is_system
from bgx.storage.client import UNNAMEABLE, split_name
from bgx.storage.listing import describe, list_objects

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Hashable,
        Iterable,
        Iterator,
    )
    from typing import BinaryIO

    from obstore.store import ObjectStore

    from bgx.storage.base import File, Folder
    from bgx.storage.client import Bucket

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)

_FEW = 32
"""Up to this many files, each is asked for by itself; more are looked up in a listing."""

_SUFFIX = re.compile(r"://[^/]+/.*[^/]\.[A-Za-z][A-Za-z0-9]{1,4}$", re.DOTALL)
"""In the name of an object, after those of its bucket and folders."""


def open_object(name: str) -> ObjectFile:
    """The object of that name, whether it exists or not. Raises UsageError for an invalid name."""
    bucket, key = split_name(name)
    if not key:
        raise UsageError(f"{name}: is a bucket; name an object in it")
    return ObjectFile(bucket, key)


def open_prefix(name: str) -> ObjectFolder:
    """The folder of that name, whether it exists or not. Raises UsageError for an invalid name."""
    bucket, key = split_name(name)
    return ObjectFolder(bucket, key.removesuffix("/"))


def find_prefix(name: str) -> ObjectFolder | None:
    """The folder of that name, or None. Raises UsageError if the service cannot tell.

    A name whose last part has a suffix, and that does not end in ``/``, is taken for an object
    without a request: a list may have a great many of them.
    """
    if _SUFFIX.search(name):
        return None
    folder = open_prefix(name)
    try:
        return folder if folder.look() else None
    except OSError as error:
        raise UsageError(f"{name}: cannot be searched: {error.strerror}") from error


def is_there(name: str) -> bool:
    """Whether an object or a folder of that name exists. Raises as :func:`find_prefix`."""
    return find_prefix(name) is not None or look_at(name) is not None


def look_at(name: str) -> Status | None:
    """What object exists under that name; None for nothing.

    Raises UsageError for an invalid name, and if the service cannot tell.
    """
    bucket, key = split_name(name)
    try:
        return ObjectFile(bucket, key).look() if key else None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """An object; see :class:`bgx.storage.base.File`.

    known: its status in a listing, None if the listing did not have it. listed: whether it was
    looked up in a listing.
    """

    bucket: Bucket
    key: str
    known: Status | None = field(default=None, compare=False, repr=False)
    listed: bool = field(default=False, compare=False, repr=False)

    def __str__(self) -> str:
        return self.location

    @property
    def location(self) -> str:
        return f"{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.key)[1].lower()

    @property
    def folder(self) -> ObjectFolder:
        return ObjectFolder(self.bucket, self.key.rpartition("/")[0])

    def open(self) -> BinaryIO:
        """The whole object is read into memory."""
        size = self.known.size if self.known else 0
        try:
            content = self._ask(lambda store: obstore.get(store, self.key).bytes(), size=size)
        except FileNotFoundError as error:
            if not self.known or error.errno != errno.ENOENT:
                raise
            # obstore lists such keys without the slash.
            reason = f"{error.strerror}; it is gone, or its name begins or ends with a slash"
            raise FileNotFoundError(error.errno, reason) from error
        return io.BytesIO(content.to_bytes())

    def head(self, size: int) -> bytes:
        if self.known and not self.known.size:
            return b""  # services refuse a range of an empty object
        content = self._ask(lambda store: obstore.get_range(store, self.key, start=0, length=size))
        return content.to_bytes()

    def status(self) -> Status | None:
        return self.known if self.listed else _try(self.look)

    def is_there(self) -> bool:
        status = _try(self.look)
        return status is not None and status.size > 0

    def look(self) -> Status | None:
        """Ask the service what exists now; None for nothing. Raises OSError."""
        try:
            return describe(self._ask(lambda store: obstore.head(store, self.key)))
        except FileNotFoundError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def identity(self) -> Hashable:
        return self.location

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        content = b"".join(pieces)
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        tries = 0

        def put(store: ObjectStore) -> None:
            nonlocal tries
            tries += 1
            obstore.put(
                store,
                self.key,
                content,
                attributes={"Content-Type": kind},
                mode="create" if create else "overwrite",
                # In one request: the parts of an aborted multipart upload stay and cost money.
                use_multipart=False,
            )

        try:
            try:
                self._ask(put, size=len(content))
            except AlreadyExistsError:
                return self._write_existing(content, tried_before=tries > 1)
        except OSError as error:
            raise self._explain_write(error) from error
        return True

    def _write_existing(self, content: bytes, *, tried_before: bool) -> bool:
        """Finish a create-only write that found an object; returns whether it is written."""
        status = self.look()
        if status is None or not status.size:
            return self.write(content)
        # An earlier try may have written it although its answer was lost.
        return tried_before and self.open().read() == content

    def remove(self) -> None:
        try:
            self._ask(lambda store: obstore.delete(store, self.key))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._explain_write(error) from error

    def link(self, page: File) -> str:
        if isinstance(page, ObjectFile) and page.bucket == self.bucket:
            return "../" * page.key.count("/") + quote(self.key)
        return f"{self.bucket}/{quote(self.key)}"

    def _ask(self, action: Callable[[ObjectStore], _Answer], *, size: int = 0) -> _Answer:
        if "//" in f"/{self.key}":
            # obstore would drop the empty part.
            raise OSError(errno.EINVAL, UNNAMEABLE)
        return self.bucket.ask(action, size=size)

    def _explain_write(self, error: OSError) -> UnwritableError | OutputError:
        message = f"{self}: cannot be written: {error.strerror}"
        if error.errno == errno.EINVAL:
            return UnwritableError(message)
        return OutputError(f"{message}; then run the same command again")


@dataclass(frozen=True, slots=True)
class ObjectFolder:
    """The objects whose keys begin with ``prefix`` and ``/``; see
    :class:`bgx.storage.base.Folder`. An empty prefix is the whole bucket."""

    bucket: Bucket
    prefix: str

    def __str__(self) -> str:
        return self.location

    @property
    def location(self) -> str:
        return f"{self.bucket}/{self.prefix}" if self.prefix else str(self.bucket)

    def status(self) -> Status | None:
        return _try(self.look)

    def look(self) -> Status | None:
        """The status of a folder if any object is in it, else None. Raises OSError."""
        try:
            there = self.bucket.ask(
                lambda store: any(obstore.list(store, self.prefix or None, chunk_size=1))
            )
        except InvalidPathError:
            there = True
        return Status("folder", 0, 0, 0) if there else None

    def identity(self) -> Hashable:
        return self.location

    def file(self, below: str) -> ObjectFile:
        return ObjectFile(self.bucket, self._key(below))

    def contains(self, other: Folder) -> bool:
        return isinstance(other, ObjectFolder) and f"{other}/".startswith(f"{self}/")

    def walk(self, leave_out: Collection[Folder] = ()) -> Iterator[Found]:
        """Sorted by key."""
        try:
            yield from self._walk(leave_out)
        except OSError as error:
            yield Found("", ObjectFile(self.bucket, self.prefix, listed=True), error)

    def _walk(self, leave_out: Collection[Folder]) -> Iterator[Found]:
        for below, there in list_objects(self.bucket, self.prefix):
            file = ObjectFile(self.bucket, self._key(below), listed=True)
            *folders, name = below.split("/")
            if any(part.startswith(".") or is_system(part) for part in folders):
                continue
            if name.startswith(".") or any(folder.contains(file.folder) for folder in leave_out):
                continue
            if isinstance(there, OSError):
                yield Found(below, file, there)
            else:
                yield Found(below, replace(file, known=there))

    def files(self, names: Iterable[str]) -> Iterator[tuple[str, File]]:
        """Many files are looked up in one listing, from the first name to the last."""
        wanted = set(names)
        if len(wanted) <= _FEW:
            yield from ((name, self.file(name)) for name in wanted)
            return
        last = max(wanted)
        try:
            for below, found in list_objects(self.bucket, self.prefix, start=min(wanted)):
                if not below and isinstance(found, OSError):
                    raise found
                if below > last:
                    break
                if below in wanted and isinstance(found, Status):
                    yield below, ObjectFile(self.bucket, self._key(below), found, listed=True)
        except OSError as error:
            raise OutputError(f"{self}: cannot be listed: {error.strerror}") from error

    def is_system(self) -> bool:
        return is_system(self.prefix.rpartition("/")[2])

    def make(self) -> None:
        """Only check that the bucket exists."""
        try:
            self.look()
        except OSError as error:
            raise OutputError(f"{self}: cannot be written: {error.strerror}") from error

    def check_writable(self) -> None:
        """Does nothing: whether a bucket is writable shows only when something is written."""

    def remove_leftovers(self) -> int:
        """Does nothing: objects are written in one step and leave no temporary files."""
        return 0

    def _key(self, below: str) -> str:
        return f"{self.prefix}/{below}" if self.prefix and below else self.prefix or below


def _try(look: Callable[[], Status | None]) -> Status | None:
    """Call ``look``; if it raises, return None: whoever reads or writes next tells the reason."""
    try:
        return look()
    except OSError as error:
        log.info("the object store cannot be asked: %s", error.strerror)
        return None
