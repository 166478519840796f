"""The outcome of a job: Done, Skipped or Failed. Every job ends as exactly one of them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from bgx.errors import BgxError, BugError, InferenceError, PictureError, TooLargeError

if TYPE_CHECKING:
    from bgx.run.cutout import Cutout, Measured
    from bgx.storage.base import Source, Target

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One picture to cut out.

    target: where the result is written; None keeps it in memory (:attr:`Done.cutout`). review:
    where a copy of a doubtful result is written. create: do not overwrite a target that exists by
    then.
    """

    source: Source
    target: Target | None = None
    review: Target | None = None
    create: bool = False


class Done(NamedTuple):
    """The picture is cut out and the target is completely written.

    cutout: the finished picture, if the job has no target. preview: a small JPEG of the picture
    before and after, if the recipe asks for one.
    """

    job: Job
    measured: Measured
    cutout: Cutout | None = None
    preview: bytes | None = None


class Skipped(NamedTuple):
    """The picture was not cut out, on purpose.

    reason: ``exists`` (the target exists), ``current`` (it exists and is not older than the
    source), ``interrupted`` (by the user) or ``stopped`` (an error ended the run).
    """

    job: Job
    reason: Literal["exists", "current", "interrupted", "stopped"]


class Failed(NamedTuple):
    """The picture could not be cut out; its target is unchanged."""

    job: Job
    error: BgxError


Outcome = Done | Skipped | Failed


def as_done(outcome: Outcome) -> Done:
    """The outcome of a job that cannot be skipped. Raises the error if it failed."""
    match outcome:
        case Done():
            return outcome
        case Failed(error=error):
            raise error
    raise AssertionError("only a job with `create`, and one of a run that ended, is skipped")


def ends_run(error: Exception) -> bool:
    """Whether the error would occur for every later picture too."""
    return isinstance(error, BgxError) and not isinstance(error, PictureError)


def as_picture_error(name: str, error: Exception) -> BgxError:
    """Convert any exception into the error that is reported for the picture ``name``."""
    match error:
        case InferenceError():
            return InferenceError(f"{name}: {error}")
        case BgxError():
            return error
        case MemoryError():
            return TooLargeError(f"{name}: not enough memory; scale it down or use fewer --workers")
        case OSError(errno=int()):
            return InferenceError(f"{name}: cannot be cut out: {error.strerror}")
    level = logging.ERROR if "BGX_DEBUG" in os.environ else logging.DEBUG
    log.log(level, "unexpected error", exc_info=error)
    bug = BugError(f"{name}: unexpected {error!r}; please report this as a bug")
    bug.__cause__ = error
    return bug
