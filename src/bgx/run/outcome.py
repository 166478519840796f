"""What became of one picture. Every job ends as exactly one of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.errors import BgxError
    from bgx.image.trust import Trust


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
