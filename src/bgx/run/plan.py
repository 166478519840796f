"""Who goes where: from what was named on the command line to one job a picture.

The plan is made before anything is written. The same inputs and outputs always give the same plan,
and a second run finds the first one's targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, get_args

from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.run.existing import find_result, refuse_overwriting, skip_existing
from bgx.run.naming import name_targets, with_suffix
from bgx.run.outcome import Job, Skipped
from bgx.run.sources import choose_names, find_items, sort_inputs
from bgx.settings import Existing
from bgx.storage import is_object, open_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from bgx.run.naming import Name
    from bgx.run.sources import Item
    from bgx.storage.base import File, Folder

_SHEET_SUFFIXES = frozenset({".html", ".htm", ".jpg", ".jpeg"})

_NEVER = 1 << 63
"""Nanoseconds since the epoch: later than everything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """jobs: to do, in order. skipped: already done. notes: what a person should know about the
    names chosen. ignored: how many files in the folders are no pictures. sheet: is written too.
    out: the output folder. folders: all that is written lies in one of these. remote: an object
    store is asked for pictures, or gets some."""

    jobs: list[Job]
    skipped: list[Skipped]
    notes: list[str]
    ignored: int = 0
    sheet: File | None = None
    out: Folder | None = None
    folders: list[Folder] = field(default_factory=list)
    remote: bool = False

    def prepare(self) -> None:
        """Make the output folder, and delete what killed runs left where this one writes.

        Raises OutputError, also where none of the folders can be written to.
        """
        if self.out is not None:
            self.out.make()
        for folder in self.folders:
            folder.remove_leftovers()
        if self.jobs:
            _check_writable(self.folders)


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
    """Plan a batch.

    inputs: files, taken whatever they are, and folders (walked, their tree kept below out). suffix:
    of the targets, with its dot. review: a second output folder, for copies. sheet: a file that is
    written too. read, written: what else the run reads and writes.

    Raises UsageError (nothing to do, an output folder would be read as input, what is written is
    read too or written twice, the sheet's suffix) and OutputError (an output folder is a file).
    """
    if existing not in get_args(Existing):
        raise UsageError(f"--existing {existing}: use one of {', '.join(get_args(Existing))}")
    if sheet is not None and sheet.suffix not in _SHEET_SUFFIXES:
        raise UsageError(f"--sheet {sheet}: use a name that ends in .html or .jpg")
    outs = [out] if review is None else [out, review]
    for folder in outs:
        _check_folder(folder)
    named = sort_inputs(inputs, outs)
    items, ignored = find_items(named, outs, suffix)
    if not items:
        raise UsageError("no pictures found in what was named; see `bgx batch --help`")

    names, notes = choose_names(items)
    belows = _choose_targets(items, names, out, suffix)
    targets = list(out.files(belows))
    copies = list(review.files(belows)) if review else []
    refuse_overwriting(
        [*(item.file for item in items), *map(open_file, read)],
        [*copies, *([sheet] if sheet else []), *map(open_file, written)],
        targets=targets,
    )
    jobs: list[Job] = []
    skipped: list[Skipped] = []
    for index, (item, target) in enumerate(zip(items, targets, strict=True)):
        copy = copies[index] if copies else None
        job = Job(item.source, target, copy, create=existing == "skip")
        reason = None if item.error else skip_existing(item.file, target, existing)
        if reason is None:
            jobs.append(job)
        else:
            skipped.append(Skipped(job, reason))
    notes = [*named.notes, *notes, *_explain_names(items, names, belows, suffix)]
    if sheet is not None and jobs and existing != "overwrite" and sheet.status():
        # It shows pictures that this run leaves as they are.
        sheet, there = _name_another(sheet, {*targets, *copies}), sheet
        notes.append(f"--sheet {there}: is there; this run's is {sheet}")
    written_in = {file.folder: None for file in (*targets, *copies, *([sheet] if sheet else []))}
    remote = any(is_object(str(place)) for place in (*outs, *named.folders, *named.files))
    return Plan(jobs, skipped, notes, ignored, sheet, out, list(written_in), remote)


def _check_folder(folder: Folder) -> None:
    status = folder.status()
    if status is not None and status.kind != "folder":
        raise OutputError(f"{folder}: is a file, not a folder; choose another output folder")


def _choose_targets(
    items: Sequence[Item], names: Sequence[Name], out: Folder, suffix: str
) -> list[str]:
    """The names below ``out``. A folder that could not be searched has its own."""
    pictures = [index for index, item in enumerate(items) if item.error is None]

    def find(belows: Sequence[str]) -> dict[str, int]:
        results = zip(belows, map(find_result, out.files(belows)), strict=True)
        return {below: result.modified for below, result in results if result}

    def arrived(index: int) -> int:
        status = items[pictures[index]].file.status()
        return status.arrived if status else _NEVER

    targets = name_targets([names[index] for index in pictures], suffix, find, arrived)
    belows = [name.below for name in names]
    for index, target in zip(pictures, targets, strict=True):
        belows[index] = target
    return belows


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
    return [f"{len(moved)} sources would share a target; each got its own: {shown}"]


def _name_another(file: File, taken: Collection[File]) -> File:
    """The first of sheet-2.html, sheet-3.html and so on that is free."""
    stem = file.name[: len(file.name) - len(file.suffix)]
    names = (file.folder.file(f"{stem}-{number}{file.suffix}") for number in count(2))
    return next(name for name in names if name not in taken and name.status() is None)


def _check_writable(folders: Iterable[Folder]) -> None:
    """Raise OutputError where none of them takes files; a single one is its pictures' trouble."""
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
