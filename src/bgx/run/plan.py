"""Who goes where: from what was named on the command line to one job a picture.

The plan is made before anything is written, and the same inputs always give the same plan: a second
run finds the first one's targets.
"""

from __future__ import annotations

import glob
import logging
import os
import stat
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, get_args

from bgx.errors import OutputError, UsageError
from bgx.run.outcome import Job, Skipped
from bgx.settings import Existing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

log = logging.getLogger(__name__)

_SHEET_SUFFIXES = frozenset({".html", ".jpg"})


@dataclass(frozen=True, slots=True)
class Plan:
    """jobs: to do, in order. skipped: already done. notes: what a person should know about the
    names chosen. ignored: how many files in the folders are no pictures. sheet: is written too."""

    jobs: list[Job]
    skipped: list[Skipped]
    notes: list[str]
    ignored: int
    sheet: Path | None = None

    @property
    def folders(self) -> set[Path]:
        """All that is written lies in one of these."""
        jobs = [*self.jobs, *(outcome.job for outcome in self.skipped)]
        copies = {job.review.parent for job in jobs if job.review}
        sheets = {self.sheet.parent} if self.sheet else set()
        return {job.target.parent for job in jobs} | copies | sheets


@dataclass(frozen=True, slots=True)
class _Source:
    """A picture. given: the input it came from. below: its path below that folder, or its name
    where it was named by itself."""

    path: Path
    below: PurePath
    given: Path


def plan_batch(
    inputs: Iterable[Path],
    out: Path,
    *,
    suffix: str,
    suffixes: Collection[str],
    existing: Existing,
    review: Path | None = None,
    sheet: Path | None = None,
    read: Collection[Path] = (),
    written: Collection[Path] = (),
) -> Plan:
    """Plan a batch.

    inputs: files, and folders (walked, their tree kept below out). suffix: of the targets, with its
    dot. suffixes: of the files in folders that are pictures, lower case; a file named by itself is
    always taken. review: a second output folder, for copies. sheet: a file that is written too.
    read, written: what else the run reads and writes. Raises UsageError (nothing to do, an output
    folder would be read as input, what is written is read too or written twice, the sheet's suffix)
    and OutputError (an output folder is a file).
    """
    if existing not in get_args(Existing):
        raise UsageError(f"--existing {existing}: use one of {', '.join(get_args(Existing))}")
    if sheet is not None and sheet.suffix.lower() not in _SHEET_SUFFIXES:
        raise UsageError(f"--sheet {sheet}: use a name that ends in .html or .jpg")
    outs = [out] if review is None else [out, review]
    for folder in outs:
        status = status_of(folder)
        if status and not stat.S_ISDIR(status.st_mode):
            raise OutputError(f"{folder}: is a file, not a folder; choose another output folder")
    inputs, notes = _leave_out(inputs, outs)
    sources, ignored = _find_sources(inputs, outs, suffix, suffixes)
    if not sources:
        raise UsageError("no pictures found in what was named; see `bgx batch --help`")
    sources, kept = _keep_apart(sources)
    notes += kept
    targets = name_targets([source.below for source in sources], suffix)
    jobs = [
        Job(source.path, out / target, review / target if review else None)
        for source, target in zip(sources, targets, strict=True)
    ]
    copies = [job.review for job in jobs if job.review is not None]
    refuse_overwriting(
        [*(job.source for job in jobs), *read],
        [*copies, *([sheet] if sheet else []), *written],
        targets=[job.target for job in jobs],
    )
    todo: list[Job] = []
    skipped: list[Skipped] = []
    for job in jobs:
        outcome = skip_existing(job, existing)
        if outcome is None:
            todo.append(job)
        else:
            skipped.append(outcome)
    if sheet is not None and todo and existing != "overwrite" and status_of(sheet):
        # It shows pictures that this run leaves as they are.
        sheet, there = _name_another(sheet, {job.target for job in jobs}.union(copies)), sheet
        notes.append(f"--sheet {there}: is there; this run's is {sheet}")
    notes += _explain_names(sources, targets, suffix)
    return Plan(todo, skipped, notes, ignored, sheet)


