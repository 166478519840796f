"""Finished pictures on disk, shared by any number of servers of one machine.

::

    FOLDER/secret              the key of every entry's address, readable by the owner alone
    FOLDER/index.sqlite3       which entry has which content, and when it was last used
    FOLDER/contents/ab/abcd…   files named by the SHA-256 of what is in them

Every change happens inside one write transaction of the index: the file is moved into place, its
row written, the least recently used rows and their files removed, and then the transaction ends. A
process that is killed at any point leaves at most a file without a row, which the next clean-up
removes, or a row without its file, which is a miss. What is read is hashed and compared with its
row, so damaged or foreign bytes are never served.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgx.errors import OutputError
from bgx.files import remove_leftovers, temporary, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

_BUSY = 10.0
"""Seconds to wait for another process's write transaction."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, size INTEGER NOT NULL, media TEXT NOT NULL,
    facts TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON entries (used);
CREATE INDEX IF NOT EXISTS by_content ON entries (content, size);
"""

# Two entries with the same bytes share a file.
_STORED = "SELECT COALESCE(SUM(size), 0) FROM (SELECT DISTINCT content, size FROM entries)"


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished file.

    media: its Content-Type. digest: SHA-256 of data, hex. facts: JSON values that describe it.
    """

    data: bytes
    media: str
    digest: str
    facts: Mapping[str, Any]


def make_entry(data: bytes, media: str, facts: Mapping[str, Any]) -> Entry:
    """An entry with its digest."""
    return Entry(data, media, hashlib.sha256(data).hexdigest(), facts)


def compute_address(secret: bytes, **parts: Any) -> str:
    """The key of the result that these JSON values determine: their HMAC-SHA256, 64 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hmac.digest(secret, text.encode(), "sha256").hex()


class Cache:
    """Entries below one folder, at most ``limit`` bytes of content. Thread-safe.

    touch_after: seconds after which a further use of an entry is recorded; more often would make
    reading slow. clock: seconds, the same for all processes. Raises OutputError if the folder
    cannot be used; later errors of the disk are logged and count as misses.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        *,
        touch_after: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._contents = folder, folder / "contents"
        self._index = folder / "index.sqlite3"
        self._limit, self._touch_after, self._clock = limit, touch_after, clock
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._contents.mkdir(exist_ok=True)
            self._secret = _keep_secret(folder / "secret")
            self._database = self._open_index()
            self.clean()
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"--cache {folder}: cannot be used: {error}") from error

    def address(self, **parts: Any) -> str:
        """The key of a result, 64 hex digits; it cannot be guessed without the folder's secret.

        parts: everything that determines the result, as JSON values.
        """
        return compute_address(self._secret, **parts)

    def get(self, key: str) -> Entry | None:
        """The entry with its verified bytes; None if there is none."""
        try:
            with self._lock:
                row = self._database.execute(
                    "SELECT content, size, media, facts, used FROM entries WHERE key = ?", (key,)
                ).fetchone()
            if row is None:
                return None
            content, size, media, facts, used = row
            data = self._read(content)
            if data is None or len(data) != size or hashlib.sha256(data).hexdigest() != content:
                log.info("cache: %s is missing or damaged; removed", content)
                self._discard(key, content)
                return None
            if self._clock() - used >= self._touch_after:
                with self._lock, self._database:
                    self._database.execute(
                        "UPDATE entries SET used = ? WHERE key = ?", (self._clock(), key)
                    )
            return Entry(data, media, content, json.loads(facts))
        except (OSError, sqlite3.Error, ValueError) as error:
            log.warning("cache: cannot be read: %s", error)
            return None

    def put(self, key: str, entry: Entry) -> None:
        """Store an entry, and remove the least recently used ones beyond the limit.

        An entry larger than the whole cache is not stored.
        """
        size = len(entry.data)
        if size > self._limit:
            return
        row = (key, entry.digest, size, entry.media, json.dumps(entry.facts), self._clock())
        try:
            # Not in the contents folder, where another process removes files without a row.
            with temporary(self._folder) as written:
                written.write_bytes(entry.data)
                with self._changing() as database:
                    target = self._file(entry.digest)
                    # With `contents`, in case somebody has emptied the folder.
                    target.parent.mkdir(parents=True, exist_ok=True)
                    written.replace(target)
                    database.execute(
                        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", row
                    )
                    self._evict(database)
        except (OSError, sqlite3.Error) as error:
            log.warning("cache: cannot be written: %s", error)

    def clean(self) -> None:
        """Remove what killed processes left: files without a row, and temporary files."""
        with self._changing() as database:
            known = {content for (content,) in database.execute("SELECT content FROM entries")}
            for file in self._contents.glob("*/*"):
                if file.name not in known:
                    file.unlink(missing_ok=True)
            self._evict(database)
        remove_leftovers(self._folder)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _file(self, content: str) -> Path:
        return self._contents / content[:2] / content

    def _read(self, content: str) -> bytes | None:
        try:
            return self._file(content).read_bytes()
        except FileNotFoundError:
            return None

    def _discard(self, key: str, content: str) -> None:
        with self._changing() as database:
            # Unless another process has stored it again in the meantime.
            data = self._read(content)
            if data is None or hashlib.sha256(data).hexdigest() != content:
                database.execute("DELETE FROM entries WHERE content = ?", (content,))
                self._file(content).unlink(missing_ok=True)

    def _evict(self, database: sqlite3.Connection) -> None:
        (stored,) = database.execute(_STORED).fetchone()
        while stored > self._limit:
            key, content, size = database.execute(
                "SELECT key, content, size FROM entries ORDER BY used, key LIMIT 1"
            ).fetchone()
            database.execute("DELETE FROM entries WHERE key = ?", (key,))
            shared = database.execute(
                "SELECT 1 FROM entries WHERE content = ? LIMIT 1", (content,)
            ).fetchone()
            if not shared:
                with contextlib.suppress(PermissionError):  # being read, on Windows; see clean
                    self._file(content).unlink(missing_ok=True)
                stored -= size

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: one at a time of all threads and processes."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def _open_index(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:  # locked, disk full, no permission
            raise
        except sqlite3.DatabaseError as error:
            log.warning("cache: %s is damaged (%s); started anew", self._index, error)
            for suffix in ("", "-wal", "-shm"):
                self._index.with_name(self._index.name + suffix).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._index, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            # It needs memory that all processes share: not for a network file system.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        except sqlite3.Error:
            database.close()
            raise
        return database


def _keep_secret(path: Path) -> bytes:
    """The folder's secret, made by the first process that uses the folder."""
    write_whole(path, secrets.token_bytes(32), create=True, private=True)
    secret = path.read_bytes()
    if len(secret) != 32:
        raise OSError(f"{path}: must be 32 bytes; delete it and what is in its folder")
    return secret
