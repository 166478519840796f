"""Storage in buckets: ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``, ``az://CONTAINER/KEY``.

Credentials and addresses come from the environment variables that each cloud's own tools use. A
bucket has no real folders: a folder is the set of keys that begin with its name and ``/``.

A request that fails because of the network or the service is repeated, with growing pauses, for
:data:`_PATIENCE_S` seconds. The first request to a bucket is repeated only for :data:`_FIRST_S`, so
that a wrong address is reported soon.
"""

from __future__ import annotations

import errno
import io
import logging
import mimetypes
import os
import random
import re
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, InvalidPathError
from obstore.store import AzureStore, GCSStore, S3Store

from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.settings import is_address
from bgx.storage.base import Found, Status, is_system

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from typing import Any, BinaryIO

    from obstore import ListResult, ObjectMeta
    from obstore.store import ObjectStore

    from bgx.storage.base import File, Folder

    Service = Callable[..., ObjectStore]

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)

_PATIENCE_S = 120.0
"""How long a request is repeated, seconds."""

_FIRST_S = 10.0
"""The same, as long as the service has never answered."""

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
"""Pauses between two tries, seconds: the first and the longest; each is twice the one before."""

_TIMEOUT_S = 30
"""Time limit of one try, seconds; longer for large objects."""

_SLOWEST = 200_000
"""Slowest transfer, bytes per second, that keeps within the time limit."""

_FEW = 32
"""Up to this many files, each is asked for by itself; more are looked up in a listing."""

_UNNAMEABLE = "an empty part, . or .. between slashes, which bgx cannot ask for"

_SUFFIX = re.compile(r"[^/]\.[A-Za-z][A-Za-z0-9]{1,4}$")

_PAGE = 1000
"""Objects that a service lists in one answer."""

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_METADATA_SERVICE = "169.254.169.254"
"""Address where machines in a cloud get credentials; obstore asks it if the environment has none.
"""

_PASSING = frozenset({408, 425, 429})
"""Status codes below 500 for which another try is worthwhile."""


def _open_s3(bucket: str, **options: Any) -> ObjectStore:
    return S3Store(bucket, **options)


def _open_gcs(bucket: str, **options: Any) -> ObjectStore:
    return GCSStore(bucket, **options)


def _open_azure(container: str, **options: Any) -> ObjectStore:
    # Variables of Azure's own command line that obstore does not read.
    names = {"AZURE_STORAGE_ACCOUNT": "account_name", "AZURE_STORAGE_KEY": "account_key"}
    config = {key: os.environ[name] for name, key in names.items() if os.environ.get(name)}
    return AzureStore(container, config=cast("Any", config), **options)


@dataclass(frozen=True, slots=True)
class _Cloud:
    """open: makes a client for one bucket. endpoints: environment variables for another address, in
    order of precedence. prefix: of all its variables. credentials: variables to recommend if there
    are none."""

    open: Service
    endpoints: tuple[str, ...]
    prefix: str
    credentials: str