def expand_patterns(inputs: Iterable[str]) -> Iterator[Path]:
    """Existing paths as they are, glob patterns as what they match; UsageError for neither."""
    for given in inputs:
        if os.path.lexists(given):
            yield Path(given)
            continue
        # Shells of Windows leave patterns to the program.
        matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - absolute ones too
        if not matches:
            raise UsageError(f"{given}: no such file or folder")
        yield from map(Path, matches)


def skip_existing(job: Job, existing: Existing) -> Skipped | None:
    """The outcome of a job whose target need not be made again, else None."""
    if existing == "overwrite":
        return None
    target = status_of(job.target)
    if target is None or not stat.S_ISREG(target.st_mode):
        return None
    if target.st_size == 0:
        return None  # what some file systems leave of a fresh file after a power cut
    if existing == "skip":
        return Skipped(job, "exists")
    source = status_of(job.source)
    if source is None:
        return None  # reading it will say what is wrong
    return Skipped(job, "current") if target.st_mtime_ns >= source.st_mtime_ns else None


def name_targets(sources: Sequence[PurePath], suffix: str) -> list[PurePath]:
    """A distinct target for each source path, compared as the most forgiving file system would.

    ``a.jpg`` gives ``a.png``; where another source wants that too, both keep their suffix
    (``a.jpg.png``); where even that is not enough, a number is added. A source that has its plain
    target to itself is never moved by the others, unless theirs lie in a folder of that name.
    """
    plain = [source.with_suffix(suffix) for source in sources]
    wanted = Counter(map(_fold, plain))
    folders = {parent for source in sources for parent in source.parents}
    wanted.update(map(_fold, folders))
    taken = {key for key, times in wanted.items() if times == 1}
    targets = []
    for source, target in zip(sources, plain, strict=True):
        alone = wanted[_fold(target)] == 1
        targets.append(target if alone else next(_alternatives(source, suffix, taken)))
        taken.add(_fold(targets[-1]))
    return targets


def _alternatives(source: PurePath, suffix: str, taken: Collection[str]) -> Iterator[PurePath]:
    names = chain([source.name], (f"{source.name}-{number}" for number in count(2)))
    for name in names:
        target = source.with_name(name + suffix)
        if _fold(target) not in taken:
            yield target


def _fold(path: PurePath) -> str:
    """Equal for names that are one file on a system that ignores case or Unicode's forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())


def _explain_names(
    sources: Sequence[_Source], targets: Sequence[PurePath], suffix: str
) -> list[str]:
    moved = [
        f"{source.path} -> {target}"
        for source, target in zip(sources, targets, strict=True)
        if target != source.below.with_suffix(suffix)
    ]
    if not moved:
        return []
    shown = ", ".join(moved[:3]) + (", ..." if len(moved) > 3 else "")
    return [f"{len(moved)} sources would share a target; each got its own: {shown}"]


def _leave_out(inputs: Iterable[Path], outs: Collection[Path]) -> tuple[list[Path], list[str]]:
    """The inputs without the output folders, which a shell's ``*`` names too; notes."""
    kept = list(inputs)
    notes = []
    for out in outs:
        given = kept
        kept = [path for path in given if not same_file(path, out)]
        if given and not kept:
            raise UsageError(f"{out}: is the input folder too; choose another output folder")
        if len(kept) < len(given):
            notes.append(f"{out}: is the output folder and was not searched")
    return kept, notes


