"""A hot folder: turns arriving pictures into jobs, and moves pictures away after their outcome."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bgx.errors import UnreadableError, UsageError
from bgx.files import move_aside
from bgx.run.arrivals import SETTLE_S, Arrivals, mark
from bgx.run.existing import skip_existing
from bgx.run.outcome import Done, Failed, Skipped, ends_run
from bgx.run.plan import Planner, check_places, check_writable, root_of
from bgx.run.sources import Item
from bgx.storage import explain_missing, is_object, open_file, open_folder
from bgx.storage.base import fold
from bgx.storage.local import LocalFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bgx.run.arrivals import Arrival, Mark
    from bgx.run.outcome import Job, Outcome
    from bgx.settings import Existing
    from bgx.storage.base import File, Folder

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Largest number of pictures in a part. Those of later parts may still be changed or removed."""

RETRY_S = (2.0, 8.0, 20.0)
"""Seconds before each retry of an unreadable picture: it may be written in pauses."""


@dataclass(slots=True)
class _Work:
    """A picture between its arrival and its outcome.

    target: name of its result, relative to the output folder. mark: the file's when it was last
    checked. retries: how often it was tried again since its last change. due: time of the next
    retry, seconds of the monotonic clock.
    """

    item: Item
    job: Job
    target: str
    mark: Mark
    retries: int = 0
    due: float = 0.0


class HotFolder:
    """Gives the pictures of a folder, and those that arrive later, as jobs to ``run_batch``.

    tell: called with each message for the user. done, failed: folders that pictures are moved to,
    into the same subfolder. ignored: number of files so far that are not pictures. remote: whether
    results go to an object store.
    """

    def __init__(
        self,
        folder: LocalFolder,
        arrivals: Arrivals,
        planner: Planner,
        tell: Callable[[str], None],
        *,
        done: LocalFolder | None = None,
        failed: LocalFolder | None = None,
    ) -> None:
        self._folder = folder
        self._arrivals = arrivals
        self._planner = planner
        self._tell = tell
        self._done = done
        self._failed = failed
        self._work: dict[str, _Work] = {}
        self._retries: list[_Work] = []
        self._cleaned: set[Folder] = set()

    @property
    def ignored(self) -> int:
        return self._arrivals.ignored

    @property
    def remote(self) -> bool:
        return is_object(str(self._planner.out))

    def __enter__(self) -> HotFolder:
        """Raises OutputError if a folder cannot be made or written to, and NoMemoryError."""
        for folder in (self._planner.out, self._planner.review, self._done, self._failed):
            if folder is not None:
                folder.make()
                check_writable([folder])
        self._arrivals.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._arrivals.close()

    def parts(self) -> Iterator[list[Job | Skipped]]:
        """Yield parts of jobs, endlessly; a part is empty if there is nothing to do now.

        Raises UsageError if a result would overwrite an input, and OutputError if no result could
        be written.
        """
        while True:
            again = self._take_due()
            idle = not again and len(self._retries) == len(self._work)
            arrivals = self._arrivals.take(_AT_ONCE, wait=idle)
            yield [*again, *(self._plan(arrivals) if arrivals else [])]

    def settle(self, outcome: Outcome) -> Outcome | None:
        """Take the outcome of one of the jobs, and move its picture away if the outcome is final.

        Returns the final outcome; None if the picture will be tried again, or was removed before it
        could be read.
        """
        work = self._work.pop(str(outcome.job.source))
        if isinstance(outcome, Failed) and ends_run(outcome.error):
            return outcome
        if isinstance(outcome, Skipped) and outcome.reason in ("interrupted", "stopped"):
            return outcome
        here = mark(work.item.file)
        if here is None and isinstance(outcome, Failed):
            self._forget(work)
            return None
        if here is not None and here != work.mark:
            # It changed while it was processed. A result of this job may be replaced by the next.
            made = isinstance(outcome, Done)
            job = work.job._replace(create=False) if made else work.job
            self._try_again(replace(work, job=job, mark=here, retries=0), SETTLE_S)
            return None
        if _is_unreadable(outcome) and work.retries < len(RETRY_S):
            log.info("%s: cannot be read yet, it will be tried again", work.item.file)
            self._try_again(replace(work, retries=work.retries + 1), RETRY_S[work.retries])
            return None
        if isinstance(outcome, Skipped) and self._done is None:
            self._warn_of_older(work)
        if here is not None:
            self._move(work.item, self._failed if isinstance(outcome, Failed) else self._done)
        return outcome

    def _warn_of_older(self, work: _Work) -> None:
        """Tell the user if the existing result is that of an earlier photo of the same name."""
        # A planned target is always a File.
        target = cast("File", work.job.target)
        if skip_existing(work.item.file, target, "update") is None:
            self._tell(
                f"{work.item.file}: is newer than its result {target}, which was kept; to replace "
                "it use --existing update"
            )

    def _forget(self, work: _Work) -> None:
        log.info("%s: was removed before it could be read", work.item.file)
        self._arrivals.forget(work.item.below)

    def _try_again(self, work: _Work, seconds: float) -> None:
        work.due = time.monotonic() + seconds
        self._work[str(work.item.source)] = work
        self._retries.append(work)

    def _take_due(self) -> list[Job]:
        """Jobs whose retry is due; a picture that has changed waits again."""
        now = time.monotonic()
        due = [work for work in self._retries if work.due <= now]
        if not due:
            return []
        self._retries = [work for work in self._retries if work.due > now]
        jobs = []
        for work in due:
            here = mark(work.item.file)
            if here is None:
                del self._work[str(work.item.source)]
                self._forget(work)
            elif here != work.mark:
                self._try_again(replace(work, mark=here, retries=0), SETTLE_S)
            else:
                jobs.append(work.job)
        return jobs

    def _plan(self, arrivals: Iterable[Arrival]) -> list[Job | Skipped]:
        """Jobs for new pictures, with the same targets as in a batch of the whole folder."""
        arrived = {str(arrival.item.source): arrival for arrival in arrivals}
        for work in self._retries:
            if str(work.item.source) in arrived:
                work.due = 0.0  # it has changed, so it need not wait
        new = {
            source: arrival
            for source, arrival in arrived.items()
            # A picture in work is checked again at its outcome; a changed one arrives again.
            if source not in self._work and mark(arrival.item.file) == arrival.mark
        }
        if not new:
            return []
        items = [arrival.item for arrival in new.values()]
        items = sorted([*items, *self._find_others(items)], key=lambda item: item.below)
        plan = self._planner.plan(items, {fold(work.target) for work in self._work.values()})
        for note in plan.notes:
            self._tell(note)
        for folder in {*plan.folders} - self._cleaned:
            folder.remove_leftovers()
            self._cleaned.add(folder)
        if plan.jobs:
            check_writable([*plan.folders, self._planner.out])
        targets = {str(item.source): below for item, below in zip(items, plan.belows, strict=True)}
        part: list[Job | Skipped] = []
        begun: list[Job | Skipped] = [*plan.skipped, *plan.jobs]
        for one in begun:
            job = one.job if isinstance(one, Skipped) else one
            source = str(job.source)
            if source in new:
                arrival = new[source]
                self._work[source] = _Work(arrival.item, job, targets[source], arrival.mark)
                part.append(one)
        return part

    def _find_others(self, items: Sequence[Item]) -> Iterator[Item]:
        """Other pictures of the folder that compete with these for names of targets."""
        roots = {root_of(item.below) for item in items}
        new = {item.below for item in items}
        for below in self._arrivals.names():
            if below not in new and root_of(below) in roots:
                file = self._folder.file(below)
                if file.status() is not None:
                    yield Item(file, below, self._folder.location)

    def _move(self, item: Item, folder: LocalFolder | None) -> None:
        if folder is None or item.error is not None:
            return
        try:
            moved = move_aside(Path(str(item.file)), Path(str(folder.file(item.below))))
        except OSError as error:
            log.warning("%s: cannot be moved to %s: %s", item.file, folder, error.strerror)
            return
        log.info("%s: moved to %s", item.file, moved)
        self._arrivals.forget(item.below)


