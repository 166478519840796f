"""Finds the pictures of a folder as they become complete.

File system events are only hints to check a path again: they do not say when a file has been closed
or when events were lost, and network file systems send none. A file counts as complete when two
checks half a second apart find it unchanged. The whole folder is searched again every minute.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from bgx.errors import NoMemoryError
from bgx.run.sources import Item, is_picture
from bgx.threads import POLL, join_all, start

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from bgx.storage.base import File, Folder, Found
    from bgx.storage.local import LocalFolder

log = logging.getLogger(__name__)

SETTLE_S = 0.5
"""Seconds for which a file must be unchanged to count as complete."""

_LOOK_S = 60.0
"""Seconds between two searches of the whole folder, if the file system sends events."""

_POLL_S = 1.0
"""Seconds between two searches of the whole folder, without events."""

_REST = 4
"""Minimum ratio of the pause after a search to the duration of the search."""

_MANY = 1000
"""If more paths than this have changed, events may be lost: the whole folder is searched."""

Mark = tuple[int, int, "Hashable"]
"""A file's size, modification time and identity; it differs if the file has changed."""


def mark(file: File) -> Mark | None:
    """The file's mark; None if there is no file."""
    status = file.status()
    return None if status is None else (status.size, status.modified, file.identity())


@dataclass(frozen=True, slots=True)
class Arrival:
    """A complete picture, or a folder that cannot be searched. mark: the file's at that time."""

    item: Item
    mark: Mark


@dataclass(frozen=True, slots=True)
class _Incomplete:
    """A file that may be incomplete. since: when the mark was first seen, seconds of the clock."""

    found: Found
    mark: Mark
    since: float


