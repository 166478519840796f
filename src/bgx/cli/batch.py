"""``bgx batch``: cuts out many pictures into a folder."""

from __future__ import annotations

import contextlib
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, print_result, set_up_logging
from bgx.cli.request import (
    batch_size_option,
    cluster_options,
    find_broker,
    make_request,
    option,
    picture_options,
    refuse_network,
    review_option,
    split_list,
    workers_option,
)
from bgx.errors import ExitCode, PictureError, UsageError, amount
from bgx.settings import DEFAULT_MODEL
from bgx.storage import open_file, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bgx.cli.interrupt import Interruption
    from bgx.cli.request import Broker, Request
    from bgx.run.batch import Admission
    from bgx.run.outcome import Job, Skipped
    from bgx.run.plan import Plan
    from bgx.run.recipe import Recipe
    from bgx.run.report import Report
    from bgx.run.sheet import Sheet
    from bgx.storage.base import File


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@option("--output", "-o", required=True, metavar="FOLDER", help="Output folder.")
@option("--files-from", metavar="FILE|-", help="Read more inputs from a list, one a line.")
@option("--null", "-0", is_flag=True, help="The list is NUL-separated, as of find -print0.")
@workers_option
@batch_size_option
@review_option
@option(
    "--sheet",
    metavar="FILE.html|.jpg",
    help="Contact sheet: before and after, doubtful ones first.",
)
@cluster_options
@option("--dry-run", is_flag=True, help="Only print what would be done.")
@picture_options
def batch(
    inputs: tuple[str, ...],
    output: str,
    files_from: str | None,
    null: bool,
    review: str | None,
    sheet: str | None,
    broker: str | None,
    queue: str,
    dry_run: bool,
    **options: Any,
) -> ExitCode:
    """Cut out files and folders into a folder.

    Folders are searched with everything below them and their tree is kept. A second run does only
    what is missing.
    """
    request = make_request(**options)
    places = [*inputs, output, files_from, review, sheet, request.report, broker]
    refuse_network(places, offline=request.models.offline)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    workers = find_broker(broker, queue)
    named = _read_inputs(inputs, files_from, null)
    refuse_network(named, offline=request.models.offline)
    plan = _plan(named, files_from, output, review, sheet, request)
    if dry_run:
        _show(plan, console)
        return ExitCode.OK
    return _run(plan, request, console, workers)


def _read_inputs(inputs: tuple[str, ...], files_from: str | None, null: bool) -> list[str]:
    from bgx.run.sources import expand_patterns

    if null and files_from is None:
        raise UsageError("-0 needs --files-from; add --files-from -")
    if not inputs and files_from is None:
        raise UsageError("nothing to do; name files or folders, or give --files-from")
    listed = split_list(_read_list(files_from), null=null) if files_from is not None else []
    return [*expand_patterns(inputs), *listed]


def _plan(
    inputs: list[str],
    files_from: str | None,
    output: str,
    review: str | None,
    sheet: str | None,
    request: Request,
) -> Plan:
    from bgx.run.plan import Plan, plan_batch

    if not inputs:
        # Not an error: a script's `find` may find nothing new.
        return Plan([], [], ["the list is empty: nothing to do"])
    return plan_batch(
        inputs,
        open_folder(output),
        suffix=f".{request.output.format}",
        existing=request.existing,
        review=open_folder(review) if review is not None else None,
        sheet=open_file(sheet) if sheet is not None else None,
        read=[*request.also_read, *([files_from] if files_from not in (None, "-") else [])],
        written=request.also_written,
    )


def _read_list(name: str) -> bytes:
    if name == "-":
        from bgx.cli.pipes import read_stdin

        return read_stdin()
    try:
        with open_file(name).open() as stream:
            return stream.read()
    except OSError as error:
        raise UsageError(f"--files-from {name}: cannot be read: {error.strerror}") from error


