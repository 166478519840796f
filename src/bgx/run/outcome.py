"""What became of one picture. Every job ends as exactly one of these."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bgx.errors import BgxError, BugError, InferenceError, PictureError, TooLargeError

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.image.trust import Trust


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to cut out: where it lies and where the result goes.

    review: where a copy goes if the result is doubtful.
    """

    source: Path
    target: Path
    review: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cut-out came to.

    width, height: of the result, pixels. coverage: mean alpha, 0..1. bbox: the subject's left, top,
    right, bottom in pixels, None where there is no subject. trust: in the network's matte, before
    anything was made of it. seconds: by step (read, infer, compose, write). notes: what a person
    should know about the picture.
    """

    width: int
    height: int
    coverage: float
    bbox: tuple[int, int, int, int] | None
    trust: Trust
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The target is written and complete."""

    job: Job
    measured: Measured


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was done, on purpose.

    reason: ``exists`` (the target is there), ``current`` (and not older than the source),
    ``interrupted`` or ``stopped`` (the run ended first).
    """

    job: Job
    reason: Literal["exists", "current", "interrupted", "stopped"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The picture could not be cut out; its target is as it was."""

    job: Job
    error: BgxError


Outcome = Done | Skipped | Failed


def ends_run(error: Exception) -> bool:
    """Whether no other picture will fare better."""
    return isinstance(error, BgxError) and not isinstance(error, PictureError)


def blame(name: str, error: Exception) -> BgxError:
    """What is said of a picture that met an exception which does not name it."""
    match error:
        case InferenceError():
            return InferenceError(f"{name}: {error}")
        case BgxError():
            return error
        case MemoryError():
            return TooLargeError(f"{name}: not enough memory; scale it down or use fewer --workers")
    shown = logging.ERROR if "BGX_DEBUG" in os.environ else logging.DEBUG
    log.log(shown, "unexpected error", exc_info=error)
    bug = BugError(f"{name}: unexpected {error!r}; please report this as a bug")
    bug.__cause__ = error
    return bug