_CLOUDS: Mapping[str, _Cloud] = {
    "s3": _Cloud(
        _open_s3,
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "AWS_",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "gs": _Cloud(_open_gcs, (), "GOOGLE_", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": _Cloud(
        _open_azure,
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        "AZURE_",
        "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
    ),
}


class Bucket:
    """The client of one bucket. Thread-safe; must not be used on both sides of a fork."""

    def __init__(self, scheme: str, name: str) -> None:
        self._cloud = _CLOUDS[scheme]
        self._url = f"{scheme}://{name}"
        self._name = name
        self._stores: dict[int, ObjectStore] = {}
        self._reached = False
        self._troubled = False
        endpoints = {name: os.environ.get(name) for name in self._cloud.endpoints}
        for variable, endpoint in endpoints.items():
            if endpoint and not is_address(endpoint, "http", "https"):
                raise UsageError(f"{variable} {endpoint}: use an http(s) address")
        # obstore needs an option for addresses without TLS.
        self._plain = any(one and urlsplit(one).scheme == "http" for one in endpoints.values())

    def __str__(self) -> str:
        return self._url

    def ask(self, action: Callable[[ObjectStore], _Answer], *, size: int = 0) -> _Answer:
        """The action's result; it is repeated until it succeeds or :data:`_PATIENCE_S` have passed.

        size: bytes to transfer. Raises AlreadyExistsError, InvalidPathError, or an OSError with the
        reason.
        """
        end = time.monotonic() + (_PATIENCE_S if self._reached else _FIRST_S)
        pause = _PAUSE_S
        while True:
            try:
                answer = action(self._store(size))
            except (AlreadyExistsError, InvalidPathError):
                raise
            except (BaseError, OSError, ValueError) as error:
                trouble = self._explain(error)
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
                if not _may_pass(error) or time.monotonic() + wait > end:
                    raise trouble from error
            else:
                self._reached, self._troubled = True, False
                return answer
            if self._reached and not self._troubled:
                self._troubled = True
                log.warning("%s: %s; trying again", self, trouble.strerror)
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _store(self, size: int) -> ObjectStore:
        """A client whose time limit suits the size; clients are cached."""
        doublings = (size // (_SLOWEST * _TIMEOUT_S)).bit_length()
        if doublings not in self._stores:
            self._stores[doublings] = self._cloud.open(
                self._name,
                client_options={
                    "timeout": timedelta(seconds=_TIMEOUT_S << doublings),
                    "allow_http": self._plain,
                },
                # `ask` repeats more often, logs it, and also repeats create-only writes.
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_FIRST_S)},
            )
        return self._stores[doublings]

    def _explain(self, error: Exception) -> OSError:
        """Turn an error of obstore into an OSError with a reason of one line."""
        text = str(error)
        status, code = _find_answer(text)
        named = f"({code or f'status {status}'})"
        if code in {"NoSuchBucket", "ContainerNotFound"}:
            return FileNotFoundError(errno.ENXIO, f"there is no bucket {self}")
        if _METADATA_SERVICE in text or "must be specified" in text:
            return PermissionError(errno.EACCES, f"no credentials; set {self._cloud.credentials}")
        if status in {401, 403}:
            return PermissionError(errno.EACCES, f"access denied {named}; check the credentials")
        if isinstance(error, FileNotFoundError) or status == 404:
            return FileNotFoundError(errno.ENOENT, "no such object")
        if "redirect" in text or status in {301, 307}:
            return OSError(errno.ENXIO, f"{self} is in another region; set AWS_REGION")
        if isinstance(error, ValueError):
            return OSError(errno.EINVAL, _UNNAMEABLE)
        if not _may_pass(error):
            return OSError(errno.EINVAL, f"the object store refuses it {named}")
        named = f" {named}" if status else ""
        return TimeoutError(errno.ETIMEDOUT, f"the object store does not answer{named}")


@lru_cache
def _open_bucket(scheme: str, name: str, environment: tuple[tuple[str, str], ...]) -> Bucket:
    """One client for all objects of a bucket; a new one if the environment has changed."""
    return Bucket(scheme, name)


def _find_answer(text: str) -> tuple[int, str]:
    """The HTTP status and the service's error code in an error's text; 0 and "" if missing."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return int(status[1]) if status else 0, code[1] if code else ""


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: the network or the service failed, not the request."""
    text = str(error)
    if not isinstance(error, GenericError) or _METADATA_SERVICE in text:
        return False
    status, _ = _find_answer(text)
    return status >= 500 or status in _PASSING or (not status and "HTTP error" in text)


def open_object(name: str) -> ObjectFile:
    """The object of that name, whether it exists or not. Raises UsageError for an invalid name."""
    bucket, key = _split(name)
    if not key:
        raise UsageError(f"{name}: is a bucket; name an object in it")
    return ObjectFile(bucket, key)


def open_prefix(name: str) -> ObjectFolder:
    """The folder of that name, whether it exists or not. Raises UsageError for an invalid name."""
    bucket, key = _split(name)
    return ObjectFolder(bucket, key.removesuffix("/"))


def find_prefix(name: str) -> ObjectFolder | None:
    """The folder of that name, or None. Raises UsageError if the service cannot tell.

    A name whose last part has a suffix, and that does not end in ``/``, is taken for an object
    without a request: a list may have a great many of them.
    """
    folder = open_prefix(name)
    if not name.endswith("/") and _SUFFIX.search(folder.prefix):
        return None
    try:
        return folder if folder.look() else None
    except OSError as error:
        raise UsageError(f"{name}: cannot be searched: {error.strerror}") from error


def is_there(name: str) -> bool:
    """Whether an object or a folder of that name exists. Raises as :func:`find_prefix`."""
    if find_prefix(name):
        return True
    bucket, key = _split(name)
    try:
        return bool(key) and ObjectFile(bucket, key).look() is not None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error


