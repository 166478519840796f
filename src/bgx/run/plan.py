"""Plans a batch: turns the inputs of the command line into one job per picture.

The same inputs and outputs always give the same plan, so that a second run finds the targets of the
first. The plan is made before anything is written. A folder of more than :data:`_AT_ONCE` pictures
is planned in parts, so that work starts before everything is listed and memory does not grow with
the folder. A later part avoids the targets of the parts before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, get_args

from bgx.errors import OutputError, UnwritableError, UsageError, amount
from bgx.run.existing import find_result, refuse_overwriting, skip_existing
from bgx.run.naming import name_targets, with_suffix
from bgx.run.outcome import Job, Skipped
from bgx.run.sources import Search, choose_names, is_picture, sort_inputs
from bgx.settings import Existing
from bgx.storage import is_object, open_file
from bgx.storage.base import fold

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from bgx.run.naming import Name
    from bgx.run.sources import Inputs, Item
    from bgx.storage.base import File, Folder

_SHEET_SUFFIXES = frozenset({".html", ".htm", ".jpg", ".jpeg"})

_NEVER = 1 << 63
"""A time later than any file's, nanoseconds since the epoch."""


_AT_ONCE = 2000
"""Least number of pictures in a part that is not the last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan, or one part of it.

    jobs: to do, in order. skipped: need not be done. notes: remarks on the chosen names for the
    user. ignored: number of files in the folders that are not pictures. sheet: the contact sheet to
    write. out: the output folder. folders: all folders that files are written to. remote: some
    pictures or results are in an object store. belows: names of all targets below out, in the order
    of the items. rest: the parts that follow; iterating over it searches for them, and raises what
    plan_batch raises.
    """

    jobs: list[Job]
    skipped: list[Skipped]
    notes: list[str]
    ignored: int = 0
    sheet: File | None = None
    out: Folder | None = None
    folders: list[Folder] = field(default_factory=list)
    remote: bool = False
    belows: list[str] = field(default_factory=list)
    rest: Iterator[Plan] = field(default_factory=lambda: iter(()))

    def parts(self) -> Iterator[Plan]:
        """This part and those that follow."""
        yield self
        yield from self.rest

    def begin(self) -> list[Job | Skipped]:
        """Prepare this part; returns its skipped jobs and its jobs."""
        self.prepare()
        return [*self.skipped, *self.jobs]

    def prepare(self) -> None:
        """Create the output folder, and delete temporary files that killed runs left.

        Raises OutputError, also if none of the folders to write to is writable.
        """
        if self.out is not None:
            self.out.make()
        for folder in self.folders:
            folder.remove_leftovers()
        if self.jobs:
            check_writable(self.folders)


def plan_batch(
    inputs: Iterable[str],
    out: Folder,
    *,
    suffix: str,
    existing: Existing,
    review: Folder | None = None,
    sheet: File | None = None,
    read: Iterable[str | Path] = (),
    written: Iterable[str | Path] = (),
) -> Plan:
    """Plan a batch, or its first part.

    inputs: files, whatever they contain, and folders, which are searched recursively; subfolders
    are kept below out. suffix: of the targets, with its dot. review: a second output folder, for
    copies of doubtful results. sheet: the contact sheet to write. read, written: other files that
    the run reads and writes.

    Raises UsageError (no pictures found, an output folder would be searched as input, a file would
    be read and written or written twice, wrong suffix of the sheet) and OutputError (an output
    folder is a file).
    """
    if sheet is not None and sheet.suffix not in _SHEET_SUFFIXES:
        raise UsageError(f"--sheet {sheet}: use a name that ends in .html or .jpg")
    if sheet is not None:
        _check_folder(sheet.folder)
    extra = [*([sheet] if sheet else []), *map(open_file, written)]
    outs = [out] if review is None else [out, review]
    named = check_places(inputs, outs, existing, extra)
    search = Search(named, outs, suffix)
    groups = _split(search) if search.one_folder else iter([list(search)])
    first = next(groups, [])
    if not first:
        raise UsageError("no pictures found in the inputs; see `bgx batch --help`")
    planner = Planner(out, review, suffix, existing, [open_file(name) for name in read], extra)
    taken = _Taken()
    ignored = 0

    def plan_part(items: Sequence[Item]) -> Plan:
        nonlocal ignored
        plan = planner.plan(items, taken)
        taken.add(plan.belows)
        ignored, before = search.ignored, ignored
        return replace(plan, ignored=ignored - before)

    plan = plan_part(first)
    notes = [*named.notes, *plan.notes]
    if sheet is not None and plan.jobs and existing != "overwrite" and sheet.status():
        # The existing sheet shows pictures that this run skips.
        used = [place for job in plan.jobs for place in (job.target, job.review)]
        sheet, there = _name_another(sheet, used), sheet
        notes.append(f"--sheet {there}: exists; this run writes {sheet}")
    folders = [*plan.folders, *([sheet.folder] if sheet else [])]
    remote = any(is_object(str(place)) for place in (*outs, *named.folders, *named.files))
    return replace(
        plan,
        notes=notes,
        sheet=sheet,
        out=out,
        folders=list(dict.fromkeys(folders)),
        remote=remote,
        rest=map(plan_part, groups),
    )


