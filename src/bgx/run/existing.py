"""Which results exist and need not be made again, and which files must not be overwritten."""

from __future__ import annotations

import time
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Literal

from bgx.errors import UsageError
from bgx.storage.base import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bgx.settings import Existing
    from bgx.storage.base import File, Status


def find_result(target: File) -> Status | None:
    """The status of an existing result, None if there is none.

    An empty file does not count: a power cut can leave one. The status may be from the time when
    the target's folder was listed.
    """
    status = target.status()
    return status if status is not None and status.kind == "file" and status.size else None


def skip_existing(
    source: File | None, target: File, existing: Existing, *, moved: bool = False
) -> Literal["exists", "current"] | None:
    """Why the target need not be made again; None if it must be.

    source: None for stdin. moved: sources are moved away when they are done, so a source that was
    put into its folder after the result was made is another one.
    """
    if existing == "overwrite":
        return None
    result = find_result(target)
    if result is None:
        return None
    if existing == "skip":
        return "exists"
    status = source.status() if source is not None else None
    if status is None:
        return None  # reading it will report what is wrong
    # A photo that a wrong clock dated in the future would always be newer than its result.
    dated = status.arrived if moved or status.modified > time.time_ns() else status.modified
    return "current" if result.modified >= dated else None


def refuse_overwriting(
    read: Iterable[File], written: Sequence[File], *, targets: Sequence[File]
) -> None:
    """Raise UsageError if a file that is written is also read, or is written twice.

    targets: also written; their names are known to differ. Files that do not exist yet can only be
    compared by name.
    """
    inputs = {file.identity() for file in read} - {None}
    for file in chain(targets, written):
        if file.identity() in inputs:
            raise UsageError(
                f"{file}: would overwrite an input; choose another output folder or another name"
            )
    if not written:
        return
    places = Counter(fold(file.location) for file in chain(targets, written))
    for file in written:
        if places[fold(file.location)] > 1:
            raise UsageError(f"{file}: would be written twice; choose another name")
