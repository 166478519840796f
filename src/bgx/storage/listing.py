"""Listings of a bucket, however long, and with names in them that obstore cannot represent."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import InvalidPathError

from bgx.storage.base import Status
from bgx.storage.client import UNNAMEABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from obstore import ListResult, ObjectMeta
    from obstore.store import ObjectStore

    from bgx.storage.client import Bucket

_PAGE = 1000
"""Objects that a service lists in one answer."""


def list_objects(
    bucket: Bucket, prefix: str, start: str = ""
) -> Iterator[tuple[str, Status | OSError]]:
    """Names relative to the folder ``prefix``, sorted, with the object's status, or the error of a
    subfolder that cannot be listed.

    start: names before this one may be left out. Raises OSError if the folder itself cannot be
    listed.
    """
    above = f"{prefix}/" if prefix else ""
    skip = len(above)
    pages = _Pages(bucket, prefix, _before(above + start) if start else None)
    try:
        for page in pages:
            for meta in page:
                yield meta["path"][skip:], describe(meta)
    except InvalidPathError:
        for below, found in _list_by_folders(bucket, prefix, skip).items():
            if pages.last is None or above + below > pages.last:
                yield below, found


def _list_by_folders(bucket: Bucket, top: str, skip: int) -> dict[str, Status | OSError]:
    """List each subfolder by itself: a name that obstore cannot represent makes the listing
    fail, which then concerns only the subfolder it is in."""
    found: dict[str, Status | OSError] = {}
    waiting = [top]
    while waiting:
        prefix = waiting.pop()
        try:
            listed = bucket.ask(partial(_list_folder, prefix=prefix or None))
        except InvalidPathError as error:
            trouble = OSError(errno.EINVAL, f"holds a name with {UNNAMEABLE}")
            if prefix == top:
                raise trouble from error
            found[prefix[skip:]] = trouble
            continue
        found |= {meta["path"][skip:]: describe(meta) for meta in listed["objects"]}
        waiting += listed["common_prefixes"]
    return dict(sorted(found.items()))


class _Pages:
    """The pages of a listing; after an error it continues where it stopped.

    last: the last key so far; the listing continues behind it.
    """

    def __init__(self, bucket: Bucket, prefix: str, last: str | None) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._stream: Iterator[Sequence[ObjectMeta]] | None = None
        self.last = last

    def __iter__(self) -> Iterator[Sequence[ObjectMeta]]:
        while page := self._bucket.ask(self._read):
            yield page
            self.last = page[-1]["path"]

    def _read(self, store: ObjectStore) -> Sequence[ObjectMeta]:
        if self._stream is None:
            self._stream = obstore.list(
                store, self._prefix or None, offset=self.last, chunk_size=_PAGE
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


def describe(meta: ObjectMeta) -> Status:
    """The status of an object in a listing."""
    modified = int(meta["last_modified"].timestamp() * 1_000_000_000)
    return Status("file", meta["size"], modified, modified)