class Arrivals:
    """Finds the pictures of a folder, and those that arrive later.

    Each is returned once, and again whenever it has changed. leave_out: folders that are not
    searched. poll: do not use file system events. clock: gives seconds; monotonic. ignored: number
    of files so far that are not pictures. Memory grows only with the number of files in the folder.
    """

    def __init__(
        self,
        folder: LocalFolder,
        leave_out: Sequence[Folder] = (),
        *,
        poll: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ignored = 0
        self._folder = folder
        self._leave_out = leave_out
        self._poll = poll
        self._clock = clock
        self._known: dict[str, Mark] = {}
        self._not_pictures: dict[str, Mark] = {}
        self._pending: dict[str, _Incomplete] = {}
        self._ready: SimpleQueue[Arrival] = SimpleQueue()
        self._hints: set[str] = set()
        self._everything = True
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: Exception | None = None

    def start(self) -> None:
        """Start the threads that search and that listen for events. Raises NoMemoryError."""
        for task in (self._keep_looking,) if self._poll else (self._keep_looking, self._listen):
            thread = threading.Thread(target=self._carry_out, args=(task,), daemon=True)
            if not start(thread):
                raise NoMemoryError("the system gives no thread to watch with; raise its limits")
            self._threads.append(thread)

    def close(self) -> None:
        self._closed.set()
        self._woken.set()
        join_all(self._threads)

    def take(self, count: int, *, wait: bool) -> list[Arrival]:
        """Return new complete pictures, at most ``count``. wait: wait up to POLL s for the first.

        Raises the exception of a thread that has failed.
        """
        taken: list[Arrival] = []
        try:
            while len(taken) < count:
                taken.append(self._ready.get(timeout=POLL if wait and not taken else 0.0))
        except Empty:
            if self._failure is not None:
                raise self._failure from None
        return taken

    def names(self) -> list[str]:
        """Relative names of the folder's pictures, and of files that may be incomplete."""
        return [*self._known, *self._pending]

    def forget(self, below: str) -> None:
        """Forget a picture that was moved away: the next file of its name is a new one."""
        self._known.pop(below, None)

    def look(self, names: Iterable[str] | None = None) -> None:
        """Check these files and folders, or the whole folder; names are relative to it."""
        if names is None:
            self._search()
        else:
            for found in chain.from_iterable(
                self._folder.find(name, self._leave_out) for name in names
            ):
                self._note(found)
        self._settle()

    def _search(self) -> None:
        names = set()
        complete = True
        for found in self._folder.walk(self._leave_out):
            if self._closed.is_set():
                return
            if found.error is not None:
                complete = False
                if not found.below:
                    log.warning("%s: cannot be searched: %s", found.file, found.error.strerror)
            names.add(found.below)
            self._note(found)
        if complete:
            for below in [*self._known.keys() - names, *self._not_pictures.keys() - names]:
                self._drop(below)

    def _note(self, found: Found) -> None:
        here = mark(found.file)
        if here is None:
            self._drop(found.below)
        elif here not in (self._known.get(found.below), self._not_pictures.get(found.below)):
            self._pending.setdefault(found.below, _Incomplete(found, here, self._clock()))

    def _drop(self, below: str) -> None:
        for kept in (self._known, self._not_pictures, self._pending):
            kept.pop(below, None)

    def _settle(self) -> None:
        """Check files that may be incomplete again, and pass on those that are unchanged."""
        for below, seen in list(self._pending.items()):
            if self._clock() - seen.since < SETTLE_S:
                continue
            here = mark(seen.found.file)
            if here is None:
                self._drop(below)
            elif here != seen.mark:
                self._pending[below] = replace(seen, mark=here, since=self._clock())
            else:
                self._pass_on(seen)

    def _pass_on(self, seen: _Incomplete) -> None:
        found = seen.found
        if found.error is None and not is_picture(found.file):
            self.ignored += found.below not in self._not_pictures
            self._not_pictures[found.below] = seen.mark
        else:
            self._known[found.below] = seen.mark
            below = found.below or found.file.name
            item = Item(found.file, below, self._folder.location, found.error)
            self._ready.put(Arrival(item, seen.mark))
        del self._pending[found.below]

    def _carry_out(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - raised by take()
            self._failure = error

    def _keep_looking(self) -> None:
        due = 0.0
        while not self._closed.is_set():
            self._woken.clear()
            names = self._take_hints()
            begun = self._clock()
            if names is None or begun >= due:
                self.look()
                now = self._clock()
                due = now + max(_POLL_S if self._poll else _LOOK_S, _REST * (now - begun))
            else:
                self.look(names)
            next_look = min([due, *(seen.since + SETTLE_S for seen in self._pending.values())])
            self._woken.wait(max(0.02, next_look - self._clock()))

    def _take_hints(self) -> set[str] | None:
        with self._lock:
            everything, self._everything = self._everything, False
            hints, self._hints = self._hints, set()
        return None if everything else hints

    def _hint(self, paths: Sequence[str]) -> None:
        """Have these absolute paths checked."""
        if not paths:
            return
        inside = f"{self._folder.location.rstrip('/')}/"
        names = [Path(path).as_posix() for path in paths]
        with self._lock:
            if len(names) + len(self._hints) > _MANY or any(
                not name.startswith(inside) or "\ufffd" in name  # a name that is not valid UTF-8
                for name in names
            ):
                self._everything = True
            else:
                self._hints.update(name.removeprefix(inside) for name in names)
        self._woken.set()

    def _listen(self) -> None:
        # Imported here: only bgx watch needs it, and not with --poll.
        from watchfiles import watch

        root = self._folder.location
        while not self._closed.is_set():
            identity = self._folder.identity()
            first = True
            try:
                for changes in watch(
                    root,
                    watch_filter=None,
                    debounce=200,
                    rust_timeout=1000,
                    yield_on_timeout=True,
                    stop_event=self._closed,
                    ignore_permission_denied=True,
                ):
                    # At first the whole folder: it may have changed before events were sent.
                    self._hint([root] if first else [path for _, path in changes])
                    first = False
                    if self._folder.identity() != identity:
                        break  # another folder has its name now: watch that one
            except (OSError, RuntimeError) as error:
                log.warning(
                    "%s: the system gives no events for it (%s); searching it every second, as "
                    "with --poll",
                    self._folder,
                    error,
                )
                self._poll = True
                self._hint([root])
                return
