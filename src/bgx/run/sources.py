"""Finds the pictures of a batch: files that were named, and pictures in folders that were named."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.image.identify import HEAD, RAW_SUFFIXES, SUFFIXES, looks_like_picture
from bgx.run.naming import Name
from bgx.storage import explain_missing, find_folder, match, open_file
from bgx.storage.base import fold

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from bgx.storage.base import File, Folder, Source

log = logging.getLogger(__name__)

_LEFT_OUT = RAW_SUFFIXES | {
    # Copies that programs keep beside a picture, downloads that are not finished, thumbnails.
    *(".bak", ".orig", ".old", ".tmp", ".temp"),
    *(".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".download"),
    *(".jpg_original", ".jpeg_original", ".png_original", ".tif_original", ".thm"),
}
"""Lower-case suffixes of files in folders that are never taken for pictures, whatever they hold."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture of the batch, or a folder that could not be searched.

    below: its name relative to the folder that was named; its own name if the file was named.
    given: location of the folder or file that was named. error: why the folder could not be
    searched.
    """

    file: File
    below: str
    given: str
    error: OSError | None = None

    def explain(self) -> str:
        """Why the folder could not be searched, as text."""
        return str(self.error.strerror or self.error) if self.error else ""

    @property
    def source(self) -> Source:
        return self.file if self.error is None else _Unsearched(self.file, self.error)


@dataclass(frozen=True, slots=True)
class _Unsearched:
    """Stands for a folder that could not be searched: opening it raises the reason."""

    file: File
    error: OSError

    def __str__(self) -> str:
        return str(self.file)

    def link(self, page: File) -> str:
        return self.file.link(page)

    def open(self) -> BinaryIO:
        raise self.error


@dataclass(frozen=True, slots=True)
class Inputs:
    """The folders and files that were named. notes: remarks on folders that are not searched."""

    folders: list[Folder]
    files: list[File]
    notes: list[str]


def expand_patterns(inputs: Iterable[str]) -> Iterator[str]:
    """Expand glob patterns, which Windows shells leave to the program; keep names that exist.

    Raises UsageError for a name that neither exists nor matches anything.
    """
    for given in inputs:
        matches = match(given)
        if not matches:
            raise UsageError(explain_missing(given))
        yield from matches


def sort_inputs(inputs: Iterable[str], outs: Sequence[Folder]) -> Inputs:
    """Separate folders and files; leave out output and system folders that a shell's ``*`` named.

    outs: the output folders. Raises UsageError if nothing else was named, and for a folder inside
    an output folder: results must not become the next run's inputs.
    """
    named = [(given, find_folder(given)) for given in inputs]
    files = [open_file(given) for given, folder in named if folder is None]
    identities = {out.identity(): out for out in outs} | {None: None}
    folders: list[Folder] = []
    notes: list[str] = []
    same: Folder | None = None
    for _, folder in named:
        if folder is None:
            continue
        if out := identities.get(folder.identity()):
            same = out
            notes.append(f"{out}: not searched: is the output folder")
        elif folder.is_system() and len(named) > 1:
            notes.append(
                f"{folder}: not searched: belongs to the system; to search it, name it alone"
            )
        else:
            folders.append(folder)
    if same and not folders and not files:
        raise UsageError(f"{same}: is the input folder too; choose another output folder")
    for folder in folders:
        for out in outs:
            if out.contains(folder):
                raise UsageError(
                    f"{folder}: lies inside the output folder {out}; choose another output folder"
                )
    return Inputs(folders, files, notes)


class Search:
    """Iterating over it searches the inputs and yields each file once, those in folders first.

    outs: the output folders, which are not searched. suffix: of the results. ignored: number of
    files found so far that are not pictures. Iterating raises UsageError.
    """

    def __init__(self, inputs: Inputs, outs: Sequence[Folder], suffix: str) -> None:
        self._inputs = inputs
        self._outs = outs
        self._suffix = suffix
        self.ignored = 0

    @property
    def one_folder(self) -> bool:
        """Whether one folder is the only input, so that no file can be found twice."""
        return len(self._inputs.folders) == 1 and not self._inputs.files

    def __iter__(self) -> Iterator[Item]:
        """A named folder that cannot be listed is an item; if there are no other items, it is an
        error."""
        closed: list[Item] = []
        others = False
        for item in self._find():
            if item.error is not None and item.file.location == item.given and not others:
                closed.append(item)
                continue
            yield from closed
            closed, others = [], True
            yield item
        if closed:
            raise UsageError(f"{closed[0].file}: cannot be searched: {closed[0].explain()}")

    def _find(self) -> Iterator[Item]:
        if self.one_folder:
            yield from self._search(self._inputs.folders[0])
            return
        met: set[File] = set()
        for folder in self._inputs.folders:
            for item in self._search(folder):
                if item.file not in met:
                    met.add(item.file)
                    yield item
        identities = {out.identity() for out in self._outs} - {None}
        for file in self._inputs.files:
            if file.suffix == self._suffix and file.folder.identity() in identities:
                raise UsageError(
                    f"{file}: lies in the output folder as its results do; choose another output "
                    "folder or --format"
                )
            if file not in met:
                met.add(file)
                yield Item(file, file.name, file.location)

    def _search(self, folder: Folder) -> Iterator[Item]:
        for found in folder.walk(leave_out=self._outs):
            if found.error is not None or is_picture(found.file):
                below = found.below or found.file.name
                yield Item(found.file, below, folder.location, found.error)
            else:
                self.ignored += 1


def choose_names(items: Sequence[Item]) -> tuple[list[Name], list[str]]:
    """The items' names, and remarks for the user.

    A name is relative to the folder that was named. If that gives two files of different inputs the
    same name, all names are relative to the common parent of the inputs instead: ``may/1.jpg`` and
    ``june/1.jpg``, whether the files or their folders were named.
    """
    root = _find_root({item.given for item in items})
    if root is None:
        return [Name(item.below, item.below) for item in items], []
    apart = ["/".join(item.file.location.split("/")[len(root) :]) for item in items]
    owners: dict[str, str] = {}
    if all(owners.setdefault(fold(item.below), item.given) == item.given for item in items):
        return [Name(item.below, name) for item, name in zip(items, apart, strict=True)], []
    names = [Name(name, item.below) for item, name in zip(items, apart, strict=True)]
    if all(name.below == name.former for name in names):
        return names, []
    folder = "/".join(root) or "/"
    return names, [f"some inputs hold files of the same name; folders below {folder} are kept"]


def _find_root(locations: Collection[str]) -> list[str] | None:
    """Parts of the common parent folder; None for a single location or if there is no parent."""
    folders = [location.split("/")[:-1] for location in locations]
    pairs = zip(min(folders), max(folders), strict=False)
    root = [part for part, other in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return root if len(folders) > 1 and root else None


def is_picture(file: File) -> bool:
    """Whether the suffix, or else the first bytes, are a picture's. Logs the names of others."""
    status = file.status()
    if status is not None and status.kind != "file":
        log.info("%s: left out: not a regular file", file)
        return False
    if file.suffix in SUFFIXES:
        return True
    if file.suffix not in _LEFT_OUT and not file.name.endswith("~"):
        try:
            if looks_like_picture(file.head(HEAD)):
                return True
        except OSError as error:
            log.warning("%s: left out: cannot be read: %s", file, error.strerror)
            return False
    log.info("%s: left out: not a picture", file)
    return False
