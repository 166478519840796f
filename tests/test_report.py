"""The report: every row valid JSON, the counts right, the exit code that follows from them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx import __version__
from bgx.errors import BugError, ExitCode, OutputError, UnreadableError
from bgx.image.trust import Trust
from bgx.run.cutout import Measured
from bgx.run.outcome import Done, Failed, Job, Outcome, Skipped
from bgx.run.report import Report, make_row

if TYPE_CHECKING:
    from collections.abc import Sequence

JOB = Job(Path("in/a.jpg"), Path("out/a.png"))
TRUST = Trust(0.976543, ("left", "bottom"), 0.654321, 2)
NOTHING = Trust(0.0, (), 0.0, 0)
MEASURED = Measured(
    640, 480, 0.123456, (10, 20, 300, 400), TRUST, {"read": 0.01234567, "write": 0.5}
)

done = Done(JOB, MEASURED)
failed = Failed(JOB, UnreadableError("in/a.jpg: is empty (0 bytes)"))
bug = Failed(JOB, BugError("in/a.jpg: unexpected KeyError('x')"))
exists, current = Skipped(JOB, "exists"), Skipped(JOB, "current")
interrupted, stopped = Skipped(JOB, "interrupted"), Skipped(JOB, "stopped")
KINDS: list[Outcome] = [done, failed, bug, exists, current, interrupted, stopped]


def write(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The rows of a whole report."""
    stream = io.StringIO()
    report = Report("u2net", device="cpu", precision="int8", stream=stream)
    for outcome in outcomes:
        report.add(outcome)
    report.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_row_of_a_picture_that_was_cut_out() -> None:
    assert make_row(done) == {
        "source": str(JOB.source),
        "target": str(JOB.target),
        "status": "done",
        "width": 640,
        "height": 480,
        "coverage": 0.1235,
        "bbox": (10, 20, 300, 400),
        "subject": True,
        "confidence": 0.9765,
        "touches_border": ("left", "bottom"),
        "fill": 0.6543,
        "subjects": 2,
        "doubtful": False,
        "seconds": {"read": 0.0123, "write": 0.5},
    }


def test_the_row_of_a_picture_without_a_subject() -> None:
    row = make_row(Done(JOB, Measured(640, 480, 0.0, None, NOTHING)))

    assert (row["subject"], row["bbox"], row["coverage"]) == (False, None, 0.0)


def test_what_a_person_should_know_is_in_the_row() -> None:
    measured = Measured(1, 1, 0.0, None, NOTHING, notes=("first frame of several",))

    assert make_row(Done(JOB, measured))["notes"] == ["first frame of several"]


def test_the_row_of_a_picture_that_failed() -> None:
    row = make_row(failed)

    assert row["status"] == "failed"
    assert row["error"] == {"code": "unreadable", "message": "in/a.jpg: is empty (0 bytes)"}


@pytest.mark.parametrize("outcome", [exists, current, interrupted, stopped])
def test_the_row_of_a_picture_that_was_skipped(outcome: Skipped) -> None:
    row = make_row(outcome)

    assert (row["status"], row["reason"]) == ("skipped", outcome.reason)


@given(st.lists(st.sampled_from(KINDS), max_size=20))
def test_a_row_each_and_counts_that_add_up(outcomes: list[Outcome]) -> None:
    *rows, last = write(outcomes)

    assert len(rows) == len(outcomes)
    assert last["done"] == outcomes.count(done)
    assert last["failed"] == outcomes.count(failed) + outcomes.count(bug)
    assert last["skipped"] == outcomes.count(exists) + outcomes.count(current)
    assert last["unfinished"] == outcomes.count(interrupted) + outcomes.count(stopped)


def test_the_last_row() -> None:
    [last] = write([])

    assert {key: last[key] for key in ("model", "device", "precision", "version")} == {
        "model": "u2net",
        "device": "cpu",
        "precision": "int8",
        "version": __version__,
    }
    assert last["seconds"] >= 0
    assert last["pictures_per_second"] == 0


@given(st.binary(min_size=1, max_size=12))
def test_any_name_of_a_file_makes_one_valid_row(name: bytes) -> None:
    path = Path(name.decode("utf-8", "surrogateescape"))

    [row, _] = write([Skipped(Job(path, path), "exists")])

    assert row["source"] == str(path)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], ExitCode.OK),
        ([done, exists, current], ExitCode.OK),
        ([done, failed], ExitCode.PICTURES),
        ([failed, bug, done], ExitCode.BUG),
    ],
)
def test_exit_code(outcomes: list[Outcome], expected: ExitCode) -> None:
    report = Report("u2net")
    for outcome in outcomes:
        report.add(outcome)

    assert report.exit_code == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], "0 done in "),
        ([done, done, exists], "2 done, 1 skipped in "),
        ([failed, interrupted], "0 done, 1 failed, 1 not finished in "),
    ],
)
def test_the_summary_is_one_line(outcomes: list[Outcome], expected: str) -> None:
    report = Report("u2net", device="cuda:0")
    for outcome in outcomes:
        report.add(outcome)

    line = str(report)

    assert line.startswith(expected)
    assert line.endswith(" on cuda:0")
    assert ("pictures/s" in line) == (done in outcomes)


class FullDisk(io.StringIO):
    """Takes one row and no more."""

    name = "rows.jsonl"

    def write(self, text: str) -> int:
        if self.tell():
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_report_that_cannot_be_written_says_so_once() -> None:
    stream = FullDisk()
    report = Report("u2net", stream=stream)
    report.add(done)

    with pytest.raises(OutputError, match=r"--report rows.jsonl: .*No space left on device"):
        report.add(failed)

    report.close()
    assert (report.done, report.failed) == (1, 1)
    assert len(stream.getvalue().splitlines()) == 1


def test_rows_are_there_as_soon_as_they_are_added(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        Report("u2net", stream=stream).add(done)

        assert json.loads(path.read_text(encoding="utf-8"))["status"] == "done"
