"""``bgx batch``: many pictures into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, put, set_up_logging
from bgx.cli.options import make_request, option, picture_options, split_list
from bgx.errors import ExitCode, OutputError, PictureError, UsageError
from bgx.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from bgx.cli.options import Request
    from bgx.run.plan import Plan
    from bgx.run.report import Report
    from bgx.run.sheet import Sheet


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Output folder.")
@option("--files-from", metavar="FILE|-", help="Read more inputs from a list, one a line.")
@option("--null", "-0", is_flag=True, help="The list is NUL-separated, as of find -print0.")
@option("--workers", type=int, help="Pictures in work at once.  [default: chosen]")
@option("--batch-size", type=int, help="Pictures of one network run on a GPU.  [default: chosen]")
@option("--review", type=click.Path(path_type=Path), help="Folder for copies of doubtful results.")
@option(
    "--sheet",
    type=click.Path(path_type=Path),
    metavar="FILE.html|.jpg",
    help="Contact sheet: before and after, doubtful ones first.",
)
@option("--dry-run", is_flag=True, help="Only print what would be done.")
@picture_options
def batch(
    inputs: tuple[str, ...],
    output: Path,
    files_from: str | None,
    null: bool,
    review: Path | None,
    sheet: Path | None,
    dry_run: bool,
    **options: Any,
) -> ExitCode:
    """Cut out files and folders into a folder.

    Folders are searched with everything below them and their tree is kept. A second run does only
    what is missing.
    """
    request = make_request(**options)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    plan = _plan(inputs, files_from, null, output, request, review=review, sheet=sheet)
    for note in plan.notes:
        console.tell(note)
    if plan.ignored:
        console.tell(f"left out of the folders, for being no pictures: {plan.ignored}")
    if dry_run:
        for job in plan.jobs:
            put(f"{job.source} -> {job.target}")
        console.tell(f"{len(plan.jobs)} to do, {len(plan.skipped)} to skip")
        return ExitCode.OK
    return _run(plan, output, request, console)


def _plan(
    inputs: tuple[str, ...],
    files_from: str | None,
    null: bool,
    output: Path,
    request: Request,
    **outputs: Path | None,
) -> Plan:
    from bgx.image.read import SUFFIXES
    from bgx.run.plan import Plan, expand_patterns, plan_batch

    if null and files_from is None:
        raise UsageError("-0 goes with --files-from; add --files-from -")
    if not inputs and files_from is None:
        raise UsageError("nothing to do; name files or folders, or give --files-from")
    named = list(expand_patterns(inputs))
    if files_from is not None:
        named += map(Path, split_list(_read_list(files_from), null=null))
    if not named:
        # What `find` gives a script on a day without new photos.
        return Plan([], [], ["the list is empty: nothing to do"], 0)
    lists = [Path(files_from)] if files_from not in (None, "-") else []
    return plan_batch(
        named,
        output,
        suffix=f".{request.output.format}",
        suffixes=SUFFIXES,
        existing=request.existing,
        read=[*request.also_read, *lists],
        written=request.also_written,
        **outputs,
    )


def _read_list(name: str) -> bytes:
    if name == "-":
        from bgx.cli.pipes import read_stdin

        return read_stdin()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {name}: cannot be read: {error.strerror}") from error


def _run(plan: Plan, output: Path, request: Request, console: Console) -> ExitCode:
    from bgx.cli.session import open_report
    from bgx.image.write import remove_leftovers
    from bgx.run.report import Report

    _make_folder(output)
    remove_leftovers(plan.folders)
    with open_report(request.report) as stream:
        report = Report(request.model or DEFAULT_MODEL, stream=stream)
        try:
            for outcome in plan.skipped:
                report.add(outcome)
            interrupted = bool(plan.jobs) and _cut(plan, report, request, console)
        finally:
            report.close()
            console.tell(str(report))
    return ExitCode.INTERRUPTED if interrupted else report.exit_code


def _cut(plan: Plan, report: Report, request: Request, console: Console) -> bool:
    """Do the plan's jobs; returns whether it was interrupted."""
    from bgx.cli.session import interruptible, note_network, open_network
    from bgx.run.outcome import Failed, Skipped

    try:
        network = open_network(request, pictures=len(plan.jobs))
        # While it loads.
        from bgx.run.batch import run_batch
        from bgx.run.engine import Engine
        from bgx.run.recipe import Recipe

        recipe = Recipe(request.read, request.output, preview=plan.sheet is not None)
        session = network.wait()
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        for job in plan.jobs:
            report.add(Skipped(job, "interrupted" if interrupted else "stopped"))
        raise
    note_network(report, request, session)
    engine = Engine(lambda _: session, workers=request.device.workers)
    sheet = _open_sheet(plan.sheet)
    with interruptible(console.complain) as stop, console.progress(len(plan.jobs)):
        for outcome in run_batch(plan.jobs, recipe, engine, stop=stop, sheet=sheet):
            report.add(outcome)
            # What ends the run is raised at its end, and said there.
            if isinstance(outcome, Failed) and isinstance(outcome.error, PictureError):
                console.complain(str(outcome.error))
            if not isinstance(outcome, Skipped):
                console.advance(outcome.job.source.name)
        return stop.is_set()


def _open_sheet(path: Path | None) -> Sheet | None:
    if path is None:
        return None
    # It draws and writes text, with modules that nothing else needs.
    from bgx.run.sheet import Sheet

    return Sheet(path)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be made: {error.strerror}; choose another output folder"
        ) from error