def _show(plan: Plan, console: Console) -> None:
    """Print what would be done."""
    jobs = skipped = ignored = 0
    for part in plan.parts():
        for note in part.notes:
            console.print_note(note)
        for job in part.jobs:
            print_result(f"{job.source} -> {job.target}")
        jobs += len(part.jobs)
        skipped += len(part.skipped)
        ignored += part.ignored
    _tell_ignored(ignored, console)
    console.print_note(f"{jobs} to do, {skipped} to skip")


def _tell_ignored(ignored: int, console: Console) -> None:
    if ignored:
        what = (
            "is not a picture; -v names it" if ignored == 1 else "are not pictures; -v names them"
        )
        console.print_note(f"{amount(ignored, 'file')} in the folders {what}")


def _run(plan: Plan, request: Request, console: Console, broker: Broker | None) -> ExitCode:
    from bgx.cli.interrupt import interruptible
    from bgx.cli.report_file import open_report
    from bgx.run.report import Report

    plan.prepare()
    with interruptible(console.print_error) as interruption, contextlib.ExitStack() as opened:
        with interruption.raising():  # opening a pipe waits for a reader
            stream = opened.enter_context(open_report(request.report))
        report = Report(request.model or DEFAULT_MODEL, stream=stream)
        try:
            parts = plan.parts()
            for part in parts:
                _announce(part, report, console)
                if part is not plan:
                    part.prepare()
                for outcome in part.skipped:
                    report.add(outcome)
                if part.jobs:
                    _cut(part, parts, report, request, console, interruption, broker)
                if interruption.stopped():
                    break
        finally:
            report.close()
            _tell_ignored(report.ignored, console)
            console.print_note(str(report))
    return ExitCode.INTERRUPTED if interruption.stopped() else report.exit_code


def _announce(part: Plan, report: Report, console: Console) -> None:
    for note in part.notes:
        console.print_note(note)
    report.ignored += part.ignored
    console.expect(len(part.jobs))


def _cut(
    part: Plan,
    others: Iterator[Plan],
    report: Report,
    request: Request,
    console: Console,
    interruption: Interruption,
    broker: Broker | None,
) -> None:
    """Cut out the pictures of this part and of the other parts, or have workers do it."""
    with contextlib.ExitStack() as opened:
        with _reporting_all(part, report), interruption.raising():
            from bgx.cli.loading import open_engine

            sheet = _open_sheet(part.sheet)
            engine, recipe = opened.enter_context(
                open_engine(
                    request,
                    report,
                    console,
                    broker,
                    pictures=len(part.jobs),
                    remote=part.remote,
                    preview=sheet is not None,
                )
            )
        _add_outcomes(part, others, report, recipe, engine, sheet, console, interruption)


@contextlib.contextmanager
def _reporting_all(part: Plan, report: Report) -> Iterator[None]:
    """If the block fails, report all jobs of the part as skipped."""
    from bgx.run.outcome import Skipped

    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        for job in part.jobs:
            report.add(Skipped(job, "interrupted" if interrupted else "stopped"))
        raise


def _add_outcomes(
    part: Plan,
    others: Iterator[Plan],
    report: Report,
    recipe: Recipe,
    engine: Admission,
    sheet: Sheet | None,
    console: Console,
    interruption: Interruption,
) -> None:
    """Cut out the pictures, and report each outcome as it comes."""
    from bgx.run.batch import run_batch
    from bgx.run.outcome import Failed, Skipped

    def begin(other: Plan) -> list[Job | Skipped]:
        _announce(other, report, console)
        return other.begin()

    work: Iterator[Sequence[Job | Skipped]] = chain([part.jobs], map(begin, others))
    with console.progress():
        for outcome in run_batch(work, recipe, engine, stop=interruption.stopped, sheet=sheet):
            report.add(outcome)
            # Other errors end the run, and are raised and printed at its end.
            if isinstance(outcome, Failed) and isinstance(outcome.error, PictureError):
                console.print_error(str(outcome.error))
            if not isinstance(outcome, Skipped):
                console.advance(PurePath(str(outcome.job.source)).name)


def _open_sheet(file: File | None) -> Sheet | None:
    if file is None:
        return None
    # Imported here: most runs need none.
    from bgx.run.sheet import Sheet

    return Sheet(file)
