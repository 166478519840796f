"""Who goes where: from what was named on the command line to one job a picture.

The plan is made before anything is written, and the same inputs always give the same plan: a second
run finds the first one's targets.
"""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from bgx.errors import OutputError, UsageError
from bgx.run.outcome import Job, Skipped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from bgx.settings import Existing


@dataclass(frozen=True, slots=True)
class Plan:
    """jobs: to do, in order. skipped: already done. notes: what a person should know about the
    names chosen. ignored: how many files in the folders are no pictures."""

    jobs: list[Job]
    skipped: list[Skipped]
    notes: list[str]
    ignored: int


@dataclass(frozen=True, slots=True)
class _Source:
    """A picture, and its path below the folder it was found in (its name, if named by itself)."""

    path: Path
    below: PurePath


def plan_batch(
    inputs: Iterable[Path],
    out: Path,
    *,
    suffix: str,
    suffixes: Collection[str],
    existing: Existing,
) -> Plan:
    """Plan a batch.

    inputs: files, and folders (walked, their tree kept below out). suffix: of the targets, with its
    dot. suffixes: of the files in folders that are pictures, lower case; a file named by itself is
    always taken. Raises UsageError (nothing to do, out would be read as input, a target is a
    source) and OutputError (out is a file).
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder; choose another output folder")
    sources, ignored, notes = _find_sources(inputs, out, suffixes)
    if not sources:
        raise UsageError("no pictures found in what was named; see `bgx batch --help`")
    targets = name_targets([source.below for source in sources], suffix)
    jobs = [Job(s.path, out / target) for s, target in zip(sources, targets, strict=True)]
    _refuse_overwriting(jobs)
    todo: list[Job] = []
    skipped: list[Skipped] = []
    for job in jobs:
        outcome = skip_existing(job, existing)
        if outcome is None:
            todo.append(job)
        else:
            skipped.append(outcome)
    return Plan(todo, skipped, notes + _explain_names(sources, targets, suffix), ignored)


def expand_patterns(inputs: Iterable[str]) -> Iterator[Path]:
    """Existing paths as they are, glob patterns as what they match; UsageError for neither."""
    for given in inputs:
        path = Path(given)
        if path.exists() or path.is_symlink():
            yield path
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
    try:
        target = job.target.stat()
    except OSError:
        return None
    if target.st_size == 0:
        return None  # what some file systems leave of a fresh file after a power cut
    if existing == "skip":
        return Skipped(job, "exists")
    try:
        source = job.source.stat()
    except OSError:
        return None  # reading it will say what is wrong
    return Skipped(job, "current") if target.st_mtime_ns >= source.st_mtime_ns else None


def name_targets(sources: Sequence[PurePath], suffix: str) -> list[PurePath]:
    """A distinct target for each source path, compared as the most forgiving file system would.

    ``a.jpg`` gives ``a.png``; where another source wants that too, both keep their suffix
    (``a.jpg.png``); where even that is not enough, a number is added. A source that has its plain
    target to itself is never moved by the others.
    """
    plain = [source.with_suffix(suffix) for source in sources]
    wanted = Counter(map(_fold, plain))
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


def _find_sources(
    inputs: Iterable[Path], out: Path, suffixes: Collection[str]
) -> tuple[list[_Source], int, list[str]]:
    """Sources, each path once; the number of ignored files; notes."""
    found: dict[Path, _Source] = {}
    named: dict[Path, Path] = {}
    ignored = 0
    for path in inputs:
        if not path.is_dir():
            named.setdefault(_absolute(path), path)
            continue
        _refuse_overlap(path, out)
        for file in _walk(path, out):
            if file.suffix.lower() in suffixes:
                found.setdefault(_absolute(file), _Source(file, file.relative_to(path)))
            else:
                ignored += 1
    root = _shared_folder(named)
    for absolute, path in named.items():
        below = absolute.relative_to(root) if root else PurePath(path.name)
        found.setdefault(absolute, _Source(path, below))
    notes = [f"several files share a name; their folders below {root} are kept"] if root else []
    return list(found.values()), ignored, notes


def _shared_folder(named: Collection[Path]) -> Path | None:
    """The deepest folder above all files, where two of them have one name; else None."""
    names = Counter(_fold(PurePath(path.name)) for path in named)
    if len(names) == len(named):
        return None
    try:
        return Path(os.path.commonpath([path.parent for path in named]))
    except ValueError:  # on several drives
        return None


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    """Files below folder, sorted; not hidden ones, and nothing below out."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be searched: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not same_file(here / name, out)
        )
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _refuse_overlap(folder: Path, out: Path) -> None:
    """Outputs must not become the next run's inputs."""
    inside, outside = folder.resolve(), out.resolve()
    if inside == outside or same_file(folder, out):
        raise UsageError(f"{out}: is the input folder too; choose another output folder")
    if inside.is_relative_to(outside):
        raise UsageError(
            f"{folder}: lies inside the output folder {out}; choose another output folder"
        )


def _refuse_overwriting(jobs: Iterable[Job]) -> None:
    jobs = list(jobs)
    sources = {identity for job in jobs if (identity := _identify(job.source))}
    for job in jobs:
        if _identify(job.target) in sources:
            raise UsageError(
                f"{job.target}: would overwrite an input; choose another output folder or --format"
            )


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file, whatever links or spelling lead there."""
    identity = _identify(first)
    return identity is not None and identity == _identify(second)


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would merge links people made