def _split(name: str) -> tuple[Bucket, str]:
    scheme, _, rest = name.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise UsageError(f"{name}: names no bucket; use {scheme}://BUCKET/KEY")
    prefix = _CLOUDS[scheme].prefix
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefix)))
    return _open_bucket(scheme, bucket, environment), key


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
        return PurePosixPath(self.name).suffix.lower()

    @property
    def folder(self) -> ObjectFolder:
        return ObjectFolder(self.bucket, self.key.rpartition("/")[0])

    def open(self) -> BinaryIO:
        """The whole object is read into memory."""
        size = self.known.size if self.known else 0
        content = self._ask(lambda store: obstore.get(store, self.key).bytes(), size=size)
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
            return _describe(self._ask(lambda store: obstore.head(store, self.key)))
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
            raise OSError(errno.EINVAL, _UNNAMEABLE)
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
        for below, there in self._list():
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

    def files(self, names: Iterable[str]) -> Iterator[File]:
        """Many files are looked up in one listing, from the first name to the last."""
        names = list(names)
        if len(names) <= _FEW:
            yield from map(self.file, names)
            return
        there: dict[str, Status | OSError] = {}
        wanted, last = set(names), max(names)
        try:
            for below, found in self._list(start=min(names)):
                if below > last:
                    break
                if below in wanted:
                    there[below] = found
        except OSError as error:
            raise OutputError(f"{self}: cannot be listed: {error.strerror}") from error
        for name in names:
            status = there.get(name)
            known = status if isinstance(status, Status) else None
            yield ObjectFile(self.bucket, self._key(name), known, listed=True)

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
        return f"{self.prefix}/{below}" if self.prefix else below

    def _list(self, start: str = "") -> Iterator[tuple[str, Status | OSError]]:
        """Names relative to the folder, sorted, with the object's status, or the error of a
        subfolder that cannot be listed.

        start: names before this one may be left out. Raises OSError if the folder itself cannot be
        listed.
        """
        skip = len(self._key(""))
        pages = _Pages(self, _before(self._key(start)) if start else None)
        try:
            for page in pages:
                for meta in page:
                    yield meta["path"][skip:], _describe(meta)
        except InvalidPathError:
            for below, found in self._list_by_folders(skip).items():
                if pages.last is None or self._key(below) > pages.last:
                    yield below, found

    def _list_by_folders(self, skip: int) -> dict[str, Status | OSError]:
        """List each subfolder by itself: a name that obstore cannot represent makes the listing
        fail, which then concerns only the subfolder it is in."""
        found: dict[str, Status | OSError] = {}
        waiting = [self.prefix]
        while waiting:
            prefix = waiting.pop()
            try:
                listed = self.bucket.ask(partial(_list_folder, prefix=prefix or None))
            except InvalidPathError as error:
                trouble = OSError(errno.EINVAL, f"holds a name with {_UNNAMEABLE}")
                if prefix == self.prefix:
                    raise trouble from error
                found[prefix[skip:]] = trouble
                continue
            found |= {meta["path"][skip:]: _describe(meta) for meta in listed["objects"]}
            waiting += listed["common_prefixes"]
        return dict(sorted(found.items()))


class _Pages:
    """The pages of a listing; after an error it continues where it stopped.

    last: the last key so far; the listing continues behind it.
    """

    def __init__(self, folder: ObjectFolder, last: str | None) -> None:
        self._folder = folder
        self._stream: Iterator[Sequence[ObjectMeta]] | None = None
        self.last = last

    def __iter__(self) -> Iterator[Sequence[ObjectMeta]]:
        while page := self._folder.bucket.ask(self._read):
            yield page
            self.last = page[-1]["path"]

    def _read(self, store: ObjectStore) -> Sequence[ObjectMeta]:
        if self._stream is None:
            self._stream = obstore.list(
                store, self._folder.prefix or None, offset=self.last, chunk_size=_PAGE
            )
        try:
            return next(self._stream, [])
        except Exception:
            self._stream = None
            raise


def _before(key: str) -> str | None:
    """A key shortly before this one in the order of keys; None if there is no valid one."""
    shorter = key[:-1].rstrip("/")
    return None if {"", ".", ".."} & set(shorter.split("/")) else shorter


def _list_folder(store: ObjectStore, prefix: str | None) -> ListResult[Sequence[ObjectMeta]]:
    return obstore.list_with_delimiter(store, prefix)


def _try(look: Callable[[], Status | None]) -> Status | None:
    """Call ``look``; if it raises, log the reason and return None."""
    try:
        return look()
    except OSError as error:
        log.warning("the object store cannot be asked: %s", error.strerror)
        return None


def _describe(meta: ObjectMeta) -> Status:
    modified = int(meta["last_modified"].timestamp() * 1_000_000_000)
    return Status("file", meta["size"], modified, modified)
