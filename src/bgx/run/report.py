"""The report of a run: counts outcomes, writes them as JSON lines, and gives the exit code."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from bgx import __version__
from bgx.errors import ExitCode, OutputError
from bgx.run.outcome import Done, Failed, Outcome, Skipped


class Stream(Protocol):
    """Where rows go. name: of the file. Both methods raise OSError."""

    @property
    def name(self) -> str: ...

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


@dataclass(slots=True)
class Report:
    """The counts of a run, and its rows.

    stream: rows are written to it, one JSON object per line, and flushed at once, so that a killed
    run leaves the rows of what it had done; None writes none. model, device, precision: names for
    the last row. ignored: number of files in the input folders that are not pictures.
    """

    model: str
    device: str = ""
    precision: str = ""
    stream: Stream | None = None
    done: int = 0
    skipped: int = 0
    failed: int = 0
    unfinished: int = 0
    doubtful: int = 0
    bugs: int = 0
    ignored: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome and write its row. Raises OutputError, once."""
        match outcome:
            case Done(measured=measured):
                self.done += 1
                self.doubtful += measured.trust.doubtful
            case Skipped(reason="interrupted" | "stopped"):
                self.unfinished += 1
            case Skipped():
                self.skipped += 1
            case Failed(error=error):
                self.failed += 1
                self.bugs += error.exit_code == ExitCode.BUG
        self._write(make_row(outcome))

    def close(self) -> None:
        """Write the last row."""
        self._write(self.summary())

    def summary(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.started
        return {
            "done": self.done,
            "skipped": self.skipped,
            "failed": self.failed,
            "unfinished": self.unfinished,
            "doubtful": self.doubtful,
            "ignored": self.ignored,
            "seconds": round(seconds, 3),
            "pictures_per_second": round(self.done / seconds, 3) if seconds > 0 else 0.0,
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "version": __version__,
        }

    @property
    def exit_code(self) -> ExitCode:
        if self.bugs:
            return ExitCode.BUG
        return ExitCode.PICTURES if self.failed else ExitCode.OK

    def __str__(self) -> str:
        counts = [f"{self.done} done" + (f" ({self.doubtful} doubtful)" if self.doubtful else "")]
        counts += [
            f"{number} {word}"
            for number, word in (
                (self.skipped, "skipped"),
                (self.failed, "failed"),
                (self.unfinished, "not finished"),
            )
            if number
        ]
        summary = self.summary()
        speed = f"{summary['seconds']:.1f} s"
        if self.done:
            speed += f", {summary['pictures_per_second']:.2f} pictures/s"
        return f"{', '.join(counts)} in {speed}" + (f" on {self.device}" if self.device else "")

    def _write(self, row: dict[str, Any]) -> None:
        if self.stream is None:
            return
        try:
            # json writes ASCII, so that undecodable bytes of file names are escaped too.
            self.stream.write(json.dumps(row) + "\n")
            self.stream.flush()
        except OSError as error:
            name, self.stream = self.stream.name, None
            raise OutputError(f"--report {name}: cannot be written: {error.strerror}") from error


def make_row(outcome: Outcome) -> dict[str, Any]:
    """The report's row for one picture; docs/report.md describes the fields."""
    row: dict[str, Any] = {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "status": type(outcome).__name__.lower(),
    }
    match outcome:
        case Skipped(reason=reason):
            row["reason"] = reason
        case Failed(error=error):
            row["error"] = {"code": error.code, "message": str(error)}
        case Done(measured=measured):
            row |= {
                "width": measured.width,
                "height": measured.height,
                "coverage": round(measured.coverage, 4),
                "bbox": measured.bbox,
                "subject": measured.bbox is not None,
                "confidence": round(measured.trust.confidence, 4),
                "touches_border": measured.trust.touches_border,
                "fill": round(measured.trust.fill, 4),
                "subjects": measured.trust.subjects,
                "doubtful": measured.trust.doubtful,
                "seconds": {step: round(s, 4) for step, s in measured.seconds.items()},
            }
            if measured.notes:
                row["notes"] = list(measured.notes)
    return row