def _is_unreadable(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and isinstance(outcome.error, UnreadableError)


def open_hot_folder(
    name: str,
    out: Folder,
    tell: Callable[[str], None],
    *,
    suffix: str,
    existing: Existing,
    review: Folder | None = None,
    done: str | None = None,
    failed: str | None = None,
    read: Iterable[str | Path] = (),
    written: Iterable[str | Path] = (),
    poll: bool = False,
) -> HotFolder:
    """Check the names and make the hot folder.

    name: of the folder to watch. suffix, existing, review, read, written: as in
    :func:`bgx.run.plan.plan_batch`. done, failed: names of the folders that pictures are moved to.
    poll: do not use events of the file system. Raises UsageError and OutputError.
    """
    folder = _open_local(name, "FOLDER")
    if (status := folder.status()) is None or status.kind != "folder":
        raise UsageError(
            f"{name}: is a file; use: bgx remove {name}" if status else explain_missing(name)
        )
    moved_to = [
        _open_local(given, flag) if given is not None else None
        for given, flag in ((done, "--done"), (failed, "--failed"))
    ]
    outs = [place for place in (out, review, *moved_to) if place is not None]
    for index, place in enumerate(outs):
        if place in outs[:index]:
            raise UsageError(f"{place}: is used twice; choose another folder for one purpose")
    extra = [open_file(file) for file in written]
    check_places([name], outs, existing, extra)
    planner = Planner(
        out, review, suffix, existing, [open_file(file) for file in read], extra, done is not None
    )
    arrivals = Arrivals(folder, outs, poll=poll)
    return HotFolder(folder, arrivals, planner, tell, done=moved_to[0], failed=moved_to[1])


def _open_local(name: str, what: str) -> LocalFolder:
    folder = open_folder(name)
    if not isinstance(folder, LocalFolder):
        raise UsageError(f"{what} {name}: bgx watch needs a local folder")
    return folder