def _find_sources(
    inputs: Iterable[Path], outs: Collection[Path], suffix: str, suffixes: Collection[str]
) -> tuple[list[_Source], int]:
    """Sources, each path once, those in folders first; the number of ignored files."""
    found: dict[Path, _Source] = {}
    named: list[Path] = []
    ignored = 0
    for given in inputs:
        if not _is_folder(given):
            named.append(given)
            continue
        _refuse_nested(given, outs)
        for file in _walk(given, outs):
            if (file.suffix.lower() in suffixes and not _is_special(file)) or _is_folder(file):
                found.setdefault(_absolute(file), _Source(file, file.relative_to(given), given))
            else:
                ignored += 1
    for given in named:
        if given.suffix.lower() == suffix and any(same_file(given.parent, out) for out in outs):
            raise UsageError(
                f"{given}: lies in the output folder as its results do; choose another output "
                "folder or --format"
            )
        found.setdefault(_absolute(given), _Source(given, PurePath(given.name), given))
    return list(found.values()), ignored


def _keep_apart(sources: list[_Source]) -> tuple[list[_Source], list[str]]:
    """Sources with their paths from the folder above all inputs, if two inputs share a path; notes.

    ``may/1.jpg`` and ``june/1.jpg`` then differ, whether the files or their folders were named.
    """
    owners: dict[str, Path] = {}
    if all(owners.setdefault(_fold(s.below), s.given) == s.given for s in sources):
        return sources, []
    try:
        root = Path(os.path.commonpath({_absolute(source.given).parent for source in sources}))
    except ValueError:  # on several drives
        return sources, []
    apart = [replace(s, below=_absolute(s.path).relative_to(root)) for s in sources]
    if apart == sources:
        return sources, []
    return apart, [f"several inputs hold files of one name; their folders below {root} are kept"]


def _walk(folder: Path, outs: Collection[Path]) -> Iterator[Path]:
    """Files below folder, sorted; not hidden ones, and nothing below outs.

    A folder that cannot be searched comes as a file would: reading it will say what is wrong.
    """
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        here = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not any(same_file(here / name, out) for out in outs)
        )
        for name in folders:
            if (here / name).is_symlink():
                log.warning("%s: is a link to a folder; to search it, name it", here / name)
        yield from (here / name for name in sorted(files) if not name.startswith("."))
    for error in errors:
        if Path(error.filename) == folder:
            raise UsageError(f"{folder}: cannot be searched: {error.strerror}") from error
        yield Path(error.filename)


def _refuse_nested(folder: Path, outs: Collection[Path]) -> None:
    """Outputs must not become the next run's inputs."""
    for out in outs:
        # Not resolve(): that raises where links lead in a circle.
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(out)):
            raise UsageError(
                f"{folder}: lies inside the output folder {out}; choose another output folder"
            )


def _name_another(path: Path, taken: Collection[Path]) -> Path:
    """The first of sheet-2.html, sheet-3.html and so on that is free."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(name for name in names if name not in taken and status_of(name) is None)


def refuse_overwriting(
    read: Iterable[Path], written: Sequence[Path], *, targets: Sequence[Path]
) -> None:
    """Raise UsageError where something that is written is read too, or written twice.

    targets: written too, and distinct by their names. Files that are not there yet are told apart
    by their names alone.
    """
    inputs = {identity for path in read if (identity := _identify(path))}
    for path in chain(targets, written):
        if _identify(path) in inputs:
            raise UsageError(
                f"{path}: would overwrite an input; choose another output folder or another name"
            )
    if not written:
        return
    places = Counter(_fold(_absolute(path)) for path in chain(targets, written))
    for path in written:
        if places[_fold(_absolute(path))] > 1:
            raise UsageError(f"{path}: would be written twice; choose another name")


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file, whatever links or spelling lead there."""
    identity = _identify(first)
    return identity is not None and identity == _identify(second)


def _identify(path: Path) -> tuple[int, int] | None:
    status = status_of(path)
    return (status.st_dev, status.st_ino) if status else None


def status_of(path: Path) -> os.stat_result | None:
    """What lies at path; None where nothing does, or nothing this user may see."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _is_folder(path: Path) -> bool:
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _is_special(path: Path) -> bool:
    """Whether it is there and neither file nor folder: a pipe would be waited for."""
    status = status_of(path)
    return status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would merge links people made