def check_places(
    inputs: Iterable[str], outs: Sequence[Folder], existing: str, written: Iterable[File]
) -> Inputs:
    """Sort the inputs. outs: folders that are written to. written: other files that are written.

    Raises UsageError and OutputError as :func:`plan_batch` does.
    """
    if existing not in get_args(Existing):
        raise UsageError(f"--existing {existing}: use one of {', '.join(get_args(Existing))}")
    for folder in outs:
        _check_folder(folder)
    named = sort_inputs(inputs, outs)
    for file in written:
        _refuse_input(file, named.folders, outs)
    return named


def _split(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Split the items into groups. Names with the same text before the first dot, which could get
    the same target, are never separated."""
    group: list[Item] = []
    for item in items:
        if len(group) >= _AT_ONCE and root_of(item.below) != root_of(group[-1].below):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def root_of(below: str) -> str:
    """A name up to its first dot. Sources that differ in it cannot get the same target."""
    folder, slash, name = below.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _refuse_input(file: File, folders: Sequence[Folder], outs: Sequence[Folder]) -> None:
    """Raise UsageError if the file is a picture that a later part would find as an input."""

    def lies_in(places: Sequence[Folder]) -> bool:
        return any(place.contains(file.folder) for place in places)

    if lies_in(folders) and not lies_in(outs) and file.status() and is_picture(file):
        raise UsageError(f"{file}: would overwrite an input; choose another name")


class _Taken:
    """Targets of earlier parts, folded. Only their hashes are kept, to save memory."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def __contains__(self, name: object) -> bool:
        return hash(name) in self._hashes

    def add(self, names: Iterable[str]) -> None:
        self._hashes |= {hash(fold(name)) for name in names}


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one part after the other.

    read, written: files other than pictures and results. moved: sources are moved away when they
    are done.
    """

    out: Folder
    review: Folder | None
    suffix: str
    existing: Existing
    read: Sequence[File]
    written: Sequence[File]
    moved: bool = False

    def plan(self, items: Sequence[Item], taken: Container[str] = frozenset()) -> Plan:
        """Plan a part for these items. taken: targets of other items, folded.

        Raises UsageError and OutputError.
        """
        names, notes = choose_names(items)
        belows, results = self._choose_targets(items, names, taken)
        targets = [results.get(below) or self.out.file(below) for below in belows]
        copies = [self.review.file(below) for below in belows] if self.review else []
        refuse_overwriting(
            [*(item.file for item in items), *self.read],
            [*copies, *self.written],
            targets=targets,
        )
        jobs: list[Job] = []
        skipped: list[Skipped] = []
        for index, (item, target) in enumerate(zip(items, targets, strict=True)):
            copy = copies[index] if copies else None
            job = Job(item.source, target, copy, create=self.existing == "skip")
            reason = None
            if item.error is None and belows[index] in results:
                reason = skip_existing(item.file, target, self.existing, moved=self.moved)
            if reason is None:
                jobs.append(job)
            else:
                skipped.append(Skipped(job, reason))
        notes += _explain_names(items, names, belows, self.suffix)
        folders = list(dict.fromkeys(file.folder for file in (*targets, *copies)))
        return Plan(jobs, skipped, notes, folders=folders, belows=belows)

    def _choose_targets(
        self, items: Sequence[Item], names: Sequence[Name], taken: Container[str]
    ) -> tuple[list[str], dict[str, File]]:
        """The targets' names below ``out``, and the files of existing results by such names.

        An item for a folder that could not be searched keeps the folder's name.
        """
        pictures = [index for index, item in enumerate(items) if item.error is None]
        results: dict[str, File] = {}

        def find(belows: Sequence[str]) -> dict[str, int]:
            made = {}
            for below, file in self.out.files(belows):
                if result := find_result(file):
                    results[below], made[below] = file, result.modified
            return made

        def arrived(index: int) -> int:
            status = items[pictures[index]].file.status()
            return status.arrived if status else _NEVER

        targets = name_targets(
            [names[index] for index in pictures],
            self.suffix,
            find,
            arrived,
            taken,
            moved=self.moved and self.existing == "skip",
        )
        belows = [name.below for name in names]
        for index, target in zip(pictures, targets, strict=True):
            belows[index] = target
        return belows, results


def _check_folder(folder: Folder) -> None:
    if is_object(str(folder)):
        folder.make()
        return
    status = folder.status()
    if status is not None and status.kind != "folder":
        raise OutputError(f"{folder}: is a file, not a folder; choose another output folder")


def _explain_names(
    items: Sequence[Item], names: Sequence[Name], belows: Sequence[str], suffix: str
) -> list[str]:
    moved = [
        f"{item.file} -> {below}"
        for item, name, below in zip(items, names, belows, strict=True)
        if item.error is None and below != with_suffix(name.below, suffix)
    ]
    if not moved:
        return []
    shown = ", ".join(moved[:3]) + (", ..." if len(moved) > 3 else "")
    return [f"{amount(len(moved), 'source')} would share a target; each got its own: {shown}"]


def _name_another(file: File, taken: Collection[object]) -> File:
    """The first of sheet-2.html, sheet-3.html, ... that does not exist and is not taken."""
    stem = file.name[: len(file.name) - len(file.suffix)]
    names = (file.folder.file(f"{stem}-{number}{file.suffix}") for number in count(2))
    return next(name for name in names if name not in taken and name.status() is None)


def check_writable(folders: Iterable[Folder]) -> None:
    """Raise OutputError if no folder is writable. If only some are not, their pictures fail."""
    trouble: UnwritableError | None = None
    for folder in folders:
        try:
            folder.check_writable()
        except UnwritableError as error:
            trouble = trouble or error
        else:
            return
    if trouble is not None:
        raise OutputError(f"{trouble}; choose another output folder") from trouble
