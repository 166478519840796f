"""Listings of a bucket, however long, and with names in them that obstore cannot represent."""

from __future__ import annotations

import errno
import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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

_ODD_KEY = re.compile(r'Path "(.*?)"(?: contained empty|: Encountered illegal)', re.DOTALL)
"""In obstore's error for a listing: the first key that it cannot represent."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def list_objects(
    bucket: Bucket, prefix: str, start: str = ""
) -> Iterator[tuple[str, Status | OSError]]:
    """Names relative to the folder ``prefix``, sorted, with the object's status, or the error of a
    folder that cannot be listed completely; the name of the folder itself is empty.

    start: names before this one may be left out. Raises OSError if nothing can be listed.
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
            if isinstance(found, OSError) or pages.last is None or above + below > pages.last:
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
            found |= _list_behind(bucket, prefix, error, skip)
            continue
        found |= {meta["path"][skip:]: describe(meta) for meta in listed["objects"]}
        waiting += listed["common_prefixes"]
    return dict(sorted(found.items()))


def _list_behind(
    bucket: Bucket, prefix: str, error: InvalidPathError, skip: int
) -> dict[str, Status | OSError]:
    """List a folder whose listing failed from behind the name that obstore cannot represent.

    What a service lists in one answer with such a name, and before it, cannot be seen.
    """
    found: dict[str, Status | OSError] = {}
    start = ""
    while True:
        odd = _find_odd(error)
        folder, key = (odd.folder, f": {odd.key}") if odd else (prefix, "")
        reason = (
            f"holds a name with {UNNAMEABLE}{key}; rename it, as others may be left out with it"
        )
        found.setdefault(folder[skip:], OSError(errno.EINVAL, reason))
        if odd is None or odd.behind <= start:
            return found
        start = odd.behind
        try:
            for page in _Pages(bucket, prefix, start):
                found |= {meta["path"][skip:]: describe(meta) for meta in page}
        except InvalidPathError as another:
            error = another
        else:
            return found


class _Odd(NamedTuple):
    """A key that obstore cannot represent.

    folder: that holds it, or holds the first part that cannot be represented. behind: a valid key
    behind all keys that begin as this one does, up to what cannot be represented.
    """

    key: str
    folder: str
    behind: str


def _find_odd(error: InvalidPathError) -> _Odd | None:
    match = _ODD_KEY.search(str(error))
    if match is None:
        return None
    *folders, name = match[1].split("/")
    for index, part in enumerate([*folders, name]):
        above = folders[:index]
        if control := _CONTROL.search(part):
            # Behind the last of these characters before the space, or behind the one after "~".
            behind = part[: control.start()] + (" " if control[0] < " " else "\x80")
        elif part in {"", ".", ".."}:
            behind = f"{part}0" if index < len(folders) else f"{part} "  # 0 comes after the slash
        else:
            continue
        return _Odd(match[1], "/".join(above), "/".join([*above, behind]))
    return None


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
